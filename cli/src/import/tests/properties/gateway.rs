//! <https://gateway-api.sigs.k8s.io/reference/spec/>: HTTPRouteRule.matches and HTTPRouteSpec.hostnames.

use std::cmp::Reverse;

use super::*;

#[derive(Clone, Debug)]
struct Condition {
    path: (&'static str, &'static str),
    header: Option<&'static str>,
    method: Option<&'static str>,
}

impl Condition {
    fn holds(&self, request: &Request) -> bool {
        let path = match self.path {
            ("Exact", path) => request.path == path,
            (_, prefix) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                request.path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        };
        path && self.header.is_none_or(|value| request.header == Some(value))
            && self.method.is_none_or(|method| request.method == method)
    }
}

type Route = GatewayRoute<Condition>;

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let path = (prop::sample::select(&["Exact", "PathPrefix"][..]), prop::sample::select(&PATHS[..]));
    let condition = (
        path,
        prop::option::weighted(0.3, prop::sample::select(&["1", "2"][..])),
        prop::option::weighted(0.3, prop::sample::select(&["GET", "POST"][..])),
    )
        .prop_map(|(path, header, method)| Condition { path, header, method });
    gateway_routes(condition, 1..3)
}

fn model(routes: &[Route], request: &Request) -> Expected {
    let hosts = |route: &Route| if route.hosts.is_empty() { vec!["*"] } else { route.hosts.clone() };
    let Some(host) = closest(routes.iter().flat_map(hosts), request.host) else { return Vec::new() };
    let mut best = None;
    for (i, route) in routes.iter().enumerate().filter(|(_, route)| hosts(route).contains(&host)) {
        for (k, (conditions, to)) in route.rules.iter().enumerate() {
            for condition in conditions.iter().filter(|condition| condition.holds(request)) {
                let (kind, path) = condition.path;
                let length = path.strip_suffix('/').unwrap_or(path).len();
                let rank =
                    (kind == "Exact", length, condition.method.is_some(), usize::from(condition.header.is_some()));
                let key = (rank, Reverse(route.created), Reverse(i), Reverse(k));
                if best.as_ref().is_none_or(|(known, _)| key > *known) {
                    best = Some((key, to));
                }
            }
        }
    }
    best.map(|(_, to)| weighted(to)).unwrap_or_default()
}

proptest! {
    #[test]
    fn http_routes_decide_as_the_gateway_api_says(routes in routes(), requests in requests()) {
        let documents: Vec<Value> = routes.iter().enumerate().map(|(i, route)| {
            let rules: Vec<Value> = route.rules.iter().map(|(conditions, to)| {
                let matches: Vec<Value> = conditions.iter().map(|condition| {
                    let mut json = json!({"path": {"type": condition.path.0, "value": condition.path.1}});
                    if let Some(value) = condition.header {
                        json["headers"] = json!([{"name": "x-h", "value": value}]);
                    }
                    if let Some(method) = condition.method {
                        json["method"] = json!(method);
                    }
                    json
                }).collect();
                let backends: Vec<Value> =
                    to.iter().map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight})).collect();
                json!({"matches": matches, "backendRefs": backends})
            }).collect();
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": {"name": format!("r{i}"), "creationTimestamp": format!("2026-01-0{}T00:00:00Z", route.created + 1)},
                "spec": {"hostnames": route.hosts, "rules": rules},
            })
        }).collect();
        agrees(&documents, &requests, &|request| model(&routes, request))?;
    }
}
