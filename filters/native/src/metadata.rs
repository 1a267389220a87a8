//! Dynamic metadata. The ABI shows only the top level of a namespace, and logs an error for each value of another type than
//! the requested one. So Envoy's own filter `set_filter_state` copies a namespace into filter state, as JSON:
//! `%DYNAMIC_METADATA(<namespace>)%`.

use penstock_policy::facts::{Fact, FactPlace};
use serde_json::Value;

use crate::error::Error;

/// The filter state that contains the metadata of a namespace: this, and the namespace.
const PREFIX: &str = "penstock.metadata.";

/// What Envoy writes for a namespace that the request does not have.
const NOTHING: &[u8] = b"-";

/// The facts at these places; `state` reads a value of the filter state.
///
/// # Errors
/// When the filter state has no copy of a namespace, or one that is not JSON: the request would be decided as if it had no
/// token.
pub(crate) fn facts(places: &[FactPlace], state: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Vec<Fact>, Error> {
    let mut known: Vec<(&str, Value)> = Vec::new();
    let mut facts = Vec::with_capacity(places.len());
    for place in places {
        let namespace = &*place.namespace;
        let fact = match known.iter().find(|(known, _)| *known == namespace) {
            Some((_, value)) => place.find(value),
            None => {
                let value = read(&state(&[PREFIX, namespace].concat()).ok_or(Error::MetadataNotCopied)?)?;
                let fact = place.find(&value);
                known.push((namespace, value));
                fact
            }
        };
        facts.push(fact);
    }
    Ok(facts)
}

fn read(text: &[u8]) -> Result<Value, Error> {
    if text == NOTHING {
        return Ok(Value::Null);
    }
    serde_json::from_slice(text).map_err(|_| Error::Refused("metadata, which is not JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_policy::Policy;

    /// The facts of a policy with these conditions.
    fn found(conditions: &str, state: &[(&str, &str)]) -> Result<Vec<Vec<String>>, Error> {
        let policy =
            format!(r#"{{"routes": {{"rules": [{{"name": "r", "route": "a", "matches": [{conditions}]}}]}}}}"#);
        let policy = <Policy>::from_json(policy.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        let state = |name: &str| {
            let found = state.iter().find(|(known, _)| *known == name)?;
            Some(found.1.as_bytes().to_vec())
        };
        let facts = facts(policy.fact_places(), state)?;
        let texts = |fact: &Fact| fact.values().map(|value| String::from_utf8_lossy(value).into_owned()).collect();
        Ok(facts.iter().map(texts).collect())
    }

    fn claim(name: &str) -> String {
        format!(r#"{{"claims": [{{"name": "{name}", "type": "Present"}}]}}"#)
    }

    const CLAIMS: &str = "penstock.metadata.envoy.filters.http.jwt_authn";

    #[test]
    fn values_are_read_exactly_however_deep_they_are() {
        let json = r#"{"payload": {"sub": "u-1 \u00fc\"", "age": 42, "big": 9007199254740993, "ratio": 0.1, "long": 387533.40477276477,
            "tiny": 5e-324, "huge": 1.7976931348623157e308, "admin": true, "none": null, "groups": ["dev", 7, {"x": 1}],
            "realm": {"team": "search"}}}"#;
        for (name, expected) in [
            ("sub", &["u-1 \u{fc}\""][..]),
            ("age", &["42"]),
            // As in the metadata itself, where numbers are doubles.
            ("big", &["9007199254740992"]),
            ("ratio", &["0.1"]),
            ("long", &["387533.40477276477"]),
            ("tiny", &["5e-324"]),
            ("huge", &["1.7976931348623157e308"]),
            ("admin", &["true"]),
            ("none", &[]),
            ("groups", &["dev", "7"]),
            ("realm", &[]),
            ("realm.team", &["search"]),
            ("absent", &[]),
        ] {
            let found = found(&claim(name), &[(CLAIMS, json)]);
            assert_eq!(found, Ok(vec![expected.iter().map(|text| (*text).to_owned()).collect()]), "{name}");
        }
    }

    #[test]
    fn each_namespace_is_read_from_its_own_state() {
        let other = r#"{"metadata": [{"namespace": "n", "path": ["a", "b"], "value": "x"}]}"#;
        let state = [(CLAIMS, r#"{"payload": {"sub": "u"}}"#), ("penstock.metadata.n", r#"{"a": {"b": "x"}}"#)];
        let mut both = found(&format!("{},{other}", claim("sub")), &state);
        if let Ok(facts) = &mut both {
            facts.sort();
        }
        assert_eq!(both, Ok(vec![vec!["u".to_owned()], vec!["x".to_owned()]]));
    }

    #[test]
    fn without_a_copy_or_with_one_that_was_cut_off_nothing_is_decided() {
        assert_eq!(found(&claim("sub"), &[(CLAIMS, "-")]), Ok(vec![vec![]]), "a request without a token");
        assert_eq!(found(&claim("sub"), &[]), Err(Error::MetadataNotCopied));
        for cut in ["", "{", r#"{"payload": {"sub": "u"#, "{} {}", "--"] {
            assert!(matches!(found(&claim("sub"), &[(CLAIMS, cut)]), Err(Error::Refused(_))), "{cut}");
        }
    }
}
