//! Comparing short byte strings: names of headers, hosts, labels. The C library's function compares byte by byte, and
//! calling it costs more than most of these comparisons.

/// Whether two byte strings are equal.
#[inline]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // The last word overlaps the one before, so that no bytes are left over.
    if let (Some(a_end), Some(b_end)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) {
        let ((a, _), (b, _)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
        return word(a_end) == word(b_end) && a.iter().zip(b).all(|(a, b)| word(a) == word(b));
    }
    if let (Some(a_start), Some(b_start), Some(a_end), Some(b_end)) =
        (a.first_chunk::<4>(), b.first_chunk::<4>(), a.last_chunk::<4>(), b.last_chunk::<4>())
    {
        return a_start == b_start && a_end == b_end;
    }
    a.iter().zip(b).all(|(a, b)| a == b)
}

fn word(bytes: &[u8; 8]) -> u64 {
    u64::from_ne_bytes(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_byte_counts_at_every_length() {
        for length in 0..40 {
            let text: Vec<u8> = (0..length).collect();
            assert!(same(&text, &text.clone()));
            for at in 0..text.len() {
                let mut other = text.clone();
                other[at] ^= 0x80;
                assert!(!same(&text, &other), "{length} {at}");
                assert!(!same(&text, &text[at + 1..]) && !same(&text[..at], &text), "{length} {at}");
            }
        }
    }
}
