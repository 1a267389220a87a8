//! State that every handler needs, and the authentication of requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::access::{self, Credentials, Visibility};
use crate::config::DashConfig;
use crate::connections::ConnectionLimit;
use crate::feed::SharedFeed;
use crate::feed::explain::Explain;
use crate::feed::rule::ToYaml;
use crate::feed::tail::ReadLine;
use crate::history::SharedHistory;
use crate::prometheus_history::PrometheusPast;
use crate::scrape::Shared;

/// State that all requests share.
#[derive(Debug)]
pub struct DashState {
    /// The workspaces and their credentials.
    pub config: DashConfig,
    /// The clusters and proxies.
    pub fleet: Shared,
    /// The decisions from access logs.
    pub feed: SharedFeed,
    /// The polling interval.
    pub interval: Duration,
    /// Functions of the engine for the page.
    pub engine: Engine,
    /// Rates since the dash started.
    pub history: SharedHistory,
    /// The Prometheus of each cluster that has one.
    pub prometheus: BTreeMap<String, PrometheusPast>,
    /// The connections to the page.
    pub connections: Arc<ConnectionLimit>,
    /// Limits the number of concurrent explanations.
    pub explaining: Semaphore,
    /// So many questions may wait for a Prometheus at a time: a slow one must not hold up explanations.
    pub asking: Semaphore,
}

/// Functions that the caller of the dash provides, so that the dash does not depend on the engine.
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    /// Parses a line of an access log.
    pub read_line: ReadLine,
    /// Explains a decision.
    pub explain: Explain,
    /// Writes a part of a policy as YAML.
    pub to_yaml: ToYaml,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
}

/// An error response with a message.
pub fn problem(status: StatusCode, error: &str) -> Response {
    (status, axum::Json(ErrorBody { error })).into_response()
}

/// The scope of the viewer, or the error response.
///
/// # Errors
/// Responds with 401 when the credentials are unknown.
pub fn scope<'a>(app: &'a DashState, headers: &HeaderMap) -> Result<Visibility<'a>, Box<Response>> {
    // With two values, it is unknown which one the proxy in front wrote.
    let text = |name: &str| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
    };
    let token = text(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
    // The configuration only allows this where every connection has a client certificate.
    let identity = app.config.identity_header.as_deref().and_then(text);
    access::scope(&app.config, Credentials { token, identity }).ok_or_else(|| {
        let why = if token.is_some() { "this token is unknown" } else { "a token is needed" };
        let mut response = problem(StatusCode::UNAUTHORIZED, why);
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Box::new(response)
    })
}

/// The same, for a cluster that the viewer may see.
///
/// # Errors
/// Responds with 401, or with 403 even for clusters that do not exist, so that their existence is not revealed.
pub fn scope_of_cluster<'a>(
    app: &'a DashState,
    headers: &HeaderMap,
    cluster: &str,
) -> Result<Visibility<'a>, Box<Response>> {
    let scope = scope(app, headers)?;
    if scope.cluster(cluster) {
        return Ok(scope);
    }
    Err(Box::new(problem(StatusCode::FORBIDDEN, "your workspace does not include this cluster")))
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// The state of a dash without sources.
    pub(crate) fn state(config: DashConfig) -> DashState {
        DashState {
            config,
            fleet: Shared::default(),
            feed: SharedFeed::default(),
            interval: Duration::from_secs(1),
            engine: Engine { read_line: |_| None, explain: |_, _| Err(String::new()), to_yaml: |_| String::new() },
            history: SharedHistory::default(),
            prometheus: BTreeMap::new(),
            connections: ConnectionLimit::new(crate::server::CONNECTIONS),
            explaining: Semaphore::new(1),
            asking: Semaphore::new(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_identity_header_is_refused() {
        let config = serde_json::json!({"identityHeader": "x-user", "tls": {"certificate": "c", "key": "k", "clientCa": "ca"},
            "workspaces": [{"name": "shop", "identities": ["ann"], "clusters": ["east"]}]});
        let app = testing::state(DashConfig::read(config).unwrap());
        let mut headers = HeaderMap::new();
        headers.append("x-user", HeaderValue::from_static("ann"));
        assert!(scope(&app, &headers).is_ok());
        // One header from the client, and the one that the proxy appended.
        headers.append("x-user", HeaderValue::from_static("bob"));
        assert!(scope(&app, &headers).is_err());
    }
}
