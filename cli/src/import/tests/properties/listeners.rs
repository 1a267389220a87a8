//! <https://gateway-api.sigs.k8s.io/reference/spec/>: Listener, AllowedRoutes and HTTPRouteSpec.hostnames. Only the
//! listener with the most specific host takes a request; of its routes, the one with the most specific host decides.

use super::*;

#[derive(Clone, Debug)]
struct Listener {
    host: Option<&'static str>,
    is_tls: bool,
    from: &'static str,
    in_set: bool,
}

#[derive(Clone, Debug)]
struct Route {
    namespace: &'static str,
    hosts: Vec<&'static str>,
    section: Option<usize>,
    prefix: &'static str,
    to: &'static str,
    created: u8,
}

fn listeners() -> impl Strategy<Value = Vec<Listener>> {
    let listener = (
        prop::option::of(prop::sample::select(&PATTERNS[1..])),
        any::<bool>(),
        prop::sample::select(&["All", "Same", "prod", "blue"][..]),
        prop::bool::weighted(0.2),
    );
    let listener = listener.prop_map(|(host, is_tls, from, in_set)| Listener { host, is_tls, from, in_set });
    prop::collection::vec(listener, 1..4).prop_map(|mut all| {
        // A Gateway has one listener for a port and a host.
        let mut seen = Vec::new();
        all.retain(|one| {
            !seen.contains(&(one.host, one.is_tls)) && {
                seen.push((one.host, one.is_tls));
                true
            }
        });
        all
    })
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let route = (
        prop::sample::select(&["prod", "team", "infra"][..]),
        prop::sample::subsequence(&PATTERNS[1..], 0..3),
        prop::option::weighted(0.4, 0..3_usize),
        prop::sample::select(&["/", "/a", "/b"][..]),
        prop::sample::select(&DESTINATIONS[..]),
        0..3_u8,
    );
    let route = route.prop_map(|(namespace, hosts, section, prefix, to, created)| Route {
        namespace,
        hosts,
        section,
        prefix,
        to,
        created,
    });
    prop::collection::vec(route, 1..5)
}

impl Listener {
    /// The routes that it accepts; `team` has the label `color: blue`.
    fn takes(&self, namespace: &str) -> bool {
        match self.from {
            "All" => true,
            "Same" => namespace == "infra",
            "prod" => namespace == "prod",
            _ => namespace == "team",
        }
    }

    fn allowed(&self) -> Value {
        let namespaces = match self.from {
            "All" | "Same" => json!({"from": self.from}),
            "prod" => json!({"from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": "prod"}}}),
            _ => {
                json!({"from": "Selector", "selector": {"matchExpressions": [{"key": "color", "operator": "In", "values": ["blue"]}]}})
            }
        };
        json!({"namespaces": namespaces})
    }
}

fn covers(pattern: &str, other: &str) -> bool {
    pattern == "*" || pattern == other || pattern.strip_prefix('*').is_some_and(|below| other.ends_with(below))
}

/// The hosts of a route at a listener.
fn common(listener: &str, route: &[&'static str]) -> Vec<String> {
    let of = |host: &&str| match (covers(listener, host), covers(host, listener)) {
        (true, _) => Some((*host).to_owned()),
        (_, true) => Some(listener.to_owned()),
        _ => None,
    };
    if route.is_empty() { vec![listener.to_owned()] } else { route.iter().filter_map(of).collect() }
}

fn model(listeners: &[Listener], routes: &[Route], request: &Request, is_tls: bool) -> Expected {
    let of_port = |listener: &&Listener| listener.is_tls == is_tls;
    let hosts = listeners.iter().filter(of_port).map(|listener| listener.host.unwrap_or("*"));
    let Some(host) = closest(hosts, request.host) else { return Vec::new() };
    let index = listeners.iter().position(|one| of_port(&one) && one.host.unwrap_or("*") == host).unwrap();
    let listener = &listeners[index];
    let attached: Vec<(usize, &Route, Vec<String>)> = routes
        .iter()
        .enumerate()
        .filter(|(_, route)| listener.takes(route.namespace) && route.section.is_none_or(|section| section == index))
        .filter(|(_, route)| route.section.is_some() || !listener.in_set)
        .map(|(i, route)| (i, route, common(host, &route.hosts)))
        .collect();
    let all = attached.iter().flat_map(|(.., hosts)| hosts.iter().map(String::as_str));
    let Some(host) = closest(all, request.host) else { return Vec::new() };
    let fits = |prefix: &str| {
        let rest = request.path.strip_prefix(prefix.strip_suffix('/').unwrap_or(prefix));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let best = attached
        .iter()
        .filter(|(_, route, hosts)| hosts.iter().any(|own| own == host) && fits(route.prefix))
        .min_by_key(|(i, route, _)| (std::cmp::Reverse(route.prefix.len()), route.created, route.namespace, *i));
    best.map(|(_, route, _)| vec![route.to]).unwrap_or_default()
}

fn documents(listeners: &[Listener], routes: &[Route]) -> Vec<Value> {
    let json_of = |in_set: bool| -> Vec<Value> {
        let own = listeners.iter().enumerate().filter(|(_, listener)| listener.in_set == in_set);
        own.map(|(i, listener)| {
            let (port, protocol) = if listener.is_tls { (443, "HTTPS") } else { (80, "HTTP") };
            let mut json = json!({"name": format!("l{i}"), "port": port, "protocol": protocol, "allowedRoutes": listener.allowed()});
            if let Some(host) = listener.host {
                json["hostname"] = json!(host);
            }
            json
        })
        .collect()
    };
    let api = "gateway.networking.k8s.io/v1";
    let mut all = vec![
        json!({"apiVersion": api, "kind": "Gateway", "metadata": {"name": "g", "namespace": "infra"}, "spec": {"listeners": json_of(false)}}),
        json!({"apiVersion": api, "kind": "ListenerSet", "metadata": {"name": "s", "namespace": "infra"},
            "spec": {"parentRef": {"name": "g"}, "listeners": json_of(true)}}),
    ];
    for (name, labels) in [("prod", json!({})), ("team", json!({"color": "blue"})), ("infra", json!({}))] {
        all.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}));
    }
    all.extend(routes.iter().enumerate().map(|(i, route)| {
        // The name of a listener says which object contains it.
        let of_set = route.section.and_then(|section| listeners.get(section)).is_some_and(|listener| listener.in_set);
        let mut parent = json!({"kind": if of_set { "ListenerSet" } else { "Gateway" }, "name": if of_set { "s" } else { "g" }, "namespace": "infra"});
        if let Some(section) = route.section {
            parent["sectionName"] = json!(format!("l{section}"));
        }
        json!({"apiVersion": api, "kind": "HTTPRoute",
            "metadata": {"name": format!("r{i}"), "namespace": route.namespace, "creationTimestamp": format!("2026-01-0{}T00:00:00Z", route.created + 1)},
            "spec": {"parentRefs": [parent], "hostnames": route.hosts, "rules": [
                {"matches": [{"path": {"value": route.prefix}}], "backendRefs": [{"name": route.to, "port": 80}]}]}})
    }));
    all
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn routes_take_what_their_listeners_take(listeners in listeners(), routes in routes(), requests in requests()) {
        let (_, policy, leads, text) = policy_of(&documents(&listeners, &routes));
        // Without a listener, no request arrives.
        let comes_in = |is_tls: bool| listeners.iter().any(|listener| listener.is_tls == is_tls);
        for request in &requests {
            for (scheme, is_tls) in [("http", false), ("https", true)].into_iter().filter(|(_, is_tls)| comes_in(*is_tls)) {
                let json = json!({"method": "GET", "authority": request.host, "path": request.path, "headers": [["x-forwarded-proto", scheme]]});
                let wire: WireRequest = serde_json::from_value(json).unwrap();
                let went = went(&wire, &policy, &leads, 0);
                let expected = model(&listeners, &routes, request, is_tls);
                prop_assert_eq!(went.as_deref(), expected.first().copied(), "{} {:?}\n{}", scheme, request, text);
            }
        }
    }
}
