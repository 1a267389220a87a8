//! Envoy's access log formats: a format string, or the object of `json_format`.
//!
//! Values may contain anything that a client sends, including the separators of the format. A line is only accepted
//! when there is exactly one way to parse it; if there are two, it is left out.

use std::ops::Range;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::fields::{LogField, LogRecord};

/// Envoy's default format.
pub const ENVOY: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
    \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"";

/// Istio's default format.
pub const ISTIO: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
    \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%";

/// A parsed format.
#[derive(Clone, Debug)]
pub enum LogFormat {
    /// Lines of text.
    Text(Vec<Piece>),
    /// Lines of JSON: the meaning of the value at each path.
    Json(Vec<(Vec<String>, Vec<Piece>)>),
}

/// A part of a format string.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Literal text.
    Literal(String),
    /// A value.
    Value(LogField),
}

impl LogFormat {
    /// Parses a format string, or JSON: the object of Envoy's `json_format`.
    ///
    /// # Errors
    /// Returns an error when it is invalid, or when it does not contain the request.
    pub fn parse(format: &str) -> anyhow::Result<LogFormat> {
        let format = format.trim_end_matches(['\n', '\r']);
        let parsed = match serde_json::from_str::<Value>(format.trim()) {
            Ok(Value::Object(object)) => {
                let mut entries = Vec::new();
                json_entries(&Value::Object(object), &mut Vec::new(), &mut entries)?;
                LogFormat::Json(entries)
            }
            // With the escapes of a YAML or JSON text in double quotes, from which it may be copied.
            _ => LogFormat::Text(pieces(format.trim_end_matches("\\n").replace("\\t", "\t").as_str())?),
        };
        let all: Vec<&Piece> = match &parsed {
            LogFormat::Text(pieces) => pieces.iter().collect(),
            LogFormat::Json(entries) => entries.iter().flat_map(|(_, pieces)| pieces).collect(),
        };
        let has = |wanted: fn(&LogField) -> bool| {
            all.iter().any(|piece| matches!(piece, Piece::Value(field) if wanted(field)))
        };
        ensure!(
            has(LogField::is_method) && has(LogField::is_path) && has(LogField::is_authority),
            "the log format does not say what the requests were: it needs %REQ(:METHOD)%, %REQ(:PATH)% (or \
             %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%) and %REQ(:AUTHORITY)%"
        );
        Ok(parsed)
    }

    /// Parses a line; `None` when it does not have this format, or when there are several ways to parse it.
    pub fn read(&self, line: &[u8]) -> Option<LogRecord> {
        let mut found = LogRecord::default();
        match self {
            LogFormat::Text(pieces) => take_apart(pieces, &String::from_utf8_lossy(line), &mut found)?,
            LogFormat::Json(entries) => {
                let object: Value = serde_json::from_slice(line).ok().filter(Value::is_object)?;
                for (keys, pieces) in entries {
                    let value = keys.iter().try_fold(&object, |value, key| value.get(key));
                    let text = match value {
                        Some(Value::String(text)) => text.clone(),
                        Some(Value::Number(number)) => number.to_string(),
                        _ => continue,
                    };
                    match pieces.as_slice() {
                        [Piece::Value(field)] => found.take(field, &text),
                        pieces => take_apart(pieces, &text, &mut found)?,
                    }
                }
            }
        }
        Some(found)
    }
}

fn json_entries(
    value: &Value,
    keys: &mut Vec<String>,
    entries: &mut Vec<(Vec<String>, Vec<Piece>)>,
) -> anyhow::Result<()> {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                keys.push(key.clone());
                json_entries(value, keys, entries)?;
                keys.pop();
            }
        }
        Value::String(format) => entries.push((keys.clone(), pieces(format)?)),
        _ => {}
    }
    Ok(())
}

/// The parts of a format string.
fn pieces(format: &str) -> anyhow::Result<Vec<Piece>> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut literal = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        literal.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let (field, after) = operator(after).with_context(|| format!("the log format {format:?}"))?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        } else if matches!(pieces.last(), Some(Piece::Value(_))) {
            bail!("the log format {format:?} has nothing between two values: so it is unclear where one ends");
        }
        pieces.push(Piece::Value(field));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

/// Parses an operator such as `REQ(X?Y):20%`; returns the rest, too.
fn operator(text: &str) -> anyhow::Result<(LogField, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')).unwrap_or(text.len());
    let (name, mut rest) = text.split_at_checked(end).unwrap_or_default();
    ensure!(
        !name.is_empty(),
        "a % does not begin an operator of Envoy such as %REQ(:METHOD)% (a percent sign itself is %%)"
    );
    let mut argument = "";
    if let Some(inside) = rest.strip_prefix('(') {
        let (inside, after) = inside.split_once(')').with_context(|| format!("%{name}( has no closing parenthesis"))?;
        (argument, rest) = (inside, after);
    }
    let mut longest = None;
    if let Some(after) = rest.strip_prefix(':') {
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (digits, after) = after.split_at_checked(end).unwrap_or_default();
        longest = digits.parse().ok();
        rest = after;
    }
    let rest = rest.strip_prefix('%').with_context(|| format!("%{name} has no closing %"))?;
    Ok((LogField::new(name, argument, longest), rest))
}

/// The maximum number of attempts for a line; a hostile one is left out.
const ATTEMPTS: usize = 20_000;

/// Adds the values of `text` to `found`, when there is exactly one way to parse it.
fn take_apart(pieces: &[Piece], text: &str, found: &mut LogRecord) -> Option<()> {
    let text = text.trim_end_matches(['\n', '\r']);
    let solve = |longest_first: bool| {
        let mut values = Vec::new();
        let mut attempts = ATTEMPTS;
        split(pieces, text, 0, longest_first, &mut attempts, &mut values).then_some(values)
    };
    // If the parses with the shortest and with the longest values are equal, there is no other.
    let values = solve(false)?;
    if solve(true)? != values {
        return None;
    }
    let fields = pieces.iter().filter_map(|piece| match piece {
        Piece::Value(field) => Some(field),
        Piece::Literal(_) => None,
    });
    for (field, range) in fields.zip(values) {
        found.take(field, text.get(range)?);
    }
    Some(())
}

/// Finds the first way to parse `text` from `at` on.
fn split(
    pieces: &[Piece],
    text: &str,
    at: usize,
    longest_first: bool,
    attempts: &mut usize,
    values: &mut Vec<Range<usize>>,
) -> bool {
    let rest = text.get(at..).unwrap_or_default();
    match pieces {
        [] => rest.is_empty(),
        [Piece::Literal(literal), pieces @ ..] => {
            rest.starts_with(literal.as_str())
                && split(pieces, text, at + literal.len(), longest_first, attempts, values)
        }
        [Piece::Value(field), pieces @ ..] => {
            // The furthest end of the value.
            let reach = rest.find(|c| !field.allows(c)).unwrap_or(rest.len());
            let mut attempt = |length: usize| {
                *attempts = attempts.saturating_sub(1);
                values.push(at..at + length);
                if *attempts > 0 && split(pieces, text, at + length, longest_first, attempts, values) {
                    return true;
                }
                values.pop();
                false
            };
            match pieces.first() {
                Some(Piece::Literal(next)) => {
                    let within = rest.get(..(reach + next.len()).min(rest.len())).or(Some(rest)).unwrap_or_default();
                    if longest_first {
                        within.rmatch_indices(next.as_str()).any(|(length, _)| length <= reach && attempt(length))
                    } else {
                        within.match_indices(next.as_str()).any(|(length, _)| length <= reach && attempt(length))
                    }
                }
                _ => reach == rest.len() && attempt(rest.len()),
            }
        }
    }
}
