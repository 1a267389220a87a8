//! The system clock steps forwards and backwards while Envoy runs: see `clock.c`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use penstock_integration::http::{self, ClientConnection, HttpRequest, HttpResponse, Protocol};
use penstock_integration::{Bootstrap, Envoy, Listener, Route, Traffic, Upstream, UpstreamReply, WasmFilter};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{alone, assert_flawless, beside_others, wait_until};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// A clock that the test can set, for one Envoy.
struct Clock {
    folder: TempDir,
}

impl Clock {
    fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("penstock-").tempdir()?;
        let clock = Clock { folder };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/soak/clock.c");
        // The same compiler that Rust uses for linking.
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&clock.library(), &source])
            .status()
            .context("cannot run cc")?;
        ensure!(status.success(), "clock.c could not be compiled");
        clock.is_off_by(0)?;
        Ok(clock)
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("clock.so")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("difference")
    }

    /// Sets the clock to this many seconds from the real time. Writes the file in place, because Envoy has mapped it.
    fn is_off_by(&self, seconds: i64) -> Result<()> {
        use std::io::Write as _;
        let mut file = fs::File::options().create(true).truncate(false).write(true).open(self.file())?;
        Ok(file.write_all(&(seconds * 1_000_000_000).to_ne_bytes())?)
    }

    fn give_to(&self, bootstrap: Bootstrap) -> Bootstrap {
        bootstrap.environment("LD_PRELOAD", self.library()).environment("PENSTOCK_CLOCK", self.file())
    }
}

/// An Envoy with this clock and policy, whose routes respond themselves.
fn envoy(clock: &Clock, policy: &Value, routes: &[&str]) -> Result<Envoy> {
    clock.give_to(Bootstrap::suite(policy, routes)?.log_level("warning,wasm:warning")).start()
}

fn ask(envoy: &Envoy, request: &HttpRequest) -> Result<HttpResponse> {
    http::send(Protocol::Http1, envoy.ingress()?, request)
}

/// Real time plus this many seconds, in the notation of a policy.
fn at(seconds: i64) -> Result<String> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let output = Command::new("date").args(["-u", "-d", &format!("@{}", now + seconds), "+%FT%TZ"]).output()?;
    ensure!(output.status.success(), "date: {output:?}");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Sends requests of a client as fast as possible for this time; returns how many pass.
fn passed(envoy: &Envoy, user: &str, time: Duration) -> Result<(usize, Duration)> {
    let mut connection = ClientConnection::open(Protocol::Http1, envoy.ingress()?)?;
    let (started, mut passed) = (Instant::now(), 0);
    while started.elapsed() < time {
        let status = connection.request(&HttpRequest::get("/").header("x-user", user))?.status;
        ensure!([200, 429].contains(&status), "{status}");
        passed += usize::from(status == 200);
    }
    Ok((passed, started.elapsed()))
}

#[test]
fn a_clock_that_steps_neither_locks_a_client_out_of_its_limit_nor_gives_it_more_than_one_burst() -> Result<()> {
    const RATE: f64 = 50.0;
    const BURST: f64 = 50.0;
    let _alone = alone();
    let clock = Clock::new()?;
    let policy = json!({"rateLimits": [
        {"name": "fast", "key": [{"header": "x-user"}], "matches": [{"headers": [{"name": "x-user", "value": "fast"}]}],
            "limit": {"requests": RATE as u64, "per": "1s", "burst": BURST as u64}},
        {"name": "slow", "key": [{"header": "x-user"}], "matches": [{"headers": [{"name": "x-user", "value": "slow"}]}],
            "limit": {"requests": 1, "per": "30m", "burst": 10}},
    ]});
    let mut envoy = envoy(&clock, &policy, &[])?;
    let second = Duration::from_secs(1);
    passed(&envoy, "fast", second)?;
    assert_eq!(passed(&envoy, "slow", second)?.0, 10);
    for (step, refilled) in [(HOUR, 2), (-2 * DAY, 0), (0, 10), (-HOUR, 0)] {
        clock.is_off_by(step)?;
        let (fast, took) = passed(&envoy, "fast", second)?;
        // At least the rate, minus a second for the step and for a busy machine; at most one burst more.
        let (least, most) = (RATE * took.as_secs_f64() * 0.5, RATE * took.as_secs_f64() + BURST + 1.0);
        println!("clock at {step:+} s: {fast} of the fast client passed in {took:?} ({least:.0} to {most:.0})");
        assert!((least..=most).contains(&(fast as f64)), "{step}: {fast} passed, expected {least:.0} to {most:.0}");
        assert_eq!(passed(&envoy, "slow", second / 2)?.0, refilled, "one each half hour, at {step}");
    }
    envoy.check_healthy()
}

#[test]
fn ramps_and_windows_of_validity_follow_the_clock_both_ways() -> Result<()> {
    let _others = beside_others();
    let clock = Clock::new()?;
    let policy = json!({
        "egress": {"rules": [
            {"name": "now", "to": [{"host": "now.test"}]},
            {"name": "later", "owner": "o", "reason": "r", "notBefore": at(HOUR)?, "expires": at(2 * HOUR)?,
                "to": [{"host": "later.test"}]}]},
        "canaries": [{"name": "shop", "stickiness": {"header": "x-user"},
            "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 0}],
            "ramp": {"variant": "v2", "startsAt": at(HOUR)?, "steps": [{"weight": 50, "for": "1h"}, {"weight": 100}]}}],
    });
    let mut envoy = envoy(&clock, &policy, &["v1", "v2"])?;
    for (step, status, least, most) in [
        (0, 403, 0, 0),
        (HOUR + 600, 200, 60, 140),
        (3 * HOUR, 403, 200, 200),
        (HOUR + 600, 200, 60, 140),
        (-HOUR, 403, 0, 0),
        (2 * HOUR + 1, 403, 200, 200),
    ] {
        clock.is_off_by(step)?;
        let variant = |user: u32| {
            Ok(ask(&envoy, &HttpRequest::get("/").at("now.test").header("x-user", format!("{user}")))?.text())
        };
        let variants = (0..200).map(variant).collect::<Result<Vec<_>>>()?;
        let share = variants.iter().filter(|variant| *variant == "v2").count();
        let found = ask(&envoy, &HttpRequest::get("/").at("later.test"))?.status;
        println!("clock at {step:+} s: {share} of 200 users on v2; the rule of the next hour answers {found}");
        assert!((least..=most).contains(&share), "{step}: {share}");
        assert_eq!(found, status, "{step}");
    }
    envoy.check_healthy()
}

#[test]
fn a_variant_that_was_taken_out_is_tried_again_however_far_the_clock_steps_back() -> Result<()> {
    let _others = beside_others();
    let clock = Clock::new()?;
    let good = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::forgetful({
        let good = Arc::clone(&good);
        move |_| UpstreamReply::Status(if good.load(Ordering::SeqCst) == 0 { 503 } else { 200 }, vec![])
    })?;
    let policy = json!({"canaries": [{"name": "shop",
        "variants": [{"name": "v1", "weight": 0}, {"name": "v2", "weight": 1}],
        "rollback": {"variant": "v2", "to": "v1", "window": "10s", "minRequests": 10, "errorPercent": 50, "cooldown": "10m"}}]});
    let listener = Listener::new("ingress")
        .wasm(&WasmFilter::new("suite", &policy)?)
        .route(Route::named("v1").answers(200, "v1"))
        .route(Route::named("v2").to("v2"));
    let bootstrap = Bootstrap::new()?.cluster("v2", upstream.address()).listener(listener);
    let mut envoy = clock.give_to(bootstrap).start()?;
    let state =
        |envoy: &Envoy| envoy.admin().stat("wasmcustom.penstock.breaker_state.section.canaries.rule.shop.variant.v2");
    let traffic = Traffic::of(4, envoy.ingress()?, |_, _| {
        (HttpRequest::get("/"), |response: &HttpResponse| {
            ensure!([200, 503].contains(&response.status), "{response:?}");
            Ok(())
        })
    });
    for (from, to) in [(0, HOUR), (HOUR, -DAY)] {
        good.store(0, Ordering::SeqCst);
        clock.is_off_by(from)?;
        wait_until("the variant is out", || Ok(state(&envoy)? == 2))?;
        good.store(1, Ordering::SeqCst);
        clock.is_off_by(to)?;
        let began = Instant::now();
        wait_until("the variant is tried again, and good", || Ok(state(&envoy)? == 0))?;
        println!("clock from {from:+} s to {to:+} s: the variant is back after {:?}", began.elapsed());
    }
    assert_flawless(&traffic.stop()?, 1000);
    envoy.check_healthy()
}
