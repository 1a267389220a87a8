//! Evaluates the rules that a destination's index found, one after the other.

use std::borrow::Cow;

use super::facts::Facts;
use super::form::Form;
use super::index::DestinationEntries;
use super::refusal::NearestRule;
use super::rule::EgressRule;
use crate::canonical_path::{BadPath, canonical};
use crate::environment::Environment;
use crate::explain::Note;
use crate::matching::Asked;
use crate::reason::Reason;
use crate::redirection::METHOD_OVERRIDES;
use crate::request::Request;

/// One search through the candidates.
pub(super) struct RuleSearch<'r, 'a> {
    request: &'r Request<'a>,
    form: &'r Form<'a>,
    /// The canonical path, once a rule with `paths` was selected.
    canonical: Option<Result<Cow<'a, [u8]>, Reason>>,
    rule: Option<u32>,
    nearest: NearestRule,
}

/// What a search found.
pub(super) struct SearchResult {
    /// The first rule in document order that allows the request.
    pub rule: Option<u32>,
    /// How near the other rules came to allowing the request.
    pub nearest: NearestRule,
    /// The canonical path, when the request is path-scoped and its own path is not canonical.
    pub canonical: Option<Vec<u8>>,
}

impl<'r, 'a> RuleSearch<'r, 'a> {
    pub fn new(request: &'r Request<'a>, form: &'r Form<'a>) -> Self {
        RuleSearch { request, form, canonical: None, rule: None, nearest: NearestRule::NONE }
    }

    /// Evaluates the rules of one set of entries. All of them when any has `paths`, because whether the request is
    /// path-scoped depends on every rule that it selects, even if another rule allows it.
    pub fn evaluate<E: Environment>(
        &mut self,
        bucket: &DestinationEntries,
        rules: &[EgressRule],
        facts: &mut Facts<'_, E>,
    ) {
        let others = bucket.evaluate_each(facts, |entry, facts| {
            if !bucket.has_paths && self.rule.is_some_and(|rule| rule <= entry.rule) {
                return false;
            }
            let Some(rule) = rules.get(entry.rule as usize) else { return true };
            let reason = if !entry.has_port(|| facts.port()) {
                Some(Reason::PortNotAllowed)
            } else {
                self.evaluate_rule(rule, facts)
            };
            if facts.environment.is_tracing() {
                facts.environment.note(Note::EgressRule(entry.rule as usize, reason));
            }
            match reason {
                None => self.rule = Some(self.rule.map_or(entry.rule, |first| first.min(entry.rule))),
                Some(reason) => self.nearest.add(reason, entry.rule),
            }
            true
        });
        self.nearest.add_others(others);
    }

    /// Why `rule` does not allow the request; `None`: it does.
    fn evaluate_rule<E: Environment>(&mut self, rule: &EgressRule, facts: &mut Facts<'_, E>) -> Option<Reason> {
        if let Some(reason) = rule.caller_and_time(facts) {
            return Some(reason);
        }
        let lists = |method: &[u8]| {
            rule.methods.as_deref().is_none_or(|methods| methods.iter().any(|listed| listed.as_bytes() == method))
        };
        if !lists(self.form.method) {
            return Some(Reason::MethodNotAllowed);
        }
        // The rule is selected: if it has `paths`, the request is path-scoped whatever follows.
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

    /// The canonical path, computed once. `OPTIONS *` and tunnels have no other form than their own.
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
    fn upgrades_allowed(&self, rule: &EgressRule) -> bool {
        let named = self.request.values(b"upgrade").flat_map(|value| value.split(|&b| b == b','));
        named.chain(self.request.protocol).all(|protocol| {
            rule.upgrades.iter().any(|listed| listed.0.as_bytes().eq_ignore_ascii_case(protocol.trim_ascii()))
        })
    }

    /// Records the path that `paths` were compared with, when the request is path-scoped.
    pub fn note_path<E: Environment>(&self, facts: &mut Facts<'_, E>) {
        if facts.environment.is_tracing()
            && let Some(canonical) = &self.canonical
        {
            let path = canonical.as_ref().map(|path| String::from_utf8_lossy(path).into_owned());
            facts.environment.note(Note::CanonicalPath(path.map_err(|reason| *reason)));
        }
    }

    /// The result.
    ///
    /// # Errors
    /// With the reason, when the request is path-scoped and its path has no canonical form.
    pub fn finish(self) -> Result<SearchResult, Reason> {
        let canonical = match self.canonical.transpose()? {
            Some(Cow::Owned(path)) => Some(path),
            _ => None,
        };
        Ok(SearchResult { rule: self.rule, nearest: self.nearest, canonical })
    }
}
