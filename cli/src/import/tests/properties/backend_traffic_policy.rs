//! <https://gateway.envoyproxy.io/docs/api/extension_types/#ratelimitspec>: a policy on a rule takes precedence over
//! one on its route, and that over one on the Gateway; if two have the same target, the older applies. All limits that
//! select a request count it.

use super::*;

#[derive(Clone, Debug)]
struct Route {
    host: Option<&'static str>,
    rules: Vec<(&'static str, &'static str)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    Gateway,
    Route(usize),
    Rule(usize, usize),
}

#[derive(Clone, Debug)]
enum Selector {
    Is(&'static str),
    IsNot(&'static str),
    Distinct,
    Method(&'static str),
    Path(&'static str),
}

#[derive(Clone, Debug)]
struct Policy {
    target: Target,
    rules: Vec<(Vec<Selector>, u32)>,
    created: u8,
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let rule = (prop::sample::select(&["/", "/a", "/a/b", "/b"][..]), prop::sample::select(&DESTINATIONS[..]));
    let route = (prop::option::of(prop::sample::select(&HOSTS[..2])), prop::collection::vec(rule, 1..3));
    prop::collection::vec(route.prop_map(|(host, rules)| Route { host, rules }), 1..4)
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let target = prop_oneof![
        Just(Target::Gateway),
        (0..3_usize).prop_map(Target::Route),
        (0..3_usize, 0..2_usize).prop_map(|(route, rule)| Target::Rule(route, rule)),
    ];
    let selector = prop_oneof![
        prop::sample::select(&["1", "2"][..]).prop_map(Selector::Is),
        prop::sample::select(&["1", "2"][..]).prop_map(Selector::IsNot),
        Just(Selector::Distinct),
        prop::sample::select(&["GET", "POST"][..]).prop_map(Selector::Method),
        prop::sample::select(&["/a", "/b"][..]).prop_map(Selector::Path),
    ];
    let rule = (prop::collection::vec(selector, 0..3), 1..4_u32);
    let policy = (target, prop::collection::vec(rule, 1..3), 0..2_u8);
    prop::collection::vec(policy.prop_map(|(target, rules, created)| Policy { target, rules, created }), 1..4)
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Selector {
    fn holds(&self, request: &Request) -> bool {
        match self {
            Selector::Is(value) => request.header == Some(value),
            Selector::IsNot(value) => request.header != Some(value),
            Selector::Distinct => request.header.is_some(),
            Selector::Method(method) => request.method == *method,
            Selector::Path(prefix) => is_below(request.path, prefix),
        }
    }

    fn json(&self) -> Value {
        match self {
            Selector::Is(value) => json!({"headers": [{"name": "x-h", "value": value}]}),
            Selector::IsNot(value) => json!({"headers": [{"name": "x-h", "value": value, "invert": true}]}),
            Selector::Distinct => json!({"headers": [{"name": "x-h", "type": "Distinct"}]}),
            Selector::Method(method) => json!({"methods": [{"value": method}]}),
            Selector::Path(prefix) => json!({"path": {"type": "PathPrefix", "value": prefix}}),
        }
    }
}

/// The route and the rule that take a request.
fn taken(routes: &[Route], request: &Request) -> Option<(usize, usize)> {
    let exact = routes.iter().any(|route| route.host == Some(request.host));
    let of_host =
        |(_, route): &(usize, &Route)| if exact { route.host == Some(request.host) } else { route.host.is_none() };
    let all = routes.iter().enumerate().filter(of_host);
    let rules = all.flat_map(|(i, route)| route.rules.iter().enumerate().map(move |(k, rule)| (i, k, rule.0)));
    let fits = rules.filter(|(.., prefix)| is_below(request.path, prefix));
    fits.min_by_key(|(i, k, prefix)| (std::cmp::Reverse(prefix.trim_end_matches('/').len()), *i, *k))
        .map(|(i, k, _)| (i, k))
}

/// The policy of a rule.
fn policy_for(policies: &[Policy], (route, rule): (usize, usize)) -> Option<usize> {
    let oldest = |target: Target| {
        let all = policies.iter().enumerate().filter(|(_, policy)| policy.target == target);
        all.min_by_key(|(i, policy)| (policy.created, *i)).map(|(i, _)| i)
    };
    oldest(Target::Rule(route, rule)).or_else(|| oldest(Target::Route(route))).or_else(|| oldest(Target::Gateway))
}

fn documents(routes: &[Route], policies: &[Policy]) -> Vec<Value> {
    let routes = routes.iter().enumerate().map(|(i, route)| {
        let rules: Vec<Value> = route.rules.iter().enumerate().map(|(k, (prefix, to))| {
            json!({"name": format!("s{k}"), "matches": [{"path": {"value": prefix}}], "backendRefs": [{"name": to, "port": 80}]})
        }).collect();
        let hosts: Vec<&str> = route.host.into_iter().collect();
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": format!("r{i}")},
            "spec": {"parentRefs": [{"name": "g"}], "hostnames": hosts, "rules": rules}})
    });
    let policies = policies.iter().enumerate().map(|(i, policy)| {
        let target = match policy.target {
            Target::Gateway => json!({"kind": "Gateway", "name": "g"}),
            Target::Route(route) => json!({"kind": "HTTPRoute", "name": format!("r{route}")}),
            Target::Rule(route, rule) => json!({"kind": "HTTPRoute", "name": format!("r{route}"), "sectionName": format!("s{rule}")}),
        };
        let rules: Vec<Value> = policy.rules.iter().map(|(selectors, requests)| json!({
            "clientSelectors": selectors.iter().map(Selector::json).collect::<Vec<_>>(),
            "limit": {"requests": requests, "unit": "Hour"}})).collect();
        json!({"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "BackendTrafficPolicy",
            "metadata": {"name": format!("p{i}"), "creationTimestamp": format!("2026-01-0{}T00:00:00Z", policy.created + 1)},
            "spec": {"targetRefs": [target], "rateLimit": {"type": "Global", "global": {"rules": rules}}}})
    });
    routes.chain(policies).collect()
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn limits_count_what_the_routes_they_are_for_take(routes in routes(), policies in policies(), requests in requests()) {
        let imported = imported(&documents(&routes, &policies));
        let mut world = World::new(Timestamp(0), 0);
        // The number of requests that each bucket has passed.
        let mut passed: BTreeMap<(usize, usize, Counted, Option<&str>), u32> = BTreeMap::new();
        for request in &requests {
            let is_refused = request.wire().decide(&imported.policy, &mut world).status == Some(429);
            let mut buckets = Vec::new();
            if let Some((route, rule)) = taken(&routes, request) && let Some(i) = policy_for(&policies, (route, rule)) {
                let policy = &policies[i];
                for (k, (selectors, most)) in policy.rules.iter().enumerate() {
                    if selectors.iter().all(|selector| selector.holds(request)) {
                        let is_distinct = selectors.iter().any(|selector| matches!(selector, Selector::Distinct));
                        let of = match policy.target { Target::Gateway | Target::Route(_) => (route, None), Target::Rule(..) => (route, Some(rule)) };
                        buckets.push(((i, k, of, if is_distinct { request.header } else { None }), *most));
                    }
                }
            }
            let expected = buckets.iter().any(|(bucket, most)| passed.get(bucket).copied().unwrap_or(0) >= *most);
            if imported.is_complete {
                prop_assert_eq!(is_refused, expected, "{:?}\n{}", request, imported.text);
            } else {
                prop_assert!(expected || !is_refused, "{request:?} is refused\n{}", imported.text);
            }
            if !is_refused {
                buckets.into_iter().for_each(|(bucket, _)| *passed.entry(bucket).or_default() += 1);
            }
        }
    }
}

/// A route, or one of its rules.
type Counted = (usize, Option<usize>);
