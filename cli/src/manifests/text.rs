//! A policy that is the text of a string in a file: maps each of its bytes to a byte of the file.

use std::ops::Range;

/// The place in the file of a span of a string's text.
pub fn outer(span: &Range<usize>, bytes: &[usize]) -> Range<usize> {
    let at = |inner: usize| bytes.get(inner).or(bytes.last()).copied().unwrap_or(0);
    let start = at(span.start);
    // Ends after the last byte, not before the following one: there may be a line break between them.
    let end = span.end.checked_sub(1).filter(|last| *last >= span.start).map_or(start, |last| at(last) + 1);
    start..end.max(start)
}

/// For each byte of a scalar's `text`, the byte of the file that it comes from; `raw` is the scalar as written in the
/// file, at `start`. Skips indentation, quotes and escapes; in unusual notations, places may be off by a few bytes.
pub fn align(text: &str, raw: &str, start: usize) -> Vec<usize> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = if raw.starts_with(['|', '>']) { raw.find('\n').map_or(0, |end| end + 1) } else { 0 };
    for c in text.chars() {
        let rest = raw.get(at..).unwrap_or_default();
        let found = match c {
            '\n' => rest
                .find(['\n', '\\'])
                .map(|skip| (skip, if rest.get(skip..).is_some_and(|r| r.starts_with('\\')) { 2 } else { 1 })),
            ' ' | '\t' => rest.starts_with(c).then_some((0, 1)),
            _ => {
                let skip = rest.len() - rest.trim_start().len();
                let here = rest.get(skip..).unwrap_or_default();
                if here.starts_with(c) {
                    Some((skip, c.len_utf8()))
                } else if here.get(1..).is_some_and(|next| here.starts_with(['\\', '\'', '"']) && next.starts_with(c)) {
                    Some((skip, 1 + c.len_utf8()))
                } else {
                    None
                }
            }
        };
        let (place, next) = found.map_or((at, at), |(skip, length)| (at + skip, at + skip + length));
        bytes.extend(std::iter::repeat_n(start + place, c.len_utf8()));
        at = next;
    }
    bytes
}
