//! An HTTP stream that passes a filter.

use std::cell::{Cell, RefCell};
use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use penstock_host::{CallStart, ProxyRequest, Rest, count_failure};
use smallvec::SmallVec;

use crate::abi::Stream;
use crate::config::FilterConfig;
use crate::error::Error;
use crate::grpc;
use crate::guard::{guard, release};
use crate::handles::Handles;
use crate::headers::HeaderCopy;
use crate::host::NativeHost;
use crate::request::{NativeRequest, NativeStream};
use crate::sections::Sections;

thread_local! {
    static FILTERS: RefCell<Handles<Filter>> = const { RefCell::new(Handles::new()) };
}

/// Returns `None` also while the thread ends and its filters are gone, because nothing outside of a guard may panic.
fn with_filters<T>(act: impl FnOnce(&RefCell<Handles<Filter>>) -> Option<T>) -> Option<T> {
    FILTERS.try_with(act).ok().flatten()
}

/// What happens to the part of a request that a hook handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookResult {
    /// It is forwarded to the next filter.
    Continue,
    /// It waits here.
    Wait,
    /// It is discarded: there was a response already.
    Refused,
}

/// A stream with its remaining work.
#[derive(Debug)]
pub(crate) struct Filter {
    stream: Stream,
    sections: Arc<dyn Sections>,
    host: NativeHost,
    rest: RefCell<Rest<HeaderCopy>>,
    is_refused: Cell<bool>,
    /// Whether the request continues at the end of the hook.
    goes_on: Cell<bool>,
    /// Whether Envoy has destroyed its side.
    is_gone: Cell<bool>,
    call: RefCell<Option<CallUnderWay>>,
    /// Whether a call is being started: it may end before its id is known.
    is_call_beginning: Cell<bool>,
    /// The number of calls so far.
    calls: Cell<u32>,
    /// Envoy's ids of the calls in progress for which no decision waits.
    tells: RefCell<SmallVec<[u64; 1]>>,
    /// Whether such a call is being started, and whether it has ended within that.
    tell_beginning: Cell<Option<bool>>,
    /// Whether the end of the response waits for these calls.
    is_response_held: Cell<bool>,
}

/// A gRPC call in progress.
#[derive(Debug)]
struct CallUnderWay {
    number: u32,
    /// Envoy's id, once it is known.
    stream: Option<u64>,
    seen: Frames,
    body: Vec<u8>,
    /// Whether more data came than a message can have: then it is invalid, whatever its trailers say.
    is_too_large: bool,
    /// Its result, when it ended before Envoy returned the id.
    ended: Option<Option<Vec<u8>>>,
}

impl CallUnderWay {
    /// The message of a successful call.
    fn message(&self, has_completed: bool) -> Option<Vec<u8>> {
        let has_succeeded =
            has_completed && !self.is_too_large && self.seen.status == Some(200) && self.seen.grpc_status == Some(0);
        grpc::unframe(&self.body).filter(|_| has_succeeded).map(<[u8]>::to_vec)
    }
}

/// The status in the headers and trailers of a call's response.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Frames {
    status: Option<u32>,
    grpc_status: Option<u32>,
}

impl Frames {
    /// Records one header.
    pub(crate) fn take(&mut self, name: &[u8], value: &[u8]) {
        // A value that is not a number is not 0, either.
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).or(Some(u32::MAX));
        match name {
            b":status" => self.status = number(),
            b"grpc-status" => self.grpc_status = number(),
            _ => {}
        }
    }
}

/// The id of a new filter; `None` when there are too many.
pub(crate) fn new(config: &FilterConfig, stream: Stream) -> Option<usize> {
    let filter = Filter {
        stream,
        sections: config.sections()?,
        host: config.host().clone(),
        rest: RefCell::new(Rest::Nothing),
        is_refused: Cell::new(false),
        goes_on: Cell::new(false),
        is_gone: Cell::new(false),
        call: RefCell::new(None),
        is_call_beginning: Cell::new(false),
        calls: Cell::new(0),
        tells: RefCell::default(),
        tell_beginning: Cell::new(None),
        is_response_held: Cell::new(false),
    };
    with_filters(|filters| filters.try_borrow_mut().ok()?.insert(Rc::new(filter)))
}

fn find(handle: usize) -> Option<Rc<Filter>> {
    with_filters(|filters| filters.try_borrow().ok()?.get(handle))
}

/// Runs the decision of a hook. The request is refused when it panics, and when the id is not that of a filter.
pub(crate) fn decide(handle: usize, act: impl FnOnce(&Rc<Filter>) -> HookResult) -> HookResult {
    let Some(filter) = find(handle) else { return HookResult::Refused };
    let result = guard(|| act(&filter)).unwrap_or_else(|_| filter.refuse_after_panic());
    release(filter);
    result
}

/// Runs a hook for a request that was decided before. A panic is counted.
pub(crate) fn observe(handle: usize, act: impl FnOnce(&Rc<Filter>)) {
    let Some(filter) = find(handle) else { return };
    if guard(|| act(&filter)).is_err() {
        let _ = guard(|| filter.count_panic());
    }
    release(filter);
}

/// Whether the end of the response, which has arrived, waits. After a panic it does not.
pub(crate) fn holds_response(handle: usize) -> bool {
    let Some(filter) = find(handle) else { return false };
    let holds = guard(|| filter.holds_response()).unwrap_or(false);
    release(filter);
    holds
}

/// Envoy destroys its side.
pub(crate) fn destroy(handle: usize) {
    let filter = with_filters(|filters| filters.try_borrow_mut().ok()?.remove(handle));
    if let Some(filter) = filter {
        filter.is_gone.set(true);
    }
}

impl NativeStream for Filter {
    fn stream(&self) -> Result<Stream, Error> {
        if self.is_gone.get() { Err(Error::Over) } else { Ok(self.stream) }
    }

    fn refuse(&self) {
        self.is_refused.set(true);
    }

    fn resume_later(&self) -> Result<(), Error> {
        self.stream()?;
        self.goes_on.set(true);
        Ok(())
    }

    fn begin_call(&self, start: &dyn Fn(Stream) -> Result<u64, Error>) -> Result<CallStart, Error> {
        let stream = self.stream()?;
        let number = self.calls.get().wrapping_add(1);
        self.calls.set(number);
        self.call.replace(Some(CallUnderWay {
            number,
            stream: None,
            seen: Frames::default(),
            body: Vec::new(),
            is_too_large: false,
            ended: None,
        }));
        self.is_call_beginning.set(true);
        let started = start(stream);
        self.is_call_beginning.set(false);
        let mut call = self.call.borrow_mut();
        if let Some(reply) = call.as_mut().and_then(|call| call.ended.take()) {
            *call = None;
            return Ok(CallStart::Ended(reply));
        }
        match started {
            Ok(id) => {
                if let Some(call) = &mut *call {
                    call.stream = Some(id);
                }
                Ok(CallStart::Begun(number))
            }
            Err(error) => {
                *call = None;
                Err(error)
            }
        }
    }

    fn tell(&self, start: &dyn Fn(Stream) -> Result<u64, Error>) -> Result<(), Error> {
        let stream = self.stream()?;
        self.tell_beginning.set(Some(false));
        let started = start(stream);
        let has_ended = self.tell_beginning.take() == Some(true);
        let id = started?;
        if !has_ended && let Ok(mut tells) = self.tells.try_borrow_mut() {
            tells.push(id);
        }
        Ok(())
    }

    fn cancel_call(&self, number: u32) {
        let call = self.call.try_borrow_mut().ok().and_then(|mut call| call.take_if(|call| call.number == number));
        // Envoy reports the end within this call, and then no call is found any more.
        if let (Some(id), Ok(stream)) = (call.and_then(|call| call.stream), self.stream()) {
            stream.reset_call(id);
        }
    }
}

impl Filter {
    /// The request, for the decision.
    fn request(self: &Rc<Self>) -> NativeRequest {
        let stream: Rc<Self> = Rc::clone(self);
        NativeRequest::Http(stream)
    }

    fn count_panic(&self) {
        count_failure(&self.host, "panic");
    }

    /// Responds with 503; if that fails, resets.
    #[cold]
    fn refuse_after_panic(self: &Rc<Self>) -> HookResult {
        let _ = guard(|| self.count_panic());
        let was_refused = self.is_refused.replace(true);
        let mut request = self.request();
        let answered = guard(|| {
            let body = b"penstock: cannot decide the request\n";
            if was_refused { Ok(()) } else { request.respond(503, "penstock_host_panic", &[], body, None) }
        });
        if !matches!(answered, Ok(Ok(()))) {
            let _ = guard(|| request.reset());
        }
        HookResult::Refused
    }

    fn take_rest(&self) -> Rest<HeaderCopy> {
        self.rest.try_borrow_mut().map_or(Rest::Nothing, |mut rest| mem::replace(&mut *rest, Rest::Nothing))
    }

    fn keep_rest(&self, rest: Rest<HeaderCopy>) {
        if let Ok(mut place) = self.rest.try_borrow_mut() {
            *place = rest;
        }
    }

    /// Continues after a decision.
    fn flow(&self) -> HookResult {
        if self.is_refused.get() {
            return HookResult::Refused;
        }
        match self.rest.try_borrow().as_deref() {
            Ok(Rest::Call(_)) => HookResult::Wait,
            _ => HookResult::Continue,
        }
    }

    /// The request's headers have arrived.
    pub(crate) fn request_headers(self: &Rc<Self>, has_ended: bool) -> HookResult {
        #[cfg(any(test, feature = "trap"))]
        crate::trap::on_request(self.stream);
        let handled = self.sections.request_headers(&mut self.request(), has_ended);
        if !matches!(handled.rest, Rest::Nothing) {
            self.keep_rest(handled.rest);
        }
        self.host.hand_over_by(self.stream());
        match (handled.flow, self.flow()) {
            (penstock_host::Flow::Continue, _) => HookResult::Continue,
            // Neither responded nor waiting: the response failed and the stream was reset.
            (penstock_host::Flow::Pause, HookResult::Continue) => {
                self.is_refused.set(true);
                HookResult::Refused
            }
            (penstock_host::Flow::Pause, flow) => flow,
        }
    }

    /// More of the request has arrived; with `has_ended`, the last part.
    pub(crate) fn request_body(&self, has_ended: bool) -> HookResult {
        if self.is_refused.get() {
            return HookResult::Refused;
        }
        let Ok(mut rest) = self.rest.try_borrow_mut() else { return HookResult::Wait };
        match self.sections.request_body(&mut rest, has_ended) {
            penstock_host::Flow::Continue => HookResult::Continue,
            penstock_host::Flow::Pause => HookResult::Wait,
        }
    }

    /// A response's headers have arrived, from the upstream or from Envoy itself.
    pub(crate) fn response_headers(self: &Rc<Self>, has_ended: bool) {
        #[cfg(any(test, feature = "trap"))]
        crate::trap::on_response(self.stream);
        let rest = self.take_rest();
        if matches!(rest, Rest::Nothing) {
            return;
        }
        if matches!(rest, Rest::Call(_)) {
            // Envoy has responded itself, so nothing of the request may be forwarded.
            self.is_refused.set(true);
        }
        let request = &mut self.request();
        let rest = self.sections.response_headers(request, rest, has_ended);
        self.keep_rest(rest);
    }

    /// A response's trailers have arrived.
    pub(crate) fn response_trailers(self: &Rc<Self>) {
        let mut rest = self.take_rest();
        if !matches!(rest, Rest::Nothing) {
            self.sections.response_trailers(&mut self.request(), &mut rest);
            self.keep_rest(rest);
        }
    }

    /// The exchange has ended, with any result.
    pub(crate) fn complete(self: &Rc<Self>) {
        let rest = self.take_rest();
        if !matches!(rest, Rest::Nothing) {
            self.sections.end(&mut self.request(), rest);
        }
    }

    /// Whether the end of the response waits for a call. Every call ends, at the latest at its timeout.
    fn holds_response(&self) -> bool {
        let has_tells = self.tells.try_borrow().is_ok_and(|tells| !tells.is_empty());
        let holds = has_tells && self.stream().is_ok_and(Stream::can_resume_response);
        self.is_response_held.set(holds);
        holds
    }

    /// Whether a call ends for which no decision waits. The response continues after the last one.
    fn tell_ended(&self, id: u64) -> bool {
        if self.tell_beginning.get().is_some() {
            self.tell_beginning.set(Some(true));
            return true;
        }
        let Ok(mut tells) = self.tells.try_borrow_mut() else { return false };
        let Some(at) = tells.iter().position(|known| *known == id) else { return false };
        tells.swap_remove(at);
        let is_last = tells.is_empty();
        drop(tells);
        if is_last
            && self.is_response_held.take()
            && let Ok(stream) = self.stream()
        {
            stream.resume_response();
        }
        true
    }

    /// Finds the call for Envoy's id, which is unknown while the call is being started.
    fn with_call<T>(&self, id: u64, act: impl FnOnce(&mut CallUnderWay) -> T) -> Option<T> {
        let mut call = self.call.try_borrow_mut().ok()?;
        let is_beginning = self.is_call_beginning.get();
        call.as_mut().filter(|call| is_beginning || call.stream == Some(id)).map(act)
    }

    /// Headers or trailers of a call's response have arrived.
    pub(crate) fn call_headers(&self, id: u64, found: Frames) {
        self.with_call(id, |call| {
            call.seen.status = found.status.or(call.seen.status);
            call.seen.grpc_status = found.grpc_status.or(call.seen.grpc_status);
        });
    }

    /// A part of a call's response has arrived. More data than a message can have makes it invalid.
    pub(crate) fn call_data(&self, id: u64, chunk: &[u8]) {
        self.with_call(id, |call| {
            if call.is_too_large || call.body.len().saturating_add(chunk.len()) > grpc::MOST {
                call.is_too_large = true;
                call.body = Vec::new();
            } else {
                call.body.extend_from_slice(chunk);
            }
        });
    }

    /// A call has ended. When its request has ended too, the late reply is ignored.
    pub(crate) fn call_ended(self: &Rc<Self>, id: u64, has_completed: bool) -> HookResult {
        if self.tell_ended(id) {
            return HookResult::Continue;
        }
        let Some(message) = self.with_call(id, |call| call.message(has_completed)) else { return HookResult::Continue };
        if self.is_call_beginning.get() {
            self.with_call(id, |call| call.ended = Some(message));
            return HookResult::Continue;
        }
        self.call.replace(None);
        match self.take_rest() {
            Rest::Call(waiting) => {
                #[cfg(any(test, feature = "trap"))]
                crate::trap::on_reply(self.stream);
                let request = &mut self.request();
                let rest = self.sections.reply(request, *waiting, message.as_deref());
                self.keep_rest(rest);
                if self.goes_on.take()
                    && let Ok(stream) = self.stream()
                    && stream.resume().is_err()
                {
                    self.is_refused.set(true);
                    let _ = stream.reset("penstock_reset");
                }
            }
            other => self.keep_rest(other),
        }
        HookResult::Continue
    }
}
