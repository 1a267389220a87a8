//! Merges many grants into few rules: those with the same callers, or the same destinations, become one. A rule never
//! allows more than its grants.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use penstock_policy::Timestamp;
use penstock_policy::document::Node;

use super::evidence::Evidence;
use super::grants::{Caller, GrantShape, Grants, LearnedDestination};
use super::observe::AskedForm;
use crate::import::objects::{map, text};
use crate::words;

/// A rule of the learned policy.
#[derive(Clone, Debug)]
pub struct LearnedRule {
    /// A unique name.
    pub name: String,
    /// The callers; `None` for anyone.
    pub from: Option<BTreeSet<String>>,
    /// The destinations.
    pub to: BTreeSet<LearnedDestination>,
    /// What is allowed there.
    pub shape: GrantShape,
    /// The requests of the log that it allows.
    pub evidence: Evidence,
}

/// The rules that allow the same as `grants`, in order, with names that are not in `taken`.
pub fn rules(grants: &Grants, taken: &BTreeSet<String>) -> Vec<LearnedRule> {
    let cells = || {
        grants
            .iter()
            .flat_map(|((caller, to), shapes)| shapes.iter().map(move |shape| (caller.clone(), to.clone(), shape)))
    };
    let by_callers = merge(cells().map(|(caller, to, shape)| ((to, shape), caller)));
    let by_callers: Vec<_> = by_callers
        .into_iter()
        .flat_map(|((to, shape), callers)| {
            split_anybody(callers).into_iter().map(move |callers| ((callers, shape), to.clone()))
        })
        .collect();
    let by_callers: Vec<(BTreeSet<Caller>, BTreeSet<LearnedDestination>, &GrantShape)> =
        merge(by_callers.into_iter()).into_iter().map(|((callers, shape), to)| (callers, to, shape)).collect();
    let by_destinations = merge(cells().map(|(caller, to, shape)| ((caller, shape), to)));
    let by_destinations =
        by_destinations.into_iter().map(|((caller, shape), to)| ((caller.is_none(), to, shape), caller));
    let by_destinations: Vec<(BTreeSet<Caller>, BTreeSet<LearnedDestination>, &GrantShape)> =
        merge(by_destinations).into_iter().map(|((_, to, shape), callers)| (callers, to, shape)).collect();
    let fewer = if by_destinations.len() < by_callers.len() { by_destinations } else { by_callers };
    let mut rules: Vec<LearnedRule> = fewer
        .into_iter()
        .map(|(callers, to, shape)| LearnedRule {
            name: String::new(),
            from: callers.into_iter().map(|caller| caller.map(|caller| caller.to_string())).collect(),
            to,
            shape: shape.clone(),
            evidence: Evidence::default(),
        })
        .collect();
    rules.sort_by(|a, b| (owner(a), &a.to, &a.from, &a.shape).cmp(&(owner(b), &b.to, &b.from, &b.shape)));
    name(&mut rules, taken);
    rules
}

/// All values of each key.
fn merge<K: Ord, V: Ord>(pairs: impl Iterator<Item = (K, V)>) -> BTreeMap<K, BTreeSet<V>> {
    let mut merged: BTreeMap<K, BTreeSet<V>> = BTreeMap::new();
    for (key, value) in pairs {
        merged.entry(key).or_default().insert(value);
    }
    merged
}

/// Grants to anyone are kept apart: in a list with callers, the callers would have no effect.
fn split_anybody(mut callers: BTreeSet<Caller>) -> Vec<BTreeSet<Caller>> {
    let anybody = callers.take(&None).map(|nobody| BTreeSet::from([nobody]));
    anybody.into_iter().chain(Some(callers).filter(|callers| !callers.is_empty())).collect()
}

/// Gives every rule a unique name made of its callers and destinations.
fn name(rules: &mut [LearnedRule], taken: &BTreeSet<String>) {
    let mut used = taken.clone();
    let mut numbers: HashMap<String, u64> = HashMap::new();
    for rule in rules {
        let host = rule.to.first().map(|to| if to.is_star { format!("any.{}", to.host) } else { to.host.to_string() });
        let host = host.unwrap_or_default();
        let base = match rule.from.as_ref().map(|from| (from.len(), from.first())) {
            Some((1, Some(caller))) => format!("{}-{host}", account(caller)),
            _ => host,
        };
        let base = words::shortened(&base, 200);
        let mut name = base.clone();
        let next = numbers.entry(base.clone()).or_insert(2);
        while !used.insert(name.clone()) {
            name = format!("{base}-{next}");
            *next += 1;
        }
        rule.name = name;
    }
}

/// The last segment of an identity, which is the service account.
fn account(caller: &str) -> &str {
    caller.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(caller)
}

/// The namespace in an identity `…/ns/NAMESPACE/sa/…`.
pub fn namespace(caller: &str) -> Option<&str> {
    let mut segments = caller.split('/').skip_while(|segment| *segment != "ns").skip(1);
    segments.next().filter(|name| !name.is_empty())
}

/// The owner of a rule: the namespaces of its callers.
pub fn owner(rule: &LearnedRule) -> Option<String> {
    const MOST: usize = 8;
    let from = rule.from.as_ref()?;
    let namespaces: BTreeSet<&str> = from.iter().filter_map(|caller| namespace(caller)).collect();
    let named = namespaces.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    match namespaces.len() {
        0 => None,
        n if n > MOST => Some(words::shortened(&format!("{named} and {} more", n - MOST), 900)),
        _ => Some(words::shortened(&named, 900)),
    }
}

/// A day in RFC 3339.
pub fn day(time: Timestamp) -> String {
    words::instant(time).split('T').next().unwrap_or_default().to_owned()
}

impl LearnedRule {
    /// The evidence that it was learned from, for its reason.
    pub fn reason(&self) -> String {
        let requests = crate::output::count(usize::try_from(self.evidence.requests).unwrap_or(usize::MAX), "request");
        match self.evidence.span {
            Some((first, last)) => format!("learned from {requests}, {} to {}", day(first), day(last)),
            None => format!("learned from {requests}"),
        }
    }

    /// The rule as a policy writes it.
    pub fn node(&self, unowned: &str, expires: Option<&str>) -> Node {
        let texts = |texts: &mut dyn Iterator<Item = &String>| Node::List(texts.map(|t| text(t.as_str())).collect());
        let mut ports: BTreeMap<(bool, &str), Vec<u16>> = BTreeMap::new();
        for to in &self.to {
            ports.entry((to.is_star, &*to.host)).or_default().push(to.port);
        }
        let to = ports.into_iter().map(|((is_star, host), ports)| {
            let ports = Node::List(ports.into_iter().map(|port| Node::Integer(i64::from(port))).collect());
            map([("host", text(if is_star { format!("*.{host}") } else { host.to_owned() })), ("ports", ports)])
        });
        let mut entries = vec![
            ("name", text(self.name.as_str())),
            ("owner", text(owner(self).unwrap_or_else(|| unowned.to_owned()))),
            ("reason", text(self.reason())),
        ];
        entries.extend(self.from.as_ref().map(|from| ("from", texts(&mut from.iter()))));
        entries.push(("to", Node::List(to.collect())));
        if !self.shape.allows_whole_hosts() {
            entries.push(("methods", texts(&mut self.shape.methods.iter())));
        }
        let paths: Vec<Node> = self.shape.paths.iter().filter_map(super::pattern::Pattern::node).collect();
        entries.extend((!paths.is_empty()).then_some(("paths", Node::List(paths))));
        entries.extend((self.shape.class.form == AskedForm::Tunnel).then_some(("connect", Node::Bool(true))));
        let upgrades = &self.shape.class.upgrades;
        entries.extend((!upgrades.is_empty()).then(|| ("upgrades", texts(&mut upgrades.iter()))));
        entries.extend(expires.map(|expires| ("expires", text(expires))));
        map(entries)
    }

    /// Whether it applies to this caller.
    pub fn is_for(&self, caller: Option<&str>) -> bool {
        self.from.as_ref().is_none_or(|from| caller.is_some_and(|caller| from.contains(caller)))
    }
}

/// Rules by destination.
#[derive(Debug)]
pub struct RuleIndex<'r>(HashMap<&'r LearnedDestination, Vec<(usize, &'r LearnedRule)>>);

impl<'r> RuleIndex<'r> {
    /// For rules with their numbers.
    pub fn new(rules: &'r [LearnedRule]) -> RuleIndex<'r> {
        let mut index: HashMap<&LearnedDestination, Vec<(usize, &LearnedRule)>> = HashMap::new();
        for (number, rule) in rules.iter().enumerate() {
            rule.to.iter().for_each(|to| index.entry(to).or_default().push((number, rule)));
        }
        RuleIndex(index)
    }

    /// The rules for this destination, in order. A host that starts with `*.` stands for every name below it.
    pub fn of(&self, host: &str, port: u16) -> Vec<(usize, &'r LearnedRule)> {
        let star = |host: &str| LearnedDestination { host: host.into(), is_star: true, port };
        let exact = (!host.starts_with("*.")).then(|| LearnedDestination { host: host.into(), is_star: false, port });
        let above = host.match_indices('.').filter_map(|(dot, _)| host.get(dot + 1..)).map(star);
        let lists = exact.into_iter().chain(above).filter_map(|to| self.0.get(&to));
        let mut found: Vec<(usize, &LearnedRule)> = lists.flatten().copied().collect();
        found.sort_unstable_by_key(|(number, _)| *number);
        found.dedup_by_key(|(number, _)| *number);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::grants::GrantClass;
    use crate::learn::pattern::Pattern;

    fn shape(methods: &[&str], path: &str) -> GrantShape {
        let class = GrantClass::default();
        let methods = methods.iter().map(|method| (*method).to_owned()).collect();
        GrantShape { class, methods, paths: vec![Pattern::Prefix(path.into())] }
    }

    fn grants(list: &[(&str, &str, GrantShape)]) -> Grants {
        let mut grants = Grants::new();
        for (caller, host, shape) in list {
            let caller = (!caller.is_empty()).then(|| format!("spiffe://c/ns/{caller}/sa/{caller}").as_str().into());
            let to = LearnedDestination { host: (*host).into(), is_star: false, port: 443 };
            grants.entry((caller, to)).or_default().push(shape.clone());
        }
        grants
    }

    fn shown(grants: &Grants) -> Vec<String> {
        let rule = |rule: &LearnedRule| {
            let from = rule.from.as_ref().map_or("anybody".to_owned(), |from| {
                from.iter().map(|caller| account(caller)).collect::<Vec<_>>().join("+")
            });
            let to = rule.to.iter().map(|to| to.host.to_string()).collect::<Vec<_>>().join("+");
            format!("{}: {from} -> {to}", rule.name)
        };
        rules(grants, &BTreeSet::new()).iter().map(rule).collect()
    }

    #[test]
    fn the_same_callers_or_the_same_destinations_are_one_rule() {
        let get = shape(&["GET"], "/v1");
        assert_eq!(
            shown(&grants(&[("a", "x.test", get.clone()), ("b", "x.test", get.clone()), ("c", "x.test", get.clone())])),
            ["x.test: a+b+c -> x.test"]
        );
        assert_eq!(
            shown(&grants(&[("a", "x.test", get.clone()), ("a", "y.test", get.clone())])),
            ["a-x.test: a -> x.test+y.test"]
        );
        // Grants every caller access to every host, and one more caller to its own host.
        let both =
            [("a", "x.test"), ("a", "y.test"), ("b", "x.test"), ("b", "y.test"), ("c", "x.test"), ("a", "z.test")];
        let both: Vec<(&str, &str, GrantShape)> = both.iter().map(|(a, b)| (*a, *b, get.clone())).collect();
        assert_eq!(shown(&grants(&both)).len(), 3);
    }

    #[test]
    fn anybody_stays_alone_and_names_are_unique() {
        let (get, post) = (shape(&["GET"], "/v1"), shape(&["POST"], "/v2"));
        assert_eq!(
            shown(&grants(&[("", "x.test", get.clone()), ("a", "x.test", get), ("a", "x.test", post)])),
            ["x.test: anybody -> x.test", "a-x.test: a -> x.test", "a-x.test-2: a -> x.test"]
        );
    }

    #[test]
    fn the_owner_is_the_namespace() {
        assert_eq!(namespace("spiffe://cluster.local/ns/payments/sa/checkout"), Some("payments"));
        assert_eq!(namespace("spiffe://example.org/billing/api"), None);
    }
}
