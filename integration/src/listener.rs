//! An HTTP listener: its filters, its route table, its limits.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::wasm::WasmFilter;

/// The header in which the modules name the route.
const ROUTE_HEADER: &str = "x-penstock-route";

/// What a route does with its requests.
#[derive(Clone, Debug)]
enum Target {
    Direct { status: u16, body: String },
    Cluster(String),
}

/// An entry in Envoy's route table.
#[derive(Clone, Debug)]
pub struct Route {
    condition: Option<(String, String)>,
    percent: Option<u32>,
    target: Target,
    echo: Vec<String>,
    action: Map<String, Value>,
    disabled: Vec<String>,
}

impl Route {
    /// Matches requests whose route header is `name`. Envoy responds with status 200 and the name as body.
    pub fn named(name: &str) -> Self {
        Self::header(ROUTE_HEADER, name).answers(200, name)
    }

    /// Matches requests whose header `header` is `value`. Envoy responds with status 200 and the value as body.
    pub fn header(header: &str, value: &str) -> Self {
        Route {
            condition: Some((header.to_owned(), value.to_owned())),
            percent: None,
            target: Target::Direct { status: 200, body: value.to_owned() },
            echo: Vec::new(),
            action: Map::new(),
            disabled: Vec::new(),
        }
    }

    /// Matches every request. Envoy responds with status 200 and the body `none`.
    pub fn any() -> Self {
        let target = Target::Direct { status: 200, body: "none".to_owned() };
        Route { condition: None, percent: None, target, echo: Vec::new(), action: Map::new(), disabled: Vec::new() }
    }

    /// Limits the route to a random fraction of the requests, in percent.
    #[must_use]
    pub fn fraction(mut self, percent: u32) -> Self {
        self.percent = Some(percent);
        self
    }

    /// Makes Envoy respond with this status and body.
    #[must_use]
    pub fn answers(mut self, status: u16, body: &str) -> Self {
        self.target = Target::Direct { status, body: body.to_owned() };
        self
    }

    /// Forwards requests to this cluster.
    #[must_use]
    pub fn to(mut self, cluster: &str) -> Self {
        self.target = Target::Cluster(cluster.to_owned());
        self
    }

    /// Sets the route's timeout, such as `5s` (Envoy's default is 15 s).
    #[must_use]
    pub fn timeout(self, timeout: &str) -> Self {
        self.action("timeout", json!(timeout))
    }

    /// Sets a field of the `RouteAction` of a route that forwards to a cluster.
    #[must_use]
    pub fn action(mut self, field: &str, value: Value) -> Self {
        self.action.insert(field.to_owned(), value);
        self
    }

    /// Disables the filter with this name for the route.
    #[must_use]
    pub fn without(mut self, filter: &str) -> Self {
        self.disabled.push(filter.to_owned());
        self
    }

    /// Copies these request headers, as the route saw them, to the response as `x-saw-<name>` (`:path` as
    /// `x-saw-path`).
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
        // CONNECT requests have no path, so they need their own matcher: see `Listener::to_json`.
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
        if !self.disabled.is_empty() {
            let config = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true});
            let disabled = self.disabled.iter().map(|filter| (filter.clone(), config.clone())).collect();
            route.insert("typed_per_filter_config".into(), Value::Object(disabled));
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

/// An HTTP listener on a free loopback port, for HTTP/1.1 and HTTP/2 (prior knowledge).
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

    /// Sets a fixed port instead of a free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Adds an HTTP filter: a module with a policy that is part of the listener.
    #[must_use]
    pub fn wasm(self, filter: &WasmFilter) -> Self {
        let name = filter.name().to_owned();
        let this = match filter.metadata_copy() {
            Some(copy) => self.filter(&format!("{name}-metadata"), copy),
            None => self,
        };
        this.filter(&name, filter.typed_config())
    }

    /// Adds an HTTP filter whose configuration is discovered, under the name that [`crate::Bootstrap::discovered`] got.
    #[must_use]
    pub fn discovered(mut self, filter: Value) -> Self {
        self.filters.push(filter);
        self
    }

    /// Adds an HTTP filter from its name and typed configuration.
    #[must_use]
    pub fn filter(mut self, name: &str, typed_config: Value) -> Self {
        self.filters.push(json!({"name": name, "typed_config": typed_config}));
        self
    }

    /// Adds an entry to the route table. The first entry that matches takes the request.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Adds a [`Route::named`] for each name.
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

    /// Expects the PROXY protocol, whose header gives the client's address, so that tests can use one that is not
    /// loopback.
    #[must_use]
    pub fn proxy_protocol(mut self) -> Self {
        self.listener_filters.push(json!({
            "name": "proxy_protocol",
            "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"},
        }));
        self
    }

    /// Accepts TLS only, with this certificate and key (PEM files).
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

    /// Raises the header limits to Envoy's maximum: 8 MiB and 100,000 headers; 256 KiB a field over HTTP/2.
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
            // Envoy waits after a protocol error; the default of a second makes tests with many errors slow.
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
