//! The proxy-wasm ABI for tests, implemented by the test proxy ([`penstock_host::testing`]). It passes memory as Envoy does.

#![allow(clippy::missing_safety_doc, clippy::undocumented_unsafe_blocks, reason = "the ABI's own contract, in tests")]

use std::slice;

use penstock_host::testing::{FakeProxy, SentResponse, with};

use crate::headers;

/// Records the call; the status when the function is broken.
fn enter(function: &'static str) -> Option<u32> {
    with(|proxy| proxy.enter(function))
}

/// The headers of the ABI's map `map`.
fn map_of(proxy: &mut FakeProxy, map: u32) -> &mut Vec<(Vec<u8>, Vec<u8>)> {
    match map {
        0 => &mut proxy.headers,
        2 => &mut proxy.response_headers,
        3 => &mut proxy.response_trailers,
        other => panic!("map {other}"),
    }
}

unsafe fn bytes<'a>(address: *const u8, size: usize) -> &'a [u8] {
    unsafe { slice::from_raw_parts(address, size) }
}

unsafe fn text(address: *const u8, size: usize) -> String {
    String::from_utf8_lossy(unsafe { bytes(address, size) }).into_owned()
}

/// Returns bytes as Envoy does: requests memory for them, unless there are none.
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
    with(|proxy| proxy.log.push((level, line)));
    0
}

pub(crate) unsafe fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, size: usize) -> u32 {
    if let Some(status) = enter("proxy_set_property") {
        return status;
    }
    let property = unsafe { (text(path, path_size), text(value, size)) };
    with(|proxy| proxy.filter_state.push(property));
    0
}

pub(crate) unsafe fn proxy_get_log_level(level: *mut u32) -> u32 {
    if let Some(status) = enter("proxy_get_log_level") {
        return status;
    }
    unsafe { level.write(with(|proxy| proxy.lowest_level.unwrap_or(2))) };
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
    let mut value = with(|proxy| match kind {
        5 => proxy.grpc_message.clone(),
        7 => proxy.configuration.clone(),
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
    let value = with(|proxy| {
        proxy.raw_headers.clone().unwrap_or_else(|| {
            headers::serialize(proxy.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())))
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
    let name = unsafe { bytes(name, name_size) };
    match with(|proxy| map_of(proxy, map).iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())) {
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
    with(|proxy| map_of(proxy, map).push(header));
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
    with(|proxy| {
        let headers = map_of(proxy, map);
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
    with(|proxy| map_of(proxy, map).retain(|(other, _)| other != name));
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
    let sent = SentResponse {
        status,
        details: unsafe { text(details, details_size) },
        headers: headers::parse(map).unwrap().iter().map(|(name, value)| (lossy(name), lossy(value))).collect(),
        body: unsafe { text(body, body_size) },
    };
    with(|proxy| proxy.sent = Some(sent));
    0
}

pub(crate) unsafe fn proxy_close_stream(_stream: u32) -> u32 {
    if let Some(status) = enter("proxy_close_stream") {
        return status;
    }
    with(|proxy| proxy.was_reset = true);
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
    match with(|proxy| proxy.properties.iter().find(|(name, _)| *name == path).map(|(_, value)| value.clone())) {
        Some(value) => unsafe { hand_over(&value, data, size) },
        None => 1,
    }
}

pub(crate) unsafe fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32 {
    if let Some(status) = enter("proxy_get_current_time_nanoseconds") {
        return status;
    }
    unsafe { time.write(with(|proxy| proxy.time)) };
    0
}

pub(crate) unsafe fn proxy_define_metric(_kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32 {
    if let Some(status) = enter("proxy_define_metric") {
        return status;
    }
    let name = unsafe { text(name, name_size) };
    let at = with(|proxy| {
        proxy.metrics.iter().position(|(other, _)| *other == name).unwrap_or_else(|| {
            proxy.metrics.push((name, 0));
            proxy.metrics.len() - 1
        })
    });
    unsafe { id.write(at as u32) };
    0
}

pub(crate) unsafe fn proxy_record_metric(id: u32, value: u64) -> u32 {
    if let Some(status) = enter("proxy_record_metric") {
        return status;
    }
    with(|proxy| proxy.metrics[id as usize].1 = value as i64);
    0
}

pub(crate) unsafe fn proxy_increment_metric(id: u32, by: i64) -> u32 {
    if let Some(status) = enter("proxy_increment_metric") {
        return status;
    }
    with(|proxy| proxy.metrics[id as usize].1 += by);
    0
}

pub(crate) unsafe fn random_get(buffer: *mut u8, size: usize) -> u32 {
    if let Some(status) = enter("random_get") {
        return status;
    }
    unsafe { slice::from_raw_parts_mut(buffer, size) }.fill(with(|proxy| 4 + proxy.random));
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
    let Some((value, current)) = with(|proxy| proxy.shared.get(unsafe { bytes(key, key_size) }).cloned()) else {
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
    with(|proxy| {
        if let Some(racer) = proxy.racers.pop() {
            racer(proxy);
        }
        if proxy.shared.get(key).is_some_and(|(_, current)| token != 0 && token != *current) {
            proxy.conflicts += 1;
            return 8;
        }
        proxy.set_shared(key, value);
        0
    })
}

pub(crate) unsafe fn proxy_set_tick_period_milliseconds(period: u32) -> u32 {
    if let Some(status) = enter("proxy_set_tick_period_milliseconds") {
        return status;
    }
    with(|proxy| proxy.tick_period = period);
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
    let (number, within) = with(|proxy| {
        proxy.questions.push(asked);
        (u32::try_from(proxy.questions.len()).unwrap(), proxy.within_call.take())
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
    with(|proxy| proxy.cancelled.push(call));
    0
}

pub(crate) unsafe fn proxy_set_effective_context(_context: u32) -> u32 {
    enter("proxy_set_effective_context").unwrap_or(0)
}

pub(crate) unsafe fn proxy_continue_stream(_stream: u32) -> u32 {
    if let Some(status) = enter("proxy_continue_stream") {
        return status;
    }
    with(|proxy| proxy.continued += 1);
    0
}
