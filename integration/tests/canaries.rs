//! `canaries` and `failover` in a real Envoy: every worker and replica agrees, cookies, chains, breakers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use penstock_integration::http::{self, Connection, Protocol, Request, Response};
use penstock_integration::{Bootstrap, Listener, Reply, Route, Traffic, Upstream, WasmFilter};
use serde_json::{Value, json};

fn reviews(weights: [u32; 3]) -> Value {
    let [v1, v2, v3] = weights;
    json!({"canaries": [{"name": "reviews", "stickiness": {"header": "x-user"},
        "variants": [{"name": "v1", "weight": v1}, {"name": "v2", "weight": v2}, {"name": "v3", "weight": v3}]}]})
}

/// The variants of `users` over several connections, so that several workers answer.
fn variants(addresses: &[std::net::SocketAddr], users: usize) -> Result<Vec<Vec<String>>> {
    let mut replicas = Vec::new();
    for address in addresses {
        let mut connections = Vec::new();
        for protocol in Protocol::ALL.repeat(8) {
            connections.push(Connection::open(protocol, *address)?);
        }
        let count = connections.len();
        let mut variants = Vec::new();
        for user in 0..users {
            let connection = connections.get_mut(user * 7 % count).ok_or_else(|| anyhow!("no connection"))?;
            variants.push(connection.request(&Request::get("/").header("x-user", format!("user-{user}")))?.text());
        }
        replicas.push(variants);
    }
    Ok(replicas)
}

#[test]
fn two_replicas_with_four_workers_each_agree_on_every_key() -> Result<()> {
    const USERS: usize = 10_000;
    let policy = reviews([50, 30, 20]);
    let names = ["v1", "v2", "v3"];
    let start = |module: &str| Bootstrap::module(module, &policy, &names)?.concurrency(4).start();
    let mut replicas = [start("suite")?, start("canary")?];
    let [one, other] = &variants(&[replicas[0].ingress()?, replicas[1].ingress()?], USERS)?[..] else {
        return Err(anyhow!("two replicas"));
    };
    assert_eq!(one, other);
    // The golden vectors of the engine, from OpenSSL and Python: see `canaries/tests.rs`.
    let golden = "311212311221122111121121112121311213133123121131131112131121";
    let begin: String = one.iter().take(60).map(|variant| variant.trim_start_matches('v')).collect();
    assert_eq!(begin, golden);
    for (name, share) in names.into_iter().zip([0.5, 0.3, 0.2]) {
        let count = one.iter().filter(|variant| *variant == name).count() as f64 / USERS as f64;
        assert!((count - share).abs() < 0.02, "{name}: {count}");
    }
    replicas.iter_mut().try_for_each(|envoy| envoy.check_healthy())
}

#[test]
fn nobody_changes_variant_while_the_policy_is_reloaded() -> Result<()> {
    let policy = |route: &str| {
        let mut policy = reviews([50, 30, 20]);
        policy["routes"] = json!({"rules": [{"name": "admin", "route": route,
            "matches": [{"path": {"type": "PathPrefix", "value": "/admin"}}]}]});
        policy
    };
    let mut envoy = Bootstrap::suite(&policy("a"), &["v1", "v2", "v3", "a", "b"])?.concurrency(2).start()?;
    let address = envoy.ingress()?;
    let mut traffic = Vec::new();
    for user in 0..4 {
        let request = Request::get("/").header("x-user", format!("user-{user}"));
        let expected = http::send(Protocol::Http1, address, &request)?.text();
        traffic.push(Traffic::start(1, address, &request, move |response: &Response| {
            ensure!(response.text() == expected, "{} instead of {expected}", response.text());
            Ok(())
        }));
    }
    for route in ["b", "a", "b", "a"] {
        envoy.must_reload("penstock", policy(route))?;
    }
    for traffic in traffic {
        let tally = traffic.stop()?;
        assert!(tally.failures.is_empty() && tally.good > 20, "{tally:?}");
    }
    envoy.check_healthy()
}

#[test]
fn a_new_user_gets_a_cookie_with_an_id_and_keeps_its_variant() -> Result<()> {
    let policy = json!({"canaries": [{"name": "shop", "stickiness": {"cookie": {"name": "penstock-id"}},
        "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 1}]}]});
    let mut envoy = Bootstrap::module("canary", &policy, &["v1", "v2"])?.concurrency(2).start()?;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        for protocol in Protocol::ALL {
            let first = http::send(protocol, envoy.ingress()?, &Request::get("/"))?;
            let cookies: Vec<String> = first.values("set-cookie").collect();
            let [cookie] = &cookies[..] else { return Err(anyhow!("{cookies:?}")) };
            let (pair, attributes) = cookie.split_once("; ").ok_or_else(|| anyhow!("{cookie}"))?;
            assert_eq!(attributes, "Path=/; Max-Age=86400; HttpOnly; SameSite=Lax");
            assert!(seen.insert(pair.to_owned()), "{pair} twice");
            let request = Request::get("/").header("cookie", pair);
            let next = http::send(protocol, envoy.ingress()?, &request)?;
            assert_eq!(next.text(), first.text());
            assert_eq!(next.values("set-cookie").count(), 0);
        }
    }
    envoy.check_healthy()
}

#[test]
fn behind_a_header_routing_filter_rules_win_defaults_give_way_and_clients_cannot_lie() -> Result<()> {
    let routing = json!({"routes": {"default": "stable", "rules": [
        {"name": "beta", "route": "beta", "matches": [{"headers": [{"name": "x-group", "value": "beta"}]}]}]}});
    let canary = json!({"canaries": [{"name": "shop", "matches": [{"path": {"type": "PathPrefix", "value": "/shop"}}],
        "variants": [{"name": "v2", "weight": 1}]}]});
    let names = ["stable", "beta", "v2"];
    let listener = |filters: &[WasmFilter]| {
        let listener = filters.iter().fold(Listener::new("ingress"), |listener, filter| listener.wasm(filter));
        listener.routes_named(&names).route(Route::any().answers(200, "none"))
    };
    let chain = [WasmFilter::new("header-routing", &routing)?, WasmFilter::new("canary", &canary)?];
    let alone = WasmFilter::new("canary", &canary)?;
    for (filters, rows) in [
        (
            &chain[..],
            [
                ("/shop", "", "", "v2"),
                ("/shop", "beta", "", "beta"),
                ("/", "", "beta", "stable"),
                ("/", "beta", "v2", "beta"),
                ("/shop", "", "beta", "v2"),
            ],
        ),
        (
            std::slice::from_ref(&alone),
            [
                ("/shop", "", "", "v2"),
                ("/shop", "beta", "", "v2"),
                ("/", "", "beta", "none"),
                ("/", "beta", "v2", "none"),
                ("/shop", "", "beta", "v2"),
            ],
        ),
    ] {
        let mut envoy = Bootstrap::new()?.listener(listener(filters)).start()?;
        for (path, group, spoofed, route) in rows {
            for protocol in Protocol::ALL {
                let mut request = Request::get(path).header("x-group", group);
                if !spoofed.is_empty() {
                    request = request.header("x-penstock-route", spoofed);
                }
                let answer = http::send(protocol, envoy.ingress()?, &request)?.text();
                assert_eq!(answer, route, "{protocol} {path} {group} {spoofed}, {} filters", filters.len());
            }
        }
        envoy.check_healthy()?;
    }
    Ok(())
}

#[test]
fn a_variant_that_starts_to_fail_is_taken_out_under_load() -> Result<()> {
    const MINIMUM: usize = 50;
    let policy = json!({"canaries": [{"name": "shop", "variants": [{"name": "v1", "weight": 50}, {"name": "v2", "weight": 50}],
        "rollback": {"variant": "v2", "to": "v1", "window": "60s", "minRequests": MINIMUM, "errorPercent": 5}}]});
    let broken = Arc::new(AtomicBool::new(false));
    let stable = Upstream::forgetful(|_| Reply::Status(200, vec![]))?;
    let failing = Upstream::forgetful({
        let broken = Arc::clone(&broken);
        move |_| Reply::Status(if broken.load(Ordering::SeqCst) { 503 } else { 200 }, vec![])
    })?;
    let route = |name: &str| Route::named(name).to(name);
    let listener =
        Listener::new("ingress").wasm(&WasmFilter::new("suite", &policy)?).route(route("v1")).route(route("v2"));
    let mut envoy = Bootstrap::new()?
        .cluster("v1", stable.address())
        .cluster("v2", failing.address())
        .concurrency(4)
        .listener(listener)
        .start()?;
    let traffic = Traffic::start(8, envoy.ingress()?, &Request::get("/"), |_| Ok(()));
    std::thread::sleep(Duration::from_secs(2));
    assert!(failing.requests() > 100, "only {} requests", failing.requests());
    broken.store(true, Ordering::SeqCst);
    let before = failing.requests();
    let start = Instant::now();
    let mut taken_out = None;
    while start.elapsed() < Duration::from_secs(10) {
        if envoy.log()?.contains("all go to v1") {
            taken_out = Some(start.elapsed());
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let taken_out = taken_out.ok_or_else(|| anyhow!("never taken out"))?;
    // Fifty milliseconds later every worker knows.
    std::thread::sleep(Duration::from_millis(200));
    let failed = failing.requests() - before;
    let after = failing.requests();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(failing.requests(), after, "requests go on to the variant that was taken out");
    println!("taken out after {} ms, {failed} requests failed", taken_out.as_millis());
    assert!(failed >= MINIMUM, "{failed}");
    traffic.stop()?;
    envoy.check_healthy()
}
