//! `penstock test`, as a user sees it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::{Run, folder, penstock_in};

/// Runs `penstock test` on a modified copy of the shop's tests.
fn run(change: impl Fn(&str) -> String, arguments: &[&str]) -> Run {
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder().join("shop.yaml"), copy.path().join("shop.yaml")).unwrap();
    let text = std::fs::read_to_string(folder().join("shop.test.yaml")).unwrap();
    std::fs::write(copy.path().join("shop.test.yaml"), change(&text)).unwrap();
    let mut all = vec!["test", "shop.test.yaml"];
    all.extend(arguments);
    let run = penstock_in(copy.path(), &all, "");
    // The duration of a run varies.
    let timeless = |text: String| {
        let mut parts = text.split(" time=\"");
        let first = parts.next().unwrap().to_owned();
        parts.fold(first, |all, part| all + " time=\"…\"" + part.split_once('"').unwrap().1)
    };
    Run { out: timeless(run.out), ..run }
}

/// Three of the five fail.
fn broken(text: &str) -> String {
    text.replace("rule: beta-users", "rule: gold-beta, reason: override")
        .replace("times: 20", "times: 21")
        .replace("rule: stripe", "rule: null")
}

#[test]
fn a_good_policy_passes() {
    let run = run(str::to_owned, &[]);
    assert_eq!(run.status, 0);
    insta::assert_snapshot!(run.out);
}

#[test]
fn a_failure_shows_expected_and_actual_with_their_place() {
    let run = run(broken, &[]);
    assert_eq!((run.status, run.err.as_str()), (1, ""));
    insta::assert_snapshot!(run.out);
}

#[test]
fn ci_servers_get_junit() {
    let run = run(
        |text| {
            broken(text).replace("beta users go", "<beta> & \\x00 \\\"users\\\" go").replacen(
                "name: <beta> & \\x00 \\\"users\\\" go to beta",
                "name: \"<beta> & \\x00 \\\"users\\\" go to beta\"",
                1,
            )
        },
        &["--format", "junit"],
    );
    assert_eq!(run.status, 1, "{}", run.err);
    insta::assert_snapshot!(run.out);
}

#[test]
fn junit_also_goes_to_a_file() {
    let copy = tempfile::tempdir().unwrap();
    let report = copy.path().join("report.xml");
    let report = report.to_str().unwrap();
    let run = run(str::to_owned, &["--junit", report]);
    assert!(run.out.ends_with("5 passed, 0 failed\n"));
    assert!(
        std::fs::read_to_string(report)
            .unwrap()
            .contains("<testsuites name=\"penstock test\" tests=\"5\" failures=\"0\"")
    );
}

#[test]
fn a_filter_leaves_the_others_out() {
    let run = run(broken, &["--filter", "alice", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(
        (run.status, &report["passed"], &report["failed"], &report["filteredOut"]),
        (0, &1.into(), &0.into(), &4.into())
    );
}

#[test]
fn mistakes_in_a_test_file_are_all_shown_at_once() {
    let run = run(
        |_| {
            "policy: shop.yaml\ntests:\n- nme: x\n  request: {method: GET, authority: a, pth: /}\n  expect: {rout: x}\n\
             - name: y\n  request: {method: GET, authority: a, path: /, time: noon}\n\
             - {name: z, steps: [], request: {}, expect: {}}\n"
                .to_owned()
        },
        &[],
    );
    assert_eq!((run.status, run.out.as_str()), (2, ""));
    insta::assert_snapshot!(run.err);
}

#[test]
fn an_invalid_policy_fails_its_tests_with_the_place() {
    let copy = tempfile::tempdir().unwrap();
    std::fs::write(copy.path().join("p.yaml"), "rotes: {}\n").unwrap();
    let test = "policy: p.yaml\ntests:\n- {name: a, request: {method: GET, authority: a, path: /}, expect: {action: continue}}\n";
    let run = penstock_in(copy.path(), &["test", "-"], test);
    assert_eq!(run.status, 1, "{}", run.err);
    for part in ["0 passed, 1 failed", "did you mean `routes`?", "p.yaml:1:1"] {
        assert!(run.out.contains(part), "{part} in {}", run.out);
    }
}

#[test]
fn the_exit_status_distinguishes_kinds_of_failure() {
    let copy = tempfile::tempdir().unwrap();
    let case = |request: &str, expect: &str| format!(r#"{{"policy":{{}},"request":{request},"expect":{expect}}}"#);
    let get = r#"{"method":"GET","authority":"a","path":"/"}"#;
    for (input, status, message) in [
        (case(get, r#"{"action":"continue"}"#), 0, "1 passed, 0 failed"),
        (format!("\u{feff}{}\r\n\r\n", case(get, r#"{"route":null}"#)), 0, "1 passed, 0 failed"),
        (case(get, r#"{"action":"respond"}"#), 1, "0 passed, 1 failed"),
        (case(get, "{}"), 2, "expects nothing"),
        (case("{}", r#"{"action":"continue"}"#), 2, "method: is required"),
        (String::new(), 2, "is empty"),
        ("tests: []\npolicy: {}\n".to_owned(), 2, "is empty"),
        ("tests: [{name: a, request: {method: GET, authority: a, path: /}, expect: {route: b}}]\n".to_owned(), 2, "policy: is required"),
        ("policy: absent.yaml\ntests: [{request: {method: GET, authority: a, path: /}, expect: {route: b}}]\n".to_owned(), 2, "absent.yaml"),
        (format!("policy: {{routes: {{default: a}}}}\r\ntests:\r\n- request: {get}\r\n  expect: {{route: a}}\r\n"), 0, "1 passed"),
        ("tests: [{policy: {routes: {default: ''}}, request: {method: GET, authority: a, path: /}, expect: {policyError: x}}]\n".to_owned(), 1, "routes.default"),
        ("tests: [{policy: {routes: {default: ''}}, expect: {valid: false}}]\n".to_owned(), 0, "1 passed"),
        ("{\n".to_owned(), 2, "not YAML"),
    ] {
        let run = penstock_in(copy.path(), &["test", "-"], &input);
        assert_eq!(run.status, status, "{input}: {}{}", run.out, run.err);
        assert!(format!("{}{}", run.out, run.err).contains(message), "{input}: {}{}", run.out, run.err);
    }
    assert_eq!(penstock_in(copy.path(), &["test", "absent.yaml"], "").status, 2);
    assert_eq!(penstock_in(copy.path(), &["test"], "").status, 2);
}
