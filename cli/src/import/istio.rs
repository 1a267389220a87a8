//! Istio's VirtualService. Its prefixes are of letters, not of segments, so they become expressions.

use penstock_policy::document::Node;

use super::reader::{Lost, Reader, object};
use super::{Draft, map, text};

pub fn virtual_service(node: &Node, draft: &mut Draft, lost: &mut Lost) {
    let (name, reader) = object(node, lost);
    let namespace = match node.get("metadata").and_then(|metadata| metadata.get("namespace")) {
        Some(Node::String(namespace)) => Some(namespace.clone()),
        _ => None,
    };
    let spec = Reader::new(reader.take("spec").unwrap_or(&Node::Null), "spec", lost);
    reader.end(lost);
    let mut hosts = Vec::new();
    for host in spec.list("hosts", lost) {
        match host {
            Node::String(host) if host == "*" => {}
            Node::String(host) => {
                hosts.push(text(host.as_str()));
                // A short name stands for the service, whose clients use any of its names.
                if let (Some(namespace), false) = (&namespace, host.contains('.')) {
                    hosts.push(text(format!("{host}.{namespace}")));
                    hosts.push(text(format!("{host}.{namespace}.svc.cluster.local")));
                }
            }
            other => lost.note("spec.hosts", &other.to_string()),
        }
    }
    draft.first_match = true;
    // Canaries decide after all rules: from the first weighted route on, everything is a canary, in order.
    let mut weighted = false;
    for (i, route) in spec.list("http", lost).iter().enumerate() {
        let path = format!("spec.http[{i}]");
        let route = Reader::new(route, &path, lost);
        let own = route.string("name", lost);
        let wanted = format!("{name}-{}", own.unwrap_or_else(|| (i + 1).to_string()));
        let targets = destinations(&route, lost);
        if targets.is_empty() {
            lost.note(&path, "a route without a destination");
            route.end(lost);
            continue;
        }
        let matches = matches(&route, &hosts, lost);
        weighted |= targets.len() > 1;
        let name = draft.name(&wanted);
        if weighted {
            let variants = targets.iter().map(|(name, weight)| {
                let weight = if targets.len() == 1 { 1 } else { *weight };
                map([("name", text(name.as_str())), ("weight", Node::Integer(weight))])
            });
            let mut canary = vec![("name", text(name))];
            canary.extend(matches.map(|matches| ("matches", matches)));
            canary.push(("variants", Node::List(variants.collect())));
            draft.canaries.push(map(canary));
        } else {
            let target = targets.first().map(|(name, _)| name.clone()).unwrap_or_default();
            let mut rule = vec![("name", text(name))];
            let replaces = route.take("rewrite");
            rule.extend(matches.map(|matches| ("matches", matches)));
            rule.push(("route", text(target)));
            rule.extend(headers(&route, lost).map(|headers| ("requestHeaders", headers)));
            rule.extend(replaces.and_then(|node| rewrite(node, &route, &path, lost)).map(|node| ("rewrite", node)));
            rule.extend(duration(&route, "timeout", lost).map(|timeout| ("timeout", timeout)));
            rule.extend(retries(&route, lost).map(|retries| ("retries", retries)));
            draft.rules.push(map(rule));
        }
        route.end(lost);
    }
    spec.end(lost);
}

/// The names of the routes with their weights.
fn destinations(route: &Reader<'_>, lost: &mut Lost) -> Vec<(String, i64)> {
    let mut targets: Vec<(String, i64)> = Vec::new();
    for (i, item) in route.list("route", lost).iter().enumerate() {
        let item = Reader::new(item, &format!("{}[{i}]", route.at("route")), lost);
        let destination = Reader::new(item.take("destination").unwrap_or(&Node::Null), &item.at("destination"), lost);
        let host = destination.string("host", lost).unwrap_or_default();
        let subset = destination.string("subset", lost);
        let port = destination.take("port");
        let short = host.split('.').next().unwrap_or_default().to_owned();
        let name = subset.as_ref().map_or_else(|| short.clone(), |subset| format!("{short}-{subset}"));
        let port = port.and_then(|port| port.get("number")).map(|port| format!(" port {port}")).unwrap_or_default();
        let subset = subset.map(|subset| format!(" subset {subset}")).unwrap_or_default();
        lost.leads_to(&name, &format!("{host}{subset}{port}"));
        destination.end(lost);
        let weight = item.integer("weight", lost).unwrap_or(0);
        item.end(lost);
        match targets.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += weight,
            None => targets.push((name, weight)),
        }
    }
    targets
}

fn matches(route: &Reader<'_>, hosts: &[Node], lost: &mut Lost) -> Option<Node> {
    let mut entries = Vec::new();
    for (i, entry) in route.list("match", lost).iter().enumerate() {
        let entry = Reader::new(entry, &format!("{}[{i}]", route.at("match")), lost);
        entry.ignore(&["name"]);
        let mut conditions = Vec::new();
        if let Some(method) = entry.take("method") {
            match method.get("exact") {
                Some(method) => conditions.push(("method", method.clone())),
                None => lost.note(&entry.at("method"), &format!("{method}: a policy knows methods by name only")),
            }
        }
        let mut hosts = hosts.to_vec();
        if let Some(authority) = entry.take("authority") {
            match authority.get("exact") {
                Some(host) => hosts = vec![host.clone()],
                None => lost.note(&entry.at("authority"), &format!("{authority}: a policy knows hosts by name only")),
            }
        }
        if !hosts.is_empty() {
            conditions.push(("hostnames", Node::List(hosts)));
        }
        let has_rewrite = route.rest().contains(&"rewrite");
        if let Some(uri) = entry.take("uri").and_then(|uri| path(uri, has_rewrite, &entry.at("uri"), lost)) {
            conditions.push(("path", uri));
        }
        let mut headers = Vec::new();
        for (field, invert) in [("headers", false), ("withoutHeaders", true)] {
            headers.extend(pairs(&entry, field, invert, lost));
        }
        if !headers.is_empty() {
            conditions.push(("headers", Node::List(headers)));
        }
        let query = pairs(&entry, "queryParams", false, lost);
        if !query.is_empty() {
            conditions.push(("queryParams", Node::List(query)));
        }
        entry.end(lost);
        if conditions.is_empty() {
            // An entry that holds always: so does the list.
            return None;
        }
        entries.push(map(conditions));
    }
    if entries.is_empty() && !hosts.is_empty() {
        entries.push(map([("hostnames", Node::List(hosts.to_vec()))]));
    }
    (!entries.is_empty()).then_some(Node::List(entries))
}

/// `uri` as a path.
fn path(uri: &Node, has_rewrite: bool, at: &str, lost: &mut Lost) -> Option<Node> {
    let string = |name: &str| match uri.get(name) {
        Some(Node::String(value)) => Some(value.clone()),
        _ => None,
    };
    if let Some(value) = string("exact") {
        return Some(map([("type", text("Exact")), ("value", text(value))]));
    }
    if let Some(value) = string("regex") {
        return Some(map([("type", text("RegularExpression")), ("value", text(value))]));
    }
    if let Some(value) = string("prefix") {
        if value == "/" {
            return Some(map([("type", text("PathPrefix")), ("value", text("/"))]));
        }
        if has_rewrite {
            lost.note(at, &format!("{value} is matched by whole segments, because the rewrite needs that"));
            return Some(map([("type", text("PathPrefix")), ("value", text(value))]));
        }
        return Some(map([("type", text("RegularExpression")), ("value", text(format!("{}.*", escaped(&value))))]));
    }
    lost.note(at, &uri.to_string());
    None
}

/// `text` as an expression for itself (RE2).
pub fn escaped(text: &str) -> String {
    let escape = |c: char| if "\\.+*?()|[]{}^$".contains(c) { format!("\\{c}") } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Conditions by name.
fn pairs(entry: &Reader<'_>, field: &str, invert: bool, lost: &mut Lost) -> Vec<Node> {
    let Some(Node::Map(conditions)) = entry.take(field) else { return Vec::new() };
    let mut found = Vec::new();
    for (name, condition) in conditions {
        let mut node = vec![("name", text(name.as_str()))];
        let value = match condition {
            Node::Map(entries) => entries.first().map(|(kind, value)| (kind.as_str(), value)),
            _ => None,
        };
        match value {
            Some(("exact", value)) => node.push(("value", value.clone())),
            Some(("prefix", Node::String(prefix))) if prefix.is_empty() => node.push(("type", text("Present"))),
            Some(("prefix", value)) => node.extend([("type", text("Prefix")), ("value", value.clone())]),
            Some(("regex", value)) => node.extend([("type", text("RegularExpression")), ("value", value.clone())]),
            None => node.push(("type", text("Present"))),
            Some((kind, value)) => {
                lost.note(&format!("{}.{name}", entry.at(field)), &format!("{kind}: {value}"));
                continue;
            }
        }
        if invert {
            node.push(("invert", Node::Bool(true)));
        }
        found.push(map(node));
    }
    found
}

/// `headers.request`.
fn headers(route: &Reader<'_>, lost: &mut Lost) -> Option<Node> {
    let headers = Reader::new(route.take("headers")?, &route.at("headers"), lost);
    let request = Reader::new(headers.take("request").unwrap_or(&Node::Null), &headers.at("request"), lost);
    let mut changes = Vec::new();
    for field in ["set", "add"] {
        if let Some(Node::Map(fields)) = request.take(field) {
            let fields =
                fields.iter().map(|(name, value)| map([("name", text(name.as_str())), ("value", value.clone())]));
            changes.push((field, Node::List(fields.collect())));
        }
    }
    changes.extend(request.take("remove").map(|names| ("remove", names.clone())));
    request.end(lost);
    headers.end(lost);
    (!changes.is_empty()).then(|| map(changes))
}

fn rewrite(node: &Node, route: &Reader<'_>, path: &str, lost: &mut Lost) -> Option<Node> {
    let reader = Reader::new(node, &format!("{path}.rewrite"), lost);
    let mut rewrite = Vec::new();
    if let Some(uri) = reader.string("uri", lost) {
        let entries = match route.take("match") {
            Some(Node::List(entries)) => entries.as_slice(),
            _ => &[],
        };
        let prefixed = |entry: &Node| entry.get("uri").is_some_and(|uri| uri.get("prefix").is_some());
        let exact = |entry: &Node| entry.get("uri").is_some_and(|uri| uri.get("exact").is_some());
        let kind = match () {
            () if !entries.is_empty() && entries.iter().all(prefixed) => Some("ReplacePrefixMatch"),
            () if !entries.is_empty() && entries.iter().all(exact) => Some("ReplaceFullPath"),
            () => None,
        };
        match kind {
            Some(kind) => rewrite.push(("path", map([("type", text(kind)), ("value", text(uri))]))),
            None => {
                lost.note(&reader.at("uri"), &format!("{uri}: only with matches that are all prefixes or all exact"))
            }
        }
    }
    rewrite.extend(reader.string("authority", lost).map(|host| ("hostname", text(host))));
    reader.end(lost);
    (!rewrite.is_empty()).then(|| map(rewrite))
}

fn retries(route: &Reader<'_>, lost: &mut Lost) -> Option<Node> {
    let reader = Reader::new(route.take("retries")?, &route.at("retries"), lost);
    let attempts = reader.integer("attempts", lost).unwrap_or(2);
    // The default of Istio.
    let default = "connect-failure,refused-stream,unavailable,cancelled";
    let on = reader.string("retryOn", lost).unwrap_or_else(|| default.to_owned());
    let on = on.split(',').map(str::trim).filter(|word| !word.is_empty()).map(text).collect();
    let mut retries = vec![("attempts", Node::Integer(attempts)), ("on", Node::List(on))];
    retries.extend(duration(&reader, "perTryTimeout", lost).map(|timeout| ("perTryTimeout", timeout)));
    reader.end(lost);
    Some(map(retries))
}

/// A protobuf duration such as `0.5s`, `10s` or `1h30m`, in the form of the Gateway API.
fn duration(reader: &Reader<'_>, name: &str, lost: &mut Lost) -> Option<Node> {
    let written = reader.string(name, lost)?;
    let millis = written.strip_suffix('s').and_then(|seconds| seconds.parse::<f64>().ok()).map(|s| s * 1000.0);
    match millis {
        Some(millis) if millis.fract() == 0.0 && (0.0..=99_999.0).contains(&millis) && written.contains('.') => {
            Some(text(format!("{millis}ms")))
        }
        _ => Some(text(written)),
    }
}
