//! <https://istio.io/latest/docs/reference/config/networking/virtual-service/#Delegate>: the delegating route is
//! replaced by the delegate's routes, restricted to what both match; matches that contradict each other are dropped.

use super::istio::Condition;
use super::*;

#[derive(Clone, Debug)]
enum To {
    Delegate(usize),
    Service(&'static str),
}

type Route<T> = (Vec<Condition>, T);

fn conditions() -> impl Strategy<Value = Vec<Condition>> {
    let uri =
        (prop::sample::select(&["exact", "prefix"][..]), prop::sample::select(&["/", "/a", "/a/", "/a/b", "/b"][..]));
    let value = || prop::option::weighted(0.2, prop::sample::select(&["1", "2"][..]));
    let condition = (prop::option::weighted(0.7, uri), value(), value());
    let condition = condition.prop_map(|(uri, header, without)| Condition { uri, header, without, method: None });
    prop::collection::vec(condition, 0..3)
}

fn roots() -> impl Strategy<Value = Vec<Route<To>>> {
    let to = prop_oneof![
        2 => (0..3_usize).prop_map(To::Delegate),
        1 => prop::sample::select(&DESTINATIONS[..]).prop_map(To::Service),
    ];
    prop::collection::vec((conditions(), to), 1..4)
}

fn delegates() -> impl Strategy<Value = Vec<Vec<Route<&'static str>>>> {
    let route = (conditions(), prop::sample::select(&DESTINATIONS[..]));
    prop::collection::vec(prop::collection::vec(route, 1..4), 2)
}

/// Whether both may be merged into one match: where both have a condition, the leaf's must imply the root's.
fn fit(root: &Condition, leaf: &Condition) -> bool {
    let uri = match (root.uri, leaf.uri) {
        (Some(("exact", root)), Some(("exact", leaf))) => root == leaf,
        (Some(("exact", _)), Some(_)) => false,
        (Some((_, root)), Some((_, leaf))) => leaf.starts_with(root),
        _ => true,
    };
    let same = |root: Option<&str>, leaf: Option<&str>| root.is_none() || leaf.is_none() || root == leaf;
    uri && same(root.header, leaf.header) && same(root.without, leaf.without)
}

fn model(roots: &[Route<To>], delegates: &[Vec<Route<&'static str>>], request: &Request) -> Expected {
    let nothing = [Condition { uri: None, header: None, without: None, method: None }];
    let or_all = |list: &[Condition]| if list.is_empty() { nothing.to_vec() } else { list.to_vec() };
    for (of_root, to) in roots {
        let of_root = or_all(of_root);
        match to {
            To::Service(to) if of_root.iter().any(|condition| condition.holds(request)) => return vec![to],
            To::Service(_) => {}
            // A missing delegate: the route exists and has no destination.
            To::Delegate(i) if *i >= delegates.len() => {
                if of_root.iter().any(|condition| condition.holds(request)) {
                    return Vec::new();
                }
            }
            To::Delegate(i) => {
                for (of_leaf, to) in &delegates[*i] {
                    let both = |leaf: &Condition| {
                        of_root.iter().any(|root| fit(root, leaf) && root.holds(request) && leaf.holds(request))
                    };
                    if or_all(of_leaf).iter().any(both) {
                        return vec![to];
                    }
                }
            }
        }
    }
    Vec::new()
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn delegates_take_what_root_and_delegate_both_match(roots in roots(), delegates in delegates(), requests in requests()) {
        let matches = |conditions: &[Condition], mut route: Value| {
            if !conditions.is_empty() {
                route["match"] = conditions.iter().map(Condition::json).collect();
            }
            route
        };
        let to = |host: &str| json!({"route": [{"destination": {"host": host}}]});
        let http: Vec<Value> = roots.iter().map(|(conditions, to_what)| match to_what {
            To::Service(host) => matches(conditions, to(host)),
            To::Delegate(i) => matches(conditions, json!({"delegate": {"name": format!("d{i}"), "namespace": "team"}})),
        }).collect();
        let root = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "root", "namespace": "prod"},
            "spec": {"hosts": ["shop.example.com"], "gateways": ["gw"], "http": http}});
        let leaves = delegates.iter().enumerate().map(|(i, routes)| {
            let http: Vec<Value> = routes.iter().map(|(conditions, host)| matches(conditions, to(host))).collect();
            json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": format!("d{i}"), "namespace": "team"}, "spec": {"http": http}})
        });
        let documents: Vec<Value> = leaves.chain([root]).collect();
        let requests: Vec<Request> = requests.into_iter().map(|request| Request { host: "shop.example.com", ..request }).collect();
        agrees(&documents, &requests, &|request| model(&roots, &delegates, request))?;
    }
}
