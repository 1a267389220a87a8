//! Finds which requests a change of `routes` and `canaries` sends elsewhere.

use std::collections::{HashMap, HashSet};

use penstock_policy::canaries::Canary;
use penstock_policy::document::Node;
use penstock_policy::{Policy, Timestamp};
use serde::Serialize;

use super::change::{Changes, moved, other_fields};
use crate::documents::named;
use crate::words::{self, listed};

/// Compares the route rules.
pub fn routes(old: &Node, new: &Node, changes: &mut Changes) {
    let empty = Node::Map(Vec::new());
    match (old.get("routes"), new.get("routes")) {
        (None, None) => return,
        (None, Some(_)) => changes.changed("routes", "is new"),
        (Some(_), None) => return changes.changed("routes", "is gone: no rule sets the route header"),
        (Some(_), Some(_)) => {}
    }
    let (before, after) = (old.get("routes").unwrap_or(&empty), new.get("routes").unwrap_or(&empty));
    other_fields("routes", before, after, &["rules"], changes);
    let (before, after) = (named(before, &["rules"]), named(after, &["rules"]));
    items("routes.rules", &before, &after, leads_to, changes);
    let before: HashMap<&str, &Node> = before.into_iter().collect();
    for (name, after) in &after {
        let Some(before) = before.get(name) else { continue };
        other_fields(&format!("routes.rules[{name}]"), before, after, &["name"], changes);
    }
}

/// Describes where a rule leads.
fn leads_to(rule: &Node) -> String {
    match (rule.get("route"), rule.get("canary")) {
        (None, None) if rule.get("redirect").is_some() => "a redirect".to_owned(),
        (_, Some(canary)) => format!("to the choice of canary {canary}"),
        (route, None) => format!("to route {}", route.map(ToString::to_string).unwrap_or_default()),
    }
}

/// The added, removed and moved items in a list of names.
fn items(
    path: &str,
    old: &[(&str, &Node)],
    new: &[(&str, &Node)],
    words: impl Fn(&Node) -> String,
    changes: &mut Changes,
) {
    let known =
        |list: &[(&'_ str, &Node)]| list.iter().map(|(name, _)| (*name).to_owned()).collect::<HashSet<String>>();
    let (was, is) = (known(old), known(new));
    for (place, (name, node)) in (1..).zip(new) {
        if !was.contains(*name) {
            changes.changed(
                format!("{path}[{name}]"),
                format!("is new, number {place} of {}, {}", new.len(), words(node)),
            );
        }
    }
    for (name, node) in old.iter().filter(|(name, _)| !is.contains(*name)) {
        changes.changed(format!("{path}[{name}]"), format!("is gone, {}", words(node)));
    }
    let names = |list: &[(&'_ str, &Node)]| list.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<String>>();
    let (old, new) = (names(old), names(new));
    let (old, new): (Vec<&str>, Vec<&str>) =
        (old.iter().map(String::as_str).collect(), new.iter().map(String::as_str).collect());
    let moved = moved(&old, &new);
    if !moved.is_empty() {
        changes.changed(
            path,
            format!(
                "{} moved: if several match, the first applies",
                listed(moved.iter().map(|name| format!("`{name}`")))
            ),
        );
    }
}

/// The shift of a canary's shares at one instant.
#[derive(Debug, Serialize)]
pub struct Moved {
    /// The canary's name.
    pub canary: String,
    /// Each variant with its share before and after, 0 to 1.
    pub variants: Vec<(String, f64, f64)>,
    /// The fraction of users who get another variant, 0 to 1.
    pub users: f64,
}

/// Compares the canaries by their shares at `time`.
pub fn canaries(old: (&Policy, &Node), new: (&Policy, &Node), time: Timestamp, changes: &mut Changes) -> Vec<Moved> {
    let (before, after) = (named(old.1, &["canaries"]), named(new.1, &["canaries"]));
    let variants = |node: &Node| {
        format!("between {}", listed(named(node, &["variants"]).iter().map(|(name, _)| format!("`{name}`"))))
    };
    items("canaries", &before, &after, variants, changes);
    let before: HashMap<&str, &Node> = before.into_iter().collect();
    let (was, is) = (Shares::new(old.0, time), Shares::new(new.0, time));
    let mut all = Vec::new();
    for (name, after) in &after {
        let Some(before) = before.get(name) else { continue };
        let path = format!("canaries[{name}]");
        other_fields(&path, before, after, &["name", "variants", "salt", "ramp", "stickiness"], changes);
        if before.get("ramp") != after.get("ramp") {
            changes.changed(format!("{path}.ramp"), "is another schedule");
        }
        let (was, is) = (was.of(name), is.of(name));
        let salt = |node: &Node| node.get("salt").cloned().unwrap_or_else(|| Node::String((*name).to_owned()));
        let redrawn = salt(before) != salt(after) || before.get("stickiness") != after.get("stickiness");
        if redrawn {
            changes
                .changed(format!("{path}.stickiness"), "every user gets a new choice, because the key or salt changed");
        }
        let routes = |node: &Node| -> Vec<(String, Option<Node>)> {
            named(node, &["variants"])
                .iter()
                .map(|(name, node)| ((*name).to_owned(), node.get("route").cloned()))
                .collect()
        };
        let routes_before: HashMap<String, Option<Node>> = routes(before).into_iter().collect();
        for (variant, route) in routes(after) {
            if routes_before.get(&variant).is_some_and(|before| *before != route) {
                let text = |route: Option<&Node>| route.map_or("its name".to_owned(), ToString::to_string);
                changes.changed(format!("{path}.variants[{variant}].route"), format!("now {}", text(route.as_ref())));
            }
        }
        let mut names: Vec<&String> = was.iter().chain(&is).map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        let by_name = |shares: &[(String, f64)]| shares.iter().cloned().collect::<HashMap<String, f64>>();
        let (was, is) = (by_name(&was), by_name(&is));
        let share = |shares: &HashMap<String, f64>, name: &str| shares.get(name).copied().unwrap_or(0.0);
        let variants: Vec<(String, f64, f64)> =
            names.iter().map(|name| ((*name).clone(), share(&was, name), share(&is, name))).collect();
        let pairs: Vec<(f64, f64)> = variants.iter().map(|(_, was, is)| (*was, *is)).collect();
        let users = if redrawn { drawn_anew(&pairs) } else { share_moved(&pairs) };
        if users > 1e-12 {
            let each = variants.iter().filter(|(_, was, is)| was != is);
            let each: Vec<String> = each
                .map(|(name, was, is)| format!("`{name}` {} → {}", words::percent(*was), words::percent(*is)))
                .collect();
            let weights = if each.is_empty() { "the weights stay".to_owned() } else { listed(each) };
            changes.changed(format!("{path}.variants"), format!("{weights}: {} of users move", words::percent(users)));
            all.push(Moved { canary: (*name).to_owned(), variants, users });
        }
    }
    all
}

/// The shares of a policy's canaries at one instant.
struct Shares<'p> {
    canaries: HashMap<&'p str, &'p Canary>,
    time: Timestamp,
}

impl<'p> Shares<'p> {
    fn new(policy: &'p Policy, time: Timestamp) -> Shares<'p> {
        let canaries = policy.canaries().into_iter().flat_map(|canaries| canaries.iter());
        Shares { canaries: canaries.map(|canary| (canary.name(), canary)).collect(), time }
    }

    /// Each variant of a canary with its share, 0 to 1.
    fn of(&self, canary: &str) -> Vec<(String, f64)> {
        let canary = self.canaries.get(canary).into_iter();
        let weights: Vec<(String, u64)> = canary
            .flat_map(|canary| canary.weights_at(self.time))
            .map(|(name, weight)| (name.to_owned(), weight))
            .collect();
        let total = weights.iter().map(|(_, weight)| *weight).sum::<u64>().max(1) as f64;
        weights.into_iter().map(|(name, weight)| (name, weight as f64 / total)).collect()
    }
}

/// The fraction of users that weighted rendezvous hashing moves when shares change from p to q: 1 − Σᵢ 1/Σⱼ max(pⱼ/pᵢ,
/// qⱼ/qᵢ), over the variants i that both have (Moulton and Jiang, "Maximally Consistent Sampling and the Jaccard Index
/// of Probability Distributions", 2018).
fn share_moved(shares: &[(f64, f64)]) -> f64 {
    let both = shares.iter().filter(|(p, q)| *p > 0.0 && *q > 0.0);
    let stay = both.map(|(p, q)| 1.0 / shares.iter().map(|(pj, qj)| (pj / p).max(qj / q)).sum::<f64>());
    (1.0 - stay.sum::<f64>()).max(0.0)
}

/// The fraction that moves when every user is assigned anew.
fn drawn_anew(shares: &[(f64, f64)]) -> f64 {
    1.0 - shares.iter().map(|(p, q)| p * q).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formula_says_how_many_users_really_move() {
        let policy = |weights: [u32; 3], salt: &str| -> (Policy, Node) {
            let variants: Vec<String> = weights
                .iter()
                .enumerate()
                .map(|(i, weight)| format!(r#"{{"name":"v{i}","weight":{weight}}}"#))
                .collect();
            let json = format!(
                r#"{{"canaries":[{{"name":"c","salt":"{salt}","stickiness":{{"header":"id"}},"variants":[{}]}}]}}"#,
                variants.join(",")
            );
            let node = Node::from_json(json.as_bytes()).unwrap();
            (Policy::from_node(&node).unwrap(), node)
        };
        for (old, new, salt) in [
            ([95, 5, 0], [75, 25, 0], "s"),
            ([50, 30, 20], [20, 30, 50], "s"),
            ([1, 0, 1], [0, 1, 1], "s"),
            ([1, 1, 1], [100, 1, 10], "s"),
            ([10, 20, 30], [10, 20, 30], "s"),
            ([10, 20, 30], [10, 20, 30], "t"),
        ] {
            let (old, new) = (policy(old, "s"), policy(new, salt));
            let moved = canaries((&old.0, &old.1), (&new.0, &new.1), Timestamp(0), &mut Changes::default());
            let predicted = moved.first().map_or(0.0, |moved| moved.users);
            const USERS: u32 = 100_000;
            let variant = |policy: &Policy, user: u32| {
                let canary = policy.canaries().unwrap().iter().next().unwrap();
                canary.variant_of(user.to_string().as_bytes(), Timestamp(0)).unwrap().to_owned()
            };
            let really = (0..USERS).filter(|&user| variant(&old.0, user) != variant(&new.0, user)).count();
            let really = really as f64 / f64::from(USERS);
            // A tolerance of five standard deviations.
            let tolerance = 5.0 * (predicted * (1.0 - predicted) / f64::from(USERS)).sqrt() + 1e-9;
            assert!((predicted - really).abs() <= tolerance, "{predicted} {really}");
        }
    }
}
