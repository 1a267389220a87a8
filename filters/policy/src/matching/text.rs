//! How one value is compared: the `type` of headers, query parameters and cookies.

use std::sync::Arc;

use super::regex::{Answers, Asked, Regex, Substring};
use super::value_set::ValueSet;
use crate::document::{At, Context, Decode, Fields, HeaderName, Kind, Node, NonEmpty, words, wrong_kind};
use crate::request::Request;

words! {
    /// The comparisons of the document.
    pub enum TextMatchType {
        /// Byte for byte.
        Exact = "Exact",
        /// The value begins with it.
        Prefix = "Prefix",
        /// The value ends with it.
        Suffix = "Suffix",
        /// The value contains it.
        Contains = "Contains",
        /// The whole value matches the expression.
        RegularExpression = "RegularExpression",
        /// One of several, byte for byte.
        In = "In",
        /// Any value at all.
        Present = "Present",
    }
}

/// A compiled comparison.
#[derive(Clone, Debug)]
pub enum TextMatch {
    /// Byte for byte.
    Exact(Box<[u8]>),
    /// The value begins with it.
    Prefix(Box<[u8]>),
    /// The value ends with it.
    Suffix(Box<[u8]>),
    /// The value contains it.
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

    /// The same, with the answers of expressions that are known already.
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

/// The fields of a condition.
const CONDITION: Kind = Kind::Object(&["name", "type", "value", "values", "invert"]);

/// A [`Condition`] on a header.
#[derive(Clone, Debug)]
pub struct HeaderCondition(pub Condition);

impl Decode for HeaderCondition {
    const KIND: Kind = CONDITION;

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        condition::<Self, HeaderName>(node, at, cx, |name| name.0.into_boxed_bytes()).map(HeaderCondition)
    }
}

/// A [`Condition`] on a query parameter or a cookie: names are case-sensitive.
#[derive(Clone, Debug)]
pub struct PairCondition(pub Condition);

impl Decode for PairCondition {
    const KIND: Kind = CONDITION;

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        condition::<Self, PairName>(node, at, cx, |name| name.0).map(PairCondition)
    }
}

/// Name of a query parameter or cookie as it stands in the request, undecoded.
pub(crate) struct PairName(Box<[u8]>);

impl Decode for PairName {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a name";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        if text.is_empty() || text.bytes().any(|b| !b.is_ascii_graphic() || b"=&;#?".contains(&b)) {
            let help = "write it as it stands in the request: visible ASCII without = & ; # ?".to_owned();
            cx.problem(at, node, "is not a name", help);
            return None;
        }
        Some(PairName(text.as_bytes().into()))
    }
}

/// Reads a condition whose name is of type `N`.
fn condition<T: Decode, N: Decode>(
    node: &Node,
    at: &At<'_>,
    cx: &mut Context,
    bytes: impl FnOnce(N) -> Box<[u8]>,
) -> Option<Condition> {
    let fields = Fields::open::<T>(node, at, cx)?;
    let name = fields.get::<N>("name", at, cx);
    let invert = fields.get_or("invert", false, at, cx);
    let name = name.map(bytes);
    // Even if the name is wrong the comparison is read, so that its own problems are found.
    let text = text_match(&fields, name.as_deref().unwrap_or_default(), at, cx);
    Some(Condition { name: name?, text: text?, invert: invert? })
}

/// Reads `type` and the `value` or `values` that it takes, for the field `name`.
pub(super) fn text_match(fields: &Fields<'_>, name: &[u8], at: &At<'_>, cx: &mut Context) -> Option<TextMatch> {
    let kind = fields.get_or("type", TextMatchType::Exact, at, cx)?;
    let wants_values = kind == TextMatchType::In;
    let wants_value = !wants_values && kind != TextMatchType::Present;
    for (field, wanted) in [("value", wants_value), ("values", wants_values)] {
        if !wanted && fields.has(field) {
            let help = match kind {
                TextMatchType::In => "type In takes `values`, a list",
                TextMatchType::Present => "type Present takes no value",
                _ => "give one `value`, or use type In",
            };
            cx.problem_at(&at.field(field), "does not go with this type", help.to_owned());
            return None;
        }
    }
    if wants_values {
        let values = fields.get::<NonEmpty<String>>("values", at, cx)?.0;
        return Some(TextMatch::In(values.into_iter().map(|v| v.into_boxed_str().into_boxed_bytes()).collect()));
    }
    if !wants_value {
        return Some(TextMatch::Present);
    }
    if !fields.has("value") {
        let help = "give one, or use type Present when any value will do".to_owned();
        cx.problem_at(&at.field("value"), "is required: expected a string", help);
        return None;
    }
    let value = fields.get::<String>("value", at, cx)?;
    if value.is_empty() && !matches!(kind, TextMatchType::Exact | TextMatchType::RegularExpression) {
        let help = "use type Present when any value will do".to_owned();
        cx.problem_at(&at.field("value"), "is empty, which every value matches", help);
        return None;
    }
    if kind == TextMatchType::RegularExpression {
        let field = String::from_utf8_lossy(name);
        return regex(&field, &value, &at.field("value"), cx).map(TextMatch::Regex);
    }
    let bytes = value.as_bytes().into();
    Some(match kind {
        TextMatchType::Prefix => TextMatch::Prefix(bytes),
        TextMatchType::Suffix => TextMatch::Suffix(bytes),
        TextMatchType::Contains => {
            let field = String::from_utf8_lossy(name);
            TextMatch::Contains(cx.expressions.add_substring(&field, value.as_bytes()))
        }
        _ => TextMatch::Exact(bytes),
    })
}

/// Compiles a regular expression of the document on the field called `field`.
pub(super) fn regex(field: &str, pattern: &str, at: &At<'_>, cx: &mut Context) -> Option<Arc<Regex>> {
    match cx.expressions.add(field, pattern, || at.to_string()) {
        Ok(regex) => Some(regex),
        Err(error) => {
            cx.problem(at, &Node::String(pattern.to_owned()), error.message, error.help);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn read(json: &str) -> Result<Condition, String> {
        let mut cx = Context::new("x-penstock-route".into(), 1 << 20);
        let node = Node::from_json(json.as_bytes()).unwrap();
        let condition = HeaderCondition::decode(&node, &At::Root, &mut cx);
        condition.map(|c| c.0).ok_or_else(|| cx.into_problems().iter().map(|p| format!("{p}\n")).collect())
    }

    fn holds(json: &str, values: &[&str]) -> bool {
        read(json).unwrap().holds(values.iter().map(|v| v.as_bytes()))
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

    #[test]
    fn a_value_must_go_with_its_type() {
        for (json, message) in [
            (r#"{"name":"x"}"#, "value: is required"),
            (r#"{"name":"x","type":"In","value":"a"}"#, "type In takes `values`"),
            (r#"{"name":"x","type":"In","values":[]}"#, "values: []: is empty"),
            (r#"{"name":"x","values":["a"]}"#, "use type In"),
            (r#"{"name":"x","type":"Present","value":"a"}"#, "takes no value"),
            (r#"{"name":"x","type":"Contains","value":""}"#, "use type Present"),
            (r#"{"name":"x","type":"exact","value":"a"}"#, "did you mean `Exact`?"),
            (
                r#"{"name":"x","type":"RegularExpression","value":"["}"#,
                "value: \"[\": is not a regular expression: it has a class",
            ),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(message), "{json}: {error}");
        }
    }
}
