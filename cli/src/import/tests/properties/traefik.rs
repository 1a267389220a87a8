//! <https://doc.traefik.io/traefik/reference/routing-configuration/http/routing/rules-and-priority/>.

use super::*;

#[derive(Clone, Debug)]
enum Matcher {
    Host(&'static str),
    Path(&'static str),
    Prefix(&'static str),
    Header(&'static str),
    NoHeader(&'static str),
    Method(&'static str),
}

impl Matcher {
    fn holds(&self, request: &Request) -> bool {
        match self {
            Matcher::Host(host) => request.host == *host,
            Matcher::Path(path) => request.path == *path,
            Matcher::Prefix(prefix) => request.path.starts_with(prefix),
            Matcher::Header(value) => request.header == Some(value),
            Matcher::NoHeader(value) => request.header != Some(value),
            Matcher::Method(method) => request.method == *method,
        }
    }

    fn text(&self) -> String {
        match self {
            Matcher::Host(host) => format!("Host(`{host}`)"),
            Matcher::Path(path) => format!("Path(`{path}`)"),
            Matcher::Prefix(prefix) => format!("PathPrefix(`{prefix}`)"),
            Matcher::Header(value) => format!("Header(`X-H`, `{value}`)"),
            Matcher::NoHeader(value) => format!("!Header(`X-H`, `{value}`)"),
            Matcher::Method(method) => format!("Method(`{method}`)"),
        }
    }
}

#[derive(Clone, Debug)]
struct Route {
    // Alternatives, each a conjunction of matchers.
    alternatives: Vec<Vec<Matcher>>,
    priority: Option<i64>,
    to: Vec<(&'static str, i64)>,
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let matcher = prop_oneof![
        prop::sample::select(&HOSTS[..3]).prop_map(Matcher::Host),
        prop::sample::select(&PATHS[..]).prop_map(Matcher::Path),
        prop::sample::select(&PATHS[..]).prop_map(Matcher::Prefix),
        prop::sample::select(&["1", "2"][..]).prop_map(Matcher::Header),
        prop::sample::select(&["1", "2"][..]).prop_map(Matcher::NoHeader),
        prop::sample::select(&["GET", "POST"][..]).prop_map(Matcher::Method),
    ];
    let alternatives = prop::collection::vec(prop::collection::vec(matcher, 1..3), 1..3);
    let route = (alternatives, prop::option::of(1..4_i64), targets()).prop_map(|(alternatives, priority, to)| Route {
        alternatives,
        priority,
        to,
    });
    prop::collection::vec(route, 1..5)
}

fn rule(route: &Route) -> String {
    let all = |list: &Vec<Matcher>| list.iter().map(Matcher::text).collect::<Vec<_>>().join(" && ");
    route.alternatives.iter().map(|list| format!("({})", all(list))).collect::<Vec<_>>().join(" || ")
}

/// The highest priority, which by default is the length of the rule; with equal priorities, the first.
fn model(routes: &[Route], request: &Request) -> Expected {
    let holds = |route: &Route| route.alternatives.iter().any(|list| list.iter().all(|matcher| matcher.holds(request)));
    let priority = |route: &Route| route.priority.unwrap_or(rule(route).len() as i64);
    let all = routes.iter().enumerate().filter(|(_, route)| holds(route));
    let best = all.max_by_key(|(i, route)| (priority(route), std::cmp::Reverse(*i)));
    best.map(|(_, route)| weighted(&route.to)).unwrap_or_default()
}

proptest! {
    #[test]
    fn ingress_routes_decide_as_traefik_does(routes in routes(), requests in requests()) {
        let list: Vec<Value> = routes.iter().map(|route| {
            let services: Vec<Value> =
                route.to.iter().map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight})).collect();
            let mut json = json!({"kind": "Rule", "match": rule(route), "services": services});
            if let Some(priority) = route.priority {
                json["priority"] = json!(priority);
            }
            json
        }).collect();
        let document = json!({"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": {"name": "r"}, "spec": {"routes": list}});
        agrees(&[document], &requests, &|request| model(&routes, request))?;
    }
}
