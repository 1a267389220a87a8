//! `matches` of HTTPRoute and GRPCRoute.

use penstock_policy::document::Node;

use crate::import::matching::{Match, PathSet, condition, escaped};
use crate::import::reader::FieldReader;
use crate::import::report::ImportReport;

/// One for each match; an error is a condition that no policy can have.
pub fn of(rule: &FieldReader<'_>, is_grpc: bool, report: &mut ImportReport) -> Result<Vec<Match>, String> {
    let mut found = Vec::new();
    for entry in rule.objects("matches", report) {
        let mut matches = Match::default();
        if is_grpc {
            matches.path = grpc(&entry, report)?;
        } else {
            matches.method = entry.string("method", report);
            matches.path = path(&entry, report)?;
            matches.query = pairs(&entry, "queryParams", report)?;
        }
        matches.headers = pairs(&entry, "headers", report)?;
        if let Some((name, value)) = entry.rest().first() {
            return Err(format!("{name} {value}: it is not known here"));
        }
        found.push(matches);
    }
    if found.is_empty() {
        found.push(Match::default());
    }
    Ok(found)
}

fn path(entry: &FieldReader<'_>, report: &mut ImportReport) -> Result<PathSet, String> {
    let Some(path) = entry.object("path", report) else { return Ok(PathSet::Any) };
    let value = path.string("value", report).unwrap_or_else(|| "/".to_owned());
    match path.string("type", report).as_deref() {
        Some("Exact") => Ok(PathSet::Exact(value)),
        None | Some("PathPrefix") => Ok(PathSet::segments(&value)),
        Some("RegularExpression") => Ok(PathSet::Regex(value)),
        Some(kind) => Err(format!("path of type {kind}")),
    }
}

/// A gRPC method is a path of two segments.
fn grpc(entry: &FieldReader<'_>, report: &mut ImportReport) -> Result<PathSet, String> {
    let Some(method) = entry.object("method", report) else { return Ok(PathSet::Any) };
    let (service, name) = (method.string("service", report), method.string("method", report));
    match method.string("type", report).as_deref() {
        None | Some("Exact") => Ok(match (service, name) {
            (Some(service), Some(name)) => PathSet::Exact(format!("/{service}/{name}")),
            (Some(service), None) => PathSet::segments(&format!("/{service}")),
            (None, Some(name)) => PathSet::Regex(format!("/[^/]+/{}", escaped(name))),
            (None, None) => PathSet::Any,
        }),
        Some("RegularExpression") => {
            let part = |part: Option<String>| part.map_or_else(|| "[^/]+".to_owned(), |part| format!("(?:{part})"));
            Ok(PathSet::Regex(format!("/{}/{}", part(service), part(name))))
        }
        Some(kind) => Err(format!("method of type {kind}")),
    }
}

/// Conditions by name; of equal names only the first counts.
fn pairs(entry: &FieldReader<'_>, field: &str, report: &mut ImportReport) -> Result<Vec<Node>, String> {
    let mut names: Vec<String> = Vec::new();
    let mut found = Vec::new();
    for item in entry.objects(field, report) {
        let name = item.string("name", report).unwrap_or_default();
        let same = if field == "headers" { name.to_ascii_lowercase() } else { name.clone() };
        let value = item.string("value", report).unwrap_or_default();
        let kind = item.string("type", report).unwrap_or_else(|| "Exact".to_owned());
        if !matches!(kind.as_str(), "Exact" | "RegularExpression") {
            return Err(format!("{field} {name} of type {kind}"));
        }
        if !names.contains(&same) {
            found.push(condition(&name, &kind, &value));
            names.push(same);
        }
    }
    Ok(found)
}
