//! A destination of a route: a service or another host, with its port.

use std::str::FromStr;

use super::names::dns_label;

/// The name that `--service` uses for the default route.
pub const CATCH_ALL: &str = "default";

/// The destination of a route.
#[derive(Clone, Debug)]
pub struct RouteService {
    /// The route.
    pub route: String,
    /// A service, with its namespace where the platform needs one, or any host.
    pub host: String,
    /// The port; absent when the service has only one.
    pub port: Option<u16>,
    /// The Istio subset.
    pub subset: Option<String>,
}

impl FromStr for RouteService {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "write ROUTE=HOST:PORT, such as beta=shop-beta:8080".to_owned();
        // A route's name may have a `=`, a destination has none.
        let (route, place) = text.rsplit_once('=').ok_or_else(form)?;
        let (place, subset) = match place.split_once('/') {
            Some((place, subset)) => (place, Some(subset.to_owned())),
            None => (place, None),
        };
        let (host, port) = place.rsplit_once(':').ok_or_else(form)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(form)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if let Some(subset) = &subset {
            // Istio's rule; the name is also the value of a label.
            dns_label(subset, 63).map_err(|why| format!("{subset:?} is no subset: {why}"))?;
        }
        if route.is_empty() || host.is_empty() || !host.bytes().all(plain) {
            return Err(form());
        }
        Ok(RouteService { route: route.to_owned(), host: host.to_owned(), port: Some(port), subset })
    }
}

impl RouteService {
    /// The name and namespace of a Kubernetes Service: `name`, `name.namespace`, `name.namespace.svc…`.
    pub fn object(&self) -> Option<(&str, Option<&str>)> {
        let mut labels = self.host.split('.');
        let (name, namespace) = (labels.next()?, labels.next());
        match labels.next() {
            None | Some("svc") => Some((name, namespace)),
            Some(_) => None,
        }
    }
}
