//! The callbacks that the module may look up.

use std::ffi::c_void;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::exchange::{FakeConnection, FakeStream};
use super::{FAULTS, FakeConfig, LOG, Ptr, is_lacking, lock};
use crate::abi::types::{EnvoyBuffer, EnvoyHeader, ModuleBuffer, ModuleHeader};

/// Whether this callback is enabled.
fn works(name: &'static str) -> bool {
    FAULTS.with_borrow(|faults| !faults.failing.contains(name))
}

/// Envoy 1.38 lacks this callback and some attributes of HTTP filters; it logs an error when one of these is read.
fn is_supported(attribute: u32) -> bool {
    /// `response.flags` and `connection.requested_server_name`.
    const SINCE_1_39: [u32; 2] = [17, 30];
    let is_supported = !is_lacking("network_filter_get_attribute_string") || !SINCE_1_39.contains(&attribute);
    if !is_supported {
        LOG.with_borrow_mut(|log| log.push((4, format!("Unsupported attribute ID {attribute}"))));
    }
    is_supported
}

/// The length that a list claims to have.
fn claimed(length: usize) -> usize {
    FAULTS.with_borrow(|faults| faults.count.unwrap_or(length))
}

unsafe fn bytes<'a>(buffer: ModuleBuffer) -> &'a [u8] {
    if buffer.length == 0 {
        return &[];
    }
    unsafe { slice::from_raw_parts(buffer.ptr, buffer.length) }
}

unsafe fn text(buffer: ModuleBuffer) -> String {
    String::from_utf8(unsafe { bytes(buffer) }.to_vec()).expect("names are UTF-8")
}

unsafe fn texts(buffers: *mut ModuleBuffer, count: usize) -> Vec<String> {
    if count == 0 {
        return Vec::new();
    }
    unsafe { slice::from_raw_parts(buffers, count) }.iter().map(|buffer| unsafe { text(*buffer) }).collect()
}

unsafe fn owned(headers: *mut ModuleHeader, count: usize) -> Vec<(String, Vec<u8>)> {
    let headers = if count == 0 { &[] } else { unsafe { slice::from_raw_parts(headers, count) } };
    let buffer = |ptr, length| ModuleBuffer { ptr, length };
    headers
        .iter()
        .map(|header| unsafe {
            (
                text(buffer(header.key_ptr, header.key_length)),
                bytes(buffer(header.value_ptr, header.value_length)).to_vec(),
            )
        })
        .collect()
}

unsafe fn stream<'a>(filter: Ptr) -> &'a FakeStream {
    unsafe { filter.cast::<FakeStream>().as_ref() }.expect("a stream")
}

unsafe fn connection<'a>(filter: Ptr) -> &'a FakeConnection {
    unsafe { filter.cast::<FakeConnection>().as_ref() }.expect("a connection")
}

unsafe fn config<'a>(config: Ptr) -> &'a FakeConfig {
    unsafe { config.cast::<FakeConfig>().as_ref() }.expect("a configuration")
}

/// Passes a view; returns whether it has a value.
unsafe fn lend(lent: &super::exchange::Lent, value: Option<&[u8]>, into: *mut EnvoyBuffer) -> bool {
    let Some(value) = value else { return false };
    unsafe { into.write(lent.lend(value)) };
    true
}

impl FakeConfig {
    fn define(&self, name: String, labels: Vec<String>, id: *mut usize) -> u32 {
        if !self.is_loading.load(Ordering::Relaxed) {
            return 3;
        }
        let mut definitions = lock(&self.definitions);
        unsafe { id.write(definitions.len()) };
        definitions.push((name, labels));
        0
    }

    fn write(&self, id: usize, labels: &[String], act: impl FnOnce(&mut u64)) -> u32 {
        let definitions = lock(&self.definitions);
        let Some((name, names)) = definitions.get(id) else { return 1 };
        if names.len() != labels.len() {
            return 2;
        }
        let mut name = name.clone();
        for label in labels {
            name.push(' ');
            name.push_str(label);
        }
        act(lock(&self.values).entry(name).or_default());
        0
    }
}

/// Declares the callbacks, and finds them by name.
macro_rules! fakes {
    ($($kind:ident { $($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty = $failure:expr;)? $body:block)* })*) => {
        $($(
            #[allow(clippy::too_many_arguments, reason = "the ABI has so many")]
            unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
                if !works(stringify!($name)) {
                    return $($failure)?;
                }
                $body
            }
        )*
        /// The names of these callbacks.
        pub(crate) const $kind: &[&str] = &[$(stringify!($name)),*];
        )*

        fn address(name: &str) -> Option<Ptr> {
            match name {
                $($(stringify!($name) => Some($name as *const c_void as Ptr),)*)*
                _ => None,
            }
        }
    };
}

/// The address that the dynamic loader would find; `name` ends with NUL.
pub(in crate::abi) fn symbol(name: &str) -> Option<Ptr> {
    let name = name.strip_prefix("envoy_dynamic_module_callback_")?.strip_suffix('\0')?;
    address(name).filter(|_| !is_lacking(name))
}

fakes! {
    REQUIRED {
        log(level: u32, line: ModuleBuffer) {
            LOG.with_borrow_mut(|log| log.push((level, unsafe { text(line) })));
        }
        log_enabled(level: u32) -> bool = false; { level >= 2 }
        http_get_header(filter: Ptr, map: u32, name: ModuleBuffer, value: *mut EnvoyBuffer, index: usize, count: *mut usize) -> bool = false; {
            assert!(index == 0 && count.is_null(), "the module asks for the first alone");
            let stream = unsafe { stream(filter) };
            let name = unsafe { bytes(name) };
            let headers = stream.map(map).borrow();
            let found = headers.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, value)| value.as_slice());
            unsafe { lend(&stream.lent, found, value) }
        }
        http_get_headers_size(filter: Ptr, map: u32) -> usize = 0; {
            claimed(unsafe { stream(filter) }.map(map).borrow().len())
        }
        http_get_headers(filter: Ptr, map: u32, into: *mut EnvoyHeader) -> bool = false; {
            let stream = unsafe { stream(filter) };
            stream.lent.take_back();
            for (index, (name, value)) in stream.map(map).borrow().iter().enumerate() {
                let (name, value) = (stream.lent.lend_more(name.as_bytes()), stream.lent.lend_more(value));
                let header = EnvoyHeader {
                    key_ptr: name.ptr, key_length: name.length, value_ptr: value.ptr, value_length: value.length,
                };
                unsafe { into.add(index).write(header) };
            }
            true
        }
        http_add_header(filter: Ptr, map: u32, name: ModuleBuffer, value: ModuleBuffer) -> bool = false; {
            let stream = unsafe { stream(filter) };
            stream.lent.take_back();
            assert!(!value.ptr.is_null(), "a null value removes");
            stream.map(map).borrow_mut().push(unsafe { (text(name), bytes(value).to_vec()) });
            true
        }
        http_set_header(filter: Ptr, map: u32, name: ModuleBuffer, value: ModuleBuffer) -> bool = false; {
            let stream = unsafe { stream(filter) };
            stream.lent.take_back();
            let name = unsafe { text(name) };
            let mut headers = stream.map(map).borrow_mut();
            headers.retain(|(known, _)| *known != name);
            if !value.ptr.is_null() {
                headers.push((name, unsafe { bytes(value) }.to_vec()));
            }
            true
        }
        http_send_response(filter: Ptr, status: u32, headers: *mut ModuleHeader, count: usize, body: ModuleBuffer, details: ModuleBuffer) {
            let stream = unsafe { stream(filter) };
            let (headers, body, details) = unsafe { (owned(headers, count), bytes(body).to_vec(), text(details)) };
            stream.respond(status, headers, body, details);
        }
        http_clear_route_cache(filter: Ptr) {
            let cleared = &unsafe { stream(filter) }.routes_cleared;
            cleared.set(cleared.get() + 1);
        }
        http_filter_get_attribute_string(filter: Ptr, attribute: u32, value: *mut EnvoyBuffer) -> bool = false; {
            if !is_supported(attribute) {
                return false;
            }
            let stream = unsafe { stream(filter) };
            let attributes = stream.texts.borrow();
            unsafe { lend(&stream.lent, attributes.get(&attribute).map(Vec::as_slice), value) }
        }
        http_filter_get_attribute_int(filter: Ptr, attribute: u32, value: *mut u64) -> bool = false; {
            if !is_supported(attribute) {
                return false;
            }
            let found = unsafe { stream(filter) }.numbers.borrow().get(&attribute).copied();
            if let Some(found) = found {
                unsafe { value.write(found) };
            }
            found.is_some()
        }
        http_set_filter_state_bytes(filter: Ptr, name: ModuleBuffer, value: ModuleBuffer) -> bool = false; {
            let stream = unsafe { stream(filter) };
            stream.lent.take_back();
            stream.filter_state.borrow_mut().insert(unsafe { text(name) }, unsafe { bytes(value) }.to_vec());
            true
        }
        http_get_filter_state_bytes(filter: Ptr, name: ModuleBuffer, value: *mut EnvoyBuffer) -> bool = false; {
            let stream = unsafe { stream(filter) };
            let state = stream.filter_state.borrow();
            unsafe { lend(&stream.lent, state.get(&text(name)).map(Vec::as_slice), value) }
        }
        http_filter_continue_decoding(filter: Ptr) {
            unsafe { stream(filter) }.resume();
        }
    }
    OPTIONAL {
        http_get_filter_state_typed(filter: Ptr, name: ModuleBuffer, value: *mut EnvoyBuffer) -> bool = false; {
            let stream = unsafe { stream(filter) };
            let state = stream.filter_state.borrow();
            unsafe { lend(&stream.lent, state.get(&text(name)).map(Vec::as_slice), value) }
        }
        http_filter_reset_stream(filter: Ptr, reason: u32, details: ModuleBuffer) {
            assert_eq!(reason, 0);
            *unsafe { stream(filter) }.reset.borrow_mut() = Some(unsafe { text(details) });
        }
        http_filter_continue_encoding(filter: Ptr) {
            unsafe { stream(filter) }.resume_response();
        }
        http_filter_start_http_stream(filter: Ptr, id: *mut u64, cluster: ModuleBuffer, headers: *mut ModuleHeader, count: usize, body: ModuleBuffer, end: bool, timeout: u64) -> u32 = 3; {
            assert!(end && timeout > 0);
            let stream = unsafe { stream(filter) };
            let (cluster, headers, body) = unsafe { (text(cluster), owned(headers, count), bytes(body).to_vec()) };
            let number = stream.begin_call(cluster, headers, body);
            unsafe { id.write(number) };
            0
        }
        http_filter_reset_http_stream(filter: Ptr, id: u64) {
            unsafe { stream(filter) }.calls_reset.borrow_mut().push(id);
        }
        http_filter_config_define_counter(to: Ptr, name: ModuleBuffer, labels: *mut ModuleBuffer, count: usize, id: *mut usize) -> u32 = 3; {
            unsafe { config(to).define(text(name), texts(labels, count), id) }
        }
        http_filter_config_define_gauge(to: Ptr, name: ModuleBuffer, labels: *mut ModuleBuffer, count: usize, id: *mut usize) -> u32 = 3; {
            unsafe { config(to).define(text(name), texts(labels, count), id) }
        }
        http_filter_config_define_histogram(to: Ptr, name: ModuleBuffer, labels: *mut ModuleBuffer, count: usize, id: *mut usize) -> u32 = 3; {
            unsafe { config(to).define(text(name), texts(labels, count), id) }
        }
        http_filter_config_increment_counter(to: Ptr, id: usize, labels: *mut ModuleBuffer, count: usize, by: u64) -> u32 = 1; {
            unsafe { config(to).write(id, &texts(labels, count), |value| *value += by) }
        }
        http_filter_config_set_gauge(to: Ptr, id: usize, labels: *mut ModuleBuffer, count: usize, to_value: u64) -> u32 = 1; {
            unsafe { config(to).write(id, &texts(labels, count), |value| *value = to_value) }
        }
        http_filter_config_record_histogram_value(to: Ptr, id: usize, labels: *mut ModuleBuffer, count: usize, recorded: u64) -> u32 = 1; {
            unsafe { config(to).write(id, &texts(labels, count), |value| *value = recorded) }
        }
        http_filter_increment_counter(filter: Ptr, id: usize, labels: *mut ModuleBuffer, count: usize, by: u64) -> u32 = 1; {
            unsafe { stream(filter).config.write(id, &texts(labels, count), |value| *value += by) }
        }
        http_filter_set_gauge(filter: Ptr, id: usize, labels: *mut ModuleBuffer, count: usize, to_value: u64) -> u32 = 1; {
            unsafe { stream(filter).config.write(id, &texts(labels, count), |value| *value = to_value) }
        }
        http_filter_record_histogram_value(filter: Ptr, id: usize, labels: *mut ModuleBuffer, count: usize, recorded: u64) -> u32 = 1; {
            unsafe { stream(filter).config.write(id, &texts(labels, count), |value| *value = recorded) }
        }
        http_filter_config_scheduler_new(of: Ptr) -> Ptr = std::ptr::null_mut(); {
            Box::into_raw(Box::new(Arc::clone(&unsafe { config(of) }.asked))).cast()
        }
        http_filter_config_scheduler_commit(scheduler: Ptr, event: u64) {
            assert_eq!(event, 0);
            unsafe { &*scheduler.cast::<Arc<AtomicU64>>() }.fetch_add(1, Ordering::Relaxed);
        }
        http_filter_config_scheduler_delete(scheduler: Ptr) {
            drop(unsafe { Box::from_raw(scheduler.cast::<Arc<AtomicU64>>()) });
        }
        network_filter_get_requested_server_name(filter: Ptr, value: *mut EnvoyBuffer) -> bool = false; {
            let connection = unsafe { connection(filter) };
            unsafe { lend(&connection.lent, connection.sni.as_deref(), value) }
        }
        network_filter_get_remote_address(filter: Ptr, address: *mut EnvoyBuffer, port: *mut u32) -> bool = false; {
            unsafe { port.write(40_000) };
            unsafe { lend(&connection(filter).lent, Some(b"192.0.2.7"), address) }
        }
        network_filter_get_local_address(filter: Ptr, address: *mut EnvoyBuffer, port: *mut u32) -> bool = false; {
            unsafe { port.write(443) };
            unsafe { lend(&connection(filter).lent, Some(b"192.0.2.1"), address) }
        }
        network_filter_is_ssl(filter: Ptr) -> bool = false; {
            let _ = unsafe { connection(filter) };
            false
        }
        network_filter_close(filter: Ptr, kind: u32) {
            assert_eq!(kind, 1);
            unsafe { connection(filter) }.is_closed.set(true);
        }
        network_filter_get_ssl_uri_sans_size(filter: Ptr) -> usize = 0; {
            claimed(unsafe { connection(filter) }.uris.len())
        }
        network_filter_get_ssl_uri_sans(filter: Ptr, into: *mut EnvoyBuffer) -> bool = false; {
            let connection = unsafe { connection(filter) };
            connection.lent.take_back();
            for (index, uri) in connection.uris.iter().enumerate() {
                unsafe { into.add(index).write(connection.lent.lend_more(uri.as_bytes())) };
            }
            true
        }
        network_get_filter_state_typed(filter: Ptr, name: ModuleBuffer, value: *mut EnvoyBuffer) -> bool = false; {
            let connection = unsafe { connection(filter) };
            let found = (unsafe { bytes(name) } == b"peer").then_some(&b"spiffe://peer"[..]);
            unsafe { lend(&connection.lent, found, value) }
        }
        network_filter_get_attribute_string(filter: Ptr, attribute: u32, value: *mut EnvoyBuffer) -> bool = false; {
            let _ = (attribute, value, unsafe { connection(filter) });
            false
        }
        network_filter_config_define_counter(to: Ptr, name: ModuleBuffer, id: *mut usize) -> u32 = 3; {
            unsafe { config(to).define(text(name), Vec::new(), id) }
        }
        network_filter_config_define_gauge(to: Ptr, name: ModuleBuffer, id: *mut usize) -> u32 = 3; {
            unsafe { config(to).define(text(name), Vec::new(), id) }
        }
        network_filter_config_define_histogram(to: Ptr, name: ModuleBuffer, id: *mut usize) -> u32 = 3; {
            unsafe { config(to).define(text(name), Vec::new(), id) }
        }
        network_filter_config_increment_counter(to: Ptr, id: usize, by: u64) -> u32 = 1; {
            unsafe { config(to) }.write(id, &[], |value| *value += by)
        }
        network_filter_config_set_gauge(to: Ptr, id: usize, to_value: u64) -> u32 = 1; {
            unsafe { config(to) }.write(id, &[], |value| *value = to_value)
        }
        network_filter_config_record_histogram_value(to: Ptr, id: usize, recorded: u64) -> u32 = 1; {
            unsafe { config(to) }.write(id, &[], |value| *value = recorded)
        }
        network_filter_increment_counter(filter: Ptr, id: usize, by: u64) -> u32 = 1; {
            unsafe { connection(filter) }.config.write(id, &[], |value| *value += by)
        }
        network_filter_set_gauge(filter: Ptr, id: usize, to_value: u64) -> u32 = 1; {
            unsafe { connection(filter) }.config.write(id, &[], |value| *value = to_value)
        }
        network_filter_record_histogram_value(filter: Ptr, id: usize, recorded: u64) -> u32 = 1; {
            unsafe { connection(filter) }.config.write(id, &[], |value| *value = recorded)
        }
        network_filter_config_scheduler_new(of: Ptr) -> Ptr = std::ptr::null_mut(); {
            unsafe { http_filter_config_scheduler_new(of) }
        }
        network_filter_config_scheduler_commit(scheduler: Ptr, event: u64) {
            unsafe { http_filter_config_scheduler_commit(scheduler, event) }
        }
        network_filter_config_scheduler_delete(scheduler: Ptr) {
            unsafe { http_filter_config_scheduler_delete(scheduler) }
        }
    }
}
