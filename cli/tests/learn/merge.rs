//! `--merge`: existing rules stay, and missing ones are added.

use crate::common::penstock_in;
use crate::generator::{at, caller, request};

fn lines() -> String {
    let (cart, mail) = (caller("cart"), caller("mail"));
    (0..60)
        .map(|n| {
            let first = request(Some(&cart), "GET", "api.example.com", "/v1/items", n * 7200);
            let second = request(Some(&mail), "POST", "smtp.example.org", "/send", n * 7200);
            let denied = request(Some(&mail), "GET", "ads.example.net", "/", n * 7200);
            format!("{first}\n{second}\n{denied}\n")
        })
        .collect()
}

const POLICY: &str = "# Ours.\nsettings: {filterState: true}  # for the log\negress:\n  # Until December.\n  mode: Audit\n  \
    deny: [{host: ads.example.net}]\n  rules:\n  # The cart.\n  - name: cart-api   # keep\n    owner: shop\n    reason: \"items\"\n    \
    to: [{host: api.example.com, ports: [443]}]\n    methods: [GET]  # only\n  # end of rules\n\n# Limits.\nrateLimits:\n\
    - name: all\n  key: []\n  limit: {requests: 5, per: 1s}\n";

#[test]
fn rules_are_added_behind_those_that_are_there_and_nothing_else_changes() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
    let run = penstock_in(folder.path(), &["learn", "--merge", "policy.yaml", "--expires", "never"], &lines());
    assert_eq!(run.status, 0, "{}", run.err);
    let added = "  - name: mail-smtp.example.org\n    owner: team-4\n    reason: \"learned from 60 requests, 2026-11-01 to 2026-11-05\"\n";
    let (before, after) = run.out.split_once(added).unwrap_or_else(|| panic!("{}", run.out));
    assert!(POLICY.starts_with(before) && before.ends_with("methods: [GET]  # only\n"), "{before}");
    assert!(after.ends_with(POLICY.strip_prefix(before).unwrap()), "{after}");
    assert!(
        run.err.contains("60 of them were allowed already") && run.err.contains("denied by the policy"),
        "{}",
        run.err
    );
    // Nothing is missing now.
    std::fs::write(folder.path().join("policy.yaml"), &run.out).unwrap();
    let again = penstock_in(folder.path(), &["learn", "--merge", "policy.yaml", "--expires", "never"], &lines());
    assert_eq!((again.status, &again.out), (0, &run.out));
}

#[test]
fn a_patch_applies_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
    let merge = ["learn", "--merge", "policy.yaml", "--expires", "never"];
    let whole = penstock_in(folder.path(), &merge, &lines()).out;
    let patch = penstock_in(folder.path(), &[&merge[..], &["--patch"]].concat(), &lines()).out;
    assert!(patch.starts_with("--- policy.yaml\n+++ policy.yaml\n@@ "), "{patch}");
    let is_kept = patch.lines().skip(3).all(|line| line.starts_with([' ', '+']));
    assert!(is_kept, "{patch}");
    // Applies the patch as `patch` does.
    let added: Vec<&str> = patch.lines().skip(3).filter_map(|line| line.strip_prefix('+')).collect();
    let kept: String = whole.lines().filter(|line| !added.contains(line)).map(|line| format!("{line}\n")).collect();
    assert_eq!(kept, POLICY);
}

#[test]
fn a_policy_may_have_its_rules_in_any_form_or_none() {
    for policy in [
        "egress:\n  mode: Enforce\n  rules: []\n",
        "egress:\n    rules:\n        - name: a\n          to:\n              - host: a.test\n",
        "egress:\n  mode: Audit\nroutes: {default: stable}\n",
        "routes: {default: stable}\n",
        "routes: {default: stable}",
        "egress:\n  rules: # none yet\n  - {name: a, to: [{host: a.test}]}\n  mode: Enforce\n",
        "{\"egress\": {\"rules\": [{\"name\": \"a\", \"to\": [{\"host\": \"a.test\"}]}]}}\n",
        "egress: {rules: [{name: a, to: [{host: a.test}]}]}\n",
        "egress: {mode: Audit, rules: [{name: a, to: [{host: a.test}]}, {name: b, to: [{host: b.test}]} ], defaultPort: 443} # c\n",
        "egress:\n  rules: [{name: a, to: [{host: a.test}]}] # one\n  mode: Audit\n",
        "egress:\n  rules: [\n    {name: a, to: [{host: a.test}]}, # first\n    {name: b, to: [{host: b.test}]},\n  ]\n",
        "egress:\n  rules:\n    [\n      {\n        name: a, to: [{host: a.test}]\n      } # last\n    ]\n",
        "egress: {rules: []}\n",
        "egress: {mode: Enforce, rules: [ ], defaultPort: 443}\n",
        "egress: {mode: Audit}\nroutes: {default: stable}\n",
        "routes: {default: stable}\negress: {mode: Audit, deny: [{host: d.test}]}\n",
        "egress:\n  rules:\n  - name: a\n    reason: >-\n      because\n      of it\n\n    to: [{host: a.test}]\n# done\n",
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("policy.yaml"), policy).unwrap();
        let run = penstock_in(folder.path(), &["learn", "--merge", "policy.yaml"], &lines());
        assert_eq!(run.status, 0, "{policy}{}", run.err);
        std::fs::write(folder.path().join("merged.yaml"), &run.out).unwrap();
        let check = penstock_in(folder.path(), &["check", "merged.yaml"], "");
        assert_eq!(check.status, 0, "{}{}{}", run.out, check.out, check.err);
        assert!(run.out.contains("smtp.example.org"), "{}", run.out);
        // What was there is there still, comments too.
        let words =
            |text: &str| text.split([' ', '\n', ',']).filter(|w| w.len() > 2).map(str::to_owned).collect::<Vec<_>>();
        let is_json = policy.starts_with('{');
        let missing: Vec<String> = words(policy)
            .into_iter()
            .filter(|word| !is_json && !run.out.contains(word.trim_matches(['{', '}', '[', ']'])))
            .collect();
        assert!(missing.is_empty(), "{missing:?}\n{policy}\n{}", run.out);
        // Nothing is missing now.
        let again = penstock_in(folder.path(), &["learn", "--merge", "merged.yaml"], &lines());
        assert_eq!((again.status, &again.out), (0, &run.out), "{}", again.err);
    }
}

#[test]
fn options_that_make_no_sense_are_refused_and_thin_logs_say_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], input: &str| penstock_in(folder.path(), &[&["learn"], arguments].concat(), input);
    for (arguments, message) in [
        (&["--expires", "soon"][..], "30d, a day such as 2027-01-31, or never"),
        (&["--expires", "2026-11-02"], "is before the log's last request, 2026-11-05"),
        (&["--star", "com"], "*.com"),
        (&["--min-requests", "0"], "write a whole number from 1 to 10000"),
        (&["--patch"], "--merge"),
    ] {
        let run = run(arguments, &lines());
        assert_eq!(run.status, 2, "{}", run.err);
        assert!(run.err.contains(message), "{arguments:?}: {}", run.err);
    }
    let one = format!("{}\n", request(None, "GET", "a.test", "/", 0));
    let thin = run(&[], &one);
    // A policy without rules would refuse everything.
    assert_eq!((thin.status, thin.out.as_str()), (1, ""));
    assert!(thin.err.contains("nothing is learned") && thin.err.contains("no policy is written"), "{}", thin.err);
    // More of it would change nothing.
    let address: String = (0..60).map(|n| format!("{}\n", request(None, "GET", "192.0.2.7", "/", n * 7200))).collect();
    let address = run(&[], &address);
    assert!(
        address.err.contains("no rule is learned from") && !address.err.contains("--min-requests"),
        "{}",
        address.err
    );
    // What is ambiguous is lost by its caller.
    let (cart, ambiguous) = (caller("cart"), request(Some(&caller("cart")), "GET", "a b", "/", 0));
    let lost = run(&[], &format!("{}{ambiguous}\n", lines()));
    assert!(lost.err.contains(&format!("{cart} loses 1 of 61")), "{}", lost.err);
    let untimed = one.replace(&format!(",\"time\":\"{}\"", at(0)), "");
    assert!(run(&[], &untimed).err.contains("have no time"), "{untimed}");
    let report = folder.path().join("report.json");
    let empty = run(&["--report", "report.json"], "");
    assert_eq!((empty.status, empty.out.as_str()), (1, ""));
    assert!(empty.err.contains("no policy is written: the log has no requests; give one that has"), "{}", empty.err);
    assert!(std::fs::read_to_string(report).unwrap().contains("\"requests\": 0"));
    // The existing policy stays unchanged, unless the log cannot be read.
    std::fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
    let merged = run(&["--merge", "policy.yaml"], &one);
    assert_eq!((merged.status, merged.out.as_str()), (0, POLICY));
    assert_eq!(run(&["--merge", "policy.yaml"], "").status, 1);
}
