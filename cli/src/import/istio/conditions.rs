//! `http[].match` of a VirtualService. Its prefixes are of characters, not of segments.

use penstock_policy::document::Node;

use crate::import::matching::{Match, PathSet, condition, escaped, inverted, matches_nothing, methods_of};
use crate::import::reader::FieldReader;
use crate::import::report::ImportReport;
use crate::import::table::RuleHost;

/// The conditions of one entry of `match`.
#[derive(Clone, Debug)]
pub struct ConditionEntry {
    /// The host, when `authority` restricts it.
    pub host: Option<RuleHost>,
    /// All other conditions.
    pub matches: Match,
}

/// A `StringMatch`.
enum StringMatch<'n> {
    Exact(&'n str),
    Prefix(&'n str),
    Regex(&'n str),
    Present,
    Unknown(String),
}

fn text(node: &Node) -> StringMatch<'_> {
    match node {
        Node::Null => StringMatch::Present,
        // Istio accepts only one comparison at a time.
        Node::Map(entries) if entries.len() > 1 => StringMatch::Unknown(node.to_string()),
        Node::Map(entries) => match entries.first().map(|(kind, value)| (kind.as_str(), value)) {
            None => StringMatch::Present,
            Some(("exact", Node::String(value))) => StringMatch::Exact(value),
            Some(("prefix", Node::String(value))) if value.is_empty() => StringMatch::Present,
            Some(("prefix", Node::String(value))) => StringMatch::Prefix(value),
            // Istio's notation for any value.
            Some(("regex", Node::String(value))) if value == "*" => StringMatch::Present,
            Some(("regex", Node::String(value))) => StringMatch::Regex(value),
            Some((kind, value)) => StringMatch::Unknown(format!("{kind}: {value}")),
        },
        other => StringMatch::Unknown(other.to_string()),
    }
}

/// The entries for one entry of `match`: several for several methods, none when it can never match. Returns an error
/// for a condition that a policy cannot express; then the whole entry is left out.
pub fn entries(
    entry: &FieldReader<'_>,
    gateways: &[String],
    report: &mut ImportReport,
) -> Result<Vec<ConditionEntry>, String> {
    entry.ignore(&["name", "statPrefix"]);
    let mut lost = Vec::new();
    for field in ["port", "sourceLabels", "sourceNamespace", "scheme"] {
        if let Some(value) = entry.take(field) {
            lost.push(format!("{field} {value}: a policy has no such condition"));
        }
    }
    // A condition that all requests of the object meet is dropped.
    let own = entry.strings("gateways", report);
    if !own.is_empty() && (gateways.is_empty() || !gateways.iter().all(|gateway| own.contains(gateway))) {
        lost.push(format!("gateways {}: a policy cannot match the gateway of a request", own.join(", ")));
    }
    let mut matches = Match::default();
    let mut methods: Vec<Option<String>> = vec![None];
    let mut host = None;
    if let Some(method) = entry.take("method") {
        match text(method) {
            StringMatch::Exact(method) => methods = vec![Some(method.to_owned())],
            StringMatch::Regex(expression) => match methods_of(expression) {
                Some(several) => methods = several.into_iter().map(Some).collect(),
                None => lost.push(format!("method {method}: a policy only matches methods by name")),
            },
            StringMatch::Present => {}
            _ => lost.push(format!("method {method}: a policy only matches methods by name")),
        }
    }
    if let Some(authority) = entry.take("authority") {
        match text(authority) {
            StringMatch::Exact(name) => match exact_host(name) {
                Some(name) => host = Some(name),
                None => lost.push(format!("authority {name:?}: it is not a host name without a port")),
            },
            StringMatch::Present => {}
            _ => lost.push(format!("authority {authority}: a policy only matches hosts by name")),
        }
    }
    let ignores_case = entry.flag("ignoreUriCase", report);
    if let Some(uri) = entry.take("uri") {
        let cased = |expression: String| if ignores_case { format!("(?i){expression}") } else { expression };
        matches.path = match text(uri) {
            StringMatch::Exact(path) if ignores_case => PathSet::Regex(cased(escaped(path))),
            StringMatch::Exact(path) => PathSet::Exact(path.to_owned()),
            StringMatch::Prefix("/") | StringMatch::Present => PathSet::Any,
            StringMatch::Prefix(prefix) if ignores_case => PathSet::Regex(cased(format!("{}.*", escaped(prefix)))),
            StringMatch::Prefix(prefix) => PathSet::letters(prefix),
            StringMatch::Regex(expression) => PathSet::Regex(expression.to_owned()),
            StringMatch::Unknown(what) => {
                lost.push(format!("uri {what}: it is not exact, prefix or regex"));
                PathSet::Any
            }
        };
    }
    for (field, without) in [("headers", false), ("withoutHeaders", true)] {
        for (name, value) in entry.pairs(field, report) {
            if let Some(path) = name.strip_prefix("@request.auth.claims") {
                match claim(path, &text(value)) {
                    Ok(condition) => matches.claims.push(if without { inverted(&condition) } else { condition }),
                    Err(why) => lost.push(format!("{field}.{name} {value}: {why}")),
                }
                continue;
            }
            match (name.to_ascii_lowercase().as_str(), text(value)) {
                (":method", StringMatch::Exact(method)) if !without && methods == [None] => {
                    methods = vec![Some(method.to_owned())]
                }
                (":authority" | "host", StringMatch::Exact(authority))
                    if !without && host.as_ref().is_none_or(|host| Some(host) == exact_host(authority).as_ref()) =>
                {
                    host = exact_host(authority);
                    if host.is_none() {
                        lost.push(format!("{field}.{name} {value}: it is not a host name without a port"));
                    }
                }
                (name, _) if name.starts_with(':') || name == "host" => {
                    lost.push(format!("{field}.{name} {value}: a policy does not treat it as a header"));
                }
                (_, kind) => match header(name, &kind, without) {
                    Ok(conditions) => matches.headers.extend(conditions),
                    Err(what) => lost.push(format!("{field}.{name} {what}")),
                },
            }
        }
    }
    for (name, value) in entry.pairs("queryParams", report) {
        match text(value) {
            StringMatch::Exact(value) => matches.query.push(condition(name, "Exact", value)),
            StringMatch::Prefix(value) => matches.query.push(condition(name, "Prefix", value)),
            StringMatch::Regex(value) => matches.query.push(condition(name, "RegularExpression", value)),
            StringMatch::Present => matches.query.push(condition(name, "Present", "")),
            StringMatch::Unknown(what) => lost.push(format!("queryParams.{name} {what}")),
        }
    }
    // Every other field in an entry of `match` is a condition.
    lost.extend(entry.rest().iter().map(|(name, value)| format!("{name} {value}: `import` does not know it")));
    if !lost.is_empty() {
        return Err(lost.join("; "));
    }
    let entry =
        |method: Option<String>| ConditionEntry { host: host.clone(), matches: Match { method, ..matches.clone() } };
    Ok(methods.into_iter().map(entry).collect())
}

/// A host that is compared as it is written; `None` when a policy would read it as a wildcard, or cannot contain it.
fn exact_host(name: &str) -> Option<RuleHost> {
    RuleHost::parse(name).filter(|host| matches!(host, RuleHost::Exact(_)))
}

/// A condition on a claim, given the part after `@request.auth.claims`: `.a.b`, or `[a][b]` for names with dots.
fn claim(path: &str, kind: &StringMatch<'_>) -> Result<Node, String> {
    let name = match path.strip_prefix('.') {
        Some(name) => name.to_owned(),
        None => {
            let inner =
                path.strip_prefix('[').and_then(|path| path.strip_suffix(']')).ok_or("it does not name a claim")?;
            let names: Vec<&str> = inner.split("][").collect();
            if names.iter().any(|name| name.contains('.')) {
                return Err("a dot in a policy separates fields of objects, so a name cannot contain one".to_owned());
            }
            names.join(".")
        }
    };
    match kind {
        StringMatch::Exact(value) => Ok(condition(&name, "Exact", value)),
        StringMatch::Prefix(value) => Ok(condition(&name, "Prefix", value)),
        StringMatch::Regex(value) => Ok(condition(&name, "RegularExpression", value)),
        StringMatch::Present => Ok(condition(&name, "Present", "")),
        StringMatch::Unknown(what) => Err(format!("{what} is not exact, prefix or regex")),
    }
}

/// Conditions on a header. Under `withoutHeaders`, Istio treats an absent header as empty.
fn header(name: &str, kind: &StringMatch<'_>, without: bool) -> Result<Vec<Node>, String> {
    let (node, holds_for_nothing) = match kind {
        StringMatch::Exact(value) => (condition(name, "Exact", value), value.is_empty()),
        StringMatch::Prefix(value) => (condition(name, "Prefix", value), false),
        StringMatch::Regex(value) => {
            let nothing = matches_nothing(value).ok_or_else(|| format!("{value:?}: it is not an RE2 expression"))?;
            (condition(name, "RegularExpression", value), nothing)
        }
        StringMatch::Present => (condition(name, "Present", ""), false),
        StringMatch::Unknown(what) => return Err(what.clone()),
    };
    Ok(match (without, holds_for_nothing) {
        (false, _) => vec![node],
        (true, false) => vec![inverted(&node)],
        (true, true) => vec![condition(name, "Present", ""), inverted(&node)],
    })
}
