//! Finds what a change of `egress` allows or refuses.
//!
//! Rules are compared by what they allow, not by name. A new rule does not loosen what another rule of the old policy
//! already allowed, and a removed rule does not tighten what another rule of the new policy still allows. Coverage is
//! never claimed wrongly, only missed: the report may contain a loosening that is none, but no loosening is missing.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use penstock_policy::document::{Method, NonEmpty, Whole};
use penstock_policy::egress::{Cidr, Destination, DestinationTarget, EgressDocument, EgressRuleDocument, Mode};

use super::change::{ChangeClass, Changes};
use super::destinations::{RuleDestinations, without_destinations};
use super::sought::Sought;
use crate::cover::{
    caller_covers, destination_covers, host_covers, items, path_covers, rule_covers, selection_covers,
    uncovered as uncovered_items,
};
use crate::explain::destination_words;
use crate::words::{self, listed};

/// Compares the sections.
pub fn compare(old: Option<&EgressDocument>, new: Option<&EgressDocument>, changes: &mut Changes) {
    let (old, new) = match (old, new) {
        (None, None) => return,
        (None, Some(_)) => {
            return changes
                .tightened("egress", "is new: requests that no rule allows, and malformed requests, are refused");
        }
        (Some(_), None) => {
            return changes.loosened("egress", "is gone: no request is refused any more", Sought::Unlisted);
        }
        (Some(old), Some(new)) => (old, new),
    };
    match (old.mode, new.mode) {
        (Mode::Enforce, Mode::Audit) => {
            let message = "Enforce → Audit: requests that were refused with 403 pass";
            changes.loosened("egress.mode", message, Sought::Unlisted)
        }
        (Mode::Audit, Mode::Enforce) => {
            changes.tightened("egress.mode", "Audit → Enforce: requests that passed with a report are refused")
        }
        _ => {}
    }
    match (old.verify_sni, new.verify_sni) {
        (true, false) => {
            let message = "connections opened for another server name pass";
            changes.loosened("egress.verifySni", message, Sought::OtherServerName)
        }
        (false, true) => {
            changes.tightened("egress.verifySni", "connections opened for another server name are refused")
        }
        _ => {}
    }
    compare_deny(old, new, changes);
    compare_rules(&old.rules.0, &new.rules.0, changes);
    compare_path_scope(old, new, changes);
    // In Audit, requests that no rule allows pass, but a request that a rule allows is still refused for a wrong server
    // name.
    let before = changes.count(ChangeClass::Loosened) > 0;
    if new.mode == Mode::Audit && old.verify_sni && changes.count(ChangeClass::Tightened) > 0 {
        let message = "in Audit, requests that a rule no longer allows pass with any server name";
        changes.loosened("egress.verifySni", message, Sought::OtherServerName);
    }
    if old.mode == Mode::Audit && new.verify_sni && before {
        let message = "in Audit, requests that a rule now allows need a connection with that server name";
        changes.tightened("egress.verifySni", message);
    }
}

fn compare_deny(old: &EgressDocument, new: &EgressDocument, changes: &mut Changes) {
    let (before, after) = (Denials::new(old), Denials::new(new));
    for gone in split_ports(&old.deny).filter(|gone| !after.cover(gone)) {
        let allowed = after.first_rule_denied_by(&gone);
        let entry = destination_words(&gone);
        match allowed {
            Some(rule) => {
                let message = format!("{entry} is no longer denied, and rule `{}` allows some of it", rule.name.0);
                changes.loosened("egress.deny", message, Sought::Denied(gone));
            }
            None => {
                changes.changed("egress.deny", format!("{entry} is no longer denied, but no rule allows it either"))
            }
        }
    }
    for added in split_ports(&new.deny).filter(|added| !before.cover(added)) {
        let entry = destination_words(&added);
        match before.first_rule_denied_by(&added).is_some() {
            true => changes.tightened("egress.deny", format!("{entry} is denied")),
            false => changes.changed("egress.deny", format!("{entry} is denied; no rule allowed it")),
        }
    }
}

/// `deny` and the rules of one side, indexed by destination.
struct Denials<'d> {
    document: &'d EgressDocument,
    deny: RuleDestinations<'d>,
    rules: RuleDestinations<'d>,
    /// The first rule with IPv6 ranges.
    first_ipv6: Option<usize>,
}

impl<'d> Denials<'d> {
    fn new(document: &'d EgressDocument) -> Denials<'d> {
        let (mut deny, mut rules) = (RuleDestinations::default(), RuleDestinations::default());
        document.deny.iter().enumerate().for_each(|(number, to)| deny.add(number, to));
        for (number, rule) in document.rules.0.iter().enumerate() {
            rule.to.0.iter().for_each(|to| rules.add(number, to));
        }
        Denials { first_ipv6: rules.first_ipv6(), document, deny, rules }
    }

    /// Whether `deny` covers all of `part`.
    fn cover(&self, part: &Destination) -> bool {
        let around = self.deny.around(&part.target);
        around.iter().filter_map(|&i| self.document.deny.get(i)).any(|deny| destination_covers(deny, part))
    }

    /// The first rule of which `deny` denies something.
    fn first_rule_denied_by(&self, deny: &Destination) -> Option<&'d EgressRuleDocument> {
        let rules = &self.document.rules.0;
        let denied = |rule: &EgressRuleDocument| rule.to.0.iter().any(|to| denial_overlaps(deny, to));
        let mut candidates = self.rules.overlapping(&deny.target);
        // An IPv6 address may embed an IPv4 address that a range denies.
        candidates.extend(self.first_ipv6.filter(|_| matches!(deny.target, DestinationTarget::Cidr(_))));
        candidates.sort_unstable();
        candidates.into_iter().filter_map(|i| rules.get(i)).find(|rule| denied(rule))
    }
}

/// Splits by port of each destination, because different rules may cover the ports.
fn split_ports(destinations: &[Destination]) -> impl Iterator<Item = Destination> {
    destinations.iter().flat_map(|to| {
        let ports: Vec<Option<Whole<1, 65535>>> = match &to.ports {
            None => vec![None],
            Some(ports) => ports.0.iter().copied().map(Some).collect(),
        };
        ports
            .into_iter()
            .map(|port| Destination { target: to.target.clone(), ports: port.map(|port| NonEmpty(vec![port])) })
    })
}

fn ports_overlap(a: &Destination, b: &Destination) -> bool {
    match (&a.ports, &b.ports) {
        (Some(a), Some(b)) => a.0.iter().any(|port| b.0.contains(port)),
        _ => true,
    }
}

/// Whether both contain a common host or address. If two patterns or ranges overlap, one contains the other.
fn targets_overlap(a: &DestinationTarget, b: &DestinationTarget) -> bool {
    match (a, b) {
        (DestinationTarget::Host(a), DestinationTarget::Host(b)) => host_covers(a, b) || host_covers(b, a),
        (DestinationTarget::Cidr(a), DestinationTarget::Cidr(b)) => a.covers(b) || b.covers(a),
        _ => false,
    }
}

/// Whether `deny` denies part of what `to` allows, on any port: for `deny`, an authority without a port matches every
/// port. An IPv4 range also denies its addresses in every form of IPv6 that embeds them, which may lie in any range.
fn denial_overlaps(deny: &Destination, to: &Destination) -> bool {
    let carried = matches!(
        (&deny.target, &to.target),
        (
            DestinationTarget::Cidr(Cidr { address: IpAddr::V4(_), .. }),
            DestinationTarget::Cidr(Cidr { address: IpAddr::V6(_), .. })
        )
    );
    carried || targets_overlap(&deny.target, &to.target)
}

/// Rules by name and by destination, so that not every pair must be compared.
struct Rules<'r> {
    all: &'r [EgressRuleDocument],
    by_name: HashMap<&'r str, usize>,
    by_destination: RuleDestinations<'r>,
}

impl<'r> Rules<'r> {
    fn new(all: &'r [EgressRuleDocument]) -> Rules<'r> {
        let mut rules = Rules { all, by_name: HashMap::new(), by_destination: RuleDestinations::default() };
        for (i, rule) in all.iter().enumerate() {
            rules.by_name.insert(&rule.name.0, i);
            rule.to.0.iter().for_each(|to| rules.by_destination.add(i, to));
        }
        rules
    }

    fn named(&self, name: &str) -> Option<&'r EgressRuleDocument> {
        self.by_name.get(name).and_then(|&i| self.all.get(i))
    }

    /// All rules that could cover `part`: those with a destination that contains its first destination.
    fn around(&self, part: &EgressRuleDocument) -> impl Iterator<Item = &'r EgressRuleDocument> {
        let found = part.to.0.first().map(|to| self.by_destination.around(&to.target)).unwrap_or_default();
        let all = self.all;
        found.into_iter().filter_map(move |i| all.get(i))
    }

    /// All rules with a destination that could overlap `to`.
    fn overlapping(&self, to: &Destination) -> impl Iterator<Item = &'r EgressRuleDocument> {
        let all = self.all;
        self.by_destination.overlapping(&to.target).into_iter().filter_map(move |i| all.get(i))
    }
}

fn compare_rules(old: &[EgressRuleDocument], new: &[EgressRuleDocument], changes: &mut Changes) {
    let (before_all, after_all) = (Rules::new(old), Rules::new(new));
    let was_allowed = |part: &EgressRuleDocument| before_all.around(part).any(|other| rule_covers(other, part));
    let is_allowed = |part: &EgressRuleDocument| after_all.around(part).any(|other| rule_covers(other, part));
    // A request has one method, unless a header names another one: then one rule must list both.
    let only_by_override = |parts: &[EgressRuleDocument], covered: &dyn Fn(&EgressRuleDocument) -> bool| {
        let split =
            parts.iter().flat_map(|part| each(&part.methods, |methods| EgressRuleDocument { methods, ..part.clone() }));
        match !parts.is_empty() && split.collect::<Vec<_>>().iter().all(covered) {
            true => " together: a request with one of the methods and another in x-http-method-override",
            false => "",
        }
    };
    for rule in new {
        let path = format!("egress.rules[{}]", rule.name.0);
        let before = before_all.named(&rule.name.0);
        if before.is_some_and(|before| rule_covers(before, rule) && rule_covers(rule, before)) {
            describe(before, rule, &path, None, changes);
            continue;
        }
        let fresh = uncovered(rule, false, was_allowed);
        let kept = before.map(|before| uncovered(before, false, is_allowed));
        match before {
            Some(_) => describe(
                before,
                rule,
                &path,
                Some((fresh.is_empty(), kept.is_some_and(|kept| kept.is_empty()))),
                changes,
            ),
            None if fresh.is_empty() => changes.changed(path, "is new, but other rules allowed all of it already"),
            None => {
                let how = only_by_override(&fresh, &was_allowed);
                changes.loosened(path, format!("is new: allows {}{how}", allowance(&fresh)), Sought::rule(rule));
            }
        }
    }
    for rule in old.iter().filter(|rule| after_all.named(&rule.name.0).is_none()) {
        let path = format!("egress.rules[{}]", rule.name.0);
        let gone = uncovered(rule, false, is_allowed);
        match gone.is_empty() {
            true => changes.changed(path, "is gone, but other rules still allow all of it"),
            false => {
                let how = only_by_override(&gone, &is_allowed);
                changes.tightened(path, format!("is gone: no longer allows {}{how}", allowance(&gone)));
            }
        }
    }
}

/// The parts of `rule` that are not `covered`: split by destination and port, and if that is not decisive, by caller
/// and path, and with `by_method` by method.
fn uncovered(
    rule: &EgressRuleDocument,
    by_method: bool,
    covered: impl Fn(&EgressRuleDocument) -> bool,
) -> Vec<EgressRuleDocument> {
    if covered(rule) {
        return Vec::new();
    }
    /// Stops splitting here; what is left counts as not covered.
    const MOST: usize = 4096;
    // Each part of a rule with thousands of destinations has one destination.
    let rest = without_destinations(rule);
    let mut left: Vec<EgressRuleDocument> = split_ports(&rule.to.0)
        .map(|to| EgressRuleDocument { to: NonEmpty(vec![to]), ..rest.clone() })
        .filter(|part| !covered(part))
        .collect();
    let splits: [fn(&EgressRuleDocument) -> Vec<EgressRuleDocument>; 3] = [
        match by_method {
            true => |rule| each(&rule.methods, |methods| EgressRuleDocument { methods, ..rule.clone() }),
            false => |rule| vec![rule.clone()],
        },
        |rule| {
            let rest = EgressRuleDocument { from: None, ..rule.clone() };
            each(&rule.from, |from| EgressRuleDocument { from, ..rest.clone() })
        },
        |rule| {
            let rest = EgressRuleDocument { paths: None, ..rule.clone() };
            each(&rule.paths, |paths| EgressRuleDocument { paths, ..rest.clone() })
        },
    ];
    for split in splits {
        if left.len() > MOST {
            break;
        }
        left = left.iter().flat_map(split).filter(|part| !covered(part)).collect();
    }
    left
}

fn each<T: Clone>(
    list: &Option<NonEmpty<T>>,
    part: impl Fn(Option<NonEmpty<T>>) -> EgressRuleDocument,
) -> Vec<EgressRuleDocument> {
    match list {
        None => vec![part(None)],
        Some(list) => list.0.iter().map(|item| part(Some(NonEmpty(vec![item.clone()])))).collect(),
    }
}

/// Describes what some rules allow.
fn allowance(rules: &[EgressRuleDocument]) -> String {
    let mut destinations: Vec<String> = rules.iter().flat_map(|rule| &rule.to.0).map(destination_words).collect();
    destinations.dedup();
    let mut words = listed(destinations);
    let Some(rule) = rules.first() else { return words };
    let of = |what: &str, list: Vec<String>| {
        if list.is_empty() { String::new() } else { format!(" {what} {}", listed(list)) }
    };
    let unique = |mut list: Vec<String>| {
        let mut seen = HashSet::new();
        list.retain(|item| seen.insert(item.clone()));
        list
    };
    let methods = rules.iter().filter_map(|rule| items(&rule.methods)).flatten().map(|method| method.0.to_string());
    let paths = rules.iter().filter_map(|rule| items(&rule.paths)).flatten().map(|path| format!("that {}", path.0));
    let from = rules.iter().filter_map(|rule| items(&rule.from)).flatten().map(|from| from.as_str().to_owned());
    words += &of("with", unique(methods.collect()));
    words += &of("on paths", unique(paths.collect()));
    words += &of("for", unique(from.collect()));
    if rule.from.is_none() {
        words += " for any caller";
    }
    words
}

/// Compares the fields of a rule that kept its name. `(a, b)` says whether (a) everything that it allows was already
/// allowed by some rule, and (b) everything that it allowed still is; then a wider or narrower field neither loosens
/// nor tightens.
fn describe(
    before: Option<&EgressRuleDocument>,
    rule: &EgressRuleDocument,
    path: &str,
    elsewhere: Option<(bool, bool)>,
    changes: &mut Changes,
) {
    let Some(old) = before else { return };
    let (was_allowed, still_allowed) = elsewhere.unwrap_or((true, true));
    let mut note = |wider: bool, field: &str, message: String, part: &dyn Fn(&mut EgressRuleDocument)| {
        let here = format!("{path}.{field}");
        match (wider, was_allowed, still_allowed) {
            (true, false, _) => {
                let mut wider = rule.clone();
                part(&mut wider);
                changes.loosened(here, message, Sought::Rule(Box::new(wider)));
            }
            (true, true, _) => changes.changed(here, format!("{message}, as other rules did already")),
            (false, _, false) => changes.tightened(here, message),
            (false, _, true) => changes.changed(here, format!("{message}, but other rules still do")),
        }
    };
    let missing = |from: &EgressRuleDocument, of: &EgressRuleDocument| -> Vec<Destination> {
        uncovered_items(&from.to.0, &of.to.0, destination_covers).cloned().collect()
    };
    let added = missing(old, rule);
    if !added.is_empty() {
        let message = format!("allows {}", listed(added.iter().map(destination_words)));
        note(true, "to", message, &|part| part.to = NonEmpty(added.clone()));
    }
    let gone = missing(rule, old);
    if !gone.is_empty() {
        note(false, "to", format!("no longer allows {}", listed(gone.iter().map(destination_words))), &|_| {});
    }
    let caller = |from: &penstock_policy::egress::CallerPattern| from.as_str().to_owned();
    dimension(
        ("from", "any caller"),
        (&old.from, &rule.from),
        caller_covers,
        caller,
        |part, from| part.from = from,
        &mut note,
    );
    dimension(
        ("methods", "any method"),
        (&old.methods, &rule.methods),
        |a, b| a == b,
        |method| method.0.to_string(),
        |part, methods| part.methods = methods,
        &mut note,
    );
    dimension(
        ("paths", "any path"),
        (&old.paths, &rule.paths),
        |a, b| path_covers(&a.0, &b.0),
        |path| path_words(&path.0),
        |part, paths| part.paths = paths,
        &mut note,
    );
    let whole: &dyn Fn(&mut EgressRuleDocument) = &|_| {};
    match (old.connect, rule.connect) {
        (false, true) => note(true, "connect", "opens CONNECT tunnels".to_owned(), &|part| {
            part.methods = Some(NonEmpty(vec![Method("CONNECT".into())]));
        }),
        (true, false) => note(false, "connect", "no longer opens CONNECT tunnels".to_owned(), whole),
        _ => {}
    }
    let added: Vec<&str> =
        rule.upgrades.iter().filter(|upgrade| !old.upgrades.contains(upgrade)).map(|u| &*u.0).collect();
    if !added.is_empty() {
        note(true, "upgrades", format!("allows upgrades to {}", listed(added)), whole);
    }
    let gone: Vec<&str> =
        old.upgrades.iter().filter(|upgrade| !rule.upgrades.contains(upgrade)).map(|u| &*u.0).collect();
    if !gone.is_empty() {
        note(false, "upgrades", format!("no longer allows upgrades to {}", listed(gone)), whole);
    }
    let instant = |time: Option<penstock_policy::Timestamp>, never: &str| time.map_or(never.to_owned(), words::instant);
    // No start means the earliest time, no end the latest.
    if old.not_before != rule.not_before {
        let message = format!(
            "applies from {} on, before: {}",
            instant(rule.not_before, "always"),
            instant(old.not_before, "always")
        );
        note(rule.not_before < old.not_before, "notBefore", message, whole);
    }
    if old.expires != rule.expires {
        let later = old.expires.is_some_and(|old| rule.expires.is_none_or(|new| new > old));
        let message = format!(
            "applies until {}, before: {}",
            instant(rule.expires, "for ever"),
            instant(old.expires, "for ever")
        );
        note(later, "expires", message, whole);
    }
    for (field, old, new) in [("owner", &old.owner, &rule.owner), ("reason", &old.reason, &rule.reason)] {
        if old != new {
            let text = |text: &Option<penstock_policy::egress::RuleText>| {
                text.as_ref().map_or("nobody said".to_owned(), |text| text.0.to_string())
            };
            changes.changed(format!("{path}.{field}"), format!("{:?} → {:?}", text(old), text(new)));
        }
    }
}

/// A list that may be absent, which means `any`.
fn dimension<T: Clone>(
    (field, any): (&str, &str),
    (old, new): (&Option<NonEmpty<T>>, &Option<NonEmpty<T>>),
    covers: impl Fn(&T, &T) -> bool,
    words: impl Fn(&T) -> String,
    set: impl Fn(&mut EgressRuleDocument, Option<NonEmpty<T>>),
    note: &mut impl FnMut(bool, &str, String, &dyn Fn(&mut EgressRuleDocument)),
) {
    let whole: &dyn Fn(&mut EgressRuleDocument) = &|_| {};
    match (items(old), items(new)) {
        (None, None) => {}
        (Some(_), None) => note(true, field, format!("allows {any}"), whole),
        (None, Some(new)) => {
            note(false, field, format!("no longer allows {any}, only {}", listed(new.iter().map(words))), whole)
        }
        (Some(old), Some(new)) => {
            let missing =
                |list: &[T], other: &[T]| -> Vec<T> { uncovered_items(other, list, &covers).cloned().collect() };
            let (added, gone) = (missing(new, old), missing(old, new));
            if !added.is_empty() {
                let message = format!("allows {}", listed(added.iter().map(&words)));
                note(true, field, message, &|part| set(part, Some(NonEmpty(added.clone()))));
            }
            if !gone.is_empty() {
                note(false, field, format!("no longer allows {}", listed(gone.iter().map(&words))), whole);
            }
        }
    }
}

/// Paths in the plural, such as `paths that begin with /v1`.
fn path_words(path: &impl std::fmt::Display) -> String {
    let words = path.to_string();
    let forms = [("is ", "the path "), ("begins with ", "paths that begin with "), ("matches ", "paths that match ")];
    let plural = forms.iter().find_map(|(verb, plural)| Some(format!("{plural}{}", words.strip_prefix(verb)?)));
    plural.unwrap_or(words)
}

/// A rule with `paths` makes requests that it selects path-scoped: they are checked for ambiguous paths, whichever rule
/// allows them. If such a rule is removed and one without `paths` still allows the destination, requests pass that got
/// 400 before. In Audit, no other rule is needed, because requests that no rule allows pass.
fn compare_path_scope(old: &EgressDocument, new: &EgressDocument, changes: &mut Changes) {
    for (rule, opened) in path_scope_lost(old, new) {
        let path = format!("egress.rules[{}].paths", rule.name.0);
        let to = listed(opened.to.0.iter().map(destination_words));
        changes.loosened(
            path,
            format!("requests for {to} are no longer all path-scoped: ambiguous paths such as /a%2fb may pass"),
            Sought::AmbiguousPath(Box::new(opened)),
        );
    }
    for (rule, closed) in path_scope_lost(new, old) {
        let path = format!("egress.rules[{}].paths", rule.name.0);
        let to = listed(closed.to.0.iter().map(destination_words));
        changes.tightened(
            path,
            format!("requests for {to} are path-scoped: ambiguous paths such as /a%2fb are refused with 400"),
        );
    }
}

/// The rules of `one` that make requests path-scoped, that `other` does not have, and whose requests may pass there;
/// with some of these requests.
fn path_scope_lost<'r>(
    one: &'r EgressDocument,
    other: &EgressDocument,
) -> Vec<(&'r EgressRuleDocument, EgressRuleDocument)> {
    let others = Rules::new(&other.rules.0);
    let passes = |part: &EgressRuleDocument| {
        let open = |b: &Destination| {
            let overlaps = |a: &Destination| ports_overlap(a, b) && targets_overlap(&a.target, &b.target);
            others.overlapping(b).filter(|rule| rule.paths.is_none()).any(|rule| rule.to.0.iter().any(overlaps))
        };
        other.mode == Mode::Audit || part.to.0.iter().any(open)
    };
    let scoped = |part: &EgressRuleDocument| {
        others.around(part).any(|rule| rule.paths.is_some() && selection_covers(rule, part))
    };
    let rules = one.rules.0.iter().filter(|rule| rule.paths.is_some());
    rules
        .filter_map(|rule| {
            let selected = EgressRuleDocument { paths: None, ..rule.clone() };
            Some((rule, uncovered(&selected, true, scoped).into_iter().find(passes)?))
        })
        .collect()
}
