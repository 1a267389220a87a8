//! The serialised form of header maps between host and module: `u32` count, then for each header the lengths of name and value
//! (`u32` each), then for each header name, NUL, value, NUL. Numbers are little-endian.

use penstock_host::{Headers, Malformed};
use penstock_policy::Header;

/// Reads a header map in place. No bytes mean an empty map, because hosts pass one like that.
pub(crate) fn parse(map: &[u8]) -> Result<Headers<'_>, Malformed> {
    let mut headers = Headers::new();
    let Some((count, rest)) = map.split_first_chunk() else {
        return if map.is_empty() { Ok(headers) } else { Err(Malformed) };
    };
    let count = size(*count);
    // Checks that the lengths exist before it reserves memory for them.
    let (lengths, mut text) = count.checked_mul(8).and_then(|size| rest.split_at_checked(size)).ok_or(Malformed)?;
    headers.try_reserve_exact(count).map_err(|_| Malformed)?;
    let (lengths, _) = lengths.as_chunks::<8>();
    for &[a, b, c, d, e, f, g, h] in lengths {
        let name = take(&mut text, size([a, b, c, d]))?;
        let value = take(&mut text, size([e, f, g, h]))?;
        headers.push((name, value));
    }
    if text.is_empty() { Ok(headers) } else { Err(Malformed) }
}

fn size(bytes: [u8; 4]) -> usize {
    u32::from_le_bytes(bytes) as usize
}

/// Takes `length` bytes and the NUL after them from the front.
fn take<'a>(text: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (bytes, rest) = text.split_at_checked(length).ok_or(Malformed)?;
    let Some((0, rest)) = rest.split_first() else { return Err(Malformed) };
    *text = rest;
    Ok(bytes)
}

/// Writes a header map.
pub(crate) fn serialize<'a>(headers: impl Iterator<Item = Header<'a>> + Clone) -> Vec<u8> {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let mut map = Vec::new();
    map.extend(number(headers.clone().count()));
    for (name, value) in headers.clone() {
        map.extend(number(name.len()));
        map.extend(number(value.len()));
    }
    for (name, value) in headers {
        for text in [name, value] {
            map.extend(text);
            map.push(0);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(longest: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..longest)
    }

    fn borrowed(headers: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = Header<'_>> + Clone {
        headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(headers in prop::collection::vec((bytes(40), bytes(200)), 0..60)) {
            let map = serialize(borrowed(&headers));
            prop_assert_eq!(parse(&map).unwrap().into_vec(), borrowed(&headers).collect::<Vec<_>>());
        }

        #[test]
        fn a_damaged_map_is_malformed_or_says_what_its_bytes_say(
            headers in prop::collection::vec((bytes(8), bytes(8)), 1..8),
            at in any::<prop::sample::Index>(),
            byte: u8,
            cut in any::<prop::sample::Index>(),
        ) {
            let mut map = serialize(borrowed(&headers));
            let at = at.index(map.len());
            map[at] = byte;
            if let Ok(headers) = parse(&map) {
                prop_assert_eq!(serialize(headers.iter().copied()), map.clone());
            }
            let shorter = cut.index(map.len());
            prop_assert!(parse(&map[..shorter]).is_err() || shorter == 0);
        }
    }

    #[test]
    fn a_count_that_the_bytes_cannot_hold_reserves_nothing() {
        assert_eq!(parse(&[0xff; 64]), Err(Malformed));
        assert_eq!(parse(&u32::MAX.to_le_bytes()), Err(Malformed));
        assert_eq!(parse(&[1, 0, 0]), Err(Malformed));
    }

    #[test]
    fn nothing_may_follow_the_last_header() {
        let mut map = serialize([(&b"a"[..], &b"b"[..])].into_iter());
        map.push(0);
        assert_eq!(parse(&map), Err(Malformed));
    }

    #[test]
    fn a_missing_nul_is_malformed() {
        let mut map = serialize([(&b"a"[..], &b"b"[..])].into_iter());
        *map.last_mut().unwrap() = b'x';
        assert_eq!(parse(&map), Err(Malformed));
    }

    #[test]
    fn an_empty_map_has_two_forms() {
        assert!(parse(b"").unwrap().is_empty());
        assert!(parse(&serialize(std::iter::empty())).unwrap().is_empty());
    }

    #[test]
    fn a_thousand_headers_and_a_value_of_a_mebibyte_are_read() {
        let value = vec![0xfe; 1 << 20];
        let names: Vec<String> = (0..1000).map(|n| format!("x-{n}")).collect();
        let headers: Vec<Header<'_>> =
            names.iter().map(|name| (name.as_bytes(), value.get(..n_of(name)).unwrap())).collect();
        let map = serialize(headers.iter().copied());
        assert_eq!(parse(&map).unwrap().as_slice(), headers);

        /// One giant value among small ones.
        fn n_of(name: &str) -> usize {
            if name == "x-500" { 1 << 20 } else { name.len() }
        }
    }
}
