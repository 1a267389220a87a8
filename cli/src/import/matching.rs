//! The conditions of an imported rule, and how a policy expresses them.

use penstock_policy::document::{At, Context, Decode, Node};
use penstock_policy::matching::{PathMatch, Regex};

use super::objects::{map, text};

/// A set of paths, without query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathSet {
    /// Every path.
    #[default]
    Any,
    /// This path.
    Exact(String),
    /// This path and everything below it.
    Segments(String),
    /// Every path that starts with these characters.
    Letters(String),
    /// Paths that match an expression as a whole.
    Regex(String),
}

impl PathSet {
    /// This path and everything below it; `/` means every path.
    pub fn segments(path: &str) -> PathSet {
        match path.strip_suffix('/').unwrap_or(path) {
            "" => PathSet::Any,
            path => PathSet::Segments(path.to_owned()),
        }
    }

    /// Every path that starts with these characters; `/` means every path.
    pub fn letters(prefix: &str) -> PathSet {
        if matches!(prefix, "" | "/") { PathSet::Any } else { PathSet::Letters(prefix.to_owned()) }
    }

    /// The condition in a policy; `None` when it is always true.
    pub fn node(&self) -> Option<Node> {
        let of = |kind: &str, value: String| map([("type", text(kind)), ("value", text(value))]);
        // A policy refuses these as literal paths (`//`, `/./`), but an expression can match them.
        let literal = |kind: &str, value: &str, expression: String| {
            let node = of(kind, value.to_owned());
            let fine = PathMatch::decode(&node, &At::Root, &mut Context::new(String::new(), usize::MAX)).is_some();
            if fine { node } else { of("RegularExpression", expression) }
        };
        Some(match self {
            PathSet::Any => return None,
            PathSet::Exact(path) => literal("Exact", path, escaped(path)),
            PathSet::Segments(path) => literal("PathPrefix", path, format!("{}(/.*)?", escaped(path))),
            PathSet::Letters(prefix) => of("RegularExpression", format!("{}.*", escaped(prefix))),
            PathSet::Regex(expression) => of("RegularExpression", expression.clone()),
        })
    }
}

/// One entry of `matches`, without the hosts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// The method.
    pub method: Option<String>,
    /// The path.
    pub path: PathSet,
    /// Conditions on headers.
    pub headers: Vec<Node>,
    /// Conditions on query parameters.
    pub query: Vec<Node>,
    /// Conditions on claims of a verified token.
    pub claims: Vec<Node>,
}

impl Match {
    /// An entry with only a path.
    pub fn path(path: PathSet) -> Match {
        Match { path, ..Match::default() }
    }

    /// Whether every request matches.
    pub fn is_total(&self) -> bool {
        *self == Match::default()
    }

    /// The entry in a policy, for these hosts (none means all); `None` when it is always true.
    pub fn node(&self, hosts: &[String]) -> Option<Node> {
        let mut conditions = Vec::new();
        conditions.extend(self.method.as_ref().map(|method| ("method", text(method.as_str()))));
        if !hosts.is_empty() {
            conditions.push(("hostnames", Node::List(hosts.iter().map(text).collect())));
        }
        conditions.extend(self.path.node().map(|path| ("path", path)));
        for (field, list) in [("headers", &self.headers), ("queryParams", &self.query), ("claims", &self.claims)] {
            if !list.is_empty() {
                conditions.push((field, Node::List(list.clone())));
            }
        }
        (!conditions.is_empty()).then(|| map(conditions))
    }
}

/// Why a header's value is not imported.
pub const FILLED_IN: &str = "Envoy fills in a part of the value; a policy sets fixed values";

/// Whether Envoy replaces a part of a header's value, such as `%REQ(x-a)%` or `%PROTOCOL%`, with something of the request.
/// A policy sets values as they are written.
pub fn is_filled_in(value: &str) -> bool {
    let is_command = |text: &str| {
        let name = text.split('(').next().unwrap_or_default();
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    // Two signs are one literal sign.
    value.replace("%%", "").split('%').skip(1).any(is_command)
}

/// A condition on a header or parameter.
pub fn condition(name: &str, kind: &str, value: &str) -> Node {
    let mut node = vec![("name", text(name))];
    match kind {
        "Exact" => node.push(("value", text(value))),
        "Present" => node.push(("type", text("Present"))),
        // Every value starts with the empty string.
        "Prefix" | "Suffix" | "Contains" if value.is_empty() => node.push(("type", text("Present"))),
        kind => node.extend([("type", text(kind)), ("value", text(value))]),
    }
    map(node)
}

/// The inverted condition.
pub fn inverted(condition: &Node) -> Node {
    let Node::Map(entries) = condition else { return condition.clone() };
    let mut entries = entries.clone();
    let was = entries.iter().any(|(key, value)| key == "invert" && *value == Node::Bool(true));
    entries.retain(|(key, _)| key != "invert");
    if !was {
        entries.push(("invert".to_owned(), Node::Bool(true)));
    }
    Node::Map(entries)
}

/// Whether two conditions can never both be true: one is the inverse of the other, or both require a different value of
/// the same name.
pub fn excludes(a: &Node, b: &Node) -> bool {
    let is_plain = |node: &Node| node.get("type").is_none() && node.get("invert").is_none();
    let same_name = match (a.get("name"), b.get("name")) {
        (Some(Node::String(a)), Some(Node::String(b))) => a.eq_ignore_ascii_case(b),
        _ => false,
    };
    same_name && ((is_plain(a) && is_plain(b) && a.get("value") != b.get("value")) || inverted(a) == *b)
}

/// Whether an expression matches the empty value; `None` when it is invalid.
pub fn matches_nothing(expression: &str) -> Option<bool> {
    Regex::new(expression).ok().map(|regex| regex.matches(b""))
}

/// An expression (RE2) that matches exactly `text`.
pub fn escaped(text: impl AsRef<str>) -> String {
    let escape = |c: char| if "\\.+*?()|[]{}^$".contains(c) { format!("\\{c}") } else { c.to_string() };
    text.as_ref().chars().map(escape).collect()
}

/// The methods in an expression that only lists some: `GET|POST`, `(GET|POST)`, `^GET$`.
pub fn methods_of(expression: &str) -> Option<Vec<String>> {
    let inner = expression.strip_prefix('^').unwrap_or(expression);
    let inner = inner.strip_suffix('$').unwrap_or(inner);
    let inner = inner
        .strip_prefix('(')
        .and_then(|inner| inner.strip_suffix(')'))
        .map_or(inner, |inner| inner.strip_prefix("?:").unwrap_or(inner));
    let methods: Vec<String> = inner.split('|').map(str::to_owned).collect();
    methods
        .iter()
        .all(|method| !method.is_empty() && method.bytes().all(|b| b.is_ascii_alphabetic()))
        .then_some(methods)
}

/// An expression that matches a literal path and ignores case.
pub fn any_case(path: &str, rest: &str) -> PathSet {
    PathSet::Regex(format!("(?i){}{rest}", escaped(path)))
}
