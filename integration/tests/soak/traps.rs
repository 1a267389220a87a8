//! A worker's VM traps. `egress_vm.rs` tests a proxy with one worker; here there are two, with traffic on both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use penstock_integration::http::{self, HttpRequest, HttpResponse, Protocol};
use penstock_integration::{
    Bootstrap, Envoy, Listener, Route, Traffic, Upstream, UpstreamReply, WasmFilter, workspace,
};
use serde_json::{Value, json};

use crate::{alone, assert_flawless, wait_until};

const LIMIT: usize = 20;

/// `version` only changes the text.
fn policy(version: usize) -> Value {
    json!({
        "egress": {"rules": [{"name": "known", "owner": format!("version-{version}"),
            "to": [{"host": "always.test"}, {"host": "limited.test"}]}]},
        "rateLimits": [{"name": "few", "key": [], "matches": [{"hostnames": ["limited.test"]}],
            "limit": {"requests": LIMIT, "per": "24h"}}],
    })
}

fn envoy(failure_policy: &str, upstream: &Upstream) -> Result<Envoy> {
    let module = workspace::module_that_traps("suite")?;
    let filter = WasmFilter::at("penstock", &module, policy(0)).failure_policy(failure_policy);
    let mut bootstrap = Bootstrap::new()?.cluster("upstream", upstream.address());
    let filter = bootstrap.discovered(filter)?;
    bootstrap.listener(Listener::new("ingress").discovered(filter).route(Route::any().to("upstream"))).start()
}

fn ask(envoy: &Envoy, host: &str) -> Result<u16> {
    Ok(http::send(Protocol::Http1, envoy.ingress()?, &HttpRequest::get("/").at(host))?.status)
}

/// Requests on this many new connections, which reach all workers, all get this response.
fn all_get(envoy: &Envoy, host: &str, status: u16) -> Result<bool> {
    for _ in 0..20 {
        if ask(envoy, host)? != status {
            return Ok(false);
        }
    }
    Ok(true)
}

fn trap_one(envoy: &Envoy) -> Result<()> {
    let request = HttpRequest::get("/").at("always.test").header("x-penstock-trap", "1");
    let status = http::send(Protocol::Http1, envoy.ingress()?, &request)?.status;
    ensure!(status == 503, "the request that traps gets {status}");
    Ok(())
}

/// Background traffic. After `dead` is set, some requests may get 503.
fn traffic(envoy: &Envoy, dead: &Arc<AtomicBool>, refused: &Arc<AtomicUsize>) -> Result<Traffic> {
    let (dead, refused) = (Arc::clone(dead), Arc::clone(refused));
    Ok(Traffic::of(8, envoy.ingress()?, move |client, number| {
        let (host, status) = [("always.test", 200), ("evil.test", 403)][(client + number) % 2];
        let (dead, refused) = (Arc::clone(&dead), Arc::clone(&refused));
        (HttpRequest::get("/").at(host), move |response: &HttpResponse| {
            if response.status == 503 && dead.load(Ordering::SeqCst) {
                refused.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            ensure!(response.status == status, "{host}: {response:?}");
            Ok(())
        })
    }))
}

fn nothing_else_was_forwarded(upstream: &Upstream) {
    let strangers = upstream.all().into_iter().find(|request| {
        !matches!(request.header("host").as_deref(), Some("always.test" | "limited.test"))
            || request.header("x-penstock-trap").is_some()
    });
    assert_eq!(strangers, None, "forwarded");
}

#[test]
fn a_worker_without_its_vm_answers_503_the_other_goes_on_and_failure_policy_says_how_it_ends() -> Result<()> {
    let _alone = alone();
    for failure_policy in ["FAIL_CLOSED", "FAIL_RELOAD"] {
        let upstream = Upstream::start(|_| UpstreamReply::Status(200, vec![]))?;
        let mut envoy = envoy(failure_policy, &upstream)?;
        // Before the trap: half of the requests that the limit passes.
        for _ in 0..LIMIT / 2 {
            assert_eq!(ask(&envoy, "limited.test")?, 200);
        }
        let (dead, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let traffic = traffic(&envoy, &dead, &refused)?;
        traffic.wait_for(200)?;
        dead.store(true, Ordering::SeqCst);
        trap_one(&envoy)?;
        let started = Instant::now();
        if failure_policy == "FAIL_CLOSED" {
            traffic.wait_for(2000)?;
            assert!(refused.load(Ordering::SeqCst) > 0, "nobody noticed");
            assert!(!all_get(&envoy, "always.test", 200)?, "it came back by itself");
            println!("dead VM, FAIL_CLOSED: {} of 2000 answered with 503", refused.load(Ordering::SeqCst));
            // Every new policy makes a new VM.
            envoy.must_reload("penstock", policy(1))?;
            assert!(all_get(&envoy, "always.test", 200)?, "a new policy does not help");
        }
        wait_until("a new VM", || all_get(&envoy, "always.test", 200))?;
        println!("dead VM, {failure_policy}: all workers serve again after {:?}", started.elapsed());
        dead.store(false, Ordering::SeqCst);
        traffic.wait_for(200)?;
        let tally = traffic.stop()?;
        assert_flawless(&tally, 1000);
        // The other half: limits are in shared data, not in the VM.
        let passed = (0..LIMIT).map(|_| ask(&envoy, "limited.test")).collect::<Result<Vec<_>>>()?;
        assert_eq!(passed.iter().filter(|&&status| status == 200).count(), LIMIT - LIMIT / 2, "{passed:?}");
        nothing_else_was_forwarded(&upstream);
    }
    Ok(())
}
