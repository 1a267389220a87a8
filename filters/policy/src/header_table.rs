//! Finds the headers that a policy reads in a request with many headers.
//!
//! With few headers a linear search is quickest. A proxy may be configured to accept thousands, and a policy may have
//! thousands of conditions: then a table finds each header. It contains only names that the policy reads.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::asked::NameSet;
use crate::bytes::same;

/// A header as the proxy returns it: name in lower case, value as raw bytes.
pub type Header<'a> = (&'a [u8], &'a [u8]);

/// Up to this number of headers are searched linearly.
pub(crate) const FEW: usize = 32;

/// There is no further header of that name.
const NONE: usize = usize::MAX;

/// The positions of a request's headers by name.
#[derive(Debug)]
pub(crate) struct HeaderTable {
    /// The first header of each name, by the number of the name.
    first: HashMap<u32, usize, FxBuildHasher>,
    /// For each header, the next one of the same name.
    next: Box<[usize]>,
}

impl HeaderTable {
    /// The headers with one of the `names`.
    pub(crate) fn new(headers: &[Header<'_>], names: &NameSet) -> HeaderTable {
        let mut table = HeaderTable { first: HashMap::default(), next: vec![NONE; headers.len()].into() };
        for (place, ((name, _), next)) in headers.iter().zip(&mut table.next).enumerate().rev() {
            if let Some(number) = names.number(name) {
                *next = table.first.insert(number, place).unwrap_or(NONE);
            }
        }
        table
    }

    /// The values of the headers with the name of this number, in order.
    pub(crate) fn values<'h, 'n>(&'h self, headers: &'h [Header<'h>], number: u32) -> HeaderValues<'h, 'n> {
        let at = self.first.get(&number).copied().unwrap_or(NONE);
        HeaderValues { headers, by: Lookup::Table { next: &self.next, at } }
    }
}

/// The values of the headers of one name, in order.
#[derive(Clone, Debug)]
pub(crate) struct HeaderValues<'h, 'n> {
    headers: &'h [Header<'h>],
    by: Lookup<'h, 'n>,
}

#[derive(Clone, Debug)]
enum Lookup<'h, 'n> {
    /// The headers that have not been searched yet.
    Name(&'n [u8]),
    /// The position of the next one.
    Table { next: &'h [usize], at: usize },
}

impl<'h, 'n> HeaderValues<'h, 'n> {
    /// All headers called `name`, found by a linear search.
    pub(crate) fn look_through(headers: &'h [Header<'h>], name: &'n [u8]) -> Self {
        HeaderValues { headers, by: Lookup::Name(name) }
    }
}

impl<'h> Iterator for HeaderValues<'h, '_> {
    type Item = &'h [u8];

    fn next(&mut self) -> Option<&'h [u8]> {
        match &mut self.by {
            Lookup::Name(name) => {
                let at = self.headers.iter().position(|(found, _)| same(found, name))?;
                let (_, value) = *self.headers.get(at)?;
                self.headers = self.headers.get(at + 1..).unwrap_or_default();
                Some(value)
            }
            Lookup::Table { next, at } => {
                let (_, value) = *self.headers.get(*at)?;
                *at = next.get(*at).copied().unwrap_or(NONE);
                Some(value)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_table_finds_what_looking_through_all_finds() {
        let mut names = NameSet::default();
        for name in [&b"a"[..], b"b", b"none", b"x-long-name"] {
            names.add(name);
        }
        let texts: Vec<(String, String)> = (0..200)
            .map(|i| (["a", "b", "c", "x-long-name", "y"][(i * i + i / 3) % 5].to_owned(), i.to_string()))
            .collect();
        let headers: Vec<Header<'_>> = texts.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let table = HeaderTable::new(&headers, &names);
        for name in [&b"a"[..], b"b", b"none", b"x-long-name"] {
            let number = names.number(name).unwrap();
            let expected: Vec<_> = HeaderValues::look_through(&headers, name).collect();
            assert_eq!(table.values(&headers, number).collect::<Vec<_>>(), expected);
            assert_eq!(expected.is_empty(), name == b"none");
        }
    }
}
