//! The host's side of the proxy-wasm ABI, as far as the modules use it. It behaves like Envoy, or wrongly on demand.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use wasmi::{Caller, Extern, Linker};

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const INVALID_MEMORY_ACCESS: u32 = 6;
const CAS_MISMATCH: u32 = 8;
/// The status for a function that the host does not have.
pub(crate) const UNIMPLEMENTED: u32 = 12;

/// The id of the response's header map; every other id means the request's.
const RESPONSE_HEADERS: u32 = 2;

/// How the host passes bytes to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HandOver {
    /// In memory that the guest allocated.
    #[default]
    Right,
    /// Returns success without passing anything.
    Nothing,
    /// Returns success with address 0 and the right length.
    Null,
    /// With the right address and a length beyond the allocation.
    TooLong,
    /// With an address that the guest did not allocate.
    Foreign,
    /// With an address beyond the end of the guest's memory.
    Outside,
    /// Makes the guest allocate many times, and uses the last allocation.
    Wasteful,
}

/// A response by the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestResponse {
    /// The status.
    pub status: u32,
    /// The body.
    pub body: Vec<u8>,
}

/// The state of the host. It persists as long as the VM, which is as long as its [`crate::Guest`].
#[derive(Debug, Default)]
pub struct MeterHost {
    /// The plugin's configuration.
    pub configuration: Vec<u8>,
    /// The current request's headers.
    pub request_headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The current response's headers.
    pub response_headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Properties by path; the parts of a path are separated by NUL.
    pub properties: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The clock, in nanoseconds since 1970.
    pub time: u64,
    /// The log.
    pub log: Vec<String>,
    /// The response by the guest.
    pub sent: Option<GuestResponse>,
    /// Whether the guest closed the stream.
    pub closed: bool,
    /// The number of calls of each function.
    pub calls: BTreeMap<&'static str, u64>,
    /// Functions that only return the given status.
    pub answers: BTreeMap<&'static str, u32>,
    /// Overrides all header maps with these bytes.
    pub raw_map: Option<Vec<u8>>,
    /// How bytes are passed to the guest.
    pub hand_over: HandOver,
    shared: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    /// The version of the last write to shared data.
    token: u32,
    metrics: Vec<Vec<u8>>,
    random: u64,
    pub(crate) allocations: u64,
}

impl MeterHost {
    /// Simulates another writer that sets every key to this value.
    pub fn overwrite_shared_data(&mut self, value: &[u8]) {
        for (found, token) in self.shared.values_mut() {
            self.token = self.token.wrapping_add(1).max(1);
            (*found, *token) = (value.to_vec(), self.token);
        }
    }

    fn map(&mut self, map: u32) -> &mut Vec<(Vec<u8>, Vec<u8>)> {
        if map == RESPONSE_HEADERS { &mut self.response_headers } else { &mut self.request_headers }
    }

    /// Eight pseudo-random bytes, the same in each run (SplitMix64).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn serialized(&mut self, map: u32) -> Vec<u8> {
        if let Some(raw) = &self.raw_map {
            return raw.clone();
        }
        let headers = self.map(map);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = number(headers.len()).to_vec();
        for (name, value) in headers.iter() {
            bytes.extend(number(name.len()));
            bytes.extend(number(value.len()));
        }
        for (name, value) in headers.iter() {
            bytes.extend([name, &b"\0"[..], value, b"\0"].concat());
        }
        bytes
    }
}

type Call<'a> = Caller<'a, MeterHost>;

/// Reads bytes of the guest's memory; `None` when they are out of bounds.
fn read(call: &Call<'_>, address: u32, size: u32) -> Option<Vec<u8>> {
    let memory = call.get_export("memory").and_then(Extern::into_memory)?;
    let start = usize::try_from(address).ok()?;
    Some(memory.data(call).get(start..start.checked_add(usize::try_from(size).ok()?)?)?.to_vec())
}

fn write(call: &mut Call<'_>, address: u32, bytes: &[u8]) -> Option<()> {
    let memory = call.get_export("memory").and_then(Extern::into_memory)?;
    memory.write(&mut *call, usize::try_from(address).ok()?, bytes).ok()
}

/// Calls the guest's allocator. Returns `None` when the guest has no memory left; a trap in the allocator ends the whole
/// call.
fn allocate(call: &mut Call<'_>, size: u32) -> Result<Option<u32>, wasmi::Error> {
    let Some(export) = call.get_export("proxy_on_memory_allocate").and_then(Extern::into_func) else { return Ok(None) };
    call.data_mut().allocations += 1;
    let address = export.typed::<u32, u32>(&*call)?.call(&mut *call, size)?;
    Ok((address != 0).then_some(address))
}

/// Passes bytes to the guest through the two out-pointers.
fn give(call: &mut Call<'_>, bytes: &[u8], address_at: u32, size_at: u32) -> Result<u32, wasmi::Error> {
    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let how = call.data().hand_over;
    let mut told = size;
    let address = match how {
        HandOver::Nothing => return Ok(OK),
        HandOver::Null => 0,
        HandOver::Foreign => 1024,
        HandOver::Outside => u32::MAX - 15,
        HandOver::Right | HandOver::TooLong | HandOver::Wasteful => {
            if how == HandOver::Wasteful {
                for _ in 0..50 {
                    allocate(call, size)?;
                }
            }
            if how == HandOver::TooLong {
                told = size.saturating_add(1 << 20);
            }
            // Envoy does not allocate for an empty value.
            if bytes.is_empty() {
                0
            } else {
                match allocate(call, size)? {
                    Some(address) if write(call, address, bytes).is_some() => address,
                    _ => return Ok(INVALID_MEMORY_ACCESS),
                }
            }
        }
    };
    let done = write(call, address_at, &address.to_le_bytes()).and_then(|()| write(call, size_at, &told.to_le_bytes()));
    Ok(if done.is_some() { OK } else { INVALID_MEMORY_ACCESS })
}

/// Counts the call. If a test has set a status for this function, returns it; the function must then return it at once.
fn enter(call: &mut Call<'_>, name: &'static str) -> Option<u32> {
    let host = call.data_mut();
    *host.calls.entry(name).or_default() += 1;
    host.answers.get(name).copied()
}

/// Defines host functions: their arguments and results are numbers.
macro_rules! define {
    ($linker:ident, $module:literal: $($name:ident |$call:ident $(, $argument:ident: $kind:ty)*| $body:block)*) => {
        $(
            $linker
                .func_wrap($module, stringify!($name), |mut call: Call<'_> $(, $argument: $kind)*| -> Result<u32, wasmi::Error> {
                    if let Some(status) = enter(&mut call, stringify!($name)) {
                        $(let _ = $argument;)*
                        return Ok(status);
                    }
                    let $call = &mut call;
                    $body
                })
                .map_err(|error| anyhow!("{error}"))?;
        )*
    };
}

/// Runs code that fails when memory is out of the guest's bounds.
fn memory(act: impl FnOnce() -> Option<u32>) -> Result<u32, wasmi::Error> {
    Ok(act().unwrap_or(INVALID_MEMORY_ACCESS))
}

/// Adds all functions to `linker`.
pub(crate) fn link(linker: &mut Linker<MeterHost>) -> Result<()> {
    define! { linker, "env":
        proxy_log |call, _level: u32, text: u32, size: u32| {
            memory(|| {
                let text = read(call, text, size)?;
                call.data_mut().log.push(String::from_utf8_lossy(&text).into_owned());
                Some(OK)
            })
        }
        proxy_get_log_level |call, level: u32| { memory(|| write(call, level, &2_u32.to_le_bytes()).map(|()| OK)) }
        proxy_get_buffer_bytes |call, _kind: u32, start: u32, length: u32, data: u32, size: u32| {
            let bytes = call.data().configuration.clone();
            let bytes = bytes.get(start as usize..).unwrap_or_default();
            give(call, bytes.get(..(length as usize).min(bytes.len())).unwrap_or_default(), data, size)
        }
        proxy_get_header_map_pairs |call, map: u32, data: u32, size: u32| {
            let bytes = call.data_mut().serialized(map);
            give(call, &bytes, data, size)
        }
        proxy_get_header_map_value |call, map: u32, name: u32, name_size: u32, data: u32, size: u32| {
            let Some(name) = read(call, name, name_size) else { return Ok(INVALID_MEMORY_ACCESS) };
            let value = call.data_mut().map(map).iter().find(|(found, _)| *found == name).map(|(_, value)| value.clone());
            match value {
                Some(value) => give(call, &value, data, size),
                None => Ok(NOT_FOUND),
            }
        }
        proxy_add_header_map_value |call, map: u32, name: u32, name_size: u32, value: u32, value_size: u32| {
            memory(|| {
                let header = (read(call, name, name_size)?, read(call, value, value_size)?);
                call.data_mut().map(map).push(header);
                Some(OK)
            })
        }
        proxy_replace_header_map_value |call, map: u32, name: u32, name_size: u32, value: u32, value_size: u32| {
            memory(|| {
                let header = (read(call, name, name_size)?, read(call, value, value_size)?);
                let map = call.data_mut().map(map);
                map.retain(|(found, _)| *found != header.0);
                map.push(header);
                Some(OK)
            })
        }
        proxy_remove_header_map_value |call, map: u32, name: u32, name_size: u32| {
            memory(|| {
                let name = read(call, name, name_size)?;
                call.data_mut().map(map).retain(|(found, _)| *found != name);
                Some(OK)
            })
        }
        proxy_send_local_response |call, status: u32, _details: u32, _details_size: u32, body: u32, body_size: u32,
            _headers: u32, _headers_size: u32, _grpc: u32| {
            memory(|| {
                let body = read(call, body, body_size)?;
                call.data_mut().sent = Some(GuestResponse { status, body });
                Some(OK)
            })
        }
        proxy_close_stream |call, _stream: u32| {
            call.data_mut().closed = true;
            Ok(OK)
        }
        proxy_get_property |call, path: u32, path_size: u32, data: u32, size: u32| {
            let Some(path) = read(call, path, path_size) else { return Ok(INVALID_MEMORY_ACCESS) };
            match call.data().properties.get(&path).cloned() {
                Some(value) => give(call, &value, data, size),
                None => Ok(NOT_FOUND),
            }
        }
        proxy_set_property |call, path: u32, path_size: u32, value: u32, value_size: u32| {
            memory(|| {
                let (path, value) = (read(call, path, path_size)?, read(call, value, value_size)?);
                call.data_mut().properties.insert(path, value);
                Some(OK)
            })
        }
        proxy_get_shared_data |call, key: u32, key_size: u32, data: u32, size: u32, token_at: u32| {
            let Some(key) = read(call, key, key_size) else { return Ok(INVALID_MEMORY_ACCESS) };
            match call.data().shared.get(&key).cloned() {
                Some((value, token)) => {
                    let status = give(call, &value, data, size)?;
                    let told = write(call, token_at, &token.to_le_bytes());
                    Ok(if told.is_some() { status } else { INVALID_MEMORY_ACCESS })
                }
                None => Ok(NOT_FOUND),
            }
        }
        proxy_set_shared_data |call, key: u32, key_size: u32, data: u32, size: u32, token: u32| {
            memory(|| {
                let (key, value) = (read(call, key, key_size)?, read(call, data, size)?);
                let host = call.data_mut();
                if token != 0 && host.shared.get(&key).is_some_and(|(_, found)| *found != token) {
                    return Some(CAS_MISMATCH);
                }
                host.token = host.token.wrapping_add(1).max(1);
                host.shared.insert(key, (value, host.token));
                Some(OK)
            })
        }
        proxy_get_current_time_nanoseconds |call, time: u32| {
            memory(|| {
                let now = call.data().time;
                write(call, time, &now.to_le_bytes()).map(|()| OK)
            })
        }
        proxy_define_metric |call, _kind: u32, name: u32, name_size: u32, id: u32| {
            memory(|| {
                let name = read(call, name, name_size)?;
                call.data_mut().metrics.push(name);
                let number = u32::try_from(call.data().metrics.len()).ok()?;
                write(call, id, &number.to_le_bytes()).map(|()| OK)
            })
        }
        proxy_increment_metric |call, _id: u32, _by: i64| {
            let _ = call;
            Ok(OK)
        }
        proxy_set_tick_period_milliseconds |call, _period: u32| {
            let _ = call;
            Ok(OK)
        }
    }
    define! { linker, "wasi_snapshot_preview1":
        random_get |call, buffer: u32, size: u32| {
            memory(|| {
                let mut bytes = Vec::new();
                while bytes.len() < size as usize {
                    bytes.extend(call.data_mut().random().to_le_bytes());
                }
                write(call, buffer, bytes.get(..size as usize)?).map(|()| OK)
            })
        }
    }
    Ok(())
}
