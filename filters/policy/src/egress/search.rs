//! The rules that a destination's index found, asked one after the other.

use std::borrow::Cow;

use super::authority::Authority;
use super::caller::IdentitySource;
use super::form::{Form, METHOD_OVERRIDES};
use super::index::Bucket;
use super::path::{BadPath, canonical};
use super::{Report, Rule};
use crate::environment::{Environment, Timestamp};
use crate::request::Request;

/// What the outside says of this request, each asked for at most once and only when a rule needs it.
pub(super) struct Facts<'e, 'a, E> {
    pub environment: &'e mut E,
    identity: &'e IdentitySource,
    port: Port<'a>,
    now: Option<Timestamp>,
    caller: Option<Option<Vec<u8>>>,
}

impl<'e, 'a, E: Environment> Facts<'e, 'a, E> {
    pub fn new(environment: &'e mut E, identity: &'e IdentitySource, port: Port<'a>) -> Self {
        Facts { environment, identity, port, now: None, caller: None }
    }

    /// The port of the destination.
    pub fn port(&mut self) -> Option<u16> {
        let port = self.port.get(self.environment);
        self.port = Port::Known(port);
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

    /// What is known by now.
    pub fn report(&mut self) -> Report<'a> {
        Report { rule: None, caller: self.caller.take().flatten(), port: self.port, id: None }
    }

    /// For a refusal: rare enough to ask for the caller and the port, and to draw an id.
    pub fn refusal_report(&mut self, rule: Option<&'a Rule>) -> Report<'a> {
        self.caller();
        self.port();
        Report { rule, id: Some(self.environment.random()), ..self.report() }
    }
}

/// The port of a destination. Asking for the connection's costs a call, and most rules have no ports.
#[derive(Clone, Copy, Debug)]
pub enum Port<'a> {
    /// What the authority says, or what is known of the connection.
    Known(Option<u16>),
    /// That of the connection; when nobody knows it, that of this scheme.
    OfConnection(&'a [u8]),
}

impl<'a> Port<'a> {
    /// That of a request to `authority`.
    pub(super) fn of(request: &Request<'a>, authority: &Authority<'_>) -> Port<'a> {
        if authority.port.is_some() { Port::Known(authority.port) } else { Port::OfConnection(request.scheme) }
    }

    /// Asks for it where it is not known yet.
    pub(super) fn get(self, environment: &mut impl Environment) -> Option<u16> {
        let scheme = match self {
            Port::Known(port) => return port,
            Port::OfConnection(scheme) => scheme,
        };
        environment.destination_port().or_else(|| match scheme {
            scheme if scheme.eq_ignore_ascii_case(b"https") => Some(443),
            scheme if scheme.eq_ignore_ascii_case(b"http") => Some(80),
            _ => None,
        })
    }
}

/// How near a rule came to allowing the request; later stages are nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Host,
    Port,
    CallerUnknown,
    Caller,
    NotYetValid,
    Expired,
    Method,
    NeedsHttp,
    MethodOverride,
    Connect,
    Upgrade,
    Path,
}

impl Stage {
    /// The reason that a decision gives when no rule came nearer.
    pub fn reason(self) -> &'static str {
        match self {
            Stage::Host => "hostNotAllowed",
            Stage::Port => "portNotAllowed",
            Stage::CallerUnknown => "callerUnknown",
            Stage::Caller => "callerNotAllowed",
            Stage::NotYetValid => "ruleNotYetValid",
            Stage::Expired => "ruleExpired",
            Stage::Method => "methodNotAllowed",
            Stage::NeedsHttp => "ruleNeedsHttp",
            Stage::MethodOverride => "methodOverrideNotAllowed",
            Stage::Connect => "connectNotAllowed",
            Stage::Upgrade => "upgradeNotAllowed",
            Stage::Path => "pathNotAllowed",
        }
    }

    /// Whether a refusal names the nearest rule: only to callers that the rule is for.
    pub fn names_its_rule(self) -> bool {
        self > Stage::Caller
    }
}

impl Rule {
    /// Where the rule stops for want of the right caller or time; `None`: nowhere.
    pub(super) fn caller_and_time<E: Environment>(&self, facts: &mut Facts<'_, '_, E>) -> Option<Stage> {
        if let Some(from) = &self.from {
            let Some(caller) = facts.caller() else { return Some(Stage::CallerUnknown) };
            if !from.iter().any(|pattern| pattern.covers(caller)) {
                return Some(Stage::Caller);
            }
        }
        if self.not_before.is_some_and(|start| facts.now() < start) {
            return Some(Stage::NotYetValid);
        }
        if self.expires.is_some_and(|end| facts.now() >= end) {
            return Some(Stage::Expired);
        }
        None
    }
}

/// One search through the candidates.
pub(super) struct Search<'r, 'a> {
    request: &'r Request<'a>,
    form: &'r Form<'a>,
    /// The canonical path, once a path-scoped rule was selected.
    canonical: Option<Result<Cow<'a, [u8]>, &'static str>>,
    rule: Option<u32>,
    nearest: (Stage, Option<u32>),
}

/// What a search found.
pub(super) struct Found {
    /// The first rule in document order that allows the request.
    pub rule: Option<u32>,
    /// How near the others came, and the first that came so near.
    pub nearest: (Stage, Option<u32>),
    /// The canonical path, when the request is path-scoped and its own path is not canonical.
    pub canonical: Option<Vec<u8>>,
}

impl<'r, 'a> Search<'r, 'a> {
    pub fn new(request: &'r Request<'a>, form: &'r Form<'a>) -> Self {
        Search { request, form, canonical: None, rule: None, nearest: (Stage::Host, None) }
    }

    /// Asks the rules of one bucket. All of them when any has `paths`: whether the request is path-scoped depends on
    /// every rule that it selects, also when another allows it.
    pub fn look<E: Environment>(&mut self, bucket: &Bucket, rules: &[Rule], facts: &mut Facts<'_, '_, E>) {
        let others = bucket.ask_each(facts, |entry, facts| {
            if !bucket.has_paths && self.rule.is_some_and(|rule| rule <= entry.rule) {
                return false;
            }
            let Some(rule) = rules.get(entry.rule as usize) else { return true };
            let stage = if !entry.has_port(|| facts.port()) { Some(Stage::Port) } else { self.ask(rule, facts) };
            note!(facts.environment, crate::explain::Note::EgressRule(entry.rule as usize, stage.map(Stage::reason)));
            match stage {
                None => self.rule = Some(self.rule.map_or(entry.rule, |first| first.min(entry.rule))),
                Some(stage) => {
                    let (nearest, at) = self.nearest;
                    if stage > nearest || (stage == nearest && at.is_none_or(|at| entry.rule < at)) {
                        self.nearest = (stage, Some(entry.rule));
                    }
                }
            }
            true
        });
        if let Some(stage) = others.filter(|stage| *stage > self.nearest.0) {
            self.nearest = (stage, None);
        }
    }

    /// Where `rule` stops allowing the request; `None`: nowhere.
    fn ask<E: Environment>(&mut self, rule: &Rule, facts: &mut Facts<'_, '_, E>) -> Option<Stage> {
        if let Some(stage) = rule.caller_and_time(facts) {
            return Some(stage);
        }
        let lists = |method: &[u8]| {
            rule.methods.as_deref().is_none_or(|methods| methods.iter().any(|listed| listed.as_bytes() == method))
        };
        if !lists(self.form.method) {
            return Some(Stage::Method);
        }
        // Selected: with `paths`, the request is path-scoped whatever follows.
        let is_tunnel = self.form.is_tunnel;
        let path_allowed = rule.paths.as_deref().is_none_or(|paths| match self.canonical_path() {
            Ok(path) => !is_tunnel && paths.iter().any(|allowed| allowed.matches(path)),
            Err(_) => false,
        });
        if self.form.has_method_override
            && !METHOD_OVERRIDES.iter().flat_map(|name| self.request.values(name)).all(lists)
        {
            return Some(Stage::MethodOverride);
        }
        if self.form.is_tunnel && !rule.connect {
            return Some(Stage::Connect);
        }
        if self.form.has_upgrade && !self.upgrades_allowed(rule) {
            return Some(Stage::Upgrade);
        }
        (!path_allowed).then_some(Stage::Path)
    }

    /// The canonical path, found once. `OPTIONS *` and tunnels have none other than their own.
    fn canonical_path(&mut self) -> Result<&[u8], &'static str> {
        let path = self.request.path;
        let overridden = self.form.has_path_override;
        let found = self.canonical.get_or_insert_with(|| match path {
            _ if overridden => Err("pathOverrideHeader"),
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
    pub fn note_path<E: Environment>(&self, facts: &mut Facts<'_, '_, E>) {
        if let Some(canonical) = &self.canonical {
            let path = canonical.as_ref().map(|path| String::from_utf8_lossy(path).into_owned());
            note!(facts.environment, crate::explain::Note::CanonicalPath(path.map_err(|reason| *reason)));
        }
    }

    /// The result.
    ///
    /// # Errors
    /// With the reason, when the request is path-scoped and its path has no canonical form.
    pub fn finish(self) -> Result<Found, &'static str> {
        let canonical = match self.canonical.transpose()? {
            Some(Cow::Owned(path)) => Some(path),
            _ => None,
        };
        Ok(Found { rule: self.rule, nearest: self.nearest, canonical })
    }
}
