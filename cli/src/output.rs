//! Standard output as every subcommand writes it: buffered, coloured only on a terminal.

use std::io::{self, BufWriter, Write};

use anstream::{AutoStream, ColorChoice};

/// The styles of human output. Text is written with them always; [`Output::human`] takes them out where nobody wants
/// them.
pub mod style {
    use anstyle::{AnsiColor, Style};

    /// What passes, what holds.
    pub const GOOD: Style = AnsiColor::Green.on_default().bold();
    /// What is refused, what fails.
    pub const BAD: Style = AnsiColor::Red.on_default().bold();
    /// What wants a second look.
    pub const WARN: Style = AnsiColor::Yellow.on_default().bold();
    /// A heading.
    pub const HEAD: Style = Style::new().bold();
    /// The name of a rule, a limit, a host.
    pub const NAME: Style = AnsiColor::Cyan.on_default();
    /// What only some readers need.
    pub const DIM: Style = Style::new().dimmed();
}

/// Where a subcommand writes its data.
pub struct Output<'w> {
    writer: Box<dyn Write + 'w>,
    color: bool,
}

impl<'w> Output<'w> {
    /// Standard output, with colour on a terminal unless `NO_COLOR` or `CLICOLOR` say otherwise (`CLICOLOR_FORCE`: also
    /// elsewhere).
    pub fn stdout() -> Output<'static> {
        let stdout = io::stdout();
        let color = AutoStream::choice(&stdout) != ColorChoice::Never;
        Output { writer: Box::new(BufWriter::with_capacity(1 << 16, stdout.lock())), color }
    }

    /// Any other place, without colour.
    pub fn plain(writer: impl Write + 'w) -> Output<'w> {
        Output { writer: Box::new(writer), color: false }
    }

    /// Writes text with styles, or without them where there is no colour.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn human(&mut self, text: &str) -> io::Result<()> {
        match self.color {
            true => self.writer.write_all(text.as_bytes()),
            false => write!(self.writer, "{}", anstream::adapter::strip_str(text)),
        }
    }
}

impl Write for Output<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.writer.write(buffer)
    }

    fn write_all(&mut self, buffer: &[u8]) -> io::Result<()> {
        self.writer.write_all(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Whether `error` is that the reader of our output has gone (`| head`): nothing is wrong then.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref::<io::Error>() {
        Some(error) => error.kind() == io::ErrorKind::BrokenPipe,
        None => {
            cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind)
                == Some(io::ErrorKind::BrokenPipe)
        }
    })
}

/// `3 errors`, `1 error`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
