//! Where routes go: what the command says, what `penstock import --report` found, or else an assumption that is said.

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use super::args::Args;
use super::service::{CATCH_ALL, RouteService};
use super::text::object_name;
use crate::source;

/// `penstock import --report`, as far as it says where routes go.
#[derive(Deserialize)]
struct RouteReport {
    routes: Vec<ReportedRoute>,
}

#[derive(Deserialize)]
struct ReportedRoute {
    route: String,
    to: String,
}

/// `NAME[ namespace NS][ subset S][ port P]`.
fn reported(route: &ReportedRoute) -> anyhow::Result<RouteService> {
    let mut words = route.to.split_whitespace();
    let mut service = RouteService {
        route: route.route.clone(),
        host: words.next().unwrap_or_default().to_owned(),
        port: None,
        subset: None,
    };
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{:?}: nothing follows `{word}`", route.to))?;
        match word {
            "namespace" if service.host.contains('.') => {}
            "namespace" => service.host = format!("{}.{value}", service.host),
            "subset" => service.subset = Some(value.to_owned()),
            "port" => {
                service.port = Some(value.parse().with_context(|| format!("{:?}: `{value}` is no port", route.to))?)
            }
            _ => bail!("{:?}: `{word}` is not known; it is NAME[ namespace NS][ subset S][ port P]", route.to),
        }
    }
    Ok(service)
}

/// Where every route goes.
pub struct RoutePlaces {
    known: Vec<RouteService>,
    namespace: Option<String>,
    is_istio: bool,
}

impl RoutePlaces {
    /// Reads what the command says for routes of these `names`.
    pub fn new(args: &Args, names: &[String], is_istio: bool) -> anyhow::Result<RoutePlaces> {
        for service in &args.services {
            if service.route != CATCH_ALL && !names.contains(&service.route) {
                let near = names.iter().max_by(|a, b| {
                    strsim::jaro_winkler(a, &service.route).total_cmp(&strsim::jaro_winkler(b, &service.route))
                });
                let near = near.filter(|near| strsim::jaro_winkler(near, &service.route) > 0.8);
                let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                bail!(
                    "--service {}=…: the policy names no route `{}`; it names {names}{near}",
                    service.route,
                    service.route
                );
            }
        }
        let mut known = args.services.clone();
        if let Some(path) = &args.report {
            let report: RouteReport = serde_json::from_str(&source::read_text(path)?)
                .with_context(|| format!("{} is not a report of `penstock import`", source::display(path)))?;
            for route in &report.routes {
                if known.iter().all(|service| service.route != route.route) {
                    known.push(reported(route).with_context(|| source::display(path))?);
                }
            }
        }
        Ok(RoutePlaces { known, namespace: args.service_namespace.clone(), is_istio })
    }

    /// Whether something says where this route goes.
    pub fn has(&self, route: &str) -> bool {
        self.known.iter().any(|service| service.route == route)
    }

    /// Where a route goes; what nothing says is assumed, and said.
    pub fn of(&self, route: &str) -> anyhow::Result<RouteService> {
        let known = self.known.iter().find(|service| service.route == route).cloned();
        let assumed = known.is_none();
        let mut service = known.unwrap_or_else(|| RouteService {
            route: route.to_owned(),
            host: object_name(route),
            port: Some(8080),
            subset: None,
        });
        if !service.host.contains('.') {
            match &self.namespace {
                Some(namespace) => service.host = format!("{}.{namespace}", service.host),
                None if self.is_istio => bail!(
                    "in which namespace is the service `{0}`? Say --service-namespace NAME, or --service {route}={0}.NAMESPACE:PORT",
                    service.host
                ),
                None => {}
            }
        }
        if assumed {
            let port = service.port.map(|port| format!(":{port}")).unwrap_or_default();
            anstream::eprintln!(
                "penstock: assumed: route `{route}` goes to {}{port}; --service {route}=HOST:PORT says otherwise",
                service.host
            );
        }
        ensure!(
            self.is_istio || service.port.is_some(),
            "on which port is `{}`, where route `{route}` goes? Say --service {route}={}:PORT",
            service.host,
            service.host
        );
        Ok(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_import_reports_is_where_routes_go() {
        for (to, host, port, subset) in [
            ("web", "web", None, None),
            ("web namespace prod port 8080", "web.prod", Some(8080), None),
            ("web.blue.svc.cluster.local subset v1", "web.blue.svc.cluster.local", None, Some("v1")),
            ("web.blue.svc.cluster.local namespace blue port 80", "web.blue.svc.cluster.local", Some(80), None),
        ] {
            let service = reported(&ReportedRoute { route: "r".into(), to: to.into() }).unwrap();
            assert_eq!((service.host.as_str(), service.port, service.subset.as_deref()), (host, port, subset), "{to}");
        }
        for to in ["web port x", "web weight 5", "web port"] {
            assert!(reported(&ReportedRoute { route: "r".into(), to: to.into() }).is_err(), "{to}");
        }
    }
}
