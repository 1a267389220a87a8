//! The destinations of routes: from the command line, from `penstock import --report`, or else assumed, which is
//! reported.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use super::args::{Args, RenderTarget};
use super::names::ObjectNames;
use super::service::{CATCH_ALL, RouteService};
use crate::source;

/// The destinations of routes in the output of `penstock import --report`.
#[derive(Deserialize)]
struct RouteReport {
    routes: Vec<ReportedRoute>,
}

#[derive(Deserialize)]
struct ReportedRoute {
    route: String,
    to: String,
}

/// Parses `NAME[ namespace NS][ subset S][ port P]`; returns the name of the port when it is not a number.
fn reported(route: &ReportedRoute) -> anyhow::Result<(RouteService, Option<String>)> {
    let mut words = route.to.split_whitespace();
    let mut service = RouteService {
        route: route.route.clone(),
        host: words.next().unwrap_or_default().to_owned(),
        port: None,
        subset: None,
    };
    let mut named = None;
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{:?}: nothing follows `{word}`", route.to))?;
        match word {
            "namespace" if service.host.contains('.') => {}
            "namespace" => service.host = format!("{}.{value}", service.host),
            "subset" => service.subset = Some(value.to_owned()),
            "port" => match value.parse::<u16>() {
                Ok(port) => service.port = Some(port),
                // Ports of a Service may have names; the rendered objects need the number.
                Err(_) if is_port_name(value) => named = Some(value.to_owned()),
                Err(_) => bail!("{:?}: `{value}` is not a port", route.to),
            },
            _ => bail!("{:?}: `{word}` is not known; it is NAME[ namespace NS][ subset S][ port P]", route.to),
        }
    }
    Ok((service, named))
}

/// Whether this is a valid port name of a Service (an IANA service name).
fn is_port_name(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.len() < 16
        && text.bytes().any(|b| b.is_ascii_lowercase())
}

/// The destination of every route.
pub struct RoutePlaces {
    /// By route; with the name of its port where only that is known.
    known: HashMap<String, (RouteService, Option<String>)>,
    /// The Services that are assumed.
    assumed: ObjectNames,
    namespace: Option<String>,
    target: RenderTarget,
}

impl RoutePlaces {
    /// Reads the options for routes with these `names`.
    pub fn new(args: &Args, names: &[String]) -> anyhow::Result<RoutePlaces> {
        let all: HashSet<&str> = names.iter().map(String::as_str).collect();
        let mut known: HashMap<String, (RouteService, Option<String>)> = HashMap::new();
        for service in &args.services {
            let before = known.insert(service.route.clone(), (service.clone(), None));
            ensure!(
                before.is_none(),
                "--service {}=…: it is given twice, and a route has one destination",
                service.route
            );
            if service.route != CATCH_ALL && !all.contains(service.route.as_str()) {
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
        if let Some(path) = &args.report {
            let report: RouteReport = serde_json::from_str(&source::read_text(path)?)
                .with_context(|| format!("{} is not a report of `penstock import`", source::display(path)))?;
            for route in &report.routes {
                if !known.contains_key(&route.route) {
                    known.insert(route.route.clone(), reported(route).with_context(|| source::display(path))?);
                }
            }
        }
        let assumed = ObjectNames::new(names.iter().map(String::as_str), &[]);
        Ok(RoutePlaces { known, assumed, namespace: args.service_namespace.clone(), target: args.target })
    }

    /// Whether the destination of this route is given.
    pub fn has(&self, route: &str) -> bool {
        self.known.contains_key(route)
    }

    /// The destination of a route; if it is not given, assumes one and reports it.
    pub fn of(&self, route: &str) -> anyhow::Result<RouteService> {
        let known = self.known.get(route).cloned();
        let assumed = known.is_none();
        let (mut service, port_name) = known.unwrap_or_else(|| {
            let (route, host) = (route.to_owned(), self.assumed.of(route));
            (RouteService { route, host, port: Some(8080), subset: None }, None)
        });
        self.refuse_addresses(&service)?;
        if !service.host.contains('.') {
            match &self.namespace {
                Some(namespace) => service.host = format!("{}.{namespace}", service.host),
                None if self.is_istio() => bail!(
                    "in which namespace is the service `{0}`? Set --service-namespace NAME, or --service {route}={0}.NAMESPACE:PORT",
                    service.host
                ),
                None => {}
            }
        }
        if assumed {
            let port = service.port.map(|port| format!(":{port}")).unwrap_or_default();
            anstream::eprintln!(
                "penstock: assumed: route `{route}` leads to {}{port}; to change it, set --service {route}=HOST:PORT",
                service.host
            );
        }
        if let Some(name) = port_name {
            bail!(
                "route `{route}` goes to the port `{name}` of `{0}`, and manifests of routes need its number: set \
                 --service {route}={0}:NUMBER",
                service.host
            );
        }
        ensure!(
            self.is_istio() || service.port.is_some(),
            "on which port is `{}`, where route `{route}` goes? Set --service {route}={}:PORT",
            service.host,
            service.host
        );
        Ok(service)
    }

    fn is_istio(&self) -> bool {
        matches!(self.target, RenderTarget::Istio | RenderTarget::IstioTrafficextension)
    }

    /// Checks that the platform can send requests to an address: a loopback address is the proxy's own pod, and a mesh
    /// knows services by their names.
    fn refuse_addresses(&self, service: &RouteService) -> anyhow::Result<()> {
        let (RouteService { route, host, .. }, address) = (service, service.host.parse::<IpAddr>().ok());
        let is_loopback =
            host.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| address.is_loopback());
        let is_mesh = self.is_istio() || self.target == RenderTarget::EnvoyGateway;
        ensure!(
            !(is_mesh && is_loopback),
            "route `{route}` goes to `{host}`, which is the gateway's own pod: set its destination in the cluster with \
             --service {route}=NAME.NAMESPACE:PORT"
        );
        ensure!(
            !(self.is_istio() && address.is_some()),
            "route `{route}` goes to `{host}`, and Istio sends requests to services that it knows by name: declare the \
             address in a ServiceEntry, and set --service {route}=ITS.HOST:PORT"
        );
        if is_loopback && self.target == RenderTarget::Kustomize {
            anstream::eprintln!(
                "penstock: route `{route}` goes to `{host}`, which is the proxy's own pod: the Deployment has no other \
                 container unless you add one; --service {route}=SERVICE:PORT names a Service"
            );
        }
        Ok(())
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
            let (service, named) = reported(&ReportedRoute { route: "r".into(), to: to.into() }).unwrap();
            assert_eq!(named, None, "{to}");
            assert_eq!((service.host.as_str(), service.port, service.subset.as_deref()), (host, port, subset), "{to}");
        }
        let (_, named) = reported(&ReportedRoute { route: "r".into(), to: "web port http".into() }).unwrap();
        assert_eq!(named.as_deref(), Some("http"));
        for to in ["web port 70000", "web weight 5", "web port"] {
            assert!(reported(&ReportedRoute { route: "r".into(), to: to.into() }).is_err(), "{to}");
        }
    }
}
