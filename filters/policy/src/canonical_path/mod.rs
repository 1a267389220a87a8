//! The canonical path, which path rules match and which is then forwarded. `egress` always works with it, the other
//! sections with `settings.path: Canonical`.
//!
//! Steps in this order: escapes of unreserved characters and `%3B` decoded (RFC 3986 §6.2.2.2), other escapes in
//! upper case (§6.2.2.1), `;params` dropped from each segment, empty segments merged, dot segments resolved
//! (§5.2.4). An escape that decodes to a delimiter, or to what Unicode's NFKC makes one, or that two decoders read
//! differently, has no canonical form.

mod nfkc;

use std::borrow::Cow;

use crate::reason::Reason;
use nfkc::becomes_delimiter;

/// Why a path has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// `%` without two hexadecimal digits.
    Escape,
    /// `%2F`, `%5C`, `%00` or `%25`, or a character that NFKC makes `.`, `/`, `\`, `%` or `;`: the next decoder would
    /// see another path.
    Delimiter,
    /// The escapes do not decode to UTF-8, overlong forms included.
    NotUtf8,
    /// `..` above the root.
    AboveRoot,
}

impl BadPath {
    /// The reason that a decision gives.
    pub const fn reason(self) -> Reason {
        match self {
            BadPath::Escape => Reason::PathEscapeMalformed,
            BadPath::Delimiter => Reason::PathEscapesDelimiter,
            BadPath::NotUtf8 => Reason::PathNotUtf8,
            BadPath::AboveRoot => Reason::PathAboveRoot,
        }
    }
}

/// The canonical form of `path`, which begins with `/` and is visible ASCII. Borrowed when it is the path itself.
///
/// # Errors
/// When it has none.
pub fn canonical(path: &[u8]) -> Result<Cow<'_, [u8]>, BadPath> {
    if is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path)?;
    let resolved = resolve(&decoded)?;
    Ok(if resolved == path { Cow::Borrowed(path) } else { Cow::Owned(resolved) })
}

/// Whether nothing in `path` could be changed: no escape, no params, no empty segment, none that begins with a dot.
fn is_plain(path: &[u8]) -> bool {
    !path.iter().any(|b| matches!(b, b'%' | b';')) && !path.windows(2).any(|pair| matches!(pair, [b'/', b'/' | b'.']))
}

/// Decodes the escapes that may be decoded, and refuses those that are not allowed.
fn decode(path: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut out = Vec::with_capacity(path.len());
    // The fully decoded octets from the first non-ASCII escape on; UTF-8 is checked when such a run ends.
    let mut run = Vec::new();
    let mut rest = path.iter();
    while let Some(&byte) = rest.next() {
        let octet = match byte {
            b'%' => {
                let (high, low) = (rest.next().and_then(hex), rest.next().and_then(hex));
                let (Some(high), Some(low)) = (high, low) else { return Err(BadPath::Escape) };
                Some(high << 4 | low)
            }
            _ => None,
        };
        match octet {
            Some(octet @ 0x80..) => {
                run.push(octet);
                escape(octet, &mut out);
                continue;
            }
            _ => check_characters(&run)?,
        }
        match octet {
            Some(b'/' | b'\\' | 0 | b'%') => return Err(BadPath::Delimiter),
            Some(octet) if octet == b';' || is_unreserved(octet) => out.push(octet),
            Some(octet) => escape(octet, &mut out),
            None => out.push(byte),
        }
        run.clear();
    }
    check_characters(&run)?;
    Ok(out)
}

/// Checks the octets of neighbouring non-ASCII escapes.
fn check_characters(run: &[u8]) -> Result<(), BadPath> {
    match std::str::from_utf8(run).map_err(|_| BadPath::NotUtf8)?.chars().any(becomes_delimiter) {
        true => Err(BadPath::Delimiter),
        false => Ok(()),
    }
}

/// Drops params, merges empty segments and resolves dot segments. A path whose last segment vanishes ends in `/`.
fn resolve(path: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut ends_open = true;
    for segment in path.split(|&b| b == b'/').skip(1) {
        let segment = segment.split(|&b| b == b';').next().unwrap_or_default();
        ends_open = true;
        match segment {
            b"" | b"." => {}
            b".." => {
                let parent = out.iter().rposition(|&b| b == b'/').ok_or(BadPath::AboveRoot)?;
                out.truncate(parent);
            }
            name => {
                out.push(b'/');
                out.extend_from_slice(name);
                ends_open = false;
            }
        }
    }
    if ends_open {
        out.push(b'/');
    }
    Ok(out)
}

fn hex(digit: &u8) -> Option<u8> {
    char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn escape(octet: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| DIGITS.get(usize::from(value & 15)).copied().unwrap_or(b'0');
    out.extend([b'%', digit(octet >> 4), digit(octet)]);
}
