//! A simulated proxy for native tests. It behaves as Envoy does, fails where a test wants it, and records the calls. Each
//! thread, and so each test, has its own [`FakeProxy`]. [`FakeHost`] and [`FakeRequest`] give access to it; the tests of
//! the ABIs put their own functions in front of the same [`FakeProxy`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use log::{LevelFilter, Log, Record};
use penstock_policy::facts::{Fact, FactPlace, Metadata};
use penstock_policy::state::{Change, Key, Table};
use penstock_policy::{Header, HeaderOp, IdentitySource, Timestamp};

use crate::apply::ROUTE_STATE;
use crate::host::{
    CallStart, GrpcCall, GrpcStatusIn, HeaderMap, Headers, Host, Malformed, MetricKind, PluginState, PolicyNeed,
    ProxyRequest,
};

/// A response that the plugin sent itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentResponse {
    /// Its HTTP status.
    pub status: u32,
    /// The response code details, for access logs.
    pub details: String,
    /// Names and values, in order.
    pub headers: Vec<(String, String)>,
    /// The body, as text.
    pub body: String,
}

/// The proxy's state, and its record of what the plugin did.
#[derive(Debug, Default)]
pub struct FakeProxy {
    /// The configuration of the plugin that is being configured.
    pub configuration: Vec<u8>,
    /// The request's headers.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The response's headers.
    pub response_headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The response's trailers.
    pub response_trailers: Vec<(Vec<u8>, Vec<u8>)>,
    /// If present, passed to the plugin instead of `headers`.
    pub raw_headers: Option<Vec<u8>>,
    /// Facts by their proxy-wasm paths. NUL separates the parts of a path.
    pub properties: Vec<(&'static str, Vec<u8>)>,
    /// The clock, in nanoseconds.
    pub time: u64,
    /// Added to each random byte, which is 4 without it.
    pub random: u8,
    /// Functions that only return this status.
    pub broken: Vec<(&'static str, u32)>,
    /// The functions called, in order.
    pub calls: Vec<&'static str>,
    /// The log: the level (1 is debug, 4 is error) and the line.
    pub log: Vec<(u32, String)>,
    /// The lowest level that the log accepts; by default info.
    pub lowest_level: Option<u32>,
    /// Names and values of metrics.
    pub metrics: Vec<(String, i64)>,
    /// Names and values of filter state.
    pub filter_state: Vec<(String, String)>,
    /// The last response that the plugin sent itself.
    pub sent: Option<SentResponse>,
    /// Whether the request was reset or the connection closed.
    pub was_reset: bool,
    /// The shared data: for each key, the value and its token.
    pub shared: HashMap<Vec<u8>, (Vec<u8>, u32)>,
    /// The token of the last write. The first one is 1, as in Envoy.
    pub token: u32,
    /// Simulated other workers. Before each write of this one, the last of them is removed from the list and called.
    pub racers: Vec<fn(&mut FakeProxy)>,
    /// Needs of a policy that this proxy does not provide, with the reasons.
    pub lacks: Vec<(PolicyNeed, &'static str)>,
    /// The number of values under the plugin's keys that others have written.
    pub foreign: u32,
    /// The number of writes that were refused because of their token.
    pub conflicts: u32,
    /// Milliseconds between two ticks; 0 if there are no ticks.
    pub tick_period: u32,
    /// The gRPC calls: service, message and timeout. The first has the id 1.
    pub questions: Vec<(Vec<u8>, Vec<u8>, u32)>,
    /// Called with the id of the next gRPC call while that call is being started.
    pub within_call: Option<fn(u32)>,
    /// The reply to the next call, if the call ends before it has an id.
    pub early_reply: Option<Option<Vec<u8>>>,
    /// The message of the current gRPC callback.
    pub grpc_message: Vec<u8>,
    /// The ids of the cancelled calls.
    pub cancelled: Vec<u32>,
    /// How often a paused stream was resumed.
    pub continued: u32,
}

impl FakeProxy {
    /// Records a call of the function `name`. Returns a status if a test wants the function to fail.
    pub fn enter(&mut self, name: &'static str) -> Option<u32> {
        self.calls.push(name);
        self.broken.iter().find(|(broken, _)| *broken == name).map(|(_, status)| *status)
    }

    /// The property with this path, whose parts are separated by NUL.
    pub fn property(&self, path: &str) -> Option<Vec<u8>> {
        self.properties.iter().find(|(name, _)| *name == path).map(|(_, value)| value.clone())
    }

    /// The number of a metric, which is defined if it does not exist yet.
    pub fn metric(&mut self, name: &str) -> u32 {
        let at = self.metrics.iter().position(|(other, _)| other == name).unwrap_or_else(|| {
            self.metrics.push((name.to_owned(), 0));
            self.metrics.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    fn change_metric(&mut self, id: u32, change: impl FnOnce(i64) -> i64) {
        if let Some((_, value)) = self.metrics.get_mut(id as usize) {
            *value = change(*value);
        }
    }

    /// Writes to the shared data, as this worker or another one.
    pub fn set_shared(&mut self, key: &[u8], value: &[u8]) {
        self.token = self.token.wrapping_add(1).max(1);
        self.shared.insert(key.to_vec(), (value.to_vec(), self.token));
    }
}

thread_local! {
    static PROXY: RefCell<FakeProxy> = RefCell::default();
}

/// Calls `act` with the proxy of the current thread.
pub fn with<T>(act: impl FnOnce(&mut FakeProxy) -> T) -> T {
    PROXY.with_borrow_mut(act)
}

/// Replaces the proxy of the current thread by a new one.
pub fn reset() {
    with(|proxy| *proxy = FakeProxy::default());
}

/// A logger that writes to the proxy of the current thread.
struct CaptureLog;

impl Log for CaptureLog {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = 5 - record.level() as u32;
        let line = record.args().to_string();
        with(|proxy| {
            if proxy.enter("log").is_none() {
                proxy.log.push((level, line));
            }
        });
    }

    fn flush(&self) {}
}

/// Makes the macros of `log` write to [`FakeProxy::log`], unless another logger has been installed.
pub fn capture_log() {
    let _ = log::set_logger(&CaptureLog);
    log::set_max_level(LevelFilter::Trace);
}

/// The error of a call that a test wants to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken(pub u32);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "status {}", self.0)
    }
}

/// Records a call of this name, and calls `act` unless a test wants the call to fail.
fn act<T>(name: &'static str, act: impl FnOnce(&mut FakeProxy) -> T) -> Result<T, Broken> {
    with(|proxy| match proxy.enter(name) {
        Some(status) => Err(Broken(status)),
        None => Ok(act(proxy)),
    })
}

/// The proxy of the current thread, as a plugin sees it.
#[derive(Clone, Copy, Debug)]
pub struct FakeHost;

impl Host for FakeHost {
    type Error = Broken;
    type Request = FakeRequest;
    type State = FakeState;

    fn now(&self) -> Result<Timestamp, Broken> {
        act("now", |proxy| Timestamp(proxy.time))
    }

    fn random(&self) -> Result<u64, Broken> {
        act("random", |proxy| u64::from_le_bytes([4 + proxy.random; 8]))
    }

    fn plugin_name(&self) -> Option<String> {
        with(|proxy| proxy.property("plugin_name")).map(|name| String::from_utf8_lossy(&name).into_owned())
    }

    fn start_timer(&self, period: Duration) -> Result<(), Broken> {
        act("start_timer", |proxy| proxy.tick_period = u32::try_from(period.as_millis()).unwrap_or(u32::MAX))
    }

    fn define_metric(&self, _kind: MetricKind, name: &str) -> Result<u32, Broken> {
        act("define_metric", |proxy| proxy.metric(name))
    }

    fn increment(&self, counter: u32, by: u32) -> Result<(), Broken> {
        act("increment", |proxy| proxy.change_metric(counter, |value| value + i64::from(by)))
    }

    fn record(&self, metric: u32, value: u64) -> Result<(), Broken> {
        act("record", |proxy| proxy.change_metric(metric, |_| i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn state(&self, namespace: u64, _tables: &[Table]) -> FakeState {
        FakeState { namespace }
    }

    fn unnamed_hint(&self) -> Option<&'static str> {
        self.plugin_name().is_none().then_some("give it one")
    }

    fn lacks(&self, need: PolicyNeed) -> Option<&'static str> {
        with(|proxy| proxy.lacks.iter().find(|(lacking, _)| *lacking == need).map(|(_, why)| *why))
    }

    fn log_level(&self) -> LevelFilter {
        match with(|proxy| proxy.lowest_level) {
            Some(0) => LevelFilter::Trace,
            Some(1) => LevelFilter::Debug,
            None | Some(2) => LevelFilter::Info,
            Some(3) => LevelFilter::Warn,
            Some(4) => LevelFilter::Error,
            Some(_) => LevelFilter::Off,
        }
    }
}

/// The state of a namespace, which the proxy of the current thread keeps in [`FakeProxy::shared`].
#[derive(Clone, Copy, Debug)]
pub struct FakeState {
    namespace: u64,
}

impl FakeState {
    fn raw(self, key: Key<'_>) -> Vec<u8> {
        let key = match key {
            Key::Named(name) => name.to_owned(),
            Key::Slot(table, index) => format!("{:x}/{index}", table.identity),
        };
        format!("{:x}/{key}", self.namespace).into_bytes()
    }
}

impl PluginState for FakeState {
    type Error = Broken;

    fn update<T>(
        &mut self,
        key: Key<'_>,
        mut change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Option<Broken>> {
        let key = self.raw(key);
        let old = with(|proxy| proxy.shared.get(&key).map(|(value, _)| value.clone())).unwrap_or_default();
        let mut new = Vec::new();
        act("update", |proxy| match change(&old, &mut new) {
            Change::Keep(answer) | Change::Refuse(answer) => answer,
            Change::Replace(answer) => {
                proxy.set_shared(&key, &new);
                answer
            }
        })
        .map_err(Some)
    }

    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Option<Broken>> {
        let key = self.raw(key);
        act("read", |proxy| read(proxy.shared.get(&key).map_or(&[], |(value, _)| value))).map_err(Some)
    }

    fn take_foreign(&mut self) -> u32 {
        with(|proxy| std::mem::take(&mut proxy.foreign))
    }
}

/// The current request of the proxy of the current thread.
#[derive(Debug)]
pub struct FakeRequest;

/// A copy of the proxy's header map; `None` if the proxy passed bytes that are not a header map.
#[derive(Clone, Debug)]
pub struct FakeHeaders(Option<Vec<(Vec<u8>, Vec<u8>)>>);

impl HeaderMap for FakeHeaders {
    fn parse(&self) -> Result<Headers<'_>, Malformed> {
        let headers = self.0.as_ref().ok_or(Malformed)?;
        Ok(headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect())
    }
}

fn change_header(headers: &mut Vec<(Vec<u8>, Vec<u8>)>, change: &HeaderOp<'_>) {
    let (HeaderOp::Set(name, _) | HeaderOp::Add(name, _) | HeaderOp::Remove(name)) = change;
    if !matches!(change, HeaderOp::Add(..)) {
        headers.retain(|(other, _)| other != name.as_bytes());
    }
    if let HeaderOp::Set(_, value) | HeaderOp::Add(_, value) = change {
        headers.push((name.as_bytes().to_vec(), value.to_vec()));
    }
}

impl ProxyRequest for FakeRequest {
    type Error = Broken;
    type Headers = FakeHeaders;

    fn headers(&mut self) -> Result<FakeHeaders, Broken> {
        act("headers", |proxy| FakeHeaders(proxy.raw_headers.is_none().then(|| proxy.headers.clone())))
    }

    fn change_header(&mut self, change: &HeaderOp<'_>) -> Result<(), Broken> {
        act("change_header", |proxy| change_header(&mut proxy.headers, change))
    }

    fn respond(
        &mut self,
        status: u16,
        details: &str,
        headers: &[Header<'_>],
        body: &[u8],
        _grpc_status: Option<u8>,
    ) -> Result<(), Broken> {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        act("respond", |proxy| {
            proxy.sent = Some(SentResponse {
                status: status.into(),
                details: details.to_owned(),
                headers: headers.iter().map(|(name, value)| (lossy(name), lossy(value))).collect(),
                body: lossy(body),
            });
        })
    }

    fn reset(&mut self) {
        let _ = act("reset", |proxy| proxy.was_reset = true);
    }

    fn resume(&mut self) -> Result<(), Broken> {
        act("resume", |proxy| proxy.continued += 1)
    }

    fn call(&mut self, call: &GrpcCall<'_>) -> Result<CallStart, Broken> {
        act("call", |proxy| {
            let timeout = u32::try_from(call.timeout.as_millis()).unwrap_or(u32::MAX);
            proxy.questions.push((call.cluster.as_bytes().to_vec(), call.message.to_vec(), timeout));
            match proxy.early_reply.take() {
                Some(reply) => CallStart::Ended(reply),
                None => CallStart::Begun(u32::try_from(proxy.questions.len()).unwrap_or(u32::MAX)),
            }
        })
    }

    fn cancel(&mut self, call: u32) {
        let _ = act("cancel", |proxy| proxy.cancelled.push(call));
    }

    fn set_filter_state(&mut self, name: &str, value: &str) {
        let _ = act("set_filter_state", |proxy| proxy.filter_state.push((name.to_owned(), value.to_owned())));
    }

    fn change_response_header(&mut self, change: &HeaderOp<'_>) -> Result<(), Broken> {
        act("change_response_header", |proxy| change_header(&mut proxy.response_headers, change))
    }

    fn response_header(&mut self, name: &str) -> Option<Vec<u8>> {
        with(|proxy| {
            let mut headers = proxy.response_headers.iter();
            headers.find(|(other, _)| other == name.as_bytes()).map(|(_, value)| value.clone())
        })
    }

    fn grpc_status(&mut self, place: GrpcStatusIn) -> Option<u32> {
        with(|proxy| {
            let map = match place {
                GrpcStatusIn::Headers => &proxy.response_headers,
                GrpcStatusIn::Trailers => &proxy.response_trailers,
            };
            let (_, status) = map.iter().find(|(name, _)| name == b"grpc-status")?;
            std::str::from_utf8(status).ok()?.parse().ok()
        })
    }

    fn response_status(&mut self) -> Result<u16, Broken> {
        let status = act("response_status", |proxy| {
            let status = proxy.response_headers.iter().find(|(name, _)| name == b":status")?;
            std::str::from_utf8(&status.1).ok()?.parse().ok()
        })?;
        status.ok_or(Broken(1))
    }

    fn response_flags(&mut self) -> u64 {
        let flags = with(|proxy| proxy.property("response\0flags"));
        flags.and_then(|flags| Some(u64::from_le_bytes(flags.try_into().ok()?))).unwrap_or(0)
    }

    fn close_connection(&mut self) {
        self.reset();
    }

    fn source_address(&mut self) -> Option<IpAddr> {
        address("source\0address")
    }

    fn destination_address(&mut self) -> Option<IpAddr> {
        address("destination\0address")
    }

    fn destination_port(&mut self) -> Option<u16> {
        let port = with(|proxy| proxy.property("destination\0port"))?;
        u16::try_from(i64::from_le_bytes(port.try_into().ok()?)).ok()
    }

    fn has_tls(&mut self) -> Option<bool> {
        Some(with(|proxy| proxy.property("connection\0tls_version")).is_some())
    }

    fn sni(&mut self) -> Option<Vec<u8>> {
        with(|proxy| proxy.property("connection\0requested_server_name"))
    }

    fn identity(&mut self, source: &IdentitySource) -> Option<Vec<u8>> {
        match source {
            IdentitySource::PeerCertificate => with(|proxy| proxy.property("connection\0uri_san_peer_certificate")),
            IdentitySource::Workload { .. } | IdentitySource::FilterState(_) => None,
        }
    }

    fn facts(&mut self, places: &[FactPlace]) -> Result<Vec<Fact>, Broken> {
        let metadata = act("facts", |proxy| proxy.property("metadata"))?;
        Ok(metadata.map_or_else(Vec::new, |bytes| Metadata(&bytes).facts(places)))
    }

    fn earlier_route(&mut self) -> Option<Vec<u8>> {
        with(|proxy| proxy.property(ROUTE_STATE))
    }
}

fn address(property: &str) -> Option<IpAddr> {
    let text = String::from_utf8(with(|proxy| proxy.property(property))?).ok()?;
    text.parse().map(|address: SocketAddr| address.ip()).or_else(|_| text.parse()).ok()
}
