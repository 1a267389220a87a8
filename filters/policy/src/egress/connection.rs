//! Connections that the proxy does not decrypt: decided by server name, destination address, port and identity.

use std::net::{IpAddr, Ipv6Addr};

use super::authority::{Authority, BadAuthority, UriHost};
use super::facts::{DestinationPort, Facts};
use super::refusal::NearestRule;
use super::report::line;
use super::{Egress, Mode};
use crate::decision::{EgressOutcome, EgressVerdict};
use crate::environment::Environment;
use crate::metrics::Metric;
use crate::reason::Reason;

/// What is known of a connection before its first byte is forwarded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connection<'a> {
    /// The server name that the TLS handshake asks for.
    pub sni: Option<&'a [u8]>,
    /// The address that the client connected to.
    pub destination: Option<IpAddr>,
    /// The port that the client connected to.
    pub port: Option<u16>,
}

/// The decision about a connection.
#[derive(Clone, Debug)]
pub struct ConnectionVerdict<'a> {
    /// What was decided, and why.
    pub outcome: EgressOutcome<'a>,
    /// The counters to increment.
    pub counts: [Option<Metric>; 2],
}

impl ConnectionVerdict<'_> {
    /// Whether the connection is opened.
    pub fn is_open(&self) -> bool {
        self.outcome.verdict != EgressVerdict::Deny
    }
}

/// What was decided about a connection, as one line of JSON; see [`log_line`](super::log_line). It has no method and no path.
pub fn connection_line(connection: &Connection<'_>, outcome: &EgressOutcome<'_>) -> String {
    let address = connection.destination.map(|address| address.to_string()).unwrap_or_default();
    line(outcome, connection.port, connection.sni.unwrap_or(address.as_bytes()), None)
}

impl Egress {
    /// Decides a connection. A rule for a name must list the server name. Without a server name, or when no rule lists
    /// it (the outer name of ECH is in no policy), a rule with a CIDR must cover the destination address. A rule with
    /// `methods` or `paths` allows no connection, because nobody could enforce them. `deny` is compared with both the
    /// name and the address.
    pub fn decide_connection(
        &self,
        connection: &Connection<'_>,
        environment: &mut impl Environment,
    ) -> ConnectionVerdict<'_> {
        let mut facts = Facts::new(environment, &self.identity, connection.port, DestinationPort::Known(None));
        let rule = |number: u32| self.rules.get(number as usize);
        match self.judge_connection(connection, &mut facts) {
            Ok(number) => ConnectionVerdict {
                outcome: facts.outcome(EgressVerdict::Allow, None, rule(number)),
                counts: self.counters.of(EgressVerdict::Allow, Some(number), None),
            },
            Err((number, reason)) => {
                // A server name that is not a valid name is refused in every mode.
                let audits = self.mode == Mode::Audit && reason != Reason::ServerNameMalformed;
                let verdict = if audits { EgressVerdict::Audit } else { EgressVerdict::Deny };
                ConnectionVerdict {
                    outcome: facts.refusal(verdict, reason, number.and_then(rule)),
                    counts: self.counters.of(verdict, number, Some(reason)),
                }
            }
        }
    }

    fn judge_connection<E: Environment>(
        &self,
        connection: &Connection<'_>,
        facts: &mut Facts<'_, E>,
    ) -> Result<u32, (Option<u32>, Reason)> {
        let sni = connection.sni.filter(|sni| !sni.is_empty() && !is_ipv6(sni));
        let name = match sni.map(Authority::parse) {
            None | Some(Ok(Authority { host: UriHost::Address(_), port: None })) => None,
            Some(Ok(Authority { host: name @ UriHost::Name(_), port: None })) => Some(name),
            // An IPv4 address in a form that only some parsers accept.
            Some(Err(BadAuthority::NumericHost)) => None,
            Some(_) => return Err((None, Reason::ServerNameMalformed)),
        };
        let address = connection.destination.map(UriHost::Address);
        let mut nearest = NearestRule::NONE;
        let mut allowed: Option<u32> = None;
        for host in [name, address].iter().flatten() {
            if self.deny.denies(host, connection.port) {
                return Err((None, Reason::HostDenied));
            }
            if allowed.is_some() {
                continue;
            }
            self.allow.covering(host, |bucket| {
                let others = bucket.evaluate_each(facts, |entry, facts| {
                    let Some(rule) = self.rules.get(entry.rule as usize) else { return true };
                    let reason = match entry.has_port(|| connection.port) {
                        false => Some(Reason::PortNotAllowed),
                        true if rule.methods.is_some() || rule.paths.is_some() => Some(Reason::RuleNeedsHttp),
                        true => rule.caller_and_time(facts),
                    };
                    match reason {
                        None => allowed = Some(allowed.map_or(entry.rule, |first| first.min(entry.rule))),
                        Some(reason) => nearest.add(reason, entry.rule),
                    }
                    true
                });
                nearest.add_others(others);
            });
        }
        match (allowed, nearest.reason) {
            (Some(rule), _) => Ok(rule),
            (None, Reason::HostNotAllowed) if name.is_none() => Err((None, Reason::ServerNameMissing)),
            (None, reason) => Err((nearest.named(), reason)),
        }
    }
}

/// Whether a server name is an IPv6 address, in brackets or without: no name, as RFC 6066 §3 has it, whatever the
/// address is.
fn is_ipv6(sni: &[u8]) -> bool {
    let inside = sni.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).unwrap_or(sni);
    std::str::from_utf8(inside).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}
