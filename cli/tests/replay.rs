//! `penstock replay` with realistic inputs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use common::{folder, penstock, penstock_in};

const REQUEST: &str = r#"{"method":"GET","scheme":"https","authority":"shop.example.com","path":"/reviews","headers":[["x-user-id","7"]],"time":"2026-01-01T00:00:00Z"}"#;

/// The routes and statuses of the decisions.
fn decided(out: &str) -> Vec<String> {
    let decision = |line: &str| {
        let decision: serde_json::Value = serde_json::from_str(line).unwrap();
        let of = |key: &str| decision.get(key).map(|value| value.to_string().replace('"', "")).unwrap_or_default();
        format!("{}{}", of("route"), of("status"))
    };
    out.lines().map(decision).collect()
}

#[test]
fn every_form_of_recorded_request_is_recognised_and_can_be_named() {
    let text = concat!(
        "[2026-01-01T00:00:00Z] \"GET /reviews HTTP/2\" 200 - 0 1 3 1 \"-\" \"curl\" \"id\" \"shop.example.com\" \"-\"\r\n",
        "[2026-01-01T00:00:00Z] \"- - -\" 400 DPE 0 1 3 - \"-\" \"-\" \"-\" \"-\" \"-\"\r\n",
        "[2026-01-01T00:00:00Z] \"GET /x HTTP/2\" 200 - 0 1 3 1 \"-\" \"curl\" \"id\" \"evil.test\" \"-\"\r\n",
    );
    let json = concat!(
        r#"{"start_time":"2026-01-01T00:00:00Z","method":"GET","path":"/reviews","authority":"shop.example.com","response_code":200,"x-user-id":"7"}"#,
        "\n",
        r#"{"start_time":"2026-01-01T00:00:00Z","method":null,"path":null,"authority":null,"response_code":0}"#,
        "\n",
        r#"{"start_time":"2026-01-01T00:00:00Z","method":"GET","path":"/x","authority":"evil.test","response_code":200}"#,
    );
    let har = r#"{ "log": {"entries":[
        {"startedDateTime":"2026-01-01T00:00:00Z","request":{"method":"GET","url":"https://shop.example.com/reviews","headers":[{"name":"x-user-id","value":"7"}]}},
        {"startedDateTime":"2026-01-01T00:00:00Z","request":{"method":"GET","url":"https://evil.test/","headers":[]}}]}}"#;
    for (name, text, left_out) in [("envoy-text", text, true), ("envoy-json", json, true), ("har", har, false)] {
        for bom in ["", "\u{feff}"] {
            for input in ["auto", name] {
                let run =
                    penstock(&["replay", "shop.yaml", "--scheme", "https", "--input", input], &format!("{bom}{text}"));
                assert_eq!(run.status, 0, "{name}: {}", run.err);
                assert_eq!(decided(&run.out), ["v1", "403"], "{name} {input}: {}", run.out);
                assert_eq!(run.err.contains("1 line left out"), left_out, "{name}: {}", run.err);
            }
        }
    }
}

#[test]
fn windows_line_ends_byte_order_marks_and_empty_lines_are_nothing() {
    let run = penstock(&["replay", "shop.yaml"], &format!("\u{feff}\r\n{REQUEST}\r\n\r\n{REQUEST}"));
    assert_eq!((run.status, decided(&run.out)), (0, vec!["v1".to_owned(); 2]), "{}", run.err);
    for nothing in ["", "\n\n", "\u{feff}"] {
        let run = penstock(&["replay", "shop.yaml"], nothing);
        assert_eq!((run.status, run.out.as_str()), (0, ""), "{}", run.err);
    }
}

#[test]
fn a_bad_line_is_named_and_what_came_before_it_is_decided() {
    let run = penstock(
        &["replay", "shop.yaml", "-"],
        &format!("{REQUEST}\n\n{{\"method\":\"GET\",\"verb\":1}}\n{REQUEST}\n"),
    );
    assert_eq!((run.status, decided(&run.out)), (2, vec!["v1".to_owned()]));
    assert!(run.err.contains("standard input:3: not a request: unknown field `verb`"), "{}", run.err);
    let run = penstock(&["replay", "shop.yaml", "--input", "har"], REQUEST);
    assert_eq!((run.status, run.err.contains("not a HAR file")), (2, true), "{}", run.err);
}

#[test]
fn a_huge_line_is_refused_and_not_held_in_memory() {
    let long = |size: usize| format!("{}\n", REQUEST.replace("/reviews", &format!("/reviews/{}", "x".repeat(size))));
    let run = penstock(&["replay", "shop.yaml"], &long(1 << 20));
    assert_eq!((run.status, decided(&run.out)), (0, vec!["v1".to_owned()]), "{}", run.err);
    let run = penstock(&["replay", "shop.yaml"], &long(17 << 20));
    assert_eq!((run.status, run.err.contains("longer than 16 MiB")), (2, true), "{}", run.err);
}

#[test]
fn who_waits_for_an_answer_before_the_next_request_gets_it() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["replay", "shop.yaml"])
        .current_dir(folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut requests = child.stdin.take().unwrap();
    let mut decisions = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        writeln!(requests, "{REQUEST}").unwrap();
        assert!(decisions.next().unwrap().unwrap().contains("\"route\":\"v1\""));
    }
    drop(requests);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_closed_pipe_is_no_failure_for_any_command() {
    let requests = tempfile::tempdir().unwrap();
    let file = requests.path().join("many.jsonl");
    std::fs::write(&file, format!("{REQUEST}\n").repeat(20_000)).unwrap();
    let file = file.to_str().unwrap();
    let explain = ["explain", "shop.yaml", "--url", "https://shop.example.com/", "--format", "json"];
    let diff = ["diff", "shop.yaml", "shop-next.yaml", file];
    let gate = ["diff", "shop.yaml", "shop-next.yaml", "--fail-on", "loosened"];
    let commands: [(&[&str], i32); 7] = [
        (&["replay", "shop.yaml", file], 0),
        (&explain, 0),
        (&diff, 0),
        // The exit status is 1, whether or not the output is read.
        (&gate, 1),
        (&["test", "shop.test.yaml"], 0),
        (&["test", "shop.test.yaml", "--format", "junit"], 0),
        (&["check", "shop.yaml"], 0),
    ];
    for (arguments, status) in commands {
        let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
        command
            .args(arguments)
            .current_dir(folder())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The reader has ended before anything is written.
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), err.as_str()), (Some(status), ""), "{arguments:?}");
    }
}

#[test]
fn an_invalid_policy_is_shown_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.yaml"), "\u{feff}routes:\r\n  rules:\r\n  - name: a\r\n    rout: b\r\n")
        .unwrap();
    let run = penstock_in(folder.path(), &["replay", "p.yaml"], REQUEST);
    assert_eq!((run.status, run.out.as_str()), (1, ""));
    assert!(run.err.contains("p.yaml:4:5") && run.err.contains("did you mean `route`?"), "{}", run.err);
}

#[test]
fn missing_parts_of_a_log_are_reported_once_with_their_lines() {
    let line = |time: &str| {
        format!(
            "{{\"time\":\"{time}\",\"method\":\"GET\",\"path\":\"/\",\"host\":\"shop.example.com\",\"status\":200}}\n"
        )
    };
    let log = format!("agent starts\n{}{}more\n", line("2026-01-01T00:00:00Z"), line("noon"));
    let run = penstock(&["replay", "shop.yaml", "--scheme", "https"], &log);
    assert_eq!((run.status, run.out.lines().count()), (0, 2), "{}", run.err);
    for said in [
        "2 lines left out (1, 4): not a JSON object",
        "The first: agent starts",
        "the time of 1 of 2 requests is in an unsupported format",
        "2 of 2 requests have no client address: limits and canaries by source address cannot be judged",
    ] {
        assert!(run.err.contains(said), "{said}: {}", run.err);
    }
    let text = "[2026-01-01T00:00:00Z] \"GET / HTTP/1.1\" 200 - 0 0 1 1 \"-\" \"x\" \"id\" \"shop.example.com\" \"-\" \"alice\"\n";
    let run = penstock(&["replay", "shop.yaml"], text);
    assert_eq!((run.status, run.out.as_str()), (0, ""));
    assert!(run.err.contains("1 line left out (1)") && run.err.contains("--log-format '["), "{}", run.err);
    let format = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%\" %RESPONSE_CODE% - 0 0 1 1 \"-\" \"x\" \"id\" \"%REQ(:AUTHORITY)%\" \"-\" \"%REQ(X-USER-ID)%\"";
    let run = penstock(&["replay", "shop.yaml", "--scheme", "https", "--log-format", format], text);
    assert_eq!((run.status, run.out.lines().count()), (0, 1), "{}", run.err);
    // As a text in double quotes of YAML has its tabs and its end.
    let format = r"%REQ(:METHOD)%\t%REQ(:PATH)%\t%REQ(:AUTHORITY)%\n";
    let run = penstock(
        &["replay", "shop.yaml", "--scheme", "https", "--log-format", format],
        "GET\t/a b\tshop.example.com\n",
    );
    assert_eq!((run.status, run.out.lines().count()), (0, 1), "{}", run.err);
    let run = penstock(&["replay", "shop.yaml", "--log-format", "%REQ(:METHOD)%"], text);
    assert!(run.status == 2 && run.err.contains("%REQ(:AUTHORITY)%"), "{}", run.err);
}

#[test]
fn an_odd_entry_of_an_archive_is_left_out_with_its_number() {
    let entry = |url: &str| {
        format!("{{\"startedDateTime\":\"2026-01-01T00:00:00Z\",\"request\":{{\"method\":\"GET\",\"url\":\"{url}\"}}}}")
    };
    let har = format!(
        "{{\"log\":{{\"entries\":[{},{},{}]}}}}",
        entry("https://shop.example.com/reviews"),
        entry("data:image/png;base64,AA=="),
        entry("wss://shop.example.com/ws")
    );
    let run = penstock(&["replay", "shop.yaml"], &har);
    assert_eq!((run.status, run.out.lines().count()), (0, 2), "{}", run.err);
    assert!(run.err.contains("1 HAR exchange left out (2)"), "{}", run.err);
}
