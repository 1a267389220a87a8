//! JSON lines on standard error, one an event.

use std::io::Write;

use serde_json::{Map, Value, json};

use crate::{replay, words};

/// Writes one line.
pub fn line(level: &str, message: &str, fields: Value) {
    let mut all = Map::new();
    all.insert("time".to_owned(), json!(words::instant(replay::now())));
    all.insert("level".to_owned(), json!(level));
    all.insert("message".to_owned(), json!(message));
    if let Value::Object(fields) = fields {
        all.extend(fields);
    }
    // If the log cannot be written, admissions continue.
    let _ = writeln!(std::io::stderr().lock(), "{}", Value::Object(all));
}
