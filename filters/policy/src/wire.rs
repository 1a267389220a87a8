//! Requests and decisions as JSON: the form of `penstock replay` and of the contract's cases. Not in the modules.

mod envoy_headers;
mod received;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::breaker::{Outcome, is_grpc_failure};
use crate::decision::{Action, Decision, HeaderOp};
use crate::document::GatewayDuration;
use crate::environment::{Environment, Timestamp, Trace};
use crate::explain::{Note, Notes};
use crate::facts::{Fact, FactPlace};
use crate::identity::IdentitySource;
use crate::policy::Policy;
use crate::rate_limits::{RlsReply, ServiceFailure};
use crate::reason::Reason;
use crate::request::{Header, Request, Scratch};
use crate::split_mix::split_mix;
use crate::state::{Change, Key, MapState, State, Unavailable};
use crate::worker_memory::WorkerMemory;

pub use received::{Field, as_received};

/// A request as one JSON object; only `method`, `authority` and `path` are required.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WireRequest {
    /// `:method`.
    pub method: String,
    /// `:scheme`; it also says whether the client's connection has TLS.
    #[serde(default)]
    pub scheme: Option<String>,
    /// `:authority`.
    pub authority: String,
    /// `:path` with its query; empty for a plain CONNECT.
    pub path: String,
    /// Names in any case.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Extended CONNECT's `:protocol`.
    #[serde(default)]
    pub protocol: Option<String>,
    /// The connection's peer.
    #[serde(default)]
    pub source_address: Option<IpAddr>,
    /// The port that the client connected to. Some records have it; no decision uses it.
    #[serde(default)]
    pub destination_port: Option<u16>,
    /// The server name of the TLS handshake.
    #[serde(default)]
    pub sni: Option<String>,
    /// The caller's verified identity.
    #[serde(default)]
    pub peer: Option<String>,
    /// The claims of the token that an earlier filter has verified; absent: `metadata` is used instead.
    #[serde(default)]
    pub claims: Option<serde_json::Map<String, serde_json::Value>>,
    /// The dynamic metadata that earlier filters have left, by namespace.
    #[serde(default)]
    pub metadata: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
    /// RFC 3339; absent: now.
    #[serde(default, deserialize_with = "timestamp")]
    pub time: Option<Timestamp>,
    /// How the upstream answers, for the breakers; absent: they observe nothing.
    #[serde(default)]
    pub response: Option<WireResponse>,
    /// How a rate-limit service answers, for limits of global scope: no real service is asked here.
    #[serde(default)]
    pub rate_limit_service: ServiceAnswer,
}

/// How a rate-limit service answers.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ServiceAnswer {
    /// The request may pass.
    #[default]
    Ok,
    /// Every limit in the request refuses it.
    OverLimit,
    /// It could not be asked, or answered with an error.
    Error,
    /// It does not answer in time.
    Timeout,
}

impl ServiceAnswer {
    fn reply(self) -> RlsReply {
        match self {
            ServiceAnswer::Ok => RlsReply::plain(false),
            ServiceAnswer::OverLimit => RlsReply::plain(true),
            ServiceAnswer::Error => RlsReply::failed(ServiceFailure::Error),
            ServiceAnswer::Timeout => RlsReply::failed(ServiceFailure::Timeout),
        }
    }
}

/// How the upstream answers a request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WireResponse {
    /// Of its status line.
    pub status: u16,
    /// The `grpc-status` of a gRPC upstream, in its headers or trailers.
    #[serde(default)]
    pub grpc_status: Option<u32>,
    /// The time from the end of the request to the response's headers.
    #[serde(default, deserialize_with = "latency")]
    pub latency: Duration,
    /// Names in any case; read by limits whose cost is in the response.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
}

/// Reads a duration such as `900ms`.
fn latency<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = || serde::de::Error::custom(format!("{text:?} is not a duration such as 900ms"));
    GatewayDuration::parse(&text).map(|duration| duration.0).ok_or_else(wrong)
}

/// Reads an RFC 3339 time between 1970 and 2554.
fn timestamp<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = || serde::de::Error::custom(format!("{text:?} is not a time such as 2026-01-31T09:30:00Z"));
    Timestamp::parse(&text).map(Some).ok_or_else(wrong)
}

impl WireRequest {
    /// The header map that a proxy would hand over: pseudo-headers first, names in lower case, no `:path` for a plain CONNECT;
    /// the other headers [as Envoy gives them to a filter](as_received).
    pub fn header_map(&self) -> Vec<Field> {
        let pseudo = [
            (":method", Some(&self.method)),
            (":scheme", self.scheme.as_ref()),
            (":authority", Some(&self.authority)),
            (":path", Some(&self.path).filter(|path| !path.is_empty())),
            (":protocol", self.protocol.as_ref()),
        ];
        let bytes = |name: String, value: &String| (name.into_bytes(), value.clone().into_bytes());
        let pseudo = pseudo.into_iter().filter_map(|(name, value)| Some(bytes(name.to_owned(), value?)));
        let headers = self.headers.iter().map(|(name, value)| bytes(name.to_ascii_lowercase(), value)).collect();
        pseudo.chain(as_received(headers)).collect()
    }

    /// Decides on the state that earlier requests left.
    pub fn decide(&self, policy: &Policy, world: &mut World) -> WireDecision {
        let owned = self.header_map();
        let headers: Vec<Header<'_>> = owned.iter().map(|(name, value)| (&**name, &**value)).collect();
        let scratch = [Scratch::default(), Scratch::default()];
        let [first, second] = scratch.each_ref().map(|scratch| Request::new(&headers).with_scratch(scratch));
        let decided = policy.decide(&first, &mut self.environment(world));
        let mut pending = match decided {
            Ok(decision) => return self.answered(policy, &decision, world),
            Err(pending) => pending,
        };
        // `resume` evaluates the other sections again, which write their notes again: remove those of the first evaluation.
        if let Some(notes) = &mut world.notes {
            notes.0.retain(|note| matches!(note, Note::Limit(_) | Note::NoKey { .. } | Note::Asked { .. }));
        }
        while policy.rls_request(&pending).is_some() {
            pending.on_reply(self.rate_limit_service.reply());
        }
        let decision = policy.resume(&second, &pending, &mut self.environment(world));
        WireDecision { rate_limit_service: Some("assumed"), ..self.answered(policy, &decision, world) }
    }

    /// The upstream answers, if the line says how.
    fn answered(&self, policy: &Policy, decision: &Decision<'_>, world: &mut World) -> WireDecision {
        if let (Some(notes), Some(outcome)) = (&mut world.notes, &decision.egress) {
            let caller = outcome.caller.as_ref().map(|caller| String::from_utf8_lossy(caller).into_owned());
            let (verdict, reason) = (outcome.verdict, outcome.reason);
            notes.0.push(Note::Egress { verdict, reason, caller });
        }
        if let Some(response) = &self.response {
            for reservation in &decision.reservations {
                let said = policy
                    .cost_header(reservation)
                    .and_then(|name| response.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)));
                if let Some((_, value)) = said {
                    let _ = policy.settle(reservation, value.as_bytes(), &mut self.environment(world));
                }
            }
        }
        if let (Some(watch), Some(response)) = (decision.watch, &self.response) {
            let outcome = Outcome {
                failed: response.status >= 500 || response.grpc_status.is_some_and(is_grpc_failure),
                latency: Some(response.latency),
            };
            let breakers = policy.breakers();
            let mut events = Vec::from_iter(breakers.observe(watch, outcome, &mut self.environment(world)));
            // The next line must see what this one changes.
            events.extend(breakers.settle(&mut self.environment(world)));
            world.events.extend(events.into_iter().map(|event| event.line));
        }
        WireDecision::new(decision)
    }

    /// Decides as [`WireRequest::decide`] does, and returns how it came about.
    pub fn explain(&self, policy: &Policy, world: &mut World) -> (WireDecision, Notes) {
        world.notes = Some(Notes::default());
        let decision = self.decide(policy, world);
        (decision, world.notes.take().unwrap_or_default())
    }

    fn fact(&self, place: &FactPlace) -> Fact {
        match (&self.claims, &place.claim) {
            (Some(claims), Some(_)) => {
                let claims = serde_json::Value::Object(claims.clone());
                FactPlace { path: Box::default(), ..place.clone() }.find(&claims)
            }
            _ => match self.metadata.get(&*place.namespace) {
                Some(fields) => place.find(&serde_json::Value::Object(fields.clone())),
                None => Fact::default(),
            },
        }
    }

    /// The environment that this request describes.
    pub fn environment<'a>(&'a self, world: &'a mut World) -> impl Environment + 'a {
        WireEnvironment { request: self, world }
    }
}

/// What requests share: randomness, state, and the clock for requests without a time.
#[derive(Debug)]
pub struct World {
    /// The time of requests that have none.
    pub now: Timestamp,
    /// The events of the breakers, in order.
    pub events: Vec<String>,
    /// The state of the random number generator: the same number gives the same choices.
    pub random: u64,
    /// The state that decisions share.
    pub state: MapState,
    /// What the only worker remembers.
    pub worker: WorkerMemory,
    notes: Option<Notes>,
}

impl World {
    /// A new environment without state; the same `seed` gives the same random choices.
    pub fn new(now: Timestamp, seed: u64) -> World {
        World {
            now,
            events: Vec::new(),
            random: seed,
            state: MapState::default(),
            worker: WorkerMemory::default(),
            notes: None,
        }
    }
}

/// The environment that a request line describes.
struct WireEnvironment<'a> {
    request: &'a WireRequest,
    world: &'a mut World,
}

impl Environment for WireEnvironment<'_> {
    fn now(&mut self) -> Timestamp {
        self.request.time.unwrap_or(self.world.now)
    }

    fn source_address(&mut self) -> Option<IpAddr> {
        self.request.source_address
    }

    /// A request line says it by its scheme.
    fn has_tls(&mut self) -> Option<bool> {
        match self.request.scheme.as_deref()? {
            scheme if scheme.eq_ignore_ascii_case("https") => Some(true),
            scheme if scheme.eq_ignore_ascii_case("http") => Some(false),
            _ => None,
        }
    }

    fn sni(&mut self) -> Option<Vec<u8>> {
        self.request.sni.as_ref().map(|sni| sni.clone().into_bytes())
    }

    fn peer(&mut self) -> Option<Vec<u8>> {
        self.request.peer.as_ref().map(|peer| peer.clone().into_bytes())
    }

    fn identity(&mut self, _: &IdentitySource) -> Option<Vec<u8>> {
        self.peer()
    }

    fn facts(&mut self, places: &[FactPlace]) -> Vec<Fact> {
        places.iter().map(|place| self.request.fact(place)).collect()
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): well mixed from any seed.
    fn random(&mut self) -> u64 {
        split_mix(&mut self.world.random)
    }

    fn worker(&mut self) -> &mut WorkerMemory {
        &mut self.world.worker
    }
}

impl Trace for WireEnvironment<'_> {
    fn is_tracing(&self) -> bool {
        self.world.notes.is_some()
    }

    fn note(&mut self, note: Note) {
        if let Some(notes) = &mut self.world.notes {
            notes.0.push(note);
        }
    }
}

impl State for WireEnvironment<'_> {
    fn update<T>(
        &mut self,
        key: Key<'_>,
        change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Unavailable> {
        self.world.state.update(key, change)
    }

    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable> {
        self.world.state.read(key, read)
    }
}

type Pair = (String, String);

/// A decision as one JSON object; absent keys are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WireDecision {
    /// `continue` or `respond`; `None` when the policy did not compile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<&'static str>,
    /// Status of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The section that gave the outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section: Option<&'static str>,
    /// The rule that gave the outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The route's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The canary variant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// What changes on the request.
    #[serde(skip_serializing_if = "WireHeaders::is_empty")]
    pub headers: WireHeaders,
    /// Headers of the response.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<Pair>,
    /// What changes on an upstream's response.
    #[serde(skip_serializing_if = "WireHeaders::is_empty")]
    pub response_changes: WireHeaders,
    /// Body of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The status of the refusal that Audit or Shadow did not enforce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_respond: Option<u16>,
    /// `assumed` when the decision rests on a rate-limit service: its answer is the request's `rateLimitService`, or OK.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit_service: Option<&'static str>,
    /// Why the line's own policy does not compile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_error: Option<String>,
}

/// Changes of the request's or the response's headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WireHeaders {
    /// Replaces every value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<Pair>,
    /// Adds one more value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<Pair>,
    /// Removes every value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

impl WireHeaders {
    fn of(changes: &[HeaderOp<'_>]) -> WireHeaders {
        let mut headers = WireHeaders::default();
        for op in changes {
            match op {
                HeaderOp::Set(name, value) => headers.set.push(pair(name, value)),
                HeaderOp::Add(name, value) => headers.add.push(pair(name, value)),
                HeaderOp::Remove(name) => headers.remove.push((*name).to_owned()),
            }
        }
        headers
    }

    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

fn pair(name: &str, value: &[u8]) -> Pair {
    (name.to_owned(), String::from_utf8_lossy(value).into_owned())
}

impl WireDecision {
    /// The JSON form of `decision`. Values that are not UTF-8 show U+FFFD.
    pub fn new(decision: &Decision<'_>) -> WireDecision {
        let mut wire = WireDecision {
            action: Some("continue"),
            section: decision.section.map(|section| section.field()),
            rule: decision.rule.map(str::to_owned),
            reason: decision.reason.map(Reason::as_str),
            route: decision.route.map(str::to_owned),
            variant: decision.variant.map(str::to_owned),
            headers: WireHeaders::of(&decision.headers),
            response_changes: WireHeaders::of(&decision.response_changes),
            response_headers: decision.response_headers.iter().map(|(name, value)| pair(name, value)).collect(),
            would_respond: decision.would_respond(),
            ..WireDecision::default()
        };
        if let Action::Respond(response) = &decision.action {
            wire.action = Some("respond");
            wire.status = Some(response.status);
            wire.response_headers.extend(response.headers.iter().map(|(name, value)| pair(name, value)));
            wire.body = Some(String::from_utf8_lossy(&response.body).into_owned());
        }
        wire
    }

    /// The answer for a line whose own policy does not compile.
    pub fn policy_error(message: String) -> WireDecision {
        WireDecision { policy_error: Some(message), ..WireDecision::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn unknown_keys_and_bad_times_are_errors() {
        let error = |json: &str| serde_json::from_str::<WireRequest>(json).unwrap_err().to_string();
        assert!(error(r#"{"method":"GET","authority":"a","path":"/","verb":1}"#).contains("unknown field `verb`"));
        assert!(error(r#"{"method":"GET","path":"/"}"#).contains("missing field `authority`"));
        assert!(error(r#"{"method":"GET","authority":"a","path":"/","time":"noon"}"#).contains("not a time"));
    }

    #[test]
    fn times_are_read_with_their_offset() {
        let json = r#"{"method":"GET","authority":"a","path":"/","time":"1970-01-01T02:00:00.5+01:00"}"#;
        let request: WireRequest = serde_json::from_str(json).unwrap();
        assert_eq!(request.time, Some(Timestamp(3_600_500_000_000)));
    }

    #[test]
    fn absent_keys_are_left_out() {
        let json = serde_json::to_string(&WireDecision::new(&Decision::default())).unwrap();
        assert_eq!(json, r#"{"action":"continue"}"#);
    }
}
