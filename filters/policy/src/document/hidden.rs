//! Characters that a reader does not see or that change how a line reads: refused in names, escaped in what is printed.

use std::borrow::Cow;
use std::ops::RangeInclusive;

/// Characters without a glyph of their own beside the control characters, by code point: separators of lines and
/// paragraphs, bidirectional controls, zero-width characters, and what else Unicode lets a renderer leave out
/// (Default_Ignorable_Code_Point of Unicode 16, and the interlinear annotations).
const HIDDEN: [RangeInclusive<char>; 22] = [
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{61c}'..='\u{61c}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
    // Code points that are not characters: they are displayed as nothing or as a box.
    '\u{fdd0}'..='\u{fdef}',
    '\u{fffe}'..='\u{ffff}',
    '\u{1fffe}'..='\u{1ffff}',
    '\u{2fffe}'..='\u{2ffff}',
    '\u{10fffe}'..='\u{10ffff}',
];

/// Whether a reader does not see `c`, or it breaks or reorders the line.
pub fn is_hidden(c: char) -> bool {
    // Most characters end here.
    c.is_control() || (c >= '\u{ad}' && HIDDEN.iter().any(|range| range.contains(&c)))
}

/// `text` with every hidden character in the form in which JSON escapes it, such as `\u200b`: one line, which reads in
/// the order in which it is written.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_nobody_sees_is_hidden_and_letters_of_any_script_are_not() {
        let hidden = "\0\t\n\u{7f}\u{85}\u{9f}\u{ad}\u{61c}\u{180e}\u{200b}\u{200d}\u{200e}\u{2028}\u{2029}\u{202e}\
                      \u{2060}\u{2066}\u{2069}\u{3164}\u{fe0f}\u{feff}\u{fff9}\u{1d173}\u{e0041}\u{ffff}";
        for c in hidden.chars() {
            assert!(is_hidden(c), "{:x}", c as u32);
        }
        for c in " aÄéя名ع한😀\u{a0}\u{301}-_.".chars() {
            assert!(!is_hidden(c), "{:x}", c as u32);
        }
    }

    #[test]
    fn what_is_printed_shows_hidden_characters_as_json_escapes_them() {
        assert_eq!(visible("plain é"), "plain é");
        assert_eq!(visible("a\u{202e}b\nc\u{e0041}"), "a\\u202eb\\u000ac\\udb40\\udc41");
        let json = format!("\"{}\"", visible("a\u{202e}b\u{e0041}"));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), "a\u{202e}b\u{e0041}");
    }
}
