//! The resulting policy: rules, canaries, limits and egress rules, with a comment where something of the source is
//! missing.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use penstock_policy::document::Node;
use penstock_policy::{Module, Problem, Problems, check};

use super::counted::{PlacedRules, TaggedLimit};
use super::destination::{self, ImportedDestination};
use super::matching::{Match, PathSet};
use super::objects::{map, text};
use super::report::{ImportReport, Lead};
use super::table::{ImportedRule, Placed, RuleAction, RuleHost, RuleTable, UNROUTED, WeightedSplit};
use crate::yaml_text;

/// A list entry of the policy, a comment, or both.
#[derive(Clone, Debug, Default)]
pub struct DraftItem {
    comment: Option<String>,
    node: Option<Node>,
}

/// The policy so far.
#[derive(Debug, Default)]
pub struct PolicyDraft {
    /// The routes.
    pub table: RuleTable,
    /// Limits for the requests that an object's rules take.
    pub tagged_limits: Vec<TaggedLimit>,
    /// `egress.mode: Audit`.
    pub audits: bool,
    limits: Vec<DraftItem>,
    rules: Vec<DraftItem>,
    canaries: Vec<DraftItem>,
    egress: Vec<DraftItem>,
    has_egress: bool,
    names: HashSet<String>,
    /// For each name that was requested several times, the next number to try.
    numbers: HashMap<String, usize>,
    destinations: Vec<ImportedDestination>,
}

impl PolicyDraft {
    /// A name that no other item of the list has, similar to `wanted`.
    fn name(&mut self, list: &str, wanted: &str) -> String {
        let wanted: String = wanted.chars().map(|c| if c.is_control() { '-' } else { c }).take(200).collect();
        let wanted = if wanted.trim().is_empty() { "imported".to_owned() } else { wanted };
        if self.names.insert(format!("{list} {wanted}")) {
            return wanted;
        }
        let next = self.numbers.entry(format!("{list} {wanted}")).or_insert(2);
        loop {
            let name = format!("{wanted}-{next}");
            *next += 1;
            if self.names.insert(format!("{list} {name}")) {
                return name;
            }
        }
    }

    /// Gives back a name that [`PolicyDraft::name`] has made of `wanted`.
    fn release(&mut self, list: &str, wanted: &str, name: &str) {
        self.names.remove(&format!("{list} {name}"));
        if name != wanted
            && let Some(next) = self.numbers.get_mut(&format!("{list} {wanted}"))
        {
            *next -= 1;
        }
    }

    /// Adds a limit, or a comment when a policy cannot express it.
    pub fn limit(&mut self, name: &str, rest: Vec<(&'static str, Node)>, place: &str, report: &mut ImportReport) {
        let mut node = vec![("name", text(self.name("limit", name)))];
        node.extend(rest);
        let node = map(node);
        let policy = map([("rateLimits", Node::List(vec![node.clone()]))]);
        let item = checked(&policy, node, place, "the limit is left out", report);
        self.limits.push(item);
    }

    /// Adds a comment instead of a limit.
    pub fn no_limit(&mut self, comment: impl Into<String>) {
        self.limits.push(DraftItem { comment: Some(comment.into()), node: None });
    }

    /// Adds an egress rule, or a comment when a policy cannot express it.
    pub fn egress_rule(&mut self, name: &str, rest: Vec<(&'static str, Node)>, place: &str, report: &mut ImportReport) {
        self.has_egress = true;
        let mut node = vec![("name", text(self.name("egress", name)))];
        node.extend(rest);
        let node = map(node);
        let policy = map([("egress", map([("rules", Node::List(vec![node.clone()]))]))]);
        let item = checked(&policy, node, place, "it allows nothing", report);
        self.egress.push(item);
    }

    /// Adds a comment instead of an egress rule. The section is added in any case: it refuses requests that no rule
    /// allows.
    pub fn no_egress_rule(&mut self, comment: impl Into<String>) {
        self.has_egress = true;
        self.egress.push(DraftItem { comment: Some(comment.into()), node: None });
    }

    /// Makes route rules of the table, and limits of those attached to its rules.
    pub fn finish(&mut self, report: &mut ImportReport) {
        if self.table.is_mixed() {
            report.lost(
                "",
                "routes of Traefik together with those of other gateways",
                "it is unclear whose rules decide requests to the same host: those of Traefik come last",
            );
        }
        let placed = std::mem::take(&mut self.table).order();
        for placed in &placed {
            if let RuleAction::Split(split) = &placed.rule.action {
                self.destinations.extend(split.to.iter().map(|(destination, _)| destination.clone()));
            }
        }
        let names = destination::names(std::mem::take(&mut self.destinations), &[UNROUTED]);
        let route = |destination: &ImportedDestination| names.get(destination).cloned().unwrap_or_default();
        report.routes = names.iter().map(|(to, route)| Lead { route: route.clone(), to: to.to_string() }).collect();
        report.routes.sort();
        // After the last rule with a destination, no rule is needed to keep requests from later ones.
        let acts = |placed: &Placed| matches!(placed.rule.action, RuleAction::Split(_) | RuleAction::Redirect(_));
        let last = placed.iter().rposition(acts);
        for (i, placed) in placed.iter().enumerate() {
            match &placed.rule.action {
                RuleAction::Leave(why) if last.is_none_or(|last| i > last) => {
                    self.no_rule(format!("{}: {why}", placed.rule.name));
                }
                _ => self.place(placed, &route, report),
            }
        }
        let unrouted = Node::String(UNROUTED.to_owned());
        if self.rules.iter().any(|item| item.node.as_ref().and_then(|node| node.get("route")) == Some(&unrouted)) {
            let what =
                format!("the route `{UNROUTED}` is for requests that the source answers itself or does not match");
            report.elsewhere(
                "",
                what,
                "do not create a destination for it: without one, the platform's own rules decide these requests",
            );
        }
        let rules = PlacedRules::new(&placed);
        for limit in std::mem::take(&mut self.tagged_limits) {
            match rules.matches(&limit) {
                Ok(matches) => {
                    let mut limit_node = limit.limit;
                    let name = match limit_node.iter().position(|(key, _)| *key == "name").map(|i| limit_node.remove(i))
                    {
                        Some((_, Node::String(name))) => name,
                        _ => limit.tags.concat(),
                    };
                    if !matches.is_empty() {
                        limit_node.insert(0, ("matches", Node::List(matches)));
                    }
                    self.limit(&name, limit_node, &limit.place, report);
                }
                Err(why) => {
                    report.lost_at(
                        &limit.place,
                        format!("it is unclear which requests it counts: {why}"),
                        "the limit is left out",
                    );
                    self.no_limit(format!("{}: it is unclear which requests it counts: {why}", limit.place));
                }
            }
        }
        if self.has_egress && (!self.rules.is_empty() || !self.limits.is_empty()) {
            report.elsewhere(
                "",
                "rules for incoming requests and rules for outgoing requests",
                "they run in different places: `penstock render` makes a plugin for each",
            );
        }
    }

    /// Adds a rule of the table.
    fn place(&mut self, placed: &Placed, route: &dyn Fn(&ImportedDestination) -> String, report: &mut ImportReport) {
        let rule = &placed.rule;
        if let RuleAction::Omit(why) = &rule.action {
            self.no_rule(format!("{}: {why}", rule.name));
            return;
        }
        let name = self.name("rule", &rule.name);
        let hosts: Vec<String> = if placed.hosts.contains(&RuleHost::Any) {
            Vec::new()
        } else {
            placed.hosts.iter().filter_map(RuleHost::pattern).collect()
        };
        let mut head = vec![("name", text(name.as_str()))];
        let matches: Option<Vec<Node>> =
            rule.matches.iter().map(|entry| with_root(entry.node(&hosts), entry, rule)).collect();
        head.extend(matches.filter(|list| !list.is_empty()).map(|list| ("matches", Node::List(list))));
        let with = |more: Vec<(&'static str, Node)>| map(head.iter().cloned().chain(more));
        let leave = with(vec![("route", text(UNROUTED))]);
        let mut canary = None;
        let (node, comment) = match &rule.action {
            RuleAction::Split(WeightedSplit { to, overrides, .. }) if overrides.is_empty() && one(to).is_some() => {
                let to = one(to).map(route).unwrap_or_default();
                (with([("route", text(to))].into_iter().chain(rule.effects.clone()).collect()), None)
            }
            RuleAction::Split(split) => {
                let canary_name = self.name("canary", &rule.name);
                canary = Some(canary_of(&canary_name, split, route));
                (with([("canary", text(canary_name))].into_iter().chain(rule.effects.clone()).collect()), None)
            }
            RuleAction::Redirect(redirect) => {
                let of_response = rule.effects.iter().filter(|(effect, _)| *effect == "responseHeaders").cloned();
                (with([("redirect", redirect.clone())].into_iter().chain(of_response).collect()), None)
            }
            RuleAction::Leave(why) => (leave.clone(), Some(why.clone())),
            RuleAction::Omit(_) => return,
        };
        let policy = |rule: &Node, canary: Option<&Node>| {
            let routes = map([("rules", Node::List(vec![rule.clone()]))]);
            let canaries = canary.map(|canary| ("canaries", Node::List(vec![canary.clone()])));
            map([("routes", routes)].into_iter().chain(canaries))
        };
        match check(&policy(&node, canary.as_ref()), Module::Suite) {
            Ok(_) => {
                self.rules.push(DraftItem { comment, node: Some(node) });
                self.canaries.extend(canary.map(|canary| DraftItem { comment: None, node: Some(canary) }));
            }
            Err(problems) => {
                let why = said(&problems);
                // Without these effects the upstream would see different requests, so the rule leaves them alone.
                let can_leave = check(&policy(&leave, None), Module::Suite).is_ok();
                if !can_leave && let Some((valid, invalid)) = parted(rule) {
                    self.release("rule", &rule.name, &name);
                    for matches in invalid.into_iter().map(|entry| vec![entry]).chain(valid) {
                        let rule = Rc::new(ImportedRule { matches, ..ImportedRule::clone(rule) });
                        self.place(&Placed { hosts: placed.hosts.clone(), rule }, route, report);
                    }
                    return;
                }
                let consequence = if can_leave {
                    "its requests are left to the platform"
                } else {
                    "it is left out: its requests go to the rules after it"
                };
                let place = if rule.place.is_empty() { &rule.name } else { &rule.place };
                report.lost_at(place, why.clone(), consequence);
                let comment = format!("{}: {why}", rule.name);
                match can_leave {
                    true => self.rules.push(DraftItem { comment: Some(comment), node: Some(leave) }),
                    false => {
                        self.release("rule", &rule.name, &name);
                        self.no_rule(comment);
                    }
                }
            }
        }
    }

    /// Adds a comment instead of a rule, unless it stands there already, for other hosts.
    fn no_rule(&mut self, comment: String) {
        let comments = self.rules.iter().rev().take_while(|item| item.node.is_none());
        if !comments.into_iter().any(|item| item.comment.as_ref() == Some(&comment)) {
            self.rules.push(DraftItem { comment: Some(comment), node: None });
        }
    }

    /// The policy as a tree.
    pub fn node(&self) -> Node {
        let list = |items: &[DraftItem]| Node::List(items.iter().filter_map(|item| item.node.clone()).collect());
        let some = |items: &[DraftItem]| items.iter().any(|item| item.node.is_some());
        let mut policy = Vec::new();
        if self.has_egress {
            let mut egress = Vec::new();
            if self.audits {
                egress.push(("mode", text("Audit")));
            }
            egress.push(("rules", list(&self.egress)));
            policy.push(("egress", map(egress)));
        }
        if some(&self.limits) {
            policy.push(("rateLimits", list(&self.limits)));
        }
        if some(&self.rules) {
            policy.push(("routes", map([("rules", list(&self.rules))])));
        }
        if some(&self.canaries) {
            policy.push(("canaries", list(&self.canaries)));
        }
        map(policy)
    }

    /// The policy as YAML with comments.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let some = |items: &[DraftItem]| items.iter().any(|item| item.node.is_some());
        let comments = |items: &[DraftItem], out: &mut String| {
            for item in items {
                comment(item, "", out);
            }
        };
        if self.has_egress {
            out += "egress:\n";
            if self.audits {
                out += "  mode: Audit\n";
            }
            if some(&self.egress) {
                out += "  rules:\n"
            } else {
                out += "  rules: []\n"
            }
            list(&self.egress, 2, &mut out);
        }
        for (head, items) in
            [("rateLimits:\n", &self.limits), ("routes:\n  rules:\n", &self.rules), ("canaries:\n", &self.canaries)]
        {
            if some(items) {
                out += head;
                list(items, if head.contains("  ") { 2 } else { 0 }, &mut out);
            } else {
                comments(items, &mut out);
            }
        }
        if out.lines().all(|line| line.starts_with('#')) {
            out += "{}\n";
        }
        out
    }
}

/// A match for a rule that replaces its matched prefix. The policy needs a prefix for that, even for all paths.
fn with_root(node: Option<Node>, entry: &Match, rule: &ImportedRule) -> Option<Node> {
    let replaces_prefix = |node: &Node| {
        node.get("path").and_then(|path| path.get("type")) == Some(&Node::String("ReplacePrefixMatch".to_owned()))
    };
    let redirects = matches!(&rule.action, RuleAction::Redirect(redirect) if replaces_prefix(redirect));
    let rewrites = rule.effects.iter().any(|(name, node)| *name == "rewrite" && replaces_prefix(node));
    if entry.path != PathSet::Any || !(redirects || rewrites) {
        return node;
    }
    let mut entries = match node {
        Some(Node::Map(entries)) => entries,
        _ => Vec::new(),
    };
    let root = map([("type", text("PathPrefix")), ("value", text("/"))]);
    entries.push(("path".to_owned(), root));
    Some(Node::Map(entries))
}

/// The single destination that gets all requests.
fn one(to: &[(ImportedDestination, i64)]) -> Option<&ImportedDestination> {
    match to {
        [(destination, _)] => Some(destination),
        _ => None,
    }
}

fn canary_of(name: &str, split: &WeightedSplit, route: &dyn Fn(&ImportedDestination) -> String) -> Node {
    let mut node = vec![("name", text(name))];
    node.extend(split.stickiness.clone().map(|stickiness| ("stickiness", stickiness)));
    if !split.overrides.is_empty() {
        let overrides = split
            .overrides
            .iter()
            .map(|((field, condition), to)| map([(*field, condition.clone()), ("variant", text(route(to)))]));
        node.push(("overrides", Node::List(overrides.collect())));
    }
    let variants =
        split.to.iter().map(|(to, weight)| map([("name", text(route(to))), ("weight", Node::Integer(*weight))]));
    node.push(("variants", Node::List(variants.collect())));
    map(node)
}

/// The matches of a rule that are valid, if there are any, and the others; `None` when each is valid by itself, or the rule has
/// only one.
fn parted(rule: &ImportedRule) -> Option<(Option<Vec<Match>>, Vec<Match>)> {
    let is_valid = |entry: &Match| {
        let matches = entry.node(&[]).map(|node| ("matches", Node::List(vec![node])));
        let rule = map([("name", text("a")), ("route", text("a"))].into_iter().chain(matches));
        check(&map([("routes", map([("rules", Node::List(vec![rule]))]))]), Module::Suite).is_ok()
    };
    let (valid, invalid): (Vec<Match>, Vec<Match>) = rule.matches.iter().cloned().partition(is_valid);
    (rule.matches.len() > 1 && !invalid.is_empty()).then(|| (Some(valid).filter(|valid| !valid.is_empty()), invalid))
}

/// The problem in a policy with only one part.
fn said(problems: &Problems) -> String {
    const PART: [&str; 5] =
        ["routes.rules[0].matches[0].", "routes.rules[0].", "rateLimits[0].", "egress.rules[0].", "canaries[0]."];
    let of_part = |problem: &Problem| {
        let text = problem.to_string();
        PART.iter().find_map(|part| text.strip_prefix(part)).map_or_else(|| text.clone(), str::to_owned)
    };
    problems.iter().map(of_part).collect::<Vec<_>>().join("; ")
}

/// Returns `node`, or a comment when `policy`, which contains only this node, is invalid.
fn checked(policy: &Node, node: Node, place: &str, consequence: &str, report: &mut ImportReport) -> DraftItem {
    match check(policy, Module::Suite) {
        Ok(_) => DraftItem { comment: None, node: Some(node) },
        Err(problems) => {
            let why = said(&problems);
            report.lost_at(place, why.clone(), consequence);
            DraftItem { comment: Some(format!("{place}: {why}")), node: None }
        }
    }
}

fn comment(item: &DraftItem, pad: &str, out: &mut String) {
    for line in item.comment.iter().flat_map(|comment| comment.lines()) {
        let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        *out += &format!("{pad}# {}{line}\n", if item.node.is_some() { "" } else { "not imported: " });
    }
}

fn list(items: &[DraftItem], indent: usize, out: &mut String) {
    for item in items {
        comment(item, &" ".repeat(indent), out);
        if let Some(node) = &item.node {
            *out += &yaml_text::block(&Node::List(vec![node.clone()]), indent);
        }
    }
}
