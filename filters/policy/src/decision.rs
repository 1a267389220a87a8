//! What the engine answers: go on or respond, and everything that the host must change on the way.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::metrics::Metric;
use crate::rate_limits::Reservation;
use crate::reason::Reason;
use crate::section::Section;

/// One change of the request's header map. Names are in lower case.
///
/// ```
/// use penstock_policy::{FixedEnvironment, HeaderOp, Policy, Request};
///
/// let policy = <Policy>::from_json(br#"{"routes": {"default": "stable"}}"#)?;
/// let headers: [(&[u8], &[u8]); 2] = [(b":path", b"/"), (b"x-penstock-route", b"forged")];
/// let decision = policy.decide(&Request::new(&headers), &mut FixedEnvironment::default()).expect("no service to ask");
/// for change in &decision.headers {
///     match change {
///         HeaderOp::Set(name, value) => assert_eq!((*name, &**value), ("x-penstock-route", &b"stable"[..])),
///         HeaderOp::Add(..) | HeaderOp::Remove(_) => panic!("nothing else changes"),
///     }
/// }
/// # Ok::<(), penstock_policy::Problems>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderOp<'a> {
    /// Replaces every value of the header.
    Set(&'a str, Cow<'a, [u8]>),
    /// Adds one more value.
    Add(&'a str, Cow<'a, [u8]>),
    /// Removes every value.
    Remove(&'a str),
}

/// Changes in the order in which the host must apply them; inline up to eight.
pub type HeaderOps<'a> = SmallVec<[HeaderOp<'a>; 8]>;

/// Headers to add to a response, in order; inline up to two.
pub type ResponseHeaders<'a> = SmallVec<[(&'a str, Cow<'a, [u8]>); 2]>;

/// Counters to add one to; inline up to eight.
pub type Counts = SmallVec<[Metric; 8]>;

/// A response that the proxy gives instead of forwarding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// HTTP status, 200–599.
    pub status: u16,
    /// Headers beside those of [`Decision::response_headers`].
    pub headers: ResponseHeaders<'a>,
    /// Body, possibly empty.
    pub body: Cow<'a, [u8]>,
    /// What a gRPC client is told in `grpc-status`; `None`: what the host derives from `status`. Other clients never
    /// see it.
    pub grpc_status: Option<u8>,
}

/// Whether the request goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Action<'a> {
    /// To the next filter and the upstream.
    #[default]
    Continue,
    /// No: the client gets this.
    Respond(Response<'a>),
}

/// What Audit or Shadow held back: a refusal that was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBack<'a> {
    /// The section whose refusal it is.
    pub section: Section,
    /// Its rule or limit, when one came near.
    pub rule: Option<&'a str>,
    /// Why it would have been refused.
    pub reason: Reason,
    /// The status that the client would have got.
    pub status: u16,
}

/// What the egress section made of a request or of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressVerdict {
    /// A rule allows it.
    Allow,
    /// No rule does, and Audit lets it pass.
    Audit,
    /// It is refused.
    Deny,
}

impl EgressVerdict {
    /// As log lines and filter state show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            EgressVerdict::Allow => "allow",
            EgressVerdict::Audit => "audit",
            EgressVerdict::Deny => "deny",
        }
    }
}

/// The egress section's own outcome, for its log line and its filter state. No later section changes it.
#[derive(Clone, Debug)]
pub struct EgressOutcome<'a> {
    /// What it decided.
    pub verdict: EgressVerdict,
    /// Why, unless a rule allows it.
    pub reason: Option<Reason>,
    /// The rule that allowed the request, or came nearest.
    pub rule: Option<&'a str>,
    /// Who answers for that rule.
    pub owner: Option<&'a str>,
    /// What that rule is for.
    pub purpose: Option<&'a str>,
    /// The caller's verified identity, when a rule needed it and there is one.
    pub caller: Option<Vec<u8>>,
    /// The port of the destination, when a rule needed it.
    pub port: Option<u16>,
    /// The random id of a refusal, also of one that was held back.
    pub id: Option<u64>,
}

/// The number of a breaker among those of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch(pub(crate) u32);

/// The answer to one request. Borrows from the policy and the request, so that an ordinary answer allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Decision<'a> {
    /// Whether the request goes on.
    pub action: Action<'a>,
    /// The section that decided: the one that gave the response; else the first that held a refusal back; else the
    /// one that chose the route, or allowed the request. `None` when no rule of any section did.
    pub section: Option<Section>,
    /// The rule, canary or limit of that section.
    pub rule: Option<&'a str>,
    /// Why, when it is not the plain outcome.
    pub reason: Option<Reason>,
    /// The value of the route header.
    pub route: Option<&'a str>,
    /// The canary variant chosen.
    pub variant: Option<&'a str>,
    /// Everything that changes on the request.
    pub headers: HeaderOps<'a>,
    /// Headers for the response, whoever gives it.
    pub response_headers: ResponseHeaders<'a>,
    /// What changes on the response, whoever gives it, before `response_headers` are added. Not for a response of the
    /// policy's own, which has its headers already.
    pub response_changes: Vec<HeaderOp<'a>>,
    /// Everything that Audit or Shadow held back, in the order of the sections, whatever was decided afterwards.
    pub held_back: SmallVec<[HeldBack<'a>; 1]>,
    /// What the egress section decided; `None` when the policy has no such section.
    pub egress: Option<EgressOutcome<'a>>,
    /// What to count, each once, possibly the same several times.
    pub counts: Counts,
    /// The route header stays as an earlier filter wrote it.
    pub keeps_route: bool,
    /// What is to be settled when the response's headers are there: see [`crate::Policy::settle`].
    pub reservations: Vec<Reservation>,
    /// The breaker that wants to know how the request ends: see [`crate::breaker::Breakers::observe`].
    pub watch: Option<Watch>,
}

/// What sections leave behind beside their outcomes. A section can only append: it neither sees nor changes what another
/// has left. In place, because moving the lists of each section would be 3 % of a decision.
pub(crate) struct Effects<'d, 'a> {
    headers: &'d mut HeaderOps<'a>,
    response_headers: &'d mut ResponseHeaders<'a>,
    counts: &'d mut Counts,
}

impl<'a> Effects<'_, 'a> {
    /// Changes the request.
    pub(crate) fn change(&mut self, changes: impl Iterator<Item = HeaderOp<'a>>) {
        self.headers.extend(changes);
    }

    /// Adds a header to the response, whoever gives it.
    pub(crate) fn response_header(&mut self, name: &'a str, value: Cow<'a, [u8]>) {
        self.response_headers.push((name, value));
    }

    /// Counts one.
    pub(crate) fn count(&mut self, metric: Metric) {
        self.counts.push(metric);
    }

    /// How much has been counted by now.
    pub(crate) fn counted(&self) -> usize {
        self.counts.len()
    }

    /// What has been counted since [`Effects::counted`] was `before`.
    pub(crate) fn counted_since(&self, before: usize) -> Counts {
        self.counts.iter().skip(before).copied().collect()
    }
}

impl<'a> Decision<'a> {
    /// Where a section leaves its effects.
    pub(crate) fn effects(&mut self) -> Effects<'_, 'a> {
        let Decision { headers, response_headers, counts, .. } = self;
        Effects { headers, response_headers, counts }
    }

    /// The status that Audit or Shadow held back first.
    pub fn would_respond(&self) -> Option<u16> {
        self.held_back.first().map(|held_back| held_back.status)
    }

    /// Takes in who decided, unless a refusal was held back before: that is the news then.
    pub(crate) fn decided_by(&mut self, section: Section, rule: Option<&'a str>, reason: Option<Reason>) {
        if self.held_back.is_empty() {
            (self.section, self.rule, self.reason) = (Some(section), rule, reason);
        }
    }

    /// Takes in a refusal that is not given. The first one is what the decision names.
    pub(crate) fn hold_back(&mut self, refusal: HeldBack<'a>) {
        self.decided_by(refusal.section, refusal.rule, Some(refusal.reason));
        self.held_back.push(refusal);
    }

    /// Takes in the response that ends the decision, a refusal or a redirect.
    pub(crate) fn respond(
        &mut self,
        section: Section,
        rule: Option<&'a str>,
        reason: Option<Reason>,
        response: Response<'a>,
    ) {
        (self.section, self.rule, self.reason) = (Some(section), rule, reason);
        self.action = Action::Respond(response);
    }
}
