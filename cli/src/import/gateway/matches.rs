//! `matches` of HTTPRoute and GRPCRoute.

use penstock_policy::document::Node;

use crate::import::matching::{Match, PathSet, condition, escaped};
use crate::import::reader::FieldReader;
use crate::import::report::ImportReport;

/// A match; for a GRPCRoute with the lengths of its service and method.
pub type Ranked = (Match, Option<(usize, usize)>);

/// One item for each match; an error for a condition that a policy cannot express.
pub fn of(rule: &FieldReader<'_>, is_grpc: bool, report: &mut ImportReport) -> Result<Vec<Ranked>, String> {
    report.conditions(|report| all(rule, is_grpc, report))
}

fn all(rule: &FieldReader<'_>, is_grpc: bool, report: &mut ImportReport) -> Result<Vec<Ranked>, String> {
    let mut found = Vec::new();
    for entry in rule.objects("matches", report) {
        let mut matches = Match::default();
        let mut rank = is_grpc.then_some((0, 0));
        if is_grpc {
            (matches.path, rank) = grpc(&entry, report)?;
        } else {
            matches.method = entry.string("method", report);
            matches.path = path(&entry, report)?;
            matches.query = pairs(&entry, "queryParams", report)?;
        }
        matches.headers = pairs(&entry, "headers", report)?;
        if let Some((name, value)) = entry.rest().first() {
            return Err(format!("{name} {value}: `import` does not know it"));
        }
        found.push((matches, rank));
    }
    if found.is_empty() {
        found.push((Match::default(), is_grpc.then_some((0, 0))));
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

/// A gRPC method is a path with two segments.
fn grpc(entry: &FieldReader<'_>, report: &mut ImportReport) -> Result<(PathSet, Option<(usize, usize)>), String> {
    let Some(method) = entry.object("method", report) else { return Ok((PathSet::Any, Some((0, 0)))) };
    let part = |name: &str, report: &mut ImportReport| method.string(name, report).filter(|part| !part.is_empty());
    let (service, name) = (part("service", report), part("method", report));
    let length = |part: &Option<String>| part.as_ref().map_or(0, String::len);
    let rank = (length(&service), length(&name));
    let path = match method.string("type", report).as_deref() {
        None | Some("Exact") => match (service, name) {
            (Some(service), Some(name)) => PathSet::Exact(format!("/{service}/{name}")),
            (Some(service), None) => PathSet::segments(&format!("/{service}")),
            (None, Some(name)) => PathSet::Regex(format!("/[^/]+/{}", escaped(name))),
            (None, None) => PathSet::Any,
        },
        Some("RegularExpression") => {
            let part = |part: Option<String>| part.map_or_else(|| "[^/]+".to_owned(), |part| format!("(?:{part})"));
            PathSet::Regex(format!("/{}/{}", part(service), part(name)))
        }
        Some(kind) => return Err(format!("method of type {kind}")),
    };
    Ok((path, Some(rank)))
}

/// Conditions by name; of conditions with the same name, only the first counts.
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
