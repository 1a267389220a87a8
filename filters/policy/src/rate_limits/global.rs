//! `scope: {global: …}`: limits that a rate-limit service counts, for all proxies together.
//!
//! A decision that needs the service is [`Pending`]: the proxy sends each [`RlsRequest`] in turn and passes the
//! [`RlsReply`] on; then the decision is made as if no time had passed. All limits of one service and domain that match
//! a request go into one request. A second service is asked only after the first has let the request pass, so that a
//! refused request takes nothing there: a service cannot take back what it has counted.

use std::time::Duration;

use super::document::{GlobalDocument, OnFailure, QuotaDocument, unit};
use super::key::{KeyPart, KeyValue};
use super::service::Descriptor;

/// The service that a limit asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LimitService {
    /// The proxy's cluster.
    pub(super) cluster: Box<str>,
    pub(super) domain: Box<str>,
}

/// The fields that only a limit of global scope has.
#[derive(Debug)]
pub(super) struct Global {
    /// Its number among the policy's services.
    pub(super) service: u32,
    timeout: Duration,
    pub(super) on_failure: OnFailure,
    takes_back: bool,
    requests_per_unit: u32,
    unit: u8,
}

impl Global {
    pub(super) fn new(document: GlobalDocument, quota: &QuotaDocument, services: &mut Vec<LimitService>) -> Global {
        let service = LimitService { cluster: document.cluster.0, domain: document.domain.0 };
        let number = services.iter().position(|other| *other == service).unwrap_or_else(|| {
            services.push(service);
            services.len() - 1
        });
        // The document has been checked: it has no other unit.
        let unit = unit(quota.per.0).unwrap_or_default();
        Global {
            service: u32::try_from(number).unwrap_or(u32::MAX),
            timeout: document.timeout.0,
            on_failure: document.on_failure,
            takes_back: document.takes_back,
            requests_per_unit: quota.requests.0,
            unit,
        }
    }
}

/// One limit's part of a request to the service.
#[derive(Clone, Debug)]
pub(super) struct RemoteCheck {
    /// The limit's number.
    pub(super) limit: u32,
    pub(super) service: u32,
    pub(super) timeout: Duration,
    pub(super) descriptor: Descriptor,
}

impl RemoteCheck {
    /// Begins with the limit's name; [`RemoteCheck::part`] adds the key.
    pub(super) fn new(limit: u32, name: &str, global: &Global, cost: u32) -> RemoteCheck {
        let mut descriptor = Descriptor::new(global.requests_per_unit, global.unit, cost);
        descriptor.entry("generic_key", name);
        RemoteCheck { limit, service: global.service, timeout: global.timeout, descriptor }
    }

    /// The key's next part, under the name that users of Envoy's own filter know. Bytes that are not UTF-8 become
    /// U+FFFD, because the protocol has only text.
    pub(super) fn part(&mut self, part: &KeyPart, value: &KeyValue<'_>) {
        let key = match part {
            KeyPart::SourceAddress { .. } => "remote_address",
            KeyPart::Header(name) | KeyPart::Cookie(name) | KeyPart::QueryParam(name) => name,
            KeyPart::Path => "path",
            KeyPart::Method => "method",
            KeyPart::Hostname => "hostname",
            KeyPart::Peer => "peer",
            KeyPart::Constant(_) => "generic_key",
            KeyPart::Fact(name) => name.parts().last(),
        };
        match value {
            KeyValue::Address(address) => self.descriptor.entry(key, &address.to_string()),
            KeyValue::Text(text) => self.descriptor.entry(key, &String::from_utf8_lossy(text)),
        }
    }

    /// The correction for the same key when a request has cost `cost` instead of what was reserved; `None`: there is
    /// none, or the service could not take it back.
    pub(super) fn settled(limit: u32, global: &Global, entries: &[u8], asked: u32, cost: u32) -> Option<RemoteCheck> {
        let mut descriptor = Descriptor::new(global.requests_per_unit, global.unit, cost.abs_diff(asked));
        descriptor.entries = entries.to_vec();
        descriptor.is_negative = cost < asked;
        let says = cost > asked || (cost < asked && global.takes_back);
        says.then_some(RemoteCheck { limit, service: global.service, timeout: global.timeout, descriptor })
    }

    /// The request has no key: all such requests share the descriptor with this key.
    pub(super) fn missing(&mut self) {
        self.descriptor.entry("missing_key", "true");
    }
}
