//! A hundred new policies, one after the other, under load; `SOAK_RELOADS` sets another number (`make soak`: 10,000).

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use penstock_integration::http::{HttpRequest, HttpResponse};
use penstock_integration::{Bootstrap, Listener, Route, Traffic, Upstream, WasmFilter};
use serde_json::{Value, json};

use crate::{alone, assert_flawless};

const LIMIT: usize = 40;

fn reloads() -> usize {
    std::env::var("SOAK_RELOADS").ok().and_then(|reloads| reloads.parse().ok()).unwrap_or(100)
}

/// The policy with this number: its route contains the number, and only odd ones allow `odd.test`.
fn policy(number: usize) -> Value {
    let mut hosts = vec![json!({"host": "always.test"}), json!({"host": "limited.test"})];
    if number % 2 == 1 {
        hosts.push(json!({"host": "odd.test"}));
    }
    json!({
        "egress": {"rules": [{"name": "known", "to": hosts}]},
        "rateLimits": [{"name": "few", "key": [], "matches": [{"hostnames": ["limited.test"]}],
            "limit": {"requests": LIMIT, "per": "24h"}}],
        "routes": {"default": format!("v{number}")},
    })
}

/// When each policy was given to Envoy, and when all workers used it.
#[derive(Debug, Default)]
struct Timeline {
    handed: Vec<Instant>,
    taken: Vec<Instant>,
}

impl Timeline {
    /// The policies that may have decided a request that was in flight from `sent` to `answered`.
    fn current(&self, sent: Instant, answered: Instant) -> std::ops::RangeInclusive<usize> {
        let first = self.taken.iter().rposition(|&taken| taken <= sent).unwrap_or(0);
        let last = self.handed.iter().rposition(|&handed| handed <= answered).unwrap_or(0);
        first..=last
    }
}

/// Describes what is wrong with a response to a request for this host that was sent then.
fn check(host: &str, sent: Instant, timeline: &Mutex<Timeline>, response: &HttpResponse) -> Result<()> {
    let current = timeline.lock().unwrap().current(sent, Instant::now());
    match (host, response.status) {
        ("always.test" | "limited.test" | "odd.test", 200) => {
            let named = response.header("x-saw-x-penstock-route").context("no route")?;
            let number: usize = named.trim_start_matches('v').parse()?;
            ensure!(current.contains(&number), "policy {number} decided, and {current:?} could: {response:?}");
            ensure!(host != "odd.test" || number % 2 == 1, "policy {number} does not know odd.test");
        }
        ("limited.test", 429) | ("evil.test", 403) => {}
        ("odd.test", 403) => ensure!(current.clone().any(|number| number % 2 == 0), "{current:?} know odd.test"),
        _ => anyhow::bail!("{host}: {response:?}"),
    }
    Ok(())
}

#[test]
fn a_hundred_reloads_under_load_lose_no_request_and_each_request_is_decided_by_a_current_policy() -> Result<()> {
    const HOSTS: [&str; 4] = ["always.test", "odd.test", "evil.test", "limited.test"];
    let _alone = alone();
    let upstream = Upstream::start(|_| penstock_integration::UpstreamReply::Status(200, vec![]))?;
    let mut bootstrap = Bootstrap::new()?.cluster("upstream", upstream.address());
    let filter = bootstrap.discovered(WasmFilter::new("suite", policy(0))?.named("penstock"))?;
    let route = Route::any().to("upstream").echo(&["x-penstock-route"]);
    let mut envoy = bootstrap.listener(Listener::new("ingress").discovered(filter).route(route)).start()?;

    let now = Instant::now();
    let timeline = Arc::new(Mutex::new(Timeline { handed: vec![now], taken: vec![now] }));
    let shared = Arc::clone(&timeline);
    let reloads = reloads();
    // Only the long form uses thousands. The upstream does not record requests, because that memory would be the test's
    // and not Envoy's.
    let (pause, each) = if reloads > 1000 { (Duration::from_millis(5), 4) } else { (Duration::ZERO, 20) };
    let traffic = Traffic::of(4, envoy.ingress()?, move |client, number| {
        std::thread::sleep(pause);
        let host = HOSTS[(client + number) % HOSTS.len()];
        let (timeline, sent) = (Arc::clone(&shared), Instant::now());
        (HttpRequest::get("/").at(host), move |response: &HttpResponse| check(host, sent, &timeline, response))
    });
    traffic.wait_for(1000)?;
    let mut memory = Vec::new();
    let mut longest = Duration::ZERO;
    for number in 1..=reloads {
        let handed = Instant::now();
        timeline.lock().unwrap().handed.push(handed);
        if let Err(error) = envoy.must_reload("penstock", policy(number)) {
            // An Envoy that has ended says more than the connection that it has closed.
            envoy.check_healthy()?;
            return Err(error.context(format!("reload {number}: {:?}", memory.last())));
        }
        timeline.lock().unwrap().taken.push(Instant::now());
        longest = longest.max(handed.elapsed());
        traffic.wait_for(each)?;
        memory.push((envoy.resident()?, envoy.allocated()?));
    }
    let tally = traffic.stop()?;
    assert_flawless(&tally, 3000);
    envoy.check_healthy()?;

    let received = upstream.all();
    let of = |host: &str| received.iter().filter(|request| request.header("host").as_deref() == Some(host)).count();
    assert_eq!(of("evil.test"), 0, "forwarded");
    // The limit is the same in every policy, so its bucket survives all of them.
    assert_eq!(of("limited.test"), LIMIT);
    let [(early, early_heap), (late, late_heap)] = [memory[reloads / 5 - 1], memory[reloads - 1]];
    println!(
        "reload storm: {reloads} reloads, the longest {longest:?}; {} requests, none failed; after reload {} {early} KiB resident \
         ({early_heap} KiB allocated), after reload {reloads} {late} KiB ({late_heap} KiB)",
        tally.good,
        reloads / 5,
    );
    assert!(late < early + 16 * 1024, "memory grows: {memory:?}");
    Ok(())
}
