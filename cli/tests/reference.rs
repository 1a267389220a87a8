//! The tables of `docs/policy.md` are generated from the declarations of the policy's fields.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use std::path::Path;

use penstock_policy::schema::{self, Object};
use serde_json::Value;

const END: &str = "<!-- end -->";

/// The type of a field in words, with links to the tables of objects.
fn kind(schema: &Value, definitions: &Value) -> String {
    if let Some(key) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        let definition = &definitions[key];
        return match (definition["enum"].as_array(), definition["title"].as_str(), definition.get("not")) {
            (Some(words), ..) => words
                .iter()
                .map(|word| format!("`{}`", word.to_string().trim_matches('"')))
                .collect::<Vec<_>>()
                .join(", "),
            (_, Some(title), _) => title.to_owned(),
            (.., Some(_)) if definition["properties"].is_null() => "nothing yet".to_owned(),
            _ => format!("[{key}](#{})", key.replace('.', "").to_lowercase()),
        };
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        return choices.iter().map(|choice| kind(choice, definitions)).collect::<Vec<_>>().join(", or ");
    }
    match schema["type"].as_str() {
        Some("array") => {
            let items = kind(&schema["items"], definitions);
            let at_least = if schema["minItems"] == 1 { ", at least one" } else { "" };
            format!("list of {items}{at_least}")
        }
        Some("integer") => format!("{} to {}", schema["minimum"], schema["maximum"]),
        Some("boolean") => "true or false".to_owned(),
        Some("object") if schema["properties"].is_null() => "`{}`".to_owned(),
        Some("object") => {
            let fields: Vec<String> =
                schema["properties"].as_object().unwrap().keys().map(|name| format!("{name}: …")).collect();
            format!("`{{{}}}`", fields.join(", "))
        }
        _ => "string".to_owned(),
    }
}

fn table(object: &Object, definitions: &Value) -> String {
    let mut text = format!("{}\n\n| field | value | default | |\n|---|---|---|---|\n", object.description);
    for field in &object.fields {
        let default = match (&field.schema["default"], field.required) {
            (_, true) => "required".to_owned(),
            (Value::Null, false) => String::new(),
            (value, false) => format!("`{}`", value.to_string().trim_matches('"')),
        };
        let description = field.schema["description"].as_str().unwrap_or_default().replace('|', "\\|");
        text += &format!("| `{}` | {} | {default} | {description} |\n", field.name, kind(&field.schema, definitions));
    }
    text
}

/// The page with every table between its markers generated again.
fn renewed(page: &str) -> String {
    let schema = schema::document();
    let objects = schema::objects();
    let mut seen = Vec::new();
    let mut parts = page.split("<!-- fields of ");
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        let (key, rest) = part.split_once(" -->").unwrap();
        let object = objects.iter().find(|object| object.key == key).unwrap_or_else(|| panic!("no object {key}"));
        let after = rest.split_once(END).unwrap_or_else(|| panic!("{key} has no end")).1;
        text += &format!("<!-- fields of {key} -->\n{}{END}{after}", table(object, &schema["$defs"]));
        seen.push(key.to_owned());
    }
    let missing: Vec<&str> =
        objects.iter().map(|o| o.key.as_str()).filter(|key| !seen.iter().any(|s| s == key)).collect();
    assert!(missing.is_empty(), "docs/policy.md has no table of {missing:?}");
    text
}

#[test]
fn the_tables_of_the_reference_are_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let renewed = renewed(&page);
    if std::env::var_os("PENSTOCK_WRITE").is_some() {
        std::fs::write(&path, &renewed).unwrap();
    } else {
        assert!(page == renewed, "run the tests with PENSTOCK_WRITE=1");
    }
}
