//! The outcome of a decision, with what is known at that point.

use super::facts::{DestinationPort, Facts};
use super::rule::EgressRule;
use crate::decision::{EgressOutcome, EgressVerdict};
use crate::environment::Environment;
use crate::reason::Reason;

impl<E: Environment> Facts<'_, E> {
    /// The outcome, with what is known so far.
    pub fn outcome<'a>(
        &mut self,
        verdict: EgressVerdict,
        reason: Option<Reason>,
        rule: Option<&'a EgressRule>,
    ) -> EgressOutcome<'a> {
        let port = match self.default_port {
            _ if self.given_port.is_some() => self.given_port,
            DestinationPort::Known(port) => port,
            DestinationPort::OfConnection => None,
        };
        EgressOutcome {
            verdict,
            reason,
            rule: rule.map(|rule| &*rule.name),
            owner: rule.and_then(|rule| rule.owner.as_deref()),
            purpose: rule.and_then(|rule| rule.reason.as_deref()),
            caller: self.caller.take().flatten(),
            port,
            id: None,
        }
    }

    /// The outcome of a refusal, enforced or not. Refusals are rare enough to read the caller and the port and to draw
    /// an id.
    pub fn refusal<'a>(
        &mut self,
        verdict: EgressVerdict,
        reason: Reason,
        rule: Option<&'a EgressRule>,
    ) -> EgressOutcome<'a> {
        self.caller();
        self.port();
        EgressOutcome { id: Some(self.environment.random()), ..self.outcome(verdict, Some(reason), rule) }
    }
}
