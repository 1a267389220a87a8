//! What a decision says of itself: to the caller in JSON, to the operator in one log line.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;

use super::authority::Host;
use super::{Refusal, Rule};
use crate::decision::{Action, Decision, Response};
use crate::request::Request;

/// What the log line of a decision has beside the decision itself.
#[derive(Clone, Debug, Default)]
pub struct Report<'a> {
    /// The rule that allowed the request, or came nearest.
    pub rule: Option<&'a Rule>,
    /// The caller's verified identity, when it was asked for and there is one.
    pub caller: Option<Vec<u8>>,
    /// The port of the destination.
    pub port: Option<u16>,
    /// The random id of a refusal, also of one that was held back.
    pub id: Option<u64>,
}

/// An id as it is written: 16 hexadecimal digits.
fn id_text(id: u64) -> String {
    format!("{id:016x}")
}

/// A host in its normal form.
fn host_text(host: &Host<'_>) -> String {
    match host {
        Host::Name(name) => String::from_utf8_lossy(name).to_ascii_lowercase(),
        Host::Address(IpAddr::V4(address)) => address.to_string(),
        Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
    }
}

/// Appends `"text"` with JSON's escapes.
fn push_json(text: &str, out: &mut String) {
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// The response of a refusal; Envoy makes `grpc-status: 7` of a 403 to a gRPC client. `host` is `None` when the
/// authority has no single reading.
pub(super) fn response<'a>(refusal: &Refusal<'_>, host: Option<&Host<'_>>, id: u64) -> Response<'a> {
    let mut body = String::with_capacity(128);
    body.push_str(r#"{"error":"egress denied","reason":""#);
    body.push_str(refusal.reason);
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
    }
}

/// The decision as one line of JSON: the same keys in the same order for every outcome, `null` for what is not known.
/// `None` when no egress decision was made. The query is never in it: it carries secrets.
pub fn log_line(request: &Request<'_>, decision: &Decision<'_>) -> Option<String> {
    let report = decision.egress.as_ref()?;
    let outcome = match (&decision.action, decision.would_respond) {
        (_, Some(_)) => "audit",
        (Action::Continue, None) => "allow",
        (Action::Respond(_), None) => "deny",
    };
    let mut line = String::with_capacity(256);
    line.push_str(r#"{"egress":""#);
    line.push_str(outcome);
    line.push('"');
    let mut field = |name: &str, value: Option<Cow<'_, str>>| {
        line.push_str(",\"");
        line.push_str(name);
        line.push_str("\":");
        match value {
            Some(value) => push_json(&value, &mut line),
            None => line.push_str("null"),
        }
    };
    let text = |bytes: &'_ [u8]| (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned().into());
    field("why", decision.reason.map(Cow::Borrowed));
    field("rule", report.rule.map(|rule| Cow::Borrowed(&*rule.name)));
    field("owner", report.rule.and_then(|rule| rule.owner.as_deref()).map(Cow::Borrowed));
    field("reason", report.rule.and_then(|rule| rule.reason.as_deref()).map(Cow::Borrowed));
    field("caller", report.caller.as_deref().and_then(text));
    field("host", text(&request.host.to_ascii_lowercase()));
    field("method", text(request.method));
    field("path", text(request.path));
    field("id", report.id.map(|id| id_text(id).into()));
    match report.port {
        // A `String` takes every write.
        Some(port) => drop(write!(line, ",\"port\":{port}}}")),
        None => line.push_str(",\"port\":null}"),
    }
    Some(line)
}
