//! A plugin on the simulated proxy, from its configuration to its end.

mod configuration;
mod failures;
mod requests;
mod service;
mod watching;

use std::cell::RefCell;
use std::rc::Rc;

use penstock_policy::module::Suite;

use crate::testing::{self, FakeHeaders, FakeHost, FakeRequest, SentResponse, with};
use crate::{Flow, GaugeWriter, Plugin, PolicyNeed, Rest, Worker};

const ROUTES: &str = r#"{"routes":{"rules":[
    {"name":"beta","matches":[{"headers":[{"name":"x-user-group","value":"beta"}]}],"route":"beta"}
]}}"#;

const LIMIT: &str = r#"{"rateLimits":[{"name":"l","key":[],"limit":{"requests":2,"per":"1h"}}]}"#;

const COOKIE: &str = r#"{"canaries":[{"name":"a","stickiness":{"cookie":{"name":"id"}},
    "variants":[{"name":"v1","weight":1}]}]}"#;

/// A plugin in one worker.
struct TestPlugin {
    plugin: Plugin<Suite, FakeHost>,
    worker: RefCell<Worker<FakeHost>>,
    gauges: RefCell<GaugeWriter>,
}

impl TestPlugin {
    fn tick(&self) {
        self.plugin.tick(&mut self.worker.borrow_mut(), &mut self.gauges.borrow_mut());
    }
}

/// Starts with a new proxy, and records its log.
fn fresh() {
    testing::reset();
    testing::capture_log();
}

fn configure(policy: &str) -> Option<Rc<TestPlugin>> {
    let (plugin, worker, gauges) = Plugin::configure(FakeHost, Ok::<_, String>(policy.as_bytes()))?;
    Some(Rc::new(TestPlugin { plugin, worker: RefCell::new(worker), gauges: RefCell::new(gauges) }))
}

fn configured(policy: &str) -> Rc<TestPlugin> {
    configure(policy).unwrap_or_else(|| panic!("{:?}", with(|proxy| proxy.log.clone())))
}

/// One request, and the callbacks that a proxy makes for it.
struct Exchange {
    plugin: Rc<TestPlugin>,
    rest: Rest<FakeHeaders>,
}

impl Exchange {
    /// Begins a request with the proxy's current headers.
    fn begin(plugin: &Rc<TestPlugin>) -> (Flow, Exchange) {
        Exchange::begin_with(plugin, true)
    }

    /// As [`Exchange::begin`]; the request has a body unless `has_ended`.
    fn begin_with(plugin: &Rc<TestPlugin>, has_ended: bool) -> (Flow, Exchange) {
        let handled = plugin.plugin.request_headers(&mut plugin.worker.borrow_mut(), &mut FakeRequest, has_ended);
        (handled.flow, Exchange { plugin: Rc::clone(plugin), rest: handled.rest })
    }

    fn rest(&mut self) -> Rest<FakeHeaders> {
        std::mem::replace(&mut self.rest, Rest::Nothing)
    }

    fn reply(&mut self, message: Option<&[u8]>) {
        let Rest::Call(waiting) = self.rest() else { panic!("no call is under way") };
        let worker = &mut self.plugin.worker.borrow_mut();
        self.rest = self.plugin.plugin.reply(worker, &mut FakeRequest, *waiting, message);
    }

    fn body(&mut self, has_ended: bool) -> Flow {
        self.plugin.plugin.request_body(&mut self.rest, has_ended)
    }

    fn trailers(&mut self) {
        self.plugin.plugin.response_trailers(&mut FakeRequest, &mut self.rest);
    }

    fn response(&mut self) {
        self.response_with(true);
    }

    fn response_with(&mut self, has_ended: bool) {
        let rest = self.rest();
        let worker = &mut self.plugin.worker.borrow_mut();
        self.rest = self.plugin.plugin.response_headers(worker, &mut FakeRequest, rest, has_ended);
    }

    fn end(mut self) {
        let rest = self.rest();
        self.plugin.plugin.end(&mut self.plugin.worker.borrow_mut(), &mut FakeRequest, rest);
    }
}

fn set_headers(headers: &[(&str, &str)]) {
    let usual = [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/x?y")];
    let all = usual.iter().chain(headers).map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
    with(|proxy| {
        proxy.headers = all;
        proxy.calls.clear();
    });
}

/// A whole request with these headers in addition to the usual ones.
fn request(plugin: &Rc<TestPlugin>, headers: &[(&str, &str)]) -> Flow {
    set_headers(headers);
    let (flow, exchange) = Exchange::begin(plugin);
    exchange.end();
    flow
}

fn route() -> Vec<String> {
    with(|proxy| {
        let of_route = proxy.headers.iter().filter(|(name, _)| name == b"x-penstock-route");
        of_route.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    })
}

fn refused(name: &str, message: &str) -> Option<SentResponse> {
    Some(SentResponse {
        status: 503,
        details: format!("penstock_host_{name}"),
        headers: vec![],
        body: format!("penstock: {message}\n"),
    })
}

/// The proxy's counters: its metrics without the gauges and the histogram that every policy has.
fn counted() -> Vec<(String, i64)> {
    const OTHERS: [&str; 3] = ["penstock.policy_", "penstock.rate_limit_keys_", "penstock.decision_"];
    let is_counter = |name: &str| !OTHERS.iter().any(|other| name.starts_with(other));
    with(|proxy| proxy.metrics.iter().filter(|(name, _)| is_counter(name)).cloned().collect())
}

fn metric(name: &str) -> Option<i64> {
    with(|proxy| proxy.metrics.iter().find(|(metric, _)| metric == name).map(|(_, value)| *value))
}

fn calls_of(name: &str) -> usize {
    with(|proxy| proxy.calls.iter().filter(|call| **call == name).count())
}
