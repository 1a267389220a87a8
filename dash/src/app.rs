//! What every handler needs, and who asks it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::access::{self, Credentials, Visibility};
use crate::config::DashConfig;
use crate::feed::SharedFeed;
use crate::feed::explain::Explain;
use crate::feed::rule::ToYaml;
use crate::feed::tail::ReadLine;
use crate::history::SharedHistory;
use crate::prometheus_history::PrometheusPast;
use crate::scrape::Shared;

/// What every request needs.
#[derive(Debug)]
pub struct DashState {
    /// Who may see what.
    pub config: DashConfig,
    /// What is known.
    pub fleet: Shared,
    /// The decisions that came in access logs.
    pub feed: SharedFeed,
    /// Between two looks.
    pub interval: Duration,
    /// What the engine does for the page.
    pub engine: Engine,
    /// What was seen since the dash started.
    pub history: SharedHistory,
    /// The Prometheus of each cluster that has one.
    pub prometheus: BTreeMap<String, PrometheusPast>,
    /// So many requests may be explained at a time.
    pub explaining: Semaphore,
}

/// What whoever starts the dash lends it, so that it needs no engine of its own.
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    /// Reads a line of an access log.
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

/// An answer that says what is wrong.
pub fn problem(status: StatusCode, error: &str) -> Response {
    (status, axum::Json(ErrorBody { error })).into_response()
}

/// The scope of whoever asks, or the answer that they get instead.
///
/// # Errors
/// 401 when nobody knows them.
pub fn scope<'a>(app: &'a DashState, headers: &HeaderMap) -> Result<Visibility<'a>, Box<Response>> {
    // Of two values nobody knows which one the proxy in front wrote.
    let text = |name: &str| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
    };
    let token = text(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
    // The configuration allows it only where every connection has shown a certificate.
    let identity = app.config.identity_header.as_deref().and_then(text);
    access::scope(&app.config, Credentials { token, identity }).ok_or_else(|| {
        let why = if token.is_some() { "nobody has this token" } else { "a token is needed" };
        let mut response = problem(StatusCode::UNAUTHORIZED, why);
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Box::new(response)
    })
}

/// The same, for a cluster that they may see.
///
/// # Errors
/// 401, and 403 also for clusters that do not exist: who may not see them need not know.
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
mod tests {
    use super::*;

    #[test]
    fn an_identity_that_comes_twice_is_nobodys() {
        let config = serde_json::json!({"identityHeader": "x-user", "tls": {"certificate": "c", "key": "k", "clientCa": "ca"},
            "workspaces": [{"name": "shop", "identities": ["ann"], "clusters": ["east"]}]});
        let app = DashState {
            config: DashConfig::read(config).unwrap(),
            fleet: Shared::default(),
            feed: SharedFeed::default(),
            interval: Duration::from_secs(1),
            engine: Engine { read_line: |_| None, explain: |_, _| Err(String::new()), to_yaml: |_| String::new() },
            history: SharedHistory::default(),
            prometheus: BTreeMap::new(),
            explaining: Semaphore::new(1),
        };
        let mut headers = HeaderMap::new();
        headers.append("x-user", HeaderValue::from_static("ann"));
        assert!(scope(&app, &headers).is_ok());
        // A client's own, and the one that the proxy appended.
        headers.append("x-user", HeaderValue::from_static("bob"));
        assert!(scope(&app, &headers).is_err());
    }
}
