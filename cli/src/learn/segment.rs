//! Recognizes path segments that are data: numbers, hashes, dates, tokens. All others are names chosen by a programmer.

/// Whether the form of a segment is that of an id. At the start of a path, small numbers are versions (`/2/users`,
/// `/1.1/users`).
pub fn is_id(segment: &str, is_first: bool) -> bool {
    const LONGEST_NAME: usize = 64;
    let bytes = segment.as_bytes();
    let count = |is: fn(&u8) -> bool| bytes.iter().filter(|byte| is(byte)).count();
    let digits = count(u8::is_ascii_digit);
    let separators = count(|byte| b"-_.~".contains(byte));
    if bytes.len() > LONGEST_NAME || bytes.iter().any(|byte| b"%@:=,!$&'()*+".contains(byte)) {
        return true;
    }
    if digits > 0 && digits + count(|byte| *byte == b'.') == bytes.len() {
        return !(is_first && digits <= 2);
    }
    let is_numbered = || {
        let tail = bytes.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        tail > 0 && bytes.len().checked_sub(tail + 1).and_then(|at| bytes.get(at)).is_some_and(|b| b"-_".contains(b))
    };
    let is_hex = || bytes.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    let has_every_kind = || digits > 0 && count(u8::is_ascii_uppercase) > 0 && count(u8::is_ascii_lowercase) > 0;
    (digits >= 3 && bytes.len() >= 6)
        || (digits >= 1 && bytes.len() >= 20)
        || (bytes.len() >= 24 && separators == 0)
        || is_numbered()
        || (is_hex() && (bytes.len() >= 16 || (digits > 0 && bytes.len() >= 8)))
        || (bytes.len() >= 8 && has_every_kind())
}

/// Whether a segment consists of several words, like titles and file names.
pub fn is_slug(segment: &str) -> bool {
    segment.len() >= 8 && segment.bytes().any(|byte| b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_distinguished_from_names() {
        for id in [
            "0",
            "42",
            "1234567890",
            "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
            "9e107d9d372bb6826bd81d3542a419d6",
            "da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "2026-11-01",
            "20261101",
            "ch_3JxK28aBc901",
            "ORD-10023",
            "item-7",
            "user_12",
            "requests-2.31.0.tar.gz",
            "AbCdEf12",
            "alice@example.com",
            "a%20b",
            "1.2.3",
            "deadbeefdeadbeef",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ",
            "v1.2.3",
        ] {
            assert!(is_id(id, false), "{id}");
        }
        for name in [
            "v1",
            "v2beta1",
            "charges",
            "payment_intents",
            "oauth2",
            "users",
            "search.json",
            "create-payment-intent",
            "ec2",
            "facade",
            "index.html",
            "graphql",
            "_search",
            "",
            "i18n",
            "s3",
            "send-transactional-email",
            "Users",
        ] {
            assert!(!is_id(name, false), "{name}");
        }
        for version in ["2", "1.1", "v1"] {
            assert!(!is_id(version, true), "{version}");
        }
    }
}
