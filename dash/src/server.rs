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
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;

use crate::app::{DashState, problem, scope, scope_of_cluster};
use crate::assets::ASSETS;
use crate::connections::HasPlace;
use crate::deadline::{Deadlines, HEAD};
use crate::decisions_api;
use crate::feed;
use crate::history_api;
use crate::scrape::{lock, now};
use crate::view::{self, Me};

/// The path of the API's description.
const OPENAPI: &str = "/api/v1/openapi.json";

/// The content security policy: only the page's own scripts and styles, and no framing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The maximum number of connections. A browser opens up to six.
pub const CONNECTIONS: usize = 256;

/// The longest head of a request in bytes; the page's own are below 1 KiB.
const LONGEST_HEAD: usize = 64 << 10;

/// Serves until the process ends.
pub async fn serve<L>(mut listener: Deadlines<L>, app: Router)
where
    L: Listener,
    L::Io: HasPlace + Unpin,
{
    loop {
        let (io, _) = listener.accept().await;
        let service = TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(LONGEST_HEAD)
                .serve_connection(TokioIo::new(io), service);
            // An error is the client's: it closed the connection, or does not use HTTP.
            let _ = connection.await;
        });
    }
}

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
        connections: app.connections.open(),
        closed_connections: app.connections.closed(),
    })
    .into_response()
}

async fn clusters(State(app): State<Arc<DashState>>, headers: HeaderMap) -> Response {
    match scope(&app, &headers) {
        Ok(scope) => {
            let fleet = lock(&app.fleet);
            let feed = feed::lock(&app.feed);
            axum::Json(view::clusters(&fleet, &feed, scope, now())).into_response()
        }
        Err(response) => *response,
    }
}

async fn cluster(State(app): State<Arc<DashState>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let scope = match scope_of_cluster(&app, &headers, &name) {
        Ok(scope) => scope,
        Err(response) => return *response,
    };
    let fleet = lock(&app.fleet);
    let feed = feed::lock(&app.feed);
    match fleet.cluster(&name) {
        Some(cluster) => axum::Json(view::snapshot(&name, cluster, feed.cluster(&name), scope, now())).into_response(),
        None => problem(StatusCode::NOT_FOUND, "there is no such cluster"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::app::testing;
    use crate::config::DashConfig;
    use crate::connections::{ConnectionLimit, LimitedListener};

    #[test]
    fn only_names_of_this_machine_are_its_own() {
        for host in ["127.0.0.1:9911", "localhost", "LOCALHOST:1", "[::1]:9911", "127.8.8.8"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.com", "localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "", "a b"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    /// A server on a real socket.
    async fn start() -> (SocketAddr, Arc<ConnectionLimit>) {
        let state = testing::state(DashConfig::default());
        let limit = Arc::clone(&state.connections);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = LimitedListener::by_answers(listener, Arc::clone(&limit));
        tokio::spawn(serve(Deadlines(listener), router(state)));
        (address, limit)
    }

    fn run<F: Future>(test: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let patience = std::time::Duration::from_secs(60);
        runtime.block_on(async { tokio::time::timeout(patience, test).await.expect("too slow") })
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[test]
    fn half_open_clients_leave_room_for_those_that_ask() {
        run(async {
            let (address, limit) = start().await;
            let mut half_open = Vec::new();
            for _ in 0..CONNECTIONS + 50 {
                let mut client = TcpStream::connect(address).await.unwrap();
                client.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
                half_open.push(client);
            }
            let answer = get(address, "/api/v1/me").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            assert!(body["connections"].as_u64() <= Some(CONNECTIONS as u64), "{body}");
            assert!(body["closedConnections"].as_u64() >= Some(51) && limit.closed() >= 51, "{body}");
        });
    }

    #[test]
    fn a_head_without_end_is_refused() {
        run(async {
            let (address, _) = start().await;
            for part in ["x: y\r\n".to_owned(), "x".repeat(1_000)] {
                let (mut reads, mut writes) = TcpStream::connect(address).await.unwrap().into_split();
                let sent = tokio::spawn(async move {
                    let _ = writes.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n").await;
                    let mut sent = 0;
                    while writes.write_all(part.as_bytes()).await.is_ok() {
                        sent += part.len();
                    }
                    sent
                });
                let mut answer = Vec::new();
                let _ = reads.read_to_end(&mut answer).await;
                assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{answer:?}");
                // What the socket's buffers take is not read.
                let sent = sent.await.unwrap();
                assert!(sent < 16 << 20, "{sent}");
            }
            assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        });
    }
}
