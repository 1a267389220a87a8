//! Random requests with random policies, decided by a real Envoy and by the engine through `penstock replay`. The
//! request that reaches the next filter, or the response, must be equal header by header.
//!
//! Policies and requests are made of the same few words, so that rules match often. `DIFFERENTIAL_ROUNDS` sets the
//! number of rounds with new policies (`make soak`: 84); `DIFFERENTIAL_SEED` repeats one.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

mod compare;
mod policies;
mod random;
mod requests;
mod words;

use std::env;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use penstock_integration::http::{ClientConnection, Protocol};
use penstock_integration::{Bootstrap, Listener, Route, WasmFilter};
use penstock_policy::document::Node;
use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use serde_json::{Value, json};

use compare::{CAME_THROUGH, difference};
use random::Random;
use words::{ADDRESSES, PEER, PEER_STATE};

const POLICIES: usize = 100;
/// Requests for each policy, half of them over HTTP/2.
const REQUESTS: usize = 120;
/// Policies that get requests at the same time: a client mostly waits, on a busy machine for a long time.
const CLIENTS: usize = 8;
/// All requests come from one address, on one connection.
const ON_ONE_CONNECTION: usize = 15;
/// How often a decision with a random choice is repeated with other random numbers.
const CHOICES: u64 = 200;

/// The filter behind the module responds with the headers that it received.
const ECHO: &str = "function envoy_on_request(request)
  local lines = {}
  for name, value in pairs(request:headers()) do table.insert(lines, name .. ': ' .. value) end
  request:respond({[':status'] = '200', ['x-came-through'] = 'yes', ['x-removed'] = 'yes'}, table.concat(lines, '\\n'))
end";

/// The result of a round.
#[derive(Debug, Default)]
struct Tally {
    compared: usize,
    answered: usize,
    by_chance: usize,
    refused_by_envoy: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.compared += other.compared;
        self.answered += other.answered;
        self.by_chance += other.by_chance;
        self.refused_by_envoy += other.refused_by_envoy;
        self.wrong.extend(other.wrong);
    }
}

struct Case {
    name: String,
    document: Value,
    is_edge: bool,
    /// For its requests.
    random: Random,
}

impl Case {
    fn node(&self) -> Node {
        Node::from_json(self.document.to_string().as_bytes()).unwrap()
    }
}

fn round(seed: u64) -> Result<Tally> {
    let cases: Vec<Case> = (0..POLICIES)
        .map(|number| {
            let mut random = Random::new(seed << 32 | number as u64);
            let is_edge = random.percent(50);
            let document = policies::policy(&mut random, is_edge);
            Case { name: format!("p{number}"), document, is_edge, random }
        })
        .collect();
    let problems: Vec<String> = cases
        .iter()
        .filter_map(|case| Some(format!("{}: {}", case.name, <Policy>::from_node(&case.node()).err()?)))
        .collect();
    ensure!(problems.is_empty(), "{} policies are wrong:\n{}", problems.len(), problems.join("\n"));
    compare_with_envoy(seed, &cases)
}

/// Starts an Envoy with these policies, and sends the requests of each. Most of a start is compiling the module, once
/// for all policies, because they share a VM.
fn compare_with_envoy(seed: u64, cases: &[Case]) -> Result<Tally> {
    let lua = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": ECHO},
    });
    let peer = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config",
        "on_request_headers": [{"object_key": PEER_STATE, "factory_key": "envoy.string",
            "format_string": {"text_format_source": {"inline_string": PEER}}}],
    });
    let node = json!({"id": "penstock", "cluster": "penstock",
        "metadata": {"NAMESPACE": "shop", "SERVICE_ACCOUNT": "cart"}});
    let mut bootstrap = Bootstrap::new()?.concurrency(1).field("node", node);
    for case in cases {
        let listener = Listener::new(&case.name)
            .proxy_protocol()
            .manager("use_remote_address", json!(case.is_edge))
            .manager("upgrade_configs", json!([{"upgrade_type": "websocket"}]))
            .filter("peer", peer.clone())
            .wasm(&WasmFilter::new("suite", &case.document)?.named(&case.name))
            .filter("echo", lua.clone())
            .route(Route::any());
        bootstrap = bootstrap.listener(listener);
    }
    let mut envoy = bootstrap.start()?;
    let next = AtomicUsize::new(0);
    let client = || {
        let mut tally = Tally::default();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            ask(case, envoy.address(&case.name)?, &mut tally)
                .with_context(|| format!("seed {seed}, {}: {}", case.name, case.document))?;
        }
        Ok(tally)
    };
    let tallies: Vec<Result<Tally>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let mut tally = Tally::default();
    for part in tallies {
        tally.add(part?);
    }
    envoy.check_healthy()?;
    Ok(tally)
}

/// Sends the requests of one policy and compares each response with the decision of `replay`.
fn ask(case: &Case, listener: SocketAddr, tally: &mut Tally) -> Result<()> {
    let random = &mut case.random.clone();
    let policy = Policy::from_node(&case.node()).map_err(|problems| anyhow!("{problems}"))?;
    let mut world = World::new(Timestamp(0), 0);
    let mut said = false;
    // Envoy reads its clock at some time between the request and the response, for the decision and for those before it.
    let mut longest = Duration::ZERO;
    for group in 0..REQUESTS / ON_ONE_CONNECTION {
        let protocol = Protocol::ALL[group % 2];
        let peer = random.pick(&ADDRESSES);
        let hello = format!("PROXY TCP4 {peer} 192.0.2.1 40000 80\r\n");
        let mut connection = None;
        for _ in 0..ON_ONE_CONNECTION {
            let sent = requests::request(random, protocol);
            let mut line = sent.line.clone();
            line["sourceAddress"] = json!(peer);
            line["peer"] = match case.document.pointer("/settings/identity") {
                Some(_) => json!(PEER),
                None => Value::Null,
            };
            if case.is_edge {
                append_peer(&mut line, peer);
            } else if let Some(last) = last_forwarded(&line) {
                line["sourceAddress"] = json!(last);
            }
            let mut open = match connection.take() {
                Some(open) => open,
                None => ClientConnection::open_after(protocol, listener, hello.as_bytes())?,
            };
            let asked = Instant::now();
            let answer = open.request(&sent.request);
            longest = longest.max(asked.elapsed());
            let mut request: WireRequest = serde_json::from_value(line.clone()).context("a line for replay")?;
            request.time = Some(now());
            let response = match answer {
                Ok(response) if !open.is_ending() => {
                    connection = Some(open);
                    response
                }
                Ok(response) => response,
                Err(_) if sent.may_be_refused.is_some() => {
                    tally.refused_by_envoy += 1;
                    continue;
                }
                Err(error) => return Err(error.context(format!("{protocol}: {line}"))),
            };
            let is_of_envoy = response.status == 400 && ["", "Bad Request"].contains(&response.text().as_str());
            if sent.may_be_refused.is_some() && is_of_envoy && response.header(CAME_THROUGH).is_none() {
                tally.refused_by_envoy += 1;
                continue;
            }
            tally.compared += 1;
            let before = world.state.clone();
            let mut first = None;
            for choice in 0..CHOICES {
                world.state = before.clone();
                world.random = choice;
                let decision = request.decide(&policy, &mut world);
                tally.answered += usize::from(choice == 0 && decision.action == Some("respond"));
                let Some(wrong) = difference(protocol, &request, &decision, &response, 1 + longest.as_secs()) else {
                    tally.by_chance += usize::from(choice > 0);
                    first = None;
                    break;
                };
                let decided = serde_json::to_string(&decision)?;
                first.get_or_insert(format!("{protocol} {line}\n  decided: {decided}\n  but {wrong}"));
            }
            if let Some(wrong) = first {
                let policy = if said { "the same policy".to_owned() } else { case.document.to_string() };
                said = true;
                tally.wrong.push(format!("{}: {policy}\n  {wrong}", case.name));
            }
        }
    }
    Ok(())
}

/// At an edge, Envoy appends the peer to `x-forwarded-for` and drops headers that only internal proxies may send.
fn append_peer(line: &mut Value, peer: &str) {
    let headers = line["headers"].as_array_mut().unwrap();
    match headers.iter_mut().find(|header| header[0] == "x-forwarded-for") {
        Some(header) => header[1] = json!(format!("{},{peer}", header[1].as_str().unwrap())),
        None => headers.push(json!(["x-forwarded-for", peer])),
    }
}

/// Elsewhere, the last entry is the address that Envoy treats as the client.
fn last_forwarded(line: &Value) -> Option<String> {
    let headers = line["headers"].as_array().unwrap();
    let entries = headers.iter().rfind(|header| header[0] == "x-forwarded-for")?;
    Some(entries[1].as_str()?.rsplit(',').next()?.trim().to_owned())
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp(u64::try_from(since.as_nanos()).unwrap())
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

#[test]
fn a_real_envoy_and_replay_decide_random_requests_alike() -> Result<()> {
    let rounds = number("DIFFERENTIAL_ROUNDS").unwrap_or(1);
    let seed = number("DIFFERENTIAL_SEED").unwrap_or(20);
    for seed in seed..seed + rounds {
        let Tally { compared, answered, by_chance, refused_by_envoy, wrong } = round(seed)?;
        println!(
            "seed {seed}: {compared} requests over {POLICIES} policies, {answered} answered by them, {by_chance} equal but for \
             a random choice; {refused_by_envoy} refused by Envoy itself"
        );
        assert!(
            wrong.is_empty(),
            "seed {seed}: {} differ, such as\n{}",
            wrong.len(),
            wrong[..wrong.len().min(4)].join("\n")
        );
        ensure!(compared > POLICIES * REQUESTS * 9 / 10, "Envoy itself refused {refused_by_envoy}");
        ensure!(answered > compared / 20 && answered < compared * 3 / 4, "{answered} of {compared} were answered");
    }
    Ok(())
}
