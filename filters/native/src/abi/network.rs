//! One connection, as a network filter sees it.

use super::loader::callback;
use super::types::{AbiMetric, EnvoyBuffer, ModuleBuffer, metric_result, pointer};
use crate::error::Error;

/// `AbortReset` of Envoy's close types is newer than `NoFlush`, which every version has.
const NO_FLUSH: u32 = 1;

/// Envoy's side of one network filter of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Downstream(usize);

impl Downstream {
    /// Returns `None` for a null pointer.
    pub(super) fn new(filter: *mut std::ffi::c_void) -> Option<Downstream> {
        (!filter.is_null()).then(|| Downstream(filter.expose_provenance()))
    }

    fn filter(self) -> *mut std::ffi::c_void {
        pointer(self.0)
    }

    /// Adds to a counter, sets a gauge, or records a value in a histogram.
    pub(crate) fn write(self, kind: AbiMetric, id: usize, value: u64) -> Result<(), Error> {
        let write = match kind {
            AbiMetric::Counter => callback!(network_filter_increment_counter)?,
            AbiMetric::Gauge => callback!(network_filter_set_gauge)?,
            AbiMetric::Histogram => callback!(network_filter_record_histogram_value)?,
        };
        // SAFETY: the connection is alive.
        metric_result(unsafe { write(self.filter(), id, value) })
    }

    /// The server name in the client's TLS handshake.
    pub(crate) fn sni(self) -> Option<Vec<u8>> {
        let get = callback!(network_filter_get_requested_server_name).ok()?;
        let mut value = EnvoyBuffer::EMPTY;
        // SAFETY: the connection is alive; `value` is valid during the call.
        let found = unsafe { get(self.filter(), &raw mut value) };
        found.then(|| value.to_vec()).filter(|value| !value.is_empty())
    }

    /// The address and port of the peer.
    pub(crate) fn remote(self) -> Option<(Vec<u8>, u32)> {
        let get = callback!(network_filter_get_remote_address).ok()?;
        let (mut address, mut port) = (EnvoyBuffer::EMPTY, 0);
        // SAFETY: the connection is alive; the results are valid during the call.
        unsafe { get(self.filter(), &raw mut address, &raw mut port) }.then(|| (address.to_vec(), port))
    }

    /// The address and port that the client connected to.
    pub(crate) fn local(self) -> Option<(Vec<u8>, u32)> {
        let get = callback!(network_filter_get_local_address).ok()?;
        let (mut address, mut port) = (EnvoyBuffer::EMPTY, 0);
        // SAFETY: as above.
        unsafe { get(self.filter(), &raw mut address, &raw mut port) }.then(|| (address.to_vec(), port))
    }

    /// Whether Envoy terminates TLS of the client's connection.
    pub(crate) fn has_tls(self) -> Option<bool> {
        // SAFETY: the connection is alive.
        Some(unsafe { callback!(network_filter_is_ssl).ok()?(self.filter()) })
    }

    /// The first URI SAN of the peer's certificate.
    pub(crate) fn peer_uri(self) -> Option<Vec<u8>> {
        // SAFETY: the connection is alive.
        let count = unsafe { callback!(network_filter_get_ssl_uri_sans_size).ok()?(self.filter()) };
        let mut all = Vec::new();
        all.try_reserve_exact(count).ok()?;
        all.resize(count, EnvoyBuffer::EMPTY);
        let get = callback!(network_filter_get_ssl_uri_sans).ok()?;
        // SAFETY: there is room for the returned number of items.
        let found = count > 0 && unsafe { get(self.filter(), all.as_mut_ptr()) };
        all.first().filter(|_| found).map(|first| first.to_vec())
    }

    /// A value of the connection's filter state as text.
    pub(crate) fn filter_state(self, name: &str) -> Option<Vec<u8>> {
        let get = callback!(network_get_filter_state_typed).ok()?;
        let mut value = EnvoyBuffer::EMPTY;
        // SAFETY: the connection is alive; the buffers are valid during the call.
        let found = unsafe { get(self.filter(), ModuleBuffer::of(name.as_bytes()), &raw mut value) };
        found.then(|| value.to_vec()).filter(|value| !value.is_empty())
    }

    /// Closes the connection.
    pub(crate) fn close(self) {
        if let Ok(close) = callback!(network_filter_close) {
            // SAFETY: the connection is alive.
            unsafe { close(self.filter(), NO_FLUSH) }
        }
    }
}
