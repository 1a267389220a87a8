//! Properties that are true for every input, as functions that panic when they are violated.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a fuzzer stops at the first surprise, and so does a test"
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::LazyLock;

use penstock_policy::document::Node;
use penstock_policy::egress::log_line;
use penstock_policy::module::Suite;
use penstock_policy::wire::{WireDecision, WireRequest, World};
use penstock_policy::{Header, Policy, Request, Scratch, Timestamp};
use serde_json::{Value, json};

use crate::readers::{check_authority, check_path, ours};
use crate::reference::{Answer, decide};

/// A document never causes a panic: it compiles, or is refused with messages that name the place and the problem. The
/// result is the same for its text and its tree. A policy that compiles can decide.
pub fn document(bytes: &[u8]) {
    let by_text = Policy::<Suite>::from_json(bytes);
    if let Ok(node) = Node::from_json(bytes) {
        let by_tree = Policy::<Suite>::from_node(&node);
        assert_eq!(by_text.as_ref().err(), by_tree.as_ref().err(), "text and tree differ");
    }
    match by_text {
        Ok(policy) => {
            let request = json!({"method": "GET", "authority": "a.test", "path": "/x", "headers": [["x-user", "1"]]});
            let request: WireRequest = serde_json::from_value(request).unwrap();
            request.decide(&policy, &mut World::new(Timestamp(0), 0));
        }
        Err(problems) => {
            assert!(!problems.as_slice().is_empty());
            for problem in &problems {
                assert!(!problem.to_string().contains('\n'), "{problem}");
            }
        }
    }
}

/// An authority has the meaning that every other parser finds, or none.
pub fn authority(bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => check_authority(text),
        Err(_) => assert!(ours(bytes).is_none()),
    }
}

/// A path has one canonical form, which every other parser reads unchanged, or none.
pub fn path(bytes: &[u8]) {
    // A precondition that the form of the request guarantees.
    if bytes.first() == Some(&b'/') && bytes.iter().all(|&b| b.is_ascii_graphic() && !b"#\\?".contains(&b)) {
        check_path(std::str::from_utf8(bytes).unwrap());
    }
}

/// The distinct egress sections of the contract's cases.
static POLICIES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let cases = include_str!("../filters/policy/tests/contract/egress-cases.jsonl").lines();
    let policies = cases.map(|case| serde_json::from_str::<Value>(case).unwrap()["policy"]["egress"].to_string());
    policies.collect::<BTreeSet<_>>().iter().map(|text| serde_json::from_str(text).unwrap()).collect()
});

/// How many lines of an input come before the headers.
const LINES: usize = 9;

/// The input of [`request`] for a case of the contract.
pub fn seed(case: &Value) -> Vec<u8> {
    let policy = POLICIES.iter().position(|policy| *policy == case["policy"]["egress"]).unwrap();
    let text = |name: &str| match &case["request"][name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let names = ["method", "authority", "path", "scheme", "destinationPort", "peer", "time", "protocol", "sni"];
    let mut lines = Vec::from(names.map(text));
    assert_eq!(lines.len(), LINES);
    for header in case["request"]["headers"].as_array().into_iter().flatten() {
        lines.push(format!("{}: {}", header[0].as_str().unwrap(), header[1].as_str().unwrap()));
    }
    // Converts characters to bytes; a character above U+00FF becomes a byte that is not ASCII.
    let rest = lines.join("\n").chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(0xff)).collect::<Vec<_>>();
    [vec![u8::try_from(policy).unwrap()], rest].concat()
}

/// The engine decides a request like the naive reference implementation, and a forwarded request would be forwarded
/// again unchanged. The audit line for the request is one line of JSON.
pub fn request(bytes: &[u8]) {
    let Some((policy, rest)) = policy(bytes) else { return };
    let request = request_of(rest);
    let compiled = &compile(&policy);
    let first = ask(compiled, &request);
    let answer = answer(&first);
    assert_eq!(answer, decide(&policy, &request), "{policy} {request}: {:?}", first.reason);
    if let Some(body) = &first.body {
        serde_json::from_str::<Value>(body).unwrap();
    }
    if first.status.is_none() {
        let mut forwarded = request;
        if let Some(target) = answer.target {
            forwarded["path"] = json!(target);
        }
        let again = ask(compiled, &forwarded);
        assert_eq!((again.status, again.would_respond, again.rule), (None, first.would_respond, first.rule));
        assert!(again.headers.set.is_empty(), "it was canonical: {forwarded}");
    }
}

/// The contract's policies are compiled once each; most inputs use them.
fn compile(policy: &Value) -> Rc<Policy> {
    thread_local! {
        static COMPILED: RefCell<BTreeMap<String, Rc<Policy>>> = const { RefCell::new(BTreeMap::new()) };
    }
    let text = json!({"egress": policy}).to_string();
    COMPILED.with_borrow_mut(|compiled| {
        if compiled.len() > 1_000 {
            compiled.clear();
        }
        let fresh = || Rc::new(Policy::from_json(text.as_bytes()).unwrap());
        Rc::clone(compiled.entry(text.clone()).or_insert_with(fresh))
    })
}

fn ask(policy: &Policy, request: &Value) -> WireDecision {
    let request: WireRequest = serde_json::from_value(request.clone()).unwrap();
    let mut world = World::new(Timestamp(0), 0);
    let owned = request.header_map();
    let headers: Vec<Header<'_>> = owned.iter().map(|(name, value)| (&**name, &**value)).collect();
    let scratch = Scratch::default();
    let view = Request::new(&headers).with_scratch(&scratch);
    let mut environment = request.environment(&mut world);
    let decision = policy.decide(&view, &mut environment).unwrap();
    let line = log_line(&view, decision.egress.as_ref().unwrap(), &mut environment);
    assert!(serde_json::from_str::<Value>(&line).is_ok() && !line.contains('\n'), "{line}");
    WireDecision::new(&decision)
}

fn answer(decision: &WireDecision) -> Answer {
    let target = decision.headers.set.iter().find(|(name, _)| name == ":path").map(|(_, value)| value.clone());
    Answer { status: decision.status.unwrap_or(0), would_respond: decision.would_respond, target }
}

/// Chooses one of the contract's policies by the first byte, or from 128 on generates one from the bytes up to the
/// first line break. Returns the remaining bytes, too.
fn policy(bytes: &[u8]) -> Option<(Value, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first < 128 {
        return Some((POLICIES.get(usize::from(first))?.clone(), rest));
    }
    let end = rest.iter().position(|&b| b == b'\n')?;
    let (mut choices, rest) = (Choices(rest.get(..end)?), rest.get(end + 1..)?);
    let mode = if first & 1 == 0 { "Enforce" } else { "Audit" };
    let deny: Vec<Value> = (0..first >> 1 & 1).map(|_| choices.destination()).collect();
    let mut rules = Vec::new();
    while !choices.0.is_empty() && rules.len() < 8 {
        let rule = choices.rule(rules.len());
        rules.push(rule);
    }
    Some((json!({"mode": mode, "verifySni": first & 4 != 0, "deny": deny, "rules": rules}), rest))
}

/// Bytes that determine choices; 0 when they are used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }

    /// The members of `all` whose bits are set; `None` when there are none.
    fn some(&mut self, all: &[&str]) -> Option<Value> {
        let bits = self.byte();
        let chosen: Vec<&str> = all.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, s)| *s).collect();
        (!chosen.is_empty()).then(|| json!(chosen))
    }

    fn destination(&mut self) -> Value {
        let target = self.of(&[
            ("host", "api.stripe.com"),
            ("host", "*.stripe.com"),
            ("host", "*.example.com"),
            ("host", "example.com"),
            ("host", "secret.example.com"),
            ("host", "localhost"),
            ("host", "xn--bcher-kva.example"),
            ("cidr", "203.0.113.7/32"),
            ("cidr", "203.0.113.0/24"),
            ("cidr", "0.0.0.0/0"),
            ("cidr", "::/0"),
            ("cidr", "2001:db8::/33"),
            ("cidr", "::ffff:203.0.113.0/120"),
        ]);
        let mut destination = json!({target.0: target.1});
        let ports: &[u16] = self.of(&[&[], &[443], &[80, 443], &[8443]]);
        if !ports.is_empty() {
            destination["ports"] = json!(ports);
        }
        destination
    }

    fn rule(&mut self, number: usize) -> Value {
        const CALLERS: [&str; 4] = [
            "spiffe://cluster.local/ns/payments/sa/checkout",
            "spiffe://cluster.local/ns/payments/sa/*",
            "spiffe://cluster.local/ns/*/sa/checkout",
            "spiffe://cluster.local/ns/web/sa/front",
        ];
        const TIMES: [Option<&str>; 4] =
            [None, Some("2026-01-01T00:00:00Z"), Some("2026-01-02T00:00:00Z"), Some("2026-01-03T00:00:00Z")];
        let bits = self.byte();
        let mut rule = json!({"name": format!("r{number}"), "to": [self.destination()], "connect": bits & 1 == 1});
        let mut optional = vec![("from", self.some(&CALLERS)), ("methods", self.some(&["GET", "POST", "CONNECT"]))];
        optional.push(("upgrades", self.some(&["websocket", "h2c", "bytestream"])));
        let paths: &[(&str, &str)] = self.of(&[
            &[][..],
            &[("PathPrefix", "/v1")],
            &[("PathPrefix", "/repos/acme/")],
            &[("Exact", "/public"), ("PathPrefix", "/v1/b/")],
            &[("PathPrefix", "/")],
            &[("Exact", "/a/"), ("Exact", "/%C3%A9")],
        ]);
        let paths = paths.iter().map(|(kind, value)| json!({"type": kind, "value": value})).collect::<Vec<_>>();
        optional.push(("paths", (!paths.is_empty()).then(|| json!(paths))));
        let (start, end) = (usize::from(bits >> 1 & 3), usize::from(bits >> 3 & 3));
        optional.push(("notBefore", TIMES[start].map(|time| json!(time))));
        // A rule that could never apply is refused when the policy loads.
        optional.push(("expires", TIMES[end].filter(|_| end > start).map(|time| json!(time))));
        for (name, value) in optional {
            if let Some(value) = value {
                rule[name] = value;
            }
        }
        rule
    }
}

/// Parses the request from lines: method, authority, path, scheme, port, peer, time, protocol, server name, then
/// headers. Invalid lines are ignored.
fn request_of(bytes: &[u8]) -> Value {
    let text: String = bytes.iter().copied().map(char::from).collect();
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let mut request = json!({"method": next(), "authority": next(), "path": next()});
    let (scheme, port, peer, time, protocol, sni) = (next(), next(), next(), next(), next(), next());
    for (name, value) in [("scheme", scheme), ("peer", peer), ("protocol", protocol), ("sni", sni)] {
        if !value.is_empty() {
            request[name] = json!(value);
        }
    }
    if let Some(port) = port.parse::<u16>().ok().filter(|&port| port != 0) {
        request["destinationPort"] = json!(port);
    }
    let time = if Timestamp::parse(time).is_some() { time } else { "2026-01-01T01:00:00Z" };
    request["time"] = json!(time);
    let headers = lines.filter_map(|line| line.split_once(": ")).filter(|(name, _)| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    request["headers"] = headers.map(|(name, value)| json!([name, value])).collect();
    request
}
