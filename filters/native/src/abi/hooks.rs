//! The hooks that Envoy calls. Envoy refuses a module that lacks any of them, even one that it never calls.
//!
//! Each hook checks its arguments for null and calls safe code. Nothing here panics, and no panic of the called code
//! passes: see [`crate::guard`].

use std::ffi::{c_char, c_void};
use std::io::Write;

use super::config::ConfigHandle;
use super::loader::{load, takes_metrics_at_any_time};
use super::network::Downstream;
use super::stream::{Stream, bytes};
use super::types::{EnvoyBuffer, EnvoyHeader};
use crate::config::FilterConfig;
use crate::filter::{Frames, HookResult};
use crate::guard::guard;
use crate::{connection, filter, guard, logger};

type Ptr = *mut c_void;

/// The version of the ABI that this module was written for. If Envoy has another one, it logs a warning.
const VERSION: &std::ffi::CStr = c"v0.2.0";

/// The statuses of Envoy's filter chain.
mod status {
    pub(super) const CONTINUE: u32 = 0;
    pub(super) const STOP: u32 = 1;
    /// For headers: the rest of the request waits as well, with a bounded buffer and back pressure on the client.
    pub(super) const STOP_ALL_AND_WATERMARK: u32 = 4;
    /// The same for a body.
    pub(super) const STOP_BODY_AND_WATERMARK: u32 = 2;
    /// For a body that is discarded.
    pub(super) const DROP_BODY: u32 = 3;
}

fn headers_status(flow: HookResult) -> u32 {
    match flow {
        HookResult::Continue => status::CONTINUE,
        HookResult::Wait => status::STOP_ALL_AND_WATERMARK,
        HookResult::Refused => status::STOP,
    }
}

fn body_status(flow: HookResult) -> u32 {
    match flow {
        HookResult::Continue => status::CONTINUE,
        HookResult::Wait => status::STOP_BODY_AND_WATERMARK,
        HookResult::Refused => status::DROP_BODY,
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    guard(begin).unwrap_or(std::ptr::null())
}

fn begin() -> *const c_char {
    if let Err(missing) = load() {
        // Not `eprintln!`, which panics when standard error is closed.
        let line = format!("penstock: this Envoy lacks the callback {missing}: the module cannot be used in it\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
        return std::ptr::null();
    }
    guard::install();
    logger::LOG.install();
    if !takes_metrics_at_any_time() {
        log::warn!(
            "penstock: this version of Envoy takes metrics only with a request or connection, so the last ones appear with \
             the next; Envoy 1.39 and later take them each second"
        );
    }
    VERSION.as_ptr()
}

/// # Safety
/// `name` and `text` are views of Envoy's memory that are valid during the call.
unsafe fn config_new(config: ConfigHandle, name: EnvoyBuffer, text: EnvoyBuffer) -> *const c_void {
    // SAFETY: guaranteed by the caller.
    let (name, text) = unsafe { (bytes(name.ptr, name.length), bytes(text.ptr, text.length)) };
    let made = guard(|| FilterConfig::new(config, name, text)).ok().flatten();
    made.map_or(std::ptr::null(), |config| Box::into_raw(Box::new(config)).cast_const().cast())
}

/// # Safety
/// Envoy passes the pointer that `config_new` returned, once.
unsafe fn config_destroy(config: *const c_void) {
    if !config.is_null() {
        // SAFETY: guaranteed by the caller.
        let config = unsafe { Box::from_raw(config.cast_mut().cast::<FilterConfig>()) };
        let _ = guard(move || drop(config));
    }
}

/// # Safety
/// Envoy passes the pointer that `config_new` returned, before destroying it.
unsafe fn config_at<'a>(config: *const c_void) -> Option<&'a FilterConfig> {
    // SAFETY: guaranteed by the caller.
    unsafe { config.cast::<FilterConfig>().as_ref() }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    config: Ptr,
    name: EnvoyBuffer,
    text: EnvoyBuffer,
) -> *const c_void {
    // SAFETY: Envoy passes valid arguments.
    unsafe { config_new(ConfigHandle::Http(config.expose_provenance()), name, text) }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(config: *const c_void) {
    // SAFETY: Envoy passes valid arguments.
    unsafe { config_destroy(config) }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_scheduled(_envoy: Ptr, config: *const c_void, _event: u64) {
    // SAFETY: Envoy passes valid arguments.
    if let Some(config) = unsafe { config_at(config) } {
        let _ = guard(|| config.tick());
    }
}

/// There is no configuration for routes: `null` refuses it instead of ignoring it.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_new(
    _name: EnvoyBuffer,
    _config: EnvoyBuffer,
) -> *const c_void {
    let _ = guard(|| {
        log::error!("penstock: configuration refused: this module takes no configuration of single routes");
    });
    std::ptr::null()
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_destroy(_config: *const c_void) {}

/// The "pointer" of a filter is a number under which it is found: see [`crate::handles`]. `null` closes the stream.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_new(config: *const c_void, filter: Ptr) -> *const c_void {
    // SAFETY: Envoy passes valid arguments.
    let (Some(config), Some(stream)) = (unsafe { config_at(config) }, Stream::new(filter)) else {
        return std::ptr::null();
    };
    let handle = guard(|| filter::new(config, stream)).ok().flatten();
    handle.map_or(std::ptr::null(), std::ptr::without_provenance)
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    _envoy: Ptr,
    filter: *const c_void,
    end_of_stream: bool,
) -> u32 {
    headers_status(filter::decide(filter.addr(), |filter| filter.request_headers(end_of_stream)))
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_body(
    _envoy: Ptr,
    filter: *const c_void,
    end_of_stream: bool,
) -> u32 {
    body_status(filter::decide(filter.addr(), |filter| filter.request_body(end_of_stream)))
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(_envoy: Ptr, filter: *const c_void) -> u32 {
    match filter::decide(filter.addr(), |filter| filter.request_body(true)) {
        HookResult::Continue => status::CONTINUE,
        HookResult::Wait | HookResult::Refused => status::STOP,
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(
    _envoy: Ptr,
    filter: *const c_void,
    end_of_stream: bool,
) -> u32 {
    filter::observe(filter.addr(), |filter| filter.response_headers(end_of_stream));
    if end_of_stream && filter::holds_response(filter.addr()) { status::STOP } else { status::CONTINUE }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_body(
    _envoy: Ptr,
    filter: *const c_void,
    end_of_stream: bool,
) -> u32 {
    let holds = end_of_stream && filter::holds_response(filter.addr());
    if holds { status::STOP_BODY_AND_WATERMARK } else { status::CONTINUE }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_trailers(_envoy: Ptr, filter: *const c_void) -> u32 {
    filter::observe(filter.addr(), |filter| filter.response_trailers());
    if filter::holds_response(filter.addr()) { status::STOP } else { status::CONTINUE }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_stream_complete(_envoy: Ptr, filter: *const c_void) {
    filter::observe(filter.addr(), |filter| filter.complete());
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_destroy(filter: *const c_void) {
    let _ = guard(|| filter::destroy(filter.addr()));
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_local_reply(
    _envoy: Ptr,
    _filter: *const c_void,
    _status: u32,
    _details: EnvoyBuffer,
    _reset_imminent: bool,
) -> u32 {
    status::CONTINUE
}

/// The value of `:status` or `grpc-status` in these headers.
///
/// # Safety
/// `headers` points to `count` views of Envoy's memory that are valid during the call.
unsafe fn call_headers(headers: *const EnvoyHeader, count: usize) -> Frames {
    let mut found = Frames::default();
    if headers.is_null() {
        return found;
    }
    // SAFETY: guaranteed by the caller.
    for header in unsafe { std::slice::from_raw_parts(headers, count) } {
        // SAFETY: guaranteed by the caller.
        let (name, value) =
            unsafe { (bytes(header.key_ptr, header.key_length), bytes(header.value_ptr, header.value_length)) };
        found.take(name, value);
    }
    found
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_headers(
    _envoy: Ptr,
    filter: *const c_void,
    stream: u64,
    headers: *mut EnvoyHeader,
    count: usize,
    _end_stream: bool,
) {
    // SAFETY: Envoy passes valid arguments.
    filter::observe(filter.addr(), |filter| filter.call_headers(stream, unsafe { call_headers(headers, count) }));
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_data(
    _envoy: Ptr,
    filter: *const c_void,
    stream: u64,
    data: *const EnvoyBuffer,
    count: usize,
    _end_stream: bool,
) {
    if data.is_null() {
        return;
    }
    // SAFETY: Envoy passes this number of buffers, which are valid during the call.
    for buffer in unsafe { std::slice::from_raw_parts(data, count) } {
        // SAFETY: as above.
        let chunk = unsafe { bytes(buffer.ptr, buffer.length) };
        filter::observe(filter.addr(), |filter| filter.call_data(stream, chunk));
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_trailers(
    _envoy: Ptr,
    filter: *const c_void,
    stream: u64,
    trailers: *mut EnvoyHeader,
    count: usize,
) {
    // SAFETY: Envoy passes valid arguments.
    filter::observe(filter.addr(), |filter| filter.call_headers(stream, unsafe { call_headers(trailers, count) }));
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_complete(
    _envoy: Ptr,
    filter: *const c_void,
    stream: u64,
) {
    filter::decide(filter.addr(), |filter| filter.call_ended(stream, true));
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_reset(
    _envoy: Ptr,
    filter: *const c_void,
    stream: u64,
    _reason: u32,
) {
    filter::decide(filter.addr(), |filter| filter.call_ended(stream, false));
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_config_new(
    config: Ptr,
    name: EnvoyBuffer,
    text: EnvoyBuffer,
) -> *const c_void {
    // SAFETY: Envoy passes valid arguments.
    unsafe { config_new(ConfigHandle::Network(config.expose_provenance()), name, text) }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_config_destroy(config: *const c_void) {
    // SAFETY: Envoy passes valid arguments.
    unsafe { config_destroy(config) }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_config_scheduled(config: *const c_void, _event: u64) {
    // SAFETY: Envoy passes valid arguments.
    if let Some(config) = unsafe { config_at(config) } {
        let _ = guard(|| config.tick());
    }
}

/// `null` closes the connection.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_new(config: *const c_void, filter: Ptr) -> *const c_void {
    // SAFETY: Envoy passes valid arguments.
    let (Some(config), Some(downstream)) = (unsafe { config_at(config) }, Downstream::new(filter)) else {
        return std::ptr::null();
    };
    let handle = guard(|| connection::new(config, downstream)).ok().flatten();
    handle.map_or(std::ptr::null(), std::ptr::without_provenance)
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_new_connection(_envoy: Ptr, filter: *const c_void) -> u32 {
    if connection::decide(filter.addr()) { status::CONTINUE } else { status::STOP }
}

/// Bytes of a refused connection wait until it is closed.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_read(
    _envoy: Ptr,
    filter: *const c_void,
    _length: usize,
    _end_of_stream: bool,
) -> u32 {
    let is_open = guard(|| connection::is_open(filter.addr())).unwrap_or(false);
    if is_open { status::CONTINUE } else { status::STOP }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_write(
    _envoy: Ptr,
    _filter: *const c_void,
    _length: usize,
    _end_of_stream: bool,
) -> u32 {
    status::CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_destroy(filter: *const c_void) {
    let _ = guard(|| connection::destroy(filter.addr()));
}

/// Hooks that Envoy requires and that do nothing here.
macro_rules! unused {
    ($($name:ident($($argument:ty),*);)*) => {
        $(#[unsafe(no_mangle)]
        extern "C" fn $name($(_: $argument),*) {})*
    };
}

unused! {
    envoy_dynamic_module_on_http_filter_http_callout_done(
        Ptr, *const c_void, u64, u32, *mut EnvoyHeader, usize, *mut EnvoyBuffer, usize);
    envoy_dynamic_module_on_http_filter_scheduled(Ptr, *const c_void, u64);
    envoy_dynamic_module_on_http_filter_config_http_callout_done(
        Ptr, *const c_void, u64, u32, *mut EnvoyHeader, usize, *mut EnvoyBuffer, usize);
    envoy_dynamic_module_on_http_filter_config_http_stream_headers(
        Ptr, *const c_void, u64, *mut EnvoyHeader, usize, bool);
    envoy_dynamic_module_on_http_filter_config_http_stream_data(
        Ptr, *const c_void, u64, *const EnvoyBuffer, usize, bool);
    envoy_dynamic_module_on_http_filter_config_http_stream_trailers(Ptr, *const c_void, u64, *mut EnvoyHeader, usize);
    envoy_dynamic_module_on_http_filter_config_http_stream_complete(Ptr, *const c_void, u64);
    envoy_dynamic_module_on_http_filter_config_http_stream_reset(Ptr, *const c_void, u64, u32);
    envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(Ptr, *const c_void);
    envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(Ptr, *const c_void);
    envoy_dynamic_module_on_network_filter_event(Ptr, *const c_void, u32);
    envoy_dynamic_module_on_network_filter_http_callout_done(
        Ptr, *const c_void, u64, u32, *mut EnvoyHeader, usize, *mut EnvoyBuffer, usize);
    envoy_dynamic_module_on_network_filter_scheduled(Ptr, *const c_void, u64);
    envoy_dynamic_module_on_network_filter_above_write_buffer_high_watermark(Ptr, *const c_void);
    envoy_dynamic_module_on_network_filter_below_write_buffer_low_watermark(Ptr, *const c_void);
}

#[cfg(test)]
mod panics;

#[cfg(test)]
mod tests {
    use super::*;

    /// Invalid arguments get a defined result and not a crash: no request continues for which no filter is found.
    #[test]
    fn null_pointers_and_filters_that_are_gone_let_nothing_through() {
        let null = std::ptr::null::<c_void>();
        for filter in [null, std::ptr::without_provenance(usize::MAX), std::ptr::without_provenance(1)] {
            let envoy = std::ptr::null_mut();
            assert_eq!(envoy_dynamic_module_on_http_filter_request_headers(envoy, filter, true), status::STOP);
            assert_eq!(envoy_dynamic_module_on_http_filter_request_body(envoy, filter, true), status::DROP_BODY);
            assert_eq!(envoy_dynamic_module_on_http_filter_request_trailers(envoy, filter), status::STOP);
            envoy_dynamic_module_on_http_filter_response_headers(envoy, filter, true);
            envoy_dynamic_module_on_http_filter_response_trailers(envoy, filter);
            envoy_dynamic_module_on_http_filter_http_stream_headers(envoy, filter, 1, std::ptr::null_mut(), 3, true);
            envoy_dynamic_module_on_http_filter_http_stream_data(envoy, filter, 1, std::ptr::null(), 3, true);
            envoy_dynamic_module_on_http_filter_http_stream_complete(envoy, filter, 1);
            envoy_dynamic_module_on_http_filter_http_stream_reset(envoy, filter, 1, 0);
            envoy_dynamic_module_on_http_filter_stream_complete(envoy, filter);
            envoy_dynamic_module_on_http_filter_destroy(filter);
            envoy_dynamic_module_on_http_filter_destroy(filter);
            assert_eq!(envoy_dynamic_module_on_network_filter_new_connection(envoy, filter), status::STOP);
            assert_eq!(envoy_dynamic_module_on_network_filter_read(envoy, filter, 1, false), status::STOP);
            envoy_dynamic_module_on_network_filter_destroy(filter);
        }
        assert!(envoy_dynamic_module_on_http_filter_new(null, std::ptr::null_mut()).is_null());
        assert!(envoy_dynamic_module_on_network_filter_new(null, std::ptr::null_mut()).is_null());
        envoy_dynamic_module_on_http_filter_config_scheduled(std::ptr::null_mut(), null, 0);
        envoy_dynamic_module_on_network_filter_config_scheduled(null, 0);
        envoy_dynamic_module_on_http_filter_config_destroy(null);
    }
}
