//! The routes of the cluster: HTTPRoutes, GRPCRoutes and VirtualServices, listed periodically from the API server.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use penstock_policy::document::Node;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// The resources that are listed. A resource that the cluster does not have has no objects.
const LISTS: [&str; 3] = [
    "/apis/gateway.networking.k8s.io/v1/httproutes",
    "/apis/gateway.networking.k8s.io/v1/grpcroutes",
    "/apis/networking.istio.io/v1/virtualservices",
];

/// The number of objects in a page.
const PAGE: usize = 500;

/// The largest page, in bytes.
const MOST_BYTES: u64 = 256 << 20;

/// The known routes.
#[derive(Debug, Default)]
pub struct KnownRoutes {
    api_server: Option<String>,
    account: PathBuf,
    known: RwLock<Option<Arc<Vec<Node>>>>,
}

impl KnownRoutes {
    /// For an API server; `None` when there is none, so that routes stay unknown.
    pub fn new(api_server: Option<String>, account: &Path) -> KnownRoutes {
        KnownRoutes { api_server, account: account.to_owned(), known: RwLock::default() }
    }

    /// Whether there is an API server.
    pub fn is_used(&self) -> bool {
        self.api_server.is_some()
    }

    /// The objects with their fields about routes; `None` while they are unknown.
    pub fn known(&self) -> Option<Arc<Vec<Node>>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lists the routes again.
    ///
    /// # Errors
    /// Returns an error when the API server does not respond; then the previous list stays in use.
    pub fn refresh(&self) -> Result<()> {
        let Some(server) = &self.api_server else { return Ok(()) };
        let mut objects = Vec::new();
        let agent = self.agent()?;
        let token = std::fs::read_to_string(self.account.join("token")).unwrap_or_default();
        for list in LISTS {
            let mut after = String::new();
            loop {
                let url = format!("{server}{list}?limit={PAGE}&continue={after}");
                let mut request = agent.get(&url).header("accept", "application/json");
                if !token.trim().is_empty() {
                    request = request.header("authorization", format!("Bearer {}", token.trim()));
                }
                let mut response = request.call().with_context(|| format!("cannot list {list}"))?;
                if response.status() == 404 {
                    break;
                }
                anyhow::ensure!(response.status() == 200, "{list}: status {}", response.status());
                let text = response.body_mut().with_config().limit(MOST_BYTES).read_to_vec()?;
                let page = Node::from_json(&text)?;
                if let Some(Node::List(items)) = page.get("items") {
                    // Items of a list lack their kind.
                    let kind = if list.ends_with("virtualservices") { "VirtualService" } else { "HTTPRoute" };
                    objects.extend(items.iter().map(|item| route(kind, item)));
                }
                match page.get("metadata").and_then(|metadata| metadata.get("continue")) {
                    Some(Node::String(more)) if !more.is_empty() => after.clone_from(more),
                    _ => break,
                }
            }
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(objects));
        Ok(())
    }

    fn agent(&self) -> Result<ureq::Agent> {
        let roots = match std::fs::read(self.account.join("ca.crt")) {
            Ok(text) => {
                let found = parse_pem(&text).filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                });
                RootCerts::new_with_certs(&found.collect::<Vec<Certificate<'static>>>())
            }
            Err(_) => RootCerts::PlatformVerifier,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        Ok(config.into())
    }
}

/// Keeps the fields of an object that contain values of the route header.
fn route(kind: &str, item: &Node) -> Node {
    let spec = item.get("spec").cloned().unwrap_or(Node::Null);
    Node::Map(vec![("kind".to_owned(), Node::String(kind.to_owned())), ("spec".to_owned(), spec)])
}
