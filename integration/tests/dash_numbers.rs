//! `penstock dash` against Envoy's own counters, and against Envoys that do not run the expected policy.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Dash, Envoy, Listener, Route, Upstream, UpstreamReply, WasmFilter};
use serde_json::{Value, json};

fn source(envoy: &Envoy) -> String {
    format!("east=http://{}", envoy.admin().address())
}

fn list<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    value[field].as_array().into_iter().flatten()
}

/// The sum of each outcome of a section, according to the page and according to Envoy.
fn outcomes(snapshot: &Value, envoy: &Envoy, field: &str, rule: &str) -> Result<Vec<(String, u64, u64)>> {
    let one = list(snapshot, field).find(|one| one["name"] == rule);
    let shown = one.and_then(|one| one["outcomes"].as_object()).cloned().unwrap_or_default();
    shown
        .into_iter()
        .map(|(outcome, rate)| {
            let stat = format!("wasmcustom.penstock.requests_total.section.{field}.rule.{rule}.outcome.{outcome}");
            Ok((outcome, rate["total"].as_u64().unwrap_or_default(), envoy.admin().stat(&stat)?))
        })
        .collect()
}

fn plugin<'v>(snapshot: &'v Value, label: &str) -> Option<&'v Value> {
    list(&snapshot["topology"], "nodes").find(|node| node["kind"] == "listener" && node["label"] == label)
}

#[test]
fn the_numbers_of_a_listener_on_the_page_are_envoys_counters() -> Result<()> {
    let policy = json!({
        "rateLimits": [
            {"name": "a", "key": [{"header": "x-user"}], "limit": {"requests": 12, "per": "1h"}},
            {"name": "b", "key": [], "limit": {"requests": 1_000, "per": "1h"}}],
        "routes": {"default": "stable", "rules": [
            {"name": "beta", "matches": [{"headers": [{"name": "x-beta", "value": "1"}]}], "route": "beta"}]},
        "canaries": [{"name": "shop", "matches": [{"path": {"type": "PathPrefix", "value": "/shop"}}],
            "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 1}]}]});
    let envoy = Bootstrap::suite(&policy, &[])?.start()?;
    let dash = Dash::start(&["--envoy", &source(&envoy)])?;
    let before = dash.wait_for("east", |snapshot| snapshot["endpoints"][0]["alive"] == true)?;
    ensure!(before["windowSeconds"] == 30.0, "{before}");

    let requests = || envoy.admin().stat("http.ingress.downstream_rq_total");
    let (address, began) = (envoy.ingress()?, requests()?);
    // Both limits count each of the 40 requests, and so do routes or canaries: added up, that would be 120.
    for number in 0..40 {
        let path = if number % 4 == 0 { "/shop" } else { "/" };
        let user = format!("user-{}", number % 2);
        let request =
            HttpRequest::new("GET", "a.test", path).header("x-user", user).header("x-beta", (number % 3).to_string());
        http::send(Protocol::Http1, address, &request)?;
        thread::sleep(Duration::from_millis(20));
    }
    let own = requests()? - began;
    ensure!(own == 40, "{own}");
    let rules = [("rateLimits", "a"), ("rateLimits", "b"), ("routes", "beta"), ("routes", "_default")];
    let snapshot = dash.wait_for("east", |snapshot| {
        let agrees = |(field, rule): (&str, &str)| {
            let found = outcomes(snapshot, &envoy, field, rule).unwrap_or_default();
            !found.is_empty() && found.iter().all(|(_, shown, own)| shown == own)
        };
        // The modules count once a second.
        let decided = ["passed", "limited"].map(|outcome| total(snapshot, "rateLimits", "a", outcome));
        plugin(snapshot, "penstock").is_some_and(|node| node["requests"] == own)
            && decided == [24, 16]
            && rules.into_iter().all(agrees)
    })?;
    let variants: u64 =
        list(&snapshot["canaries"][0], "variants").filter_map(|variant| variant["total"].as_u64()).sum();
    let counted = envoy.admin().stats("penstock.variant_requests_total.rule.shop")?;
    ensure!(variants == counted.iter().map(|(_, count)| count).sum::<u64>() && variants > 0, "{variants} {counted:?}");
    // 16 of the 40 exceed the limits of two users; the page shows the total beside the percentage.
    let texts: Vec<&str> = list(&snapshot, "problems").filter_map(|problem| problem["text"].as_str()).collect();
    ensure!(
        texts
            .iter()
            .any(|text| text.starts_with("Limit a: ") && text.ends_with("40 % of its requests (16 of 40 in 30 s)")),
        "{texts:?}"
    );
    // A rate is the mean over the observed time, at most half a minute.
    let rate = plugin(&snapshot, "penstock").unwrap()["requestsPerSecond"].as_f64().unwrap();
    ensure!((40.0 / 30.0..=40.0).contains(&rate), "{rate}");
    Ok(())
}

/// What the page says of a rule's outcome since the dash started.
fn total(snapshot: &Value, field: &str, rule: &str, outcome: &str) -> u64 {
    let one = list(snapshot, field).find(|one| one["name"] == rule);
    one.and_then(|one| one["outcomes"][outcome]["total"].as_u64()).unwrap_or_default()
}

#[test]
fn numbers_stay_those_of_envoy_after_a_restart_with_two_filters_and_a_route_without_one() -> Result<()> {
    let first = json!({"rateLimits": [{"name": "all", "key": [], "limit": {"requests": 1_000, "per": "1h"}}]});
    let second = json!({"routes": {"default": "stable"}});
    let filter =
        |name: &str, policy: &Value| Ok::<_, anyhow::Error>(WasmFilter::new("suite", policy.clone())?.named(name));
    let (first, second) = (filter("first", &first)?, filter("second", &second)?);
    let start = || -> Result<Envoy> {
        let listener = Listener::new("ingress").wasm(&first).wasm(&second);
        let plain = Route::header("x-plain", "1").answers(200, "plain\n").without("second");
        Bootstrap::new()?.listener(listener.route(plain).route(Route::any().answers(200, "fine\n"))).start()
    };
    let send = |envoy: &Envoy, times: usize, plain: usize| -> Result<()> {
        for number in 0..times {
            let is_plain = if number < plain { "1" } else { "0" };
            let request = HttpRequest::get("/").header("x-plain", is_plain);
            ensure!(http::send(Protocol::Http1, envoy.ingress()?, &request)?.status == 200);
        }
        Ok(())
    };
    let old = start()?;
    // The address of an admin interface behind which Envoy is restarted.
    let address = Arc::new(Mutex::new(Some(old.admin().address())));
    let admin = Upstream::forgetful({
        let address = Arc::clone(&address);
        move |request| {
            let page = address.lock().unwrap().and_then(|at| {
                let answer = http::send(Protocol::Http1, at, &HttpRequest::new("GET", "localhost", &request.path()));
                answer.ok().filter(|answer| answer.status == 200)
            });
            page.map_or(UpstreamReply::Status(503, Vec::new()), |page| UpstreamReply::Json(page.json()))
        }
    })?;
    let dash = Dash::start(&["--envoy", &format!("east=http://{}", admin.address())])?;
    // The only thing that it warns of is the route without the second filter.
    let is_known = |snapshot: &Value| {
        let warnings: Vec<_> = list(snapshot, "problems").filter_map(|one| one["text"].as_str()).collect();
        snapshot["health"]["state"] == "warning"
            && snapshot["health"]["unknown"] == json!([])
            && matches!(warnings[..], [one] if one.contains("requests of this route pass without the filter"))
    };
    dash.wait_for("east", is_known)?;
    send(&old, 10, 3)?;
    let requests = |snapshot: &Value, name: &str| plugin(snapshot, name).and_then(|node| node["requests"].as_u64());
    // Both filters see the listener's requests, and the second only decides those of routes that have it.
    let counts = |snapshot: &Value, all: u64, routed: u64| {
        total(snapshot, "rateLimits", "all", "passed") == all
            && total(snapshot, "routes", "_default", "matched") == routed
    };
    dash.wait_for("east", |snapshot| {
        counts(snapshot, 10, 7) && ["first", "second"].into_iter().all(|name| requests(snapshot, name) == Some(10))
    })?;
    let counted = |envoy: &Envoy, section: &str, rule: &str, outcome: &str| {
        let stat = format!("wasmcustom.penstock.requests_total.section.{section}.rule.{rule}.outcome.{outcome}");
        envoy.admin().stat(&stat)
    };
    ensure!(
        counted(&old, "rateLimits", "all", "passed")? == 10 && counted(&old, "routes", "_default", "matched")? == 7
    );

    // While it is down, nothing is said to be well; then its counters begin at zero.
    *address.lock().unwrap() = None;
    drop(old);
    let down = dash.wait_for("east", |snapshot| snapshot["endpoints"][0]["alive"] == false)?;
    ensure!(down["health"]["state"] == "error" && counts(&down, 10, 7), "{down:#}");
    let new = start()?;
    *address.lock().unwrap() = Some(new.admin().address());
    let started = dash.wait_for("east", |snapshot| snapshot["endpoints"][0]["alive"] == true)?;
    ensure!(
        !is_known(&started) || started["endpoints"][0]["plugins"].as_array().is_some_and(|all| all.len() == 2),
        "{started:#}"
    );
    send(&new, 5, 1)?;
    dash.wait_for("east", |snapshot| is_known(snapshot) && counts(snapshot, 15, 11))?;
    let own = new.admin().stat("http.ingress.downstream_rq_total")?;
    ensure!(own == 5 && counted(&new, "routes", "_default", "matched")? == 4, "{own}");
    Ok(())
}

#[test]
fn two_plugins_with_the_same_name_are_separate_and_not_drift() -> Result<()> {
    let filter = |route: &str| {
        let policy = json!({"routes": {"default": route}});
        Ok::<_, anyhow::Error>(WasmFilter::new("suite", policy)?.named("penstock"))
    };
    let listener =
        |name: &str, filter: &WasmFilter| Listener::new(name).wasm(filter).route(Route::any().answers(200, "fine\n"));
    let envoys = (0..2)
        .map(|_| {
            Bootstrap::new()?
                .listener(listener("one", &filter("stable")?))
                .listener(listener("two", &filter("beta")?))
                .start()
        })
        .collect::<Result<Vec<Envoy>>>()?;
    let dash = Dash::start(&["--envoy", &source(&envoys[0]), "--envoy", &source(&envoys[1])])?;
    dash.wait_for("east", |snapshot| list(snapshot, "endpoints").all(|one| one["alive"] == true))?;
    for (listener, times) in [("one", 3), ("two", 7)] {
        for _ in 0..times {
            http::send(Protocol::Http1, envoys[0].address(listener)?, &HttpRequest::get("/"))?;
        }
    }
    let snapshot = dash.wait_for("east", |snapshot| {
        let requests = |label: &str| plugin(snapshot, label).map(|node| node["requests"].clone());
        requests("penstock (one)") == Some(json!(3)) && requests("penstock (two)") == Some(json!(7))
    })?;
    let kinds: Vec<&str> = list(&snapshot, "problems").filter_map(|problem| problem["kind"].as_str()).collect();
    ensure!(kinds == ["sharedName"], "{snapshot:#}");
    let drift: Vec<_> =
        list(&snapshot, "drift").map(|one| (one["plugin"].as_str().unwrap(), list(one, "hashes").count())).collect();
    ensure!(drift == [("penstock (one)", 1), ("penstock (two)", 1)], "{drift:?}");
    Ok(())
}

#[test]
fn a_proxy_that_does_not_run_its_policy_is_an_error() -> Result<()> {
    let plain =
        Bootstrap::new()?.listener(Listener::new("ingress").route(Route::any().answers(200, "fine\n"))).start()?;
    let refused = Bootstrap::suite(&json!({"routes": 1}), &[])?.may_refuse().start()?;
    let mut replaced = Bootstrap::suite(&json!({"routes": {"default": "stable"}}), &[])?.start()?;
    let dash = Dash::start(&["--envoy", &source(&plain), "--envoy", &source(&refused), "--envoy", &source(&replaced)])?;
    let has = |snapshot: &Value, envoy: &Envoy, kind: &str| {
        let rule = envoy.admin().address().to_string();
        list(snapshot, "problems").any(|one| one["kind"] == kind && one["rule"] == rule && one["severity"] == "error")
    };
    dash.wait_for("east", |snapshot| {
        has(snapshot, &plain, "filterMissing")
            && has(snapshot, &refused, "filterSilent")
            && !has(snapshot, &replaced, "filterMissing")
    })?;
    replaced.reload("penstock", json!({"routes": 1}))?;
    let snapshot = dash.wait_for("east", |snapshot| has(snapshot, &replaced, "policyRefused"))?;
    let trouble = |envoy: &Envoy| {
        let name = envoy.admin().address().to_string();
        list(&snapshot, "endpoints").find(|one| one["name"] == name).map(|one| one["trouble"].clone())
    };
    ensure!(trouble(&plain) == Some(json!("no Penstock filter")), "{snapshot:#}");
    ensure!(
        trouble(&refused) == Some(json!("filter reports nothing"))
            && trouble(&replaced) == Some(json!("policy refused")),
        "{snapshot:#}"
    );
    Ok(())
}
