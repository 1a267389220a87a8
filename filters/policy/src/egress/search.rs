//! The rules that a destination's index found, asked one after the other.

use std::borrow::Cow;

use super::Rule;
use super::form::Form;
use super::index::Bucket;
use super::path::{BadPath, canonical};
use crate::decision::{EgressOutcome, EgressVerdict};
use crate::environment::Environment;
use crate::identity::IdentitySource;
use crate::matching::Asked;
use crate::reason::Reason;
use crate::redirection::METHOD_OVERRIDES;
use crate::request::Request;
use crate::timestamp::Timestamp;

/// What the outside says of this request, each asked for at most once and only when a rule needs it.
pub(super) struct Facts<'e, E> {
    pub environment: &'e mut E,
    identity: &'e IdentitySource,
    /// The port that the authority says.
    given_port: Option<u16>,
    /// The port of an authority that says none.
    default_port: Port,
    now: Option<Timestamp>,
    caller: Option<Option<Vec<u8>>>,
}

impl<'e, E: Environment> Facts<'e, E> {
    /// For a request to an authority that says `given_port`; one that says none would mean `default_port`.
    pub fn new(
        environment: &'e mut E,
        identity: &'e IdentitySource,
        given_port: Option<u16>,
        default_port: Port,
    ) -> Self {
        Facts { environment, identity, given_port, default_port, now: None, caller: None }
    }

    /// The port of the destination.
    pub fn port(&mut self) -> Option<u16> {
        self.given_port.or_else(|| self.default_port())
    }

    /// The port of an authority that says none.
    pub fn default_port(&mut self) -> Option<u16> {
        let port = self.default_port.get(self.environment);
        self.default_port = Port::Known(port);
        port
    }

    fn now(&mut self) -> Timestamp {
        let environment = &mut *self.environment;
        *self.now.get_or_insert_with(|| environment.now())
    }

    /// The verified identity of the caller.
    pub fn caller(&mut self) -> Option<&[u8]> {
        let (environment, identity) = (&mut *self.environment, self.identity);
        self.caller.get_or_insert_with(|| environment.identity(identity).filter(|caller| !caller.is_empty())).as_deref()
    }

    /// The outcome, with what is known by now.
    pub fn outcome<'a>(
        &mut self,
        verdict: EgressVerdict,
        reason: Option<Reason>,
        rule: Option<&'a Rule>,
    ) -> EgressOutcome<'a> {
        let port = match self.default_port {
            _ if self.given_port.is_some() => self.given_port,
            Port::Known(port) => port,
            Port::OfConnection => None,
        };
        EgressOutcome {
            verdict,
            reason,
            rule: rule.map(|rule| &*rule.name),
            owner: rule.and_then(|rule| rule.owner.as_deref()),
            purpose: rule.and_then(|rule| rule.reason.as_deref()),
            caller: self.caller.take().flatten(),
            port,
            id: None,
        }
    }

    /// The outcome of a refusal, given or held back: rare enough to ask for the caller and the port, and to draw an id.
    pub fn refusal<'a>(&mut self, verdict: EgressVerdict, reason: Reason, rule: Option<&'a Rule>) -> EgressOutcome<'a> {
        self.caller();
        self.port();
        EgressOutcome { id: Some(self.environment.random()), ..self.outcome(verdict, Some(reason), rule) }
    }
}

/// The port of a destination. Asking about the connection costs a call, and most rules have no ports.
#[derive(Clone, Copy, Debug)]
pub(super) enum Port {
    /// What the authority or `defaultPort` says; `None`: nobody knows it.
    Known(Option<u16>),
    /// The default of the client's connection: 443 with TLS, 80 without.
    OfConnection,
}

impl Port {
    /// Asks for it where it is not known yet.
    pub(super) fn get(self, environment: &mut impl Environment) -> Option<u16> {
        match self {
            Port::Known(port) => port,
            Port::OfConnection => environment.has_tls().map(|has_tls| if has_tls { 443 } else { 80 }),
        }
    }
}

/// Whether a refusal names the rule that came nearest: only to callers that the rule is for.
pub(super) fn names_its_rule(reason: Reason) -> bool {
    reason > Reason::CallerNotAllowed
}

impl Rule {
    /// Why the rule does not allow this caller now; `None`: it does.
    pub(super) fn caller_and_time<E: Environment>(&self, facts: &mut Facts<'_, E>) -> Option<Reason> {
        if let Some(from) = &self.from {
            let Some(caller) = facts.caller() else { return Some(Reason::CallerUnknown) };
            if !from.iter().any(|pattern| pattern.covers(caller)) {
                return Some(Reason::CallerNotAllowed);
            }
        }
        if self.not_before.is_some_and(|start| facts.now() < start) {
            return Some(Reason::RuleNotYetValid);
        }
        if self.expires.is_some_and(|end| facts.now() >= end) {
            return Some(Reason::RuleExpired);
        }
        None
    }
}

/// One search through the candidates.
pub(super) struct Search<'r, 'a> {
    request: &'r Request<'a>,
    form: &'r Form<'a>,
    /// The canonical path, once a path-scoped rule was selected.
    canonical: Option<Result<Cow<'a, [u8]>, Reason>>,
    rule: Option<u32>,
    nearest: (Reason, Option<u32>),
}

/// What a search found.
pub(super) struct Found {
    /// The first rule in document order that allows the request.
    pub rule: Option<u32>,
    /// How near the others came, and the first that came so near.
    pub nearest: (Reason, Option<u32>),
    /// The canonical path, when the request is path-scoped and its own path is not canonical.
    pub canonical: Option<Vec<u8>>,
}

impl<'r, 'a> Search<'r, 'a> {
    pub fn new(request: &'r Request<'a>, form: &'r Form<'a>) -> Self {
        Search { request, form, canonical: None, rule: None, nearest: (Reason::HostNotAllowed, None) }
    }

    /// Asks the rules of one bucket. All of them when any has `paths`: whether the request is path-scoped depends on
    /// every rule that it selects, also when another allows it.
    pub fn look<E: Environment>(&mut self, bucket: &Bucket, rules: &[Rule], facts: &mut Facts<'_, E>) {
        let others = bucket.ask_each(facts, |entry, facts| {
            if !bucket.has_paths && self.rule.is_some_and(|rule| rule <= entry.rule) {
                return false;
            }
            let Some(rule) = rules.get(entry.rule as usize) else { return true };
            let reason =
                if !entry.has_port(|| facts.port()) { Some(Reason::PortNotAllowed) } else { self.ask(rule, facts) };
            note!(facts.environment, crate::explain::Note::EgressRule(entry.rule as usize, reason));
            match reason {
                None => self.rule = Some(self.rule.map_or(entry.rule, |first| first.min(entry.rule))),
                Some(reason) => {
                    let (nearest, at) = self.nearest;
                    if reason > nearest || (reason == nearest && at.is_none_or(|at| entry.rule < at)) {
                        self.nearest = (reason, Some(entry.rule));
                    }
                }
            }
            true
        });
        if let Some(reason) = others.filter(|reason| *reason > self.nearest.0) {
            self.nearest = (reason, None);
        }
    }

    /// Why `rule` does not allow the request; `None`: it does.
    fn ask<E: Environment>(&mut self, rule: &Rule, facts: &mut Facts<'_, E>) -> Option<Reason> {
        if let Some(reason) = rule.caller_and_time(facts) {
            return Some(reason);
        }
        let lists = |method: &[u8]| {
            rule.methods.as_deref().is_none_or(|methods| methods.iter().any(|listed| listed.as_bytes() == method))
        };
        if !lists(self.form.method) {
            return Some(Reason::MethodNotAllowed);
        }
        // Selected: with `paths`, the request is path-scoped whatever follows.
        let is_tunnel = self.form.is_tunnel;
        let answers = self.request.answers().map(|answers| (answers, Asked::CanonicalPath));
        let path_allowed = rule.paths.as_deref().is_none_or(|paths| match self.canonical_path() {
            Ok(path) => !is_tunnel && paths.iter().any(|allowed| allowed.matches_with(path, answers)),
            Err(_) => false,
        });
        if self.form.has_method_override
            && !METHOD_OVERRIDES.iter().flat_map(|name| self.request.values(name.as_bytes())).all(lists)
        {
            return Some(Reason::MethodOverrideNotAllowed);
        }
        if self.form.is_tunnel && !rule.connect {
            return Some(Reason::ConnectNotAllowed);
        }
        if self.form.has_upgrade && !self.upgrades_allowed(rule) {
            return Some(Reason::UpgradeNotAllowed);
        }
        (!path_allowed).then_some(Reason::PathNotAllowed)
    }

    /// The canonical path, found once. `OPTIONS *` and tunnels have none other than their own.
    fn canonical_path(&mut self) -> Result<&[u8], Reason> {
        let path = self.request.path;
        let overridden = self.form.has_path_override;
        let found = self.canonical.get_or_insert_with(|| match path {
            _ if overridden => Err(Reason::PathOverrideHeader),
            [b'/', ..] => canonical(path).map_err(BadPath::reason),
            other => Ok(Cow::Borrowed(other)),
        });
        found.as_deref().map_err(|reason| *reason)
    }

    /// Whether the rule lists every protocol that the request names.
    fn upgrades_allowed(&self, rule: &Rule) -> bool {
        let named = self.request.values(b"upgrade").flat_map(|value| value.split(|&b| b == b','));
        named.chain(self.request.protocol).all(|protocol| {
            rule.upgrades.iter().any(|listed| listed.0.as_bytes().eq_ignore_ascii_case(protocol.trim_ascii()))
        })
    }

    /// Notes the path that `paths` saw, when the request is path-scoped.
    #[cfg(feature = "explain")]
    pub fn note_path<E: Environment>(&self, facts: &mut Facts<'_, E>) {
        if let Some(canonical) = &self.canonical {
            let path = canonical.as_ref().map(|path| String::from_utf8_lossy(path).into_owned());
            note!(facts.environment, crate::explain::Note::CanonicalPath(path.map_err(|reason| *reason)));
        }
    }

    /// The result.
    ///
    /// # Errors
    /// With the reason, when the request is path-scoped and its path has no canonical form.
    pub fn finish(self) -> Result<Found, Reason> {
        let canonical = match self.canonical.transpose()? {
            Some(Cow::Owned(path)) => Some(path),
            _ => None,
        };
        Ok(Found { rule: self.rule, nearest: self.nearest, canonical })
    }
}
