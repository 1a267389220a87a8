//! The proxy-wasm ABI 0.2.1 as far as Penstock uses it: imported functions, statuses, enumerations.
//!
//! Hand-written rather than the `proxy-wasm` crate because that exports all of its callbacks from every module that
//! links it, and each exported callback is a host-to-guest call per request. See `docs/decisions.md`.

use std::fmt;

/// The error statuses of host functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(u32);

impl Status {
    const OK: u32 = 0;
    /// There is nothing with this name.
    pub(crate) const NOT_FOUND: Status = Status(1);
    /// The host returned memory that was not allocated for it, or memory could not be allocated.
    pub(crate) const INVALID_MEMORY_ACCESS: Status = Status(6);
    /// A shared value has changed since the version on which a write is based.
    pub(crate) const CAS_MISMATCH: Status = Status(8);
    /// There is no host, because this is not a wasm module.
    #[cfg(not(any(test, target_arch = "wasm32")))]
    pub(crate) const UNIMPLEMENTED: Status = Status(12);

    /// Any number is a valid status, because hosts may add new ones.
    pub(crate) fn check(code: u32) -> Result<(), Status> {
        if code == Self::OK { Ok(()) } else { Err(Status(code)) }
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) const fn code(self) -> u32 {
        self.0
    }
}

/// The name that the specification gives the status.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "NOT_FOUND",
            2 => "BAD_ARGUMENT",
            3 => "SERIALIZATION_FAILURE",
            4 => "PARSE_FAILURE",
            6 => "INVALID_MEMORY_ACCESS",
            7 => "EMPTY",
            8 => "CAS_MISMATCH",
            10 => "INTERNAL_FAILURE",
            12 => "UNIMPLEMENTED",
            other => return write!(f, "status {other}"),
        })
    }
}

/// The buffer with the reply to a gRPC call.
pub(crate) const GRPC_RECEIVE_BUFFER: u32 = 5;
/// The buffer with a plugin's configuration.
pub(crate) const PLUGIN_CONFIGURATION: u32 = 7;
/// The request's header map.
pub(crate) const REQUEST_HEADERS: u32 = 0;
/// The response's header map.
pub(crate) const RESPONSE_HEADERS: u32 = 2;
/// The response's trailers.
pub(crate) const RESPONSE_TRAILERS: u32 = 3;
/// The client's side of a stream.
pub(crate) const REQUEST_STREAM: u32 = 0;
/// The client's side of a connection.
pub(crate) const DOWNSTREAM: u32 = 2;
/// A metric that only grows.
pub(crate) const COUNTER: u32 = 0;
/// A metric that has the value that was set last.
pub(crate) const GAUGE: u32 = 1;
/// A metric that records a distribution.
pub(crate) const HISTOGRAM: u32 = 2;
/// "No gRPC status": the host derives one from the HTTP status when the request is gRPC.
pub(crate) const NO_GRPC_STATUS: u32 = u32::MAX;

/// Declares host functions once: imports in wasm; natively the test host, or nothing at all.
macro_rules! host_functions {
    ($module:literal: $($(#[$doc:meta])* fn $name:ident($($arg:ident: $kind:ty),* $(,)?);)*) => {
        #[cfg(target_arch = "wasm32")]
        #[link(wasm_import_module = $module)]
        unsafe extern "C" {
            $($(#[$doc])* pub(crate) fn $name($($arg: $kind),*) -> u32;)*
        }

        $(
            $(#[$doc])*
            #[cfg(not(target_arch = "wasm32"))]
            pub(crate) unsafe extern "C" fn $name($($arg: $kind),*) -> u32 {
                #[cfg(test)]
                // SAFETY: the caller passes what the real host function would need.
                let status = unsafe { crate::fake_abi::$name($($arg),*) };
                #[cfg(not(test))]
                let status = { $(let _ = $arg;)* Status::UNIMPLEMENTED.code() };
                status
            }
        )*
    };
}

host_functions! { "env":
    /// One line in the host's log.
    fn proxy_log(level: u32, message: *const u8, size: usize);
    /// Part of a buffer, in memory that the host asks `proxy_on_memory_allocate` for.
    fn proxy_get_buffer_bytes(kind: u32, start: usize, length: usize, data: *mut *mut u8, size: *mut usize);
    /// A whole header map, serialised as described in `headers.rs`.
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize);
    /// The first value of one header.
    fn proxy_get_header_map_value(map: u32, name: *const u8, name_size: usize, data: *mut *mut u8, size: *mut usize);
    /// Adds a value of a header.
    fn proxy_add_header_map_value(map: u32, name: *const u8, name_size: usize, value: *const u8, value_size: usize);
    /// Replaces all values of a header.
    fn proxy_replace_header_map_value(map: u32, name: *const u8, name_size: usize, value: *const u8, value_size: usize);
    /// Removes all values of a header.
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize);
    /// Sends a response to the request. `details` goes to access logs as `%RESPONSE_CODE_DETAILS%`.
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: u32,
    );
    /// Sets the context for the following calls in this callback.
    fn proxy_set_effective_context(context: u32);
    /// Continues a paused stream.
    fn proxy_continue_stream(stream: u32);
    /// Starts a unary gRPC call; `proxy_on_grpc_receive` or `proxy_on_grpc_close` ends it, possibly within this call.
    fn proxy_grpc_call(
        service: *const u8,
        service_size: usize,
        name: *const u8,
        name_size: usize,
        method: *const u8,
        method_size: usize,
        metadata: *const u8,
        metadata_size: usize,
        message: *const u8,
        message_size: usize,
        timeout: u32,
        call: *mut u32,
    );
    /// Cancels a gRPC call.
    fn proxy_grpc_cancel(call: u32);
    /// Resets the stream.
    fn proxy_close_stream(stream: u32);
    /// A property of the connection or the request; the parts of the path are separated by NUL.
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize);
    /// Sets a filter state object of the request, which access logs print as `wasm.<path>`.
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize);
    /// The lowest level that is enabled in the log.
    fn proxy_get_log_level(level: *mut u32);
    /// A value that all plugins with the same VM id share in all workers, and the token of its last write.
    fn proxy_get_shared_data(key: *const u8, key_size: usize, data: *mut *mut u8, size: *mut usize, cas: *mut u32);
    /// Writes such a value if its token is still `cas`; with 0, writes it in any case.
    fn proxy_set_shared_data(key: *const u8, key_size: usize, data: *const u8, size: usize, cas: u32);
    /// The wall clock.
    fn proxy_get_current_time_nanoseconds(time: *mut u64);
    /// The id of a metric, which is created if the name is new.
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32);
    /// Sets the period of `proxy_on_tick` in milliseconds, for the plugin that is being configured.
    fn proxy_set_tick_period_milliseconds(period: u32);
    /// Sets a gauge, or adds a value to a histogram.
    fn proxy_record_metric(id: u32, value: u64);
    /// Adds to a metric.
    fn proxy_increment_metric(id: u32, by: i64);
}

host_functions! { "wasi_snapshot_preview1":
    /// Fills `buffer` from the host's cryptographic source.
    fn random_get(buffer: *mut u8, size: usize);
}

/// The C library's initialisation. If a module never calls it, the linker wraps it around every export, so that it
/// would run again with each callback.
#[cfg(target_os = "wasi")]
pub(crate) fn initialize() {
    unsafe extern "C" {
        fn __wasm_call_ctors();
    }
    // SAFETY: the linker provides it; the host calls `_initialize` once, before anything else.
    unsafe { __wasm_call_ctors() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy_wasm::types::{Action, BufferType, LogLevel, MapType, MetricType, Status as SdkStatus, StreamType};

    #[test]
    fn the_numbers_are_those_of_the_sdk() {
        assert_eq!(Status::OK, SdkStatus::Ok as u32);
        assert_eq!(Status::NOT_FOUND.0, SdkStatus::NotFound as u32);
        assert_eq!(Status::CAS_MISMATCH.0, SdkStatus::CasMismatch as u32);
        assert_eq!(GRPC_RECEIVE_BUFFER, BufferType::GrpcReceiveBuffer as u32);
        assert_eq!(PLUGIN_CONFIGURATION, BufferType::PluginConfiguration as u32);
        assert_eq!(REQUEST_HEADERS, MapType::HttpRequestHeaders as u32);
        assert_eq!(RESPONSE_HEADERS, MapType::HttpResponseHeaders as u32);
        assert_eq!(RESPONSE_TRAILERS, MapType::HttpResponseTrailers as u32);
        assert_eq!(REQUEST_STREAM, StreamType::HttpRequest as u32);
        assert_eq!(DOWNSTREAM, StreamType::Downstream as u32);
        assert_eq!(COUNTER, MetricType::Counter as u32);
        assert_eq!(GAUGE, MetricType::Gauge as u32);
        assert_eq!(HISTOGRAM, MetricType::Histogram as u32);
        assert_eq!(penstock_host::Flow::Continue as u32, Action::Continue as u32);
        assert_eq!(penstock_host::Flow::Pause as u32, Action::Pause as u32);
        assert_eq!(penstock_host::proxy_log::CRITICAL, LogLevel::Critical as u32);
        assert_eq!(penstock_host::proxy_log::number(log::Level::Debug), LogLevel::Debug as u32);
        assert_eq!(penstock_host::proxy_log::number(log::Level::Error), LogLevel::Error as u32);
    }
}
