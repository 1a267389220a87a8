//! The promises of `penstock learn` for any small log.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::learn;

/// A request made of few names, which therefore often match.
fn request() -> impl Strategy<Value = Value> {
    let callers =
        prop_oneof![1 => Just(None), 8 => Just(Some("spiffe://c/ns/a/sa/a")), 3 => Just(Some("spiffe://c/ns/b/sa/b"))];
    let hosts = prop::sample::select(vec![
        "a.x.test",
        "b.x.test",
        "c.x.test",
        "A.x.test.",
        "d.x.test:443",
        "e.x.test",
        "y.test",
        "10.0.0.1",
        "y.test:8443",
    ]);
    let paths = prop::sample::select(vec![
        "/",
        "/v1",
        "/v1/",
        "/v1/users",
        "/v1/users/17",
        "/v1/users/42/x",
        "/v1//users?q",
        "/v2/%41",
        "/v2/..",
        "/%2f",
        "/a;b",
    ]);
    let methods = prop::sample::select(vec!["GET", "GET", "GET", "POST"]);
    (callers, hosts, paths, methods, 0u64..8 * 24).prop_map(|(caller, host, path, method, hour)| {
        let mut request = json!({"method": method, "scheme": "https", "authority": host, "path": path,
            "time": format!("2026-11-{:02}T{:02}:00:00Z", 1 + hour / 24, hour % 24)});
        if let Some(caller) = caller {
            request["peer"] = json!(caller);
        }
        request
    })
}

fn lines<'r>(requests: impl Iterator<Item = &'r Value>) -> String {
    requests.map(|request| format!("{request}\n")).collect()
}

const OPTIONS: [&str; 6] = ["--min-requests", "3", "--min-days", "2", "--star-above", "2"];

fn host(request: &Value) -> String {
    let host = request["authority"].as_str().unwrap().to_ascii_lowercase();
    host.trim_end_matches(":443").trim_end_matches('.').to_owned()
}

fn parent(request: &Value) -> String {
    host(request).split_once('.').map_or(String::new(), |(_, parent)| parent.to_owned())
}

/// Whether the documented generalisations explain that `request` passes: its caller requested this host, or more than
/// two names beside it, with this method; and requested this path, or one that is equal up to an id.
fn is_explained(request: &Value, log: &[Value]) -> bool {
    let segments = |request: &Value| {
        let path = request["path"].as_str().unwrap().split('?').next().unwrap().replace("//", "/").replace("%41", "A");
        let path = path.replace("/v2/..", "/").replace(";b", "");
        path.split('/').map(str::to_owned).collect::<Vec<_>>()
    };
    let reaches = |seen: &Value| {
        let (seen, asked) = (segments(seen), segments(request));
        let id = seen.iter().position(|segment| segment.parse::<u32>().is_ok());
        seen == asked || id.is_some_and(|id| asked.len() >= id && seen[..id] == asked[..id])
    };
    let own: Vec<&Value> = log
        .iter()
        .filter(|seen| seen["peer"].is_null() || seen["peer"] == request["peer"])
        .filter(|seen| host(seen) == host(request) || parent(seen) == parent(request))
        .collect();
    own.iter().any(|seen| seen["method"] == request["method"]) && own.iter().any(|seen| reaches(seen))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_promises_hold(log in prop::collection::vec(request(), 1..500), probes in prop::collection::vec(request(), 40)) {
        let learned = learn(&lines(log.iter()), &OPTIONS);
        let allowed: Vec<&Value> = log.iter().filter(|request| learned.allows(request)).collect();
        prop_assert_eq!(&learned.report["covered"], allowed.len(), "{}", learned.text);
        for probe in &probes {
            prop_assert!(!learned.allows(probe) || is_explained(probe, &log), "{}\n{}", probe, learned.text);
        }
        // A fixed point.
        let again = learn(&lines(allowed.iter().copied()), &OPTIONS);
        let rules = |text: &str| text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        prop_assert_eq!(rules(&again.text), rules(&learned.text));
        // More requests only add rules.
        let (part, _) = log.split_at(log.len() / 2);
        let before = learn(&lines(part.iter()), &OPTIONS);
        for request in log.iter().chain(&probes).filter(|request| before.allows(request)) {
            prop_assert!(learned.allows(request), "{}\n{}\n{}", request, before.text, learned.text);
        }
        // Rule names are unique, and a check has no warnings about the policy.
        let names: std::collections::BTreeSet<String> =
            learned.report["rules"].as_array().unwrap().iter().map(|rule| rule["name"].to_string()).collect();
        prop_assert_eq!(names.len(), learned.count());
    }
}
