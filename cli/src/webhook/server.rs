//! An HTTPS server for admission reviews. Policies are checked in separate threads, as many as there are cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use penstock_dash::tls::TlsListener;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::certificate::Certificate;
use super::log;
use super::metrics::{Reloaded, WebhookMetrics};
use super::object::ObjectJudge;
use super::review::Review;

/// The maximum size: an object and the one that it replaces, each of which etcd limits to 1.5 MiB.
const MOST_BYTES: usize = 8 << 20;

/// State that all requests share.
#[derive(Clone, Debug)]
pub struct WebhookState {
    judge: Arc<ObjectJudge>,
    certificate: Arc<Certificate>,
    metrics: Arc<WebhookMetrics>,
    stopping: Arc<(AtomicBool, Notify)>,
}

impl WebhookState {
    /// An application that checks objects with `judge`.
    pub fn new(judge: ObjectJudge, certificate: Arc<Certificate>) -> WebhookState {
        WebhookState { judge: Arc::new(judge), certificate, metrics: Arc::default(), stopping: Arc::default() }
    }

    /// Reloads certificate and ceilings when they change, and lists the routes periodically.
    ///
    /// # Errors
    /// Returns an error when no thread can be started.
    pub fn refresh_in_background(&self, files: Duration, routes: Duration) -> Result<()> {
        let app = self.clone();
        let refresh_files = move || loop {
            thread::sleep(files);
            app.refreshed(Reloaded::Certificate, app.certificate.reload());
            app.refreshed(Reloaded::Ceilings, app.judge.ceilings.reload());
        };
        thread::Builder::new().name("files".to_owned()).spawn(refresh_files).context("cannot start a thread")?;
        if self.judge.routes.is_used() {
            let app = self.clone();
            let refresh_routes = move || loop {
                if let Err(error) = app.judge.routes.refresh() {
                    log::line(
                        "warning",
                        "the routes of the cluster are not known",
                        json!({"error": format!("{error:#}")}),
                    );
                }
                thread::sleep(routes);
            };
            thread::Builder::new().name("routes".to_owned()).spawn(refresh_routes).context("cannot start a thread")?;
        }
        Ok(())
    }

    fn refreshed(&self, what: Reloaded, outcome: Result<bool>) {
        let name = format!("{what:?}").to_lowercase();
        match outcome {
            Ok(false) => return,
            Ok(true) => log::line("info", "read again", json!({"what": name})),
            Err(error) => {
                let error = anstream::adapter::strip_str(&format!("{error:#}")).to_string();
                log::line(
                    "error",
                    "cannot be read again: the last version stays in use",
                    json!({"what": name, "error": error}),
                );
                self.metrics.reload(what, false);
                return;
            }
        }
        self.metrics.reload(what, true);
    }

    /// Serves until the process gets a signal to end; requests in flight are finished.
    ///
    /// # Errors
    /// Returns an error when the sockets fail.
    pub async fn serve(self, listener: TcpListener, plain: Option<TcpListener>) -> Result<()> {
        let tls = TlsListener::with(listener, self.certificate.server()?)?;
        let stopping = Arc::clone(&self.stopping);
        ctrlc::set_handler(move || {
            stopping.0.store(true, Ordering::Relaxed);
            stopping.1.notify_waiters();
            stopping.1.notify_one();
        })
        .context("cannot wait for signals")?;
        let observed = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/metrics", get(metrics))
            .with_state(self.clone());
        if let Some(plain) = plain {
            let observed = observed.clone();
            tokio::spawn(async move { axum::serve(plain, observed).await });
        }
        let router = Router::new()
            .route("/validate", post(validate))
            .route("/validate/ceilings/{name}", post(validate_within))
            .layer(DefaultBodyLimit::max(MOST_BYTES))
            .with_state(self.clone())
            .merge(observed);
        let stopping = Arc::clone(&self.stopping);
        axum::serve(tls, router).with_graceful_shutdown(async move { stopping.1.notified().await }).await?;
        Ok(())
    }

    async fn answer(self, body: Bytes, ceiling: Option<String>) -> Response {
        let begin = Instant::now();
        let judge = Arc::clone(&self.judge);
        let metrics = Arc::clone(&self.metrics);
        let answered = tokio::task::spawn_blocking(move || {
            let Review { request } = serde_json::from_slice(&body)?;
            let answer = judge.judge(&request, ceiling.as_deref());
            let took = begin.elapsed();
            metrics.admission(&request.kind.kind, answer.refusal.is_none(), !answer.warnings.is_empty(), took);
            log::line(
                if answer.refusal.is_some() { "warning" } else { "info" },
                if answer.refusal.is_some() { "refused" } else { "allowed" },
                json!({
                    "uid": request.uid, "kind": request.kind.kind, "group": request.kind.group,
                    "namespace": request.namespace, "name": request.name, "operation": request.operation,
                    "user": request.user_info.username, "dryRun": request.dry_run.unwrap_or_default(),
                    "ceiling": ceiling, "warnings": answer.warnings.len(),
                    "why": answer.refusal.as_ref().and_then(|why| why.trim_start().lines().next()),
                    "milliseconds": took.as_secs_f64() * 1000.0,
                }),
            );
            serde_json::to_vec(&answer.review(&request.uid))
        });
        let problem = |status: StatusCode, message: String| {
            self.metrics.error();
            log::line("error", "no answer", json!({"error": message}));
            (status, format!("{message}\n")).into_response()
        };
        match answered.await {
            Ok(Ok(text)) => ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response(),
            Ok(Err(error)) => problem(StatusCode::BAD_REQUEST, format!("this is not an AdmissionReview: {error}")),
            // The API server then applies the webhook's failure policy.
            Err(error) => {
                problem(StatusCode::INTERNAL_SERVER_ERROR, format!("the object could not be checked: {error}"))
            }
        }
    }
}

async fn validate(State(app): State<WebhookState>, body: Bytes) -> Response {
    app.answer(body, None).await
}

async fn validate_within(State(app): State<WebhookState>, Path(name): Path<String>, body: Bytes) -> Response {
    app.answer(body, Some(name)).await
}

async fn metrics(State(app): State<WebhookState>) -> Response {
    let page = app.metrics.page(app.judge.ceilings.count(), app.judge.routes.known().is_some());
    ([(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"))], page).into_response()
}
