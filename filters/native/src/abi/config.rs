//! The configuration of a filter, as Envoy sees it: metrics and calls on its main thread.

use super::loader::{callback, shows_all_attributes, takes_metrics_at_any_time};
use super::types::{AbiMetric, ModuleBuffer, metric_result, pointer};
use crate::error::Error;

/// Envoy's side of one filter configuration. It is valid until the module's own side has been destroyed; the handle is
/// never used after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigHandle {
    /// The configuration of an HTTP filter.
    Http(usize),
    /// The configuration of a network filter.
    Network(usize),
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
            ConfigHandle::Http(_) => takes_metrics_at_any_time(),
            ConfigHandle::Network(_) => callback!(network_filter_config_increment_counter).is_ok(),
        }
    }

    /// Whether this Envoy shows the server name of a request's connection, or of a connection.
    pub(crate) fn shows_server_name(self) -> bool {
        match self {
            ConfigHandle::Http(_) => shows_all_attributes(),
            ConfigHandle::Network(_) => callback!(network_filter_get_requested_server_name).is_ok(),
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
