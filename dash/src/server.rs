//! The HTTP server of the page and its API, which are read-only.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::app::{DashState, problem, scope, scope_of_cluster};
use crate::assets::ASSETS;
use crate::decisions_api;
use crate::history_api;
use crate::scrape::{lock, now};
use crate::view::{self, Me};

/// The path of the API's description.
const OPENAPI: &str = "/api/v1/openapi.json";

/// The content security policy: only the page's own scripts and styles, and no framing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The whole application.
pub fn router(app: DashState) -> Router {
    let app = Arc::new(app);
    let assets = ASSETS.into_iter().fold(Router::new(), |router, (path, kind, content)| {
        router.route(path, get(move || async move { ([(CONTENT_TYPE, kind)], content) }))
    });
    assets
        .route("/healthz", get(|| async { "ok\n" }))
        // The description is public, as in the documentation: it needs no token.
        .route(OPENAPI, get(|| async { ([(CONTENT_TYPE, "application/json")], include_str!("../api/openapi.json")) }))
        .route("/api/v1/me", get(me))
        .route("/api/v1/clusters", get(clusters))
        .route("/api/v1/clusters/{cluster}", get(cluster))
        .merge(decisions_api::routes())
        .merge(history_api::routes())
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is no such page") })
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard))
        .with_state(app)
}

/// Checks the host, and adds headers that restrict what a browser does with the response.
async fn guard(State(app): State<Arc<DashState>>, request: Request, next: Next) -> Response {
    // A page of another site whose name resolves to this machine (DNS rebinding) must not read what only this machine
    // may see.
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let mut response = if app.config.is_open() && !host.is_some_and(is_loopback) {
        problem(StatusCode::MISDIRECTED_REQUEST, "open the dash as http://127.0.0.1 or http://localhost, with its port")
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

async fn me(State(app): State<Arc<DashState>>, headers: HeaderMap) -> Response {
    let scope = match scope(&app, &headers) {
        Ok(scope) => scope,
        Err(response) => return *response,
    };
    let fleet = lock(&app.fleet);
    let clusters = fleet.names().filter(|name| scope.cluster(name)).collect();
    let version = env!("CARGO_PKG_VERSION");
    axum::Json(Me {
        workspace: scope.name(),
        clusters,
        read_only: true,
        version,
        interval_seconds: app.interval.as_secs_f64(),
    })
    .into_response()
}

async fn clusters(State(app): State<Arc<DashState>>, headers: HeaderMap) -> Response {
    match scope(&app, &headers) {
        Ok(scope) => axum::Json(view::clusters(&lock(&app.fleet), scope, now())).into_response(),
        Err(response) => *response,
    }
}

async fn cluster(State(app): State<Arc<DashState>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let scope = match scope_of_cluster(&app, &headers, &name) {
        Ok(scope) => scope,
        Err(response) => return *response,
    };
    let fleet = lock(&app.fleet);
    match fleet.cluster(&name) {
        Some(cluster) => axum::Json(view::snapshot(&name, cluster, scope, now())).into_response(),
        None => problem(StatusCode::NOT_FOUND, "there is no such cluster"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        for host in ["127.0.0.1:9911", "localhost", "LOCALHOST:1", "[::1]:9911", "127.8.8.8"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.com", "localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "", "a b"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
