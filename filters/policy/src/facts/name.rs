//! The name of a fact in a policy.

use std::fmt;

use crate::document::{Name, NonEmpty, object};

object! {
    /// The place of a value in the dynamic metadata.
    pub struct MetadataDocument {
        /// The namespace, usually the name of the filter that left the value.
        namespace as "namespace": Name,
        /// The path of fields to it.
        path as "path": NonEmpty<Name>,
    }
}

/// The name of a fact in a policy: a claim's name, or the namespace and path of other metadata. Encoded as bytes, so
/// that conditions on facts work like those on headers. Names have no control characters, so a NUL separates their
/// parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FactName(Box<[u8]>);

const CLAIM: u8 = b'c';
const METADATA: u8 = b'm';

impl FactName {
    /// A claim.
    pub fn claim(name: &Name) -> FactName {
        FactName([&[CLAIM], name.0.as_bytes()].concat().into())
    }

    /// Other metadata.
    pub fn metadata(place: &MetadataDocument) -> FactName {
        let mut name = vec![METADATA];
        name.extend_from_slice(place.namespace.0.as_bytes());
        for field in &place.path.0 {
            name.push(0);
            name.extend_from_slice(field.0.as_bytes());
        }
        FactName(name.into())
    }

    /// The [`crate::matching::Condition::name`] of a condition on it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same, owned.
    pub(crate) fn into_bytes(self) -> Box<[u8]> {
        self.0
    }

    /// The parts of the name.
    pub fn parts(&self) -> FactParts<'_> {
        FactParts::of(&self.0)
    }
}

/// The parts of the name of a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactParts<'n> {
    /// A claim.
    Claim(&'n str),
    /// Other metadata.
    Metadata {
        /// Its namespace.
        namespace: &'n str,
        /// The path of fields to the value.
        path: Vec<&'n str>,
    },
}

impl<'n> FactParts<'n> {
    /// Takes the bytes of a [`FactName`].
    pub fn of(name: &'n [u8]) -> FactParts<'n> {
        let (kind, rest) = name.split_first().unwrap_or((&CLAIM, &[]));
        // The bytes were made from valid UTF-8.
        let rest = std::str::from_utf8(rest).unwrap_or_default();
        match (*kind, rest.split_once('\0')) {
            (METADATA, Some((namespace, path))) => FactParts::Metadata { namespace, path: path.split('\0').collect() },
            _ => FactParts::Claim(rest),
        }
    }

    /// The key of its entry in a request to a rate-limit service: the claim's name, or the last field of the path.
    pub(crate) fn last(&self) -> &'n str {
        match self {
            FactParts::Claim(name) => name,
            FactParts::Metadata { path, .. } => path.last().copied().unwrap_or_default(),
        }
    }
}

/// `claim tier`, `metadata envoy.filters.http.ext_authz team`.
impl fmt::Display for FactParts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FactParts::Claim(name) => write!(f, "claim {name}"),
            FactParts::Metadata { namespace, path } => write!(f, "metadata {namespace} {}", path.join(".")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn facts_are_named_in_words() {
        let place = MetadataDocument {
            namespace: Name("envoy.filters.http.ext_authz".into()),
            path: NonEmpty(vec![Name("owner".into()), Name("team".into())]),
        };
        let name = FactName::metadata(&place);
        assert_eq!(name.parts().to_string(), "metadata envoy.filters.http.ext_authz owner.team");
        assert_eq!(name.parts().last(), "team");
        let name = FactName::claim(&Name("realm.team".into()));
        assert_eq!((name.parts().to_string().as_str(), name.parts().last()), ("claim realm.team", "realm.team"));
    }
}
