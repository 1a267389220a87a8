//! Notes about the steps of a decision, for `penstock explain`.
//!
//! The decision itself makes these notes for its [`Trace`](crate::Trace), so `explain` cannot disagree with it. The
//! modules take no notes, so none of this code is compiled into them.

use std::time::Duration;

use crate::decision::EgressVerdict;
use crate::reason::Reason;

/// The notes of one decision, in the order in which things happened.
#[derive(Clone, Debug, Default)]
pub struct Notes(pub Vec<Note>);

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Note {
    /// Egress read the destination.
    Destination(DestinationNote),
    /// Egress evaluated a rule that the destination's index found: its position in the document, and the reason for
    /// which it does not allow the request.
    EgressRule(usize, Option<Reason>),
    /// Egress was path-scoped: the canonical path that `paths` saw, or why there is none.
    CanonicalPath(Result<String, Reason>),
    /// Entries of egress' `deny` that cover the destination.
    Denied(Vec<usize>),
    /// What egress decided, whatever a later section decided.
    Egress {
        /// Whether it allowed the request.
        verdict: EgressVerdict,
        /// Why not.
        reason: Option<Reason>,
        /// The caller's identity, when a rule needed it.
        caller: Option<String>,
    },
    /// A limit was evaluated.
    Limit(LimitNote),
    /// A limit of global scope: the rate-limit service will decide it.
    Asked {
        /// The limit's name.
        limit: String,
        /// The service's cluster.
        cluster: String,
        /// Each part of the key with its value in this request.
        key: Vec<(String, String)>,
        /// The part that is missing: the request shares one descriptor with all requests without it.
        missing: Option<String>,
        /// The request's cost.
        cost: u32,
    },
    /// A limit matched, but the request has no key for it; and what happened then.
    NoKey {
        /// The limit's name.
        limit: String,
        /// The part of the key that is missing.
        missing: String,
        /// `Skip` or `Deny`.
        on_missing_key: &'static str,
    },
    /// The route rule of this name won.
    Route(String),
    /// A canary chose a variant.
    Canary(CanaryNote),
}

/// The destination of an unambiguous request.
#[derive(Clone, Debug)]
pub struct DestinationNote {
    /// The host in its normal form.
    pub host: String,
    /// The port, if it is known.
    pub port: Option<u16>,
    /// Where the port comes from: `authority`, `defaultPort` or `scheme`.
    pub port_from: &'static str,
    /// The method that rules see.
    pub method: String,
    /// Whether it is a tunnel whose bytes the proxy does not read.
    pub is_tunnel: bool,
    /// Whether it asks for another protocol.
    pub has_upgrade: bool,
}

/// One limit's part in a decision.
#[derive(Clone, Debug)]
pub struct LimitNote {
    /// The limit's name.
    pub limit: String,
    /// Each part of the key with its value in this request.
    pub key: Vec<(String, String)>,
    /// The part that is missing: the request shares one bucket with all requests without it.
    pub missing: Option<String>,
    /// The request's cost.
    pub cost: u32,
    /// Whether the cost header had a value that is not a cost.
    pub bad_cost: bool,
    /// Requests of cost 1 that the full bucket holds.
    pub burst: u32,
    /// The bucket before.
    pub before: BucketNote,
    /// The bucket after.
    pub after: BucketNote,
    /// Refused: a repetition would pass after this time.
    pub wait: Option<Duration>,
    /// Whether the cost exceeds the burst, so that waiting does not help.
    pub is_too_large: bool,
    /// Whether all slots were taken, so that the key uses the shared one.
    pub overflow: bool,
}

impl LimitNote {
    /// Whether the limit refuses the request, or would in Shadow.
    pub fn refuses(&self) -> bool {
        self.wait.is_some() || self.is_too_large
    }
}

/// The state of a bucket at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketNote {
    /// Requests of cost 1 that would pass.
    pub remaining: u32,
    /// The time until the bucket is full again: its debt.
    pub until_full: Duration,
}

/// How a canary chose.
#[derive(Clone, Debug)]
pub struct CanaryNote {
    /// The canary's name.
    pub canary: String,
    /// The position of the override that applies.
    pub overridden_by: Option<usize>,
    /// What was hashed; `None` when an override chose.
    pub key: Option<KeyNote>,
    /// The percentage of the ramp's variant at this time.
    pub percent: Option<u32>,
    /// The variants in document order.
    pub variants: Vec<VariantNote>,
    /// The position of the variant that override or weights give.
    pub weighted: usize,
    /// The position of the variant that the request gets: another one while a rollback is in force.
    pub chosen: usize,
}

/// A canary's key.
#[derive(Clone, Debug)]
pub struct KeyNote {
    /// In readable form; bytes that are not text in hexadecimal.
    pub text: String,
    /// Whether it is random: there is no stickiness, or the request has no sticky key.
    pub is_random: bool,
    /// Whether it is a new user's id, which the response sets as a cookie.
    pub is_new: bool,
}

/// One variant for this key at this time.
#[derive(Clone, Debug)]
pub struct VariantNote {
    /// Its name.
    pub name: String,
    /// The value of the route header.
    pub route: String,
    /// The weight, in proportion to those of the others.
    pub weight: u64,
    /// The share of all requests, 0 to 1.
    pub share: f64,
    /// The key's uniform number for this variant, between 0 and 1; `None` when an override chose.
    pub u: Option<f64>,
    /// `weight / -ln u`: the greatest wins.
    pub score: Option<f64>,
}
