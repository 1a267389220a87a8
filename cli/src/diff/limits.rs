//! Finds what a change of `rateLimits` passes or refuses.

use std::collections::HashMap;

use penstock_policy::document::Node;
use penstock_policy::rate_limits::{KeyPart, LimitDocument, LimitMode, OnMissingKey};

use super::change::{ChangeClass, Changes, other_fields};
use super::sought::Sought;
use crate::cover::{items, matches_cover};
use crate::documents::{key_parts, named};
use crate::words;

/// Compares the limits; the nodes are the whole policies.
pub fn compare(old: (&[LimitDocument], &Node), new: (&[LimitDocument], &Node), changes: &mut Changes) {
    let (before, after) = (LimitsByName::new(old.0, old.1), LimitsByName::new(new.0, new.1));
    for limit in new.0 {
        let path = format!("rateLimits[{}]", limit.name.0);
        match before.limits.get(&*limit.name.0) {
            Some(was) => {
                let (Some(old), Some(new)) = (before.nodes.get(&*limit.name.0), after.nodes.get(&*limit.name.0)) else {
                    continue;
                };
                compare_limit((was, old), (limit, new), &path, changes);
            }
            None => match after.twin(limit, &before) {
                Some(name) => changes.changed(path, format!("was called `{name}`; its buckets start full")),
                None if limit.mode == LimitMode::Shadow => changes.changed(path, "is new, in Shadow: refuses nothing"),
                None => changes.tightened(path, format!("is new: {}", words::quota(limit))),
            },
        }
    }
    for limit in old.0.iter().filter(|limit| !after.limits.contains_key(&*limit.name.0)) {
        let path = format!("rateLimits[{}]", limit.name.0);
        if before.twin(limit, &after).is_some() {
            continue;
        }
        match limit.mode {
            LimitMode::Enforce => {
                let sought = Sought::Limit(limit.name.0.to_string());
                changes.loosened(path, format!("is gone: no longer {}", words::quota(limit)), sought);
            }
            LimitMode::Shadow => changes.changed(path, "is gone; in Shadow it refused nothing"),
        }
    }
}

/// The limits of one policy by name, and by their content without the name.
struct LimitsByName<'p> {
    limits: HashMap<&'p str, &'p LimitDocument>,
    nodes: HashMap<&'p str, &'p Node>,
    /// The names of the limits with the same content, in order.
    alike: HashMap<String, Vec<&'p str>>,
}

impl<'p> LimitsByName<'p> {
    fn new(limits: &'p [LimitDocument], policy: &'p Node) -> LimitsByName<'p> {
        let mut side = LimitsByName {
            limits: limits.iter().map(|limit| (&*limit.name.0, limit)).collect(),
            nodes: HashMap::new(),
            alike: HashMap::new(),
        };
        for (name, node) in named(policy, &["rateLimits"]) {
            side.nodes.insert(name, node);
            side.alike.entry(without_name(node)).or_default().push(name);
        }
        side
    }

    /// The limit of the other policy with the same content, if its name does not occur in this policy.
    fn twin(&self, limit: &LimitDocument, other: &LimitsByName<'p>) -> Option<&'p str> {
        let alike = other.alike.get(&without_name(self.nodes.get(&*limit.name.0)?))?;
        alike.iter().find(|name| !self.limits.contains_key(*name)).copied()
    }
}

/// The content of a limit without its name, with its fields in a fixed order.
fn without_name(limit: &Node) -> String {
    let Node::Map(fields) = limit else { return limit.to_string() };
    let mut fields: Vec<_> = fields.iter().filter(|(field, _)| field != "name").collect();
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    fields.into_iter().map(|(field, value)| format!("{field}: {value}\n")).collect()
}

fn burst(limit: &LimitDocument) -> u32 {
    limit.limit.burst.unwrap_or(limit.limit.requests).0
}

fn compare_limit(old: (&LimitDocument, &Node), new: (&LimitDocument, &Node), path: &str, changes: &mut Changes) {
    let (before, after) = (old.0, new.0);
    match (before.mode, after.mode) {
        (LimitMode::Enforce, LimitMode::Shadow) => {
            let message = "Enforce → Shadow: refuses nothing any more";
            return changes.loosened(format!("{path}.mode"), message, Sought::Limit(before.name.0.to_string()));
        }
        (LimitMode::Shadow, LimitMode::Enforce) => {
            return changes.tightened(format!("{path}.mode"), format!("Shadow → Enforce: {}", words::quota(after)));
        }
        _ => {}
    }
    // A limit that refuses nothing loosens and tightens nothing.
    let in_force = after.mode == LimitMode::Enforce;
    let mut note = |class: ChangeClass, field: &str, message: String| {
        let sought = Sought::Limit(before.name.0.to_string());
        changes.push(if in_force { class } else { ChangeClass::Changed }, format!("{path}.{field}"), message, sought);
    };
    let way = |more: bool| if more { ChangeClass::Loosened } else { ChangeClass::Tightened };

    let rate = |limit: &LimitDocument, other: &LimitDocument| {
        u128::from(limit.limit.requests.0) * other.limit.per.0.as_nanos()
    };
    let (was, is) = (rate(before, after), rate(after, before));
    if was != is || before.limit.requests != after.limit.requests {
        let class = if was == is { ChangeClass::Changed } else { way(is > was) };
        note(class, "limit", format!("{} → {}", words::quota(before), words::quota(after)));
    }
    let (was, is) = (burst(before), burst(after));
    if was != is {
        note(
            way(is > was),
            "limit.burst",
            format!("{} → {} at once", words::thousands(was.into()), words::thousands(is.into())),
        );
    }
    compare_key((before, old.1), (after, new.1), &mut note);
    compare_cost(before, after, &mut note);

    let strictness = |policy: OnMissingKey| match policy {
        OnMissingKey::Skip => 0,
        OnMissingKey::Share => 1,
        OnMissingKey::Deny => 2,
    };
    if before.on_missing_key != after.on_missing_key {
        let word = |policy: OnMissingKey| match policy {
            OnMissingKey::Skip => "not limited",
            OnMissingKey::Share => "limited together",
            OnMissingKey::Deny => "refused",
        };
        let (was, is) = (before.on_missing_key, after.on_missing_key);
        let message = format!("requests without the key are {}, before: {}", word(is), word(was));
        note(way(strictness(is) < strictness(was)), "onMissingKey", message);
    }

    let (was, is) = (items(&before.matches), items(&after.matches));
    match (matches_cover(is, was), matches_cover(was, is)) {
        (true, true) if old.1.get("matches") == new.1.get("matches") => {}
        (true, true) => note(ChangeClass::Changed, "matches", "is written in another way".to_owned()),
        (true, false) => note(ChangeClass::Tightened, "matches", "applies to more requests".to_owned()),
        (false, true) => note(ChangeClass::Loosened, "matches", "applies to fewer requests".to_owned()),
        (false, false) => {
            note(ChangeClass::Loosened, "matches", "applies to other requests: some are no longer limited".to_owned())
        }
    }

    const DEFAULT_CAPACITY: u32 = 65_536;
    let capacity = |limit: &LimitDocument| limit.capacity.map_or(DEFAULT_CAPACITY, |capacity| capacity.0);
    let (was, is) = (capacity(before), capacity(after));
    if was != is && !after.key.is_empty() {
        let room = if is > was { "fewer" } else { "more" };
        let message = format!(
            "{} → {} keys: {room} of them share a bucket when many are busy, and all buckets start full",
            words::thousands(was.into()),
            words::thousands(is.into())
        );
        note(way(is > was), "capacity", message);
    }
    if old.1.get("scope") != new.1.get("scope") {
        let text = |node: &Node| node.get("scope").map_or("{\"local\":{}}".to_owned(), ToString::to_string);
        note(
            ChangeClass::Loosened,
            "scope",
            format!("{} → {}: another place counts, starting with full buckets", text(old.1), text(new.1)),
        );
    }
    let known = ["name", "mode", "limit", "key", "cost", "onMissingKey", "matches", "capacity", "scope"];
    other_fields(path, old.1, new.1, &known, changes);
}

/// Finer keys make more buckets, so each client gets more. Coarser keys make fewer, but requests that lacked a removed
/// part were limited together, or refused, and now have their own buckets.
fn compare_key(
    old: (&LimitDocument, &Node),
    new: (&LimitDocument, &Node),
    note: &mut impl FnMut(ChangeClass, &str, String),
) {
    let (was, is) = (key_parts(old.1), key_parts(new.1));
    if was == is {
        return;
    }
    let words = |limit: &LimitDocument| match limit.key.as_slice() {
        [] => "one bucket for all".to_owned(),
        parts => parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "),
    };
    let message = format!("counts by {}, before: {}", words(new.0), words(old.0));
    let within = |few: &[Node], many: &[Node]| few.iter().all(|part| many.contains(part));
    // Of two prefixes of the same part, the longer one is finer.
    match (within(was, is), within(is, was)) {
        (true, true) => note(ChangeClass::Changed, "key", format!("{message}; the buckets start full")),
        (true, false) => note(ChangeClass::Loosened, "key", format!("{message}: a client gets several buckets")),
        (false, true) => {
            let gone: Vec<KeyPart> = old.0.key.iter().filter(|part| !new.0.key.contains(part)).cloned().collect();
            let missing = gone.iter().filter(|part| can_be_missing(part)).map(ToString::to_string);
            let missing = missing.collect::<Vec<_>>().join(" or ");
            match old.0.on_missing_key {
                _ if missing.is_empty() => {
                    note(ChangeClass::Tightened, "key", format!("{message}: clients share a bucket"))
                }
                OnMissingKey::Deny => {
                    note(ChangeClass::Loosened, "key", format!("{message}: requests without {missing} were refused"));
                }
                OnMissingKey::Share if !is.is_empty() => {
                    let message =
                        format!("{message}: requests without {missing} shared one bucket, now each client has its own");
                    note(ChangeClass::Loosened, "key", message);
                }
                _ => note(ChangeClass::Tightened, "key", format!("{message}: clients share a bucket")),
            }
        }
        (false, false) => match coarser_prefix(old.0, new.0) {
            true => note(ChangeClass::Tightened, "key", format!("{message}: clients share a bucket")),
            false => note(
                ChangeClass::Loosened,
                "key",
                format!("{message}: clients that shared a bucket may no longer do so"),
            ),
        },
    }
}

/// Whether a request can lack this part of a key.
fn can_be_missing(part: &KeyPart) -> bool {
    !matches!(part, KeyPart::Path | KeyPart::Method | KeyPart::Hostname | KeyPart::Constant(_))
}

/// Whether the keys differ only in that addresses are truncated to fewer bits.
fn coarser_prefix(old: &LimitDocument, new: &LimitDocument) -> bool {
    old.key.len() == new.key.len()
        && old.key.iter().zip(&new.key).all(|(old, new)| match (old, new) {
            (
                KeyPart::SourceAddress { ipv4_prefix: old_v4, ipv6_prefix: old_v6 },
                KeyPart::SourceAddress { ipv4_prefix: new_v4, ipv6_prefix: new_v6 },
            ) => new_v4 <= old_v4 && new_v6 <= old_v6,
            (old, new) => format!("{old:?}") == format!("{new:?}"),
        })
}

fn compare_cost(before: &LimitDocument, after: &LimitDocument, note: &mut impl FnMut(ChangeClass, &str, String)) {
    let default = |limit: &LimitDocument| limit.cost.as_ref().map_or(1, |cost| cost.reserve.unwrap_or(cost.default).0);
    let header = |limit: &LimitDocument| {
        let cost = limit.cost.as_ref()?;
        let of_request = cost.header.as_ref().map(|name| format!("header {}", name.0));
        of_request.or_else(|| cost.response_header.as_ref().map(|name| format!("response header {}", name.0)))
    };
    let most = |limit: &LimitDocument| limit.cost.as_ref().and_then(|cost| cost.max).map_or(u32::MAX, |max| max.0);
    let way = |more: bool| if more { ChangeClass::Loosened } else { ChangeClass::Tightened };
    let (was, is) = (default(before), default(after));
    if was != is {
        let reserves = after.cost.as_ref().is_some_and(|cost| cost.response_header.is_some());
        let field = if reserves { "cost.reserve" } else { "cost.default" };
        note(way(is < was), field, format!("a request costs {is}, before: {was}"));
    }
    let (was, is) = (header(before), header(after));
    if was != is {
        let name = |header: Option<String>| header.unwrap_or_else(|| "no header".to_owned());
        let message = format!("{} contains the cost, before: {}: some requests may cost less", name(is), name(was));
        note(ChangeClass::Loosened, "cost.header", message);
    } else if is.is_some() && most(before) != most(after) {
        let text = |most: u32| if most == u32::MAX { "no bound".to_owned() } else { words::thousands(most.into()) };
        let (was, is) = (most(before), most(after));
        note(way(is < was), "cost.max", format!("the largest cost is {}, before: {}", text(is), text(was)));
    }
}
