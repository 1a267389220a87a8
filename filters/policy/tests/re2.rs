//! Expressions mean what they mean to RE2, the engine of Envoy.
//!
//! `re2/golden.jsonl` is what RE2 said about each expression and text when `re2/corpus.py` was run last; where RE2 is at
//! hand (`pip install google-re2`), it is asked again, with other expressions.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use penstock_policy::matching::Regex;
use serde_json::Value;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Compares each line; how many expressions and texts there are, and how many expressions are refused for a limit of
/// ours.
fn compare(lines: &str) -> (usize, usize, usize) {
    let (mut expressions, mut texts, mut refused) = (0, 0, 0);
    let mut wrong = Vec::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let expression = line["e"].as_str().unwrap();
        expressions += 1;
        let regex = match (Regex::new(expression), line.get("error")) {
            (Ok(_), Some(error)) => {
                wrong.push(format!("{expression:?} is accepted, RE2: {error}"));
                continue;
            }
            (Err(_), Some(_)) => continue,
            (Err(error), None) => {
                refused += 1;
                println!("refused: {expression:?}: {error}");
                // What RE2 has and we have not says so.
                if !["Unicode class", "too many states"].iter().any(|limit| error.message.contains(limit)) {
                    wrong.push(format!("{expression:?} is refused: {error}"));
                }
                continue;
            }
            (Ok(regex), None) => regex,
        };
        for text in line["t"].as_array().unwrap() {
            let bytes = hex(text[0].as_str().unwrap());
            texts += 1;
            if regex.matches(&bytes) != (text[1] == 1) {
                let shown = String::from_utf8_lossy(&bytes).into_owned();
                wrong.push(format!("{expression:?} on {shown:?}: RE2 says {}", text[1]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    (expressions, texts, refused)
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn every_expression_of_the_corpus_means_what_re2_said() {
    let (expressions, texts, refused) = compare(include_str!("re2/golden.jsonl"));
    assert!(expressions >= 2_000 && texts >= 20_000, "{expressions} expressions, {texts} texts");
    assert!(refused <= 40, "{refused} expressions are refused here alone");
}

#[cfg(not(target_arch = "wasm32"))]
#[test]
fn re2_itself_says_the_same_of_expressions_that_nobody_has_seen() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/re2/corpus.py");
    let python = std::env::var("PENSTOCK_RE2_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().to_string();
    let output = std::process::Command::new(python).args([corpus, "--seed", &seed, "--count", "1000"]).output();
    match output {
        Ok(output) if output.status.success() => {
            println!("seed {seed}");
            compare(std::str::from_utf8(&output.stdout).unwrap());
        }
        Ok(output) => println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => println!("skipped: cannot run Python: {error}"),
    }
}
