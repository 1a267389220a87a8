//! An access log in a file that a real Envoy writes: the file is rotated and truncated, and others write to it.

use std::fs::{self, File};
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use penstock_integration::demo::json::of_yaml;
use penstock_integration::{Bootstrap, Dash, Listener, PATIENCE, Route, WasmFilter, workspace};
use serde_json::{Value, json};

use super::feed::{get, send};

#[test]
fn a_log_of_envoy_is_followed_when_it_is_rotated_cut_and_written_into_by_others() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("access.log");
    let shipped = fs::read_to_string(workspace::root().join("observability/envoy-access-log.yaml"))?;
    let own = shipped.replace("path: /dev/stdout", &format!("path: {}", path.display()));
    ensure!(own != shipped, "{shipped}");
    let own: Value = serde_json::from_str(&of_yaml(&own)?)?;
    let policy = json!({
        "settings": {"filterState": true},
        "egress": {"rules": [{"name": "cards", "owner": "payments", "methods": ["GET"], "to": [{"host": "cards.example.com", "ports": [80]}]}]},
        "rateLimits": [{"name": "soft", "key": [], "limit": {"requests": 1, "per": "1h"}, "mode": "Shadow"}]});
    let mut bootstrap = Bootstrap::new()?;
    let filter = bootstrap.discovered(WasmFilter::new("suite", policy)?.named("penstock"))?;
    let listener = Listener::new("ingress").discovered(filter).manager("access_log", own["access_log"].clone());
    let mut envoy = bootstrap.listener(listener.route(Route::any().answers(200, "fine\n"))).start()?;
    let at = envoy.address("ingress")?;
    let dash = Dash::start(&[format!("--tail=east={}", path.display())])?;
    let wait_for = |what: &str, wanted: &dyn Fn(&Value) -> bool| -> Result<Value> {
        let started = Instant::now();
        loop {
            let answer = dash.get("/api/v1/clusters/east/decisions?outcome=refusals", None)?.json();
            if wanted(&answer) {
                return Ok(answer);
            }
            ensure!(started.elapsed() < PATIENCE, "never {what}: {answer:#}");
            thread::sleep(Duration::from_millis(100));
        }
    };
    let has = |host: &str| {
        let host = format!("{host}.example.net");
        move |answer: &Value| {
            answer["decisions"].as_array().is_some_and(|list| list.iter().any(|one| one["host"] == host.as_str()))
        }
    };
    let refuse = |host: &str| -> Result<()> {
        ensure!(send(at, &get(&format!("{host}.example.net"), "/x?secret"))? == 403);
        Ok(())
    };

    refuse("first")?;
    let answer = wait_for("the first line", &has("first"))?;
    let first = &answer["decisions"][0];
    ensure!(
        (&first["section"], &first["reason"], &first["path"])
            == (&json!("egress"), &json!("hostNotAllowed"), &json!("/x")),
        "{first}"
    );
    // A request that exceeds a limit in mode Shadow is shown with its rule, too.
    for _ in 0..2 {
        ensure!(send(at, &get("cards.example.com:80", "/"))? == 200);
    }
    wait_for("what was held back", &|answer| {
        let decisions = answer["decisions"].as_array().into_iter().flatten();
        decisions
            .into_iter()
            .any(|one| one["outcome"] == "heldBack" && one["rule"] == "soft" && one["reason"] == "limited")
    })?;

    // Rotated as logrotate does: Envoy writes to the old file until it is told to reopen its logs.
    fs::rename(&path, folder.path().join("access.log.1"))?;
    File::create(&path)?;
    refuse("between")?;
    wait_for("a line of the old file", &has("between"))?;
    envoy.admin().post("/reopen_logs")?;
    refuse("rotated")?;
    wait_for("a line of the new file", &has("rotated"))?;

    // Another program writes junk and a line that is too long.
    let mut other = File::options().append(true).open(&path)?;
    other.write_all(&[0xff, 0xfe, 0, b'\n'])?;
    other.write_all(&[b"{\"method\": \"".as_slice(), &vec![b'x'; 200_000], b"\n"].concat())?;
    let answer = wait_for("the unreadable lines", &|answer| answer["unreadable"].as_u64() >= Some(2))?;
    ensure!(answer["unreadable"] == 2, "{answer:#}");
    refuse("after-junk")?;
    wait_for("a line after the junk", &has("after-junk"))?;

    // Truncated, as `copytruncate` of logrotate does.
    let length = fs::metadata(&path)?.len();
    File::options().write(true).open(&path)?.set_len(0)?;
    thread::sleep(Duration::from_millis(500));
    refuse("cut")?;
    let answer = wait_for("a line after the cut", &has("cut"))?;
    ensure!(fs::metadata(&path)?.len() < length, "Envoy does not append");
    // Each line is shown once.
    let hosts: Vec<&str> =
        answer["decisions"].as_array().context("no list")?.iter().filter_map(|one| one["host"].as_str()).collect();
    let of = |host: &str| hosts.iter().filter(|one| one.starts_with(host)).count();
    ensure!(["first", "between", "rotated", "after-junk", "cut"].map(of) == [1; 5], "{hosts:?}");
    envoy.check_healthy()
}
