//! An Envoy configuration in Rust: listeners, clusters, discovered filters.

use std::ffi::OsString;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::body::Body;
use crate::discovery::Feed;
use crate::listener::Listener;
use crate::wasm::WasmFilter;

/// Builds the configuration of an Envoy before it starts.
#[derive(Debug)]
pub struct Bootstrap {
    pub(crate) folder: TempDir,
    pub(crate) feeds: Vec<Feed>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) concurrency: usize,
    pub(crate) log_level: String,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) hot_restart: bool,
    pub(crate) may_refuse: bool,
    any_listeners: Vec<Value>,
    clusters: Vec<Value>,
    fields: serde_json::Map<String, Value>,
    text: Option<String>,
}

impl Bootstrap {
    /// A configuration with two workers and no listener. Files go to a temporary folder that is removed with the Envoy.
    pub fn new() -> Result<Self> {
        Ok(Bootstrap {
            folder: tempfile::Builder::new().prefix("penstock-").tempdir().context("cannot make a temporary folder")?,
            feeds: Vec::new(),
            listeners: Vec::new(),
            concurrency: 2,
            log_level: "warning,wasm:info,dynamic_modules:info".to_owned(),
            environment: vec![("ENVOY_DYNAMIC_MODULES_SEARCH_PATH".into(), crate::workspace::dist().into())],
            hot_restart: false,
            may_refuse: false,
            any_listeners: Vec::new(),
            clusters: Vec::new(),
            fields: serde_json::Map::new(),
            text: None,
        })
    }

    /// Uses an existing bootstrap in YAML. Only the number of workers and the log levels can be changed afterwards.
    pub fn text(yaml: &str) -> Result<Self> {
        Ok(Bootstrap { text: Some(yaml.to_owned()), ..Bootstrap::new()? })
    }

    /// The most common setup: a listener `ingress` with the suite as the discovered filter `penstock`, whose policy can
    /// be reloaded; a route for each name in `routes`, and one for all other requests.
    pub fn suite(policy: &Value, routes: &[&str]) -> Result<Self> {
        Self::module("suite", policy, routes)
    }

    /// The same setup with another module.
    pub fn module(module: &str, policy: &Value, routes: &[&str]) -> Result<Self> {
        let mut bootstrap = Bootstrap::new()?;
        let filter = bootstrap.discovered(WasmFilter::new(module, policy)?.named("penstock"))?;
        let any = crate::listener::Route::any();
        Ok(bootstrap.listener(Listener::new("ingress").discovered(filter).routes_named(routes).route(any)))
    }

    /// Sets the number of worker threads.
    #[must_use]
    pub fn concurrency(mut self, workers: usize) -> Self {
        self.concurrency = workers;
        self
    }

    /// Sets the log levels, comma-separated: one for all components, then `component:level`.
    #[must_use]
    pub fn log_level(mut self, levels: &str) -> Self {
        levels.clone_into(&mut self.log_level);
        self
    }

    /// Sets an environment variable of the process.
    #[must_use]
    pub fn environment(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Allows [`crate::Envoy::hot_restart`] to replace this process with another one. Its listeners need fixed ports.
    #[must_use]
    pub fn hot_restart(mut self) -> Self {
        self.hot_restart = true;
        self
    }

    /// Lets Envoy start although the first configuration of a discovered filter is refused.
    #[must_use]
    pub fn may_refuse(mut self) -> Self {
        self.may_refuse = true;
        self
    }

    /// Adds a listener.
    #[must_use]
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Adds a listener given as Envoy configuration in JSON.
    #[must_use]
    pub fn any_listener(mut self, listener: Value) -> Self {
        self.any_listeners.push(listener);
        self
    }

    /// Adds a cluster with one endpoint, which speaks HTTP/1.1.
    #[must_use]
    pub fn cluster(self, name: &str, endpoint: SocketAddr) -> Self {
        self.any_cluster(json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {
                    "address": endpoint.ip().to_string(),
                    "port_value": endpoint.port(),
                }}}}]}],
            },
        }))
    }

    /// Adds a cluster given as Envoy configuration in JSON.
    #[must_use]
    pub fn any_cluster(mut self, cluster: Value) -> Self {
        self.clusters.push(cluster);
        self
    }

    /// Sets a top-level field of the bootstrap.
    #[must_use]
    pub fn field(mut self, name: &str, value: Value) -> Self {
        self.fields.insert(name.to_owned(), value);
        self
    }

    /// Adds the stats tags of `envoy-configs/static.yaml`, which become Prometheus labels.
    pub fn stats_tags(self) -> Result<Self> {
        let text = std::fs::read_to_string(crate::workspace::root().join("envoy-configs/static.yaml"))?;
        let tag = |line: &str| {
            let (name, regex) = line.strip_prefix("  - {tag_name: ")?.strip_suffix("'}")?.split_once(", regex: '")?;
            Some(json!({"tag_name": name, "regex": regex}))
        };
        let tags: Vec<Value> = text.lines().filter_map(tag).collect();
        anyhow::ensure!(!tags.is_empty(), "envoy-configs/static.yaml has no stats tags");
        Ok(self.field("stats_config", json!({"stats_tags": tags})))
    }

    /// Adds a filter whose configuration is discovered, so that [`crate::Envoy::reload`] can replace it. Returns the entry for
    /// [`Listener::discovered`].
    pub fn discovered(&mut self, filter: WasmFilter) -> Result<Value> {
        let feed = Feed::new(self.folder.path(), filter)?;
        let entry = feed.http_filter();
        self.feeds.push(feed);
        Ok(entry)
    }

    /// The name and content of the configuration file that Envoy reads.
    pub(crate) fn file(&self) -> (&'static str, String) {
        match &self.text {
            Some(yaml) => ("envoy.yaml", yaml.clone()),
            None => ("envoy.json", format!("{:#}", self.to_json())),
        }
    }

    fn to_json(&self) -> Value {
        let mut bootstrap = json!({
            "node": {"id": "penstock", "cluster": "penstock"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "static_resources": {
                "listeners": self.listeners.iter().map(Listener::to_json).chain(self.any_listeners.clone()).collect::<Vec<_>>(),
                "clusters": self.clusters,
            },
        });
        if let Some(bootstrap) = bootstrap.as_object_mut() {
            if Body::of_environment() == Body::Native {
                // Gives metrics of dynamic modules the same names in Prometheus as those of wasm modules.
                let flag = "envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix";
                let layer = json!({"name": "static", "static_layer": {flag: true}});
                bootstrap.insert("layered_runtime".to_owned(), json!({"layers": [layer]}));
            }
            bootstrap.extend(self.fields.clone());
        }
        bootstrap
    }
}
