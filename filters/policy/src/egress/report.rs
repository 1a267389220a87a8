//! The reports of a decision: a JSON body for the caller, and a log line for the operator.

use std::borrow::Cow;
use std::net::IpAddr;

use super::authority::{Authority, UriHost};
use super::facts::DestinationPort;
use super::refusal::EgressRefusal;
use crate::decision::{EgressOutcome, Response};
use crate::document::visible;
use crate::environment::Environment;
use crate::request::Request;

/// An id in its written form: 16 hexadecimal digits.
fn id_text(id: u64) -> String {
    format!("{id:016x}")
}

/// A host in its normal form.
pub(super) fn host_text(host: &UriHost<'_>) -> String {
    match host {
        UriHost::Name(name) => String::from_utf8_lossy(name).to_ascii_lowercase(),
        UriHost::Address(IpAddr::V4(address)) => address.to_string(),
        UriHost::Address(IpAddr::V6(address)) => format!("[{address}]"),
    }
}

/// Appends `"text"` with JSON's escapes, hidden characters included.
fn push_json(text: &str, out: &mut String) {
    out.push_str(&visible(&serde_json::to_string(text).unwrap_or_default()));
}

/// The response of a refusal. `host` is `None` when the authority is ambiguous.
pub(super) fn response<'a>(refusal: &EgressRefusal<'_>, host: Option<&UriHost<'_>>, id: u64) -> Response<'a> {
    let mut body = String::with_capacity(128);
    body.push_str(r#"{"error":"egress denied","reason":""#);
    body.push_str(refusal.reason.as_str());
    body.push_str(r#"","host":"#);
    match host {
        Some(host) => push_json(&host_text(host), &mut body),
        None => body.push_str("null"),
    }
    body.push_str(r#","rule":"#);
    match refusal.rule {
        Some(rule) => push_json(&rule.name, &mut body),
        None => body.push_str("null"),
    }
    body.push('}');
    Response {
        status: refusal.status,
        headers: smallvec::smallvec![
            ("content-type", Cow::Borrowed(&b"application/json"[..])),
            ("x-penstock-decision-id", Cow::Owned(id_text(id).into_bytes())),
        ],
        body: Cow::Owned(body.into_bytes()),
        // PERMISSION_DENIED: from 400 or 421 the proxy would derive other codes.
        grpc_status: Some(7),
    }
}

/// The decision as one line of JSON: the same keys in the same order for every outcome, `null` for what is not known.
/// The environment is asked for the port if no rule needed it. The query is never in it, because it may carry secrets.
pub fn log_line(request: &Request<'_>, outcome: &EgressOutcome<'_>, environment: &mut impl Environment) -> String {
    let ask = || Authority::parse(request.authority).ok().and_then(|_| DestinationPort::OfConnection.get(environment));
    let port = outcome.port.or_else(ask);
    line(outcome, port, request.host, Some((request.method, request.path)))
}

/// The line; without method and path for a connection.
pub(super) fn line(
    outcome: &EgressOutcome<'_>,
    port: Option<u16>,
    host: &[u8],
    method_and_path: Option<(&[u8], &[u8])>,
) -> String {
    let mut line = String::with_capacity(256);
    line.push_str(r#"{"egress":""#);
    line.push_str(outcome.verdict.as_str());
    line.push('"');
    let mut field = |name: &str, value: Option<&[u8]>| {
        line.push_str(",\"");
        line.push_str(name);
        line.push_str("\":");
        match value.filter(|value| !value.is_empty()) {
            Some(value) => push_json(&String::from_utf8_lossy(value), &mut line),
            None => line.push_str("null"),
        }
    };
    let (method, path) = method_and_path.unzip();
    field("why", outcome.reason.map(|reason| reason.as_str().as_bytes()));
    field("rule", outcome.rule.map(str::as_bytes));
    field("owner", outcome.owner.map(str::as_bytes));
    field("reason", outcome.purpose.map(str::as_bytes));
    field("caller", outcome.caller.as_deref());
    field("host", Some(&host.to_ascii_lowercase()));
    field("method", method);
    field("path", path);
    field("id", outcome.id.map(id_text).as_deref().map(str::as_bytes));
    line.push_str(",\"port\":");
    match port {
        Some(port) => line.push_str(&port.to_string()),
        None => line.push_str("null"),
    }
    line.push('}');
    line
}
