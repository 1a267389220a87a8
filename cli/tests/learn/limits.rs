//! `penstock learn limits`.

use serde_json::{Value, json};

use crate::common::penstock_in;
use crate::generator::at;

/// A hundred keys with ten requests a minute, and one with a thousand.
fn lines() -> String {
    let mut lines = Vec::new();
    for minute in 0..20 {
        for key in 0..100 {
            lines.extend((0..10).map(|n| (minute * 60 + n * 6, format!("secret-key-{key:03}"))));
        }
        lines.extend((0..1000).map(|n| (minute * 60 + n / 20, "secret-scraper".to_owned())));
    }
    lines.sort();
    let line = |(time, key): &(u64, String)| json!({"method": "GET", "authority": "a.test", "path": "/", "headers": [["x-api-key", key]], "time": at(*time)});
    lines.iter().map(|entry| format!("{}\n", line(entry))).collect::<String>()
        + "{\"method\":\"GET\",\"authority\":\"a.test\",\"path\":\"/\"}\n"
}

#[test]
fn the_rate_suits_most_keys_and_says_who_would_have_been_refused() {
    let folder = tempfile::tempdir().unwrap();
    let learn = ["learn", "limits", "--key", "header:x-api-key", "--report", "report.json"];
    let run = penstock_in(folder.path(), &learn, &lines());
    assert_eq!(run.status, 0, "{}", run.err);
    assert!(run.out.contains("limit: {requests: 15, per: \"1m\"}"), "{}", run.out);
    assert!(run.err.contains("1 key would have been refused") && run.err.contains("secr…#"), "{}", run.err);
    assert!(!run.err.contains("secret-"), "{}", run.err);
    assert!(run.err.contains("1 requests have no key"), "{}", run.err);
    let report: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(
        (&report["busiest"]["p99"], &report["busiest"]["max"], &report["limit"]),
        (&json!(10), &json!(1000), &json!(15))
    );
    // A replay with the limit refuses the same number.
    std::fs::write(folder.path().join("limits.yaml"), run.out.replace("mode: Shadow", "mode: Enforce")).unwrap();
    let replay = penstock_in(folder.path(), &["replay", "limits.yaml"], &lines());
    let refused = replay.out.lines().filter(|line| line.contains("\"status\":429")).count();
    assert_eq!(report["refusedRequests"], refused);
}

#[test]
fn keys_and_logs_that_make_no_limit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], input: &str| {
        penstock_in(folder.path(), &[&["learn", "limits"], arguments].concat(), input)
    };
    for (arguments, message) in [
        (&["--key", "claim"][..], "header:NAME"),
        (&["--key", "header"], "header:NAME"),
        (&["--key", "header:x y"], "x y"),
        (&["--key", "header:other"], "no request has the key and a time"),
        (&["--key", "peer", "--per", "1y"], "not a duration"),
        (&["--key", "path", "--percentile", "0"], "--percentile"),
        (&[], "--key"),
    ] {
        let run = run(arguments, &lines());
        assert_eq!(run.status, 2, "{arguments:?} {}", run.out);
        assert!(run.err.contains(message), "{arguments:?}: {}", run.err);
    }
    assert_eq!(run(&["--key", "path", "--key", "method"], &lines()).status, 0);
}
