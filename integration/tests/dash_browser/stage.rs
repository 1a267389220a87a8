//! The environment of the browser tests: Envoys with a canary that fails, and callers whose egress is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Envoy, Listener, Route, Upstream, UpstreamReply, WasmFilter};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A reason that would become an element if the page interpreted it as HTML.
pub(crate) const MARKUP: &str = "one of many <img src=x onerror=alert(1)>";

pub(crate) fn ingress() -> Value {
    let started = rfc3339(-3600);
    json!({
        "rateLimits": [
            {"name": "per-user", "key": [{"header": "x-user"}], "onMissingKey": "Skip",
             "limit": {"requests": 30, "per": "1m"}, "capacity": 64},
            {"name": "exports", "matches": [{"path": {"type": "PathPrefix", "value": "/export"}}], "key": [],
             "limit": {"requests": 3, "per": "1h"}, "mode": "Shadow"}],
        "routes": {"default": "stable", "rules": [
            {"name": "beta-users", "matches": [{"headers": [{"name": "x-user-group", "value": "beta"}]}], "route": "beta"}]},
        "canaries": [
            {"name": "reviews", "matches": [{"path": {"type": "PathPrefix", "value": "/reviews"}}],
             "variants": [{"name": "v1", "weight": 3, "route": "stable"}, {"name": "v2", "weight": 1, "route": "reviews-v2"}],
             "rollback": {"variant": "v2", "to": "v1", "window": "1h", "minRequests": 10, "errorPercent": 20, "cooldown": "1h"}},
            {"name": "checkout", "matches": [{"path": {"type": "PathPrefix", "value": "/checkout"}}],
             "variants": [{"name": "current", "weight": 1, "route": "stable"}, {"name": "next", "weight": 0, "route": "beta"}],
             "ramp": {"variant": "next", "startsAt": started,
                 "steps": [{"weight": 5, "for": "20m"}, {"weight": 25, "for": "2h"}, {"weight": 50, "for": "4h"}, {"weight": 100}]}}],
    })
}

fn egress() -> Value {
    json!({"egress": {
        "deny": [{"host": "secrets.example.com"}],
        "rules": [
            {"name": "stripe", "owner": "payments", "reason": "card charges, PCI-1234", "methods": ["GET"],
             "to": [{"host": "api.stripe.com", "ports": [443]}], "expires": rfc3339(120 * 86400)},
            {"name": "packages", "owner": "data", "reason": "nightly builds", "expires": rfc3339(3 * 86400),
             "to": [{"host": "packages.example.net", "ports": [443]}]},
            {"name": "own-services", "owner": "platform", "reason": "our own hosts", "to": [{"host": "*.example.com", "ports": [443]}]}]}})
}

/// A time this many seconds from now.
fn rfc3339(seconds: i64) -> String {
    (OffsetDateTime::now_utc() + time::Duration::seconds(seconds)).format(&Rfc3339).unwrap()
}

/// An Envoy with an ingress listener and an egress listener. `healthy`: the canary's variant responds correctly.
pub(crate) fn envoy(healthy: bool) -> Result<(Envoy, Vec<Upstream>)> {
    with(healthy, egress())
}

/// The same with this many more egress rules, which are never used.
pub(crate) fn crowded(rules: usize) -> Result<(Envoy, Vec<Upstream>)> {
    let mut policy = egress();
    let all = policy.pointer_mut("/egress/rules").and_then(Value::as_array_mut).unwrap();
    all.extend((0..rules).map(|number| {
        json!({"name": format!("rule-{number}"), "owner": format!("team-{}", number % 20), "reason": MARKUP,
            "to": [{"host": format!("host-{number}.example.org"), "ports": [443]}]})
    }));
    with(true, policy)
}

fn with(healthy: bool, egress: Value) -> Result<(Envoy, Vec<Upstream>)> {
    let ok = Upstream::forgetful(|_| UpstreamReply::Status(200, vec![]))?;
    let bad = Upstream::forgetful(move |_| UpstreamReply::Status(if healthy { 200 } else { 503 }, vec![]))?;
    let mut bootstrap = Bootstrap::new()?.stats_tags()?;
    let inward = bootstrap.discovered(WasmFilter::new("suite", ingress())?.named("ingress"))?;
    let outward = bootstrap.discovered(WasmFilter::new("suite", egress)?.named("egress"))?;
    let to = |name: &str| Route::header("x-penstock-route", name).to(name);
    let envoy = bootstrap
        .cluster("stable", ok.address())
        .cluster("beta", ok.address())
        .cluster("reviews-v2", bad.address())
        .cluster("internet", ok.address())
        .listener(
            Listener::new("ingress").discovered(inward).route(to("stable")).route(to("beta")).route(to("reviews-v2")),
        )
        .listener(Listener::new("egress").discovered(outward).route(Route::any().to("internet")))
        .start()?;
    Ok((envoy, vec![ok, bad]))
}

/// Sends some forty requests of all kinds a second until it is dropped.
pub(crate) struct Visitors {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Visitors {
    /// `wicked`: some of the requests are for targets that egress does not allow.
    pub(crate) fn of(envoy: &Envoy, wicked: bool) -> Result<Self> {
        let (ingress, egress) = (envoy.address("ingress")?, envoy.address("egress")?);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let get = |path: &str| HttpRequest::new("GET", "shop.example.com", path);
        let out = |method: &str, host: &str| HttpRequest::new(method, host, "/");
        let inward = [
            get("/"),
            get("/").header("x-user", "ann"),
            get("/reviews"),
            get("/reviews"),
            get("/checkout"),
            get("/").header("x-user-group", "beta"),
            get("/export"),
            get("/").header("x-user", "bob"),
        ];
        let mut outward = vec![
            out("GET", "api.stripe.com:443"),
            out("GET", "shop.example.com:443"),
            out("GET", "api.stripe.com:443"),
        ];
        if wicked {
            outward.extend([out("DELETE", "api.stripe.com:443"), out("GET", "evil.example.net:443")]);
        }
        let thread = thread::spawn(move || {
            for round in 0.. {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                // Ignores the response: the test looks at the dash instead.
                let _ = inward.get(round % inward.len()).map(|request| http::send(Protocol::Http1, ingress, request));
                let _ = outward.get(round % outward.len()).map(|request| http::send(Protocol::Http1, egress, request));
                thread::sleep(Duration::from_millis(40));
            }
        });
        Ok(Visitors { stop, thread: Some(thread) })
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
