//! `filters` of rules and backends.

use penstock_policy::document::Node;

use crate::import::matching::{FILLED_IN, is_filled_in};
use crate::import::objects::{map, text};
use crate::import::reader::FieldReader;
use crate::import::report::ImportReport;

/// Reads filters: a redirect, or changes of request and response. Returns an error for a filter whose requests must not
/// be imported.
pub fn read(
    owner: &FieldReader<'_>,
    field: &str,
    effects: &mut Vec<(&'static str, Node)>,
    report: &mut ImportReport,
) -> Result<Option<Node>, String> {
    let mut redirect = None;
    // A filter that cannot be parsed may refuse requests, or send them elsewhere.
    for filter in report.conditions(|report| Ok(owner.objects(field, report)))? {
        let kind = filter.string("type", report).unwrap_or_default();
        match kind.as_str() {
            "RequestHeaderModifier" => {
                effects.extend(headers(&filter, "requestHeaderModifier", "requestHeaders", report))
            }
            "ResponseHeaderModifier" => {
                effects.extend(headers(&filter, "responseHeaderModifier", "responseHeaders", report));
            }
            "URLRewrite" => {
                let Some(rewrite) = filter.object("urlRewrite", report) else { continue };
                let mut node = Vec::new();
                node.extend(path(&rewrite, report)?.map(|path| ("path", path)));
                node.extend(rewrite.string("hostname", report).map(|host| ("hostname", text(host))));
                rewrite.end(report);
                if !node.is_empty() {
                    effects.push(("rewrite", map(node)));
                }
            }
            "RequestRedirect" => {
                let Some(given) = filter.object("requestRedirect", report) else { continue };
                let mut node = Vec::new();
                for field in ["scheme", "hostname"] {
                    node.extend(given.string(field, report).map(|value| (field, text(value))));
                }
                node.extend(given.integer("port", report).map(|port| ("port", Node::Integer(port))));
                node.extend(path(&given, report)?.map(|path| ("path", path)));
                node.push(("statusCode", Node::Integer(given.integer("statusCode", report).unwrap_or(302))));
                given.end(report);
                // The order of a policy's fields.
                let order = ["scheme", "hostname", "port", "path", "statusCode"];
                node.sort_by_key(|(name, _)| order.iter().position(|known| known == name));
                redirect = Some(map(node));
            }
            "RequestMirror" => {
                let mirror = filter.take("requestMirror").map(ToString::to_string).unwrap_or_default();
                report.lost(filter.path(), format!("RequestMirror {mirror}"), "requests are not mirrored");
            }
            "CORS" => {
                let cors = filter.take("cors").map(ToString::to_string).unwrap_or_default();
                report.lost(filter.path(), format!("CORS {cors}"), "no CORS headers are added");
            }
            kind => return Err(format!("the filter {kind}: `import` does not know what it does")),
        }
        filter.end(report);
    }
    Ok(redirect)
}

fn headers(
    filter: &FieldReader<'_>,
    field: &str,
    effect: &'static str,
    report: &mut ImportReport,
) -> Option<(&'static str, Node)> {
    let changes = filter.object(field, report)?;
    let mut node = Vec::new();
    for field in ["set", "add"] {
        let mut list = changes.list(field, report).to_vec();
        list.retain(|item| {
            let value = match item.get("value") {
                Some(Node::String(value)) if is_filled_in(value) => value,
                _ => return true,
            };
            let name = item.get("name").unwrap_or(&Node::Null);
            report.lost(&changes.at(field), format!("{name}: {value}: {FILLED_IN}"), "the header is not changed");
            false
        });
        if !list.is_empty() {
            node.push((field, Node::List(list)));
        }
    }
    let removed = changes.strings("remove", report);
    if !removed.is_empty() {
        node.push(("remove", Node::List(removed.into_iter().map(text).collect())));
    }
    changes.end(report);
    (!node.is_empty()).then(|| (effect, map(node)))
}

/// The `path` of a rewrite or redirect.
fn path(owner: &FieldReader<'_>, report: &mut ImportReport) -> Result<Option<Node>, String> {
    let Some(path) = owner.object("path", report) else { return Ok(None) };
    let kind = path.string("type", report).unwrap_or_default();
    let value = match kind.as_str() {
        "ReplaceFullPath" => path.string("replaceFullPath", report),
        "ReplacePrefixMatch" => path.string("replacePrefixMatch", report),
        kind => return Err(format!("a path of type {kind}")),
    };
    // An empty prefix means the root.
    let value = value.filter(|value| !value.is_empty()).unwrap_or_else(|| "/".to_owned());
    path.end(report);
    Ok(Some(map([("type", text(kind)), ("value", text(value))])))
}
