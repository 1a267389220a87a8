//! The output of the demo: headings and aligned tables, in colour on a terminal.

use std::env;
use std::io::{self, IsTerminal, Write};

/// A text style of the terminal.
#[derive(Clone, Copy, Debug)]
pub(super) enum TextStyle {
    Bold,
    Dim,
    Good,
    Bad,
}

/// Standard output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    coloured: bool,
}

/// The column widths of a table; the last column has no limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Widths {
    pub(super) request: usize,
    pub(super) answer: usize,
}

impl Screen {
    /// Uses colour on a terminal, unless `NO_COLOR` is set.
    pub(super) fn new() -> Self {
        let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Screen { coloured: io::stdout().is_terminal() && !set("NO_COLOR") && !dumb }
    }

    /// Prints a line. Ignores errors: the reader may have closed the output.
    pub(super) fn line(&self, text: &str) {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    /// Formats text in a style.
    pub(super) fn paint(&self, style: TextStyle, text: &str) -> String {
        let code = match style {
            TextStyle::Bold => "1",
            TextStyle::Dim => "2",
            TextStyle::Good => "32",
            TextStyle::Bad => "1;31",
        };
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Prints the heading of a section.
    pub(super) fn title(&self, text: &str) {
        self.line("");
        self.line(&self.paint(TextStyle::Bold, text));
    }

    /// Prints the header row of a table.
    pub(super) fn heads(&self, widths: Widths) {
        self.line("");
        let heads = format!("    {}  {}  {}", pad("request", widths.request), pad("answer", widths.answer), "why");
        self.line(&self.paint(TextStyle::Dim, &heads));
    }

    /// Prints a row of a table.
    pub(super) fn row(&self, widths: Widths, right: bool, request: &str, answer: &str, why: &str) {
        let (style, mark) = if right { (TextStyle::Good, "✓") } else { (TextStyle::Bad, "✗") };
        let (mark, answer) = (self.paint(style, mark), self.paint(style, &pad(answer, widths.answer)));
        self.line(&format!("  {mark} {}  {answer}  {why}", pad(request, widths.request)));
    }
}

/// The width of text in which each character takes one column.
pub(super) fn width(text: &str) -> usize {
    text.chars().count()
}

fn pad(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(width(text))))
}
