//! Connections that nobody decrypts: decided by server name, destination address, port and identity.

use std::net::IpAddr;

use super::authority::{Authority, BadAuthority, Host};
use super::search::{Facts, Port, Stage};
use super::{Egress, Mode, Outcome, Report};
use crate::decision::Counts;
use crate::environment::Environment;

/// What is known of a connection before its first byte goes anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connection<'a> {
    /// The server name that the TLS handshake asks for.
    pub sni: Option<&'a [u8]>,
    /// The address that the client connected to.
    pub destination: Option<IpAddr>,
    /// The port that the client connected to.
    pub port: Option<u16>,
}

/// What becomes of a connection.
#[derive(Clone, Debug)]
pub struct Verdict<'a> {
    /// Whether it is opened.
    pub is_open: bool,
    /// Why a rule does not allow it; `None`: one does. With an open connection: what Audit held back.
    pub reason: Option<&'static str>,
    /// What the log line has beside that.
    pub report: Report<'a>,
    /// What to count.
    pub counts: Counts,
}

impl Egress {
    /// Decides a connection. A name rule must list the server name; without one, and for a name that is not listed
    /// (an ECH outer name is none that a policy knows), a CIDR rule must cover the destination address. A rule with
    /// `methods` or `paths` allows no connection: nobody could hold it to them. `deny` sees both, name and address.
    pub fn decide_connection(&self, connection: &Connection<'_>, environment: &mut impl Environment) -> Verdict<'_> {
        let mut facts = Facts::new(environment, &self.identity, Port::Known(connection.port));
        let (number, reason) = match self.judge_connection(connection, &mut facts) {
            Ok(number) => {
                let rule = self.rules.get(number as usize);
                let mut counts = Counts::new();
                self.counters.count(Outcome::Allow, Some(number), None, &mut counts);
                return Verdict { is_open: true, reason: None, report: Report { rule, ..facts.report() }, counts };
            }
            Err(refusal) => refusal,
        };
        let is_malformed = reason == BAD_NAME;
        let is_open = self.mode == Mode::Audit && !is_malformed;
        let mut counts = Counts::new();
        let outcome = if is_open { Outcome::Audit } else { Outcome::Deny };
        self.counters.count(outcome, number, Some(reason), &mut counts);
        let rule = number.and_then(|number| self.rules.get(number as usize));
        Verdict { is_open, reason: Some(reason), report: facts.refusal_report(rule), counts }
    }

    fn judge_connection<E: Environment>(
        &self,
        connection: &Connection<'_>,
        facts: &mut Facts<'_, '_, E>,
    ) -> Result<u32, (Option<u32>, &'static str)> {
        let name = match connection.sni.filter(|sni| !sni.is_empty()).map(Authority::parse) {
            None | Some(Ok(Authority { host: Host::Address(_), port: None })) => None,
            Some(Ok(Authority { host: name @ Host::Name(_), port: None })) => Some(name),
            // An IP address written without brackets, or in a form that only some read as one.
            Some(Err(BadAuthority::NumericHost)) => None,
            Some(_) => return Err((None, BAD_NAME)),
        };
        let address = connection.destination.map(Host::Address);
        let mut nearest = (Stage::Host, None);
        let mut allowed: Option<u32> = None;
        for host in [name, address].iter().flatten() {
            if self.deny.denies(host, || connection.port) {
                return Err((None, "hostDenied"));
            }
            if allowed.is_some() {
                continue;
            }
            self.allow.covering(host, |bucket| {
                let others = bucket.ask_each(facts, |entry, facts| {
                    let Some(rule) = self.rules.get(entry.rule as usize) else { return true };
                    let stage = match entry.has_port(|| connection.port) {
                        false => Some(Stage::Port),
                        true if rule.methods.is_some() || rule.paths.is_some() => Some(Stage::NeedsHttp),
                        true => rule.caller_and_time(facts),
                    };
                    match stage {
                        None => allowed = Some(allowed.map_or(entry.rule, |first| first.min(entry.rule))),
                        Some(stage) if stage > nearest.0 => nearest = (stage, Some(entry.rule)),
                        Some(_) => {}
                    }
                    true
                });
                if let Some(stage) = others.filter(|stage| *stage > nearest.0) {
                    nearest = (stage, None);
                }
            });
        }
        match (allowed, nearest) {
            (Some(rule), _) => Ok(rule),
            (None, (Stage::Host, _)) if name.is_none() => Err((None, "serverNameMissing")),
            (None, (stage, nearest)) => Err((nearest.filter(|_| stage.names_its_rule()), stage.reason())),
        }
    }
}

/// A server name that is no name has no reading, in any mode.
const BAD_NAME: &str = "serverNameMalformed";
