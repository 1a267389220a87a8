//! How one value is compared: the `type` of headers, query parameters, cookies, claims and metadata.

use std::sync::Arc;

use super::regex::{Answers, Asked, Regex, Substring};
use super::value_set::ValueSet;
use crate::request::Request;

/// A compiled comparison.
#[derive(Clone, Debug)]
pub enum TextMatch {
    /// Byte for byte.
    Exact(Box<[u8]>),
    /// The value begins with this text.
    Prefix(Box<[u8]>),
    /// The value ends with this text.
    Suffix(Box<[u8]>),
    /// The value contains this text.
    Contains(Arc<Substring>),
    /// The whole value matches.
    Regex(Arc<Regex>),
    /// One of several, byte for byte.
    In(ValueSet),
    /// Any value at all.
    Present,
}

impl TextMatch {
    /// Whether `value` compares equal.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            TextMatch::Exact(text) => value == &**text,
            TextMatch::Prefix(text) => value.starts_with(text),
            TextMatch::Suffix(text) => value.ends_with(text),
            TextMatch::Contains(text) => text.is_in(value),
            TextMatch::Regex(regex) => regex.matches(value),
            TextMatch::In(values) => values.contains(value),
            TextMatch::Present => true,
        }
    }
}

/// `{name, type, value | values, invert}`: a comparison with the values of a named field.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The field's name; of a header in lower case.
    pub name: Box<[u8]>,
    /// How its values compare.
    pub text: TextMatch,
    /// Inverts the comparison: the condition holds when no value compares equal, also when the field is absent.
    pub invert: bool,
}

impl Condition {
    /// Whether the condition holds for a field with these values: any of them, or with `invert` none.
    pub fn holds<'v>(&self, values: impl Iterator<Item = &'v [u8]> + Clone) -> bool {
        self.holds_with(values, None)
    }

    /// Whether it holds for the header of its name.
    pub(crate) fn holds_for_header(&self, request: &Request<'_>) -> bool {
        self.holds_with(request.values(&self.name), request.answers().map(|answers| (answers, Asked::Header)))
    }

    /// Whether it holds for the query parameter of its name.
    pub(crate) fn holds_for_query_param(&self, request: &Request<'_>) -> bool {
        let value = request.query_param(&self.name);
        self.holds_with(value.into_iter(), request.answers().map(|answers| (answers, Asked::Query)))
    }

    /// Whether it holds for the cookie of its name.
    pub(crate) fn holds_for_cookie(&self, request: &Request<'_>) -> bool {
        let value = request.cookie(&self.name);
        self.holds_with(value.into_iter(), request.answers().map(|answers| (answers, Asked::Cookie)))
    }

    /// Whether it holds for the fact of its name. If the platform has not been asked for the facts yet, the condition
    /// is false, inverted or not; the request records that, and is matched again with the facts.
    pub(crate) fn holds_for_fact(&self, request: &Request<'_>) -> bool {
        let Some(fact) = request.fact(&self.name) else { return false };
        match self.text {
            TextMatch::Present => fact.is_there() != self.invert,
            _ => self.holds_with(fact.values(), request.answers().map(|answers| (answers, Asked::Fact))),
        }
    }

    /// The same, using the results of expressions that have already been evaluated.
    fn holds_with<'v>(
        &self,
        mut values: impl Iterator<Item = &'v [u8]> + Clone,
        asked: Option<(&Answers, Asked)>,
    ) -> bool {
        let matches = match &self.text {
            TextMatch::Regex(regex) => regex.matches_any(values, asked),
            TextMatch::Contains(text) => text.is_in_any(values, asked),
            text => values.any(|value| text.matches(value)),
        };
        matches != self.invert
    }
}

#[cfg(test)]
mod tests {
    use crate::document::{At, Context, Decode, Node};
    use crate::matching::HeaderCondition;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn holds(json: &str, values: &[&str]) -> bool {
        let mut cx = Context::new("x-penstock-route".into(), 1 << 20);
        let node = Node::from_json(json.as_bytes()).unwrap();
        let HeaderCondition(condition) = HeaderCondition::decode(&node, &At::Root, &mut cx).unwrap();
        condition.holds(values.iter().map(|v| v.as_bytes()))
    }

    #[test]
    fn each_type_compares_in_its_own_way() {
        for (condition, yes, no) in [
            (r#"{"name":"x","value":"beta"}"#, "beta", "Beta"),
            (r#"{"name":"x","type":"Prefix","value":"be"}"#, "beta", "abe"),
            (r#"{"name":"x","type":"Suffix","value":"ta"}"#, "beta", "tab"),
            (r#"{"name":"x","type":"Contains","value":"et"}"#, "beta", "bat"),
            (r#"{"name":"x","type":"RegularExpression","value":"b.*a"}"#, "beta", "betas"),
            (r#"{"name":"x","type":"In","values":["a","beta"]}"#, "beta", "b"),
            (r#"{"name":"x","value":""}"#, "", "a"),
        ] {
            assert!(holds(condition, &[yes]), "{condition}");
            assert!(!holds(condition, &[no]), "{condition}");
        }
    }

    #[test]
    fn any_of_several_values_is_enough_and_invert_means_none() {
        let plain = r#"{"name":"x","value":"b"}"#;
        let inverted = r#"{"name":"x","value":"b","invert":true}"#;
        for (values, expected) in [(&["a", "b"][..], true), (&["a"], false), (&[], false)] {
            assert_eq!(holds(plain, values), expected);
            assert_eq!(holds(inverted, values), !expected);
        }
        assert!(holds(r#"{"name":"x","type":"Present"}"#, &[""]));
        assert!(!holds(r#"{"name":"x","type":"Present"}"#, &[]));
    }
}
