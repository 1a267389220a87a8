//! Envoy's JSON parser is less strict than others and takes the last of duplicate fields; `penstock check` must do the
//! same. The configuration that a running Envoy reports must be the one that it was given.

use std::fs;

use anyhow::{Context, Result, ensure};
use penstock::inputs;
use penstock::manifests::ManifestFile;
use penstock_integration::{Bootstrap, Envoy};
use serde_json::Value;

use crate::envoy::bootstrap;
use crate::{json, refused};

/// A bootstrap in JSON, with this value in the metadata of its node and this configuration of our filter.
fn text(metadata: &str, configuration: &str) -> Result<String> {
    let placeholder = "\"@type\": type.googleapis.com/google.protobuf.StringValue\nvalue: PLACEHOLDER";
    let bootstrap = json(&penstock::yaml::Located::read(&bootstrap(placeholder)?)?.node).to_string();
    let node = format!("{{\"node\": {{\"id\": \"a\", \"cluster\": \"b\", \"metadata\": {{{metadata}}}}},");
    Ok(bootstrap.replacen('{', &node, 1).replace("\"value\":\"PLACEHOLDER\"", configuration))
}

fn policy(route: &str) -> String {
    format!("\"value\": {}", Value::from(format!("{{\"routes\": {{\"default\": \"{route}\"}}}}")))
}

/// Texts that protobuf's parser accepts although they are not JSON.
const TAKEN: [&str; 12] = [
    "a: 1",
    "_b2: [1, 2,]",
    "'c': 'x'",
    "\"d\": 'say \"x\"'",
    "'e': 'it\\'s'",
    "\"f\": \"it's\"",
    "\"g\": \"two\nlines\"",
    "\"h\": \"a\ttab\"",
    "\"i\": {\"x\": 1,}",
    "\"j\": \"\\ud83d\\ude00\\u00E9\"",
    "\"k\": -0.5e-3",
    "\"l\": null,",
];

/// Texts that it refuses, too.
const REFUSED: [&str; 14] = [
    "// why\n\"a\": 1",
    "# why\n\"a\": 1",
    "a-b: 1",
    "null: 1",
    "\"a\": [1,,2]",
    "\"a\": [,]",
    "\"a\": +1",
    "\"a\": .5",
    "\"a\": 05",
    "\"a\": NaN",
    "\"a\": True",
    "\"a\": \"\\q\"",
    "\"a\": \"\\ud83d\"",
    "\"a\": 1; \"b\": 2",
];

#[test]
fn check_reads_the_json_that_envoy_reads() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut disagree = Vec::new();
    let mut ask = |name: &str, text: &str, expected: bool| -> Result<()> {
        let path = folder.path().join(name);
        fs::write(&path, text)?;
        let (envoy, check) = (Envoy::validate(&path), refused(name, text));
        if envoy.is_ok() != expected || check.is_none() != expected {
            disagree.push(format!("{name}: Envoy {envoy:?}, check {check:?}\n{text}"));
        }
        Ok(())
    };
    ask("taken.json", &text(&TAKEN.join(","), &policy("a"))?, true)?;
    for inside in REFUSED {
        ask("refused.json", &text(inside, &policy("a"))?, false)?;
    }
    for name in ["twice.json", "twice.yaml"] {
        ask(name, &text("", &format!("{}, {}", policy("a b"), policy("a")))?, true)?;
        ask(name, &text("", &format!("{}, {}", policy("a"), policy("a b")))?, false)?;
    }
    // Envoy reads only the first document of YAML, whatever follows.
    let good = text("", &policy("a"))?;
    ask("more.yaml", &format!("{good},"), true)?;
    ask("more.json", &format!("{good},"), false)?;
    ask("mark.json", &format!("\u{feff}{good}"), false)?;
    ask("mark.yaml", &format!("\u{feff}{good}"), true)?;
    ask("lines.json", &good.replace(',', ",\r\n\t"), true)?;
    ensure!(disagree.is_empty(), "{} disagree:\n{}", disagree.len(), disagree.join("\n\n"));
    Ok(())
}

#[test]
fn check_reads_what_a_running_envoy_shows_of_its_configuration() -> Result<()> {
    let given = serde_json::json!({
        "egress": {"rules": [{"name": "a", "reason": "é \"x\"", "to": [{"host": "a.test", "ports": [443]}], "methods": ["GET"]}]},
        "rateLimits": [{"name": "b", "key": [{"sourceAddress": {}}], "limit": {"requests": 100, "per": "1m"}}],
    });
    let string = format!(
        "\"@type\": type.googleapis.com/google.protobuf.StringValue\nvalue: {}",
        Value::from(given.to_string())
    );
    let admin = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n";
    let envoy = Bootstrap::text(&format!("{}{admin}", bootstrap(&string)?))?.start()?;
    let input = inputs::envoy(&envoy.admin().address().to_string())?;
    let file = ManifestFile::read_as(&input.name, input.text, false)?;
    let found: Vec<Value> = file.policies.iter().map(|policy| json(&policy.node)).collect();
    ensure!(found == [given], "{found:?}");
    let other =
        inputs::envoy(&format!("{}/listeners", envoy.admin().address())).err().context("the listeners are no dump")?;
    ensure!(other.to_string().contains("write the address of Envoy's admin interface"), "{other}");
    Ok(())
}
