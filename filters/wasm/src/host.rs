//! The proxy's functions as safe Rust functions that return a `Result`.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::time::Duration;

use log::LevelFilter;
use penstock_host::{
    CallStart, GrpcCall, GrpcStatusIn, HeaderMap, Headers, Host, Malformed, MetricKind, PluginState, ProxyRequest,
    ROUTE_STATE, address,
};
use penstock_policy::facts::{Fact, FactPlace, Metadata};
use penstock_policy::state::{Change, Key, Table};
use penstock_policy::{Header, HeaderOp, IdentitySource, Timestamp};

use crate::abi::{self, Status};
use crate::memory::{self, HostBuffer};
use crate::shared::{self, SharedState, Stopped, Store};
use crate::{headers, logger};

/// The configuration of the plugin that is being configured.
pub(crate) fn plugin_configuration(size: usize) -> Result<HostBuffer, Status> {
    memory::receive(|data, length| {
        // SAFETY: the two out-pointers come from `receive` and live through the call.
        unsafe { abi::proxy_get_buffer_bytes(abi::PLUGIN_CONFIGURATION, 0, size, data, length) }
    })
}

/// The message of the current gRPC callback.
pub(crate) fn grpc_message(size: usize) -> Result<HostBuffer, Status> {
    memory::receive(|data, length| {
        // SAFETY: the two out-pointers come from `receive` and live through the call.
        unsafe { abi::proxy_get_buffer_bytes(abi::GRPC_RECEIVE_BUFFER, 0, size, data, length) }
    })
}

/// Makes the request `stream` the current one for the rest of this callback.
pub(crate) fn act_for(stream: u32) -> Result<(), Status> {
    // SAFETY: takes no memory.
    Status::check(unsafe { abi::proxy_set_effective_context(stream) })
}

/// Asks the proxy to call the plugin that is being configured every `period` milliseconds.
pub(crate) fn tick_every(period: u32) -> Result<(), Status> {
    // SAFETY: takes no memory.
    Status::check(unsafe { abi::proxy_set_tick_period_milliseconds(period) })
}

/// A property of the current request's connection; `path` has its parts separated by NUL.
fn property(path: &str) -> Option<HostBuffer> {
    read_property(path).ok().filter(|value| !value.is_empty())
}

/// The same, with the proxy's status if it does not return it.
fn read_property(path: &str) -> Result<HostBuffer, Status> {
    memory::receive(|data, length| {
        // SAFETY: address and length are those of `path`; the out-pointers come from `receive`.
        unsafe { abi::proxy_get_property(path.as_ptr(), path.len(), data, length) }
    })
}

/// The proxy, in the context of the plugin that it calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProxyWasm;

/// What distinguishes this plugin from others: root id, name, and the listener's direction. Listeners that run the same plugin under
/// the same name in the same direction share it.
fn instance() -> Vec<u8> {
    let mut instance = Vec::new();
    for path in ["plugin_root_id", "plugin_name", "listener_direction"] {
        if let Some(value) = property(path) {
            instance.extend_from_slice(&value);
        }
        instance.push(0);
    }
    instance
}

impl Host for ProxyWasm {
    type Error = Status;
    type Request = CurrentRequest;
    type State = SharedState;

    fn now(&self) -> Result<Timestamp, Status> {
        let mut time = 0;
        // SAFETY: `time` lives through the call.
        Status::check(unsafe { abi::proxy_get_current_time_nanoseconds(&raw mut time) })?;
        Ok(Timestamp(time))
    }

    fn random(&self) -> Result<u64, Status> {
        let mut bytes = [0; 8];
        // SAFETY: address and length are those of `bytes`.
        Status::check(unsafe { abi::random_get(bytes.as_mut_ptr(), bytes.len()) })?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The name, or the root id if there is no name.
    fn plugin_name(&self) -> Option<String> {
        let given = |path| String::from_utf8(property(path)?.to_vec()).ok();
        ["plugin_name", "plugin_root_id"].into_iter().find_map(given)
    }

    fn start_timer(&self, period: Duration) -> Result<(), Status> {
        tick_every(u32::try_from(period.as_millis()).unwrap_or(u32::MAX))
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, Status> {
        let kind = match kind {
            MetricKind::Counter => abi::COUNTER,
            MetricKind::Gauge => abi::GAUGE,
            MetricKind::Histogram => abi::HISTOGRAM,
        };
        let mut id = 0;
        // SAFETY: address and length are those of `name`; `id` lives through the call.
        Status::check(unsafe { abi::proxy_define_metric(kind, name.as_ptr(), name.len(), &raw mut id) })?;
        Ok(id)
    }

    fn increment(&self, counter: u32, by: u32) -> Result<(), Status> {
        // SAFETY: takes no memory.
        Status::check(unsafe { abi::proxy_increment_metric(counter, by.into()) })
    }

    fn record(&self, metric: u32, value: u64) -> Result<(), Status> {
        // SAFETY: takes no memory.
        Status::check(unsafe { abi::proxy_record_metric(metric, value) })
    }

    fn state(&self, namespace: u64, tables: &[Table]) -> SharedState {
        let mut state = SharedState::new(&instance(), namespace);
        state.set_tables(tables);
        // If this fails, it is tried again when a table is first used.
        let _ = shared::with(|store| state.arrive(store));
        state
    }

    fn unnamed_hint(&self) -> Option<&'static str> {
        let is_nameless = property("plugin_root_id").is_none() && property("plugin_name").is_none();
        is_nameless.then_some("it has neither `name` nor `root_id`")
    }

    fn log_level(&self) -> LevelFilter {
        logger::level()
    }
}

impl PluginState for SharedState {
    type Error = Status;

    /// A read costs a call and a callback, and with several workers most guesses of the token are wrong.
    const LEASES: bool = true;

    fn update<T>(
        &mut self,
        key: Key<'_>,
        change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Option<Status>> {
        let updated = shared::with(|store| SharedState::update(self, store, key, change));
        updated.unwrap_or(Err(Stopped::Contended)).map_err(|stopped| match stopped {
            Stopped::Host(status) => Some(status),
            Stopped::Contended | Stopped::Others => None,
        })
    }

    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Option<Status>> {
        let found = shared::with(|store| SharedState::read(self, store, key, read)).ok_or(None)?;
        found.map_err(Some)
    }

    fn keep(&mut self) {
        // If it fails, it is tried again after a second.
        let _ = shared::with(|store| SharedState::keep(self, store));
    }

    fn take_foreign(&mut self) -> u32 {
        shared::with(Store::take_foreign).unwrap_or(0)
    }
}

impl HeaderMap for HostBuffer {
    fn parse(&self) -> Result<Headers<'_>, Malformed> {
        headers::parse(self)
    }
}

thread_local! {
    /// Whether a call is being started: its reply may arrive before its number is known.
    static IS_CALL_BEGINNING: Cell<bool> = const { Cell::new(false) };
    /// The reply that arrived within the start of its call.
    static EARLY_REPLY: RefCell<Option<Option<Vec<u8>>>> = const { RefCell::new(None) };
}

/// Stores the reply to the call that is being started. Any other reply belongs to a call whose request has ended.
pub(crate) fn note_early_reply(message: Option<&[u8]>) {
    if IS_CALL_BEGINNING.get() {
        EARLY_REPLY.set(Some(message.map(<[u8]>::to_vec)));
    }
}

/// The request or connection that the current callback is about.
#[derive(Debug)]
pub(crate) struct CurrentRequest;

fn change_header(map: u32, change: &HeaderOp<'_>) -> Result<(), Status> {
    // SAFETY: each address goes with the length of the same slice; the proxy copies before it returns.
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

/// The first value of a header.
fn header(map: u32, name: &str) -> Result<HostBuffer, Status> {
    memory::receive(|data, length| {
        // SAFETY: address and length are those of `name`; the out-pointers come from `receive`.
        unsafe { abi::proxy_get_header_map_value(map, name.as_ptr(), name.len(), data, length) }
    })
}

/// The value of a header that is a number.
fn number<T: std::str::FromStr>(map: u32, name: &str) -> Result<T, Status> {
    let value = header(map, name)?;
    std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).ok_or(Status::NOT_FOUND)
}

impl ProxyRequest for CurrentRequest {
    type Error = Status;
    type Headers = HostBuffer;

    fn headers(&mut self) -> Result<HostBuffer, Status> {
        memory::receive(|data, length| {
            // SAFETY: the two out-pointers come from `receive` and live through the call.
            unsafe { abi::proxy_get_header_map_pairs(abi::REQUEST_HEADERS, data, length) }
        })
    }

    /// A write also makes the proxy select the route again.
    fn change_header(&mut self, change: &HeaderOp<'_>) -> Result<(), Status> {
        change_header(abi::REQUEST_HEADERS, change)
    }

    fn respond(
        &mut self,
        status: u16,
        details: &str,
        headers: &[Header<'_>],
        body: &[u8],
        grpc_status: Option<u8>,
    ) -> Result<(), Status> {
        let headers = if headers.is_empty() { Vec::new() } else { headers::serialize(headers.iter().copied()) };
        // SAFETY: each address goes with the length of the same slice; the proxy copies before it returns.
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

    fn reset(&mut self) {
        // SAFETY: takes no memory.
        let _ = unsafe { abi::proxy_close_stream(abi::REQUEST_STREAM) };
    }

    fn resume(&mut self) -> Result<(), Status> {
        // SAFETY: takes no memory.
        Status::check(unsafe { abi::proxy_continue_stream(abi::REQUEST_STREAM) })
    }

    /// The proxy makes the call in the plugin's context, not in the request's: the callback names the plugin, so the
    /// request is found by the call's number. A call may end while it is being started, when the cluster is unknown or
    /// has no endpoint: the callback then comes before the number is known.
    fn call(&mut self, call: &GrpcCall<'_>) -> Result<CallStart, Status> {
        let service = grpc_service(call.cluster);
        let no_metadata = [];
        // Rounded up, because 0 would mean no timeout.
        let timeout = u32::try_from(call.timeout.as_nanos().div_ceil(1_000_000).max(1)).unwrap_or(u32::MAX);
        let mut number = 0;
        IS_CALL_BEGINNING.set(true);
        // SAFETY: each address goes with the length of the same slice; the proxy copies before it returns; `number` lives
        // through the call.
        let status = unsafe {
            abi::proxy_grpc_call(
                service.as_ptr(),
                service.len(),
                call.service.as_ptr(),
                call.service.len(),
                call.method.as_ptr(),
                call.method.len(),
                no_metadata.as_ptr(),
                no_metadata.len(),
                call.message.as_ptr(),
                call.message.len(),
                timeout,
                &raw mut number,
            )
        };
        IS_CALL_BEGINNING.set(false);
        if let Some(reply) = EARLY_REPLY.take() {
            return Ok(CallStart::Ended(reply));
        }
        Status::check(status)?;
        Ok(CallStart::Begun(number))
    }

    fn cancel(&mut self, call: u32) {
        // SAFETY: takes no memory.
        let _ = unsafe { abi::proxy_grpc_cancel(call) };
    }

    /// If this fails, the access log only lacks the value.
    fn set_filter_state(&mut self, name: &str, value: &str) {
        // SAFETY: each address goes with the length of the same slice; the proxy copies before it returns.
        let _ = unsafe { abi::proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    }

    fn change_response_header(&mut self, change: &HeaderOp<'_>) -> Result<(), Status> {
        change_header(abi::RESPONSE_HEADERS, change)
    }

    fn response_status(&mut self) -> Result<u16, Status> {
        number(abi::RESPONSE_HEADERS, ":status")
    }

    fn response_header(&mut self, name: &str) -> Option<Vec<u8>> {
        header(abi::RESPONSE_HEADERS, name).ok().map(|value| value.to_vec())
    }

    fn grpc_status(&mut self, place: GrpcStatusIn) -> Option<u32> {
        let map = match place {
            GrpcStatusIn::Headers => abi::RESPONSE_HEADERS,
            GrpcStatusIn::Trailers => abi::RESPONSE_TRAILERS,
        };
        number(map, "grpc-status").ok()
    }

    fn response_flags(&mut self) -> u64 {
        let flags = property("response\0flags");
        flags.and_then(|flags| Some(u64::from_le_bytes((&*flags).try_into().ok()?))).unwrap_or(0)
    }

    fn close_connection(&mut self) {
        // SAFETY: takes no memory.
        let _ = unsafe { abi::proxy_close_stream(abi::DOWNSTREAM) };
    }

    fn source_address(&mut self) -> Option<IpAddr> {
        address(&property("source\0address")?)
    }

    fn destination_address(&mut self) -> Option<IpAddr> {
        address(&property("destination\0address")?)
    }

    fn destination_port(&mut self) -> Option<u16> {
        let port = property("destination\0port")?;
        let port = i64::from_le_bytes((&*port).try_into().ok()?);
        u16::try_from(port).ok().filter(|port| *port != 0)
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

    fn identity(&mut self, source: &IdentitySource) -> Option<Vec<u8>> {
        match source {
            IdentitySource::PeerCertificate => Some(property("connection\0uri_san_peer_certificate")?.to_vec()),
            IdentitySource::FilterState(key) => Some(property(&format!("filter_state\0{key}"))?.to_vec()),
            IdentitySource::Workload { trust_domain } => {
                // The fields are Istio's. A slash in a value would make one identity look like another.
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

    /// All dynamic metadata, in one call.
    fn facts(&mut self, places: &[FactPlace]) -> Result<Vec<Fact>, Self::Error> {
        Ok(property("metadata").map_or_else(Vec::new, |bytes| Metadata(&bytes).facts(places)))
    }

    fn earlier_route(&mut self) -> Option<Vec<u8>> {
        Some(property(ROUTE_STATE)?.to_vec())
    }
}

/// A cluster as a serialised `envoy.config.core.v3.GrpcService`: the name is field 1, `cluster_name`, of its field 1,
/// `envoy_grpc`. See <https://protobuf.dev/programming-guides/encoding>.
fn grpc_service(cluster: &str) -> Vec<u8> {
    /// Field 1 with these bytes.
    fn field(bytes: &[u8]) -> Vec<u8> {
        let mut message = vec![1 << 3 | 2];
        let mut length = bytes.len();
        while length > 0x7f {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push((length & 0x7f) as u8);
        message.extend_from_slice(bytes);
        message
    }
    field(&field(cluster.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_host::testing::{reset, with};

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
            reset();
            with(|proxy| proxy.properties.push(("source\0address", text.to_vec())));
            let expected = address.map(|address| address.parse().unwrap());
            assert_eq!(CurrentRequest.source_address(), expected, "{text:?}");
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
            reset();
            with(|proxy| proxy.properties.push(("destination\0port", bytes.to_vec())));
            assert_eq!(CurrentRequest.destination_port(), port, "{bytes:?}");
        }
    }

    #[test]
    fn a_connection_has_tls_when_the_proxy_knows_its_version() {
        for (version, expected) in [(&b"TLSv1.3"[..], true), (b"", false)] {
            reset();
            with(|proxy| proxy.properties.push(("connection\0tls_version", version.to_vec())));
            assert_eq!(CurrentRequest.has_tls(), Some(expected), "{version:?}");
        }
        reset();
        with(|proxy| proxy.broken.push(("proxy_get_property", 10)));
        assert_eq!(CurrentRequest.has_tls(), None, "a host that does not answer has said neither");
    }

    #[test]
    fn what_the_connection_does_not_have_is_none() {
        reset();
        let mut request = CurrentRequest;
        assert_eq!((request.sni(), request.identity(&IdentitySource::PeerCertificate)), (None, None));
        assert_eq!((request.source_address(), request.destination_port()), (None, None));
    }

    #[test]
    fn a_proxy_without_clock_or_randomness_says_so() {
        reset();
        with(|proxy| proxy.broken = vec![("proxy_get_current_time_nanoseconds", 10), ("random_get", 10)]);
        assert_eq!(ProxyWasm.now().map_err(Status::code), Err(10));
        assert_eq!(ProxyWasm.random().map_err(Status::code), Err(10));
    }

    #[test]
    fn the_clock_is_the_proxys() {
        reset();
        with(|proxy| proxy.time = 1_700_000_000_000_000_000);
        assert_eq!(ProxyWasm.now(), Ok(Timestamp(1_700_000_000_000_000_000)));
    }

    #[test]
    fn a_cluster_is_an_envoy_grpc_service() {
        assert_eq!(grpc_service("rl"), b"\x0a\x04\x0a\x02rl");
        let long = "c".repeat(200);
        let message = [&b"\x0a\xcb\x01\x0a\xc8\x01"[..], long.as_bytes()].concat();
        assert_eq!(grpc_service(&long), message);
    }
}
