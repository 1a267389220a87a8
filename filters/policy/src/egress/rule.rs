//! One rule, ready to decide.

use super::caller::CallerPattern;
use super::document::{EgressRuleDocument, UpgradeProtocol};
use super::facts::Facts;
use crate::environment::Environment;
use crate::matching::PathMatch;
use crate::reason::Reason;
use crate::timestamp::Timestamp;

/// One rule, ready to decide.
#[derive(Debug)]
pub struct EgressRule {
    /// Unique among the rules.
    pub name: Box<str>,
    /// The team or person that is responsible for it.
    pub owner: Option<Box<str>>,
    /// Why it exists.
    pub reason: Option<Box<str>>,
    /// The rule is no longer in force from this instant on.
    pub expires: Option<Timestamp>,
    pub(super) not_before: Option<Timestamp>,
    pub(super) from: Option<Box<[CallerPattern]>>,
    pub(super) methods: Option<Box<[Box<str>]>>,
    pub(super) paths: Option<Box<[PathMatch]>>,
    pub(super) connect: bool,
    pub(super) upgrades: Box<[UpgradeProtocol]>,
}

impl EgressRule {
    pub(super) fn new(document: EgressRuleDocument) -> EgressRule {
        EgressRule {
            name: document.name.0,
            owner: document.owner.map(|text| text.0),
            reason: document.reason.map(|text| text.0),
            expires: document.expires,
            not_before: document.not_before,
            from: document.from.map(|from| from.0.into()),
            methods: document.methods.map(|methods| methods.0.into_iter().map(|method| method.0).collect()),
            paths: document.paths.map(|paths| paths.0.into_iter().map(|path| path.0).collect()),
            connect: document.connect,
            upgrades: document.upgrades.into(),
        }
    }

    /// Why the rule does not allow this caller at this time; `None`: it does.
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
