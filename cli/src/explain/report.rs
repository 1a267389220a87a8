//! What a decision's notes and the policy say together, section by section: the JSON form of `penstock explain`.

use penstock_policy::egress::{Destination, EgressDocument, RuleDocument, Target};
use penstock_policy::explain::{BucketNote, CanaryNote, LimitNote, Note, Trace};
use penstock_policy::matching::{RequestMatch, Verdict};
use penstock_policy::wire::{WireDecision, WireRequest};
use penstock_policy::{Header, Request, Timestamp};
use serde::Serialize;

use crate::documents::Documents;
use crate::words;

/// One explained decision.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Method, URL.
    pub request: String,
    /// When it was decided, RFC 3339.
    pub time: String,
    /// As `penstock replay` prints it.
    pub decision: WireDecision,
    /// The sections of the policy in the order in which they run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressReport>,
    /// The limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limits: Option<LimitsReport>,
    /// The route rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<RulesReport>,
    /// The canaries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canaries: Option<CanariesReport>,
}

/// A rule, limit or canary with `matches` that was considered: its entry that came nearest.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Considered {
    /// Its name.
    pub name: String,
    /// Whether the entry holds.
    pub matches: bool,
    /// How many of its conditions hold.
    pub held: usize,
    /// Every condition in the order in which it is asked; empty: it takes every request.
    pub conditions: Vec<Condition>,
}

/// One condition.
#[derive(Debug, Serialize)]
pub struct Condition {
    /// In words.
    pub condition: String,
    /// What the request has.
    pub actual: String,
    /// Whether it holds.
    pub holds: bool,
}

/// `egress`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressReport {
    /// `allow`, `audit` or `deny`.
    pub outcome: &'static str,
    /// Why not `allow`, as in the decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The destination's normal form; absent: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its port, given or implied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `authority`, `connection` or `scheme`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_from: Option<&'static str>,
    /// The verified identity of the caller, when anything asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Whether a rule with `paths` was selected.
    pub path_scoped: bool,
    /// The path that `paths` saw and that is forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canonical_path: Option<String>,
    /// Entries of `deny` that cover the destination.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denied_by: Vec<String>,
    /// The rules whose hosts cover the destination, as far as they were asked; those that allow it first, then the
    /// nearest.
    pub rules: Vec<EgressRule>,
    /// How many were asked, beyond those shown.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: usize,
    /// Hosts of the rules that look like the destination's, when none covers it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub similar_hosts: Vec<String>,
}

/// One rule that the destination selects.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressRule {
    /// Its name.
    pub name: String,
    /// Who answers for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Where it stopped; absent: it allows the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<&'static str>,
    /// What the rule wants there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wants: Option<String>,
}

/// `rateLimits`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsReport {
    /// `passed`, `limited` or `notReached`.
    pub outcome: &'static str,
    /// The limits that applied.
    pub limits: Vec<LimitReport>,
    /// The nearest of those whose `matches` do not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest_misses: Vec<Considered>,
}

/// One limit that matched.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitReport {
    /// Its name.
    pub name: String,
    /// `passed`, `limited`, `skipped` or `missingKey`.
    pub outcome: &'static str,
    /// Whether it only says so.
    pub shadow: bool,
    /// The parts of the key.
    pub key: Vec<(String, String)>,
    /// The part of the key that the request does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// What the request counts for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<u32>,
    /// Whether the cost header said something that is no cost.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bad_cost: bool,
    /// What the full bucket holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// The bucket before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Bucket>,
    /// The bucket after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Bucket>,
    /// Seconds until it would pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<f64>,
    /// Whether it shares a bucket with other keys, for want of room.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub overflow: bool,
}

/// A bucket at one instant.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// Requests of cost 1 that would pass.
    pub remaining: u32,
    /// Seconds until it is full: its debt.
    pub debt_seconds: f64,
}

/// `routes`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RulesReport {
    /// `rule`, `failedOver`, `default`, `none` or `notReached`.
    pub outcome: &'static str,
    /// The rule that won.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub winner: Option<Considered>,
    /// Others that match and come after it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also_match: Vec<String>,
    /// The nearest of those that do not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest_misses: Vec<Considered>,
}

/// `canaries`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CanariesReport {
    /// `variant`, `none`, `routeDecided` (a route rule did already) or `notReached`.
    pub outcome: &'static str,
    /// The canary that chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
    /// The nearest of those before it that do not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest_misses: Vec<Considered>,
}

/// How a canary chose.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// Its name and conditions.
    pub canary: Considered,
    /// The override that beat the weights, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overridden_by: Option<String>,
    /// What keeps the user on a variant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    /// The ramp at this instant, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<String>,
    /// In document order.
    pub variants: Vec<Variant>,
    /// The variant that override or weights give, when a rollback is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<String>,
}

/// A canary's key.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// Where it comes from.
    pub from: String,
    /// Its value.
    pub value: String,
    /// Whether it is chance.
    pub random: bool,
    /// Whether it is a new user's.
    pub new: bool,
}

/// One variant for this key.
#[derive(Debug, Serialize)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// The value of the route header.
    pub route: String,
    /// Of all requests, 0 to 1.
    pub share: f64,
    /// Its uniform number for the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub u: Option<f64>,
    /// `share / -ln u`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Whether the request gets it.
    pub chosen: bool,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// What an explanation is made of.
#[derive(Debug)]
pub struct Decided<'a> {
    /// The policy's sections.
    pub documents: &'a Documents,
    /// The request.
    pub request: &'a WireRequest,
    /// When it was decided.
    pub time: Timestamp,
    /// The decision.
    pub decision: WireDecision,
    /// Its notes.
    pub trace: Trace,
    /// How many near misses to show in each section.
    pub misses: usize,
}

impl Decided<'_> {
    /// The report.
    pub fn report(self) -> Report {
        let owned = self.request.header_map();
        let headers: Vec<Header<'_>> = owned.iter().map(|(name, value)| (&**name, &**value)).collect();
        let request = Request::new(&headers);
        // What egress forwards is what the sections after it see.
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
        let reached = self.decision.action != Some("respond");
        let routes = self.documents.routes.is_some().then(|| match reached {
            false => RulesReport { outcome: "notReached", ..RulesReport::default() },
            true => self.routes(&later),
        });
        let canaries = (!self.documents.canaries.is_empty()).then(|| match reached {
            false => CanariesReport { outcome: "notReached", ..CanariesReport::default() },
            true => self.canaries(&later),
        });
        Report {
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

    fn canonical(&self) -> Option<&Result<String, &'static str>> {
        self.notes().find_map(|note| match note {
            Note::CanonicalPath(path) => Some(path),
            _ => None,
        })
    }

    fn egress(&self, document: &EgressDocument, request: &Request<'_>) -> EgressReport {
        let mine = self.decision.section == Some("egress");
        let outcome = match (self.decision.action, self.decision.would_respond) {
            (Some("respond"), _) if mine => "deny",
            (_, Some(_)) if mine => "audit",
            _ => "allow",
        };
        let mut report = EgressReport {
            outcome,
            reason: self.decision.reason.filter(|_| outcome != "allow"),
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
                    report.port_from = Some(destination.port_from);
                }
                Note::Caller(caller) => report.caller.clone_from(caller),
                Note::Denied(entries) => {
                    let entries = entries.iter().filter_map(|&entry| document.deny.get(entry));
                    report.denied_by = entries.map(destination_words).collect();
                }
                Note::EgressRule(rule, stopped) if !asked.contains(&(*rule, *stopped)) => asked.push((*rule, *stopped)),
                _ => {}
            }
        }
        // A rule that several of its destinations select is shown once, as near as it came; reasons are in the order
        // in which a rule is asked.
        asked.sort_by_key(|(rule, stopped)| (stopped.map(|stopped| std::cmp::Reverse(stage(stopped))), *rule));
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
            .map(|(rule, stopped)| EgressRule {
                name: rule.name.0.to_string(),
                owner: rule.owner.as_ref().map(|text| text.0.to_string()),
                purpose: rule.reason.as_ref().map(|text| text.0.to_string()),
                wants: stopped.map(|stopped| wants(rule, stopped, &report, request)),
                stopped,
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
            limit.is_some_and(|limit| limit.mode == penstock_policy::rate_limits::Mode::Shadow)
        };
        let limits: Vec<LimitReport> = self
            .notes()
            .filter_map(|note| match note {
                Note::Limit(note) => Some(limit(note, shadow(&note.limit))),
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
        let limited = self.decision.action == Some("respond") && self.decision.section == Some("rateLimits");
        LimitsReport {
            outcome: if limited { "limited" } else { "passed" },
            nearest_misses: nearest_misses(others, request, self.misses),
            limits,
        }
    }

    fn routes(&self, request: &Request<'_>) -> RulesReport {
        let rules = self.documents.routes.iter().flat_map(|routes| &routes.rules.0);
        let rules: Vec<_> = rules.map(|rule| (&*rule.name.0, entries(&rule.matches))).collect();
        let winner = self.notes().find_map(|note| match note {
            Note::Route(rule) => Some(rule.as_str()),
            _ => None,
        });
        let outcome = match (winner, &self.decision.route) {
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
        let routed = self.notes().any(|note| matches!(note, Note::Route(_)));
        if routed {
            return CanariesReport { outcome: "routeDecided", ..CanariesReport::default() };
        }
        let before =
            self.documents.canaries.iter().take_while(|canary| chose.is_none_or(|note| *note.canary != *canary.name.0));
        let before = before.map(|canary| (&*canary.name.0, entries(&canary.matches)));
        CanariesReport {
            outcome: if chose.is_some() { "variant" } else { "none" },
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
        let from = match &document.stickiness {
            None => "chance, for each request".to_owned(),
            Some(Stickiness::Header(name)) => format!("header {}", name.0),
            Some(Stickiness::Cookie(cookie)) => format!("cookie {}", cookie.name.0),
            Some(Stickiness::SourceAddress) => "source address".to_owned(),
            Some(Stickiness::Peer) => "peer".to_owned(),
        };
        let key = |key: &penstock_policy::explain::KeyNote| Key {
            from,
            value: key.text.clone(),
            random: key.is_random,
            new: key.is_new,
        };
        let ramp = document.ramp.as_ref().zip(note.percent).map(|(ramp, percent)| ramp_words(ramp, percent, self.time));
        let scale = note.variants.iter().map(|variant| variant.weight).sum::<u64>().max(1) as f64;
        let variants = note.variants.iter().enumerate().map(|(place, variant)| Variant {
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

/// The ramp at `time`: which step, and until when.
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
    let bucket =
        |bucket: &BucketNote| Bucket { remaining: bucket.remaining, debt_seconds: bucket.until_full.as_secs_f64() };
    LimitReport {
        name: note.limit.clone(),
        outcome: if note.wait.is_some() { "limited" } else { "passed" },
        shadow,
        key: note.key.clone(),
        missing: note.missing.clone(),
        cost: Some(note.cost),
        bad_cost: note.bad_cost,
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

/// A rule by its entry that came nearest: most conditions held, then fewest failed, then the first.
fn considered(name: &str, entries: &[RequestMatch], request: &Request<'_>) -> Considered {
    let verdicts = entries.iter().map(|entry| entry.verdicts(request));
    let nearest = verdicts.min_by_key(|verdicts| {
        let failed = verdicts.iter().filter(|verdict| !verdict.holds).count();
        (failed > 0, std::cmp::Reverse(verdicts.len() - failed), failed)
    });
    let conditions: Vec<Condition> = nearest.unwrap_or_default().into_iter().map(Condition::from).collect();
    Considered {
        name: name.to_owned(),
        matches: conditions.iter().all(|condition| condition.holds),
        held: conditions.iter().filter(|condition| condition.holds).count(),
        conditions,
    }
}

impl From<Verdict> for Condition {
    fn from(verdict: Verdict) -> Condition {
        Condition { condition: verdict.condition, actual: words::shortened(&verdict.actual, 200), holds: verdict.holds }
    }
}

/// The rules that came nearest of those that do not match, at most `most`.
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

/// A destination of a rule or of `deny`.
pub fn destination_words(destination: &Destination) -> String {
    let target = match &destination.target {
        Target::Host(host) => host.0.to_string(),
        Target::Cidr(range) => range.to_string(),
    };
    match &destination.ports {
        None => target,
        Some(ports) => format!("{target} port {}", list(ports.0.iter().map(|port| port.0.to_string()))),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// In which order a rule is asked: later is nearer.
fn stage(reason: &str) -> usize {
    const ORDER: [&str; 11] = [
        "portNotAllowed",
        "callerUnknown",
        "callerNotAllowed",
        "ruleNotYetValid",
        "ruleExpired",
        "methodNotAllowed",
        "ruleNeedsHttp",
        "methodOverrideNotAllowed",
        "connectNotAllowed",
        "upgradeNotAllowed",
        "pathNotAllowed",
    ];
    ORDER.iter().position(|known| *known == reason).unwrap_or(ORDER.len())
}

/// What `rule` wants where it stopped.
fn wants(rule: &RuleDocument, stopped: &str, report: &EgressReport, request: &Request<'_>) -> String {
    let lossy = |bytes: &[u8]| words::shortened(&String::from_utf8_lossy(bytes), 200);
    let caller = || report.caller.as_deref().unwrap_or("unknown").to_owned();
    match stopped {
        "portNotAllowed" => {
            let to = list(rule.to.0.iter().map(destination_words));
            format!(
                "wants {to}; the request is for port {}",
                report.port.map_or("unknown".to_owned(), |port| port.to_string())
            )
        }
        "callerUnknown" | "callerNotAllowed" => {
            let from = list(rule.from.iter().flat_map(|from| &from.0).map(|pattern| pattern.as_str().to_owned()));
            format!("is for {from}; the caller is {}", caller())
        }
        "ruleNotYetValid" => format!("begins at {}", rule.not_before.map(words::instant).unwrap_or_default()),
        "ruleExpired" => format!("expired at {}", rule.expires.map(words::instant).unwrap_or_default()),
        "methodNotAllowed" | "methodOverrideNotAllowed" => {
            let methods = list(rule.methods.iter().flat_map(|methods| &methods.0).map(|method| method.0.to_string()));
            let overrides = ["x-http-method-override", "x-http-method", "x-method-override"];
            let asked = overrides
                .iter()
                .find_map(|name| request.value(name.as_bytes()))
                .filter(|_| stopped != "methodNotAllowed");
            format!("lists {methods}; the request's is {}", lossy(asked.unwrap_or(request.method)))
        }
        "connectNotAllowed" => "has no `connect: true`".to_owned(),
        "upgradeNotAllowed" => match rule.upgrades.is_empty() {
            true => "lists no `upgrades`".to_owned(),
            false => {
                format!("lists the upgrades {}", list(rule.upgrades.iter().map(|protocol| protocol.0.to_string())))
            }
        },
        "pathNotAllowed" => {
            let paths = list(rule.paths.iter().flat_map(|paths| &paths.0).map(|path| path.0.to_string()));
            let path = report.canonical_path.clone().unwrap_or_else(|| lossy(request.path));
            format!("wants a path that {paths}; the canonical path is {path}")
        }
        other => words::reason(other).to_owned(),
    }
}

/// Hosts of the rules that a reader could have meant: with few other letters, or above or below the one asked for.
fn similar_hosts(document: &EgressDocument, host: &str, most: usize) -> Vec<String> {
    let mut similar: Vec<(f64, String)> = Vec::new();
    for to in document.rules.0.iter().flat_map(|rule| &rule.to.0) {
        let Target::Host(pattern) = &to.target else { continue };
        let name = &*pattern.0.name;
        let below = |a: &str, b: &str| a.strip_suffix(b).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let likeness = match below(host, name) || below(name, host) && host.contains('.') {
            true => 1.0,
            false => strsim::normalized_damerau_levenshtein(host, name),
        };
        let text = pattern.0.to_string();
        if likeness >= 0.75 && similar.iter().all(|(_, other)| *other != text) {
            similar.push((likeness, text));
            similar.sort_by(|(a, _), (b, _)| b.total_cmp(a));
            similar.truncate(most);
        }
    }
    similar.into_iter().map(|(_, text)| text).collect()
}
