//! Handles one request: decides it, calls the rate-limit service if the decision needs it, and applies the decision.

use penstock_policy::rate_limits::Pending;
use penstock_policy::{Decision, Module, Request, Runs, Scratch, Section};

use crate::after_response::AfterResponse;
use crate::apply::{ROUTE_STATE, apply, leave_filter_state};
use crate::environment::{HostEnvironment, Worker};
use crate::failure::Failure;
use crate::host::{Flow, HeaderMap, Host, ProxyRequest};
use crate::plugin::Plugin;
use crate::rate_limit_call::{self, PendingRequest};

/// The header map of a request on the platform `H`.
type HeadersOf<H> = <<H as Host>::Request as ProxyRequest>::Headers;

/// What remains of a request for a later callback.
#[derive(Debug)]
pub enum Rest<Headers> {
    /// Nothing.
    Nothing,
    /// A rate-limit service was called: pass its reply to [`Plugin::reply`].
    Call(Box<PendingRequest<Headers>>),
    /// The response, or its end, must be reported to [`Plugin::response_headers`] and [`Plugin::end`].
    AfterResponse(Box<AfterResponse>),
}

/// The result of a request's headers.
#[derive(Debug)]
pub struct Handled<Headers> {
    /// Whether the request continues.
    pub flow: Flow,
    /// What the platform must keep for the request.
    pub rest: Rest<Headers>,
}

impl<Headers> Handled<Headers> {
    fn of(flow: Flow) -> Self {
        Handled { flow, rest: Rest::Nothing }
    }
}

type Outcome<H> = Result<Handled<HeadersOf<H>>, Failure<<H as Host>::Error>>;

impl<M: Runs, H: Host> Plugin<M, H> {
    /// Called with a request's headers; `has_ended` says that nothing follows. Decides the request and applies the
    /// decision.
    pub fn request_headers(
        &self,
        worker: &mut Worker<H>,
        proxy: &mut H::Request,
        has_ended: bool,
    ) -> Handled<HeadersOf<H>> {
        let handled = self.latency.time(&self.host, || self.decide(worker, proxy, has_ended));
        handled.unwrap_or_else(|failure| Handled::of(failure.refuse(&self.log, &self.host, proxy)))
    }

    fn decide(&self, worker: &mut Worker<H>, proxy: &mut H::Request, has_ended: bool) -> Outcome<H> {
        let map = proxy.headers().map_err(Failure::Unreadable)?;
        let pending = {
            let parsed = map.parse()?;
            if parsed.is_empty() {
                return Err(Failure::Malformed);
            }
            let scratch = Scratch::default();
            let request = Request::new(&parsed).with_scratch(&scratch);
            let mut environment = HostEnvironment::new(&self.host, worker, proxy);
            let pending = match self.policy.decide(&request, &mut environment) {
                Ok(decision) => return self.execute(&request, &decision, has_ended, environment),
                Err(pending) => pending,
            };
            if let Some(error) = environment.failure() {
                return Err(Failure::Environment(error));
            }
            self.counters.count(pending.counts());
            pending
        };
        self.ask(worker, proxy, map, pending, has_ended)
    }

    /// Sends the next request to a rate-limit service, for which this request waits; decides when there is none.
    #[cold]
    fn ask(
        &self,
        worker: &mut Worker<H>,
        proxy: &mut H::Request,
        mut map: HeadersOf<H>,
        mut pending: Box<Pending>,
        has_ended: bool,
    ) -> Outcome<H> {
        while let Some(rls_request) = self.policy.rls_request(&pending) {
            match rate_limit_call::ask(&rls_request, map, pending, has_ended, &self.host, proxy) {
                Ok(waiting) => return Ok(Handled { flow: Flow::Pause, rest: Rest::Call(Box::new(waiting)) }),
                Err(answered) => (map, pending) = answered,
            }
        }
        let parsed = map.parse()?;
        let scratch = Scratch::default();
        let request = Request::new(&parsed).with_scratch(&scratch);
        let mut environment = HostEnvironment::new(&self.host, worker, proxy);
        let decision = self.policy.resume(&request, &pending, &mut environment);
        self.execute(&request, &decision, has_ended, environment)
    }

    /// The call of a waiting request has ended, with a message or without one. The request then continues, is answered,
    /// or waits for the next service.
    #[cold]
    pub fn reply(
        &self,
        worker: &mut Worker<H>,
        proxy: &mut H::Request,
        mut waiting: PendingRequest<HeadersOf<H>>,
        message: Option<&[u8]>,
    ) -> Rest<HeadersOf<H>> {
        waiting.on_reply(message, &self.host);
        let PendingRequest { headers, pending, has_ended, .. } = waiting;
        let handled = self.ask(worker, proxy, headers, pending, has_ended).and_then(|handled| {
            if handled.flow == Flow::Continue {
                proxy.resume().map_err(Failure::Stuck)?;
            }
            Ok(handled)
        });
        match handled {
            Ok(handled) => handled.rest,
            Err(failure) => {
                failure.refuse(&self.log, &self.host, proxy);
                Rest::Nothing
            }
        }
    }

    /// Carries the decision out.
    #[inline(never)]
    fn execute(
        &self,
        request: &Request<'_>,
        decision: &Decision<'_>,
        has_ended: bool,
        mut environment: HostEnvironment<'_, H>,
    ) -> Outcome<H> {
        if let Some(error) = environment.failure() {
            return Err(Failure::Environment(error));
        }
        self.counters.count(&decision.counts);
        if M::MODULE.runs(Section::Egress)
            && let Some(outcome) = &decision.egress
        {
            self.egress_log.report(&self.log, request, outcome, &mut environment);
        }
        if M::MODULE == Module::HeaderRouting
            && self.policy.settings().chained
            && let Some(route) = decision.route
        {
            let by = if decision.section.is_some() { "rule" } else { "default" };
            environment.request().set_filter_state(ROUTE_STATE, &format!("{by} {route}"));
        }
        if self.policy.settings().filter_state {
            leave_filter_state(decision, environment.request());
        }
        let flow = apply::<H>(request, decision, environment.request())?;
        // A response of the policy's own already has its headers.
        let rest = match flow {
            Flow::Continue => AfterResponse::of(decision, request, has_ended, &self.policy, &mut environment),
            Flow::Pause => None,
        };
        Ok(Handled { flow, rest: rest.map_or(Rest::Nothing, |rest| Rest::AfterResponse(Box::new(rest))) })
    }

    /// More of a request has arrived, the last of it when `has_ended`. It is passed on unless the request waits.
    pub fn request_body(&self, rest: &mut Rest<HeadersOf<H>>, has_ended: bool) -> Flow {
        match rest {
            Rest::Nothing => Flow::Continue,
            Rest::Call(waiting) => {
                waiting.has_ended |= has_ended;
                Flow::Pause
            }
            Rest::AfterResponse(after) => {
                if has_ended {
                    after.request_ended(&self.host);
                }
                Flow::Continue
            }
        }
    }

    /// A response's headers have arrived, from the upstream or from the proxy; nothing follows when `has_ended`.
    /// Returns what remains for the end of the exchange.
    pub fn response_headers(
        &self,
        worker: &mut Worker<H>,
        proxy: &mut H::Request,
        rest: Rest<HeadersOf<H>>,
        has_ended: bool,
    ) -> Rest<HeadersOf<H>> {
        match rest {
            Rest::AfterResponse(mut after) => {
                if M::MODULE.runs(Section::RateLimits) {
                    after.settle(self, worker, proxy);
                }
                after.response_headers(has_ended, self, proxy);
                if after.is_watched() { Rest::AfterResponse(after) } else { Rest::Nothing }
            }
            // The proxy has answered by itself, for example after a timeout: there is nothing left to decide.
            waiting => {
                self.end(worker, proxy, waiting);
                Rest::Nothing
            }
        }
    }

    /// A response's trailers have arrived.
    pub fn response_trailers(&self, proxy: &mut H::Request, rest: &mut Rest<HeadersOf<H>>) {
        if let Rest::AfterResponse(after) = rest {
            after.response_trailers(proxy);
        }
    }

    /// The exchange has ended, successfully or not.
    pub fn end(&self, worker: &mut Worker<H>, proxy: &mut H::Request, rest: Rest<HeadersOf<H>>) {
        match rest {
            Rest::Nothing => {}
            Rest::Call(waiting) => proxy.cancel(waiting.call()),
            Rest::AfterResponse(after) => {
                // Only routes and canaries have breakers.
                if M::MODULE.owns_route_header()
                    && let Some(event) = after.observe(self, HostEnvironment::new(&self.host, worker, proxy))
                {
                    self.counters.count(&[event.metric]);
                    log::warn!("penstock: {}", event.line);
                }
            }
        }
    }
}
