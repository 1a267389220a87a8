//! <https://doc.traefik.io/traefik/reference/routing-configuration/http/middlewares/overview/>: the middlewares of a
//! route apply in order, and each route with a `rateLimit` has its own counters.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Middleware {
    Limit(u32),
    Chain(u32),
    Strip(&'static str),
    Add(&'static str),
    Replace(&'static str),
    Https,
    Login,
    Missing,
    Elsewhere,
    Header,
}

#[derive(Clone, Debug)]
struct Route {
    host: &'static str,
    prefix: &'static str,
    is_tls: bool,
    middlewares: Vec<Middleware>,
    to: &'static str,
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let middleware = prop_oneof![
        3 => (1..4_u32).prop_map(Middleware::Limit),
        1 => (1..4_u32).prop_map(Middleware::Chain),
        2 => prop::sample::select(&["/a", "/b"][..]).prop_map(Middleware::Strip),
        1 => Just(Middleware::Add("/x")),
        1 => Just(Middleware::Replace("/y")),
        2 => Just(Middleware::Https),
        1 => Just(Middleware::Login),
        1 => Just(Middleware::Missing),
        1 => Just(Middleware::Elsewhere),
        1 => Just(Middleware::Header),
    ];
    let route = (
        prop::sample::select(&HOSTS[..2]),
        prop::sample::select(&["/", "/a", "/b"][..]),
        any::<bool>(),
        prop::collection::vec(middleware, 0..3),
        prop::sample::select(&DESTINATIONS[..]),
    );
    let route =
        route.prop_map(|(host, prefix, is_tls, middlewares, to)| Route { host, prefix, is_tls, middlewares, to });
    prop::collection::vec(route, 1..5)
}

/// What Traefik does with a request.
#[derive(Debug, PartialEq)]
enum Outcome {
    Alone,
    Limited,
    Redirected(String),
    Sent(&'static str, String),
}

impl Route {
    fn rule(&self) -> String {
        format!("Host(`{}`) && PathPrefix(`{}`)", self.host, self.prefix)
    }

    /// The limits that count a request before it is answered, by their position.
    fn limits(&self) -> Vec<(usize, u32)> {
        let mut found = Vec::new();
        for (i, middleware) in self.middlewares.iter().enumerate() {
            match middleware {
                Middleware::Limit(most) | Middleware::Chain(most) => found.push((i, *most)),
                Middleware::Https if !self.is_tls => break,
                _ => {}
            }
        }
        found
    }

    /// The result of a request that no limit refuses. `None`: something else answers it.
    fn outcome(&self, request: &Request) -> Outcome {
        let mut path = request.path.to_owned();
        for middleware in &self.middlewares {
            match middleware {
                Middleware::Login | Middleware::Missing | Middleware::Elsewhere => return Outcome::Alone,
                Middleware::Https if !self.is_tls => {
                    return Outcome::Redirected(format!("https://{}{}", self.host, request.path));
                }
                Middleware::Strip(prefix) => {
                    if let Some(rest) = path.strip_prefix(prefix) {
                        path = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
                    }
                }
                Middleware::Add(prefix) => path = format!("{prefix}{path}"),
                Middleware::Replace(other) => path = (*other).to_owned(),
                _ => {}
            }
        }
        Outcome::Sent(self.to, path)
    }
}

fn taken<'r>(routes: &'r [Route], request: &Request, is_tls: bool) -> Option<(usize, &'r Route)> {
    let fits = |(_, route): &(usize, &Route)| {
        route.is_tls == is_tls && route.host == request.host && request.path.starts_with(route.prefix)
    };
    routes.iter().enumerate().filter(fits).max_by_key(|(i, route)| (route.rule().len(), std::cmp::Reverse(*i)))
}

fn documents(routes: &[Route]) -> Vec<Value> {
    let api = "traefik.io/v1alpha1";
    let mut all = Vec::new();
    for (i, route) in routes.iter().enumerate() {
        let mut names = Vec::new();
        for (k, middleware) in route.middlewares.iter().enumerate() {
            let name = format!("m{i}-{k}");
            // Nothing is refilled during the test.
            let limit = |most: &u32| json!({"rateLimit": {"average": 1, "period": "1h", "burst": most}});
            let mut put = |name: &str, spec: Value| {
                all.push(json!({"apiVersion": api, "kind": "Middleware", "metadata": {"name": name}, "spec": spec}))
            };
            match middleware {
                Middleware::Limit(most) => put(&name, limit(most)),
                Middleware::Chain(most) => {
                    put(&format!("{name}-in"), limit(most));
                    put(&name, json!({"chain": {"middlewares": [{"name": format!("{name}-in")}]}}));
                }
                Middleware::Strip(prefix) => put(&name, json!({"stripPrefix": {"prefixes": [prefix]}})),
                Middleware::Add(prefix) => put(&name, json!({"addPrefix": {"prefix": prefix}})),
                Middleware::Replace(path) => put(&name, json!({"replacePath": {"path": path}})),
                Middleware::Https => put(&name, json!({"redirectScheme": {"scheme": "https", "permanent": true}})),
                Middleware::Login => put(&name, json!({"basicAuth": {"secret": "s"}})),
                Middleware::Header => put(&name, json!({"headers": {"customRequestHeaders": {"x-from": "traefik"}}})),
                Middleware::Missing => {}
                // A reference to the file provider does not mean the object of that name.
                Middleware::Elsewhere => put(&name, json!({"compress": {}})),
            }
            names.push(
                json!({"name": if *middleware == Middleware::Elsewhere { format!("{name}@file") } else { name }}),
            );
        }
        let mut spec = json!({"entryPoints": [if route.is_tls { "websecure" } else { "web" }], "routes": [
            {"kind": "Rule", "match": route.rule(), "middlewares": names, "services": [{"name": route.to, "port": 80}]}]});
        if route.is_tls {
            spec["tls"] = json!({});
        }
        all.push(
            json!({"apiVersion": api, "kind": "IngressRoute", "metadata": {"name": format!("r{i}")}, "spec": spec}),
        );
    }
    all
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn middlewares_do_what_traefik_does_or_the_request_is_left_alone(routes in routes(), requests in requests()) {
        let imported = imported(&documents(&routes));
        let mut world = World::new(Timestamp(0), 0);
        let mut passed: BTreeMap<(usize, usize), u32> = BTreeMap::new();
        for request in &requests {
            for (scheme, is_tls) in [("http", false), ("https", true)] {
                // Without a listener, no request arrives.
                if routes.iter().all(|route| route.is_tls != is_tls) {
                    continue;
                }
                let json = json!({"method": request.method, "scheme": scheme, "authority": request.host, "path": request.path,
                    "sourceAddress": "192.0.2.1", "headers": [["x-forwarded-proto", scheme]]});
                let wire: WireRequest = serde_json::from_value(json).unwrap();
                let decision = wire.decide(&imported.policy, &mut world);
                let route = taken(&routes, request, is_tls);
                let limits = route.map(|(i, route)| route.limits().into_iter().map(|(k, most)| ((i, k), most)).collect::<Vec<_>>()).unwrap_or_default();
                let is_spent = limits.iter().any(|(limit, most)| passed.get(limit).copied().unwrap_or(0) >= *most);
                let expected = match route {
                    None => Outcome::Alone,
                    Some(_) if is_spent => Outcome::Limited,
                    Some((_, route)) => route.outcome(request),
                };
                let lead = decision.route.as_ref().filter(|route| *route != UNROUTED).and_then(|route| imported.leads.get(route));
                let text = || format!("{scheme} {request:?}\n{}", imported.text);
                match decision.status {
                    Some(429) => prop_assert_eq!(expected, Outcome::Limited, "{}", text()),
                    // A limit that a policy cannot express is reported as lost.
                    _ if expected == Outcome::Limited && !imported.is_complete => {}
                    Some(_) => {
                        let to = decision.response_headers[0].1.clone();
                        prop_assert_eq!(expected, Outcome::Redirected(to), "{}", text());
                    }
                    None => match lead {
                        Some(to) => {
                            let path = decision.headers.set.iter().find(|pair| pair.0 == ":path").map_or(request.path, |pair| &pair.1);
                            let sent = Outcome::Sent(DESTINATIONS.into_iter().find(|name| to.split(' ').next() == Some(name)).unwrap(), path.to_owned());
                            prop_assert_eq!(expected, sent, "{}", text());
                        }
                        None if route.is_some() => prop_assert!(!imported.is_complete, "{:?} is left alone in silence: {}", expected, text()),
                        None => {}
                    },
                }
                if decision.status != Some(429) {
                    limits.into_iter().for_each(|(limit, _)| *passed.entry(limit).or_default() += 1);
                }
            }
        }
    }
}
