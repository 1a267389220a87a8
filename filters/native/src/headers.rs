//! The headers of one request, copied out of Envoy: a decision may borrow from them while headers are changed, and
//! during a call of a rate-limit service.

use penstock_host::{HeaderMap, Headers, Malformed};
use smallvec::SmallVec;

use crate::error::Error;

/// A copy of a header map.
#[derive(Debug, Default)]
pub(crate) struct HeaderCopy {
    /// Names and values, concatenated.
    text: Vec<u8>,
    /// The lengths of each name and value.
    lengths: SmallVec<[(u32, u32); 32]>,
}

impl HeaderCopy {
    /// Reserves memory for this many headers and bytes.
    pub(crate) fn reserve(&mut self, headers: usize, bytes: usize) -> Result<(), Error> {
        self.text.try_reserve_exact(bytes).map_err(|_| Error::Refused("header map"))?;
        self.lengths.try_reserve_exact(headers).map_err(|_| Error::Refused("header map"))
    }

    /// Adds one header.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        let length = |text: &[u8]| u32::try_from(text.len()).map_err(|_| Error::Refused("header map"));
        self.lengths.push((length(name)?, length(value)?));
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        Ok(())
    }
}

impl HeaderMap for HeaderCopy {
    fn parse(&self) -> Result<Headers<'_>, Malformed> {
        let mut text = self.text.as_slice();
        let mut take = |length: u32| {
            let (taken, rest) = text.split_at_checked(length as usize).ok_or(Malformed)?;
            text = rest;
            Ok(taken)
        };
        let mut headers = Headers::new();
        headers.try_reserve_exact(self.lengths.len()).map_err(|_| Malformed)?;
        for (name, value) in &self.lengths {
            headers.push((take(*name)?, take(*value)?));
        }
        Ok(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_copied_reads_the_same() {
        let long = vec![b'v'; 100_000];
        let pairs: [(&[u8], &[u8]); 4] = [(b":path", b"/"), (b"x", b""), (b"", b"\xff\0"), (b"cookie", &long)];
        let mut copy = HeaderCopy::default();
        copy.reserve(4, 200_000).unwrap();
        for (name, value) in pairs {
            copy.push(name, value).unwrap();
        }
        assert_eq!(copy.parse().unwrap().as_slice(), pairs);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri itself ends where the memory does")]
    fn more_than_the_memory_holds_is_refused() {
        assert!(HeaderCopy::default().reserve(1, usize::MAX).is_err());
        assert!(HeaderCopy::default().reserve(usize::MAX / 16, 1).is_err());
    }
}
