//! Rate limits in a real Envoy with several workers.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use penstock_integration::http::{self, ClientConnection, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Envoy, Listener, PATIENCE, Route, WasmFilter, wait_until};
use serde_json::{Value, json};

/// One limit, for all requests together unless `key` says otherwise.
fn limit(key: Value, requests: u32, per: &str, burst: u32) -> Value {
    json!({"name": "l", "key": key, "limit": {"requests": requests, "per": per, "burst": burst}})
}

fn policy(limit: &Value) -> Value {
    json!({"rateLimits": [limit]})
}

/// The duration of the long form in seconds (`make soak-limits`); `None` for the short form.
fn soak() -> Option<u64> {
    std::env::var("SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok())
}

/// The duration of a test under load.
fn seconds(short: u64) -> Duration {
    Duration::from_secs(soak().unwrap_or(short))
}

/// An Envoy with four workers and this limit.
fn envoy(module: &str, limit: &Value) -> Result<Envoy> {
    Bootstrap::module(module, &policy(limit), &[])?.concurrency(4).start()
}

/// Sends requests and returns how many pass; all others must be refused as the limit says.
fn passed(address: SocketAddr, requests: impl IntoIterator<Item = HttpRequest>) -> Result<usize> {
    let mut passed = 0;
    for (request, protocol) in requests.into_iter().zip(Protocol::ALL.into_iter().cycle()) {
        // Each request uses a new connection, so that they reach all workers.
        let response = http::send(protocol, address, &request)?;
        match response.status {
            200 => passed += 1,
            429 => ensure!(response.header("retry-after").is_some(), "{response:?}"),
            _ => anyhow::bail!("{response:?}"),
        }
    }
    Ok(passed)
}

fn user(name: &str) -> HttpRequest {
    HttpRequest::get("/").header("x-user", name)
}

fn times(count: usize) -> impl Iterator<Item = HttpRequest> {
    (0..count).map(|_| HttpRequest::get("/"))
}

/// A machine that does other things may stop all clients for longer than a burst fills a bucket.
const PAUSE: Duration = Duration::from_millis(50);

/// The result of an overload.
struct Overload {
    /// The number of requests that passed, by client.
    passed: Vec<usize>,
    sent: usize,
    /// From the first response to the end, without the pauses in which no response came for longer than [`PAUSE`]: the
    /// time during which requests were always waiting.
    at_least: Duration,
    /// From the first request to the last response: nothing passed outside this time.
    at_most: Duration,
}

/// Keeps `clients` connections busy for `time`.
fn overload(
    address: SocketAddr,
    clients: usize,
    time: Duration,
    request: impl Fn(usize) -> HttpRequest + Sync,
) -> Result<Overload> {
    let stop = AtomicBool::new(false);
    let sent = AtomicUsize::new(0);
    let first_answer = OnceLock::new();
    let started = Instant::now();
    // When the last response came, and the pauses so far, in nanoseconds.
    let (last_answer, pauses) = (AtomicU64::new(0), AtomicU64::new(0));
    let note_pause = || {
        let now = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let pause = now.saturating_sub(last_answer.fetch_max(now, Ordering::Relaxed));
        if u128::from(pause) > PAUSE.as_nanos() {
            pauses.fetch_add(pause, Ordering::Relaxed);
        }
    };
    let (passed, stopped) = thread::scope(|scope| {
        let client = |number: usize| {
            let (stop, sent, first_answer, pauses, note_pause) = (&stop, &sent, &first_answer, &pauses, &note_pause);
            let request = request(number);
            scope.spawn(move || -> Result<usize> {
                let mut connection = ClientConnection::open(Protocol::Http1, address)?;
                let mut passed = 0;
                while !stop.load(Ordering::Relaxed) {
                    let response = connection.request(&request)?;
                    first_answer.get_or_init(|| {
                        // The time before it is no pause.
                        note_pause();
                        pauses.store(0, Ordering::Relaxed);
                        Instant::now()
                    });
                    note_pause();
                    ensure!([200, 429].contains(&response.status), "{response:?}");
                    passed += usize::from(response.status == 200);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                Ok(passed)
            })
        };
        let clients: Vec<_> = (0..clients).map(client).collect();
        thread::sleep(time);
        let stopped = Instant::now();
        stop.store(true, Ordering::Relaxed);
        let join =
            |client: thread::ScopedJoinHandle<'_, Result<usize>>| client.join().ok().context("a client panicked")?;
        anyhow::Ok((clients.into_iter().map(join).collect::<Result<Vec<_>>>()?, stopped))
    })?;
    let first_answer = first_answer.get().context("no answer at all")?;
    let pauses = Duration::from_nanos(pauses.into_inner());
    let at_least = stopped.saturating_duration_since(*first_answer).saturating_sub(pauses);
    Ok(Overload { passed, sent: sent.into_inner(), at_least, at_most: started.elapsed() })
}

/// Eight clients send requests with each of `keys` keys in turn, as long as `more` is true for the number of the step.
/// Each client starts at a different key, so that workers use the same keys at the same time. Returns the number of
/// requests that passed, by key.
///
/// `keys` must not be a multiple of seven.
fn by_key(address: SocketAddr, keys: usize, more: impl Fn(usize) -> bool + Sync) -> Result<Vec<usize>> {
    let counts: Vec<AtomicUsize> = (0..keys).map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|scope| {
        let client = |client: usize| {
            let (counts, more) = (&counts, &more);
            scope.spawn(move || -> Result<()> {
                let mut connection = ClientConnection::open(Protocol::Http1, address)?;
                for step in (0..).take_while(|step| more(*step)) {
                    let key = (step * 7 + client * 131) % keys;
                    let response = connection.request(&user(&format!("key-{key}")))?;
                    ensure!([200, 429].contains(&response.status), "{response:?}");
                    let count = counts.get(key).context("no such key")?;
                    count.fetch_add(usize::from(response.status == 200), Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let clients: Vec<_> = (0..8).map(client).collect();
        clients.into_iter().try_for_each(|client| client.join().ok().context("a client panicked")?)
    })?;
    Ok(counts.into_iter().map(AtomicUsize::into_inner).collect())
}

#[test]
fn all_workers_together_pass_exactly_the_burst() -> Result<()> {
    for module in ["rate-limit", "suite"] {
        let mut envoy = envoy(module, &limit(json!([]), 20, "1h", 20))?;
        assert_eq!(passed(envoy.ingress()?, times(60))?, 20, "{module}");
        envoy.check_healthy()?;
    }
    Ok(())
}

#[test]
fn each_key_has_its_own_bucket_and_requests_without_it_share_one() -> Result<()> {
    let mut envoy = envoy("rate-limit", &limit(json!([{"header": "x-user"}]), 3, "1h", 3))?;
    for name in ["a", "b", ""] {
        assert_eq!(passed(envoy.ingress()?, (0..9).map(|_| user(name)))?, 3, "{name:?}");
    }
    assert_eq!(passed(envoy.ingress()?, times(9))?, 3);
    envoy.check_healthy()
}

#[test]
fn an_overload_of_one_key_passes_burst_and_rate_within_a_percent() -> Result<()> {
    let mut envoy = envoy("rate-limit", &limit(json!([]), 200, "1s", 50))?;
    let Overload { passed, sent, at_least, at_most } =
        overload(envoy.ingress()?, 8, seconds(6), |_| HttpRequest::get("/"))?;
    let passed = passed.iter().sum::<usize>() as f64;
    let [least, most] = [at_least, at_most].map(|time| 50.0 + 200.0 * time.as_secs_f64());
    println!("{passed} of {sent} passed in {at_least:?} to {at_most:?}; expected {least:.0} to {most:.0}");
    assert!(passed >= 0.99 * least && passed <= 1.01 * most, "{passed} passed, expected {least:.0} to {most:.0}");
    assert!(sent as f64 > 3.0 * most, "no overload: only {sent} were sent");
    envoy.check_healthy()
}

#[test]
fn tokens_that_workers_lease_are_used_once_and_not_lost() -> Result<()> {
    // During the test nothing is refilled; only unused tokens of workers return.
    let mut envoy =
        Bootstrap::module("suite", &policy(&limit(json!([]), 3000, "99999h", 3000)), &[])?.concurrency(4).start()?;
    let pass = || -> Result<usize> {
        let Overload { passed, .. } = overload(envoy.ingress()?, 8, Duration::from_secs(1), |_| HttpRequest::get("/"))?;
        Ok(passed.iter().sum())
    };
    let mut total = pass()?;
    // What a worker has not used returns at one of its timer ticks.
    wait_until("all tokens are used", || {
        thread::sleep(Duration::from_secs(1));
        total += pass()?;
        ensure!(total <= 3000, "{total} passed");
        Ok(total == 3000)
    })?;
    assert_eq!(pass()?, 0, "more than the limit");
    envoy.check_healthy()
}

#[test]
fn a_thousand_keys_pass_burst_and_rate_each_within_two_percent() -> Result<()> {
    // Short form: a burst of 50 and then one every ten minutes, so that the expected number does not depend on the
    // duration of the test. Long form: one a second for half a minute.
    let (requests, per, burst, rate) = if soak().is_some() { (60, "1m", 20, 1.0) } else { (50, "8h", 50, 0.0) };
    let time = Duration::from_secs(if soak().is_some() { 30 } else { 0 });
    let mut envoy = envoy("rate-limit", &limit(json!([{"header": "x-user"}]), requests, per, burst))?;
    let (started, asked) = (Instant::now(), AtomicUsize::new(0));
    let counts = by_key(envoy.ingress()?, 1000, |step| {
        let more = started.elapsed() < time || step < 8000;
        asked.fetch_add(usize::from(more), Ordering::Relaxed);
        more
    })?;
    let (asked, took) = (asked.into_inner(), started.elapsed());
    let expected = f64::from(burst) + rate * took.as_secs_f64();
    let (least, most) = (counts.iter().min().context("no key")?, counts.iter().max().context("no key")?);
    println!("{asked} requests in {took:?}: {least} to {most} of each key passed; expected {expected:.1}");
    assert!(asked as f64 > 1.2 * 1000.0 * expected, "no overload: only {asked} were sent");
    for (key, &passed) in counts.iter().enumerate() {
        // In whole requests.
        let (least, most) = ((0.98 * expected).floor(), (1.02 * expected).ceil());
        assert!((least..=most).contains(&(passed as f64)), "key-{key}: {passed}, expected {expected:.1}");
    }
    envoy.check_healthy()
}

#[test]
fn with_half_of_the_capacity_in_busy_keys_999_of_1000_are_exact() -> Result<()> {
    // The default capacity in the long form.
    let capacity = if soak().is_some() { 65_536 } else { 8_192 };
    let mut limit = limit(json!([{"header": "x-user"}]), 4, "24h", 4);
    limit["capacity"] = json!(capacity);
    let mut envoy = envoy("rate-limit", &limit)?;
    // Each key is used eight times, once by each client.
    let counts = by_key(envoy.ingress()?, capacity / 2, |step| step < capacity / 2)?;
    let exact = counts.iter().filter(|passed| **passed == 4).count();
    println!("{exact} of {} keys passed exactly their burst", counts.len());
    assert!(exact * 1000 >= counts.len() * 999, "{exact} of {}", counts.len());
    // The other keys share a bucket, which is too strict but never too loose.
    assert!(counts.iter().all(|passed| *passed <= 4));
    envoy.check_healthy()
}

#[test]
fn two_limits_under_contention_both_count_a_request_or_neither_does() -> Result<()> {
    // Requests that the narrow limit refuses must not consume the wide limit, which does not refill during the test.
    // The narrow one gets room for a request 5,000 times a second, so that workers often compete for it.
    let wide =
        json!({"name": "wide", "key": [], "limit": {"requests": 1_000_000, "per": "99999h"}, "quotaHeaders": "IETF"});
    let narrow = json!({"name": "narrow", "key": [], "matches": [{"path": {"type": "Exact", "value": "/narrow"}}],
        "limit": {"requests": 5000, "per": "1s", "burst": 1}});
    let policy = json!({"rateLimits": [wide, narrow]});
    let mut envoy = Bootstrap::module("rate-limit", &policy, &[])?.concurrency(4).start()?;
    let Overload { passed, sent, .. } = overload(envoy.ingress()?, 8, seconds(4), |_| HttpRequest::get("/narrow"))?;
    let passed = passed.iter().sum::<usize>();
    let response = http::send(Protocol::Http1, envoy.ingress()?, &HttpRequest::get("/"))?;
    let taken = format!("\"wide\";r={};", 1_000_000 - passed - 1);
    let left = response.header("ratelimit").context("no quota header")?;
    assert!(left.starts_with(&taken), "{passed} passed, then {left}");

    // Workers write their counts once a second.
    thread::sleep(Duration::from_secs(2));
    let met = |limit: &str| {
        envoy
            .admin()
            .stat(&format!("wasmcustom.penstock.requests_total.section.rateLimits.rule.{limit}.outcome.retried"))
    };
    let (wide, narrow) = (met("wide")?, met("narrow")?);
    println!(
        "{passed} of {sent} passed and as many are missing; writes made again: {wide} of wide, {narrow} of narrow"
    );
    envoy.check_healthy()
}

#[test]
fn a_hundred_thousand_keys_use_no_more_memory_than_the_table() -> Result<()> {
    let mut limit = limit(json!([{"header": "x-user"}]), 100, "1m", 20);
    limit["capacity"] = json!(65_536);
    let mut envoy = envoy("rate-limit", &limit)?;
    let resident = |envoy: &Envoy| -> Result<i64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", envoy.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    // Connections and buffers that Envoy allocates once are not part of the table.
    let address = envoy.ingress()?;
    overload(address, 4, Duration::from_secs(1), |_| HttpRequest::get("/"))?;
    let before = resident(&envoy)?;
    let keys = AtomicUsize::new(0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut connection = ClientConnection::open(Protocol::Http1, address)?;
                    let started = Instant::now();
                    while started.elapsed() < seconds(8) {
                        let key = keys.fetch_add(1, Ordering::Relaxed);
                        let response = connection.request(&user(&format!("client-{key}")))?;
                        ensure!([200, 429].contains(&response.status), "{response:?}");
                    }
                    Ok(())
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| client.join().ok().context("a client panicked")?)
    })?;
    let grown = resident(&envoy)? - before;
    println!("{} keys, {grown} KiB more", keys.into_inner());
    assert!(grown <= 8 * 1024, "{grown} KiB");
    envoy.check_healthy()
}

#[test]
fn counts_become_metrics() -> Result<()> {
    let mut envoy = envoy("rate-limit", &limit(json!([]), 5, "1h", 5))?;
    passed(envoy.ingress()?, times(12))?;
    let started = Instant::now();
    loop {
        let stat = |outcome: &str| {
            envoy
                .admin()
                .stat(&format!("wasmcustom.penstock.requests_total.section.rateLimits.rule.l.outcome.{outcome}"))
        };
        let counted = (stat("passed")?, stat("limited")?);
        if counted == (5, 7) {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{counted:?}");
        thread::sleep(Duration::from_millis(100));
    }
    envoy.check_healthy()
}

#[test]
fn a_reload_keeps_the_buckets_and_a_changed_rate_gives_no_new_burst() -> Result<()> {
    let mut first = limit(json!([]), 5, "1h", 5);
    let mut envoy = envoy("rate-limit", &first)?;
    assert_eq!(passed(envoy.ingress()?, times(3))?, 3);
    first["response"] = json!({"status": 429, "body": "later\n"});
    envoy.must_reload("penstock", policy(&first))?;
    assert_eq!(passed(envoy.ingress()?, times(9))?, 2);
    assert_eq!(http::send(Protocol::Http1, envoy.ingress()?, &HttpRequest::get("/"))?.text(), "later\n");
    envoy.must_reload("penstock", policy(&limit(json!([]), 6, "1h", 6)))?;
    assert_eq!(passed(envoy.ingress()?, times(9))?, 0, "who has used all of the burst has used all of the new one");
    envoy.check_healthy()
}

#[test]
fn plugins_of_other_names_do_not_share_buckets() -> Result<()> {
    let policy = policy(&limit(json!([]), 3, "1h", 3));
    let mut bootstrap = Bootstrap::new()?;
    for name in ["one", "two"] {
        let filter = WasmFilter::new("rate-limit", &policy)?.named(name);
        bootstrap = bootstrap.listener(Listener::new(name).wasm(&filter).route(Route::any()));
    }
    let mut envoy = bootstrap.start()?;
    for name in ["one", "two"] {
        assert_eq!(passed(envoy.address(name)?, times(9))?, 3, "{name}");
    }
    envoy.check_healthy()
}

#[test]
fn plugins_without_names_in_one_chain_count_apart_unless_their_policies_are_the_same() -> Result<()> {
    let one = policy(&limit(json!([]), 4, "1h", 4));
    // The same limit in another policy.
    let mut other = one.clone();
    other["routes"] = json!({"default": "none"});
    // With the same policy, each request counts twice in one bucket.
    for (second, expected) in [(&other, 4), (&one, 2)] {
        let mut listener = Listener::new("ingress");
        for (name, policy) in [("first", &one), ("second", second)] {
            listener = listener.wasm(&WasmFilter::new("suite", policy)?.named(name).without_plugin_name());
        }
        let mut envoy = Bootstrap::new()?.concurrency(4).listener(listener.route(Route::any())).start()?;
        assert_eq!(passed(envoy.ingress()?, times(9))?, expected);
        assert!(envoy.log()?.contains("this plugin has no name"), "{}", envoy.log()?);
        envoy.check_healthy()?;
    }
    Ok(())
}

#[test]
fn a_refusal_is_what_the_policy_says_and_grpc_gets_its_own_status() -> Result<()> {
    let mut limit = limit(json!([]), 1, "1h", 1);
    limit["response"] =
        json!({"status": 503, "body": "slow down\n", "headers": [{"name": "x-reason", "value": "limit"}]});
    limit["quotaHeaders"] = json!("IETF");
    let mut envoy = envoy("rate-limit", &limit)?;
    let address = envoy.ingress()?;
    let first = http::send(Protocol::Http1, address, &HttpRequest::get("/"))?;
    assert_eq!((first.status, first.header("ratelimit").as_deref()), (200, Some("\"l\";r=0;t=3600")));
    for protocol in Protocol::ALL {
        let response = http::send(protocol, address, &HttpRequest::get("/"))?;
        assert_eq!((response.status, response.text().as_str()), (503, "slow down\n"));
        assert_eq!(response.header("x-reason").as_deref(), Some("limit"));
        assert_eq!(response.header("ratelimit-policy").as_deref(), Some("\"l\";q=1;w=3600"));
        let wait: u32 = response.header("retry-after").context("no retry-after")?.parse()?;
        assert!((3590..=3600).contains(&wait), "{wait}");
    }
    let grpc = HttpRequest::new("POST", "example.com", "/pkg.Service/Call").header("content-type", "application/grpc");
    let response = http::send(Protocol::Http2, address, &grpc)?;
    assert_eq!((response.status, response.header("grpc-status").as_deref()), (200, Some("8")));
    envoy.check_healthy()
}

#[test]
fn a_shadow_limit_counts_and_refuses_no_request() -> Result<()> {
    let mut limit = limit(json!([]), 1, "1h", 1);
    limit["mode"] = json!("Shadow");
    let mut envoy = envoy("rate-limit", &limit)?;
    assert_eq!(passed(envoy.ingress()?, times(9))?, 9);
    let (started, mut counted) = (Instant::now(), 0);
    while counted < 8 && started.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(100));
        counted =
            envoy.admin().stat("wasmcustom.penstock.requests_total.section.rateLimits.rule.l.outcome.wouldLimit")?;
    }
    assert_eq!(counted, 8);
    envoy.check_healthy()
}
