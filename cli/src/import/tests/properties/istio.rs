//! <https://istio.io/latest/docs/reference/config/networking/virtual-service/>, and Envoy's selection of a virtual
//! host.

use super::*;

#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) uri: Option<(&'static str, &'static str)>,
    pub(super) header: Option<&'static str>,
    pub(super) without: Option<&'static str>,
    pub(super) method: Option<&'static str>,
}

impl Condition {
    pub(super) fn holds(&self, request: &Request) -> bool {
        let uri = match self.uri {
            None => true,
            Some(("exact", path)) => request.path == path,
            Some((_, prefix)) => request.path.starts_with(prefix),
        };
        uri && self.header.is_none_or(|value| request.header == Some(value))
            && self.without.is_none_or(|value| request.header != Some(value))
            && self.method.is_none_or(|method| method.split('|').any(|method| request.method == method))
    }

    fn is_total(&self) -> bool {
        self.uri.is_none_or(|(kind, value)| kind == "prefix" && value == "/")
            && self.header.is_none()
            && self.without.is_none()
            && self.method.is_none()
    }

    pub(super) fn json(&self) -> Value {
        let mut json = json!({});
        if let Some((kind, value)) = self.uri {
            json["uri"] = json!({kind: value});
        }
        if let Some(value) = self.header {
            json["headers"] = json!({"x-h": {"exact": value}});
        }
        if let Some(value) = self.without {
            json["withoutHeaders"] = json!({"x-h": {"exact": value}});
        }
        if let Some(method) = self.method {
            json["method"] = json!({"regex": method});
        }
        json
    }
}

#[derive(Clone, Debug)]
struct Service {
    hosts: Vec<&'static str>,
    routes: Vec<(Vec<Condition>, Targets)>,
    created: u8,
}

fn services() -> impl Strategy<Value = Vec<Service>> {
    let uri = (prop::sample::select(&["exact", "prefix"][..]), prop::sample::select(&PATHS[..]));
    let value = || prop::option::weighted(0.2, prop::sample::select(&["1", "2"][..]));
    let method = prop::option::weighted(0.2, prop::sample::select(&["GET", "GET|POST"][..]));
    let condition = (prop::option::weighted(0.8, uri), value(), value(), method)
        .prop_map(|(uri, header, without, method)| Condition { uri, header, without, method });
    let route = (prop::collection::vec(condition, 0..3), targets());
    let hosts = prop::sample::subsequence(&PATTERNS[..], 1..3);
    let service = (hosts, prop::collection::vec(route, 1..4), 0..3_u8).prop_map(|(hosts, routes, created)| Service {
        hosts,
        routes,
        created,
    });
    prop::collection::vec(service, 1..4)
}

/// The routes of the most specific host: all objects in one list, with routes that match everything last.
fn model(services: &[Service], request: &Request) -> Expected {
    let all = services.iter().flat_map(|service| service.hosts.iter().copied());
    let Some(host) = closest(all, request.host) else { return Vec::new() };
    let mut ordered: Vec<(usize, &Service)> = services.iter().enumerate().collect();
    ordered.sort_by_key(|(i, service)| (service.created, *i));
    let (mut list, mut last) = (Vec::new(), Vec::new());
    for (_, service) in ordered.into_iter().filter(|(_, service)| service.hosts.contains(&host)) {
        'service: for (conditions, to) in &service.routes {
            let nothing = [Condition { uri: None, header: None, without: None, method: None }];
            let conditions = if conditions.is_empty() { &nothing[..] } else { conditions };
            for condition in conditions {
                let entry = (condition.clone(), to);
                if condition.is_total() {
                    last.push(entry);
                    break 'service;
                }
                list.push(entry);
            }
        }
    }
    let found = list.into_iter().chain(last).find(|(condition, _)| condition.holds(request));
    found.map(|(_, to)| weighted(to)).unwrap_or_default()
}

proptest! {
    #[test]
    fn virtual_services_of_many_hosts_decide_as_in_istio(services in services(), requests in requests()) {
        let documents: Vec<Value> = services.iter().enumerate().map(|(i, service)| {
            let http: Vec<Value> = service.routes.iter().map(|(conditions, to)| {
                let route: Vec<Value> =
                    to.iter().map(|(host, weight)| json!({"destination": {"host": host}, "weight": weight})).collect();
                let mut http = json!({"route": route});
                if !conditions.is_empty() {
                    http["match"] = conditions.iter().map(Condition::json).collect();
                }
                http
            }).collect();
            json!({
                "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                "metadata": {"name": format!("v{i}"), "creationTimestamp": format!("2026-01-0{}T00:00:00Z", service.created + 1)},
                "spec": {"hosts": service.hosts, "gateways": ["gw"], "http": http},
            })
        }).collect();
        agrees(&documents, &requests, &|request| model(&services, request))?;
    }
}
