//! One request: decide, ask whom the decision wants to be asked, do what was decided.

use std::rc::Rc;

use penstock_policy::rate_limits::Pending;
use penstock_policy::{Action, Decision, HeaderOp, Module, Reason, Request, Runs, Scratch, Section};

use super::{Plugin, Vm};
use crate::abi::Flow;
use crate::failure::{self, Failure};
use crate::host::{self, HostEnvironment};
use crate::later::Later;
use crate::memory::HostBuffer;
use crate::question::{self, Waiting};
use crate::{egress, headers};

impl<M: Runs> Vm<M> {
    /// Decides a request whose headers are there.
    pub(super) fn carry(&self, stream: u32) -> Result<Flow, Failure> {
        let plugin = self.plugin_of(stream).ok_or(Failure::NoPolicy)?;
        plugin.latency.of(|| self.decide(stream, &plugin))
    }

    fn decide(&self, stream: u32, plugin: &Plugin<M>) -> Result<Flow, Failure> {
        let map = host::request_headers().map_err(Failure::Unreadable)?;
        let pending = {
            let parsed = headers::parse(&map)?;
            if parsed.is_empty() {
                return Err(Failure::Malformed);
            }
            let scratch = Scratch::default();
            let request = Request::new(&parsed).with_scratch(&scratch);
            let mut environment = plugin.environment();
            let pending = match plugin.policy.decide(&request, &mut environment) {
                Ok(decision) => return self.execute(stream, plugin, &request, &decision, environment),
                Err(pending) => pending,
            };
            if let Some(status) = environment.failure() {
                return Err(Failure::Environment(status));
            }
            plugin.count(pending.counts());
            pending
        };
        self.ask(stream, plugin, map, pending)
    }

    pub(super) fn plugin_of(&self, stream: u32) -> Option<Rc<Plugin<M>>> {
        self.state(|state| state.streams.get(&stream).map(|stream| Rc::clone(&stream.plugin))).flatten()
    }

    /// Asks what there is to ask; the request waits, or is decided when there is nothing more.
    #[cold]
    fn ask(
        &self,
        stream: u32,
        plugin: &Plugin<M>,
        mut map: HostBuffer,
        mut pending: Box<Pending>,
    ) -> Result<Flow, Failure> {
        while let Some(question) = plugin.policy.question(&pending) {
            let waiting = Waiting::new(map, pending, &question);
            self.state(|state| {
                state.wait(stream, Box::new(waiting));
                state.beginning = Some(stream);
            });
            // The callback may come within this call: then it only leaves the answer.
            let asked = question::ask(&question);
            let begun = self.state(|state| {
                state.beginning = None;
                state.waiting(stream)?.take()
            });
            let Some(mut waiting) = begun.flatten() else { return Ok(Flow::Pause) };
            match asked {
                Ok(number) if !waiting.is_answered => {
                    waiting.began(number);
                    self.state(|state| {
                        state.calls.insert(number, stream);
                        state.wait(stream, waiting);
                    });
                    return Ok(Flow::Pause);
                }
                Err(_) if !waiting.is_answered => waiting.hear(None),
                _ => {}
            }
            (map, pending) = (waiting.headers, waiting.pending);
        }
        let parsed = headers::parse(&map)?;
        let scratch = Scratch::default();
        let request = Request::new(&parsed).with_scratch(&scratch);
        let mut environment = plugin.environment();
        let decision = plugin.policy.resume(&request, &pending, &mut environment);
        self.execute(stream, plugin, &request, &decision, environment)
    }

    /// A call has ended. One that nobody waits for any more is nobody's.
    #[cold]
    pub(super) fn called(&self, call: u32, message: Option<&[u8]>) {
        let taken = self.state(|state| {
            let Some(stream) = state.calls.remove(&call) else {
                state.waiting(state.beginning?)?.as_mut()?.hear(message);
                return None;
            };
            let of_stream = state.streams.get_mut(&stream)?;
            Some((stream, of_stream.waiting.take()?, Rc::clone(&of_stream.plugin)))
        });
        let Some((stream, mut waiting, plugin)) = taken.flatten() else { return };
        waiting.hear(message);
        // The host is in the plugin's context.
        if let Err(status) = host::act_for(stream) {
            // Nothing can be done to the request; its own timeout ends it.
            failure::note("context", &format!("cannot act for a request that waits ({status})"));
            return;
        }
        let flow = match self.ask(stream, &plugin, waiting.headers, waiting.pending) {
            Ok(Flow::Continue) => host::continue_request().map_err(Failure::Stuck),
            Ok(Flow::Pause) => Ok(()),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = flow {
            failure.refuse();
        }
    }

    /// The request has ended, or been answered, without us.
    pub(super) fn stop_waiting(&self, stream: u32) {
        if !M::MODULE.runs(Section::RateLimits) {
            return;
        }
        let call = self.state(|state| {
            let call = state.waiting(stream)?.take()?.number()?;
            state.calls.remove(&call).map(|_| call)
        });
        if let Some(call) = call.flatten() {
            host::grpc_cancel(call);
        }
    }

    /// Does what was decided.
    #[inline(never)]
    fn execute(
        &self,
        stream: u32,
        plugin: &Plugin<M>,
        request: &Request<'_>,
        decision: &Decision<'_>,
        mut environment: HostEnvironment<'_>,
    ) -> Result<Flow, Failure> {
        if let Some(status) = environment.failure() {
            return Err(Failure::Environment(status));
        }
        plugin.count(&decision.counts);
        if M::MODULE.runs(Section::Egress)
            && let Some(outcome) = &decision.egress
        {
            egress::report(request, outcome);
        }
        if M::MODULE == Module::HeaderRouting
            && let Some(route) = decision.route
        {
            let by = if decision.section.is_some() { "rule" } else { "default" };
            host::set_filter_state(host::ROUTE_STATE, &format!("{by} {route}"));
        }
        if plugin.policy.settings().filter_state {
            leave_filter_state(decision);
        }
        let flow = apply(request, decision)?;
        // A response of the policy's own carries its headers already.
        if flow == Flow::Continue
            && let Some(later) = Later::of(decision, &mut environment)
        {
            self.state(|state| state.streams.get_mut(&stream)?.later.replace(Box::new(later)));
        }
        Ok(flow)
    }
}

/// Leaves what decided for access logs and traces. The route is in its header, and needs no more.
#[cold]
fn leave_filter_state(decision: &Decision<'_>) {
    if let (Some(section), Some(rule)) = (decision.section, decision.rule) {
        let rule = [section.field(), "/", rule].concat();
        host::set_filter_state("penstock.rule", &rule);
    }
    if !decision.held_back.is_empty() {
        let held_back = decision.held_back.iter().map(|held_back| {
            let parts = [held_back.section.field(), "/", held_back.rule.unwrap_or("-"), " ", held_back.reason.as_str()];
            parts.concat()
        });
        host::set_filter_state("penstock.heldBack", &held_back.collect::<Vec<_>>().join(", "));
    }
    for (name, value) in
        [("penstock.variant", decision.variant), ("penstock.reason", decision.reason.map(Reason::as_str))]
    {
        if let Some(value) = value {
            host::set_filter_state(name, value);
        }
    }
}

pub(super) fn apply(request: &Request<'_>, decision: &Decision<'_>) -> Result<Flow, Failure> {
    match &decision.action {
        Action::Continue => {
            for change in &decision.headers {
                if matches!(change, HeaderOp::Remove(name) if request.value(name.as_bytes()).is_none()) {
                    continue; // Not there: a look at our own copy is cheaper than a call.
                }
                host::change_request_header(change).map_err(Failure::Unwritable)?;
            }
            Ok(Flow::Continue)
        }
        Action::Respond(response) => {
            let all = decision.response_headers.iter().chain(&response.headers);
            let map = headers::serialize(all.map(|(name, value)| (name.as_bytes(), value.as_ref())));
            let mut details = String::from("penstock");
            for part in [decision.section.map(|section| section.field()), decision.reason.map(Reason::as_str)]
                .into_iter()
                .flatten()
            {
                details.push('_');
                details.push_str(part);
            }
            host::respond(response.status, &details, &map, &response.body, response.grpc_status)
                .map_err(Failure::Unanswerable)?;
            Ok(Flow::Pause)
        }
    }
}
