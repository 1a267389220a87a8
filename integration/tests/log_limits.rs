//! The number of log lines that a plugin writes during a flood of requests, and that another plugin's lines are not
//! lost.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Listener, PATIENCE, Route, Traffic, WasmFilter};
use serde_json::json;

#[test]
fn a_flood_of_refusals_at_one_plugin_fills_no_log_and_silences_no_other_plugin() -> Result<()> {
    let mut bootstrap = Bootstrap::new()?.concurrency(1);
    for name in ["flooded", "other"] {
        let filter = WasmFilter::new("suite", json!({"egress": {"rules": []}}))?.named(name);
        bootstrap = bootstrap.listener(Listener::new(name).wasm(&filter).route(Route::any()));
    }
    let mut envoy = bootstrap.start()?;
    let flood = HttpRequest::get("/").at("flood.example.com");
    let started = Instant::now();
    let traffic = Traffic::start(8, envoy.address("flooded")?, &flood, |response| {
        ensure!(response.status == 403, "{response:?}");
        Ok(())
    });
    traffic.wait_for(1000)?;
    let answer = http::send(Protocol::Http1, envoy.address("other")?, &HttpRequest::get("/").at("other.example.com"))?;
    assert_eq!(answer.status, 403);
    let tally = traffic.stop()?;
    ensure!(tally.failures.is_empty(), "{tally:?}");
    // The line that reports how many lines were suppressed comes with the first line of the next second.
    thread::sleep(Duration::from_millis(1100));
    http::send(Protocol::Http1, envoy.address("flooded")?, &flood)?;
    let seconds = started.elapsed().as_secs() + 2;
    let lines = |text: &str| -> Result<usize> {
        Ok(envoy.log()?.lines().filter(|line| line.contains(text) && line.contains("\"egress\"")).count())
    };
    let deadline = Instant::now() + PATIENCE;
    while lines("other.example.com")? == 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(lines("other.example.com")?, 1, "the flood of one plugin silenced another");
    let written = lines("flood.example.com")?;
    println!("{} refusals in {seconds} s, {written} lines", tally.good);
    assert!(written <= 100 * usize::try_from(seconds)?, "{written} lines in {seconds} s");
    if tally.good > 100 * usize::try_from(seconds)? {
        assert!(lines("notLogged")? > 0, "nothing says how many lines were left out");
    }
    envoy.check_healthy()
}
