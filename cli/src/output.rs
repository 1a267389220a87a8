//! Standard output of every subcommand: buffered, and coloured only on a terminal.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use anstream::{AutoStream, ColorChoice};
use penstock_policy::document::{is_hidden, visible};
use serde::Serialize;

use crate::words::thousands;

/// The styles of human-readable output. Text is always written with styles; [`Output::human`] removes them where colour
/// is off.
pub mod style {
    use anstyle::{AnsiColor, Style};

    /// For what passes or is true.
    pub const GOOD: Style = AnsiColor::Green.on_default().bold();
    /// For what is refused or fails.
    pub const BAD: Style = AnsiColor::Red.on_default().bold();
    /// For what needs attention.
    pub const WARN: Style = AnsiColor::Yellow.on_default().bold();
    /// For headings.
    pub const HEAD: Style = Style::new().bold();
    /// For names of rules, limits and hosts.
    pub const NAME: Style = AnsiColor::Cyan.on_default();
    /// For details that only some users need.
    pub const DIM: Style = Style::new().dimmed();
}

/// Escapes invisible characters, except line breaks, tabs and styles.
fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| is_hidden(c) && !matches!(c, '\n' | '\t')) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for (at, c) in text.char_indices() {
        match c {
            '\n' | '\t' => out.push(c),
            '\u{1b}' if is_style(text.get(at + 1..).unwrap_or_default()) => out.push(c),
            _ => out += &visible(c.encode_utf8(&mut [0; 4])),
        }
    }
    out.into()
}

/// Whether an escape sequence sets a colour or weight, as styles do. Others move the cursor, hide text or set a title,
/// and may come from a request's header.
fn is_style(rest: &str) -> bool {
    let Some((parameters, _)) = rest.strip_prefix('[').and_then(|rest| rest.split_once('m')) else { return false };
    // One of 256 colours, or weights and colours; not blinking, inverted or hidden text.
    let is_number = |number: &str| number.len() <= 3 && number.bytes().all(|byte| byte.is_ascii_digit());
    match parameters.strip_prefix("38;5;") {
        Some(colour) => is_number(colour),
        None => parameters.len() <= 12 && parameters.split(';').all(|n| is_number(n) && !matches!(n, "5" | "7" | "8")),
    }
}

/// The output of a subcommand. When the reader of a pipe ends (`| head`), the rest is dropped without an error: the
/// exit status still shows the result.
pub struct Output<'w> {
    writer: Box<dyn Write + 'w>,
    color: bool,
    reader_gone: bool,
}

impl<'w> Output<'w> {
    /// Standard output, with colour on a terminal unless `NO_COLOR` or `CLICOLOR` disable it (`CLICOLOR_FORCE` enables
    /// it elsewhere).
    pub fn stdout() -> Output<'static> {
        let stdout = io::stdout();
        let color = AutoStream::choice(&stdout) != ColorChoice::Never;
        let writer = Box::new(BufWriter::with_capacity(1 << 16, stdout.lock()));
        Output { writer, color, reader_gone: false }
    }

    /// Any other writer, without colour.
    pub fn plain(writer: impl Write + 'w) -> Output<'w> {
        Output { writer: Box::new(writer), color: false, reader_gone: false }
    }

    /// Writes text with styles; removes them when colour is off.
    ///
    /// # Errors
    /// Returns an error when it cannot be written.
    pub fn human(&mut self, text: &str) -> io::Result<()> {
        let text = shown(text);
        match self.color {
            true => self.write_all(text.as_bytes()),
            false => write!(self, "{}", anstream::adapter::strip_str(&text)),
        }
    }

    /// Writes a value as JSON on several lines, with invisible characters escaped.
    ///
    /// # Errors
    /// Returns an error when it cannot be written.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        writeln!(self, "{}", shown(&text))
    }

    /// The same on one line.
    ///
    /// # Errors
    /// Returns an error when it cannot be written.
    pub fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(value)?;
        self.write_all(shown(&text).as_bytes())?;
        self.write_all(b"\n")
    }

    /// Whether the reader has ended, so that a long output may stop.
    pub fn reader_is_gone(&self) -> bool {
        self.reader_gone
    }

    fn unless_gone<T>(&mut self, done: T, write: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> io::Result<T> {
        if self.reader_gone {
            return Ok(done);
        }
        match write(&mut *self.writer) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.reader_gone = true;
                Ok(done)
            }
            result => result,
        }
    }
}

impl Write for Output<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.unless_gone(buffer.len(), |writer| writer.write(buffer))
    }

    fn write_all(&mut self, buffer: &[u8]) -> io::Result<()> {
        self.unless_gone((), |writer| writer.write_all(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_gone((), |writer| writer.flush())
    }
}

/// Returns `3 errors` or `1 error`.
pub fn count(n: usize, what: &str) -> String {
    format!("{} {what}{}", thousands(n as u64), if n == 1 { "" } else { "s" })
}

/// Removes error numbers such as ` (os error 2)`, which do not help users.
pub fn without_numbers(message: &str) -> String {
    let mut text = String::new();
    let mut rest = message;
    while let Some((before, after)) = rest.split_once(" (os error ") {
        text += before;
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_escaped_but_not_line_breaks_and_styles() {
        let mut written = Vec::new();
        Output::plain(&mut written).human("a\u{202e}b\n\u{1b}[1mc\u{1b}[0m\u{2028}").unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), "a\\u202eb\nc\\u2028");
    }

    #[test]
    fn sequences_that_move_hide_or_name_are_shown_and_not_obeyed() {
        for sequence in
            ["\u{1b}[2J", "\u{1b}]0;title\u{7}", "\u{1b}[8m", "\u{1b}[1;8m", "\u{1b}c", "\u{1b}[", "\u{9b}2J"]
        {
            let mut written = Vec::new();
            let mut output = Output { color: true, ..Output::plain(&mut written) };
            output.human(&format!("a{sequence}b")).unwrap();
            output.json(&sequence).unwrap();
            output.json_line(&[sequence]).unwrap();
            drop(output);
            let written = String::from_utf8(written).unwrap();
            assert!(
                written.starts_with("a\\u00") && !written.contains(|c: char| c != '\n' && c.is_control()),
                "{written:?}"
            );
        }
        let mut written = Vec::new();
        let style = format!("{}x{:#} \u{1b}[38;5;9my", style::BAD, style::BAD);
        let mut output = Output { color: true, ..Output::plain(&mut written) };
        output.human(&style).unwrap();
        drop(output);
        assert_eq!(String::from_utf8(written).unwrap(), style);
    }
}
