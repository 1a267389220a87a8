//! What a rule changes besides route, path and host: headers, timeout, retries.

use std::borrow::Cow;

use crate::decision::HeaderOp;
use crate::document::{
    At, Context, Decode, GatewayDuration, HeaderValue, Kind, Node, NonEmpty, PositiveDuration, Whole,
    WritableHeaderName, object, suggestion, wrong_kind,
};

object! {
    /// `requestHeaders` and `responseHeaders`: `remove` first, then `set`, then `add`.
    pub struct HeaderChanges check = HeaderChanges::check {
        /// Replaces every value.
        set as "set": Vec<HeaderField> = Vec::new(),
        /// Adds one more value.
        add as "add": Vec<HeaderField> = Vec::new(),
        /// Removes every value.
        remove as "remove": Vec<WritableHeaderName> = Vec::new(),
    }
}

object! {
    /// A header to write.
    pub struct HeaderField {
        /// Its name.
        name as "name": WritableHeaderName,
        /// Its value.
        value as "value": HeaderValue,
    }
}

impl HeaderChanges {
    /// The list that names the header `name`.
    pub(super) fn list_of(&self, name: &str) -> Option<&'static str> {
        let is = |header: &WritableHeaderName| *header.0 == *name;
        if self.set.iter().any(|field| is(&field.name)) {
            return Some("set");
        }
        if self.add.iter().any(|field| is(&field.name)) {
            return Some("add");
        }
        self.remove.iter().any(is).then_some("remove")
    }

    /// No header may be named twice: the result would depend on the order of the changes.
    fn check(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let names = self.set.iter().enumerate().map(|(i, field)| ("set", i, &field.name));
        let names = names.chain(self.add.iter().enumerate().map(|(i, field)| ("add", i, &field.name)));
        let names = names.chain(self.remove.iter().enumerate().map(|(i, name)| ("remove", i, name)));
        let mut seen = hashbrown::HashMap::with_hasher(rustc_hash::FxBuildHasher);
        let mut fine = true;
        for (list, index, name) in names {
            let Some((first_list, first)) = seen.insert(name, (list, index)) else { continue };
            let list_at = at.field(list);
            let message = format!("changes `{}`, as {first_list}[{first}] does", name.0);
            cx.problem_at(&list_at.index(index), message, "change each header only once".to_owned());
            fine = false;
        }
        fine
    }
}

object! {
    /// Retries after failures.
    pub struct Retries one of ["retryOn", "on"] {
        /// The maximum number of retries.
        attempts as "attempts": Whole<0, 100>,
        /// What counts as a failure.
        retry_on as "retryOn": Option<NonEmpty<RetryOn>>,
        /// The older name of `retryOn`. YAML 1.1 reads it as `true` unless it is quoted.
        on as "on": Option<NonEmpty<RetryOn>>,
        /// The timeout of each try.
        per_try_timeout as "perTryTimeout": Option<PositiveDuration>,
    }
}

/// A condition for a retry: one of Envoy's, or a status code.
#[derive(Clone, Debug)]
pub enum RetryOn {
    /// A policy of `x-envoy-retry-on`.
    Http(&'static str),
    /// A policy of `x-envoy-retry-grpc-on`.
    Grpc(&'static str),
    /// A status code, through `x-envoy-retriable-status-codes`.
    Status(u16),
}

/// The policies of `x-envoy-retry-on` that need nothing else to be set.
const HTTP_POLICIES: [&str; 9] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "http3-post-connect-failure",
];

/// The policies of `x-envoy-retry-grpc-on`.
const GRPC_POLICIES: [&str; 5] = ["cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"];

#[cfg(feature = "schema")]
impl RetryOn {
    /// Every condition that is a word.
    pub(crate) fn words() -> Vec<&'static str> {
        HTTP_POLICIES.into_iter().chain(GRPC_POLICIES).collect()
    }
}

impl Decode for RetryOn {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a retry condition of Envoy such as 5xx, or a status code";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let word = match node {
            Node::String(word) => word.clone(),
            Node::Integer(number) => number.to_string(),
            _ => return wrong_kind::<Self>(node, at, cx),
        };
        let find = |policies: &[&'static str]| policies.iter().copied().find(|policy| *policy == word);
        if let Some(policy) = find(&HTTP_POLICIES) {
            return Some(RetryOn::Http(policy));
        }
        if let Some(policy) = find(&GRPC_POLICIES) {
            return Some(RetryOn::Grpc(policy));
        }
        if let Ok(status) = word.parse::<u16>()
            && (400..=599).contains(&status)
            && word.len() == 3
        {
            return Some(RetryOn::Status(status));
        }
        let known = std::iter::once("a status code from 400 to 599").chain(HTTP_POLICIES).chain(GRPC_POLICIES);
        let known: Vec<&str> = known.collect();
        let help = suggestion(&word, &known);
        cx.problem(at, node, "is not a retry condition", help);
        None
    }
}

/// Header changes that are the same for every request.
#[derive(Debug, Default)]
pub struct StaticOps(Box<[StaticOp]>);

#[derive(Debug)]
enum StaticOp {
    Set(Cow<'static, str>, Box<[u8]>),
    Add(Cow<'static, str>, Box<[u8]>),
    Remove(Cow<'static, str>),
}

impl StaticOps {
    /// Sorts the changes into the order in which the proxy applies them.
    pub fn new(
        changes: Option<HeaderChanges>,
        timeout: Option<GatewayDuration>,
        retries: Option<Retries>,
    ) -> StaticOps {
        let mut ops = Vec::new();
        if let Some(changes) = changes {
            let name = |name: WritableHeaderName| Cow::Owned(name.0.into());
            let value = |value: HeaderValue| value.0.into_boxed_bytes();
            ops.extend(changes.remove.into_iter().map(|n| StaticOp::Remove(name(n))));
            ops.extend(changes.set.into_iter().map(|f| StaticOp::Set(name(f.name), value(f.value))));
            ops.extend(changes.add.into_iter().map(|f| StaticOp::Add(name(f.name), value(f.value))));
        }
        let mut set = |name: &'static str, value: String| {
            ops.push(StaticOp::Set(Cow::Borrowed(name), value.into_boxed_str().into_boxed_bytes()));
        };
        if let Some(GatewayDuration(timeout)) = timeout {
            set("x-envoy-upstream-rq-timeout-ms", timeout.as_millis().to_string());
        }
        if let Some(retries) = retries {
            set_retries(retries, &mut set);
        }
        StaticOps(ops.into())
    }

    /// The changes in the order in which they are applied.
    pub fn iter(&self) -> impl Iterator<Item = HeaderOp<'_>> {
        self.0.iter().map(|op| match op {
            StaticOp::Set(name, value) => HeaderOp::Set(name, Cow::Borrowed(&**value)),
            StaticOp::Add(name, value) => HeaderOp::Add(name, Cow::Borrowed(&**value)),
            StaticOp::Remove(name) => HeaderOp::Remove(name),
        })
    }
}

/// Writes `retries` as Envoy's own request headers, which its router reads after the filters.
fn set_retries(retries: Retries, set: &mut impl FnMut(&'static str, String)) {
    let (mut http, mut grpc, mut statuses) = (Vec::new(), Vec::new(), Vec::new());
    for on in retries.retry_on.or(retries.on).into_iter().flat_map(|conditions| conditions.0) {
        match on {
            RetryOn::Http(policy) => http.push(policy),
            RetryOn::Grpc(policy) => grpc.push(policy),
            RetryOn::Status(status) => statuses.push(status.to_string()),
        }
    }
    if !statuses.is_empty() {
        http.push("retriable-status-codes");
        set("x-envoy-retriable-status-codes", statuses.join(","));
    }
    if !http.is_empty() {
        set("x-envoy-retry-on", http.join(","));
    }
    if !grpc.is_empty() {
        set("x-envoy-retry-grpc-on", grpc.join(","));
    }
    set("x-envoy-max-retries", retries.attempts.0.to_string());
    if let Some(PositiveDuration(timeout)) = retries.per_try_timeout {
        set("x-envoy-upstream-rq-per-try-timeout-ms", timeout.as_millis().to_string());
    }
}
