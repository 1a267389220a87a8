//! Carries out a decision: changes headers, or responds.

use penstock_policy::{Action, Decision, EgressVerdict, HeaderOp, Reason, Request};

use crate::failure::Failure;
use crate::host::{Flow, Headers, Host, ProxyRequest};

/// The filter state in which the header-routing module records who wrote the route header, for a canary module after
/// it.
pub const ROUTE_STATE: &str = "penstock.route";

/// Changes the request's headers, or gives the policy's response.
pub(crate) fn apply<H: Host>(
    request: &Request<'_>,
    decision: &Decision<'_>,
    proxy: &mut H::Request,
) -> Result<Flow, Failure<H::Error>> {
    match &decision.action {
        Action::Continue => {
            let mut has_changed = false;
            for change in &decision.headers {
                if matches!(change, HeaderOp::Remove(name) if request.value(name.as_bytes()).is_none()) {
                    continue; // Not there: looking at our own copy is cheaper than a call.
                }
                proxy.change_header(change).map_err(Failure::Unwritable)?;
                has_changed = true;
            }
            if has_changed {
                proxy.headers_changed();
            }
            Ok(Flow::Continue)
        }
        Action::Respond(response) => {
            let all = decision.response_headers.iter().chain(&response.headers);
            let headers: Headers<'_> = all.map(|(name, value)| (name.as_bytes(), value.as_ref())).collect();
            let mut details = String::from("penstock");
            let parts = [decision.section.map(|section| section.field()), decision.reason.map(Reason::as_str)];
            for part in parts.into_iter().flatten() {
                details.push('_');
                details.push_str(part);
            }
            proxy
                .respond(response.status, &details, &headers, &response.body, response.grpc_status)
                .map_err(Failure::Unanswerable)?;
            Ok(Flow::Pause)
        }
    }
}

/// Leaves the decision for access logs and traces. The route is in its header and needs no filter state.
#[cold]
pub(crate) fn leave_filter_state(decision: &Decision<'_>, proxy: &mut impl ProxyRequest) {
    if let (Some(section), Some(rule)) = (decision.section, decision.rule) {
        let rule = [section.field(), "/", rule].concat();
        proxy.set_filter_state("penstock.rule", &rule);
    }
    if let Some(outcome) = &decision.egress {
        if let Some(rule) = outcome.rule {
            proxy.set_filter_state("penstock.egress.rule", rule);
        }
        if outcome.verdict != EgressVerdict::Allow {
            proxy.set_filter_state("penstock.egress.outcome", outcome.verdict.as_str());
            proxy.set_filter_state("penstock.egress.reason", outcome.reason.map_or("", Reason::as_str));
        }
    }
    if !decision.held_back.is_empty() {
        let held_back = decision.held_back.iter().map(|held_back| {
            let parts = [held_back.section.field(), "/", held_back.rule.unwrap_or("-"), " ", held_back.reason.as_str()];
            parts.concat()
        });
        proxy.set_filter_state("penstock.heldBack", &held_back.collect::<Vec<_>>().join(", "));
    }
    let values = [("penstock.variant", decision.variant), ("penstock.reason", decision.reason.map(Reason::as_str))];
    for (name, value) in values {
        if let Some(value) = value {
            proxy.set_filter_state(name, value);
        }
    }
}
