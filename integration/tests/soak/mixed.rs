//! All sections at once, all kinds of clients, and new policies during all of it: for ten seconds, or for
//! `SOAK_MINUTES`.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use penstock_integration::http::{ClientConnection, HttpRequest, HttpResponse, Protocol};
use penstock_integration::{
    Bootstrap, Envoy, Listener, Received, Reload, Route, Traffic, Upstream, UpstreamReply, WasmFilter,
};
use serde_json::{Value, json};

use crate::{alone, assert_flawless};

const CLIENTS: usize = 6;
/// The number of users; each has its own bucket and a variant.
const USERS: usize = 20_000;
const RATE: usize = 20;
const BURST: usize = 20;
/// The growth of memory after the warm-up that still counts as flat, in KiB.
const FLAT: u64 = 12 * 1024;

/// The total duration, and the part of it that is warm-up.
fn duration() -> Duration {
    let minutes: Option<f64> = std::env::var("SOAK_MINUTES").ok().and_then(|minutes| minutes.parse().ok());
    minutes.map_or(Duration::from_secs(10), |minutes| Duration::from_secs_f64(minutes * 60.0))
}

/// Every version decides the same; `version` changes the text and the rules.
fn policy(version: usize) -> Value {
    let host = |name: &str| json!({"host": name});
    let mut rules = vec![
        json!({"name": "known", "owner": format!("version-{version}"), "to": [host("shop.test"), host("limited.test"), host("flaky.test")]}),
        json!({"name": "charges", "to": [host("api.test")], "methods": ["POST"], "paths": [{"type": "PathPrefix", "value": "/v1"}]}),
    ];
    rules.extend(
        (0..version % 50)
            .map(|number| json!({"name": format!("more-{number}"), "to": [host(&format!("h{number}.test"))]})),
    );
    json!({
        "egress": {"rules": rules, "deny": [host("secret.shop.test")]},
        "rateLimits": [
            {"name": "per-user", "key": [{"header": "x-user"}], "limit": {"requests": 1000, "per": "1s"}},
            {"name": "narrow", "key": [], "matches": [{"hostnames": ["limited.test"]}],
                "limit": {"requests": RATE, "per": "1s", "burst": BURST}},
        ],
        "routes": {"rules": [
            {"name": "cart", "matches": [{"hostnames": ["shop.test"], "path": {"type": "PathPrefix", "value": "/cart"}}],
                "route": "cart",
                "requestHeaders": {"set": [{"name": "x-version", "value": format!("{version}")}]}},
        ]},
        "canaries": [
            {"name": "flaky", "matches": [{"hostnames": ["flaky.test"]}],
                "variants": [{"name": "v1", "weight": 50}, {"name": "broken", "weight": 50}],
                "rollback": {"variant": "broken", "to": "v1", "window": "10s", "minRequests": 20, "errorPercent": 10, "cooldown": "5s"}},
            {"name": "shop", "stickiness": {"header": "x-user"},
                "variants": [{"name": "v1", "weight": 70}, {"name": "v2", "weight": 30}]},
        ],
    })
}

/// What the proxy may forward, as seen by the upstream.
fn is_expected(request: &Received) -> bool {
    match request.header("host").as_deref() {
        Some("shop.test" | "limited.test" | "flaky.test") => request.header("x-spoofed").is_none(),
        Some("api.test") => request.method == b"POST" && request.target.starts_with(b"/v1"),
        _ => false,
    }
}

/// State that the clients share.
#[derive(Debug)]
struct Seen {
    /// The variant of each user, once seen: 1 or 2.
    variants: Vec<AtomicU8>,
    passed: AtomicUsize,
    limited: AtomicUsize,
    exhausted: Mutex<Exhausted>,
    broken: AtomicUsize,
}

/// The time in which the limit could not fall behind its rate: between two refusals that are closer together than its
/// burst lasts. Slow clients may leave a part of the burst unused at any other time.
#[derive(Debug, Default)]
struct Exhausted {
    last_refusal: Option<Instant>,
    total: Duration,
}

impl Exhausted {
    fn refused(&mut self, now: Instant) {
        let since = self.last_refusal.replace(now).map(|last| now.saturating_duration_since(last));
        self.total += since.filter(|since| since.as_secs_f64() < BURST as f64 / RATE as f64).unwrap_or_default();
    }
}

fn route_of(response: &HttpResponse) -> String {
    response.header("x-saw-x-penstock-route").unwrap_or_default()
}

type Check = Box<dyn FnOnce(&HttpResponse) -> Result<()>>;

fn answers(status: u16) -> Check {
    Box::new(move |response| {
        ensure!(response.status == status, "not {status}: {response:?}");
        Ok(())
    })
}

/// The request with this number, and its expected response.
fn next(number: usize, seen: &Arc<Seen>) -> (HttpRequest, Check) {
    let seen = Arc::clone(seen);
    let user = number.wrapping_mul(7919) % USERS;
    let shop = HttpRequest::get("/").at("shop.test").header("x-user", format!("user-{user}"));
    match number % 10 {
        0 => (HttpRequest::get("/").at("evil.test"), answers(403)),
        1 => (HttpRequest::get("/").at("127.1"), answers(400)),
        2 => (HttpRequest::get("/v1/charges").at("api.test"), answers(403)),
        3 => (HttpRequest::new("POST", "api.test", "/v1/charges").body("x".repeat(9000)), answers(200)),
        4 => (
            HttpRequest::get("/").at("limited.test"),
            Box::new(move |response: &HttpResponse| {
                match response.status {
                    200 => seen.passed.fetch_add(1, Ordering::Relaxed),
                    429 => {
                        seen.exhausted.lock().unwrap_or_else(PoisonError::into_inner).refused(Instant::now());
                        seen.limited.fetch_add(1, Ordering::Relaxed)
                    }
                    _ => anyhow::bail!("{response:?}"),
                };
                Ok(())
            }),
        ),
        5 => (
            HttpRequest::get("/").at("flaky.test"),
            Box::new(move |response: &HttpResponse| {
                match (response.status, route_of(response).as_str()) {
                    (200, "v1") => {}
                    (503, "broken") => {
                        seen.broken.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => anyhow::bail!("{response:?}"),
                }
                Ok(())
            }),
        ),
        6 => {
            let request = shop.header("x-penstock-route", "broken").header("x-long", "y".repeat(8000));
            (
                HttpRequest { path: b"/cart/1".to_vec(), ..request },
                Box::new(|response: &HttpResponse| {
                    ensure!(response.status == 200 && route_of(response) == "cart", "{response:?}");
                    Ok(())
                }),
            )
        }
        _ => (
            shop,
            Box::new(move |response: &HttpResponse| {
                let variant = match route_of(response).as_str() {
                    "v1" => 1,
                    "v2" => 2,
                    _ => anyhow::bail!("{response:?}"),
                };
                let before = seen.variants[user].swap(variant, Ordering::Relaxed);
                ensure!(before == 0 || before == variant, "user-{user} went from v{before} to v{variant}");
                ensure!(response.status == 200, "{response:?}");
                Ok(())
            }),
        ),
    }
}

fn start(upstream: &Upstream, broken: &Upstream) -> Result<Envoy> {
    let mut bootstrap = Bootstrap::new()?
        .cluster("upstream", upstream.address())
        .cluster("broken", broken.address())
        .log_level("error");
    let filter = bootstrap.discovered(WasmFilter::new("suite", policy(0))?.named("penstock"))?;
    let saw = |route: Route| route.echo(&["x-penstock-route"]);
    let listener = Listener::new("ingress")
        .discovered(filter)
        .route(saw(Route::named("broken").to("broken")))
        .route(saw(Route::any().to("upstream")));
    bootstrap.listener(listener).start()
}

#[test]
fn mixed_traffic_with_reloads_is_answered_correctly_without_memory_growth() -> Result<()> {
    let _alone = alone();
    let strangers = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::forgetful({
        let strangers = Arc::clone(&strangers);
        move |request| {
            strangers.fetch_add(usize::from(!is_expected(request)), Ordering::Relaxed);
            UpstreamReply::Status(200, vec![])
        }
    })?;
    let broken = Upstream::forgetful(|_| UpstreamReply::Status(503, vec![]))?;
    let mut envoy = start(&upstream, &broken)?;
    let seen = Arc::new(Seen {
        variants: (0..USERS).map(|_| AtomicU8::new(0)).collect(),
        passed: AtomicUsize::new(0),
        limited: AtomicUsize::new(0),
        exhausted: Mutex::default(),
        broken: AtomicUsize::new(0),
    });
    let (started, whole) = (Instant::now(), duration());
    let shared = Arc::clone(&seen);
    let traffic = Traffic::of(CLIENTS, envoy.ingress()?, move |client, number| {
        // Pauses between requests: the test may run for half an hour and must not use the whole machine.
        thread::sleep(Duration::from_millis(1));
        next(number * CLIENTS + client, &shared)
    });
    let (mut samples, mut reloads, mut refused) = (Vec::new(), 0, 0);
    while started.elapsed() < whole {
        thread::sleep(Duration::from_millis(500));
        reloads += 1;
        if reloads % 10 == 0 {
            let outcome = envoy.reload("penstock", json!({"routes": {"rules": [{"name": "r"}]}, "egres": {}}))?;
            ensure!(matches!(outcome, Reload::Refused(_)), "a bad policy was taken");
            refused += 1;
        } else {
            envoy.must_reload("penstock", policy(reloads))?;
        }
        // A client that leaves before the response, and a connection that is never used.
        let mut leaving = ClientConnection::open(Protocol::ALL[reloads % 2], envoy.ingress()?)?;
        leaving.abandon(&HttpRequest::get("/").at("shop.test"), || Ok(()))?;
        drop(ClientConnection::open(Protocol::ALL[reloads % 2], envoy.ingress()?)?);
        let sample = (started.elapsed(), envoy.resident()?, envoy.allocated()?);
        if samples.last().is_none_or(|(at, _, _): &(Duration, u64, u64)| sample.0 - *at > whole / 15) {
            println!(
                "{:5.0} s: {} KiB resident, {} KiB allocated by Envoy",
                sample.0.as_secs_f64(),
                sample.1,
                sample.2
            );
            samples.push(sample);
        }
    }
    let tally = traffic.stop()?;
    let took = started.elapsed();
    assert_flawless(&tally, 1000);
    envoy.check_healthy()?;
    assert_eq!(strangers.load(Ordering::Relaxed), 0, "forwarded");

    // A quarter of the time is warm-up.
    let warm: Vec<_> = samples.iter().filter(|(at, _, _)| *at > whole / 4).collect();
    let (first, last) = (warm.first().context("no sample")?, warm.last().context("no sample")?);
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let exhausted = seen.exhausted.lock().unwrap_or_else(PoisonError::into_inner).total.as_secs_f64();
    println!(
        "mixed: {} requests in {took:?}, none wrong; {reloads} reloads, {refused} of them bad and refused; limit: {} passed, {} refused, \
         exhausted for {exhausted:.0} s; {} answers of the broken variant; memory after {:.0} s {} KiB ({} KiB allocated), after {:.0} s {} KiB ({} KiB)",
        tally.good,
        count(&seen.passed),
        count(&seen.limited),
        count(&seen.broken),
        first.0.as_secs_f64(),
        first.1,
        first.2,
        last.0.as_secs_f64(),
        last.1,
        last.2,
    );
    assert!(last.1 < first.1 + FLAT, "memory grows: {samples:?}");
    let (passed, seconds) = (count(&seen.passed), took.as_secs_f64());
    assert!(passed as f64 <= RATE as f64 * seconds + BURST as f64 + 1.0, "{passed} passed in {seconds} s");
    assert!(
        passed as f64 >= RATE as f64 * exhausted * 0.9,
        "{passed} passed, {exhausted} s of {seconds} s at the limit"
    );
    // A failing variant gets its probes and nothing more.
    assert!(count(&seen.broken) * 4 < tally.good / 10, "{} of {} / 10", count(&seen.broken), tally.good);
    Ok(())
}
