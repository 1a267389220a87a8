//! `rateLimits` as written.

use std::time::Duration;

use super::key::KeyPart;
use crate::document::{
    At, Context, Empty, HeaderName, HeaderValue, Name, NonEmpty, PositiveDuration, Whole, WritableHeaderName, object,
    one_of, words,
};
use crate::matching::RequestMatch;

/// Requests, bursts and costs: so many at most.
pub(super) type Count = Whole<1, 1_000_000_000>;

/// What `capacity` is when it is absent.
pub(super) const DEFAULT_CAPACITY: u32 = 65_536;

object! {
    /// One limit.
    pub struct LimitDocument check = LimitDocument::check {
        /// Unique among the limits.
        name as "name": Name,
        /// One entry that holds is enough; absent: every request.
        matches as "matches": Option<NonEmpty<RequestMatch>>,
        /// What to count by; without parts: all requests together.
        key as "key": Vec<KeyPart>,
        /// What becomes of requests without the key.
        on_missing_key as "onMissingKey": OnMissingKey = OnMissingKey::Share,
        /// How much.
        limit as "limit": QuotaDocument,
        /// What one request counts for.
        cost as "cost": Option<Cost>,
        /// Whether it refuses, or only says so.
        mode as "mode": LimitMode = LimitMode::Enforce,
        /// Keys that may be busy at one time and are held exactly.
        capacity as "capacity": Option<Whole<1, 1_048_576>>,
        /// Who counts.
        scope as "scope": Scope = Scope::Local,
        /// What a refused client gets.
        response as "response": Option<RefusalDocument>,
        /// Whether clients are told what they have left.
        quota_headers as "quotaHeaders": QuotaHeaders = QuotaHeaders::Off,
    }
}

words! {
    /// What becomes of requests without the key.
    pub enum OnMissingKey {
        /// They share one bucket.
        Share = "Share",
        /// The limit does not apply.
        Skip = "Skip",
        /// They are refused.
        Deny = "Deny",
    }
}

words! {
    /// Whether a limit refuses.
    pub enum LimitMode {
        /// It does.
        Enforce = "Enforce",
        /// It only says what it would have done.
        Shadow = "Shadow",
    }
}

words! {
    /// Which headers tell a client what it has left.
    pub enum QuotaHeaders {
        /// None.
        Off = "Off",
        /// `RateLimit-Policy` and `RateLimit`, draft-ietf-httpapi-ratelimit-headers-10.
        Ietf = "IETF",
        /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`, after version 03 of that draft, as Envoy writes them.
        Draft03 = "Draft03",
    }
}

object! {
    /// `limit`.
    pub struct QuotaDocument {
        /// So many requests …
        requests as "requests": Count,
        /// … in this time,
        per as "per": PositiveDuration,
        /// and so many at one instant; absent: `requests`.
        burst as "burst": Option<Count>,
    }
}

object! {
    /// `cost`.
    pub struct Cost check = Cost::check {
        /// The header that says it, a whole number from 1; absent: always the default.
        header as "header": Option<HeaderName>,
        /// Where the header is missing or says nothing usable.
        default as "default": Count = Whole(1),
        /// What a larger number counts as.
        max as "max": Option<Count>,
        /// The header of the response that says what the request has cost, a whole number from 0.
        response_header as "responseHeader": Option<HeaderName>,
        /// With `responseHeader`: what is taken when the request comes. The difference is settled when the response's
        /// headers are there; without the header, or without a response, it stays.
        reserve as "reserve": Option<Count>,
    }
}

impl Cost {
    fn check(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let mut problem = |field: &str, message: &str, help: &str| {
            cx.problem_at(&at.field(field), message, help.to_owned());
            false
        };
        if self.response_header.is_none() && self.reserve.is_some() {
            return problem(
                "reserve",
                "has no meaning without `responseHeader`",
                "write `default`, or name the header",
            );
        }
        if self.response_header.is_some() {
            if self.header.is_some() {
                return problem("header", "is given beside `responseHeader`", "keep one: either says the cost");
            }
            if self.default.0 != 1 {
                return problem("default", "has no meaning with `responseHeader`", "write `reserve`");
            }
        }
        let before = if self.response_header.is_some() { "reserve" } else { "default" };
        if self.max.is_some_and(|max| self.beforehand() > max.0) {
            return problem(before, "is more than `max`", "make `max` the larger one");
        }
        true
    }

    /// What a request counts for when nothing says more.
    pub(super) fn beforehand(&self) -> u32 {
        self.reserve.unwrap_or(self.default).0
    }
}

/// `scope`.
#[derive(Clone, Debug)]
pub enum Scope {
    /// The workers of one proxy.
    Local,
    /// A service, for all proxies.
    Global(GlobalDocument),
}

object! {
    /// `global`.
    pub struct GlobalDocument {
        /// The proxy's cluster that reaches the service.
        cluster as "cluster": Name,
        /// The domain that the service keeps the limit under.
        domain as "domain": Name,
        /// How long a request waits for the answer.
        timeout as "timeout": PositiveDuration = PositiveDuration(DEFAULT_TIMEOUT),
        /// What becomes of requests without one.
        on_failure as "onFailure": OnFailure = OnFailure::Allow,
        /// Whether the service knows `is_negative_hits` of its protocol, and so takes back what a response has cost less
        /// than was reserved. One that does not know it would count that once more.
        takes_back as "takesBack": bool = false,
    }
}

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(20);

words! {
    /// What becomes of a request when the service does not answer.
    pub enum OnFailure {
        /// It passes.
        Allow = "Allow",
        /// It is refused.
        Deny = "Deny",
    }
}

one_of! {
    /// Who counts.
    Scope {
        /// The workers of one proxy together.
        "local": Empty => |Empty| Scope::Local,
        /// A rate-limit service, for all proxies together.
        "global": GlobalDocument => Scope::Global,
    }
    written = |scope| matches!(scope, Scope::Local).then(|| serde_json::json!({"local": {}}))
}

impl Scope {
    /// Whether this proxy counts by itself.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Scope::Local)
    }
}

object! {
    /// `response`.
    pub struct RefusalDocument check = RefusalDocument::check {
        /// The status, of an error: any other would tell the client that its request was served.
        status as "status": Whole<400, 599> = Whole(429),
        /// The body.
        body as "body": String = DEFAULT_BODY.to_owned(),
        /// Further headers.
        headers as "headers": Vec<ResponseHeader> = Vec::new(),
    }
}

/// The body of a refusal that has no other.
pub(super) const DEFAULT_BODY: &str = "rate limit exceeded\n";

impl Default for RefusalDocument {
    fn default() -> Self {
        RefusalDocument { status: Whole(429), body: DEFAULT_BODY.to_owned(), headers: Vec::new() }
    }
}

object! {
    /// A header of the response.
    pub struct ResponseHeader {
        /// Its name.
        name as "name": WritableHeaderName,
        /// Its value.
        value as "value": HeaderValue,
    }
}

impl RefusalDocument {
    fn check(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let mut fine = true;
        let headers = at.field("headers");
        for (i, header) in self.headers.iter().enumerate() {
            if &*header.name.0 == "retry-after" {
                let help = "leave it out: every refusal carries it, computed".to_owned();
                cx.problem_at(&headers.index(i).field("name"), "retry-after is written by the limit itself", help);
                fine = false;
            }
        }
        fine
    }
}

impl LimitDocument {
    /// Requests that pass at one instant.
    pub(super) fn burst(&self) -> u32 {
        self.limit.burst.unwrap_or(self.limit.requests).0
    }

    /// Busy keys that it holds exactly. A limit without key parts has one bucket; two sets are as good as many.
    pub(super) fn keys(&self) -> u32 {
        if self.key.is_empty() { 1 } else { self.capacity.map_or(DEFAULT_CAPACITY, |capacity| capacity.0) }
    }

    fn check(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let mut fine = true;
        let beforehand = self.cost.as_ref().map_or(1, Cost::beforehand);
        if beforehand > self.burst() {
            let message = format!("is more than the burst of {}: no request could ever pass", self.burst());
            let cost = at.field("cost");
            let is_reserve = self.cost.as_ref().is_some_and(|cost| cost.reserve.is_some());
            cx.problem_at(
                &cost.field(if is_reserve { "reserve" } else { "default" }),
                message,
                "make `limit.burst` at least as large".to_owned(),
            );
            fine = false;
        }
        if self.key.is_empty() && self.on_missing_key != OnMissingKey::Share {
            let help = "leave it out: a key without parts is never missing".to_owned();
            cx.problem_at(&at.field("onMissingKey"), "has no meaning with an empty key", help);
            fine = false;
        }
        if matches!(self.scope, Scope::Global(_)) {
            fine &= self.check_global(at, cx);
        }
        fine
    }

    /// What the service cannot do: it counts requests in windows of fixed lengths.
    #[inline(never)]
    fn check_global(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let limit = at.field("limit");
        let problems = [
            (
                unit(self.limit.per.0).is_none(),
                limit.field("per"),
                "is no unit of a rate-limit service",
                "use 1s, 1m, 1h or 24h",
            ),
            (
                self.limit.burst.is_some_and(|burst| burst != self.limit.requests),
                limit.field("burst"),
                "has no meaning in global scope",
                "leave it out: the service counts requests in windows of `per`",
            ),
            (
                self.capacity.is_some(),
                at.field("capacity"),
                "has no meaning in global scope",
                "leave it out: the service keeps the counters",
            ),
        ];
        let mut fine = true;
        for (_, at, message, help) in problems.into_iter().filter(|(is_wrong, ..)| *is_wrong) {
            cx.problem_at(&at, message, help.to_owned());
            fine = false;
        }
        fine
    }
}

/// `envoy.type.v3.RateLimitUnit`, as far as it is a fixed time.
pub(super) fn unit(per: Duration) -> Option<u8> {
    match (per.as_secs(), per.subsec_nanos()) {
        (1, 0) => Some(1),
        (60, 0) => Some(2),
        (3600, 0) => Some(3),
        (86_400, 0) => Some(4),
        _ => None,
    }
}
