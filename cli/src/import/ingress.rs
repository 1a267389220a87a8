//! ingress-nginx's canaries: an Ingress with annotations beside the main one of the same host and path.

use penstock_policy::document::Node;

use super::reader::{Lost, Reader, object};
use super::{Draft, map, text};

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// One path of an Ingress.
struct Place {
    host: Option<String>,
    path: String,
    kind: String,
    service: String,
}

/// An Ingress.
struct Object {
    name: String,
    file: String,
    places: Vec<Place>,
    canary: Option<Canary>,
}

/// What the annotations say.
#[derive(Default)]
struct Canary {
    overrides: Vec<Override>,
    weight: i64,
    total: i64,
}

/// A header or cookie, and whether it is for the canary.
struct Override {
    field: &'static str,
    condition: Node,
    canary: bool,
}

pub fn ingresses(documents: &[&(String, Node)], draft: &mut Draft, lost: &mut Lost) {
    let objects: Vec<Object> = documents
        .iter()
        .map(|(file, node)| {
            lost.file.clone_from(file);
            read(node, lost)
        })
        .collect();
    let mains: Vec<&Object> = objects.iter().filter(|object| object.canary.is_none()).collect();
    let mut found: Vec<(usize, Node)> = Vec::new();
    for object in &objects {
        lost.file.clone_from(&object.file);
        lost.object = format!("Ingress {}", object.name);
        let Some(canary) = &object.canary else {
            let of = |other: &Object, place: &Place| {
                other.canary.is_some() && other.places.iter().any(|p| p.host == place.host && p.path == place.path)
            };
            for place in object.places.iter().filter(|place| !objects.iter().any(|other| of(other, place))) {
                lost.note(
                    &place.path,
                    &format!("to {}: there is no canary for it; leave it to the host", place.service),
                );
            }
            continue;
        };
        for place in &object.places {
            let main =
                mains.iter().flat_map(|main| &main.places).find(|p| p.host == place.host && p.path == place.path);
            let main = main.map_or_else(
                || {
                    lost.note(&place.path, "its main Ingress is not here: the route is called `main`");
                    "main".to_owned()
                },
                |main| main.service.clone(),
            );
            let name = draft.name(&object.name);
            found.push((place.path.len(), self::canary(canary, place, &main, name)));
        }
    }
    // Nginx takes the longest path; canaries are tried in order.
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    draft.canaries.extend(found.into_iter().map(|(_, canary)| canary));
}

fn canary(canary: &Canary, place: &Place, main: &str, name: String) -> Node {
    let mut conditions = Vec::new();
    if let Some(host) = &place.host {
        conditions.push(("hostnames", Node::List(vec![text(host.as_str())])));
    }
    if place.path != "/" || place.kind == "Exact" {
        conditions.push(("path", map([("type", text(place.kind.as_str())), ("value", text(place.path.as_str()))])));
    }
    let mut node = vec![("name", text(name))];
    if !conditions.is_empty() {
        node.push(("matches", Node::List(vec![map(conditions)])));
    }
    let overrides: Vec<Node> = canary
        .overrides
        .iter()
        .map(|over| {
            let variant = if over.canary { place.service.as_str() } else { main };
            map([(over.field, over.condition.clone()), ("variant", text(variant))])
        })
        .collect();
    if !overrides.is_empty() {
        node.push(("overrides", Node::List(overrides)));
    }
    let variant = |name: &str, weight| map([("name", text(name)), ("weight", Node::Integer(weight))]);
    let weight = canary.weight.clamp(0, canary.total);
    node.push(("variants", Node::List(vec![variant(main, canary.total - weight), variant(&place.service, weight)])));
    map(node)
}

fn read(node: &Node, lost: &mut Lost) -> Object {
    let (name, reader) = object(node, lost);
    let file = lost.file.clone();
    let none = Node::Null;
    let annotations = node.get("metadata").and_then(|metadata| metadata.get("annotations")).unwrap_or(&none);
    let canary = annotations_of(annotations, lost);
    let spec = Reader::new(reader.take("spec").unwrap_or(&Node::Null), "spec", lost);
    reader.end(lost);
    spec.ignore(&["ingressClassName"]);
    let mut places = Vec::new();
    for (i, rule) in spec.list("rules", lost).iter().enumerate() {
        let rule = Reader::new(rule, &format!("spec.rules[{i}]"), lost);
        let host = rule.string("host", lost);
        let http = Reader::new(rule.take("http").unwrap_or(&Node::Null), &rule.at("http"), lost);
        for (k, item) in http.list("paths", lost).iter().enumerate() {
            let item = Reader::new(item, &format!("{}[{k}]", http.at("paths")), lost);
            let path = item.string("path", lost).unwrap_or_else(|| "/".to_owned());
            let kind = match item.string("pathType", lost).as_deref() {
                Some("Exact") => "Exact",
                Some("ImplementationSpecific") => {
                    lost.note(&item.at("pathType"), "ImplementationSpecific is read as Prefix");
                    "PathPrefix"
                }
                _ => "PathPrefix",
            };
            let service = item.take("backend").and_then(|backend| backend.get("service"));
            let (name, port) = (service.and_then(|s| s.get("name")), service.and_then(|s| s.get("port")));
            match name {
                Some(Node::String(service)) => {
                    let port = port.map(|port| format!(" port {port}")).unwrap_or_default();
                    lost.leads_to(service, &format!("{service}{port}"));
                    places.push(Place { host: host.clone(), path, kind: kind.to_owned(), service: service.clone() });
                }
                _ => lost.note(&item.at("backend"), "it is no service"),
            }
            item.end(lost);
        }
        http.end(lost);
        rule.end(lost);
    }
    spec.end(lost);
    Object { name, file, places, canary }
}

/// The canary of the annotations, when there is one; reports those that say something else.
fn annotations_of(annotations: &Node, lost: &mut Lost) -> Option<Canary> {
    let reader = Reader::new(annotations, "metadata.annotations", lost);
    let take = |name: &str, lost: &mut Lost| reader.string(&format!("{PREFIX}{name}"), lost);
    let is_canary = take("canary", lost).is_some_and(|value| value == "true");
    let mut canary = Canary { total: 100, ..Canary::default() };
    let condition = |name: &str, value: &str| map([("name", text(name)), ("value", text(value))]);
    if is_canary {
        let value = take("canary-by-header-value", lost);
        let pattern = take("canary-by-header-pattern", lost);
        if let Some(header) = take("canary-by-header", lost) {
            match (&value, &pattern) {
                (Some(value), _) => {
                    canary.overrides.push(Override {
                        field: "header",
                        condition: condition(&header, value),
                        canary: true,
                    });
                }
                (None, Some(pattern)) => {
                    // Nginx looks for it anywhere in the value.
                    let expression = format!(".*(?:{pattern}).*");
                    let condition =
                        [("name", text(header)), ("type", text("RegularExpression")), ("value", text(expression))];
                    canary.overrides.push(Override { field: "header", condition: map(condition), canary: true });
                }
                (None, None) => {
                    for (value, canary_wins) in [("always", true), ("never", false)] {
                        let condition = condition(&header, value);
                        canary.overrides.push(Override { field: "header", condition, canary: canary_wins });
                    }
                }
            }
        } else if value.is_some() || pattern.is_some() {
            lost.note("metadata.annotations", "canary-by-header-value or -pattern without canary-by-header");
        }
        if let Some(cookie) = take("canary-by-cookie", lost) {
            for (value, canary_wins) in [("always", true), ("never", false)] {
                let condition = condition(&cookie, value);
                canary.overrides.push(Override { field: "cookie", condition, canary: canary_wins });
            }
        }
        canary.weight = reader.integer(&format!("{PREFIX}canary-weight"), lost).unwrap_or(0);
        canary.total = reader.integer(&format!("{PREFIX}canary-weight-total"), lost).unwrap_or(100);
    }
    for name in reader.rest().into_iter().filter(|name| name.starts_with(PREFIX)) {
        let value = annotations.get(name).map(ToString::to_string).unwrap_or_default();
        lost.note(&format!("metadata.annotations.{name}"), &value);
    }
    is_canary.then_some(canary)
}
