//! The response headers that tell a client its remaining quota.

use std::fmt::Write;

use super::document::QuotaHeaders;
use super::rate;

/// The part of a limit's quota headers that never changes, and which headers contain it.
#[derive(Debug)]
pub(super) struct Quota {
    pub(super) kind: QuotaHeaders,
    /// IETF: the policy's name as a structured-field string. Draft 03: unused.
    item: Box<str>,
    /// `"name";q=100;w=60`, or `100;w=60`.
    policy: Box<str>,
    requests: u32,
}

impl Quota {
    /// `requests` in `per_nanos`, by the limit called `name`. Windows are whole seconds, rounded up.
    pub(super) fn new(kind: QuotaHeaders, name: &str, requests: u32, per_nanos: u64, burst: u32) -> Quota {
        let mut item = String::from("\"");
        for c in name.chars() {
            match c {
                '"' | '\\' => item.extend(['\\', c]),
                ' '..='~' => item.push(c),
                // A structured-field string is ASCII.
                _ => item.push('?'),
            }
        }
        item.push('"');
        let window = rate::seconds(per_nanos);
        let policy = match kind {
            QuotaHeaders::Off => String::new(),
            QuotaHeaders::Ietf => format!("{item};q={requests};w={window}"),
            QuotaHeaders::Draft03 if burst == requests => format!("{requests};w={window}"),
            QuotaHeaders::Draft03 => format!("{requests};w={window};burst={burst}"),
        };
        Quota { kind, item: item.into(), policy: policy.into(), requests }
    }
}

/// One limit's state at the end of a decision.
pub(super) struct LimitState<'a> {
    pub(super) quota: &'a Quota,
    pub(super) remaining: u32,
    /// Seconds until the bucket is full again.
    pub(super) reset: u64,
}

/// Appends the headers of all limits that have any. The IETF's headers are lists with an item for each limit. Those of
/// draft 03 describe one limit, the one with the least quota left, and list the policies of all.
pub(super) fn write(left: &[LimitState<'_>], push: &mut dyn FnMut(&'static str, String)) {
    let of = |kind: QuotaHeaders| left.iter().filter(move |left| left.quota.kind == kind);
    let policies = |kind: QuotaHeaders| {
        let mut list = String::new();
        for left in of(kind) {
            if !list.is_empty() {
                list.push_str(", ");
            }
            list.push_str(&left.quota.policy);
        }
        list
    };
    if of(QuotaHeaders::Ietf).next().is_some() {
        let mut state = String::new();
        for left in of(QuotaHeaders::Ietf) {
            if !state.is_empty() {
                state.push_str(", ");
            }
            let _ = write!(state, "{};r={};t={}", left.quota.item, left.remaining, left.reset);
        }
        push("ratelimit-policy", policies(QuotaHeaders::Ietf));
        push("ratelimit", state);
    }
    let tightest = of(QuotaHeaders::Draft03).min_by_key(|left| left.remaining);
    if let Some(tightest) = tightest {
        push("x-ratelimit-limit", format!("{}, {}", tightest.quota.requests, policies(QuotaHeaders::Draft03)));
        push("x-ratelimit-remaining", tightest.remaining.to_string());
        push("x-ratelimit-reset", tightest.reset.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::super::rate::Rate;
    use super::*;
    use std::time::Duration;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn written(limits: &[(QuotaHeaders, &str, u32, u32, u32)]) -> Vec<String> {
        let quotas: Vec<_> = limits
            .iter()
            .map(|(kind, name, requests, burst, _)| Quota::new(*kind, name, *requests, 60_000_000_000, *burst))
            .collect();
        let left: Vec<_> = limits
            .iter()
            .zip(&quotas)
            .map(|((_, _, requests, burst, used), quota)| {
                let rate = Rate::new(*requests, Duration::from_secs(60), *burst);
                let debt = rate.price(*used);
                LimitState { quota, remaining: rate.remaining(debt), reset: rate::seconds(rate.until_full(debt)) }
            })
            .collect();
        let mut headers = Vec::new();
        write(&left, &mut |name, value| headers.push(format!("{name}: {value}")));
        headers
    }

    #[test]
    fn the_ietf_headers_have_an_item_for_each_limit() {
        let limits = [
            (QuotaHeaders::Ietf, "per-client", 100, 20, 5),
            (QuotaHeaders::Off, "x", 1, 1, 0),
            (QuotaHeaders::Ietf, "a\"é", 10, 10, 10),
        ];
        assert_eq!(
            written(&limits),
            [
                r#"ratelimit-policy: "per-client";q=100;w=60, "a\"?";q=10;w=60"#,
                r#"ratelimit: "per-client";r=15;t=3, "a\"?";r=0;t=60"#,
            ]
        );
    }

    #[test]
    fn draft_03_shows_the_limit_with_the_least_left() {
        let limits = [(QuotaHeaders::Draft03, "a", 100, 20, 5), (QuotaHeaders::Draft03, "b", 10, 10, 3)];
        assert_eq!(
            written(&limits),
            ["x-ratelimit-limit: 10, 100;w=60;burst=20, 10;w=60", "x-ratelimit-remaining: 7", "x-ratelimit-reset: 18"]
        );
        assert!(written(&[(QuotaHeaders::Off, "x", 1, 1, 0)]).is_empty());
    }
}
