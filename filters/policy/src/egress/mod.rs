//! `egress`: a request is forwarded only when it is unambiguous and matches a rule that is in force.
//!
//! The order of a decision: the request's form (400 in every mode), `deny`, the rules that the destination's index
//! finds, and for what they allow the connection's SNI (421). What was matched is what is forwarded: on path-scoped
//! requests the canonical path is written back.

mod authority;
mod caller;
mod callers;
mod connection;
mod counts;
mod document;
mod embedded;
mod expiry;
mod explain;
mod facts;
mod form;
mod host;
mod index;
mod later;
mod outcome;
mod refusal;
mod report;
mod rule;
mod search;
#[cfg(test)]
mod tests;

pub use crate::canonical_path::{BadPath, canonical};
pub use crate::cidr::{Cidr, CidrMap};
pub use authority::{Authority, BadAuthority, UriHost};
pub use caller::CallerPattern;
#[cfg(feature = "schema")]
pub(crate) use caller::{FilterStateKey, TrustDomain};
pub use connection::{Connection, ConnectionVerdict, connection_line};
pub use document::{
    Destination, DestinationTarget, EgressDocument, EgressPath, EgressRuleDocument, Mode, RuleText, UpgradeProtocol,
};
pub use embedded::embedded_ipv4;
pub use host::EgressHost;
pub(crate) use later::check_later_sections;
pub use report::log_line;

use crate::decision::{EgressOutcome, EgressVerdict, Response};
use crate::document::Whole;
use crate::environment::Environment;
use crate::identity::IdentitySource;
use crate::metrics::{Metric, Metrics};
use crate::reason::Reason;
use crate::request::Request;
use counts::EgressCounters;
use facts::{DestinationPort, Facts};
use form::{Form, hosts_agree};
use index::Destinations;
use refusal::EgressRefusal;
pub use rule::EgressRule;
use search::{RuleSearch, SearchResult};

/// The section, ready to decide.
#[derive(Debug)]
pub struct Egress {
    mode: Mode,
    verify_sni: bool,
    identity: IdentitySource,
    default_port: DestinationPort,
    rules: Box<[EgressRule]>,
    allow: Destinations,
    deny: Destinations,
    counters: EgressCounters,
}

/// The section's decision about a request.
#[derive(Debug)]
pub(crate) struct Egressed<'a> {
    /// For the log and the access log.
    pub(crate) outcome: EgressOutcome<'a>,
    /// The refusal; `None`: the request continues.
    pub(crate) response: Option<Response<'a>>,
    /// The status of the refusal, enforced or not.
    pub(crate) status: u16,
    /// The request target that is forwarded, when it differs from the request's own.
    pub(crate) target: Option<&'a [u8]>,
    /// The counters to increment.
    pub(crate) counts: [Option<Metric>; 2],
}

impl Egress {
    /// Compiles the section.
    pub fn new(document: EgressDocument, identity: &IdentitySource, metrics: &mut Metrics) -> Egress {
        let rules = &document.rules.0;
        let to = (0u32..).zip(rules).flat_map(|(i, rule)| rule.to.0.iter().map(move |to| (i, to)));
        let allow = Destinations::new(to, |rule| rules.get(rule as usize));
        let deny = Destinations::new((0u32..).zip(&document.deny), |_| None);
        let counters = EgressCounters::new(rules.iter().map(|rule| &*rule.name.0), metrics);
        Egress {
            counters,
            mode: document.mode,
            verify_sni: document.verify_sni,
            identity: identity.clone(),
            default_port: default_port(document.default_port),
            rules: document.rules.0.into_iter().map(EgressRule::new).collect(),
            allow,
            deny,
        }
    }

    /// The rules in document order.
    pub fn rules(&self) -> &[EgressRule] {
        &self.rules
    }

    /// Whether requests are only forwarded to the server name of their connection.
    pub(crate) fn verifies_sni(&self) -> bool {
        self.verify_sni
    }

    /// Where the callers' identity comes from.
    pub fn identity(&self) -> &IdentitySource {
        &self.identity
    }

    /// Decides one request.
    pub(crate) fn decide<'a>(&'a self, request: &Request<'a>, environment: &mut impl Environment) -> Egressed<'a> {
        let form = Form::check(request);
        let (given, default) = match &form {
            Ok(form) => (form.authority.port, self.default_port),
            Err(_) => (None, DestinationPort::Known(None)),
        };
        let mut facts = Facts::new(environment, &self.identity, given, default);
        let found = match &form {
            Ok(form) => self.judge(request, form, &mut facts),
            Err(reason) => Err(EgressRefusal::new(400, *reason)),
        };
        let refusal = match found {
            Ok((number, rule, target)) => {
                let counts = self.counters.of(EgressVerdict::Allow, Some(number), None);
                let outcome = facts.outcome(EgressVerdict::Allow, None, Some(rule));
                return Egressed { outcome, response: None, status: 0, target, counts };
            }
            Err(refusal) => refusal,
        };
        let is_refused = refusal.status != 403 || self.mode == Mode::Enforce;
        let verdict = if is_refused { EgressVerdict::Deny } else { EgressVerdict::Audit };
        let outcome = facts.refusal(verdict, refusal.reason, refusal.rule);
        let response = is_refused.then(|| {
            let host = form.as_ref().ok().map(|form| &form.authority.host);
            report::response(&refusal, host, outcome.id.unwrap_or_default())
        });
        let counts = self.counters.of(verdict, refusal.number, Some(refusal.reason));
        // A request that no rule allows and that passes in mode Audit is forwarded unchanged.
        Egressed { outcome, response, status: refusal.status, target: None, counts }
    }

    /// The rule that allows the request, with the canonical target when the request is path-scoped and its own target
    /// is not canonical; or why no rule allows it.
    fn judge<'a, E: Environment>(
        &'a self,
        request: &Request<'a>,
        form: &Form<'a>,
        facts: &mut Facts<'_, E>,
    ) -> Result<(u32, &'a EgressRule, Option<&'a [u8]>), EgressRefusal<'a>> {
        if !hosts_agree(request, &form.authority, facts) {
            return Err(EgressRefusal::new(400, Reason::HostHeaderMismatch));
        }
        let host = &form.authority.host;
        explain::note_destination(form, self.default_port, facts);
        let mut search = RuleSearch::new(request, form);
        self.allow.covering(host, |bucket| search.evaluate(bucket, &self.rules, facts));
        search.note_path(facts);
        let SearchResult { rule, nearest, canonical } =
            search.finish().map_err(|reason| EgressRefusal::new(400, reason))?;
        explain::note_denied(&self.deny, host, form.authority.port, facts.environment);
        if self.deny.denies(host, form.authority.port) {
            return Err(EgressRefusal::new(403, Reason::HostDenied));
        }
        let numbered = |number: u32| Some((number, self.rules.get(number as usize)?));
        let Some((number, rule)) = rule.and_then(numbered) else {
            let (number, rule) = nearest.named().and_then(numbered).unzip();
            return Err(EgressRefusal { status: 403, reason: nearest.reason, rule, number });
        };
        if self.verify_sni && !sni_is(facts.environment.sni().as_deref(), host) {
            return Err(EgressRefusal {
                status: 421,
                reason: Reason::SniMismatch,
                rule: Some(rule),
                number: Some(number),
            });
        }
        let target = match canonical {
            None => None,
            // Without memory for it the canonical target could not outlive this call, so the request is refused.
            Some(path) => Some(request.keep_target(&path).ok_or(EgressRefusal::new(400, Reason::PathNotCanonical))?),
        };
        Ok((number, rule, target))
    }
}

/// The port of an authority without one.
fn default_port(given: Option<Whole<1, 65535>>) -> DestinationPort {
    // The document's type only allows 1–65535.
    given.map_or(DestinationPort::OfConnection, |port| DestinationPort::Known(u16::try_from(port.0).ok()))
}

/// Whether the server name of the connection is `host`. An address is never a server name (RFC 6066 §3).
fn sni_is(sni: Option<&[u8]>, host: &UriHost<'_>) -> bool {
    let Some(sni) = sni else { return false };
    matches!(host, UriHost::Name(name) if sni.strip_suffix(b".").unwrap_or(sni).eq_ignore_ascii_case(name))
}
