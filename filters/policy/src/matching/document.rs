//! Conditions as written: one entry of `matches`, and the conditions on paths, headers, query parameters, cookies, claims
//! and metadata.
//!
//! A condition on a value is read by hand, because its `type` says which of its other fields it takes: `object!` would
//! first complain about a `value` that is not allowed at all, and would not read the value when the name is wrong.

use std::sync::Arc;

use super::host::{HostPattern, HostSet};
use super::path::PathMatch;
use super::regex::Regex;
use super::request::RequestMatch;
use super::text::{Condition, TextMatch};
use crate::document::{
    At, Context, Decode, Fields, HeaderName, Kind, Method, Name, Node, NonEmpty, made_of, object, words, wrong_kind,
};
use crate::facts::{FactName, MetadataDocument};

object! {
    /// One entry of `matches`. It matches if all its conditions hold.
    struct RequestMatchDocument check = RequestMatchDocument::check; schema = RequestMatchDocument::is_not_empty {
        /// The method.
        method as "method": Option<Method>,
        /// The host must be one of these. `*.` stands for one or more labels, so `*.example.com` does not include `example.com`.
        hostnames as "hostnames": Option<NonEmpty<HostPattern>>,
        /// The path, without query and fragment.
        path as "path": Option<PathMatch>,
        /// All of these conditions must hold.
        headers as "headers": Option<NonEmpty<HeaderCondition>>,
        /// All of these conditions must hold. If a name is repeated, its first value counts.
        query_params as "queryParams": Option<NonEmpty<PairCondition>>,
        /// All of these conditions must hold.
        cookies as "cookies": Option<NonEmpty<PairCondition>>,
        /// All of these conditions must hold. A request without a verified token has no claims.
        claims as "claims": Option<NonEmpty<ClaimCondition>>,
        /// All of these conditions on the dynamic metadata of earlier filters must hold.
        metadata as "metadata": Option<NonEmpty<MetadataCondition>>,
    }
}

impl RequestMatchDocument {
    #[cfg(feature = "schema")]
    fn is_not_empty(_: serde_json::Value) -> serde_json::Value {
        serde_json::json!({"minProperties": 1})
    }

    fn check(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let is_empty = self.method.is_none()
            && self.hostnames.is_none()
            && self.path.is_none()
            && self.headers.is_none()
            && self.query_params.is_none()
            && self.cookies.is_none()
            && self.claims.is_none()
            && self.metadata.is_none();
        // With an unknown field the entry may only be misspelt.
        if is_empty && !cx.has_problem_in(at) {
            let help = "give a condition, or leave `matches` out to match every request".to_owned();
            cx.problem_at(at, "has no condition", help);
        }
        !is_empty
    }
}

made_of!(RequestMatch, RequestMatchDocument, |document, _, _| Some(RequestMatch::new(document)));

impl RequestMatch {
    fn new(document: RequestMatchDocument) -> RequestMatch {
        let pairs = |list: Option<NonEmpty<PairCondition>>| list.into_iter().flat_map(|l| l.0).map(|c| c.0).collect();
        let claims = document.claims.into_iter().flat_map(|list| list.0).map(|condition| condition.0);
        let metadata = document.metadata.into_iter().flat_map(|list| list.0).map(|condition| condition.0);
        RequestMatch {
            method: document.method.map(|method| method.0.into_boxed_bytes()),
            hostnames: document.hostnames.map(|patterns| HostSet::new(patterns.0)),
            path: document.path,
            headers: document.headers.into_iter().flat_map(|list| list.0).map(|condition| condition.0).collect(),
            query_params: pairs(document.query_params),
            cookies: pairs(document.cookies),
            facts: claims.chain(metadata).collect(),
        }
    }
}

words! {
    /// A condition on the path.
    pub enum PathMatchType {
        /// Byte for byte.
        Exact = "Exact",
        /// Whole segments from the start.
        PathPrefix = "PathPrefix",
        /// The whole path matches the expression.
        RegularExpression = "RegularExpression",
    }
}

object! {
    /// A condition on the path.
    pub(crate) struct PathMatchDocument; schema = PathMatchDocument::literals {
        /// How the path is compared.
        kind as "type": PathMatchType = PathMatchType::PathPrefix,
        /// The path in normal form, beginning with a slash, or with type RegularExpression an expression (RE2 syntax,
        /// for the whole path of up to 8 KiB).
        value as "value": String,
    }
}

impl PathMatchDocument {
    /// The form of the value unless it is an expression: see [`check_literal`].
    #[cfg(feature = "schema")]
    fn literals(_: serde_json::Value) -> serde_json::Value {
        serde_json::json!({
            "if": {"properties": {"type": {"const": "RegularExpression"}}, "required": ["type"]},
            "else": {"properties": {"value": {
                "pattern": r#"^/[!-"$->@-~]*$"#,
                "not": {"pattern": r"//|/\.\.?(/|$)|%2[fF]"},
            }}},
        })
    }
}

made_of!(PathMatch, PathMatchDocument, |document, at, cx| PathMatch::new(&document, at, cx));

impl PathMatch {
    /// Compiles it.
    pub(crate) fn new(document: &PathMatchDocument, at: &At<'_>, cx: &mut Context) -> Option<PathMatch> {
        let (value, at) = (&document.value, at.field("value"));
        if document.kind != PathMatchType::RegularExpression {
            check_literal(value, &at, cx)?;
        }
        Some(match document.kind {
            PathMatchType::Exact => PathMatch::Exact(value.as_bytes().into()),
            PathMatchType::PathPrefix => PathMatch::Prefix(value.strip_suffix('/').unwrap_or(value).as_bytes().into()),
            PathMatchType::RegularExpression => PathMatch::Regex(regex(":path", value, &at, cx)?),
        })
    }
}

/// Refuses literal paths that no request can have, by the rules of the Gateway API's `HTTPPathMatch`.
fn check_literal(value: &str, at: &At<'_>, cx: &mut Context) -> Option<()> {
    let problem = if !value.starts_with('/') {
        Some(("must begin with a slash", Some(format!("write /{value}"))))
    } else if value.contains(['?', '#']) {
        let path = value.split(['?', '#']).next().unwrap_or_default();
        Some((
            "has a query or fragment, which paths are matched without",
            Some(format!("write {path}, and use `queryParams`")),
        ))
    } else if let Some(bad) = value.bytes().find(|b| !b.is_ascii_graphic()) {
        let encoded: String = value
            .bytes()
            .map(|b| if b.is_ascii_graphic() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect();
        let help = (bad >= 0x20 && bad != 0x7f).then(|| format!("write it percent-encoded: {encoded}"));
        Some(("has characters that no request path can have", help))
    } else if value.as_bytes().windows(2).any(|two| two == b"//")
        || value.as_bytes().split(|&b| b == b'/').any(|segment| matches!(segment, b"." | b".."))
        || value.as_bytes().windows(3).any(|three| three.eq_ignore_ascii_case(b"%2f"))
    {
        let help = "leave out //, /./, /../ and %2F: proxies resolve them before a rule sees the path";
        Some(("is not in normal form", Some(help.to_owned())))
    } else {
        None
    };
    match problem {
        None => Some(()),
        Some((message, help)) => {
            cx.problem(at, &Node::String(value.to_owned()), message, help);
            None
        }
    }
}

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

/// The fields of a condition on a value that has a name.
const CONDITION: Kind = Kind::Object(&["name", "type", "value", "values", "invert"]);

/// A [`Condition`] on a header.
#[derive(Clone, Debug)]
pub struct HeaderCondition(pub Condition);

impl Decode for HeaderCondition {
    const KIND: Kind = CONDITION;

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let fields = Fields::open::<Self>(node, at, cx)?;
        let name = fields.get("name", at, cx).map(|HeaderName(name)| (name.as_bytes().into(), name.into()));
        condition(&fields, name, at, cx).map(HeaderCondition)
    }
}

/// A [`Condition`] on a query parameter or a cookie: names are case-sensitive.
#[derive(Clone, Debug)]
pub struct PairCondition(pub Condition);

impl Decode for PairCondition {
    const KIND: Kind = CONDITION;

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let fields = Fields::open::<Self>(node, at, cx)?;
        let name = fields.get("name", at, cx).map(|PairName(name)| (name.as_bytes().into(), name.into()));
        condition(&fields, name, at, cx).map(PairCondition)
    }
}

/// Name of a query parameter or cookie as it stands in the request, undecoded.
pub(crate) struct PairName(Box<str>);

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
        Some(PairName(text.as_str().into()))
    }
}

/// A [`Condition`] on a claim of a verified token.
#[derive(Clone, Debug)]
pub struct ClaimCondition(pub Condition);

impl Decode for ClaimCondition {
    const KIND: Kind = CONDITION;

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let fields = Fields::open::<Self>(node, at, cx)?;
        let name = fields.get::<Name>("name", at, cx).map(|name| FactName::claim(&name));
        condition(&fields, name.map(in_words), at, cx).map(ClaimCondition)
    }
}

/// A [`Condition`] on metadata that an earlier filter left.
#[derive(Clone, Debug)]
pub struct MetadataCondition(pub Condition);

impl Decode for MetadataCondition {
    const KIND: Kind = Kind::Object(&["namespace", "path", "type", "value", "values", "invert"]);

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let fields = Fields::open::<Self>(node, at, cx)?;
        let namespace = fields.get("namespace", at, cx);
        let path = fields.get("path", at, cx);
        let place = namespace.zip(path).map(|(namespace, path)| MetadataDocument { namespace, path });
        condition(&fields, place.map(|place| in_words(FactName::metadata(&place))), at, cx).map(MetadataCondition)
    }
}

/// The name of a fact for the engine, and in words.
fn in_words(name: FactName) -> (Box<[u8]>, String) {
    let words = name.parts().to_string();
    (name.into_bytes(), words)
}

/// Reads how the value of this name compares; the text is the name in messages. Even if the name is wrong the
/// comparison is read, so that its own problems are found.
fn condition(
    fields: &Fields<'_>,
    name: Option<(Box<[u8]>, String)>,
    at: &At<'_>,
    cx: &mut Context,
) -> Option<Condition> {
    let invert = fields.get_or("invert", false, at, cx);
    let words = name.as_ref().map(|(_, words)| words.as_str()).unwrap_or_default();
    let text = text_match(fields, words, at, cx);
    Some(Condition { name: name?.0, text: text?, invert: invert? })
}

/// Reads `type` and the `value` or `values` that it takes, for what messages call `field`.
fn text_match(fields: &Fields<'_>, field: &str, at: &At<'_>, cx: &mut Context) -> Option<TextMatch> {
    let kind = fields.get_or("type", TextMatchType::Exact, at, cx)?;
    let wants_values = kind == TextMatchType::In;
    let wants_value = !wants_values && kind != TextMatchType::Present;
    for (key, wanted) in [("value", wants_value), ("values", wants_values)] {
        if !wanted && fields.has(key) {
            let help = match kind {
                TextMatchType::In => "type In takes `values`, a list",
                TextMatchType::Present => "type Present takes no value",
                _ => "give one `value`, or use type In",
            };
            cx.problem_at(&at.field(key), "does not go with this type", help.to_owned());
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
        return regex(field, &value, &at.field("value"), cx).map(TextMatch::Regex);
    }
    let bytes = value.as_bytes().into();
    Some(match kind {
        TextMatchType::Prefix => TextMatch::Prefix(bytes),
        TextMatchType::Suffix => TextMatch::Suffix(bytes),
        TextMatchType::Contains => TextMatch::Contains(cx.expressions.add_substring(field, value.as_bytes())),
        _ => TextMatch::Exact(bytes),
    })
}

/// Compiles a regular expression of the document on the field called `field`.
fn regex(field: &str, pattern: &str, at: &At<'_>, cx: &mut Context) -> Option<Arc<Regex>> {
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

    /// The problems of a `T` that cannot be read.
    fn problems<T: Decode>(json: &str) -> String {
        let mut cx = Context::new("x-penstock-route".into(), 1 << 20);
        assert!(T::decode(&Node::from_json(json.as_bytes()).unwrap(), &At::Root, &mut cx).is_none(), "{json}");
        cx.into_problems().iter().map(|problem| format!("{problem}\n")).collect()
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
            let error = problems::<HeaderCondition>(json);
            assert!(error.contains(message), "{json}: {error}");
        }
    }

    #[test]
    fn a_wrong_name_does_not_hide_what_is_wrong_with_the_value() {
        let error = problems::<ClaimCondition>(r#"{"name":"","type":"RegularExpression","value":"["}"#);
        assert!(error.contains("name: \"\": ") && error.contains("value: \"[\": "), "{error}");
        let error = problems::<MetadataCondition>(r#"{"path":["a"],"type":"Present","value":"b"}"#);
        assert!(error.contains("namespace: is required") && error.contains("takes no value"), "{error}");
    }

    #[test]
    fn paths_that_no_request_has_are_refused_with_the_right_form() {
        for (value, message) in [
            ("cart", "write /cart"),
            ("", "must begin with a slash"),
            ("/a?b=c", "write /a, and use `queryParams`"),
            ("/a#b", "write /a"),
            ("/café", "/caf%C3%A9"),
            ("/a b", "/a%20b"),
            ("/a//b", "normal form"),
            ("/a/../b", "normal form"),
            ("/a%2fb", "normal form"),
        ] {
            let error = problems::<PathMatch>(&format!(r#"{{"value":"{value}"}}"#));
            assert!(error.contains(message), "{value}: {error}");
        }
        assert!(problems::<PathMatch>(r#"{"type":"prefix","value":"/"}"#).contains("did you mean `PathPrefix`?"));
    }
}
