//! The plain types of the ABI.

use std::ffi::c_void;

use crate::error::Error;

/// Bytes that belong to Envoy.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct EnvoyBuffer {
    pub(super) ptr: *const u8,
    pub(super) length: usize,
}

impl EnvoyBuffer {
    pub(super) const EMPTY: EnvoyBuffer = EnvoyBuffer { ptr: std::ptr::null(), length: 0 };

    /// A copy, because views of Envoy's memory are invalid after the next call.
    pub(super) fn to_vec(self) -> Vec<u8> {
        if self.ptr.is_null() || self.length == 0 {
            return Vec::new();
        }
        // SAFETY: Envoy guarantees this number of bytes until the hook returns or something is written.
        unsafe { std::slice::from_raw_parts(self.ptr, self.length) }.to_vec()
    }
}

/// Bytes that belong to the module.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct ModuleBuffer {
    pub(super) ptr: *const u8,
    pub(super) length: usize,
}

impl ModuleBuffer {
    pub(super) const NULL: ModuleBuffer = ModuleBuffer { ptr: std::ptr::null(), length: 0 };

    /// Never null, even when empty: a null value would remove a header.
    pub(super) fn of(bytes: &[u8]) -> ModuleBuffer {
        ModuleBuffer { ptr: bytes.as_ptr(), length: bytes.len() }
    }
}

/// A header that belongs to Envoy.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct EnvoyHeader {
    pub(super) key_ptr: *const u8,
    pub(super) key_length: usize,
    pub(super) value_ptr: *const u8,
    pub(super) value_length: usize,
}

/// A header that belongs to the module.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct ModuleHeader {
    pub(super) key_ptr: *const u8,
    pub(super) key_length: usize,
    pub(super) value_ptr: *const u8,
    pub(super) value_length: usize,
}

impl ModuleHeader {
    pub(super) fn of((name, value): (&[u8], &[u8])) -> ModuleHeader {
        ModuleHeader {
            key_ptr: name.as_ptr(),
            key_length: name.len(),
            value_ptr: value.as_ptr(),
            value_length: value.len(),
        }
    }
}

/// The kinds of metrics, each with its own callbacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AbiMetric {
    Counter,
    Gauge,
    Histogram,
}

/// The result of every callback for metrics: 0 is success.
pub(super) fn metric_result(result: u32) -> Result<(), Error> {
    if result == 0 { Ok(()) } else { Err(Error::Refused("metric")) }
}

pub(super) fn pointer(address: usize) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address)
}
