//! The JSON Schema and the parser agree wherever JSON Schema can express the rule.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::path::Path;

use common::{invalid_documents, penstock};
use penstock::yaml::Located;
use penstock::yaml_text;
use penstock_policy::document::Node;
use penstock_policy::{Module, check};
use serde_json::{Value, json};

/// Rules that JSON Schema cannot express, by the parser's message, with the reason.
///
/// `…` separates the parts of a message.
const BEYOND: [(&str, &str); 41] = [
    (".variants[….name: …is not a route name", "a condition on a field of the same object, in one of its uses"),
    ("is not a whole number of seconds", "arithmetic"),
    ("is given twice", "a reader of JSON keeps one of two equal keys"),
    ("is already the name of", "uniqueness by one field"),
    ("is not the name of a variant", "a reference from one part of the document to another"),
    ("have weights that sum to zero", "arithmetic"),
    ("have no weight but that of", "arithmetic"),
    ("has no meaning beside `redirect`", "a condition on another field"),
    ("changes `location`, which the redirect writes itself", "a condition on another field"),
    ("back to itself", "a comparison of two fields"),
    ("watches a route, but the rule has none", "a condition on another field"),
    ("is not the name of a canary", "a reference from one part of the document to another"),
    ("so only rules evaluate it", "a reference from one part of the document to another"),
    ("is the variant itself", "a comparison of two fields"),
    ("is the rule's own route", "a comparison of two fields"),
    ("is longer than the timeout", "a comparison of two fields"),
    ("is not after `notBefore`", "a comparison of two fields"),
    ("is more than `max`", "a comparison of two fields"),
    ("is more than the burst", "a comparison of two fields"),
    ("changes `", "uniqueness across lists"),
    ("ReplacePrefixMatch has no prefix to replace", "a condition on a field of another branch"),
    ("has no meaning with an empty key", "a condition on a field of another branch"),
    ("watches nothing", "it could; the message would be worse"),
    ("is required; only the last step", "every entry of a list but the last"),
    ("is empty; give at least one variant", "it could; the list's type is shared"),
    ("retry-after is written by the limit itself", "a comparison in one place of a shared type"),
    ("it is the route header", "the header's name is a setting"),
    ("is not a regular expression", "RE2 syntax is not that of ECMA 262"),
    ("keys do not fit", "a sum over the document"),
    ("is given in `settings` too", "a condition on a section of the document"),
    ("is a regular expression beyond the limit", "a sum over the document"),
    ("is not canonical", "an algorithm, not a pattern"),
    ("is not an address range", "the grammar of IPv6 addresses"),
    ("has bits set after its prefix", "arithmetic"),
    ("is not a time", "the calendar"),
    ("is not a SPIFFE ID", "the parts of a URI"),
    ("has a star", "the parts of a URI"),
    ("must have either trustedHops or trustedProxies", "it could; the message would be worse"),
    ("would change what the egress rules have matched", "a condition on a section of the document"),
    ("would change the request's target after the egress rules", "a condition on a section of the document"),
    ("changes the request's target, and the policy has `egress`", "a condition on a section of the document"),
];

fn schema() -> Value {
    serde_json::from_str(&penstock::schema::text()).unwrap()
}

fn validator() -> jsonschema::Validator {
    jsonschema::draft202012::new(&schema()).unwrap()
}

/// Whether `text` contains all parts of `message`.
fn says(text: &str, message: &str) -> bool {
    message.split('…').all(|part| text.contains(part))
}

/// Where both differ, except when all of the parser's problems are beyond the schema.
fn disagreement(validator: &jsonschema::Validator, node: &Node) -> Option<String> {
    let json = yaml_text::value(node);
    let by_schema = validator.is_valid(&json);
    match check(node, Module::Suite) {
        Ok(_) if by_schema => None,
        Ok(_) => {
            let errors: Vec<String> =
                validator.iter_errors(&json).map(|error| format!("{}: {error}", error.instance_path())).collect();
            Some(format!("the schema refuses what the parser takes: {errors:?}"))
        }
        Err(problems) if by_schema => {
            let known = |text: &str| BEYOND.iter().any(|(message, _)| says(text, message));
            let unknown = problems.iter().map(ToString::to_string).find(|text| !known(text));
            unknown.map(|text| format!("the parser refuses what the schema takes: {text}"))
        }
        Err(_) => None,
    }
}

#[track_caller]
fn assert_agreement(documents: &[Node]) {
    let validator = validator();
    let mut found: Vec<String> = documents.iter().filter_map(|document| disagreement(&validator, document)).collect();
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Every policy of the contract and of our tests that could be valid.
fn policies() -> Vec<Node> {
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("../filters/policy/tests/contract");
    let mut policies = Vec::new();
    for entry in std::fs::read_dir(contract).unwrap() {
        for line in std::fs::read_to_string(entry.unwrap().path()).unwrap().lines() {
            let Ok(case) = Node::from_json(line.as_bytes()) else { continue };
            policies.extend(case.get("policy").cloned());
        }
    }
    let shop = std::fs::read_to_string(common::folder().join("shop.yaml")).unwrap();
    policies.push(Located::read(&shop).unwrap().node);
    policies.push(Located::read(include_str!("policies/everything.yaml")).unwrap().node);
    policies.push(Located::read(include_str!("policies/rewrite.yaml")).unwrap().node);
    policies
}

#[test]
fn the_schema_is_a_schema() {
    assert!(jsonschema::draft202012::meta::is_valid(&schema()));
    let run = penstock(&["schema"], "");
    assert_eq!((run.status, run.out), (0, penstock::schema::text()));
}

#[test]
fn the_committed_copy_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/penstock.schema.json");
    let current = std::fs::read_to_string(&path).is_ok_and(|text| text == penstock::schema::text());
    if !current && std::env::var_os("PENSTOCK_WRITE").is_some() {
        std::fs::write(&path, penstock::schema::text()).unwrap();
    } else {
        assert!(current, "run `penstock schema > docs/penstock.schema.json`");
    }
}

#[test]
fn the_contracts_documents_and_the_invalid_ones_are_judged_alike() {
    let mut policies = policies();
    assert!(policies.len() > 100, "{}", policies.len());
    policies.extend(invalid_documents().iter().map(|(_, text)| Located::read(text).unwrap().node));
    assert_agreement(&policies);
}

#[test]
fn every_rule_that_is_beyond_the_schema_is_one_that_it_cannot_say() {
    let said: String = invalid_documents()
        .iter()
        .filter_map(|(_, text)| check(&Located::read(text).unwrap().node, Module::Suite).err())
        .map(|problems| format!("{problems}\n"))
        .collect();
    // Not in the corpus: too long to write, or only reached by a mutation.
    let elsewhere = ["is a regular expression beyond the limit", "is more than `max`", "have no weight but that of"];
    for (message, _) in BEYOND {
        assert!(
            elsewhere.contains(&message) || said.lines().any(|text| says(text, message)),
            "nothing is refused with {message:?}"
        );
    }
}

/// Every document that differs from `node` in one place: a value of another type, a missing field, an additional field.
fn mutations(node: &Node) -> Vec<Node> {
    let mut values: Vec<Node> = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(250),
        json!(1.5),
        json!(99999),
        json!(10_000_000_000_u64),
        json!(""),
        json!(" "),
        json!("x"),
        json!("X y"),
        json!("/"),
        json!("/a?b"),
        json!("//"),
        json!("5s"),
        json!("0s"),
        json!("1.5s"),
        json!("*.com"),
        json!("*.a.test"),
        json!("a.test."),
        json!("10.0.0.0/8"),
        json!("Host"),
        json!("Te"),
        json!("::1/128"),
        json!("get"),
        json!("PURGE"),
        json!("503"),
        json!("Exact"),
        json!("In"),
        json!("Present"),
        json!("é"),
        json!("\u{7f}"),
        json!("2026-01-31T09:30:00Z"),
        json!("spiffe://a/b"),
        json!([]),
        json!({}),
        json!(["x"]),
    ]
    .iter()
    .map(|value| Node::from_json(value.to_string().as_bytes()).unwrap())
    .collect();
    match node {
        Node::List(items) => {
            for (i, item) in items.iter().enumerate() {
                for mutation in mutations(item) {
                    let mut items = items.clone();
                    items[i] = mutation;
                    values.push(Node::List(items));
                }
            }
        }
        Node::Map(entries) => {
            for (i, (key, value)) in entries.iter().enumerate() {
                let mut fewer = entries.clone();
                fewer.remove(i);
                values.push(Node::Map(fewer));
                for mutation in mutations(value) {
                    let mut entries = entries.clone();
                    entries[i] = (key.clone(), mutation);
                    values.push(Node::Map(entries));
                }
            }
            let mut more = entries.clone();
            more.push(("extra".into(), Node::Bool(true)));
            values.push(Node::Map(more));
        }
        _ => {}
    }
    values
}

#[test]
fn a_document_with_one_mistake_anywhere_is_judged_alike() {
    let everything = Located::read(include_str!("policies/everything.yaml")).unwrap().node;
    let mut all = mutations(&everything);
    assert!(all.len() > 5_000, "{}", all.len());
    all.extend(mutations(&Located::read(include_str!("policies/rewrite.yaml")).unwrap().node));
    assert_agreement(&all);
}

#[test]
fn every_example_policy_tells_editors_its_schema() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration/demo");
    for entry in std::fs::read_dir(&demo).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let line = text.lines().next().unwrap();
        let schema = line.strip_prefix("# yaml-language-server: $schema=").unwrap_or_else(|| panic!("{line}"));
        assert!(demo.join(schema).exists(), "{schema}");
    }
}
