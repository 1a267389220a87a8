//! What the engine answers: go on or respond, and everything that the host must change on the way.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::breaker::Watch;
use crate::egress::Report;
use crate::metrics::Metric;
use crate::rate_limits::Pending;

/// A section of the policy document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Section {
    /// Default-deny allowlist.
    Egress,
    /// Limits per key.
    RateLimits,
    /// Header-based routing.
    Routes,
    /// Weighted splits.
    Canaries,
}

impl Section {
    /// Every section, in the order in which a suite decides them.
    pub const ALL: [Section; 4] = [Section::Egress, Section::RateLimits, Section::Routes, Section::Canaries];

    /// The field of the document that holds it.
    pub const fn field(self) -> &'static str {
        match self {
            Section::Egress => "egress",
            Section::RateLimits => "rateLimits",
            Section::Routes => "routes",
            Section::Canaries => "canaries",
        }
    }
}

/// One change of the request's header map. Names are in lower case.
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

/// The answer to one request. Borrows from the policy and the request, so that an ordinary answer allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Decision<'a> {
    /// Whether the request goes on.
    pub action: Action<'a>,
    /// The section that gave the outcome; `None` when no rule of any section did.
    pub section: Option<Section>,
    /// The rule, canary or limit that gave the outcome.
    pub rule: Option<&'a str>,
    /// Why, as a camelCase word such as `hostNotAllowed`.
    pub reason: Option<&'static str>,
    /// The value of the route header.
    pub route: Option<&'a str>,
    /// The canary variant chosen.
    pub variant: Option<&'a str>,
    /// Everything that changes on the request.
    pub headers: HeaderOps<'a>,
    /// Headers for the response, whoever gives it.
    pub response_headers: ResponseHeaders<'a>,
    /// The status that Audit or Shadow held back.
    pub would_respond: Option<u16>,
    /// What the egress section's log line has beside the rest; `None` when the policy has no such section.
    pub egress: Option<Report<'a>>,
    /// What to count, each once, possibly the same several times.
    pub counts: Counts,
    /// The route header stays as an earlier filter wrote it.
    pub keeps_route: bool,
    /// The breaker that wants to know how the request ends: see [`crate::breaker::Breakers::observe`].
    pub watch: Option<Watch>,
    /// There is no decision yet: a rate-limit service must be asked first, see [`crate::Policy::question`]. Of the rest
    /// only `counts` means something.
    pub pending: Option<Box<Pending>>,
}
