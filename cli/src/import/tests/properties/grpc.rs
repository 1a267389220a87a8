//! <https://gateway-api.sigs.k8s.io/reference/spec/>: GRPCRouteRule.matches. The most specific host decides, then the
//! longest service, the longest method, the most headers; then the older route, and the name.

use std::cmp::Reverse;

use super::*;

const SERVICES: [&str; 3] = ["a.B", "a.Long", "c.D"];
const METHODS: [&str; 3] = ["Get", "List", "GetAll"];

#[derive(Clone, Debug)]
struct Condition {
    service: Option<&'static str>,
    method: Option<&'static str>,
    is_regex: bool,
    header: Option<&'static str>,
}

type Route = GatewayRoute<Condition>;

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let condition = (
        prop::option::of(prop::sample::select(&SERVICES[..])),
        prop::option::of(prop::sample::select(&METHODS[..])),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.3, prop::sample::select(&["1", "2"][..])),
    );
    let condition =
        condition.prop_map(|(service, method, is_regex, header)| Condition { service, method, is_regex, header });
    gateway_routes(condition, 0..3)
}

/// The most specific match for a call.
fn model(routes: &[Route], host: &str, service: &str, method: &str, header: Option<&str>) -> Expected {
    let hosts = |route: &Route| if route.hosts.is_empty() { vec!["*"] } else { route.hosts.clone() };
    let Some(host) = closest(routes.iter().flat_map(hosts), host) else { return Vec::new() };
    let nothing = [Condition { service: None, method: None, is_regex: false, header: None }];
    let mut best = None;
    for (i, route) in routes.iter().enumerate().filter(|(_, route)| hosts(route).contains(&host)) {
        for (k, (conditions, to)) in route.rules.iter().enumerate() {
            let conditions = if conditions.is_empty() { &nothing[..] } else { conditions };
            let holds = |condition: &&Condition| {
                condition.service.is_none_or(|own| own == service)
                    && condition.method.is_none_or(|own| own == method)
                    && condition.header.is_none_or(|own| header == Some(own))
            };
            for condition in conditions.iter().filter(holds) {
                let length = |part: Option<&str>| part.map_or(0, str::len);
                let rank =
                    (length(condition.service), length(condition.method), usize::from(condition.header.is_some()));
                let key = (rank, Reverse(route.created), Reverse(i), Reverse(k));
                if best.as_ref().is_none_or(|(known, _)| key > *known) {
                    best = Some((key, to));
                }
            }
        }
    }
    best.map(|(_, to)| weighted(to)).unwrap_or_default()
}

fn json_of(condition: &Condition) -> Value {
    let mut json = json!({});
    let mut method = json!({});
    for (field, value) in [("service", condition.service), ("method", condition.method)] {
        if let Some(value) = value {
            method[field] = json!(value);
        }
    }
    if condition.service.is_some() || condition.method.is_some() {
        if condition.is_regex {
            method["type"] = json!("RegularExpression");
        }
        json["method"] = method;
    }
    if let Some(value) = condition.header {
        json["headers"] = json!([{"name": "x-h", "value": value}]);
    }
    json
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn grpc_routes_decide_as_the_gateway_api_says(routes in routes(), host in prop::sample::select(&HOSTS[..]), header in prop::option::of(prop::sample::select(&["1", "2"][..]))) {
        let documents: Vec<Value> = routes.iter().enumerate().map(|(i, route)| {
            let rules: Vec<Value> = route.rules.iter().map(|(conditions, to)| {
                let backends: Vec<Value> =
                    to.iter().map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight})).collect();
                json!({"matches": conditions.iter().map(json_of).collect::<Vec<_>>(), "backendRefs": backends})
            }).collect();
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute",
                "metadata": {"name": format!("r{i}"), "creationTimestamp": format!("2026-01-0{}T00:00:00Z", route.created + 1)},
                "spec": {"hostnames": route.hosts, "rules": rules},
            })
        }).collect();
        let (_, policy, leads, text) = policy_of(&documents);
        for service in SERVICES {
            for method in METHODS {
                let headers: Vec<[&str; 2]> = header.iter().map(|value| ["x-h", *value]).collect();
                let json = json!({"method": "POST", "authority": host, "path": format!("/{service}/{method}"), "headers": headers});
                let wire: WireRequest = serde_json::from_value(json).unwrap();
                let expected = model(&routes, host, service, method, header);
                match went(&wire, &policy, &leads, 0) {
                    None => prop_assert!(expected.is_empty(), "{service}/{method} is left alone, not sent to {expected:?}\n{text}"),
                    Some(to) => prop_assert!(expected.contains(&&*to), "{service}/{method} goes to {to}, not {expected:?}\n{text}"),
                }
            }
        }
    }
}
