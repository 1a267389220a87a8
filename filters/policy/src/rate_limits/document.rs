//! The section `rateLimits` of the document.

use std::time::Duration;

use super::key::KeyPart;
use crate::document::{
    At, Context, Empty, HeaderName, HeaderValue, Name, NonEmpty, PositiveDuration, Whole, WritableHeaderName, object,
    one_of, words,
};
use crate::matching::RequestMatch;

/// The maximum of requests, bursts and costs.
pub(super) type Count = Whole<1, 1_000_000_000>;

/// The `capacity` of a limit that does not give one.
pub(super) const DEFAULT_CAPACITY: u32 = 65_536;

object! {
    /// A limit on the number of requests.
    pub struct LimitDocument check = LimitDocument::check {
        /// The name of the limit, unique among the limits.
        name as "name": Name,
        /// The limit applies to a request if one of these entries matches. Default: every request.
        matches as "matches": Option<NonEmpty<RequestMatch>>,
        /// The parts of the key: each different key has its own bucket. Without parts, all requests share one bucket.
        key as "key": Vec<KeyPart>,
        /// What happens to requests that lack a part of the key.
        on_missing_key as "onMissingKey": OnMissingKey = OnMissingKey::Share,
        /// The number of requests that may pass.
        limit as "limit": QuotaDocument,
        /// How much a request takes from the bucket.
        cost as "cost": Option<Cost>,
        /// Whether the limit refuses requests or only reports which ones it would refuse.
        mode as "mode": LimitMode = LimitMode::Enforce,
        /// How many keys can be busy at the same time and are still counted exactly. Default: 65536.
        capacity as "capacity": Option<Whole<1, 1_048_576>>,
        /// Whether every request is counted in the state that all workers share. Otherwise a worker reserves up to 64 requests of a
        /// busy key in advance while much more is left, and another worker may refuse that many requests too early.
        exact as "exact": bool = false,
        /// Where requests are counted.
        scope as "scope": Scope = Scope::Local,
        /// The response to a refused request.
        response as "response": Option<RefusalDocument>,
        /// Whether responses tell clients their remaining quota.
        quota_headers as "quotaHeaders": QuotaHeaders = QuotaHeaders::Off,
    }
}

words! {
    /// What happens to requests that lack a part of the key.
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
    /// Whether a limit refuses requests.
    pub enum LimitMode {
        /// It refuses requests over the quota.
        Enforce = "Enforce",
        /// It only reports what it would have refused.
        Shadow = "Shadow",
    }
}

words! {
    /// The headers that tell a client its remaining quota.
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
    /// The number of requests that may pass.
    pub struct QuotaDocument {
        /// The number of requests that may pass in the time `per`.
        requests as "requests": Count,
        /// The time in which `requests` may pass.
        per as "per": PositiveDuration,
        /// The number of requests that may pass at one instant. Default: the value of `requests`.
        burst as "burst": Option<Count>,
    }
}

object! {
    /// How much a request takes from the bucket.
    pub struct Cost check = Cost::check {
        /// The request header that contains the cost, a whole number from 1. Without it, the cost is `default`.
        header as "header": Option<HeaderName>,
        /// The cost if the header is missing or is not a whole number.
        default as "default": Count = Whole(1),
        /// The maximum cost. A larger cost counts as this one.
        max as "max": Option<Count>,
        /// The response header that contains the cost of the request, a whole number from 0.
        response_header as "responseHeader": Option<HeaderName>,
        /// With `responseHeader`: the cost that is reserved when the request arrives. When the response's headers
        /// arrive, the difference is corrected. Without the header or a response, the reserved cost stays.
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
                return problem(
                    "header",
                    "cannot be combined with `responseHeader`",
                    "keep one: each of them defines the cost",
                );
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

    /// The cost of a request, unless another one is given.
    pub(super) fn beforehand(&self) -> u32 {
        self.reserve.unwrap_or(self.default).0
    }
}

/// `scope`.
#[derive(Clone, Debug)]
pub enum Scope {
    /// The workers of one proxy count together.
    Local,
    /// A rate-limit service counts for all proxies.
    Global(GlobalDocument),
}

object! {
    /// A rate-limit service that counts for all proxies together.
    pub struct GlobalDocument {
        /// The name of the proxy's cluster for the service.
        cluster as "cluster": Name,
        /// The domain of the limit in the service's configuration.
        domain as "domain": Name,
        /// How long a request waits for the service's answer.
        timeout as "timeout": PositiveDuration = PositiveDuration(DEFAULT_TIMEOUT),
        /// What happens to requests when the service does not answer.
        on_failure as "onFailure": OnFailure = OnFailure::Allow,
        /// Whether the service supports `is_negative_hits` of its protocol, so that it can give back what was reserved in
        /// excess. A service without this support would count the excess twice.
        takes_back as "takesBack": bool = false,
    }
}

const DEFAULT_TIMEOUT: Duration = Duration::from_millis(20);

words! {
    /// What happens to a request when the service does not answer.
    pub enum OnFailure {
        /// It passes.
        Allow = "Allow",
        /// It is refused.
        Deny = "Deny",
    }
}

one_of! {
    /// Where requests are counted.
    Scope {
        /// In the proxy, for all its workers together.
        "local": Empty => |Empty| Scope::Local,
        /// In a rate-limit service, for all proxies together.
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
    /// The response to a refused request.
    pub struct RefusalDocument check = RefusalDocument::check {
        /// The status. It must be an error, because another status would tell the client that its request succeeded.
        status as "status": Whole<400, 599> = Whole(429),
        /// The body.
        body as "body": String = DEFAULT_BODY.to_owned(),
        /// Additional headers.
        headers as "headers": Vec<ResponseHeader> = Vec::new(),
    }
}

/// The body of a refusal without a body of its own.
const DEFAULT_BODY: &str = "rate limit exceeded\n";

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
                let help = "leave it out: every refusal has it, with the computed value".to_owned();
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

    /// The number of busy keys that are counted exactly. A limit without key parts has one bucket, for which two sets
    /// are enough.
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

    /// Checks what a rate-limit service cannot do: it counts requests in windows of fixed lengths.
    #[inline(never)]
    fn check_global(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let limit = at.field("limit");
        let problems = [
            (
                unit(self.limit.per.0).is_none(),
                limit.field("per"),
                "is not a unit of a rate-limit service",
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
            (
                self.exact,
                at.field("exact"),
                "has no meaning in global scope",
                "leave it out: the service counts each request",
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

/// `envoy.type.v3.RateLimitUnit`, as far as its units have a fixed length.
pub(super) fn unit(per: Duration) -> Option<u8> {
    match (per.as_secs(), per.subsec_nanos()) {
        (1, 0) => Some(1),
        (60, 0) => Some(2),
        (3600, 0) => Some(3),
        (86_400, 0) => Some(4),
        _ => None,
    }
}
