//! Sends the contract's cases through a real Envoy.
//!
//! A case can be sent when its request has only what a client controls: no time, peer certificate or source address.
//! The decision is read from the request that reached the upstream, or from the response.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use penstock_policy::Policy;
use penstock_policy::module::Suite;
use serde_json::Value;

use crate::http::{self, HttpRequest, HttpResponse, Protocol};
use crate::{Body, Bootstrap, Configuration, Listener, Received, Reload, Route, Upstream, WasmFilter, workspace};

/// One case: a line of a file of cases.
#[derive(Clone, Debug)]
pub struct Case {
    /// The name of the case.
    pub name: String,
    /// The policy that decides.
    pub policy: Value,
    /// The request to decide on.
    pub request: Value,
    /// The expected decision; fields that it does not mention are not compared.
    pub expect: Value,
}

/// Reads the cases of `filters/policy/tests/contract/<file>`, or of the folder that `$PENSTOCK_CONTRACT` names.
pub fn cases(file: &str) -> Result<Vec<Case>> {
    let folder = env::var_os("PENSTOCK_CONTRACT")
        .map_or_else(|| workspace::root().join("filters/policy/tests/contract"), PathBuf::from);
    let path = folder.join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines().filter(|line| !line.trim().is_empty()).map(parse).collect()
}

fn parse(line: &str) -> Result<Case> {
    let case: Value = serde_json::from_str(line).with_context(|| format!("not a case: {line}"))?;
    let field = |name: &str| case.get(name).cloned().unwrap_or_default();
    Ok(Case { name: text(&field("name")), policy: field("policy"), request: field("request"), expect: field("expect") })
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct ContractReport {
    /// How many requests were decided as the contract says.
    pub passed: usize,
    /// The cases that cannot be sent, each with the reason.
    pub skipped: Vec<(String, String)>,
    /// The differences from the contract, one entry a case.
    pub failed: Vec<String>,
}

/// Sends every case that can be sent through `module`, once with each version of HTTP. Skips policies with a section
/// that is not in `sections`.
pub fn run(module: &str, sections: &[&str], cases: &[Case]) -> Result<ContractReport> {
    let upstream = Upstream::echo()?;
    let mut report = ContractReport::default();
    let mut bootstrap = Bootstrap::new()?.cluster("echo", upstream.address());
    let mut listeners: BTreeMap<String, String> = BTreeMap::new();
    let mut runnable = Vec::new();
    let mut loads = Vec::new();
    for case in cases {
        // Only the suite reads every section.
        if let (Some(valid), "suite") = (only_loads(case), module) {
            loads.push((case, valid));
        } else if let Some(reason) = obstacle(sections, case) {
            report.skipped.push((case.name.clone(), reason));
        } else {
            let policy = case.policy.to_string();
            let next = format!("policy-{}", listeners.len());
            if !listeners.contains_key(&policy) {
                let filter = WasmFilter::new(module, &case.policy)?.named(&next);
                let any = Route::any().to("echo");
                bootstrap = bootstrap.listener(Listener::new(&next).wasm(&filter).route(any));
            }
            runnable.push((case, listeners.entry(policy).or_insert(next).clone()));
        }
    }
    let feed = bootstrap.discovered(WasmFilter::new(module, Configuration::from("{}"))?.named("loads"))?;
    let mut envoy = bootstrap.listener(Listener::new("loads").discovered(feed).route(Route::any())).start()?;
    for (case, listener) in runnable {
        for protocol in Protocol::ALL {
            let result = check(case, protocol, envoy.address(&listener)?, &upstream);
            match result {
                Ok(()) => report.passed += 1,
                Err(error) => report.failed.push(format!("{} over {protocol}: {error:#}", case.name)),
            }
        }
    }
    for (case, valid) in loads {
        match envoy.reload("loads", &case.policy)? {
            Reload::Refused(log) if valid => report.failed.push(format!("{}: refused:\n{log}", case.name)),
            Reload::Taken if !valid => report.failed.push(format!("{}: the policy was taken", case.name)),
            _ => report.passed += 1,
        }
    }
    envoy.check_healthy()?;
    Ok(report)
}

/// Sends the request of each case through the native body, `times` times with each version of HTTP, whatever the
/// decision; then ends Envoy. Returns the number of cases.
pub fn train(cases: &[Case], times: usize) -> Result<usize> {
    let cases: Vec<&Case> = cases.iter().filter(|case| is_for_training(case)).collect();
    let mut bootstrap = Bootstrap::new()?;
    for (number, case) in cases.iter().enumerate() {
        let name = format!("case-{number}");
        let filter = WasmFilter::in_body(Body::Native, "suite", &case.policy)?.named(&name);
        bootstrap = bootstrap.listener(Listener::new(&name).wasm(&filter).route(Route::any()));
    }
    let envoy = bootstrap.start()?;
    for (number, case) in cases.iter().enumerate() {
        let address = envoy.address(&format!("case-{number}"))?;
        for protocol in Protocol::ALL {
            let request = request(case, protocol);
            for _ in 0..times {
                // Envoy resets some that it finds malformed.
                let _ = http::send(protocol, address, &request);
            }
        }
    }
    envoy.end()?;
    Ok(cases.len())
}

/// Whether the native body takes the policy, and a client can send the request: without the caller and the time of the
/// contract.
fn is_for_training(case: &Case) -> bool {
    let policy = Policy::<Suite>::from_json(case.policy.to_string().as_bytes());
    let is_taken = policy.is_ok_and(|policy| !policy.needs_workload() && !policy.needs_facts());
    is_taken && case.request.get("method").is_some_and(|method| method != "CONNECT")
}

/// Whether the case only says if the policy is accepted: `Some(true)` for accepted, `Some(false)` for refused, `None`
/// for cases with a request.
fn only_loads(case: &Case) -> Option<bool> {
    let refused = case.expect.get("policyError").map(|_| false);
    refused.or_else(|| case.expect.get("valid").and_then(Value::as_bool))
}

/// The reason why a case cannot be sent through this Envoy, if there is one.
fn obstacle(sections: &[&str], case: &Case) -> Option<String> {
    let fields = |value: &Value| -> Vec<String> {
        value.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    if let Some(section) = fields(&case.policy).into_iter().find(|section| !sections.contains(&section.as_str())) {
        return Some(format!("the policy has the section {section:?}"));
    }
    if Body::of_environment() == Body::Native && asks_for_metadata(&case.policy) {
        return Some("the native body refuses policies that go by metadata: see docs/native.md".to_owned());
    }
    let sendable = ["method", "scheme", "authority", "path", "headers"];
    if let Some(field) = fields(&case.request).into_iter().find(|field| !sendable.contains(&field.as_str())) {
        return Some(format!("no client can choose {field:?} here"));
    }
    if case.request.get("scheme").is_some_and(|scheme| scheme != "http") {
        return Some("the listener speaks plain HTTP".to_owned());
    }
    (case.request.get("method") == Some(&Value::from("CONNECT"))).then(|| "CONNECT is not forwarded here".to_owned())
}

/// Whether a policy uses a claim or other metadata in a condition or a key.
fn asks_for_metadata(policy: &Value) -> bool {
    match policy {
        Value::Array(items) => items.iter().any(asks_for_metadata),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| ["claim", "claims", "metadata"].contains(&name.as_str()) || asks_for_metadata(value)),
        _ => false,
    }
}

/// The case's request for a version of HTTP: HTTP/2 has lower-case header names only.
fn request(case: &Case, protocol: Protocol) -> HttpRequest {
    let field = |name: &str| case.request.get(name).map(text).unwrap_or_default();
    let mut request = HttpRequest::new(&field("method"), &field("authority"), &field("path"));
    for (name, value) in pairs(case.request.get("headers")) {
        let name = if protocol == Protocol::Http2 { name.to_lowercase() } else { name };
        request = request.header(name, value);
    }
    request
}

fn check(case: &Case, protocol: Protocol, address: std::net::SocketAddr, upstream: &Upstream) -> Result<()> {
    let before = upstream.requests();
    let response = http::send(protocol, address, &request(case, protocol))?;
    let received = if upstream.requests() > before { upstream.last() } else { None };
    let expect = |name: &str| case.expect.get(name);
    for (name, value) in pairs(expect("responseHeaders")) {
        ensure!(response.values(&name).any(|found| found == value), "the response has no {name}: {value}");
    }
    if expect("action").is_some_and(|action| action == "respond") {
        return check_response(case, &response, received.as_ref());
    }
    let received = received.with_context(|| format!("nothing reached the upstream: {response:?}"))?;
    if let Some(route) = expect("route") {
        let header = case.policy.pointer("/settings/routeHeader").map_or("x-penstock-route".to_owned(), text);
        let found = received.values(&header);
        let right = route.as_str().map(str::to_owned).into_iter().collect::<Vec<_>>();
        ensure!(found == right, "the route is {found:?}, not {right:?}");
    }
    let value_of = |name: &str| match name {
        ":path" => vec![received.path()],
        ":authority" => received.values("host"),
        _ => received.values(name),
    };
    let changes = |kind: &str| case.expect.pointer(&format!("/headers/{kind}"));
    for (name, value) in pairs(changes("set")) {
        ensure!(value_of(&name) == [value.clone()], "{name} is {:?}, not {value:?}", value_of(&name));
    }
    for (name, value) in pairs(changes("add")) {
        ensure!(value_of(&name).contains(&value), "{name} is {:?}, without {value:?}", value_of(&name));
    }
    for name in changes("remove").and_then(Value::as_array).into_iter().flatten().map(text) {
        let set = pairs(changes("set")).iter().chain(&pairs(changes("add"))).any(|(other, _)| *other == name);
        ensure!(set || value_of(&name).is_empty(), "{name} was not removed: {:?}", value_of(&name));
    }
    Ok(())
}

fn check_response(case: &Case, response: &HttpResponse, received: Option<&Received>) -> Result<()> {
    ensure!(received.is_none(), "the request was forwarded: {received:?}");
    if let Some(status) = case.expect.get("status").and_then(Value::as_u64) {
        ensure!(u64::from(response.status) == status, "the status is {}, not {status}", response.status);
    }
    if let Some(body) = case.expect.get("body").and_then(Value::as_str) {
        ensure!(response.text() == body, "the body is {:?}, not {body:?}", response.text());
    }
    Ok(())
}

/// Reads a list of `[name, value]` pairs.
fn pairs(list: Option<&Value>) -> Vec<(String, String)> {
    let pair = |pair: &Value| Some((text(pair.get(0)?), text(pair.get(1)?)));
    list.and_then(Value::as_array).into_iter().flatten().filter_map(pair).collect()
}

/// Returns a string as it is, and any other value as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
