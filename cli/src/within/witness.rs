//! Example requests that show an excess: the team's policy passes them, the platform's does not.

use penstock_policy::wire::WireRequest;
use penstock_policy::{Policy, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value, json};

use penstock_policy::wire::World;

use crate::words;

/// An example, in the format of `penstock replay`.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Witness {
    /// A request that the team's policy passes and the platform's refuses.
    Request(Value),
    /// Requests that the team's policy passes, of which the platform's refuses the last.
    Sequence(Vec<Value>),
}

impl Witness {
    /// Makes an example of requests in order.
    pub fn of(requests: &[RequestDraft]) -> Witness {
        match requests {
            [request] => Witness::Request(request.json()),
            requests => Witness::Sequence(requests.iter().map(RequestDraft::json).collect()),
        }
    }
}

/// A request under construction.
#[derive(Clone, Debug, Default)]
pub struct RequestDraft {
    /// `:method`.
    pub method: String,
    /// `:scheme`.
    pub scheme: Option<&'static str>,
    /// `:authority`.
    pub authority: String,
    /// `:path`.
    pub path: String,
    /// The headers in order.
    pub headers: Vec<(String, String)>,
    /// The caller's identity.
    pub peer: Option<String>,
    /// The server name of the TLS handshake.
    pub sni: Option<String>,
    /// The client's address.
    pub source_address: Option<String>,
    /// The time of the request.
    pub time: Option<Timestamp>,
    /// The claims of a verified token.
    pub claims: Option<Value>,
    /// The metadata of an earlier filter.
    pub metadata: Option<Value>,
    /// The response of a rate-limit service.
    pub service: Option<&'static str>,
    /// The response of the upstream.
    pub response: Option<Value>,
}

impl RequestDraft {
    /// The request in the format of `penstock replay`.
    pub fn json(&self) -> Value {
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| drop(map.insert(name.to_owned(), value));
        put("method", json!(self.method));
        if let Some(scheme) = self.scheme {
            put("scheme", json!(scheme));
        }
        put("authority", json!(self.authority));
        put("path", json!(self.path));
        if !self.headers.is_empty() {
            put("headers", json!(self.headers));
        }
        let texts = [("peer", &self.peer), ("sni", &self.sni), ("sourceAddress", &self.source_address)];
        for (name, text) in texts {
            if let Some(text) = text {
                put(name, json!(text));
            }
        }
        if let Some(time) = self.time {
            put("time", json!(words::instant(time)));
        }
        if let Some(service) = self.service {
            put("rateLimitService", json!(service));
        }
        for (name, value) in [("claims", &self.claims), ("metadata", &self.metadata), ("response", &self.response)] {
            if let Some(value) = value {
                put(name, value.clone());
            }
        }
        Value::Object(map)
    }

    /// The request for the engine.
    pub fn wire(&self) -> Option<WireRequest> {
        serde_json::from_value(self.json()).ok()
    }

    /// A human-readable line: `GET https://a.test/x, caller spiffe://…`.
    pub fn words(&self) -> String {
        let url = match self.method.as_str() {
            "CONNECT" => self.authority.clone(),
            _ => format!("{}://{}{}", self.scheme.unwrap_or("https"), self.authority, long(&self.path)),
        };
        let mut text = format!("{} {url}", self.method);
        for (name, value) in &self.headers {
            text += &format!(", {name}: {}", long(value));
        }
        let parts = [("caller", &self.peer), ("server name", &self.sni), ("from", &self.source_address)];
        for (what, part) in parts {
            if let Some(part) = part {
                text += &format!(", {what} {part}");
            }
        }
        if let Some(time) = self.time {
            text += &format!(", at {}", words::instant(time));
        }
        text
    }
}

/// A text that is shortened when it is very long, with its length.
fn long(text: &str) -> String {
    const MOST: usize = 200;
    match text.chars().count() {
        length if length > MOST => {
            format!("{} ({} characters)", words::shortened(text, 40), words::thousands(length as u64))
        }
        _ => text.to_owned(),
    }
}

/// Why `policy` refuses a request; `None` when it passes.
pub fn refusal(policy: &Policy, request: &WireRequest, world: &mut World) -> Option<WitnessAnswer> {
    let decision = request.decide(policy, world);
    (decision.action == Some("respond")).then(|| WitnessAnswer {
        status: decision.status.unwrap_or_default(),
        reason: decision.reason.map(|reason| reason.to_string()).unwrap_or_default(),
    })
}

/// A policy's own response instead of the upstream's.
#[derive(Clone, Debug)]
pub struct WitnessAnswer {
    /// Its status.
    pub status: u16,
    /// Its reason.
    pub reason: String,
}
