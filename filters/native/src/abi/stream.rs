//! One HTTP stream, as a filter sees it.

use smallvec::SmallVec;

use super::loader::{callback, required, shows_all_attributes};
use super::types::{AbiMetric, EnvoyBuffer, EnvoyHeader, ModuleBuffer, ModuleHeader, metric_result, pointer};
use crate::error::Error;
use crate::headers::HeaderCopy;

/// The header maps of a stream.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum StreamHeaders {
    Request = 0,
    Response = 2,
    ResponseTrailers = 3,
}

/// Attributes of a stream, by their numbers in the ABI.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Attribute {
    ResponseFlags = 17,
    SourceAddress = 24,
    DestinationAddress = 26,
    DestinationPort = 27,
    RequestedServerName = 30,
    TlsVersion = 31,
    UriSanOfPeer = 37,
}

impl Attribute {
    /// Whether this Envoy shows it. Envoy 1.38 does not show all, and logs an error each time that one of these is read.
    fn is_shown(self) -> bool {
        match self {
            Attribute::ResponseFlags | Attribute::RequestedServerName => shows_all_attributes(),
            _ => true,
        }
    }
}

/// Envoy's side of one HTTP filter of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream(usize);

impl Stream {
    /// Returns `None` for a null pointer.
    pub(super) fn new(filter: *mut std::ffi::c_void) -> Option<Stream> {
        (!filter.is_null()).then(|| Stream(filter.expose_provenance()))
    }

    fn filter(self) -> *mut std::ffi::c_void {
        pointer(self.0)
    }

    /// Adds to a counter, sets a gauge, or records a value in a histogram.
    pub(crate) fn write(self, kind: AbiMetric, id: usize, labels: &[Box<str>], value: u64) -> Result<(), Error> {
        let mut labels: SmallVec<[ModuleBuffer; 2]> =
            labels.iter().map(|label| ModuleBuffer::of(label.as_bytes())).collect();
        let write = match kind {
            AbiMetric::Counter => callback!(http_filter_increment_counter)?,
            AbiMetric::Gauge => callback!(http_filter_set_gauge)?,
            AbiMetric::Histogram => callback!(http_filter_record_histogram_value)?,
        };
        // SAFETY: the stream is alive; the buffers are valid during the call; the number of labels is that of the
        // definition.
        metric_result(unsafe { write(self.filter(), id, labels.as_mut_ptr(), labels.len(), value) })
    }

    /// A copy of the request's headers.
    pub(crate) fn headers(self) -> Result<HeaderCopy, Error> {
        let get = required!(http_get_headers)?;
        // SAFETY: the stream is alive.
        let count = unsafe { required!(http_get_headers_size)?(self.filter(), StreamHeaders::Request as u32) };
        let none =
            EnvoyHeader { key_ptr: std::ptr::null(), key_length: 0, value_ptr: std::ptr::null(), value_length: 0 };
        let mut views: SmallVec<[EnvoyHeader; 32]> = SmallVec::new();
        views.try_reserve_exact(count).map_err(|_| Error::Refused("header map"))?;
        views.resize(count, none);
        // SAFETY: there is room for all headers of the map.
        if !unsafe { get(self.filter(), StreamHeaders::Request as u32, views.as_mut_ptr()) } {
            return Err(Error::Refused("header map"));
        }
        let mut copy = HeaderCopy::default();
        let size =
            views.iter().map(|view| view.key_length.saturating_add(view.value_length)).fold(0, usize::saturating_add);
        copy.reserve(count, size)?;
        for view in &views {
            // SAFETY: Envoy guarantees this number of bytes until the hook returns or something is written, which only
            // happens after they are copied.
            let (name, value) =
                unsafe { (bytes(view.key_ptr, view.key_length), bytes(view.value_ptr, view.value_length)) };
            copy.push(name, value)?;
        }
        Ok(copy)
    }

    /// Sets a header, replacing all headers with this name.
    pub(crate) fn set_header(self, map: StreamHeaders, name: &str, value: &[u8]) -> Result<(), Error> {
        let set = required!(http_set_header)?;
        // SAFETY: the stream is alive; the buffers are valid during the call, and Envoy copies them.
        let done =
            unsafe { set(self.filter(), map as u32, ModuleBuffer::of(name.as_bytes()), ModuleBuffer::of(value)) };
        if done { Ok(()) } else { Err(Error::Refused("header")) }
    }

    /// Adds a header and keeps others with this name.
    pub(crate) fn add_header(self, map: StreamHeaders, name: &str, value: &[u8]) -> Result<(), Error> {
        let add = required!(http_add_header)?;
        // SAFETY: as in `set_header`.
        let done =
            unsafe { add(self.filter(), map as u32, ModuleBuffer::of(name.as_bytes()), ModuleBuffer::of(value)) };
        if done { Ok(()) } else { Err(Error::Refused("header")) }
    }

    /// Removes all headers with this name.
    pub(crate) fn remove_header(self, map: StreamHeaders, name: &str) -> Result<(), Error> {
        let set = required!(http_set_header)?;
        // SAFETY: as in `set_header`; a null value removes.
        let done = unsafe { set(self.filter(), map as u32, ModuleBuffer::of(name.as_bytes()), ModuleBuffer::NULL) };
        if done { Ok(()) } else { Err(Error::Refused("header")) }
    }

    /// The first value of a header.
    pub(crate) fn header(self, map: StreamHeaders, name: &str) -> Option<Vec<u8>> {
        let get = required!(http_get_header).ok()?;
        let mut value = EnvoyBuffer::EMPTY;
        let name = ModuleBuffer::of(name.as_bytes());
        // SAFETY: the stream is alive; `value` is valid during the call; the count is optional.
        let found = unsafe { get(self.filter(), map as u32, name, &raw mut value, 0, std::ptr::null_mut()) };
        (found && !value.ptr.is_null()).then(|| value.to_vec())
    }

    /// Sends a local reply.
    pub(crate) fn respond(
        self,
        status: u16,
        headers: &[(&[u8], &[u8])],
        body: &[u8],
        details: &str,
    ) -> Result<(), Error> {
        let send = required!(http_send_response)?;
        let mut headers: SmallVec<[ModuleHeader; 8]> = headers.iter().map(|header| ModuleHeader::of(*header)).collect();
        // SAFETY: the stream is alive; the buffers are valid during the call, and Envoy copies them.
        unsafe {
            send(
                self.filter(),
                status.into(),
                headers.as_mut_ptr(),
                headers.len(),
                ModuleBuffer::of(body),
                ModuleBuffer::of(details.as_bytes()),
            );
        }
        Ok(())
    }

    /// Resets the stream.
    pub(crate) fn reset(self, details: &str) -> Result<(), Error> {
        let reset = callback!(http_filter_reset_stream)?;
        // SAFETY: as in `respond`; 0 is a reset by the proxy.
        unsafe { reset(self.filter(), 0, ModuleBuffer::of(details.as_bytes())) };
        Ok(())
    }

    /// Continues a stopped request.
    pub(crate) fn resume(self) -> Result<(), Error> {
        // SAFETY: the stream is alive.
        unsafe { required!(http_filter_continue_decoding)?(self.filter()) };
        Ok(())
    }

    /// Whether this Envoy can continue a stopped response.
    pub(crate) fn can_resume_response(self) -> bool {
        callback!(http_filter_continue_encoding).is_ok()
    }

    /// Continues a stopped response.
    pub(crate) fn resume_response(self) {
        if let Ok(resume) = callback!(http_filter_continue_encoding) {
            // SAFETY: the stream lives.
            unsafe { resume(self.filter()) }
        }
    }

    /// Makes Envoy select the route again.
    pub(crate) fn clear_route_cache(self) {
        if let Ok(clear) = required!(http_clear_route_cache) {
            // SAFETY: the stream is alive.
            unsafe { clear(self.filter()) }
        }
    }

    /// A string attribute.
    pub(crate) fn text(self, attribute: Attribute) -> Option<Vec<u8>> {
        let get = required!(http_filter_get_attribute_string).ok().filter(|_| attribute.is_shown())?;
        let mut value = EnvoyBuffer::EMPTY;
        // SAFETY: the stream is alive; `value` is valid during the call.
        let found = unsafe { get(self.filter(), attribute as u32, &raw mut value) };
        found.then(|| value.to_vec()).filter(|value| !value.is_empty())
    }

    /// A number attribute.
    pub(crate) fn number(self, attribute: Attribute) -> Option<u64> {
        let get = required!(http_filter_get_attribute_int).ok().filter(|_| attribute.is_shown())?;
        let mut value = 0;
        // SAFETY: the stream is alive; `value` is valid during the call.
        unsafe { get(self.filter(), attribute as u32, &raw mut value) }.then_some(value)
    }

    /// Sets a value in the stream's filter state.
    pub(crate) fn set_filter_state(self, name: &str, value: &str) {
        if let Ok(set) = required!(http_set_filter_state_bytes) {
            // SAFETY: the stream is alive; the buffers are valid during the call, and Envoy copies them.
            unsafe { set(self.filter(), ModuleBuffer::of(name.as_bytes()), ModuleBuffer::of(value.as_bytes())) };
        }
    }

    /// A value of the stream's filter state that a module has set.
    pub(crate) fn own_filter_state(self, name: &str) -> Option<Vec<u8>> {
        let get = required!(http_get_filter_state_bytes).ok()?;
        let mut value = EnvoyBuffer::EMPTY;
        // SAFETY: the stream is alive; the buffers are valid during the call.
        let found = unsafe { get(self.filter(), ModuleBuffer::of(name.as_bytes()), &raw mut value) };
        found.then(|| value.to_vec())
    }

    /// A value of the stream's filter state as text, whichever filter has set it.
    pub(crate) fn filter_state(self, name: &str) -> Option<Vec<u8>> {
        let Ok(get) = callback!(http_get_filter_state_typed) else { return self.own_filter_state(name) };
        let mut value = EnvoyBuffer::EMPTY;
        // SAFETY: the stream is alive; the buffers are valid during the call.
        let found = unsafe { get(self.filter(), ModuleBuffer::of(name.as_bytes()), &raw mut value) };
        found.then(|| value.to_vec()).filter(|value| !value.is_empty())
    }

    /// Starts a request to a cluster. The response goes to the hooks of HTTP streams, possibly within this call.
    pub(crate) fn start_call(
        self,
        cluster: &str,
        headers: &[(&[u8], &[u8])],
        body: &[u8],
        timeout: u64,
    ) -> Result<u64, Error> {
        let start = callback!(http_filter_start_http_stream)?;
        let mut headers: SmallVec<[ModuleHeader; 8]> = headers.iter().map(|header| ModuleHeader::of(*header)).collect();
        let mut id = 0;
        // SAFETY: the stream is alive; the buffers and `id` are valid during the call, and Envoy copies them.
        let result = unsafe {
            start(
                self.filter(),
                &raw mut id,
                ModuleBuffer::of(cluster.as_bytes()),
                headers.as_mut_ptr(),
                headers.len(),
                ModuleBuffer::of(body),
                true,
                timeout,
            )
        };
        if result == 0 { Ok(id) } else { Err(Error::Refused("call")) }
    }

    /// Cancels a request to a cluster.
    pub(crate) fn reset_call(self, id: u64) {
        if let Ok(reset) = callback!(http_filter_reset_http_stream) {
            // SAFETY: the stream is alive; Envoy ignores ids that are not requests of it.
            unsafe { reset(self.filter(), id) }
        }
    }
}

/// # Safety
/// Like a slice, except that `ptr` may be null when there are no bytes.
pub(super) unsafe fn bytes<'a>(ptr: *const u8, length: usize) -> &'a [u8] {
    if ptr.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: guaranteed by the caller.
    unsafe { std::slice::from_raw_parts(ptr, length) }
}
