//! The ABI of Envoy's dynamic modules, written by hand from `source/extensions/dynamic_modules/abi/abi.h` of
//! envoyproxy/envoy: the callbacks that this module uses, as safe functions. The hooks that it exports are in
//! `hooks.rs`.
//!
//! Since 1.40, that header guarantees that a type, hook or callback never changes incompatibly. Callbacks are looked up
//! by name when the module is loaded: the module refuses to load into an Envoy that lacks a required one; functions
//! that need an optional one return [`Missing`] without it.
//!
//! All pointers that Envoy passes are wrapped here. [`Stream`] and [`Downstream`] are only used within a hook and only
//! until Envoy has destroyed their filter, which [`crate::filter::Filter`] and
//! [`crate::connection::DownstreamConnection`] track.

#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod hooks;
mod loader;
mod network;
mod stream;

use std::ffi::c_void;

use crate::host::Error;
use loader::{callback, required};
pub(crate) use loader::{is_log_enabled, load, write_log};
pub(crate) use network::Downstream;
pub(crate) use stream::{Attribute, Stream, StreamHeaders};

/// Bytes that belong to Envoy.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct EnvoyBuffer {
    ptr: *const u8,
    length: usize,
}

impl EnvoyBuffer {
    const EMPTY: EnvoyBuffer = EnvoyBuffer { ptr: std::ptr::null(), length: 0 };

    /// A copy, because views of Envoy's memory are invalid after the next call.
    fn to_vec(self) -> Vec<u8> {
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
struct ModuleBuffer {
    ptr: *const u8,
    length: usize,
}

impl ModuleBuffer {
    const NULL: ModuleBuffer = ModuleBuffer { ptr: std::ptr::null(), length: 0 };

    /// Never null, even when empty: a null value would remove a header.
    fn of(bytes: &[u8]) -> ModuleBuffer {
        ModuleBuffer { ptr: bytes.as_ptr(), length: bytes.len() }
    }
}

/// A header that belongs to Envoy.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct EnvoyHeader {
    key_ptr: *const u8,
    key_length: usize,
    value_ptr: *const u8,
    value_length: usize,
}

/// A header that belongs to the module.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct ModuleHeader {
    key_ptr: *const u8,
    key_length: usize,
    value_ptr: *const u8,
    value_length: usize,
}

impl ModuleHeader {
    fn of((name, value): (&[u8], &[u8])) -> ModuleHeader {
        ModuleHeader {
            key_ptr: name.as_ptr(),
            key_length: name.len(),
            value_ptr: value.as_ptr(),
            value_length: value.len(),
        }
    }
}

/// Envoy's side of one filter configuration. It is valid until the module's own side has been destroyed; the handle is
/// never used after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigHandle {
    /// The configuration of an HTTP filter.
    Http(usize),
    /// The configuration of a network filter.
    Network(usize),
}

/// The kinds of metrics, each with its own callbacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AbiMetric {
    Counter,
    Gauge,
    Histogram,
}

/// The result of every callback for metrics: 0 is success.
fn metric_result(result: u32) -> Result<(), Error> {
    if result == 0 { Ok(()) } else { Err(Error::Refused("metric")) }
}

fn pointer(address: usize) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address)
}

impl ConfigHandle {
    /// Whether metrics have labels, so that one definition is enough for many label values.
    pub(crate) fn has_labels(self) -> bool {
        matches!(self, ConfigHandle::Http(_))
    }

    /// Defines a metric; only possible while the configuration is being loaded.
    pub(crate) fn define(self, kind: AbiMetric, name: &str, labels: &[&str]) -> Result<usize, Error> {
        let mut id = 0;
        let name = ModuleBuffer::of(name.as_bytes());
        match self {
            ConfigHandle::Http(config) => {
                let mut labels: Vec<ModuleBuffer> =
                    labels.iter().map(|label| ModuleBuffer::of(label.as_bytes())).collect();
                let define = match kind {
                    AbiMetric::Counter => callback!(http_filter_config_define_counter)?,
                    AbiMetric::Gauge => callback!(http_filter_config_define_gauge)?,
                    AbiMetric::Histogram => callback!(http_filter_config_define_histogram)?,
                };
                // SAFETY: Envoy's configuration is alive; the buffers are valid during the call, and Envoy copies them.
                metric_result(unsafe {
                    define(pointer(config), name, labels.as_mut_ptr(), labels.len(), &raw mut id)
                })?;
            }
            ConfigHandle::Network(config) => {
                let define = match kind {
                    AbiMetric::Counter => callback!(network_filter_config_define_counter)?,
                    AbiMetric::Gauge => callback!(network_filter_config_define_gauge)?,
                    AbiMetric::Histogram => callback!(network_filter_config_define_histogram)?,
                };
                // SAFETY: as above.
                metric_result(unsafe { define(pointer(config), name, &raw mut id) })?;
            }
        }
        Ok(id)
    }

    /// Adds to a counter, sets a gauge, or records a value in a histogram. Only on Envoy's main thread.
    pub(crate) fn write(self, kind: AbiMetric, id: usize, labels: &[Box<str>], value: u64) -> Result<(), Error> {
        match self {
            ConfigHandle::Http(config) => {
                let mut labels: Vec<ModuleBuffer> =
                    labels.iter().map(|label| ModuleBuffer::of(label.as_bytes())).collect();
                let write = match kind {
                    AbiMetric::Counter => callback!(http_filter_config_increment_counter)?,
                    AbiMetric::Gauge => callback!(http_filter_config_set_gauge)?,
                    AbiMetric::Histogram => callback!(http_filter_config_record_histogram_value)?,
                };
                // SAFETY: Envoy's configuration is alive; the buffers are valid during the call; the number of labels
                // is that of the definition.
                metric_result(unsafe { write(pointer(config), id, labels.as_mut_ptr(), labels.len(), value) })
            }
            ConfigHandle::Network(config) => {
                let write = match kind {
                    AbiMetric::Counter => callback!(network_filter_config_increment_counter)?,
                    AbiMetric::Gauge => callback!(network_filter_config_set_gauge)?,
                    AbiMetric::Histogram => callback!(network_filter_config_record_histogram_value)?,
                };
                // SAFETY: Envoy's configuration is alive.
                metric_result(unsafe { write(pointer(config), id, value) })
            }
        }
    }

    /// Whether this Envoy allows a configuration to write metrics: since 1.39.
    pub(crate) fn can_write(self) -> bool {
        match self {
            ConfigHandle::Http(_) => callback!(http_filter_config_increment_counter).is_ok(),
            ConfigHandle::Network(_) => callback!(network_filter_config_increment_counter).is_ok(),
        }
    }

    /// Requests calls on Envoy's main thread, which write metrics, if this Envoy supports it.
    pub(crate) fn scheduler(self) -> Result<Scheduler, Error> {
        // A scheduler is only created if it can also be deleted.
        match self {
            ConfigHandle::Http(_) => callback!(http_filter_config_scheduler_delete).map(drop)?,
            ConfigHandle::Network(_) => callback!(network_filter_config_scheduler_delete).map(drop)?,
        }
        // SAFETY: Envoy's configuration is alive.
        let scheduler = unsafe {
            match self {
                ConfigHandle::Http(config) => callback!(http_filter_config_scheduler_new)?(pointer(config)),
                ConfigHandle::Network(config) => callback!(network_filter_config_scheduler_new)?(pointer(config)),
            }
        };
        if scheduler.is_null() {
            return Err(Error::Refused("scheduler"));
        }
        Ok(Scheduler { address: scheduler.expose_provenance(), of: self })
    }
}

/// Schedules calls of a configuration's `scheduled` hook on Envoy's main thread.
#[derive(Debug)]
pub(crate) struct Scheduler {
    address: usize,
    of: ConfigHandle,
}

impl Scheduler {
    /// Schedules one call, from any thread. Has no effect when the configuration no longer exists by then.
    pub(crate) fn commit(&self) {
        let commit = match self.of {
            ConfigHandle::Http(_) => callback!(http_filter_config_scheduler_commit),
            ConfigHandle::Network(_) => callback!(network_filter_config_scheduler_commit),
        };
        if let Ok(commit) = commit {
            // SAFETY: the scheduler exists until it is dropped.
            unsafe { commit(pointer(self.address), 0) }
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        let delete = match self.of {
            ConfigHandle::Http(_) => callback!(http_filter_config_scheduler_delete),
            ConfigHandle::Network(_) => callback!(network_filter_config_scheduler_delete),
        };
        if let Ok(delete) = delete {
            // SAFETY: it was created by `scheduler` and is deleted once.
            unsafe { delete(pointer(self.address)) }
        }
    }
}
