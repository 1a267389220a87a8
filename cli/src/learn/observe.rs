//! Reduces a request to what an allowlist decides by: caller, destination, form. The engine itself identifies ambiguous
//! requests.

use std::borrow::Cow;

use penstock_policy::document::{At, Context, Decode, Method, Node};
use penstock_policy::egress::{Authority, Connection, UriHost, canonical};
use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{EgressVerdict, Policy, Reason, Timestamp};

use crate::place::Place;

/// The port of a destination, as far as a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObservedPort {
    /// Explicit, or the given default.
    Number(u16),
    /// The default port of a TLS connection.
    Tls,
    /// The default port of a connection without TLS.
    Plain,
    /// Unknown.
    Unknown,
}

/// The kind of request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AskedForm {
    /// An ordinary request.
    #[default]
    Request,
    /// A tunnel, requested with CONNECT.
    Tunnel,
    /// A TLS connection that is forwarded without decryption, identified by its server name.
    Connection,
}

/// The form of a request: what requests of one rule have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestWay {
    /// The requested upgrade protocols, in lower case and sorted.
    pub upgrades: Vec<String>,
    /// The kind of request.
    pub form: AskedForm,
    /// The method as rules see it.
    pub method: String,
}

/// A request that a rule could allow.
#[derive(Debug)]
pub struct Observation<'r> {
    /// The caller.
    pub caller: Option<&'r str>,
    /// The name in lower case, or the address.
    pub host: String,
    /// Whether it is an IP address.
    pub is_address: bool,
    /// The port.
    pub port: ObservedPort,
    /// The format.
    pub way: RequestWay,
    /// The canonical path; empty for a tunnel.
    pub path: Cow<'r, str>,
}

/// How a request is used for learning.
#[derive(Debug)]
pub enum ObservedRequest<'r> {
    /// A rule could allow it.
    Learnable(Observation<'r>),
    /// The existing policy allows it.
    Allowed,
    /// `deny` of the existing policy covers it.
    Denied,
    /// No rule with paths allows it, for this reason.
    Ambiguous(&'static str),
}

/// Reads requests.
#[derive(Debug)]
pub struct Observer {
    /// Classifies requests, and decides which are allowed already.
    policy: Policy,
    default_port: Option<u16>,
    world: World,
}

impl Observer {
    /// For requests beyond those that `egress` of `policy` allows. `default_port` applies when the policy sets none.
    ///
    /// # Errors
    /// Returns an error when its egress section alone is invalid.
    pub fn new(policy: Option<&Node>, default_port: Option<u16>) -> anyhow::Result<Observer> {
        let part = policy.and_then(|policy| Place::Egress.part(policy));
        let written = part.as_ref().and_then(|part| part.get("egress")?.get("defaultPort"));
        let default_port = match written {
            Some(Node::Integer(port)) => u16::try_from(*port).ok(),
            _ => default_port,
        };
        let part = part.unwrap_or_else(|| {
            let port = default_port.map(|port| ("defaultPort".to_owned(), Node::Integer(i64::from(port))));
            Node::Map(vec![("egress".to_owned(), Node::Map(port.into_iter().collect()))])
        });
        let policy = Policy::from_node(&part).map_err(|problems| anyhow::anyhow!("{problems}"))?;
        Ok(Observer { policy, default_port, world: World::new(Timestamp(0), 0) })
    }

    /// The port of an authority without one, if it is known.
    pub fn default_port(&self) -> Option<u16> {
        self.default_port
    }

    /// Classifies a request.
    pub fn see<'r>(&mut self, request: &'r WireRequest, now: Timestamp) -> ObservedRequest<'r> {
        self.world.now = now;
        if request.method.is_empty() {
            return self.see_connection(request);
        }
        let decision = request.decide(&self.policy, &mut self.world);
        match (decision.status.or(decision.would_respond), decision.reason) {
            (None, _) => return ObservedRequest::Allowed,
            (Some(400 | 421), reason) => return ObservedRequest::Ambiguous(reason.unwrap_or("malformed")),
            (_, Some("hostDenied")) => return ObservedRequest::Denied,
            _ => {}
        }
        self.observe(request).map_or_else(ObservedRequest::Ambiguous, ObservedRequest::Learnable)
    }

    /// Classifies a connection that is forwarded without decryption.
    fn see_connection<'r>(&mut self, request: &'r WireRequest) -> ObservedRequest<'r> {
        let Ok(authority) = Authority::parse(request.authority.as_bytes()) else {
            return ObservedRequest::Ambiguous(Reason::ServerNameMalformed.as_str());
        };
        let (host, is_address) = host_of(&authority);
        let port = authority.port.unwrap_or(if request.scheme.as_deref() == Some("http") { 80 } else { 443 });
        let destination = host.parse().ok();
        let connection = Connection { sni: (!is_address).then_some(host.as_bytes()), destination, port: Some(port) };
        if let Some(egress) = self.policy.egress() {
            let verdict = egress.decide_connection(&connection, &mut request.environment(&mut self.world));
            match (verdict.outcome.verdict, verdict.outcome.reason) {
                (EgressVerdict::Allow, _) => return ObservedRequest::Allowed,
                (_, Some(Reason::HostDenied)) => return ObservedRequest::Denied,
                _ => {}
            }
        }
        let caller = request.peer.as_deref().filter(|peer| !peer.is_empty());
        let way = RequestWay { form: AskedForm::Connection, ..RequestWay::default() };
        ObservedRequest::Learnable(Observation {
            caller,
            host,
            is_address,
            port: ObservedPort::Number(port),
            way,
            path: Cow::Borrowed(""),
        })
    }

    /// # Errors
    /// With the reason why no rule could allow it.
    fn observe<'r>(&self, request: &'r WireRequest) -> Result<Observation<'r>, &'static str> {
        let authority = Authority::parse(request.authority.as_bytes()).map_err(|bad| bad.reason().as_str())?;
        let (host, is_address) = host_of(&authority);
        let is = |scheme: &str| request.scheme.as_deref().is_some_and(|given| given.eq_ignore_ascii_case(scheme));
        let port = match authority.port.or(self.default_port) {
            Some(port) => ObservedPort::Number(port),
            None if is("https") => ObservedPort::Tls,
            None if is("http") => ObservedPort::Plain,
            None => ObservedPort::Unknown,
        };
        let has =
            |names: &[&str]| request.headers.iter().any(|(name, _)| names.iter().any(|n| name.eq_ignore_ascii_case(n)));
        if has(&["x-original-url", "x-rewrite-url"]) {
            return Err("pathOverrideHeader");
        }
        if has(&["x-http-method-override", "x-http-method", "x-method-override"]) {
            return Err("methodOverrideNotAllowed");
        }
        let way = way(request);
        if !is_method(&way.method) {
            return Err("methodNotAllowed");
        }
        if !way.upgrades.iter().all(|protocol| is_protocol(protocol)) {
            return Err("upgradeNotAllowed");
        }
        let path = match (&way, request.path.split('?').next().unwrap_or_default()) {
            (RequestWay { form: AskedForm::Tunnel, .. }, _) => Cow::Borrowed(""),
            (_, path) if !path.starts_with('/') => return Err("pathNotOriginForm"),
            (_, path) => match canonical(path.as_bytes()).map_err(|bad| bad.reason().as_str())? {
                Cow::Borrowed(_) => Cow::Borrowed(path),
                Cow::Owned(path) => Cow::Owned(String::from_utf8_lossy(&path).into_owned()),
            },
        };
        let caller = request.peer.as_deref().filter(|peer| !peer.is_empty());
        Ok(Observation { caller, host, is_address, port, way, path })
    }
}

/// The name in lower case, or the address; and whether it is an IP address.
fn host_of(authority: &Authority<'_>) -> (String, bool) {
    match authority.host {
        UriHost::Name(name) => (String::from_utf8_lossy(name).to_ascii_lowercase(), false),
        UriHost::Address(address) => (address.to_string(), true),
    }
}

/// The form of a request as the engine sees it: extended CONNECT is a GET with an upgrade.
fn way(request: &WireRequest) -> RequestWay {
    let is_connect = request.method == "CONNECT";
    let protocol = request.protocol.as_deref();
    let is_upgrade = protocol.is_some_and(|protocol| !protocol.eq_ignore_ascii_case("bytestream"));
    let named = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
    let named = named.flat_map(|(_, value)| value.split(','));
    let mut upgrades: Vec<String> = named.chain(protocol).map(|text| text.trim().to_ascii_lowercase()).collect();
    upgrades.sort();
    upgrades.dedup();
    let method = if is_connect && is_upgrade { "GET" } else { &request.method };
    let form = if is_connect && !is_upgrade { AskedForm::Tunnel } else { AskedForm::Request };
    RequestWay { method: method.to_owned(), form, upgrades }
}

/// Whether a rule can contain this method: rules refuse standard methods in lower case.
fn is_method(text: &str) -> bool {
    let node = Node::String(text.to_owned());
    Method::decode(&node, &At::Root, &mut Context::new(String::new(), 1)).is_some()
}

/// Whether a rule can contain this protocol.
fn is_protocol(text: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&b);
    (1..=64).contains(&text.len()) && text != "*" && text.bytes().all(valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(policy: &str, request: &str) -> String {
        let policy = Node::from_json(policy.as_bytes()).unwrap();
        let mut observer = Observer::new(Some(&policy), None).unwrap();
        let request: WireRequest = serde_json::from_str(request).unwrap();
        match observer.see(&request, Timestamp(0)) {
            ObservedRequest::Learnable(seen) => {
                format!("{:?} {} {:?} {} {}", seen.caller, seen.host, seen.port, seen.way.method, seen.path)
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_seen_as_rules_see_it() {
        for (request, expected) in [
            (
                r#"{"method":"GET","scheme":"https","authority":"Api.Test.","path":"/a//b/../c;x?q=1","peer":"spiffe://c/x"}"#,
                "Some(\"spiffe://c/x\") api.test Tls GET /a/c",
            ),
            (
                r#"{"method":"GET","authority":"[::ffff:1.2.3.4]:8443","path":"/"}"#,
                "None ::ffff:1.2.3.4 Number(8443) GET /",
            ),
            (r#"{"method":"CONNECT","authority":"a.test:443","path":""}"#, "None a.test Number(443) CONNECT "),
            (
                r#"{"method":"CONNECT","authority":"a.test","path":"/ws","protocol":"websocket"}"#,
                "None a.test Unknown GET /ws",
            ),
            (r#"{"method":"GET","authority":"2130706433","path":"/"}"#, "Ambiguous(\"hostIsAmbiguousNumber\")"),
            (r#"{"method":"GET","authority":"a.test","path":"/%2f"}"#, "Ambiguous(\"pathEscapesDelimiter\")"),
            (r#"{"method":"OPTIONS","authority":"a.test","path":"*"}"#, "Ambiguous(\"pathNotOriginForm\")"),
            (
                r#"{"method":"GET","authority":"a.test","path":"/","headers":[["X-Original-URL","/b"]]}"#,
                "Ambiguous(\"pathOverrideHeader\")",
            ),
            (
                r#"{"method":"GET","authority":"a.test","path":"/","headers":[["host","b.test"]]}"#,
                "Ambiguous(\"hostHeaderMismatch\")",
            ),
        ] {
            assert_eq!(seen(r#"{"egress":{"rules":[]}}"#, request), expected, "{request}");
        }
    }

    #[test]
    fn a_connection_is_seen_by_its_server_name() {
        let policy = r#"{"egress":{"deny":[{"host":"evil.test"}],"rules":[{"name":"a","to":[{"host":"a.test"}]},
            {"name":"b","to":[{"host":"b.test"}],"methods":["GET"]}]}}"#;
        let open = |host: &str| seen(policy, &format!(r#"{{"method":"","authority":"{host}","path":""}}"#));
        assert_eq!((open("a.test"), open("evil.test")), ("Allowed".to_owned(), "Denied".to_owned()));
        // A rule with methods does not allow connections.
        assert_eq!(open("B.test"), "None b.test Number(443)  ");
        assert_eq!(open("c.test:8443"), "None c.test Number(8443)  ");
        assert_eq!(open("192.0.2.1"), "None 192.0.2.1 Number(443)  ");
        assert_eq!(open("a b"), "Ambiguous(\"serverNameMalformed\")");
    }

    #[test]
    fn what_is_allowed_or_denied_already_is_not_learned() {
        let policy = r#"{"rateLimits":[{"name":"l","limit":{"requests":1,"per":"1h"}}],"egress":{"mode":"Audit","defaultPort":8443,
            "deny":[{"host":"evil.test"}],"rules":[{"name":"a","to":[{"host":"a.test"}]}]}}"#;
        let get = |host: &str| seen(policy, &format!(r#"{{"method":"GET","authority":"{host}","path":"/"}}"#));
        assert_eq!((get("a.test"), get("evil.test")), ("Allowed".to_owned(), "Denied".to_owned()));
        assert_eq!(get("b.test"), "None b.test Number(8443) GET /");
    }
}
