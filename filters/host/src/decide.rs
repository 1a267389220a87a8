//! One request: decide, ask the rate-limit service that the decision needs, do what was decided.

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

/// What is left of a request until a later callback.
#[derive(Debug)]
pub enum Rest<Headers> {
    /// Nothing.
    Nothing,
    /// A rate-limit service is asked: give its reply to [`Plugin::reply`].
    Call(Box<PendingRequest<Headers>>),
    /// The response, or its end, is to be told to [`Plugin::response_headers`] and [`Plugin::end`].
    AfterResponse(Box<AfterResponse>),
}

/// What became of a request's headers.
#[derive(Debug)]
pub struct Handled<Headers> {
    /// Whether the request goes on.
    pub flow: Flow,
    /// What the adapter must keep of it.
    pub rest: Rest<Headers>,
}

impl<Headers> Handled<Headers> {
    fn of(flow: Flow) -> Self {
        Handled { flow, rest: Rest::Nothing }
    }
}

type Outcome<H> = Result<Handled<HeadersOf<H>>, Failure<<H as Host>::Error>>;

impl<M: Runs, H: Host> Plugin<M, H> {
    /// A request's headers are there, and nothing else is to come when `has_ended`: decides it, and does what was decided.
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

    /// Asks what there is to ask; the request waits, or is decided when there is nothing more.
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

    /// The call of a waiting request has ended, with a message or without one. The request goes on, is answered, or waits
    /// for the next service.
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

    /// Does what was decided.
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
            && let Some(route) = decision.route
        {
            let by = if decision.section.is_some() { "rule" } else { "default" };
            environment.request().set_filter_state(ROUTE_STATE, &format!("{by} {route}"));
        }
        if self.policy.settings().filter_state {
            leave_filter_state(decision, environment.request());
        }
        let flow = apply::<H>(request, decision, environment.request())?;
        // A response of the policy's own carries its headers already.
        let rest = match flow {
            Flow::Continue => AfterResponse::of(decision, request, has_ended, &self.policy, &mut environment),
            Flow::Pause => None,
        };
        Ok(Handled { flow, rest: rest.map_or(Rest::Nothing, |rest| Rest::AfterResponse(Box::new(rest))) })
    }

    /// More of a request is there, the last of it when `has_ended`. It goes on unless the request waits.
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

    /// A response's headers are there, the upstream's or the proxy's own, and nothing else is to come when `has_ended`.
    /// Gives back what is left for the end of the exchange.
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
            // The proxy has answered by itself, say after a timeout: there is nothing left to decide.
            waiting => {
                self.end(worker, proxy, waiting);
                Rest::Nothing
            }
        }
    }

    /// A response's trailers are there.
    pub fn response_trailers(&self, proxy: &mut H::Request, rest: &mut Rest<HeadersOf<H>>) {
        if let Rest::AfterResponse(after) = rest {
            after.response_trailers(proxy);
        }
    }

    /// The exchange is over, however that went.
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
