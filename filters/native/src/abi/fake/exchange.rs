//! One HTTP exchange and one connection, from Envoy's side.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::rc::Rc;
use std::sync::Arc;

use super::{FAULTS, FakeConfig, LoadedFilter, Ptr, faults};
use crate::abi::types::{EnvoyBuffer, EnvoyHeader};

unsafe extern "C" {
    fn envoy_dynamic_module_on_http_filter_new(config: *const c_void, filter: Ptr) -> *const c_void;
    fn envoy_dynamic_module_on_http_filter_request_headers(envoy: Ptr, filter: *const c_void, end: bool) -> u32;
    fn envoy_dynamic_module_on_http_filter_request_body(envoy: Ptr, filter: *const c_void, end: bool) -> u32;
    fn envoy_dynamic_module_on_http_filter_request_trailers(envoy: Ptr, filter: *const c_void) -> u32;
    fn envoy_dynamic_module_on_http_filter_response_headers(envoy: Ptr, filter: *const c_void, end: bool) -> u32;
    fn envoy_dynamic_module_on_http_filter_response_body(envoy: Ptr, filter: *const c_void, end: bool) -> u32;
    fn envoy_dynamic_module_on_http_filter_response_trailers(envoy: Ptr, filter: *const c_void) -> u32;
    fn envoy_dynamic_module_on_http_filter_local_reply(
        envoy: Ptr,
        filter: *const c_void,
        status: u32,
        details: EnvoyBuffer,
        reset_imminent: bool,
    ) -> u32;
    fn envoy_dynamic_module_on_http_filter_stream_complete(envoy: Ptr, filter: *const c_void);
    fn envoy_dynamic_module_on_http_filter_destroy(filter: *const c_void);
    fn envoy_dynamic_module_on_http_filter_http_stream_headers(
        envoy: Ptr,
        filter: *const c_void,
        stream: u64,
        headers: *mut EnvoyHeader,
        count: usize,
        end: bool,
    );
    fn envoy_dynamic_module_on_http_filter_http_stream_data(
        envoy: Ptr,
        filter: *const c_void,
        stream: u64,
        data: *const EnvoyBuffer,
        count: usize,
        end: bool,
    );
    fn envoy_dynamic_module_on_http_filter_http_stream_trailers(
        envoy: Ptr,
        filter: *const c_void,
        stream: u64,
        trailers: *mut EnvoyHeader,
        count: usize,
    );
    fn envoy_dynamic_module_on_http_filter_http_stream_complete(envoy: Ptr, filter: *const c_void, stream: u64);
    fn envoy_dynamic_module_on_http_filter_http_stream_reset(
        envoy: Ptr,
        filter: *const c_void,
        stream: u64,
        reason: u32,
    );
    fn envoy_dynamic_module_on_network_filter_new(config: *const c_void, filter: Ptr) -> *const c_void;
    fn envoy_dynamic_module_on_network_filter_new_connection(envoy: Ptr, filter: *const c_void) -> u32;
    fn envoy_dynamic_module_on_network_filter_read(envoy: Ptr, filter: *const c_void, length: usize, end: bool) -> u32;
    fn envoy_dynamic_module_on_network_filter_destroy(filter: *const c_void);
}

/// The memory that is lent to the module until it is freed.
#[derive(Debug, Default)]
pub(super) struct Lent(RefCell<Vec<Box<[u8]>>>);

impl Lent {
    pub(super) fn take_back(&self) {
        self.0.take();
    }

    /// The only valid view.
    pub(super) fn lend(&self, value: &[u8]) -> EnvoyBuffer {
        self.take_back();
        self.lend_more(value)
    }

    pub(super) fn lend_more(&self, value: &[u8]) -> EnvoyBuffer {
        if FAULTS.with_borrow(|faults| faults.null_views) {
            return EnvoyBuffer { ptr: std::ptr::null(), length: 7 };
        }
        let mut lent = self.0.borrow_mut();
        lent.push(value.into());
        let value = &lent[lent.len() - 1];
        EnvoyBuffer { ptr: value.as_ptr(), length: value.len() }
    }
}

type Headers = Vec<(String, Vec<u8>)>;

/// Envoy's side of a filter of one exchange.
#[derive(Debug)]
pub(super) struct FakeStream {
    pub(super) config: Arc<FakeConfig>,
    /// The module's side.
    module: Cell<*const c_void>,
    pub(super) lent: Lent,
    request: RefCell<Headers>,
    response: RefCell<Headers>,
    trailers: RefCell<Headers>,
    pub(super) texts: RefCell<BTreeMap<u32, Vec<u8>>>,
    pub(super) numbers: RefCell<BTreeMap<u32, u64>>,
    pub(super) filter_state: RefCell<BTreeMap<String, Vec<u8>>>,
    pub(super) routes_cleared: Cell<usize>,
    reply: RefCell<Option<FakeReply>>,
    pub(super) reset: RefCell<Option<String>>,
    resumed: Cell<usize>,
    responses_resumed: Cell<usize>,
    calls: RefCell<Vec<FakeCall>>,
    pub(super) calls_reset: RefCell<Vec<u64>>,
}

/// A local reply.
#[derive(Clone, Debug)]
pub(crate) struct FakeReply {
    pub(crate) status: u32,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
    pub(crate) details: String,
}

/// A request to a cluster.
#[derive(Clone, Debug)]
pub(crate) struct FakeCall {
    pub(crate) cluster: String,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

/// An event of a call.
#[derive(Clone, Debug)]
pub(crate) enum FakeCallEvent {
    /// The response's headers.
    Headers(&'static [(&'static str, &'static str)]),
    /// Parts of its body, in one event.
    Data(Vec<Vec<u8>>),
    Trailers(&'static [(&'static str, &'static str)]),
    Complete,
    Reset,
}

impl FakeStream {
    pub(super) fn map(&self, map: u32) -> &RefCell<Headers> {
        match map {
            0 => &self.request,
            2 => &self.response,
            3 => &self.trailers,
            other => panic!("header map {other}"),
        }
    }

    fn envoy(&self) -> Ptr {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    pub(super) fn respond(&self, status: u32, headers: Headers, body: Vec<u8>, details: String) {
        let mut shown = headers.clone();
        shown.push((":status".to_owned(), status.to_string().into_bytes()));
        self.reply.replace(Some(FakeReply { status, headers, body, details }));
        if FAULTS.with_borrow(|faults| faults.acts_at_once) {
            self.response.replace(shown);
            let details = EnvoyBuffer { ptr: b"x".as_ptr(), length: 1 };
            unsafe {
                envoy_dynamic_module_on_http_filter_local_reply(
                    self.envoy(),
                    self.module.get(),
                    status,
                    details,
                    false,
                );
                envoy_dynamic_module_on_http_filter_response_headers(self.envoy(), self.module.get(), false);
                envoy_dynamic_module_on_http_filter_stream_complete(self.envoy(), self.module.get());
            }
        }
    }

    pub(super) fn resume(&self) {
        self.resumed.set(self.resumed.get() + 1);
        if FAULTS.with_borrow(|faults| faults.acts_at_once) {
            self.response.replace(vec![(":status".to_owned(), b"200".to_vec())]);
            unsafe { envoy_dynamic_module_on_http_filter_response_headers(self.envoy(), self.module.get(), true) };
        }
    }

    pub(super) fn resume_response(&self) {
        self.responses_resumed.set(self.responses_resumed.get() + 1);
    }

    pub(super) fn begin_call(&self, cluster: String, headers: Headers, body: Vec<u8>) -> u64 {
        let number = {
            let mut calls = self.calls.borrow_mut();
            calls.push(FakeCall { cluster, headers, body });
            calls.len() as u64
        };
        let at_once = FAULTS.with_borrow(|faults| faults.call_at_once.clone());
        at_once.iter().for_each(|event| self.tell(number, event));
        number
    }

    /// Passes an event of a call to the module. The views in it are invalid afterwards.
    fn tell(&self, call: u64, event: &FakeCallEvent) {
        let (envoy, module) = (self.envoy(), self.module.get());
        let owned = |headers: &[(&str, &str)]| -> Vec<(Box<str>, Box<str>)> {
            headers.iter().map(|(name, value)| (Box::from(*name), Box::from(*value))).collect()
        };
        let views = |headers: &[(Box<str>, Box<str>)]| -> Vec<EnvoyHeader> {
            let view = |(name, value): &(Box<str>, Box<str>)| EnvoyHeader {
                key_ptr: name.as_ptr(),
                key_length: name.len(),
                value_ptr: value.as_ptr(),
                value_length: value.len(),
            };
            headers.iter().map(view).collect()
        };
        match event {
            FakeCallEvent::Headers(headers) => {
                let headers = owned(headers);
                let mut views = views(&headers);
                unsafe {
                    envoy_dynamic_module_on_http_filter_http_stream_headers(
                        envoy,
                        module,
                        call,
                        views.as_mut_ptr(),
                        views.len(),
                        false,
                    );
                }
            }
            FakeCallEvent::Data(parts) => {
                let parts = parts.clone();
                let views: Vec<_> =
                    parts.iter().map(|part| EnvoyBuffer { ptr: part.as_ptr(), length: part.len() }).collect();
                unsafe {
                    envoy_dynamic_module_on_http_filter_http_stream_data(
                        envoy,
                        module,
                        call,
                        views.as_ptr(),
                        views.len(),
                        false,
                    );
                }
            }
            FakeCallEvent::Trailers(trailers) => {
                let trailers = owned(trailers);
                let mut views = views(&trailers);
                unsafe {
                    envoy_dynamic_module_on_http_filter_http_stream_trailers(
                        envoy,
                        module,
                        call,
                        views.as_mut_ptr(),
                        views.len(),
                    );
                }
            }
            FakeCallEvent::Complete => unsafe {
                envoy_dynamic_module_on_http_filter_http_stream_complete(envoy, module, call);
            },
            FakeCallEvent::Reset => unsafe {
                envoy_dynamic_module_on_http_filter_http_stream_reset(envoy, module, call, 0);
            },
        }
    }
}

/// The state of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Forwarded,
    Answered(u32),
    Reset,
    Waits,
    /// Nothing of it is forwarded and there is no response: its connection is closed.
    Closed,
}

/// An exchange that passes a filter. Dropping it ends the exchange.
#[derive(Debug)]
pub(crate) struct FakeExchange {
    stream: Rc<FakeStream>,
    status: Cell<u32>,
    is_over: Cell<bool>,
}

impl FakeExchange {
    /// A request with these headers in addition to the required ones, before its decision.
    pub(crate) fn new(loaded: &LoadedFilter, headers: &[(&str, &str)]) -> FakeExchange {
        let mut all = vec![(":method", "GET"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/")];
        all.retain(|(name, _)| !headers.iter().any(|(other, _)| other == name));
        all.extend_from_slice(headers);
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.as_bytes().to_vec());
        let stream = Rc::new(FakeStream {
            config: Arc::clone(&loaded.config),
            module: Cell::new(std::ptr::null()),
            lent: Lent::default(),
            request: RefCell::new(all.into_iter().map(owned).collect()),
            response: RefCell::default(),
            trailers: RefCell::default(),
            texts: RefCell::new(BTreeMap::from([
                (24, b"192.0.2.7:40000".to_vec()),
                (26, b"[2001:db8::1]:443".to_vec()),
            ])),
            numbers: RefCell::new(BTreeMap::from([(27, 443)])),
            filter_state: RefCell::default(),
            routes_cleared: Cell::new(0),
            reply: RefCell::default(),
            reset: RefCell::default(),
            resumed: Cell::new(0),
            responses_resumed: Cell::new(0),
            calls: RefCell::default(),
            calls_reset: RefCell::default(),
        });
        let module = unsafe { envoy_dynamic_module_on_http_filter_new(loaded.module, stream.envoy()) };
        stream.module.set(module);
        FakeExchange { stream, status: Cell::new(u32::MAX), is_over: Cell::new(module.is_null()) }
    }

    /// The same, after its headers were decided.
    pub(crate) fn sent(loaded: &LoadedFilter, headers: &[(&str, &str)]) -> FakeExchange {
        let exchange = FakeExchange::new(loaded, headers);
        exchange.request_headers(true);
        exchange
    }

    fn module(&self) -> *const c_void {
        self.stream.module.get()
    }

    /// The arguments of each hook: Envoy's side and the module's.
    pub(in crate::abi) fn sides(&self) -> (Ptr, *const c_void) {
        (self.stream.envoy(), self.module())
    }

    /// Whether the headers are forwarded at once.
    pub(crate) fn request_headers(&self, end: bool) -> bool {
        let status =
            unsafe { envoy_dynamic_module_on_http_filter_request_headers(self.stream.envoy(), self.module(), end) };
        self.status.set(status);
        status == 0
    }

    /// Passes more of the body; returns the status.
    pub(crate) fn request_body(&self, end: bool) -> u32 {
        unsafe { envoy_dynamic_module_on_http_filter_request_body(self.stream.envoy(), self.module(), end) }
    }

    pub(crate) fn request_trailers(&self) -> u32 {
        unsafe { envoy_dynamic_module_on_http_filter_request_trailers(self.stream.envoy(), self.module()) }
    }

    /// An upstream's response. The status of its headers.
    pub(crate) fn response(&self, headers: &[(&str, &str)], trailers: &[(&str, &str)]) -> u32 {
        let owned = |headers: &[(&str, &str)]| {
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
        };
        self.stream.response.replace(owned(headers));
        unsafe {
            let status = envoy_dynamic_module_on_http_filter_response_headers(
                self.stream.envoy(),
                self.module(),
                trailers.is_empty(),
            );
            if !trailers.is_empty() {
                envoy_dynamic_module_on_http_filter_response_body(self.stream.envoy(), self.module(), false);
                self.stream.trailers.replace(owned(trailers));
                envoy_dynamic_module_on_http_filter_response_trailers(self.stream.envoy(), self.module());
            }
            status
        }
    }

    /// Passes the headers of an upstream's response that has a body.
    pub(crate) fn response_begins(&self, headers: &[(&str, &str)]) {
        let owned = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        self.stream.response.replace(owned);
        unsafe {
            envoy_dynamic_module_on_http_filter_response_headers(self.stream.envoy(), self.module(), false);
        }
    }

    /// Passes an event of the latest call.
    pub(crate) fn call(&self, event: &FakeCallEvent) {
        let last = self.stream.calls.borrow().len() as u64;
        self.stream.tell(last, event);
    }

    /// Passes an event of any call.
    pub(crate) fn call_of(&self, number: u64, event: &FakeCallEvent) {
        self.stream.tell(number, event);
    }

    pub(crate) fn complete(&self) {
        unsafe { envoy_dynamic_module_on_http_filter_stream_complete(self.stream.envoy(), self.module()) }
    }

    /// Envoy destroys its side; hooks for it may still be called.
    pub(crate) fn destroy(&self) {
        self.is_over.set(true);
        unsafe { envoy_dynamic_module_on_http_filter_destroy(self.module()) }
    }

    /// The state of the request.
    pub(crate) fn fate(&self) -> Fate {
        let resumed = self.stream.resumed.get();
        match (self.stream.reply.borrow().as_ref(), self.stream.reset.borrow().as_ref()) {
            (Some(reply), _) => {
                assert!(resumed == 0 && self.status.get() != 0, "answered and forwarded");
                Fate::Answered(reply.status)
            }
            (None, Some(_)) => {
                assert!(resumed == 0 && self.status.get() != 0, "reset and forwarded");
                Fate::Reset
            }
            (None, None) if self.module().is_null() => Fate::Closed,
            (None, None) if self.status.get() == 0 || resumed > 0 => {
                assert!(resumed <= 1 && (self.status.get() != 0 || resumed == 0), "forwarded twice");
                Fate::Forwarded
            }
            (None, None) => Fate::Waits,
        }
    }

    /// The response to the request.
    pub(crate) fn reply(&self) -> Option<FakeReply> {
        self.stream.reply.borrow().clone()
    }

    /// The calls that were started, and the ids of those that were cancelled.
    pub(crate) fn calls(&self) -> (Vec<FakeCall>, Vec<u64>) {
        (self.stream.calls.borrow().clone(), self.stream.calls_reset.borrow().clone())
    }

    /// The values of a header of the map.
    pub(crate) fn values(&self, map: u32, name: &str) -> Vec<String> {
        let headers = self.stream.map(map).borrow();
        let of_name = headers.iter().filter(|(known, _)| known == name);
        of_name.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// A value of the filter state.
    pub(crate) fn state(&self, name: &str) -> Option<String> {
        let state = self.stream.filter_state.borrow();
        state.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// Sets a value of the filter state, as another filter would.
    pub(crate) fn set_state(&self, name: &str, value: &str) {
        self.stream.filter_state.borrow_mut().insert(name.to_owned(), value.as_bytes().to_vec());
    }

    /// Sets a string attribute.
    pub(crate) fn set_text(&self, attribute: u32, value: &str) {
        self.stream.texts.borrow_mut().insert(attribute, value.as_bytes().to_vec());
    }

    /// Sets a number attribute.
    pub(crate) fn set_number(&self, attribute: u32, value: u64) {
        self.stream.numbers.borrow_mut().insert(attribute, value);
    }

    /// Passes a part of the response's body and returns its status.
    pub(crate) fn response_body(&self, end: bool) -> u32 {
        unsafe { envoy_dynamic_module_on_http_filter_response_body(self.stream.envoy(), self.module(), end) }
    }

    /// How often the module has continued a stopped response.
    pub(crate) fn responses_resumed(&self) -> usize {
        self.stream.responses_resumed.get()
    }

    pub(crate) fn routes_cleared(&self) -> usize {
        self.stream.routes_cleared.get()
    }
}

impl Drop for FakeExchange {
    fn drop(&mut self) {
        if !self.is_over.get() {
            self.complete();
            self.destroy();
        }
        self.stream.lent.take_back();
    }
}

/// Envoy's side of a network filter of one connection.
#[derive(Debug)]
pub(super) struct FakeConnection {
    pub(super) config: Arc<FakeConfig>,
    pub(super) lent: Lent,
    pub(super) sni: Option<Vec<u8>>,
    pub(super) uris: Vec<String>,
    pub(super) is_closed: Cell<bool>,
}

/// A connection that passes a filter.
#[derive(Debug)]
pub(crate) struct FakePassage {
    connection: Rc<FakeConnection>,
    module: *const c_void,
}

impl FakePassage {
    /// A connection with this server name.
    pub(crate) fn new(loaded: &LoadedFilter, sni: Option<&str>, uris: &[&str]) -> FakePassage {
        let connection = Rc::new(FakeConnection {
            config: Arc::clone(&loaded.config),
            lent: Lent::default(),
            sni: sni.map(|sni| sni.as_bytes().to_vec()),
            uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
            is_closed: Cell::new(false),
        });
        let envoy = Rc::as_ptr(&connection).cast_mut().cast();
        let module = unsafe { envoy_dynamic_module_on_network_filter_new(loaded.module, envoy) };
        FakePassage { connection, module }
    }

    /// The arguments of each hook: Envoy's side and the module's.
    pub(in crate::abi) fn sides(&self) -> (Ptr, *const c_void) {
        (Rc::as_ptr(&self.connection).cast_mut().cast(), self.module)
    }

    /// Whether its bytes are forwarded, and whether it was closed.
    pub(crate) fn opened(&self) -> (bool, bool) {
        let envoy: Ptr = Rc::as_ptr(&self.connection).cast_mut().cast();
        let (begun, read) = unsafe {
            let begun = envoy_dynamic_module_on_network_filter_new_connection(envoy, self.module);
            (begun, envoy_dynamic_module_on_network_filter_read(envoy, self.module, 3, false))
        };
        assert_eq!(begun, read);
        (begun == 0, self.connection.is_closed.get())
    }
}

impl Drop for FakePassage {
    fn drop(&mut self) {
        unsafe { envoy_dynamic_module_on_network_filter_destroy(self.module) }
    }
}

/// Runs `act` with the given faults, and removes them afterwards.
pub(crate) fn with_faults<T>(change: impl FnOnce(&mut super::Faults), act: impl FnOnce() -> T) -> T {
    faults(change);
    let done = act();
    faults(|faults| *faults = super::Faults::default());
    done
}
