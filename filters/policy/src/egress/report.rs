//! What a decision says of itself: to the caller in JSON, to the operator in one log line.

use std::borrow::Cow;
use std::net::IpAddr;

use super::authority::Host;
use super::connection::{Connection, Verdict};
use super::search::Port;
use super::{Refusal, Rule};
use crate::decision::{Action, Decision, Response, Section};
use crate::environment::Environment;
use crate::request::Request;

/// What the log line of a decision has beside the decision itself.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The rule that allowed the request, or came nearest.
    pub rule: Option<&'a Rule>,
    /// The caller's verified identity, when it was asked for and there is one.
    pub caller: Option<Vec<u8>>,
    /// The port of the destination; unless a decision needed it, it has not been asked for.
    pub port: Port<'a>,
    /// The random id of a refusal, also of one that was held back.
    pub id: Option<u64>,
}

/// An id as it is written: 16 hexadecimal digits.
fn id_text(id: u64) -> String {
    format!("{id:016x}")
}

/// A host in its normal form.
pub(super) fn host_text(host: &Host<'_>) -> String {
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

/// The response of a refusal. `host` is `None` when the
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
        // PERMISSION_DENIED; of a 400 or 421 the host would make other codes.
        grpc_status: Some(7),
    }
}

/// What became of a request or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A rule allows it.
    Allow,
    /// No rule does, and Audit lets it pass.
    Audit,
    /// It is refused.
    Deny,
}

impl Outcome {
    /// Of a decision that the egress section made; `None` when there is no such section.
    pub fn of(decision: &Decision<'_>) -> Option<Outcome> {
        decision.egress.as_ref()?;
        Some(match (decision.section, &decision.action, decision.would_respond) {
            (Some(Section::Egress), Action::Respond(_), _) => Outcome::Deny,
            (Some(Section::Egress), _, Some(_)) => Outcome::Audit,
            _ => Outcome::Allow,
        })
    }

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Allow => "allow",
            Outcome::Audit => "audit",
            Outcome::Deny => "deny",
        }
    }
}

/// The decision as one line of JSON: the same keys in the same order for every outcome, `null` for what is not known.
/// `None` when no egress decision was made; the environment is asked for the port where it is not known yet. The query is never in it: it carries secrets.
pub fn log_line(request: &Request<'_>, decision: &Decision<'_>, environment: &mut impl Environment) -> Option<String> {
    let report = decision.egress.as_ref()?;
    let outcome = Outcome::of(decision)?;
    let why = decision.reason.filter(|_| outcome != Outcome::Allow);
    let port = report.port.get(environment);
    Some(line(outcome, why, report, port, request.host, Some((request.method, request.path))))
}

/// The same for a connection: no method, no path.
pub fn connection_line(connection: &Connection<'_>, verdict: &Verdict<'_>) -> String {
    let outcome = match (verdict.is_open, verdict.reason) {
        (true, None) => Outcome::Allow,
        (true, Some(_)) => Outcome::Audit,
        (false, _) => Outcome::Deny,
    };
    let address = connection.destination.map(|address| address.to_string()).unwrap_or_default();
    line(outcome, verdict.reason, &verdict.report, connection.port, connection.sni.unwrap_or(address.as_bytes()), None)
}

fn line(
    outcome: Outcome,
    why: Option<&str>,
    report: &Report<'_>,
    port: Option<u16>,
    host: &[u8],
    method_and_path: Option<(&[u8], &[u8])>,
) -> String {
    let mut line = String::with_capacity(256);
    line.push_str(r#"{"egress":""#);
    line.push_str(outcome.as_str());
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
    let rule = report.rule;
    field("why", why.map(str::as_bytes));
    field("rule", rule.map(|rule| rule.name.as_bytes()));
    field("owner", rule.and_then(|rule| rule.owner.as_deref()).map(str::as_bytes));
    field("reason", rule.and_then(|rule| rule.reason.as_deref()).map(str::as_bytes));
    field("caller", report.caller.as_deref());
    field("host", Some(&host.to_ascii_lowercase()));
    field("method", method);
    field("path", path);
    field("id", report.id.map(id_text).as_deref().map(str::as_bytes));
    line.push_str(",\"port\":");
    match port {
        Some(port) => line.push_str(&port.to_string()),
        None => line.push_str("null"),
    }
    line.push('}');
    line
}
