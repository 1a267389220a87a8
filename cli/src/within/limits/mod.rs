//! Decides whether a team has, for each of the platform's limits, limits that refuse every request that it refuses.
//!
//! A limit is as tight as another when it counts every request that the other counts, in buckets that are not finer,
//! each for at least the same cost, and does not pass more at once or over time. Then every sequence that conforms to
//! it conforms to the other: GCRA admits a sequence exactly when no part of it costs more than burst and rate allow.

mod attributes;
mod limit;
mod search;
mod start;

use penstock_policy::document::{GatewayDuration, Node};
use penstock_policy::rate_limits::{LimitDocument, LimitMode, OnMissingKey};
use penstock_policy::{Policy, Timestamp};

use super::excess::{Excess, identity, setting};
use super::witness::Witness;
use crate::cover::{items, matches_cover};
use crate::documents::Documents;
use crate::words::quota;
use limit::LimitCost;
pub use limit::ReadLimit;
pub use search::LimitSearch;
pub use start::{complete, plain};

/// Where the team's limits refuse less than the platform's.
pub fn excesses(platform: (&Documents, &Node), team: (&Documents, &Node), now: Timestamp) -> Vec<Excess> {
    let (theirs, ours) = (ReadLimit::all(platform.0, platform.1), ReadLimit::all(team.0, team.1));
    let settings = SettingsPair { platform: platform.1, team: team.1 };
    let mut excesses = Vec::new();
    for limit in theirs.iter().filter(|limit| limit.document.mode == LimitMode::Enforce) {
        let Some((path, problem)) = settings.excess(*limit, &ours) else { continue };
        let name = &limit.document.name.0;
        let message = format!("the platform's limit `{name}` refuses more ({}): {problem}", quota(limit.document));
        let help = Some("add a limit that is at least as strict, for at least the same requests".to_owned());
        let witness = witness((platform.1, *limit), (team.1, &ours), now);
        excesses.push(Excess { path, message, help, witness });
    }
    excesses
}

/// Whether the limits `ours` of a policy together refuse whatever `limit` of another policy refuses.
pub fn are_as_tight(limit: (&Node, ReadLimit<'_>), ours: (&Node, &[ReadLimit<'_>])) -> bool {
    SettingsPair { platform: limit.0, team: ours.0 }.excess(limit.1, ours.1).is_none()
}

/// The settings of a policy with only these limits.
pub fn alone(policy: &Node, limits: Vec<Node>) -> Option<Policy> {
    let mut fields = vec![("rateLimits".to_owned(), Node::List(limits))];
    fields.extend(policy.get("settings").map(|settings| ("settings".to_owned(), settings.clone())));
    Policy::from_node(&Node::Map(fields)).ok()
}

/// A sequence that shows that the team's limits are looser, if one is found.
fn witness(platform: (&Node, ReadLimit<'_>), team: (&Node, &[ReadLimit<'_>]), now: Timestamp) -> Option<Witness> {
    let (limit, ours) = (platform.1, team.1);
    let theirs = alone(platform.0, vec![limit.node.clone()])?;
    let mine = alone(team.0, ours.iter().map(|limit| limit.node.clone()).collect())?;
    let mut search = LimitSearch {
        theirs: &theirs,
        mine: &mine,
        settings: [platform.0, team.0],
        plain: vec![plain()],
        now,
        decisions: 0,
    };
    search.sequence(limit, ours).map(|drafts| Witness::of(&drafts))
}

/// Both policies, because the settings determine what limits see.
struct SettingsPair<'n> {
    platform: &'n Node,
    team: &'n Node,
}

impl SettingsPair<'_> {
    /// Why the team's limits do not refuse all that `limit` refuses, and where.
    fn excess(&self, limit: ReadLimit<'_>, ours: &[ReadLimit<'_>]) -> Option<(String, String)> {
        if ours.is_empty() {
            return Some(("rateLimits".to_owned(), "the policy has no limits".to_owned()));
        }
        let at = |number: usize| format!("rateLimits[{number}]");
        // Requests with the complete key.
        let mut nearest: Option<(bool, usize, Vec<String>)> = None;
        let mut is_bounded = false;
        for (number, mine) in ours.iter().enumerate() {
            let mut problems = self.looser(*mine, limit);
            problems.extend(self.finer(*mine, limit));
            is_bounded |= problems.is_empty();
            let other_name = mine.document.name != limit.document.name;
            let is_nearer =
                nearest.as_ref().is_none_or(|(other, _, than)| (other_name, problems.len()) < (*other, than.len()));
            if is_nearer {
                nearest = Some((other_name, number, problems));
            }
        }
        let (_, number, problems) = nearest?;
        if !is_bounded {
            let name = ours.get(number).map(|limit| limit.document.name.0.to_string()).unwrap_or_default();
            return Some((at(number), format!("`{name}` {}", problems.join("; "))));
        }
        // Requests that lack some part of it.
        let parts: Vec<&Node> = limit.key().iter().filter(|part| may_be_missing(part)).collect();
        if parts.is_empty() || limit.document.on_missing_key == OnMissingKey::Skip {
            return None;
        }
        let refuses = |part: &Node| {
            ours.iter().any(|mine| {
                mine.document.mode == LimitMode::Enforce
                    && mine.document.on_missing_key == OnMissingKey::Deny
                    && has_part(*mine, part)
                    && self.matches_all(*mine, limit)
                    && self.sees_alike(part)
            })
        };
        if parts.iter().all(|part| refuses(part)) {
            return None;
        }
        if limit.document.on_missing_key == OnMissingKey::Deny {
            let missing: Vec<String> =
                parts.iter().filter(|part| !refuses(part)).map(|part| part.to_string()).collect();
            return Some((at(number), format!("requests without {} are not refused", missing.join(", "))));
        }
        let shares = |mine: &ReadLimit<'_>| {
            let is_one_bucket = mine.key().iter().all(|part| part.get("constant").is_some());
            let all_miss = mine.document.on_missing_key != OnMissingKey::Skip
                && parts.iter().all(|part| has_part(*mine, part) && self.sees_alike(part));
            (is_one_bucket || all_miss) && self.looser(*mine, limit).is_empty()
        };
        if ours.iter().any(shares) {
            return None;
        }
        Some((at(number), "requests without the whole key do not share one bucket".to_owned()))
    }

    /// Why `mine` passes more than `limit`, apart from the keys.
    fn looser(&self, mine: ReadLimit<'_>, limit: ReadLimit<'_>) -> Vec<String> {
        let mut problems = Vec::new();
        let (ours, theirs) = (mine.document, limit.document);
        if ours.mode != LimitMode::Enforce {
            problems.push("is in Shadow and refuses nothing".to_owned());
        }
        if !self.matches_all(mine, limit) {
            problems.push("does not apply to all the requests".to_owned());
        }
        let rate = |limit: &LimitDocument, other: &LimitDocument| {
            u128::from(limit.limit.requests.0) * other.limit.per.0.as_nanos()
        };
        let service = |limit: ReadLimit<'_>| limit.node.get("scope").and_then(|scope| scope.get("global")).cloned();
        let (our_service, their_service) = (service(mine), service(limit));
        let is_global = their_service.is_some();
        let other_window = is_global && ours.limit.per.0 != theirs.limit.per.0;
        if rate(ours, theirs) > rate(theirs, ours) || mine.burst() > limit.burst() || other_window {
            problems.push(format!("lets pass {}", quota(ours)));
        }
        problems.extend(cheaper(&mine.cost(), &limit.cost()));
        match (our_service, their_service) {
            (None, None) => {
                const DEFAULT_CAPACITY: u32 = 65_536;
                let capacity = |limit: &LimitDocument| limit.capacity.map_or(DEFAULT_CAPACITY, |capacity| capacity.0);
                if capacity(ours) > capacity(theirs) && !mine.key().is_empty() {
                    problems.push("counts more keys before they share buckets".to_owned());
                }
            }
            (Some(ours), Some(theirs)) => {
                if ["cluster", "domain"].iter().any(|field| ours.get(field) != theirs.get(field)) {
                    problems.push("uses another service or domain".to_owned());
                }
                let denies =
                    |service: &Node| matches!(service.get("onFailure"), Some(Node::String(word)) if word == "Deny");
                if !denies(&ours) && (denies(&theirs) || patience(&ours) < patience(&theirs)) {
                    problems.push("lets pass more when the service does not answer".to_owned());
                }
            }
            _ => problems.push("has another scope".to_owned()),
        }
        problems
    }

    /// Why the buckets of `mine` are finer than those of `limit`, for requests that have the complete key.
    fn finer(&self, mine: ReadLimit<'_>, limit: ReadLimit<'_>) -> Option<String> {
        let follows = |part: &Node| {
            part.get("constant").is_some()
                || (self.sees_alike(part) && limit.key().iter().any(|wide| part_follows(part, wide)))
        };
        let finer: Vec<String> = mine.key().iter().filter(|part| !follows(part)).map(|part| part.to_string()).collect();
        (!finer.is_empty()).then(|| format!("has a bucket for each {}", finer.join(", ")))
    }

    /// Whether `mine` applies to every request to which `limit` applies.
    fn matches_all(&self, mine: ReadLimit<'_>, limit: ReadLimit<'_>) -> bool {
        let has = |field: &str| mentions(mine.node.get("matches"), field);
        (!has("path") || self.same("path"))
            && (!has("claims") || self.same("claims"))
            && matches_cover(items(&mine.document.matches), items(&limit.document.matches))
    }

    /// Whether both policies see the same value for a part of a key.
    fn sees_alike(&self, part: &Node) -> bool {
        let Node::Map(fields) = part else { return false };
        fields.iter().all(|(field, _)| match field.as_str() {
            "sourceAddress" => self.same("sourceAddress"),
            "peer" => identity(self.platform) == identity(self.team),
            "claim" => self.same("claims"),
            "path" => self.same("path"),
            _ => true,
        })
    }

    fn same(&self, name: &str) -> bool {
        setting(self.platform, name) == setting(self.team, name)
    }
}

/// Why a request costs less.
fn cheaper(ours: &LimitCost, theirs: &LimitCost) -> Option<String> {
    let is_dear = match (&theirs.header, &theirs.response_header) {
        (_, Some(name)) => {
            ours.response_header.as_ref() == Some(name) && ours.default >= theirs.default && ours.max >= theirs.max
        }
        _ if ours.response_header.is_some() => false,
        (None, None) => match ours.header {
            // A header may contain 1.
            Some(_) => theirs.default <= 1,
            None => ours.default >= theirs.default,
        },
        (Some(name), None) => {
            let is_same =
                ours.header.as_ref() == Some(name) && ours.default >= theirs.default && ours.max >= theirs.max;
            let most = theirs.max.max(theirs.default);
            is_same || most <= 1 || (ours.header.is_none() && ours.default >= most)
        }
    };
    (!is_dear).then(|| "counts a lower cost for some requests".to_owned())
}

/// How long requests wait for the rate-limit service.
fn patience(service: &Node) -> std::time::Duration {
    const DEFAULT: std::time::Duration = std::time::Duration::from_millis(20);
    match service.get("timeout") {
        Some(Node::String(text)) => GatewayDuration::parse(text).map_or(DEFAULT, |duration| duration.0),
        _ => DEFAULT,
    }
}

/// Whether the value of `part` is determined by that of `wide`.
fn part_follows(part: &Node, wide: &Node) -> bool {
    if part == wide {
        return true;
    }
    let (Some(narrow), Some(wide)) = (part.get("sourceAddress"), wide.get("sourceAddress")) else { return false };
    let bits = |node: &Node, field: &str, all: i64| match node.get(field) {
        Some(Node::Integer(bits)) => *bits,
        _ => all,
    };
    [("ipv4Prefix", 32), ("ipv6Prefix", 128)]
        .iter()
        .all(|(field, all)| bits(narrow, field, *all) <= bits(wide, field, *all))
}

/// Whether the key has a part that is missing in the same requests.
fn has_part(limit: ReadLimit<'_>, part: &Node) -> bool {
    let is_address = |part: &Node| part.get("sourceAddress").is_some();
    limit.key().iter().any(|other| other == part || (is_address(other) && is_address(part)))
}

/// Whether a request may lack the part.
fn may_be_missing(part: &Node) -> bool {
    !["path", "method", "hostname", "constant"].iter().any(|field| part.get(field).is_some())
}

fn mentions(matches: Option<&Node>, field: &str) -> bool {
    match matches {
        Some(Node::List(entries)) => entries.iter().any(|entry| entry.get(field).is_some()),
        _ => false,
    }
}
