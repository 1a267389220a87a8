//! The ABI of Envoy's dynamic modules, written by hand after `source/extensions/dynamic_modules/abi/abi.h` of
//! envoyproxy/envoy: the callbacks that this module uses, as safe functions. The hooks that it exports are in `hooks.rs`.
//!
//! Since 1.40 that header promises that a type, hook or callback never changes in place. Callbacks are looked up by name when
//! the module is loaded: in an Envoy that lacks one that is needed always, the module refuses to load; what lacks one of the
//! others says so with [`Missing`].
//!
//! All pointers that Envoy hands over are wrapped here. [`Stream`] and [`Downstream`] are used only within a hook and only
//! until Envoy has destroyed the filter that they belong to, which [`crate::filter::Filter`] and
//! [`crate::connection::DownstreamConnection`] know.

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

    /// A copy: views of Envoy's memory do not outlive the call that follows.
    fn to_vec(self) -> Vec<u8> {
        if self.ptr.is_null() || self.length == 0 {
            return Vec::new();
        }
        // SAFETY: Envoy says that so many bytes are there until the hook returns or something is written.
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

    /// Never null, even where there are no bytes: a null value would remove a header.
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

/// Envoy's side of one filter configuration. It lives until the module's own side has been destroyed; the handle is never used
/// after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigHandle {
    /// An HTTP filter's.
    Http(usize),
    /// A network filter's.
    Network(usize),
}

/// The kinds of metrics, each with callbacks of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AbiMetric {
    Counter,
    Gauge,
    Histogram,
}

/// The answer of every callback about metrics: 0 is success.
fn metric_result(result: u32) -> Result<(), Error> {
    if result == 0 { Ok(()) } else { Err(Error::Refused("metric")) }
}

fn pointer(address: usize) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address)
}

impl ConfigHandle {
    /// Whether metrics have labels, so that one definition serves many of them.
    pub(crate) fn has_labels(self) -> bool {
        matches!(self, ConfigHandle::Http(_))
    }

    /// Defines a metric; only while the configuration is being loaded.
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
                // SAFETY: Envoy's configuration lives; the buffers live through the call, and Envoy copies them.
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
                // SAFETY: Envoy's configuration lives; the buffers live through the call; there are as many labels as the
                // definition has.
                metric_result(unsafe { write(pointer(config), id, labels.as_mut_ptr(), labels.len(), value) })
            }
            ConfigHandle::Network(config) => {
                let write = match kind {
                    AbiMetric::Counter => callback!(network_filter_config_increment_counter)?,
                    AbiMetric::Gauge => callback!(network_filter_config_set_gauge)?,
                    AbiMetric::Histogram => callback!(network_filter_config_record_histogram_value)?,
                };
                // SAFETY: Envoy's configuration lives.
                metric_result(unsafe { write(pointer(config), id, value) })
            }
        }
    }

    /// Whether this Envoy lets a configuration write metrics: since 1.39.
    pub(crate) fn can_write(self) -> bool {
        match self {
            ConfigHandle::Http(_) => callback!(http_filter_config_increment_counter).is_ok(),
            ConfigHandle::Network(_) => callback!(network_filter_config_increment_counter).is_ok(),
        }
    }

    /// Whether this Envoy can be asked for calls on its main thread, which write metrics.
    pub(crate) fn scheduler(self) -> Result<Scheduler, Error> {
        // One that cannot be given back is not taken.
        match self {
            ConfigHandle::Http(_) => callback!(http_filter_config_scheduler_delete).map(drop)?,
            ConfigHandle::Network(_) => callback!(network_filter_config_scheduler_delete).map(drop)?,
        }
        // SAFETY: Envoy's configuration lives.
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

/// A way to have a configuration's `scheduled` hook called on Envoy's main thread.
#[derive(Debug)]
pub(crate) struct Scheduler {
    address: usize,
    of: ConfigHandle,
}

impl Scheduler {
    /// Asks for one call; from any thread. Nothing comes of it when the configuration is gone by then.
    pub(crate) fn commit(&self) {
        let commit = match self.of {
            ConfigHandle::Http(_) => callback!(http_filter_config_scheduler_commit),
            ConfigHandle::Network(_) => callback!(network_filter_config_scheduler_commit),
        };
        if let Ok(commit) = commit {
            // SAFETY: the scheduler lives until it is dropped.
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
            // SAFETY: it was made by `scheduler` and is deleted once.
            unsafe { delete(pointer(self.address)) }
        }
    }
}
