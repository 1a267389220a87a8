//! The result of the engine: continue or respond, and everything that the proxy must change.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::metrics::Metric;
use crate::rate_limits::settlement::Reservation;
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

/// Changes in the order in which the proxy must apply them; inline up to eight.
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
    /// The `grpc-status` for a gRPC client; with `None`, the proxy derives it from `status`. Other clients never see it.
    pub grpc_status: Option<u8>,
}

/// Whether the request continues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Action<'a> {
    /// The request continues to the next filter and the upstream.
    #[default]
    Continue,
    /// The client gets this response instead.
    Respond(Response<'a>),
}

/// A refusal that Audit or Shadow did not enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBack<'a> {
    /// The section whose refusal it is.
    pub section: Section,
    /// The rule or limit that would have refused it, if one is known.
    pub rule: Option<&'a str>,
    /// Why it would have been refused.
    pub reason: Reason,
    /// The status that the client would have got.
    pub status: u16,
}

/// The outcome of the egress section for a request or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressVerdict {
    /// A rule allows it.
    Allow,
    /// No rule allows it, but with mode Audit it passes.
    Audit,
    /// It is refused.
    Deny,
}

impl EgressVerdict {
    /// Its name in log lines and in the filter state.
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
    /// The outcome.
    pub verdict: EgressVerdict,
    /// The reason, unless a rule allows the request.
    pub reason: Option<Reason>,
    /// The rule that allowed the request, or the rule that came nearest to allowing it.
    pub rule: Option<&'a str>,
    /// The owner of that rule.
    pub owner: Option<&'a str>,
    /// The reason that the rule gives for itself.
    pub purpose: Option<&'a str>,
    /// The caller's verified identity, if a rule needed it and the caller has one.
    pub caller: Option<Vec<u8>>,
    /// The port of the destination, if a rule needed it.
    pub port: Option<u16>,
    /// The random id of a refusal, also of one that was not enforced.
    pub id: Option<u64>,
}

/// The number of a breaker among those of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch(pub(crate) u32);

/// The decision about one request. It borrows from the policy and the request, so that an ordinary decision allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Decision<'a> {
    /// Whether the request continues.
    pub action: Action<'a>,
    /// The section that decided: the one that gave the response; otherwise the first whose refusal was not enforced;
    /// otherwise the one that chose the route or allowed the request. `None` when no rule of any section applied.
    pub section: Option<Section>,
    /// The rule, canary or limit of that section.
    pub rule: Option<&'a str>,
    /// The reason, unless the outcome is the ordinary one.
    pub reason: Option<Reason>,
    /// The value of the route header.
    pub route: Option<&'a str>,
    /// The canary variant chosen.
    pub variant: Option<&'a str>,
    /// All changes of the request.
    pub headers: HeaderOps<'a>,
    /// Headers for the response, whether the upstream or the policy sends it.
    pub response_headers: ResponseHeaders<'a>,
    /// Changes to the response, whether the upstream or the policy sends it, applied before `response_headers` are added. They are not applied to
    /// a response of the policy's own, which already has its headers.
    pub response_changes: Vec<HeaderOp<'a>>,
    /// Every refusal that Audit or Shadow did not enforce, in the order of the sections, whatever was decided
    /// afterwards.
    pub held_back: SmallVec<[HeldBack<'a>; 1]>,
    /// What the egress section decided; `None` when the policy has no such section.
    pub egress: Option<EgressOutcome<'a>>,
    /// The counters to increment by one each; a counter may occur several times.
    pub counts: Counts,
    /// The route header stays as an earlier filter of the chain wrote it.
    pub keeps_route: bool,
    /// What must be settled when the response's headers arrive: see [`crate::Policy::settle`].
    pub reservations: Vec<Reservation>,
    /// The breaker that must be told how the request ends: see [`crate::breaker::Breakers::observe`].
    pub watch: Option<Watch>,
}

/// What sections add beside their outcomes. A section can only append: it can neither see nor change what another has
/// added. It is filled in place, because moving the lists of each section would cost 3 % of a decision.
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

    /// Adds a header to the response, whether the upstream or the policy sends it.
    pub(crate) fn response_header(&mut self, name: &'a str, value: Cow<'a, [u8]>) {
        self.response_headers.push((name, value));
    }

    /// Increments a counter by one.
    pub(crate) fn count(&mut self, metric: Metric) {
        self.counts.push(metric);
    }

    /// How many increments there are so far.
    pub(crate) fn counted(&self) -> usize {
        self.counts.len()
    }

    /// The increments since [`Effects::counted`] returned `before`.
    pub(crate) fn counted_since(&self, before: usize) -> Counts {
        self.counts.iter().skip(before).copied().collect()
    }
}

impl<'a> Decision<'a> {
    /// Where a section adds its effects.
    pub(crate) fn effects(&mut self) -> Effects<'_, 'a> {
        let Decision { headers, response_headers, counts, .. } = self;
        Effects { headers, response_headers, counts }
    }

    /// The status of the first refusal that Audit or Shadow did not enforce.
    pub fn would_respond(&self) -> Option<u16> {
        self.held_back.first().map(|held_back| held_back.status)
    }

    /// Records who decided, unless a refusal was not enforced before: the decision then names that one.
    pub(crate) fn decided_by(&mut self, section: Section, rule: Option<&'a str>, reason: Option<Reason>) {
        if self.held_back.is_empty() {
            (self.section, self.rule, self.reason) = (Some(section), rule, reason);
        }
    }

    /// Records a refusal that is not enforced. The decision names the first of them.
    pub(crate) fn hold_back(&mut self, refusal: HeldBack<'a>) {
        self.decided_by(refusal.section, refusal.rule, Some(refusal.reason));
        self.held_back.push(refusal);
    }

    /// Records the response that ends the decision, a refusal or a redirect.
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
