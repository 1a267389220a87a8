//! Notes for `explain`: what a limit read, and what it decided.

use std::time::Duration;

use super::key::{KeyPart, KeyValue};
use super::rate::{Debt, Rate};
use super::{Limit, LocalCheck, RateLimits, Verdict};
use crate::environment::Environment;
use crate::explain::{BucketNote, LimitNote, Note};
use crate::request::Request;

impl RateLimits {
    /// Each part of `limit`'s key with its value, up to the first missing part.
    fn key_note(
        &self,
        limit: &Limit,
        request: &Request<'_>,
        environment: &mut impl Environment,
    ) -> (Vec<(String, String)>, Option<String>) {
        let mut parts = Vec::new();
        for part in &limit.key {
            let value = match part.value(request, &self.clients, environment) {
                Some(KeyValue::Address(address)) => address.to_string(),
                Some(KeyValue::Text(text)) => String::from_utf8_lossy(&text).into_owned(),
                None => return (parts, Some(part.to_string())),
            };
            parts.push((part.to_string(), value));
        }
        (parts, None)
    }

    /// Notes a limit that does not apply, or refuses, because the request has no key.
    pub(super) fn note_no_key(
        &self,
        limit: &Limit,
        request: &Request<'_>,
        on_missing_key: &'static str,
        environment: &mut impl Environment,
    ) {
        if environment.is_tracing() {
            let missing = self.key_note(limit, request, environment).1.unwrap_or_default();
            environment.note(Note::NoKey { limit: limit.name.to_string(), missing, on_missing_key });
        }
    }

    /// Notes a limit that a service decides.
    pub(super) fn note_asked(
        &self,
        limit: &Limit,
        cost: u32,
        request: &Request<'_>,
        environment: &mut impl Environment,
    ) {
        if !environment.is_tracing() {
            return;
        }
        let (key, missing) = self.key_note(limit, request, environment);
        let service = limit.global.as_ref().and_then(|global| self.services.get(global.service as usize));
        let cluster = service.map(|service| service.cluster.to_string()).unwrap_or_default();
        environment.note(Note::Asked { limit: limit.name.to_string(), cluster, key, missing, cost });
    }

    /// Notes the final state of the local checks.
    pub(super) fn note_checks(
        &self,
        checks: &[LocalCheck<'_>],
        request: &Request<'_>,
        environment: &mut impl Environment,
    ) {
        if environment.is_tracing() {
            for check in checks {
                let note = self.check_note(check, request, environment);
                environment.note(note);
            }
        }
    }

    fn check_note(&self, check: &LocalCheck<'_>, request: &Request<'_>, environment: &mut impl Environment) -> Note {
        let limit = check.limit;
        let (key, missing) = self.key_note(limit, request, environment);
        Note::Limit(LimitNote {
            limit: limit.name.to_string(),
            key,
            missing,
            cost: check.cost,
            bad_cost: limit.cost.of(request).1,
            burst: limit.rate.burst,
            before: bucket(&limit.rate, check.before),
            after: bucket(&limit.rate, check.debt),
            wait: match check.verdict {
                Verdict::Passes | Verdict::TooLarge | Verdict::Failed(_) => None,
                Verdict::Wait(nanos) => Some(Duration::from_nanos(nanos)),
            },
            is_too_large: check.verdict == Verdict::TooLarge,
            overflow: check.shared,
        })
    }
}

fn bucket(rate: &Rate, debt: Debt) -> BucketNote {
    BucketNote { remaining: rate.remaining(debt), until_full: Duration::from_nanos(rate.until_full(debt)) }
}

impl std::fmt::Display for KeyPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyPart::SourceAddress { ipv4_prefix: 32, ipv6_prefix: 128 } => f.write_str("source address"),
            KeyPart::SourceAddress { ipv4_prefix: 32, ipv6_prefix } => {
                write!(f, "source address (IPv6 /{ipv6_prefix})")
            }
            KeyPart::SourceAddress { ipv4_prefix, ipv6_prefix: 128 } => {
                write!(f, "source address (IPv4 /{ipv4_prefix})")
            }
            KeyPart::SourceAddress { ipv4_prefix, ipv6_prefix } => {
                write!(f, "source address (IPv4 /{ipv4_prefix}, IPv6 /{ipv6_prefix})")
            }
            KeyPart::Header(name) => write!(f, "header {name}"),
            KeyPart::Cookie(name) => write!(f, "cookie {name}"),
            KeyPart::QueryParam(name) => write!(f, "query parameter {name}"),
            KeyPart::Path => f.write_str("path"),
            KeyPart::Method => f.write_str("method"),
            KeyPart::Hostname => f.write_str("hostname"),
            KeyPart::Peer => f.write_str("peer"),
            KeyPart::Constant(_) => f.write_str("constant"),
            KeyPart::Fact(name) => name.parts().fmt(f),
        }
    }
}
