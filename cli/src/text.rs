//! A text with an index of its lines, for code that reports many places by line and column.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// A text with an index of its lines: finding a place takes the same time everywhere, and clones share the text.
#[derive(Clone)]
pub struct SourceText(Arc<Inner>);

struct Inner {
    text: String,
    /// The offset of each line.
    lines: Vec<usize>,
    /// The number of characters before every [`STRIDE`]th byte; empty when the text is ASCII.
    characters: Vec<usize>,
}

const STRIDE: usize = 1024;

impl SourceText {
    /// Indexes the lines of a text.
    pub fn new(text: impl Into<String>) -> SourceText {
        let text = text.into();
        let lines = std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1)).collect();
        let characters = match text.is_ascii() {
            true => Vec::new(),
            false => {
                let starts = |bytes: &[u8]| bytes.iter().filter(|byte| (**byte as i8) >= -0x40).count();
                let mut before = 0;
                let chunks = text.as_bytes().chunks(STRIDE).map(|bytes| {
                    let so_far = before;
                    before += starts(bytes);
                    so_far
                });
                chunks.collect()
            }
        };
        SourceText(Arc::new(Inner { text, lines, characters }))
    }

    /// Line and column of a byte, both starting at 1; the column counts characters.
    pub fn position(&self, at: usize) -> (usize, usize) {
        let at = at.min(self.len());
        let line = self.0.lines.partition_point(|start| *start <= at);
        let start = line.checked_sub(1).and_then(|line| self.0.lines.get(line)).copied().unwrap_or(0);
        (line.max(1), self.characters_before(at).saturating_sub(self.characters_before(start)) + 1)
    }

    fn characters_before(&self, at: usize) -> usize {
        if self.0.characters.is_empty() {
            return at;
        }
        let chunk = (at / STRIDE).min(self.0.characters.len().saturating_sub(1));
        let rest = self.as_bytes().get(chunk * STRIDE..at).unwrap_or_default();
        let starts = rest.iter().filter(|byte| (**byte as i8) >= -0x40).count();
        self.0.characters.get(chunk).copied().unwrap_or(0) + starts
    }

    /// The bytes of the line that contains a byte, without its end.
    pub fn line(&self, at: usize) -> Range<usize> {
        let after = self.0.lines.partition_point(|start| *start <= at);
        let start = after.checked_sub(1).and_then(|line| self.0.lines.get(line)).copied().unwrap_or(0);
        let end = self.0.lines.get(after).map_or(self.len(), |next| next - 1);
        start..end
    }
}

impl Deref for SourceText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.text
    }
}

impl fmt::Debug for SourceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text of {} bytes", self.len())
    }
}

impl From<&str> for SourceText {
    fn from(text: &str) -> SourceText {
        SourceText::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_from_one_in_characters() {
        let text = SourceText::new("a\nüb\r\n\nc");
        for (at, line, column) in
            [(0, 1, 1), (1, 1, 2), (2, 2, 1), (4, 2, 2), (7, 3, 1), (8, 4, 1), (9, 4, 2), (99, 4, 2)]
        {
            assert_eq!(text.position(at), (line, column), "{at}");
        }
        assert_eq!((text.line(4), text.line(7), text.line(8)), (2..6, 7..7, 8..9));
        assert_eq!(SourceText::new("").position(0), (1, 1));
    }

    #[test]
    fn a_long_line_of_any_alphabet_is_counted_like_a_short_one() {
        let long = "aé😀".repeat(3_000);
        let text = SourceText::new(format!("x\n{long}"));
        for (i, (at, _)) in long.char_indices().enumerate() {
            assert_eq!(text.position(at + 2), (2, i + 1));
        }
    }
}
