//! Makes the report from a decision, its trace and the policy text.

use penstock_policy::egress::EgressDocument;
use penstock_policy::explain::{BucketNote, CanaryNote, LimitNote, Note, Notes};
use penstock_policy::matching::{ConditionVerdict, RequestMatch};
use penstock_policy::wire::{WireDecision, WireRequest, World};
use penstock_policy::{Header, Policy, Reason, Request, Scratch, Timestamp};

use super::egress::{destination_words, similar_hosts, wants};
use super::report::{
    BucketReport, CanariesReport, Choice, ConditionReport, Considered, EgressReport, EgressRuleReport, Explanation,
    LimitReport, LimitsReport, RulesReport, StickyKey, VariantReport,
};
use crate::documents::Documents;
use crate::words;

/// The inputs of an explanation.
#[derive(Debug)]
pub struct Decided<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// The policy's sections.
    pub documents: &'a Documents,
    /// The request.
    pub request: &'a WireRequest,
    /// The time of the decision.
    pub time: Timestamp,
    /// The decision.
    pub decision: WireDecision,
    /// The trace of the decision.
    pub trace: Notes,
    /// The number of near misses to show in each section.
    pub misses: usize,
}

impl Decided<'_> {
    /// Makes the report.
    pub fn report(self) -> Explanation {
        let owned = self.request.header_map();
        let headers: Vec<Header<'_>> = owned.iter().map(|(name, value)| (&**name, &**value)).collect();
        let scratch = Scratch::default();
        let request = Request::new(&headers).with_scratch(&scratch);
        let mut world = World::new(self.time, 0);
        let request = self.policy.inspected(&request, &mut self.request.environment(&mut world));
        // The sections after egress see the path that egress forwards.
        let target = match self.decision.headers.set.iter().find(|(name, _)| name == ":path") {
            Some((_, target)) if self.canonical().is_some() => Some(target.clone()),
            _ => None,
        };
        let later = target.as_ref().map_or(request, |target| request.with_target(target.as_bytes()));
        let egress = self.documents.egress.as_ref().map(|document| self.egress(document, &request));
        let stopped = |section: &str| self.decision.action == Some("respond") && self.decision.section == Some(section);
        let limits = (!self.documents.limits.is_empty()).then(|| match stopped("egress") {
            true => LimitsReport { outcome: "notReached", ..LimitsReport::default() },
            false => self.limits(&later),
        });
        let reached = !stopped("egress") && !stopped("rateLimits");
        let routes = self.documents.routes.is_some().then(|| match reached {
            false => RulesReport { outcome: "notReached", ..RulesReport::default() },
            true => self.routes(&later),
        });
        let canaries = (!self.documents.canaries.is_empty()).then(|| match reached && !stopped("routes") {
            false => CanariesReport { outcome: "notReached", ..CanariesReport::default() },
            true => self.canaries(&later),
        });
        Explanation {
            request: crate::traffic::line(self.request),
            time: words::instant(self.time),
            egress,
            rate_limits: limits,
            routes,
            canaries,
            decision: self.decision,
        }
    }

    fn notes(&self) -> impl Iterator<Item = &Note> {
        self.trace.0.iter()
    }

    fn canonical(&self) -> Option<&Result<String, Reason>> {
        self.notes().find_map(|note| match note {
            Note::CanonicalPath(path) => Some(path),
            _ => None,
        })
    }

    fn egress(&self, document: &EgressDocument, request: &Request<'_>) -> EgressReport {
        let mut report = EgressReport {
            canonical_path: self.canonical().and_then(|path| path.as_ref().ok().cloned()),
            path_scoped: self.canonical().is_some(),
            ..EgressReport::default()
        };
        let mut asked = Vec::new();
        for note in self.notes() {
            match note {
                Note::Destination(destination) => {
                    report.host = Some(destination.host.clone());
                    report.port = destination.port;
                    report.port_from = destination.port.map(|_| destination.port_from);
                }
                Note::Egress { verdict, reason, caller } => {
                    report.caller.clone_from(caller);
                    (report.outcome, report.reason) = (verdict.as_str(), reason.map(Reason::as_str));
                }
                Note::Denied(entries) => {
                    let entries = entries.iter().filter_map(|&entry| document.deny.get(entry));
                    report.denied_by = entries.map(destination_words).collect();
                }
                Note::EgressRule(rule, stopped) if !asked.contains(&(*rule, *stopped)) => asked.push((*rule, *stopped)),
                _ => {}
            }
        }
        // A rule that several of its destinations select is shown once, where it came closest to allowing the request;
        // reasons are ordered as a rule is evaluated.
        asked.sort_by_key(|(rule, stopped)| (stopped.map(std::cmp::Reverse), *rule));
        let mut seen = Vec::new();
        asked.retain(|(rule, _)| {
            !seen.contains(rule) && {
                seen.push(*rule);
                true
            }
        });
        report.more = asked.len().saturating_sub(self.misses.max(1));
        report.rules = asked
            .iter()
            .take(self.misses.max(1))
            .filter_map(|(rule, stopped)| Some((document.rules.0.get(*rule)?, *stopped)))
            .map(|(rule, stopped)| EgressRuleReport {
                name: rule.name.0.to_string(),
                owner: rule.owner.as_ref().map(|text| text.0.to_string()),
                purpose: rule.reason.as_ref().map(|text| text.0.to_string()),
                wants: stopped.map(|stopped| wants(rule, stopped, &report, request)),
                stopped: stopped.map(Reason::as_str),
            })
            .collect();
        if asked.is_empty()
            && let Some(host) = &report.host
        {
            report.similar_hosts = similar_hosts(document, host, self.misses);
        }
        report
    }

    fn limits(&self, request: &Request<'_>) -> LimitsReport {
        let shadow = |name: &str| {
            let limit = self.documents.limits.iter().find(|limit| *limit.name.0 == *name);
            limit.is_some_and(|limit| limit.mode == penstock_policy::rate_limits::LimitMode::Shadow)
        };
        let settled_by = |name: &str| {
            let limit = self.documents.limits.iter().find(|limit| *limit.name.0 == *name)?;
            Some(limit.cost.as_ref()?.response_header.as_ref()?.0.to_string())
        };
        let limits: Vec<LimitReport> = self
            .notes()
            .filter_map(|note| match note {
                Note::Limit(note) => {
                    let settled_by = settled_by(&note.limit);
                    Some(LimitReport { settled_by, ..limit(note, shadow(&note.limit)) })
                }
                Note::Asked { limit, cluster, key, missing, cost } => Some(LimitReport {
                    name: limit.clone(),
                    outcome: if self.refused_by(limit) { "limited" } else { "passed" },
                    shadow: shadow(limit),
                    key: key.clone(),
                    missing: missing.clone(),
                    service: Some(cluster.clone()),
                    cost: Some(*cost),
                    settled_by: settled_by(limit),
                    ..LimitReport::default()
                }),
                Note::NoKey { limit, missing, on_missing_key } => Some(LimitReport {
                    name: limit.clone(),
                    outcome: if *on_missing_key == "Skip" { "skipped" } else { "missingKey" },
                    shadow: shadow(limit),
                    missing: Some(missing.clone()),
                    ..LimitReport::default()
                }),
                _ => None,
            })
            .collect();
        let others =
            self.documents.limits.iter().filter(|limit| limits.iter().all(|report| *report.name != *limit.name.0));
        let others = others.map(|limit| (&*limit.name.0, entries(&limit.matches)));
        let limited = self.is_limited();
        LimitsReport {
            outcome: if limited { "limited" } else { "passed" },
            nearest_misses: nearest_misses(others, request, self.misses),
            limits,
        }
    }

    fn is_limited(&self) -> bool {
        self.decision.action == Some("respond") && self.decision.section == Some("rateLimits")
    }

    fn refused_by(&self, limit: &str) -> bool {
        self.is_limited() && self.decision.rule.as_deref() == Some(limit)
    }

    fn routes(&self, request: &Request<'_>) -> RulesReport {
        let rules = self.documents.routes.iter().flat_map(|routes| &routes.rules.0);
        let rules: Vec<_> = rules.map(|rule| (&*rule.name.0, entries(&rule.matches))).collect();
        let winner = self.notes().find_map(|note| match note {
            Note::Route(rule) => Some(rule.as_str()),
            _ => None,
        });
        let outcome = match (winner, &self.decision.route) {
            (Some(_), _) if self.decision.action == Some("respond") => "redirect",
            (Some(_), _) if self.decision.reason == Some("failedOver") => "failedOver",
            (Some(_), _) => "rule",
            (None, Some(_)) if self.decision.variant.is_none() => "default",
            _ => "none",
        };
        let won = rules.iter().find(|(name, _)| Some(*name) == winner);
        let holds = |entries: &[RequestMatch]| entries.is_empty() || entries.iter().any(|entry| entry.holds(request));
        let others = rules.iter().filter(|(name, entries)| Some(*name) != winner && holds(entries));
        RulesReport {
            outcome,
            winner: won.map(|(name, entries)| considered(name, entries, request)),
            also_match: others.take(self.misses).map(|(name, _)| (*name).to_owned()).collect(),
            nearest_misses: nearest_misses(rules.iter().copied(), request, self.misses),
        }
    }

    fn canaries(&self, request: &Request<'_>) -> CanariesReport {
        let chose = self.notes().find_map(|note| match note {
            Note::Canary(canary) => Some(canary),
            _ => None,
        });
        let rule = self.notes().find_map(|note| match note {
            Note::Route(rule) => Some(rule.clone()),
            _ => None,
        });
        if rule.is_some() {
            return CanariesReport {
                outcome: if chose.is_some() { "variant" } else { "routeDecided" },
                asked_by: rule.filter(|_| chose.is_some()),
                nearest_misses: Vec::new(),
                choice: chose.and_then(|note| self.choice(note, request)),
            };
        }
        let rules = || self.documents.routes.iter().flat_map(|routes| &routes.rules.0);
        let before = self
            .documents
            .canaries
            .iter()
            .take_while(|canary| chose.is_none_or(|note| *note.canary != *canary.name.0))
            .filter(|canary| rules().all(|rule| rule.canary.as_ref() != Some(&canary.name)));
        let before = before.map(|canary| (&*canary.name.0, entries(&canary.matches)));
        CanariesReport {
            outcome: if chose.is_some() { "variant" } else { "none" },
            asked_by: None,
            nearest_misses: nearest_misses(before, request, self.misses),
            choice: chose.and_then(|note| self.choice(note, request)),
        }
    }

    fn choice(&self, note: &CanaryNote, request: &Request<'_>) -> Option<Choice> {
        use penstock_policy::canaries::{OverrideCondition, Stickiness};
        let document = self.documents.canaries.iter().find(|canary| *canary.name.0 == *note.canary)?;
        let overridden_by = note.overridden_by.and_then(|place| document.overrides.get(place)).map(|over| {
            let words = match &over.condition {
                OverrideCondition::Header(condition) => condition.words("header"),
                OverrideCondition::Cookie(condition) => condition.words("cookie"),
            };
            format!("{words}: {}", over.variant.0)
        });
        let source = |source: &Stickiness| match source {
            Stickiness::Header(name) => format!("header {}", name.0),
            Stickiness::Cookie(cookie) => format!("cookie {}", cookie.name.0),
            Stickiness::SourceAddress => "source address".to_owned(),
            Stickiness::Peer => "peer".to_owned(),
            Stickiness::Fact(name) => name.parts().to_string(),
        };
        let sources = document.stickiness.iter().flat_map(|list| list.0.iter().map(source));
        let from = match sources.collect::<Vec<_>>() {
            sources if sources.is_empty() => "random, for each request".to_owned(),
            sources => sources.join(", else "),
        };
        let key = |key: &penstock_policy::explain::KeyNote| StickyKey {
            from,
            value: key.text.clone(),
            random: key.is_random,
            new: key.is_new,
        };
        let ramp = document.ramp.as_ref().zip(note.percent).map(|(ramp, percent)| ramp_words(ramp, percent, self.time));
        let scale = note.variants.iter().map(|variant| variant.weight).sum::<u64>().max(1) as f64;
        let variants = note.variants.iter().enumerate().map(|(place, variant)| VariantReport {
            name: variant.name.clone(),
            route: variant.route.clone(),
            share: variant.share,
            u: variant.u,
            score: variant.score.map(|score| score / scale),
            chosen: place == note.chosen,
        });
        let weighted = note.variants.get(note.weighted).filter(|_| note.weighted != note.chosen);
        Some(Choice {
            canary: considered(&note.canary, entries(&document.matches), request),
            overridden_by,
            key: note.key.as_ref().map(key),
            ramp,
            variants: variants.collect(),
            rolled_back: weighted.map(|variant| variant.name.clone()),
        })
    }
}

/// The ramp at `time`: the current step, and its end.
fn ramp_words(ramp: &penstock_policy::canaries::RampDocument, percent: u32, time: Timestamp) -> String {
    let variant = &ramp.variant.0;
    if time < ramp.starts_at {
        return format!("`{variant}` has 0 % until {}", words::instant(ramp.starts_at));
    }
    let mut ends = ramp.starts_at;
    for (number, step) in (1..).zip(&ramp.steps.0) {
        let Some(lasts) = step.lasts.filter(|_| number < ramp.steps.0.len()) else { break };
        ends.0 = ends.0.saturating_add(u64::try_from(lasts.0.as_nanos()).unwrap_or(u64::MAX));
        if time < ends {
            let steps = ramp.steps.0.len();
            return format!("`{variant}` has {percent} % (step {number} of {steps}) until {}", words::instant(ends));
        }
    }
    format!("`{variant}` has {percent} % (the last step)")
}

fn limit(note: &LimitNote, shadow: bool) -> LimitReport {
    let bucket = |bucket: &BucketNote| BucketReport {
        remaining: bucket.remaining,
        debt_seconds: bucket.until_full.as_secs_f64(),
    };
    LimitReport {
        name: note.limit.clone(),
        outcome: if note.refuses() { "limited" } else { "passed" },
        shadow,
        key: note.key.clone(),
        missing: note.missing.clone(),
        service: None,
        cost: Some(note.cost),
        bad_cost: note.bad_cost,
        settled_by: None,
        burst: Some(note.burst),
        before: Some(bucket(&note.before)),
        after: Some(bucket(&note.after)),
        wait_seconds: note.wait.map(|wait| wait.as_secs_f64()),
        overflow: note.overflow,
    }
}

fn entries(matches: &Option<penstock_policy::document::NonEmpty<RequestMatch>>) -> &[RequestMatch] {
    matches.as_ref().map_or(&[], |entries| &entries.0)
}

/// The closest entry of a rule: the one with the most true conditions, then the fewest false ones, then the first.
fn considered(name: &str, entries: &[RequestMatch], request: &Request<'_>) -> Considered {
    let verdicts = entries.iter().map(|entry| entry.verdicts(request));
    let nearest = verdicts.min_by_key(|verdicts| {
        let failed = verdicts.iter().filter(|verdict| !verdict.holds).count();
        (failed > 0, std::cmp::Reverse(verdicts.len() - failed), failed)
    });
    let conditions: Vec<ConditionReport> = nearest.unwrap_or_default().into_iter().map(ConditionReport::from).collect();
    Considered {
        name: name.to_owned(),
        matches: conditions.iter().all(|condition| condition.holds),
        held: conditions.iter().filter(|condition| condition.holds).count(),
        conditions,
    }
}

impl From<ConditionVerdict> for ConditionReport {
    fn from(verdict: ConditionVerdict) -> ConditionReport {
        ConditionReport {
            condition: verdict.condition,
            actual: words::shortened(&verdict.actual, 200),
            holds: verdict.holds,
        }
    }
}

/// The rules that do not match, closest first, at most `most`.
fn nearest_misses<'d>(
    rules: impl Iterator<Item = (&'d str, &'d [RequestMatch])>,
    request: &Request<'_>,
    most: usize,
) -> Vec<Considered> {
    let mut nearest: Vec<Considered> = Vec::new();
    if most == 0 {
        return nearest;
    }
    for (name, entries) in rules {
        let rule = considered(name, entries, request);
        if rule.matches {
            continue;
        }
        let rank = |rule: &Considered| (std::cmp::Reverse(rule.held), rule.conditions.len());
        let place = nearest.partition_point(|other| rank(other) <= rank(&rule));
        if place < most {
            nearest.truncate(most - 1);
            nearest.insert(place, rule);
        }
    }
    nearest
}
