//! A proxy-wasm host for native tests, one for each test's thread: it does what Envoy does, fails where a test says so,
//! and counts what it is asked.

#![allow(clippy::missing_safety_doc, clippy::undocumented_unsafe_blocks, reason = "the ABI's own contract, in tests")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::slice;

use crate::headers;

/// A response that the module gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) status: u32,
    pub(crate) details: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// The host's state and its record of the module's doings.
#[derive(Debug, Default)]
pub(crate) struct FakeHost {
    pub(crate) configuration: Vec<u8>,
    pub(crate) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) response_headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Handed over in the place of `headers`.
    pub(crate) raw_headers: Option<Vec<u8>>,
    pub(crate) properties: Vec<(&'static str, Vec<u8>)>,
    pub(crate) time: u64,
    /// Added to what random bytes are otherwise.
    pub(crate) random: u8,
    /// Functions that answer nothing but this status.
    pub(crate) broken: Vec<(&'static str, u32)>,
    pub(crate) calls: Vec<&'static str>,
    pub(crate) log: Vec<(u32, String)>,
    /// What the log takes; `None`: from info on.
    pub(crate) lowest_level: Option<u32>,
    pub(crate) metrics: Vec<(String, i64)>,
    pub(crate) filter_state: Vec<(String, String)>,
    pub(crate) sent: Option<Sent>,
    pub(crate) was_reset: bool,
    /// Values and their tokens.
    pub(crate) shared: HashMap<Vec<u8>, (Vec<u8>, u32)>,
    /// The token of the last write; Envoy's first is 1.
    pub(crate) token: u32,
    /// Other workers that write before this one's next write, in order of evaluation from the last.
    pub(crate) racers: Vec<fn(&mut FakeHost)>,
    /// Writes that were refused for their token.
    pub(crate) conflicts: u32,
    pub(crate) tick_period: u32,
    /// gRPC calls: service, message, timeout. The first is call 1.
    pub(crate) questions: Vec<(Vec<u8>, Vec<u8>, u32)>,
    /// Runs within the next gRPC call, with its number.
    pub(crate) within_call: Option<fn(u32)>,
    /// The message that a gRPC callback is about.
    pub(crate) grpc_message: Vec<u8>,
    pub(crate) cancelled: Vec<u32>,
    /// Paused streams that were told to go on.
    pub(crate) continued: u32,
}

impl FakeHost {
    /// The headers of the ABI's map `map`.
    fn map(&mut self, map: u32) -> &mut Vec<(Vec<u8>, Vec<u8>)> {
        match map {
            0 => &mut self.headers,
            2 => &mut self.response_headers,
            other => panic!("map {other}"),
        }
    }

    /// A write of this or another worker.
    pub(crate) fn set_shared(&mut self, key: &[u8], value: &[u8]) {
        self.token = self.token.wrapping_add(1).max(1);
        self.shared.insert(key.to_vec(), (value.to_vec(), self.token));
    }
}

thread_local! {
    static HOST: RefCell<FakeHost> = RefCell::default();
}

/// Looks at the host, or changes it.
pub(crate) fn with<T>(act: impl FnOnce(&mut FakeHost) -> T) -> T {
    HOST.with_borrow_mut(act)
}

/// A new host.
pub(crate) fn reset() {
    with(|host| *host = FakeHost::default());
}

/// Records the call; the status when the function is broken.
fn enter(function: &'static str) -> Option<u32> {
    with(|host| {
        host.calls.push(function);
        host.broken.iter().find(|(name, _)| *name == function).map(|(_, status)| *status)
    })
}

unsafe fn bytes<'a>(address: *const u8, size: usize) -> &'a [u8] {
    unsafe { slice::from_raw_parts(address, size) }
}

unsafe fn text(address: *const u8, size: usize) -> String {
    String::from_utf8_lossy(unsafe { bytes(address, size) }).into_owned()
}

/// Envoy's way to hand over bytes: asks for memory unless there is nothing to put there.
unsafe fn hand_over(value: &[u8], data: *mut *mut u8, size: *mut usize) -> u32 {
    unsafe {
        data.write(std::ptr::null_mut());
        if !value.is_empty() {
            let memory = crate::allocate(value.len());
            if memory.is_null() {
                return 6;
            }
            memory.copy_from_nonoverlapping(value.as_ptr(), value.len());
            data.write(memory);
        }
        size.write(value.len());
    }
    0
}

pub(crate) unsafe fn proxy_log(level: u32, message: *const u8, size: usize) -> u32 {
    if let Some(status) = enter("proxy_log") {
        return status;
    }
    let line = unsafe { text(message, size) };
    with(|host| host.log.push((level, line)));
    0
}

pub(crate) unsafe fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, size: usize) -> u32 {
    if let Some(status) = enter("proxy_set_property") {
        return status;
    }
    let property = unsafe { (text(path, path_size), text(value, size)) };
    with(|host| host.filter_state.push(property));
    0
}

pub(crate) unsafe fn proxy_get_log_level(level: *mut u32) -> u32 {
    if let Some(status) = enter("proxy_get_log_level") {
        return status;
    }
    unsafe { level.write(with(|host| host.lowest_level.unwrap_or(2))) };
    0
}

pub(crate) unsafe fn proxy_get_buffer_bytes(
    kind: u32,
    start: usize,
    length: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    if let Some(status) = enter("proxy_get_buffer_bytes") {
        return status;
    }
    assert_eq!(start, 0);
    let mut value = with(|host| match kind {
        5 => host.grpc_message.clone(),
        7 => host.configuration.clone(),
        other => panic!("buffer {other}"),
    });
    value.truncate(length);
    unsafe { hand_over(&value, data, size) }
}

pub(crate) unsafe fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32 {
    if let Some(status) = enter("proxy_get_header_map_pairs") {
        return status;
    }
    assert_eq!(map, 0);
    let value = with(|host| {
        host.raw_headers.clone().unwrap_or_else(|| {
            headers::serialize(host.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())))
        })
    });
    unsafe { hand_over(&value, data, size) }
}

pub(crate) unsafe fn proxy_get_header_map_value(
    map: u32,
    name: *const u8,
    name_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    if let Some(status) = enter("proxy_get_header_map_value") {
        return status;
    }
    assert_eq!(map, 2);
    let name = unsafe { bytes(name, name_size) };
    match with(|host| host.response_headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())) {
        Some(value) => unsafe { hand_over(&value, data, size) },
        None => 1,
    }
}

pub(crate) unsafe fn proxy_add_header_map_value(
    map: u32,
    name: *const u8,
    name_size: usize,
    value: *const u8,
    value_size: usize,
) -> u32 {
    if let Some(status) = enter("proxy_add_header_map_value") {
        return status;
    }
    let header = unsafe { (bytes(name, name_size).to_vec(), bytes(value, value_size).to_vec()) };
    with(|host| host.map(map).push(header));
    0
}

pub(crate) unsafe fn proxy_replace_header_map_value(
    map: u32,
    name: *const u8,
    name_size: usize,
    value: *const u8,
    value_size: usize,
) -> u32 {
    if let Some(status) = enter("proxy_replace_header_map_value") {
        return status;
    }
    let header = unsafe { (bytes(name, name_size).to_vec(), bytes(value, value_size).to_vec()) };
    with(|host| {
        let headers = host.map(map);
        headers.retain(|(name, _)| *name != header.0);
        headers.push(header);
    });
    0
}

pub(crate) unsafe fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32 {
    if let Some(status) = enter("proxy_remove_header_map_value") {
        return status;
    }
    let name = unsafe { bytes(name, name_size) };
    with(|host| host.map(map).retain(|(other, _)| other != name));
    0
}

#[allow(clippy::too_many_arguments, reason = "the ABI has so many")]
pub(crate) unsafe fn proxy_send_local_response(
    status: u32,
    details: *const u8,
    details_size: usize,
    body: *const u8,
    body_size: usize,
    headers: *const u8,
    headers_size: usize,
    _grpc_status: u32,
) -> u32 {
    if let Some(status) = enter("proxy_send_local_response") {
        return status;
    }
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let map = unsafe { bytes(headers, headers_size) };
    let sent = Sent {
        status,
        details: unsafe { text(details, details_size) },
        headers: headers::parse(map).unwrap().iter().map(|(name, value)| (lossy(name), lossy(value))).collect(),
        body: unsafe { text(body, body_size) },
    };
    with(|host| host.sent = Some(sent));
    0
}

pub(crate) unsafe fn proxy_close_stream(_stream: u32) -> u32 {
    if let Some(status) = enter("proxy_close_stream") {
        return status;
    }
    with(|host| host.was_reset = true);
    0
}

pub(crate) unsafe fn proxy_get_property(
    path: *const u8,
    path_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    if let Some(status) = enter("proxy_get_property") {
        return status;
    }
    let path = unsafe { text(path, path_size) };
    match with(|host| host.properties.iter().find(|(name, _)| *name == path).map(|(_, value)| value.clone())) {
        Some(value) => unsafe { hand_over(&value, data, size) },
        None => 1,
    }
}

pub(crate) unsafe fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32 {
    if let Some(status) = enter("proxy_get_current_time_nanoseconds") {
        return status;
    }
    unsafe { time.write(with(|host| host.time)) };
    0
}

pub(crate) unsafe fn proxy_define_metric(_kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32 {
    if let Some(status) = enter("proxy_define_metric") {
        return status;
    }
    let name = unsafe { text(name, name_size) };
    let at = with(|host| {
        host.metrics.iter().position(|(other, _)| *other == name).unwrap_or_else(|| {
            host.metrics.push((name, 0));
            host.metrics.len() - 1
        })
    });
    unsafe { id.write(at as u32) };
    0
}

pub(crate) unsafe fn proxy_record_metric(id: u32, value: u64) -> u32 {
    if let Some(status) = enter("proxy_record_metric") {
        return status;
    }
    with(|host| host.metrics[id as usize].1 = value as i64);
    0
}

pub(crate) unsafe fn proxy_increment_metric(id: u32, by: i64) -> u32 {
    if let Some(status) = enter("proxy_increment_metric") {
        return status;
    }
    with(|host| host.metrics[id as usize].1 += by);
    0
}

pub(crate) unsafe fn random_get(buffer: *mut u8, size: usize) -> u32 {
    if let Some(status) = enter("random_get") {
        return status;
    }
    unsafe { slice::from_raw_parts_mut(buffer, size) }.fill(with(|host| 4 + host.random));
    0
}

pub(crate) unsafe fn proxy_get_shared_data(
    key: *const u8,
    key_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
    token: *mut u32,
) -> u32 {
    if let Some(status) = enter("proxy_get_shared_data") {
        return status;
    }
    let Some((value, current)) = with(|host| host.shared.get(unsafe { bytes(key, key_size) }).cloned()) else {
        return 1;
    };
    unsafe { token.write(current) };
    unsafe { hand_over(&value, data, size) }
}

pub(crate) unsafe fn proxy_set_shared_data(
    key: *const u8,
    key_size: usize,
    value: *const u8,
    value_size: usize,
    token: u32,
) -> u32 {
    if let Some(status) = enter("proxy_set_shared_data") {
        return status;
    }
    let (key, value) = unsafe { (bytes(key, key_size), bytes(value, value_size)) };
    with(|host| {
        if let Some(racer) = host.racers.pop() {
            racer(host);
        }
        if host.shared.get(key).is_some_and(|(_, current)| token != 0 && token != *current) {
            host.conflicts += 1;
            return 8;
        }
        host.set_shared(key, value);
        0
    })
}

pub(crate) unsafe fn proxy_set_tick_period_milliseconds(period: u32) -> u32 {
    if let Some(status) = enter("proxy_set_tick_period_milliseconds") {
        return status;
    }
    with(|host| host.tick_period = period);
    0
}

#[allow(clippy::too_many_arguments, reason = "the ABI has so many")]
pub(crate) unsafe fn proxy_grpc_call(
    service: *const u8,
    service_size: usize,
    _name: *const u8,
    _name_size: usize,
    _method: *const u8,
    _method_size: usize,
    _metadata: *const u8,
    _metadata_size: usize,
    message: *const u8,
    message_size: usize,
    timeout: u32,
    call: *mut u32,
) -> u32 {
    if let Some(status) = enter("proxy_grpc_call") {
        return status;
    }
    let asked = unsafe { (bytes(service, service_size).to_vec(), bytes(message, message_size).to_vec(), timeout) };
    let (number, within) = with(|host| {
        host.questions.push(asked);
        (u32::try_from(host.questions.len()).unwrap(), host.within_call.take())
    });
    if let Some(within) = within {
        within(number);
    }
    unsafe { call.write(number) };
    0
}

pub(crate) unsafe fn proxy_grpc_cancel(call: u32) -> u32 {
    if let Some(status) = enter("proxy_grpc_cancel") {
        return status;
    }
    with(|host| host.cancelled.push(call));
    0
}

pub(crate) unsafe fn proxy_set_effective_context(_context: u32) -> u32 {
    enter("proxy_set_effective_context").unwrap_or(0)
}

pub(crate) unsafe fn proxy_continue_stream(_stream: u32) -> u32 {
    if let Some(status) = enter("proxy_continue_stream") {
        return status;
    }
    with(|host| host.continued += 1);
    0
}
