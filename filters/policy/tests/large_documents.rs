//! A policy loads, or is refused, in time and memory linear in its size, whatever is written in it.
//!
//! Each document is read at two sizes, one four times the other: what is linear takes four times as long, what is
//! quadratic sixteen times.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::time::{Duration, Instant};

use penstock_policy::document::{Node, Problems};
use penstock_policy::{Module, Policy, check};

const SMALL: usize = 4_000;
const LARGE: usize = 4 * SMALL;

/// `n` times what `entry` makes, with commas between.
fn list(n: usize, entry: impl Fn(usize) -> String) -> String {
    (0..n).map(entry).collect::<Vec<_>>().join(",")
}

/// Problems of a document, read both ways: from text, as a module does, and from a tree, as the command line does.
fn problems(json: &str) -> Option<Problems> {
    let module = Policy::<penstock_policy::module::Suite>::from_json(json.as_bytes()).err();
    if let Ok(node) = Node::from_json(json.as_bytes()) {
        assert_eq!(check(&node, Module::Suite).err(), module);
    }
    module
}

/// The least of three times.
fn time(json: &str) -> Duration {
    let once = || {
        let start = Instant::now();
        std::hint::black_box(problems(json));
        start.elapsed()
    };
    (0..3).map(|_| once()).min().unwrap()
}

/// Whether the time is linear, and at most 50 problems are kept of so many as `expected` says.
fn is_linear(name: &str, document: impl Fn(usize) -> String, expected: impl Fn(usize) -> usize) {
    let (small, large) = (document(SMALL), document(LARGE));
    let found = problems(&large);
    let count = found.as_ref().map_or(0, |problems| problems.as_slice().len() + problems.more());
    assert_eq!(count, expected(LARGE), "{name}: {found:?}");
    if let Some(problems) = found {
        assert!(problems.as_slice().len() <= Problems::SHOWN, "{name}");
        assert!(problems.to_string().len() < 100_000, "{name}: {} bytes", problems.to_string().len());
    }
    let both = || (time(&small), time(&large));
    let (mut small, mut large) = both();
    // Other work of the machine only makes times longer.
    for _ in 0..4 {
        if large < small * 9 + Duration::from_millis(100) {
            break;
        }
        let more = both();
        (small, large) = (small.min(more.0), large.min(more.1));
    }
    assert!(large < small * 9 + Duration::from_millis(100), "{name}: {small:?}, four times as large {large:?}");
}

#[test]
fn an_object_of_many_keys_is_read_in_linear_time() {
    is_linear("unknown", |n| format!("{{{}}}", list(n, |i| format!(r#""k{i}":0"#))), |n| n);
    is_linear("repeated", |n| format!("{{{}}}", list(n, |_| r#""routes":{}"#.to_owned())), |n| n - 1);
}

#[test]
fn a_list_of_many_mistakes_is_read_in_linear_time() {
    let rules = |entry: &'static str| {
        move |n| format!(r#"{{"egress":{{"rules":[{}]}}}}"#, list(n, |i| entry.replace('#', &i.to_string())))
    };
    is_linear("numbers", rules("5"), |n| n);
    is_linear("fields", rules(r##"{"name":"r#","to":[{"host":"a.test"}],"form":1}"##), |n| n);
    is_linear("one name", rules(r#"{"name":"r","to":[{"host":"a.test"}]}"#), |n| n - 1);
    is_linear("words", rules(r##"{"name":"r#","to":[{"host":"a.test"}],"connect":"maybe"}"##), |n| n);
}

#[test]
fn many_references_to_many_names_are_followed_in_linear_time() {
    let canary = |n, variant: &'static str| {
        let variants = list(n, |i| format!(r#"{{"name":"v{i}","weight":1}}"#));
        let one = |i: usize| variant.replace('#', &i.to_string());
        let overrides = list(n, |i| format!(r#"{{"header":{{"name":"x","value":"{i}"}},"variant":"{}"}}"#, one(i)));
        format!(r#"{{"canaries":[{{"name":"c","variants":[{variants}],"overrides":[{overrides}]}}]}}"#)
    };
    is_linear("unknown variants", |n| canary(n, "w#"), |n| n);
    is_linear("known variants", |n| canary(n, "v#"), |_| 0);
}

#[test]
fn a_very_long_string_is_quoted_short_wherever_it_stands() {
    let long = "x".repeat(4_000_000);
    for document in [
        format!(r#""{long}""#),
        format!(r#"{{"{long}":1}}"#),
        format!(r#"{{"routes":{{"default":"{long}"}}}}"#),
        format!(r#"{{"routes":{{"rules":[{{"name":"{long}","route":"{long}"}}]}}}}"#),
        format!(r#"{{"routes":{{"precedence":"{long}"}}}}"#),
        format!(r#"{{"routes":{{"rules":[{{"name":"r","route":"a","timeout":"{long}"}}]}}}}"#),
        format!(r#"{{"routes":{{"rules":[{{"name":"r","route":"a","matches":[{{"path":{{"value":"{long}"}}}}]}}]}}}}"#),
        format!(r#"{{"egress":{{"rules":[{{"name":"r","to":[{{"host":"{long}"}}]}}]}}}}"#),
        format!(r#"{{"egress":{{"rules":[{{"name":"r","to":[{{"cidr":"{long}"}}]}}]}}}}"#),
    ] {
        let start = Instant::now();
        let problems = problems(&document).unwrap().to_string();
        assert!(problems.len() < 5_000, "{} bytes", problems.len());
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}

#[test]
fn a_hundred_thousand_levels_are_an_error_with_its_place() {
    for (open, prefix) in [("[", ""), (r#"{"a":"#, ""), ("[", r#"{"egress":{"rules":["#), ("[", r#"{"canaries":"#)] {
        let problem = problems(&format!("{prefix}{}", open.repeat(100_000))).unwrap().to_string();
        assert!(problem.starts_with("not JSON: recursion limit exceeded at line 1 column "), "{problem}");
    }
}
