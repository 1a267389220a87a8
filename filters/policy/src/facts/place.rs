//! The place of a fact in the dynamic metadata.

use super::fact::{Fact, FactTree};
use super::name::FactParts;
use crate::document::{Name, object};

object! {
    /// Where an earlier filter stores the claims of a token that it has verified.
    pub struct ClaimsDocument {
        /// The filter's namespace in the dynamic metadata.
        namespace as "namespace": Name = Name(DEFAULT_NAMESPACE.into()),
        /// The path of fields to the object that contains the claims.
        path as "path": Vec<Name> = vec![Name(DEFAULT_FIELD.into())],
    }
}

/// The namespace of Envoy's JWT filter.
const DEFAULT_NAMESPACE: &str = "envoy.filters.http.jwt_authn";
/// Where Istio configures it to store the claims.
const DEFAULT_FIELD: &str = "payload";

impl Default for ClaimsDocument {
    fn default() -> Self {
        ClaimsDocument { namespace: Name(DEFAULT_NAMESPACE.into()), path: vec![Name(DEFAULT_FIELD.into())] }
    }
}

/// The place of a fact in the dynamic metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactPlace {
    /// The namespace in the dynamic metadata.
    pub namespace: Box<str>,
    /// The fields that lead to it, or to the object of the claims.
    pub path: Box<[Box<str>]>,
    /// The claim's name within that object; `None`: other metadata.
    pub claim: Option<Box<str>>,
}

impl FactPlace {
    /// The place of the fact whose [`crate::facts::FactName`] has these bytes.
    pub(crate) fn new(name: &[u8], claims: &ClaimsDocument) -> FactPlace {
        match FactParts::of(name) {
            FactParts::Metadata { namespace, path } => {
                FactPlace { namespace: namespace.into(), path: path.into_iter().map(Box::from).collect(), claim: None }
            }
            FactParts::Claim(name) => FactPlace {
                namespace: claims.namespace.0.clone(),
                path: claims.path.iter().map(|field| field.0.clone()).collect(),
                claim: Some(name.into()),
            },
        }
    }

    /// Finds the fact in the value of its namespace.
    pub fn find<T: FactTree>(&self, namespace: T) -> Fact {
        let mut here = Some(namespace);
        for field in &self.path {
            here = here.and_then(|here| here.field(field));
        }
        match (here, &self.claim) {
            (Some(claims), Some(name)) => claim(claims, name).unwrap_or_default(),
            (Some(here), None) => here.fact(),
            (None, _) => Fact::default(),
        }
    }
}

/// Finds the claim of this name: literally, otherwise in the object named by the text before one of its dots, the
/// longest first. So `a.b` looks into the object `a`, and claims whose own names contain dots, such as
/// `https://example.com/role`, are found too.
fn claim<T: FactTree>(claims: T, name: &str) -> Option<Fact> {
    if let Some(whole) = claims.field(name) {
        return Some(whole.fact());
    }
    name.rmatch_indices('.').find_map(|(dot, _)| {
        let (before, after) = (name.get(..dot)?, name.get(dot + 1..)?);
        claim(claims.field(before)?, after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::FactName;
    use serde_json::json;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn find(name: &str) -> Option<Vec<String>> {
        let payload = json!({
            "sub": "u-1", "age": 42, "ratio": 0.5, "admin": true, "none": null, "groups": ["dev", 7, {"x": 1}, ["ops"]],
            "empty": [], "realm": {"team": "search", "roles": ["a", "b"]}, "a": {"b": {"c": "deep"}}, "a.b": {"d": "dotted"},
            "https://shop.example.com/role": "buyer", "https://shop.example.com/more": {"level": 3},
        });
        let place = FactPlace::new(FactName::claim(&Name(name.into())).as_bytes(), &ClaimsDocument::default());
        let namespace = json!({ "payload": payload });
        let fact = place.find(&namespace);
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        fact.is_there().then(|| fact.values().map(text).collect())
    }

    #[test]
    fn a_claim_is_found_by_its_name_and_by_its_way_through_objects() {
        for (name, values) in [
            ("sub", Some(&["u-1"][..])),
            ("age", Some(&["42"])),
            ("ratio", Some(&["0.5"])),
            ("admin", Some(&["true"])),
            ("groups", Some(&["dev", "7", "ops"])),
            ("realm", Some(&[])),
            ("realm.team", Some(&["search"])),
            ("realm.roles", Some(&["a", "b"])),
            ("a.b.c", Some(&["deep"])),
            ("a.b.d", Some(&["dotted"])),
            ("https://shop.example.com/role", Some(&["buyer"])),
            ("https://shop.example.com/more.level", Some(&["3"])),
            ("none", None),
            ("empty", None),
            ("nobody", None),
            ("sub.x", None),
            ("groups.x", None),
            ("payload.sub", None),
            (".", None),
        ] {
            let expected = values.map(|values| values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
            assert_eq!(find(name), expected, "{name}");
        }
    }
}
