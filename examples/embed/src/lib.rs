//! A filter of one's own, on the `proxy-wasm` SDK, that asks Penstock's engine for its decisions: for those who have
//! filters already and want a policy document in one of them.
//!
//! It greets each request with a header, which is its own work, and leaves routes, canaries, egress and limits to the
//! policy in its plugin configuration. What the shipped modules do beside that it leaves out: limits are counted by each
//! worker for itself, breakers do not see responses, policies that go by claims or metadata are refused, and requests that
//! a rate-limit service counts are answered with 503.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use penstock_policy::{Action as Outcome, Decision, FixedEnvironment, HeaderOp, Policy, Request, Scratch, Timestamp};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MapType};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Plugin::default()));
}}

/// The plugin: its policy, and what decisions leave for later ones.
#[derive(Default)]
struct Plugin {
    policy: Option<Rc<Policy>>,
    environment: Rc<RefCell<FixedEnvironment>>,
}

impl Context for Plugin {}

impl RootContext for Plugin {
    fn on_configure(&mut self, _size: usize) -> bool {
        let configuration = self.get_plugin_configuration().unwrap_or_default();
        match Policy::from_json(&configuration) {
            // Rather none than a policy whose rules by claims never hold.
            Ok(policy) if policy.needs_facts() => {
                log::error!("this filter sees no claims and no metadata: take the conditions and keys by them out");
                false
            }
            Ok(policy) => {
                self.policy = Some(Rc::new(policy));
                true
            }
            // Envoy keeps the old configuration.
            Err(problems) => {
                problems.iter().for_each(|problem| log::error!("{problem}"));
                false
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _id: u32) -> Option<Box<dyn HttpContext>> {
        let policy = Rc::clone(self.policy.as_ref()?);
        Some(Box::new(Filter { policy, environment: Rc::clone(&self.environment), response_changes: Vec::new() }))
    }
}

/// One request.
struct Filter {
    policy: Rc<Policy>,
    environment: Rc<RefCell<FixedEnvironment>>,
    response_changes: Vec<Change>,
}

/// A change of the response's headers, kept until they come.
enum Change {
    Set(String, Vec<u8>),
    Add(String, Vec<u8>),
    Remove(String),
}

impl Context for Filter {}

impl HttpContext for Filter {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        // All headers in one call; the policy borrows from them.
        let Ok(owned) = hostcalls::get_map_bytes(MapType::HttpRequestHeaders) else {
            // What cannot be read is not forwarded.
            self.send_http_response(503, vec![], Some(b"cannot read the request\n"));
            return Action::Pause;
        };
        let headers: Vec<(&[u8], &[u8])> = owned.iter().map(|(name, value)| (name.as_bytes(), &**value)).collect();
        let scratch = Scratch::default();
        let request = Request::new(&headers).with_scratch(&scratch);

        let policy = Rc::clone(&self.policy);
        let environment = Rc::clone(&self.environment);
        let mut environment = environment.borrow_mut();
        self.describe_connection(&mut environment);
        match policy.decide(&request, &mut *environment) {
            Ok(decision) => self.apply(&decision),
            Err(_needs_a_rate_limit_service) => {
                self.send_http_response(503, vec![], Some(b"this filter asks no rate-limit service\n"));
                Action::Pause
            }
        }
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        for change in &self.response_changes {
            match change {
                Change::Set(name, value) => self.set_http_response_header_bytes(name, Some(value)),
                Change::Add(name, value) => self.add_http_response_header_bytes(name, value),
                Change::Remove(name) => self.set_http_response_header(name, None),
            }
        }
        Action::Continue
    }
}

impl Filter {
    /// What the policy may ask of the connection and of the clock.
    fn describe_connection(&self, environment: &mut FixedEnvironment) {
        let now = self.get_current_time().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        environment.now = Timestamp(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        let text = |path: Vec<&str>| self.get_property(path).and_then(|bytes| String::from_utf8(bytes).ok());
        let peer = text(vec!["source", "address"]);
        environment.source_address = peer.and_then(|peer| Some(peer.parse::<std::net::SocketAddr>().ok()?.ip()));
        environment.sni = self.get_property(vec!["connection", "requested_server_name"]).filter(|sni| !sni.is_empty());
        environment.has_tls = Some(self.get_property(vec!["connection", "tls_version"]).is_some_and(|v| !v.is_empty()));
        environment.peer = self.get_property(vec!["connection", "uri_san_peer_certificate"]);
    }

    /// Does what was decided, and then this filter's own work.
    fn apply(&mut self, decision: &Decision<'_>) -> Action {
        if let Outcome::Respond(response) = &decision.action {
            let headers = response.headers.iter().chain(&decision.response_headers);
            // The SDK's form of a response has texts; what an engine writes into one is text.
            let headers: Vec<_> = headers.map(|(name, value)| (*name, String::from_utf8_lossy(value))).collect();
            let headers = headers.iter().map(|(name, value)| (*name, &**value)).collect();
            self.send_http_response(response.status.into(), headers, Some(&response.body));
            return Action::Pause;
        }
        for change in &decision.headers {
            match change {
                HeaderOp::Set(name, value) => self.set_http_request_header_bytes(name, Some(value)),
                HeaderOp::Add(name, value) => self.add_http_request_header_bytes(name, value),
                HeaderOp::Remove(name) => self.set_http_request_header(name, None),
            }
        }
        let changes = decision.response_changes.iter().map(|change| match change {
            HeaderOp::Set(name, value) => Change::Set((*name).to_owned(), value.to_vec()),
            HeaderOp::Add(name, value) => Change::Add((*name).to_owned(), value.to_vec()),
            HeaderOp::Remove(name) => Change::Remove((*name).to_owned()),
        });
        let added = decision.response_headers.iter();
        let added = added.map(|(name, value)| Change::Add((*name).to_owned(), value.to_vec()));
        self.response_changes = changes.chain(added).collect();
        self.set_http_request_header("x-greeting", Some("hello from a filter of your own"));
        Action::Continue
    }
}
