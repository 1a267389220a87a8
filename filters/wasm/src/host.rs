//! The host's functions as safe Rust: arguments that cannot be wrong, a `Result` for every answer.

use std::cell::{RefCell, RefMut};
use std::net::{IpAddr, SocketAddr};

use penstock_policy::state::{Change, Key, State, Unavailable};
use penstock_policy::{Environment, HeaderOp, IdentitySource, Runs, Timestamp, WorkerMemory};

use crate::abi::{self, LogLevel, Status};
use crate::memory::{self, HostBuffer};
use crate::shared::{self, SharedState, Stopped};

/// Writes one line to the host's log. There is nobody to tell when that fails.
pub(crate) fn log(level: LogLevel, line: &str) {
    // SAFETY: address and length are those of `line`.
    let _ = unsafe { abi::proxy_log(level as u32, line.as_ptr(), line.len()) };
}

/// The configuration of the plugin that is being configured.
pub(crate) fn plugin_configuration(size: usize) -> Result<HostBuffer, Status> {
    memory::receive(|data, length| {
        // SAFETY: the two out-pointers come from `receive` and live through the call.
        unsafe { abi::proxy_get_buffer_bytes(abi::PLUGIN_CONFIGURATION, 0, size, data, length) }
    })
}

/// All headers of the current request, serialised.
pub(crate) fn request_headers() -> Result<HostBuffer, Status> {
    memory::receive(|data, length| {
        // SAFETY: the two out-pointers come from `receive` and live through the call.
        unsafe { abi::proxy_get_header_map_pairs(abi::REQUEST_HEADERS, data, length) }
    })
}

/// Changes one header of the current request. A write also makes the host look for its route anew.
pub(crate) fn change_request_header(change: &HeaderOp<'_>) -> Result<(), Status> {
    change_header(abi::REQUEST_HEADERS, change)
}

/// Changes one header of the current response.
pub(crate) fn change_response_header(change: &HeaderOp<'_>) -> Result<(), Status> {
    change_header(abi::RESPONSE_HEADERS, change)
}

fn change_header(map: u32, change: &HeaderOp<'_>) -> Result<(), Status> {
    // SAFETY: each address goes with the length of the same slice; the host copies before it returns.
    Status::check(unsafe {
        match change {
            HeaderOp::Set(name, value) => {
                abi::proxy_replace_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len())
            }
            HeaderOp::Add(name, value) => {
                abi::proxy_add_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len())
            }
            HeaderOp::Remove(name) => abi::proxy_remove_header_map_value(map, name.as_ptr(), name.len()),
        }
    })
}

/// The status of the current response.
pub(crate) fn response_status() -> Result<u16, Status> {
    const NAME: &str = ":status";
    let value = memory::receive(|data, length| {
        // SAFETY: address and length are those of `NAME`; the out-pointers come from `receive`.
        unsafe { abi::proxy_get_header_map_value(abi::RESPONSE_HEADERS, NAME.as_ptr(), NAME.len(), data, length) }
    })?;
    std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).ok_or(Status::NOT_FOUND)
}

/// What cut off an exchange after its response had begun: Envoy's response flags, 0 when it has none to tell.
pub(crate) fn response_flags() -> u64 {
    let flags = property("response\0flags");
    flags.and_then(|flags| Some(u64::from_le_bytes((&*flags).try_into().ok()?))).unwrap_or(0)
}

/// Answers the current request in the place of an upstream. `headers` is a serialised map; `details` goes to access logs.
/// A client of gRPC gets `grpc_status`, or what the host derives from `status`.
pub(crate) fn respond(
    status: u16,
    details: &str,
    headers: &[u8],
    body: &[u8],
    grpc_status: Option<u8>,
) -> Result<(), Status> {
    // SAFETY: each address goes with the length of the same slice; the host copies before it returns.
    Status::check(unsafe {
        abi::proxy_send_local_response(
            status.into(),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status.map_or(abi::NO_GRPC_STATUS, u32::from),
        )
    })
}

/// Makes the request `stream` the current one for the rest of this callback.
pub(crate) fn act_for(stream: u32) -> Result<(), Status> {
    // SAFETY: takes no memory.
    Status::check(unsafe { abi::proxy_set_effective_context(stream) })
}

/// Lets the current request go on after a pause.
pub(crate) fn continue_request() -> Result<(), Status> {
    // SAFETY: takes no memory.
    Status::check(unsafe { abi::proxy_continue_stream(abi::REQUEST_STREAM) })
}

/// Begins a unary gRPC call for the current request and gives its number. It may be over before this returns: then the
/// callback has come already. `service` is a serialised `envoy.config.core.v3.GrpcService`; `timeout` is in milliseconds.
pub(crate) fn grpc_call(service: &[u8], name: &str, method: &str, message: &[u8], timeout: u32) -> Result<u32, Status> {
    let mut call = 0;
    let no_metadata = [];
    // SAFETY: each address goes with the length of the same slice; the host copies before it returns; `call` lives
    // through the call.
    Status::check(unsafe {
        abi::proxy_grpc_call(
            service.as_ptr(),
            service.len(),
            name.as_ptr(),
            name.len(),
            method.as_ptr(),
            method.len(),
            no_metadata.as_ptr(),
            no_metadata.len(),
            message.as_ptr(),
            message.len(),
            timeout,
            &raw mut call,
        )
    })?;
    Ok(call)
}

/// Gives up a gRPC call. One that is over already is none of anybody's business.
pub(crate) fn grpc_cancel(call: u32) {
    // SAFETY: takes no memory.
    let _ = unsafe { abi::proxy_grpc_cancel(call) };
}

/// The message that the current gRPC callback is about.
pub(crate) fn grpc_message(size: usize) -> Result<HostBuffer, Status> {
    memory::receive(|data, length| {
        // SAFETY: the two out-pointers come from `receive` and live through the call.
        unsafe { abi::proxy_get_buffer_bytes(abi::GRPC_RECEIVE_BUFFER, 0, size, data, length) }
    })
}

/// Resets the current request: what is left when it cannot even be answered.
pub(crate) fn reset_request() {
    // SAFETY: takes no memory.
    let _ = unsafe { abi::proxy_close_stream(abi::REQUEST_STREAM) };
}

/// Adds one to the counter `name`, which comes into being with its first use: for what should never happen.
pub(crate) fn count_rare(name: &str) {
    count_rare_times(name, 1);
}

/// Adds to the counter `name` as [`count_rare`] does.
pub(crate) fn count_rare_times(name: &str, times: u32) {
    // There is nobody to tell when that fails.
    let _ = define_counter(name).and_then(|id| increment(id, times));
}

/// The host's number of the counter `name`, which comes into being when it is new.
pub(crate) fn define_counter(name: &str) -> Result<u32, Status> {
    define(abi::COUNTER, name)
}

fn define(kind: u32, name: &str) -> Result<u32, Status> {
    let mut id = 0;
    // SAFETY: address and length are those of `name`; `id` lives through the call.
    Status::check(unsafe { abi::proxy_define_metric(kind, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

/// Sets the gauge `name`, which comes into being when it is new: for what is told rarely. There is nobody to tell when
/// that fails.
pub(crate) fn set_gauge(name: &str, value: u64) {
    let _ = define_gauge(name).and_then(|id| record(id, value));
}

/// The host's number of the gauge `name`, which comes into being when it is new.
pub(crate) fn define_gauge(name: &str) -> Result<u32, Status> {
    define(abi::GAUGE, name)
}

/// The host's number of the histogram `name`, which comes into being when it is new.
pub(crate) fn define_histogram(name: &str) -> Result<u32, Status> {
    define(abi::HISTOGRAM, name)
}

/// Sets a gauge, or adds a value to a histogram.
pub(crate) fn record(id: u32, value: u64) -> Result<(), Status> {
    // SAFETY: takes no memory.
    Status::check(unsafe { abi::proxy_record_metric(id, value) })
}

/// Adds to a counter.
pub(crate) fn increment(id: u32, by: u32) -> Result<(), Status> {
    // SAFETY: takes no memory.
    Status::check(unsafe { abi::proxy_increment_metric(id, by.into()) })
}

/// Asks the host to call the plugin that is being configured every `period` milliseconds.
pub(crate) fn tick_every(period: u32) -> Result<(), Status> {
    // SAFETY: takes no memory.
    Status::check(unsafe { abi::proxy_set_tick_period_milliseconds(period) })
}

/// Closes the current connection.
pub(crate) fn close_connection() {
    // SAFETY: takes no memory.
    let _ = unsafe { abi::proxy_close_stream(abi::DOWNSTREAM) };
}

/// Sets a filter state object of the current request. An access log that lacks it is all that comes of a failure.
pub(crate) fn set_filter_state(name: &str, value: &str) {
    // SAFETY: each address goes with the length of the same slice; the host copies before it returns.
    let _ = unsafe { abi::proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
}

/// The lowest level of which the host's log takes lines. A host that does not say takes those that matter.
pub(crate) fn lowest_log_level() -> u32 {
    let mut lowest = LogLevel::Info as u32;
    // SAFETY: `lowest` lives through the call.
    let _ = unsafe { abi::proxy_get_log_level(&raw mut lowest) };
    lowest
}

/// The wall clock in whole seconds, for what needs no better; 0 on a host without one.
pub(crate) fn seconds() -> u64 {
    nanoseconds().unwrap_or(0) / 1_000_000_000
}

/// The wall clock in nanoseconds.
pub(crate) fn nanoseconds() -> Option<u64> {
    let mut time = 0;
    // SAFETY: `time` lives through the call.
    Status::check(unsafe { abi::proxy_get_current_time_nanoseconds(&raw mut time) }).ok()?;
    Some(time)
}

/// The address that the client of the current connection connected to.
pub(crate) fn destination_address() -> Option<IpAddr> {
    address(&property("destination\0address")?)
}

/// An address as Envoy writes it: `192.0.2.1:5000` or `[2001:db8::1]:5000`; Unix sockets and internal listeners have
/// neither.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse().map(|address: SocketAddr| address.ip()).or_else(|_| text.parse()).ok()
}

/// The port that the client of the current connection connected to.
pub(crate) fn destination_port() -> Option<u16> {
    let port = property("destination\0port")?;
    let port = i64::from_le_bytes((&*port).try_into().ok()?);
    u16::try_from(port).ok().filter(|port| *port != 0)
}

/// A property of the current request's connection; `path` has its parts separated by NUL.
fn property(path: &str) -> Option<HostBuffer> {
    read_property(path).ok().filter(|value| !value.is_empty())
}

/// The same with the host's reason for not giving it.
fn read_property(path: &str) -> Result<HostBuffer, Status> {
    memory::receive(|data, length| {
        // SAFETY: address and length are those of `path`; the out-pointers come from `receive`.
        unsafe { abi::proxy_get_property(path.as_ptr(), path.len(), data, length) }
    })
}

/// What tells the plugin that is being configured from every other of this proxy: root id, name, and the listener's
/// direction. Listeners that run the same plugin under the same name in the same direction share it.
pub(crate) fn instance() -> Vec<u8> {
    let mut instance = Vec::new();
    for path in ["plugin_root_id", "plugin_name", "listener_direction"] {
        if let Some(value) = property(path) {
            instance.extend_from_slice(&value);
        }
        instance.push(0);
    }
    instance
}

/// Whether nothing but the listener's direction tells the plugin that is being configured from others.
pub(crate) fn is_nameless() -> bool {
    property("plugin_root_id").is_none() && property("plugin_name").is_none()
}

/// The name of the plugin that is being configured, else its root id, else the module's.
pub(crate) fn plugin_name<M: Runs>() -> String {
    let given = |path| String::from_utf8(property(path)?.to_vec()).ok();
    ["plugin_name", "plugin_root_id"].into_iter().find_map(given).unwrap_or_else(|| M::MODULE.name().to_owned())
}

/// Where the header-routing module says who wrote the route header, for the canary module behind it.
pub(crate) const ROUTE_STATE: &str = "penstock.route";

/// What a worker keeps beside a policy.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) shared: SharedState,
    worker: WorkerMemory,
}

impl Kept {
    /// For a policy with this state.
    pub(crate) fn new(shared: SharedState) -> Kept {
        Kept { shared, worker: WorkerMemory::default() }
    }
}

/// What a decision may ask, answered by the host.
///
/// A fact that the host does not have is `None`. A host without clock, randomness or shared data is broken: the decision
/// still comes to an end, but [`HostEnvironment::failure`] says that it must not be used.
#[derive(Debug)]
pub(crate) struct HostEnvironment<'p> {
    failure: Option<Status>,
    kept: Lent<'p>,
}

#[derive(Debug)]
enum Lent<'p> {
    Of(RefMut<'p, Kept>),
    /// For facts alone.
    None(Kept),
}

/// An environment for facts alone: it keeps nothing.
impl Default for HostEnvironment<'_> {
    fn default() -> Self {
        HostEnvironment { failure: None, kept: Lent::None(Kept::default()) }
    }
}

impl<'p> HostEnvironment<'p> {
    /// For decisions by the policy beside which `kept` is kept.
    pub(crate) fn new(kept: &'p RefCell<Kept>) -> HostEnvironment<'p> {
        // It is never lent twice: a callback has one environment at a time.
        kept.try_borrow_mut()
            .map_or_else(|_| Self::default(), |kept| HostEnvironment { failure: None, kept: Lent::Of(kept) })
    }

    fn kept(&mut self) -> &mut Kept {
        match &mut self.kept {
            Lent::Of(kept) => kept,
            Lent::None(kept) => kept,
        }
    }

    /// Why the decision that was made with this environment is worth nothing.
    pub(crate) fn failure(&self) -> Option<Status> {
        self.failure
    }

    fn check(&mut self, status: u32) {
        if let Err(status) = Status::check(status) {
            self.failure = Some(status);
        }
    }

    /// A second has passed: tells the others that the policy still lives.
    pub(crate) fn keep_state(&mut self) {
        let shared = &mut self.kept().shared;
        // What fails is tried again in a second.
        let _ = shared::with(|store| shared.keep(store));
    }
}

impl State for HostEnvironment<'_> {
    fn update<T>(
        &mut self,
        key: Key<'_>,
        change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Unavailable> {
        let shared = &mut self.kept().shared;
        let updated = shared::with(|store| shared.update(store, key, change));
        updated.unwrap_or(Err(Stopped::Contended)).map_err(|stopped| {
            if let Stopped::Host(status) = stopped {
                self.failure = Some(status);
            }
            Unavailable
        })
    }

    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable> {
        let shared = &mut self.kept().shared;
        let found = shared::with(|store| shared.read(store, key, read)).ok_or(Unavailable)?;
        found.map_err(|status| {
            self.failure = Some(status);
            Unavailable
        })
    }
}

impl Environment for HostEnvironment<'_> {
    fn now(&mut self) -> Timestamp {
        let mut time = 0;
        // SAFETY: `time` lives through the call.
        self.check(unsafe { abi::proxy_get_current_time_nanoseconds(&raw mut time) });
        Timestamp(time)
    }

    fn source_address(&mut self) -> Option<IpAddr> {
        address(&property("source\0address")?)
    }

    /// Envoy has a version for every connection with TLS, and none for others.
    fn has_tls(&mut self) -> Option<bool> {
        match read_property("connection\0tls_version") {
            Ok(version) => Some(!version.is_empty()),
            Err(Status::NOT_FOUND) => Some(false),
            Err(_) => None,
        }
    }

    fn sni(&mut self) -> Option<Vec<u8>> {
        Some(property("connection\0requested_server_name")?.to_vec())
    }

    fn peer(&mut self) -> Option<Vec<u8>> {
        Some(property("connection\0uri_san_peer_certificate")?.to_vec())
    }

    fn identity(&mut self, source: &IdentitySource) -> Option<Vec<u8>> {
        match source {
            IdentitySource::PeerCertificate => self.peer(),
            IdentitySource::FilterState(key) => Some(property(&format!("filter_state\0{key}"))?.to_vec()),
            IdentitySource::Workload { trust_domain } => {
                // Istio's names; a slash would make one identity look like another.
                let part = |key: &str| {
                    let value = property(&format!("xds\0node\0metadata\0{key}"))?;
                    let text = std::str::from_utf8(&value).ok()?.to_owned();
                    Some(text).filter(|text| !text.contains('/'))
                };
                let (namespace, account) = (part("NAMESPACE")?, part("SERVICE_ACCOUNT")?);
                Some(format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}").into_bytes())
            }
        }
    }

    fn earlier_route(&mut self) -> Option<Vec<u8>> {
        Some(property(ROUTE_STATE)?.to_vec())
    }

    fn random(&mut self) -> u64 {
        let mut bytes = [0; 8];
        // SAFETY: address and length are those of `bytes`.
        self.check(unsafe { abi::random_get(bytes.as_mut_ptr(), bytes.len()) });
        u64::from_le_bytes(bytes)
    }

    fn worker(&mut self) -> &mut WorkerMemory {
        &mut self.kept().worker
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::{self, with};

    #[test]
    fn the_source_address_is_read_with_and_without_a_port() {
        for (text, address) in [
            (&b"192.0.2.1:5000"[..], Some("192.0.2.1")),
            (b"[2001:db8::1]:5000", Some("2001:db8::1")),
            (b"[::ffff:192.0.2.1]:1", Some("::ffff:192.0.2.1")),
            (b"192.0.2.1", Some("192.0.2.1")),
            (b"2001:db8::1", Some("2001:db8::1")),
            (b"/run/client.sock", None),
            (b"envoy://internal/1", None),
            (b"\xff\xfe:1", None),
            (b"", None),
        ] {
            fake_host::reset();
            with(|host| host.properties.push(("source\0address", text.to_vec())));
            let expected = address.map(|address| address.parse().unwrap());
            assert_eq!(HostEnvironment::default().source_address(), expected, "{text:?}");
        }
    }

    #[test]
    fn the_destination_port_is_eight_little_endian_bytes() {
        for (bytes, port) in [
            (&8443_i64.to_le_bytes()[..], Some(8443)),
            (&0_i64.to_le_bytes()[..], None),
            (&(-1_i64).to_le_bytes()[..], None),
            (&65536_i64.to_le_bytes()[..], None),
            (b"8443", None),
        ] {
            fake_host::reset();
            with(|host| host.properties.push(("destination\0port", bytes.to_vec())));
            assert_eq!(destination_port(), port, "{bytes:?}");
        }
    }

    #[test]
    fn a_connection_has_tls_when_the_host_knows_its_version() {
        for (version, expected) in [(&b"TLSv1.3"[..], true), (b"", false)] {
            fake_host::reset();
            with(|host| host.properties.push(("connection\0tls_version", version.to_vec())));
            assert_eq!(HostEnvironment::default().has_tls(), Some(expected), "{version:?}");
        }
        fake_host::reset();
        with(|host| host.broken.push(("proxy_get_property", 10)));
        assert_eq!(HostEnvironment::default().has_tls(), None, "a host that does not answer has said neither");
    }

    #[test]
    fn what_the_connection_does_not_have_is_none() {
        fake_host::reset();
        let mut environment = HostEnvironment::default();
        assert_eq!((environment.sni(), environment.peer()), (None, None));
        assert_eq!((environment.source_address(), environment.has_tls()), (None, Some(false)));
        assert_eq!(environment.failure(), None);
    }

    #[test]
    fn a_host_without_clock_or_randomness_is_a_failure() {
        for function in ["proxy_get_current_time_nanoseconds", "random_get"] {
            fake_host::reset();
            with(|host| host.broken.push((function, 10)));
            let mut environment = HostEnvironment::default();
            environment.now();
            environment.random();
            assert_eq!(environment.failure().map(Status::code), Some(10), "{function}");
        }
    }

    #[test]
    fn the_clock_is_the_hosts() {
        fake_host::reset();
        with(|host| host.time = 1_700_000_000_000_000_000);
        assert_eq!(HostEnvironment::default().now(), Timestamp(1_700_000_000_000_000_000));
    }
}
