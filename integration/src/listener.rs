//! One HTTP listener: its filters, its route table, its limits.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::wasm::WasmFilter;

/// The header in which the modules name the route.
const ROUTE_HEADER: &str = "x-penstock-route";

/// Where a route sends its requests.
#[derive(Clone, Debug)]
enum Target {
    Direct { status: u16, body: String },
    Cluster(String),
}

/// One entry of the host's own route table.
#[derive(Clone, Debug)]
pub struct Route {
    condition: Option<(String, String)>,
    percent: Option<u32>,
    target: Target,
    echo: Vec<String>,
    action: Map<String, Value>,
}

impl Route {
    /// Requests whose route header is `name`; Envoy itself answers 200 with the name as body.
    pub fn named(name: &str) -> Self {
        Self::header(ROUTE_HEADER, name).answers(200, name)
    }

    /// Requests whose header `header` is `value`; Envoy itself answers 200 with the value as body.
    pub fn header(header: &str, value: &str) -> Self {
        Route {
            condition: Some((header.to_owned(), value.to_owned())),
            percent: None,
            target: Target::Direct { status: 200, body: value.to_owned() },
            echo: Vec::new(),
            action: Map::new(),
        }
    }

    /// Every other request; Envoy itself answers 200 with the body `none`.
    pub fn any() -> Self {
        let target = Target::Direct { status: 200, body: "none".to_owned() };
        Route { condition: None, percent: None, target, echo: Vec::new(), action: Map::new() }
    }

    /// Only so many percent of the requests, by Envoy's own dice.
    #[must_use]
    pub fn fraction(mut self, percent: u32) -> Self {
        self.percent = Some(percent);
        self
    }

    /// Envoy itself answers this.
    #[must_use]
    pub fn answers(mut self, status: u16, body: &str) -> Self {
        self.target = Target::Direct { status, body: body.to_owned() };
        self
    }

    /// The request goes to this cluster.
    #[must_use]
    pub fn to(mut self, cluster: &str) -> Self {
        self.target = Target::Cluster(cluster.to_owned());
        self
    }

    /// The route's own timeout, such as `5s` (Envoy's default is 15 s).
    #[must_use]
    pub fn timeout(self, timeout: &str) -> Self {
        self.action("timeout", json!(timeout))
    }

    /// Sets a field of the `RouteAction`, for requests that go to a cluster.
    #[must_use]
    pub fn action(mut self, field: &str, value: Value) -> Self {
        self.action.insert(field.to_owned(), value);
        self
    }

    /// The answer repeats these headers of the request, as the route saw them, each as `x-saw-<name>`
    /// (`:path` as `x-saw-path`).
    #[must_use]
    pub fn echo(mut self, names: &[&str]) -> Self {
        self.echo.extend(names.iter().map(|&name| name.to_owned()));
        self
    }

    fn to_json(&self) -> Value {
        let mut route = Map::new();
        let headers: Vec<Value> = self
            .condition
            .iter()
            .map(|(name, value)| json!({"name": name, "string_match": {"exact": value}}))
            .collect();
        // CONNECT has no path, so it needs a matcher of its own: see `Listener::to_json`.
        let mut condition = json!({"prefix": "/", "headers": headers});
        if let (Some(percent), Some(condition)) = (self.percent, condition.as_object_mut()) {
            condition.insert("runtime_fraction".into(), json!({"default_value": {"numerator": percent}}));
        }
        route.insert("match".into(), condition);
        match &self.target {
            Target::Direct { status, body } => {
                route.insert("direct_response".into(), json!({"status": status, "body": {"inline_string": body}}));
            }
            Target::Cluster(cluster) => {
                let mut action = json!({"cluster": cluster});
                if let Some(action) = action.as_object_mut() {
                    action.extend(self.action.clone());
                }
                route.insert("route".into(), action);
            }
        }
        if !self.echo.is_empty() {
            let echo: Vec<Value> = self
                .echo
                .iter()
                .map(|name| {
                    let key = format!("x-saw-{}", name.trim_start_matches(':'));
                    json!({"header": {"key": key, "value": format!("%REQ({name})%")}})
                })
                .collect();
            route.insert("response_headers_to_add".into(), Value::Array(echo));
        }
        Value::Object(route)
    }
}

/// An HTTP listener on a free loopback port. HTTP/1.1 and HTTP/2 (prior knowledge) on the same port.
#[derive(Clone, Debug)]
pub struct Listener {
    name: String,
    port: u16,
    filters: Vec<Value>,
    routes: Vec<Route>,
    manager: Map<String, Value>,
    tls: Option<Value>,
    listener_filters: Vec<Value>,
}

impl Listener {
    /// A listener without filters and routes.
    pub fn new(name: &str) -> Self {
        Listener {
            name: name.to_owned(),
            port: 0,
            filters: Vec::new(),
            routes: Vec::new(),
            manager: Map::new(),
            tls: None,
            listener_filters: Vec::new(),
        }
    }

    /// Listens on this port instead of a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The next HTTP filter is this module, with a policy that stays.
    #[must_use]
    pub fn wasm(self, filter: &WasmFilter) -> Self {
        let name = filter.name().to_owned();
        self.filter(&name, filter.typed_config())
    }

    /// The next HTTP filter comes by discovery, under the name that [`crate::Bootstrap::discovered`] was given.
    #[must_use]
    pub fn discovered(mut self, filter: Value) -> Self {
        self.filters.push(filter);
        self
    }

    /// The next HTTP filter is any other one.
    #[must_use]
    pub fn filter(mut self, name: &str, typed_config: Value) -> Self {
        self.filters.push(json!({"name": name, "typed_config": typed_config}));
        self
    }

    /// The next entry of the route table; the first that matches takes the request.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// The next entries: one [`Route::named`] for each name.
    #[must_use]
    pub fn routes_named(mut self, names: &[&str]) -> Self {
        self.routes.extend(names.iter().map(|name| Route::named(name)));
        self
    }

    /// Sets a field of the `HttpConnectionManager`.
    #[must_use]
    pub fn manager(mut self, field: &str, value: Value) -> Self {
        self.manager.insert(field.to_owned(), value);
        self
    }

    /// Connections begin with a line of the PROXY protocol, which says who the peer is: one that is not on loopback.
    #[must_use]
    pub fn proxy_protocol(mut self) -> Self {
        self.listener_filters.push(json!({
            "name": "proxy_protocol",
            "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"},
        }));
        self
    }

    /// Takes connections over TLS only, with this certificate and key (PEM files).
    #[must_use]
    pub fn tls(mut self, certificate: &Path, key: &Path) -> Self {
        self.tls = Some(json!({
            "name": "tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"tls_certificates": [
                    {"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}},
                ]},
            },
        }));
        self
    }

    /// Lets requests carry as much header data as Envoy can be told to accept: 8 MiB and 100,000 headers; over HTTP/2
    /// 256 KiB a field.
    #[must_use]
    pub fn large_headers(self) -> Self {
        self.manager("max_request_headers_kb", json!(8192))
            .manager("common_http_protocol_options", json!({"max_headers_count": 100_000}))
            .manager("http2_protocol_options", json!({"max_header_field_size_kb": 256}))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut filters = self.filters.clone();
        filters.push(json!({
            "name": "router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }));
        let mut routes: Vec<Value> = self.routes.iter().map(Route::to_json).collect();
        routes.push(json!({
            "match": {"connect_matcher": {}},
            "direct_response": {"status": 200, "body": {"inline_string": "connect"}},
        }));
        let mut manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": self.name,
            "codec_type": "AUTO",
            // After a protocol error; Envoy's default of a second makes tests of many errors slow.
            "delayed_close_timeout": "0.05s",
            "http_filters": filters,
            "route_config": {
                "name": self.name,
                "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
            },
        });
        if let Some(manager) = manager.as_object_mut() {
            manager.extend(self.manager.clone());
        }
        let mut chain = json!({"filters": [{"name": "http", "typed_config": manager}]});
        if let (Some(tls), Some(chain)) = (&self.tls, chain.as_object_mut()) {
            chain.insert("transport_socket".to_owned(), tls.clone());
        }
        json!({
            "name": self.name,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": self.port}},
            "listener_filters": self.listener_filters,
            "filter_chains": [chain],
        })
    }
}
