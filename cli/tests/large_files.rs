//! Every command processes files of any size in linear time, and reports at most fifty findings of each kind.
//!
//! Each file is made in two sizes, one four times the other: linear work takes four times as long, quadratic work
//! sixteen times.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SMALL: usize = 2_000;
const LARGE: usize = 4 * SMALL;

/// The exit status, the output, and the CPU time.
fn penstock(folder: &Path, arguments: &[&str]) -> (i32, String, Duration) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    let (output, took) = common::timed(command.args(arguments).current_dir(folder));
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap_or(-1), text, took)
}

/// A file with `n` results of `entry` after `head`.
fn lines(n: usize, head: &str, entry: impl Fn(usize) -> String) -> String {
    (0..n).fold(head.to_owned(), |text, i| text + &entry(i))
}

/// Runs a command on a file in both sizes; returns the output for the larger one.
fn is_linear(name: &str, file: &dyn Fn(usize) -> String, status: i32, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let run = |n: usize| {
        std::fs::write(folder.path().join(name), file(n)).unwrap();
        let (code, text, took) = penstock(folder.path(), arguments);
        assert_eq!(code, status, "{arguments:?}: {}", text.chars().take(2_000).collect::<String>());
        (text, took)
    };
    let (_, small) = run(SMALL);
    let (text, large) = run(LARGE);
    common::assert_linear(&format!("{arguments:?} of {name}"), [small, large], || [run(SMALL).1, run(LARGE).1]);
    text
}

/// A file with this many entries.
type Make = Box<dyn Fn(usize) -> String>;

/// Files with a very large number of one thing, and whether such a policy is valid.
fn hostile() -> Vec<(&'static str, Make, bool)> {
    let rules = "egress:\n  rules:\n";
    let routes = "routes:\n  rules:\n";
    vec![
        ("keys", Box::new(|n| lines(n, "", |i| format!("k{i}: 0\n"))), false),
        ("entries", Box::new(move |n| lines(n, rules, |_| "  - 5\n".to_owned())), false),
        ("one line", Box::new(|n| lines(n, "egress: {rules: [", |_| "é,".to_owned()) + "]}"), false),
        (
            "expired",
            Box::new(move |n| {
                lines(n, rules, |i| {
                    format!("  - {{name: r{i}, to: [{{host: h{i}.test}}], expires: \"2020-01-01T00:00:00Z\"}}\n")
                })
            }),
            true,
        ),
        (
            "alike",
            Box::new(move |n| lines(n, rules, |i| format!("  - {{name: r{i}, to: [{{host: h.test}}]}}\n"))),
            true,
        ),
        (
            "paths of one host",
            Box::new(move |n| {
                lines(n, rules, |i| format!("  - {{name: r{i}, to: [{{host: h.test}}], paths: [{{value: /p{i}}}]}}\n"))
            }),
            true,
        ),
        (
            "denied",
            Box::new(move |n| {
                let deny = lines(n, "egress:\n  deny:\n", |i| format!("  - {{host: d{i}.test}}\n"));
                lines(n, &(deny + "  rules:\n"), |i| format!("  - {{name: r{i}, to: [{{host: h{i}.test}}]}}\n"))
            }),
            true,
        ),
        (
            "unreachable",
            Box::new(move |n| {
                lines(n, &format!("{routes}  - {{name: all, route: a}}\n"), |i| {
                    format!("  - {{name: r{i}, route: a, matches: [{{path: {{value: /p{i}}}}}]}}\n")
                })
            }),
            true,
        ),
        (
            "headers",
            Box::new(move |n| {
                lines(n, routes, |i| {
                    format!("  - {{name: r{i}, route: a, matches: [{{headers: [{{name: x, value: v{i}}}]}}]}}\n")
                })
            }),
            true,
        ),
    ]
}

#[test]
fn check_reports_in_every_form_what_it_finds_in_a_file_of_any_size() {
    for (what, file, is_valid) in hostile() {
        // The output is the same, only the sources differ.
        let forms: &[&str] = if what == "entries" { &["human", "json", "sarif", "github"] } else { &["human"] };
        for form in forms {
            let status = i32::from(!is_valid);
            let text = is_linear("p.yaml", &file, status, &["check", "--output", form, "p.yaml"]);
            assert!(text.len() < 200_000, "{what} as {form}: {} bytes", text.len());
            if what == "expired" || !is_valid {
                assert!(text.contains("more"), "{what} as {form}: {text}");
            }
        }
    }
}

#[test]
fn every_command_refuses_a_file_of_many_mistakes_in_linear_time() {
    let wrong = |n| lines(n, "egress:\n  rules:\n", |_| "  - 5\n".to_owned());
    for arguments in [
        &["explain", "p.yaml", "--url", "https://a.test/"][..],
        &["diff", "p.yaml", "p.yaml"],
        &["replay", "p.yaml"],
        &["render", "p.yaml", "--for", "envoy"],
    ] {
        let text = is_linear("p.yaml", &wrong, 1, arguments);
        assert!(
            text.contains(&format!("and {},{:03} more errors", (LARGE - 50) / 1000, (LARGE - 50) % 1000)),
            "{text}"
        );
        assert!(text.len() < 20_000, "{arguments:?}: {} bytes", text.len());
    }
}

#[test]
fn tests_without_end_run_in_linear_time() {
    let test =
        |i| format!("{{name: t{i}, request: {{method: GET, authority: a, path: /}}, expect: {{action: continue}}}}, ");
    let good = |n| lines(n, "policy: {routes: {default: a}}\ntests: [", test) + "]";
    for form in ["human", "json", "junit"] {
        is_linear("p.test.yaml", &good, 0, &["test", "--output", form, "p.test.yaml"]);
    }
    let bad = |n| lines(n, "policy: {routes: {default: a}}\ntests: [", |_| "{nam: t}, ".to_owned()) + "]";
    let text = is_linear("p.test.yaml", &bad, 2, &["test", "p.test.yaml"]);
    assert!(text.contains("more errors") && text.len() < 40_000, "{text}");
    let bad = |n| lines(n, "", |_| "{\"a\":1}\n".to_owned());
    let text = is_linear("p.jsonl", &bad, 2, &["test", "p.jsonl"]);
    assert!(text.contains("more errors") && text.len() < 20_000, "{text}");
}

#[test]
fn many_policies_of_one_file_are_checked_in_linear_time() {
    let plugin = |i| {
        format!(
            "---\napiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: p{i}, namespace: ns}}\n\
             spec:\n  url: oci://x/penstock/suite:1\n  pluginConfig:\n    routes: {{default: a}}\n"
        )
    };
    is_linear("p.yaml", &|n| lines(n / 4, "", plugin), 0, &["check", "p.yaml"]);
}

#[test]
fn levels_anchors_and_very_long_texts_are_errors_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let anchors = lines(20_000, "a0: &a0 x\n", |i| format!("a{}: &a{} [*a{i}]\n", i + 1, i + 1));
    for (what, text, commands) in [
        ("dashes", "- ".repeat(100_000), "p.yaml:1:"),
        ("brackets", "[".repeat(100_000), "p.yaml:1:"),
        ("braces", "{a: ".repeat(100_000), "p.yaml:1:"),
        ("anchors", anchors, "p.yaml:1"),
        ("nested anchors", lines(60_000, "a: ", |i| format!("&a{i} [")), "p.yaml:1:"),
        ("text", format!("routes: {{default: {}}}", "x".repeat(5_000_000)), "p.yaml:1:19"),
        ("key", format!("? {}\n: 1", "x".repeat(5_000_000)), "p.yaml:1:"),
    ] {
        std::fs::write(folder.path().join("p.yaml"), text).unwrap();
        for arguments in [
            &["check", "p.yaml"][..],
            &["explain", "p.yaml", "--url", "https://a.test/"],
            &["diff", "p.yaml", "p.yaml"],
            &["replay", "p.yaml"],
            &["render", "p.yaml", "--for", "envoy"],
            &["test", "p.yaml"],
            &["import", "p.yaml"],
            &["dash", "--config", "p.yaml"],
        ] {
            let (status, text, took) = penstock(folder.path(), arguments);
            assert!((1..=2).contains(&status), "{what} {arguments:?}: {status} {text}");
            assert!(text.len() < 10_000, "{what} {arguments:?}: {} bytes", text.len());
            assert!(took < Duration::from_secs(20), "{what} {arguments:?}: {took:?}");
            if arguments.first() == Some(&"check") {
                assert!(text.contains(commands), "{what}: {text}");
            }
        }
    }
}

/// Objects of other products, each with a limit where it can have one.
fn sources() -> Vec<(&'static str, Make)> {
    let limit =
        "apiVersion: traefik.io/v1alpha1\nkind: Middleware\nmetadata: {name: l}\nspec: {rateLimit: {average: 5}}\n";
    let traefik = move |n: usize, rule: &dyn Fn(usize) -> String| {
        lines(n, limit, |i| {
            let (head, rule) = ("---\napiVersion: traefik.io/v1alpha1\nkind: IngressRoute\nmetadata", rule(i));
            format!(
                "{head}: {{name: r{i}}}\nspec: {{routes: [{{match: '{rule}', middlewares: [{{name: l}}], services: [{{name: s{i}, port: 80}}]}}]}}\n"
            )
        })
    };
    let route = |i: usize, host: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{i}}}\nspec:\n  hostnames: [\"{host}\"]\n  \
             rules: [{{matches: [{{path: {{value: /p{i}}}}}], backendRefs: [{{name: s{i}, port: 80}}]}}]\n---\n\
             apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: BackendTrafficPolicy\nmetadata: {{name: b{i}}}\nspec:\n  \
             targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r{i}}}]\n  \
             rateLimit: {{type: Local, local: {{rules: [{{limit: {{requests: 10, unit: Second}}}}]}}}}\n"
        )
    };
    let ingress = |i: usize| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: r{i}, annotations: {{nginx.ingress.kubernetes.io/limit-rps: \"5\"}}}}\n\
             spec: {{rules: [{{host: h.test, http: {{paths: [{{path: /a{i}, pathType: Prefix, backend: {{service: {{name: s{i}, port: {{number: 80}}}}}}}}]}}}}]}}\n"
        )
    };
    let descriptor =
        |i: usize| format!("- {{key: x-plan, value: v{i}, rate_limit: {{unit: second, requests_per_unit: 5}}}}\n");
    vec![
        ("paths of any host", Box::new(move |n| traefik(n, &|i| format!("PathPrefix(`/p{i}`)")))),
        ("paths of one host", Box::new(move |n| traefik(n, &|i| format!("Host(`h.test`) && PathPrefix(`/p{i}`)")))),
        ("hosts", Box::new(move |n| traefik(n, &|i| format!("Host(`h{i}.test`)")))),
        ("routes of stars", Box::new(move |n| lines(n / 2, "", |i| route(i, &format!("*.h{i}.test"))))),
        ("routes of one host", Box::new(move |n| lines(n / 2, "", |i| route(i, "h.test")))),
        ("ingresses", Box::new(move |n| lines(n / 2, "", ingress))),
        ("descriptors", Box::new(move |n| lines(n, "domain: d\ndescriptors:\n", descriptor))),
    ]
}

#[test]
fn other_products_objects_are_imported_in_linear_time() {
    for (what, file) in sources() {
        // Fewer of them: each object is a document of its own.
        let text = is_linear("p.yaml", &|n| file(n / 4), 0, &["import", "p.yaml"]);
        assert!(text.contains("rateLimits:"), "{what}: {}", text.chars().take(500).collect::<String>());
    }
}

#[test]
fn coverage_and_names_below_one_parent_take_linear_time() {
    let test = |i| {
        format!("- {{name: t{i}, request: {{method: GET, authority: a.test, path: /p{i}}}, expect: {{route: a}}}}\n")
    };
    let covered = |n: usize| {
        let rule = |i| format!("    - {{name: r{i}, route: a, matches: [{{path: {{value: /p{i}}}}}]}}\n");
        lines(n / 4, &(lines(n / 4, "policy:\n  routes:\n    rules:\n", rule) + "tests:\n"), test)
    };
    let text = is_linear("p.test.yaml", &covered, 0, &["test", "--coverage", "--output", "json", "p.test.yaml"]);
    assert!(text.contains("\"percent\": 99.9"), "{}", text.chars().take(500).collect::<String>());
    let request = |i| format!("{{\"method\":\"GET\",\"authority\":\"h{i}.test\",\"path\":\"/a{i}\"}}\n");
    let learn = ["learn", "--min-requests", "1", "--min-days", "1", "--star-above", "50", "p.jsonl"];
    is_linear("p.jsonl", &|n| lines(n, "", request), 0, &learn);
}
