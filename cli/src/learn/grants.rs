//! What is learned for each caller and destination: the methods and paths with enough evidence.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::cells::{self, CallerCell, SeenTraffic};
use super::evidence::{Evidence, EvidenceThresholds};
use super::observe::{AskedForm, RequestWay};
use super::pattern::{Pattern, widest};
use super::tree::{Tree, Visit};

/// A destination: a name, or with a wildcard all names below one, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LearnedDestination {
    /// The name, without the wildcard.
    pub host: Rc<str>,
    /// Whether it means the names below it.
    pub is_star: bool,
    /// The port.
    pub port: u16,
}

/// What the requests of one rule must have in common besides caller and destination: `upgrades`, `connect`, or neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantClass {
    /// The protocols.
    pub upgrades: Vec<String>,
    /// The kind of request.
    pub form: AskedForm,
}

/// What a rule allows at its destinations: each method on each path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantShape {
    /// Upgrades and tunnels.
    pub class: GrantClass,
    /// Methods.
    pub methods: BTreeSet<String>,
    /// Paths, none of which covers another.
    pub paths: Vec<Pattern>,
}

impl GrantShape {
    /// Whether it allows everything that `other` allows.
    pub fn covers(&self, other: &GrantShape) -> bool {
        let upgrades = &self.class.upgrades;
        if self.allows_whole_hosts() {
            return other.class.form == AskedForm::Connection || other.class == GrantClass::default();
        }
        self.class.form == other.class.form
            && other.class.upgrades.iter().all(|upgrade| upgrades.contains(upgrade))
            && other.methods.is_subset(&self.methods)
            && other.paths.iter().all(|path| self.paths.iter().any(|wide| wide.covers(path)))
    }
}

impl GrantShape {
    /// Whether it is for connections: a rule without methods and paths, which therefore allows every request, too.
    pub fn allows_whole_hosts(&self) -> bool {
        self.class.form == AskedForm::Connection
    }

    /// Whether it allows this form of request.
    pub fn is_for(&self, way: &RequestWay) -> bool {
        if self.allows_whole_hosts() && way.form == AskedForm::Request {
            return way.upgrades.is_empty();
        }
        self.class.form == way.form
            && self.methods.contains(&way.method)
            && way.upgrades.iter().all(|upgrade| self.class.upgrades.contains(upgrade))
    }
}

/// The caller: an identity, or anyone.
pub type Caller = Option<Rc<str>>;

/// What a caller may request of a destination.
pub type Grants = BTreeMap<(Caller, LearnedDestination), Vec<GrantShape>>;

/// Options for what may be learned.
#[derive(Clone, Debug, Default)]
pub struct Allowances {
    /// Additional ports that count as usual.
    pub ports: BTreeSet<u16>,
    /// Whether callers without an identity are left out.
    pub requires_identity: bool,
}

impl Allowances {
    /// Why nothing is learned for a cell, regardless of its evidence.
    pub fn objection(&self, caller: Option<&str>, is_address: bool, port: u16) -> Option<Objection> {
        match () {
            () if is_address => Some(Objection::Address),
            () if !self.ports.contains(&port) => Some(Objection::Port),
            () if caller.is_some_and(|caller| !cells::is_nameable(caller)) => Some(Objection::Identity),
            () if caller.is_none() && self.requires_identity => Some(Objection::NoIdentity),
            () => None,
        }
    }
}

/// Why nothing is learned for a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Objection {
    /// The host is an IP address.
    Address,
    /// The port is unusual.
    Port,
    /// No rule can express the caller.
    Identity,
    /// The caller is unknown.
    NoIdentity,
}

/// A destination is widely used when it has more callers than this, and this many times the requests that one caller
/// needs.
const WIDE: usize = 5;

/// Learns from everything that occurred.
pub fn learn(seen: &SeenTraffic, allowances: &Allowances, thresholds: EvidenceThresholds) -> Grants {
    let mut grants = Grants::new();
    let mut by_destination: BTreeMap<LearnedDestination, Vec<(Caller, &CallerCell)>> = BTreeMap::new();
    for ((caller, host, port), cell) in &seen.cells {
        if allowances.objection(caller.as_deref(), cell.is_address, *port).is_some() {
            continue;
        }
        let (host, is_star) = host.strip_prefix("*.").map_or((host.clone(), false), |name| (name.into(), true));
        let to = LearnedDestination { host, is_star, port: *port };
        let shapes = shapes(own_patterns(cell, seen, thresholds), thresholds.method(), thresholds.requests, thresholds);
        if !shapes.is_empty() {
            grants.insert((caller.clone(), to.clone()), shapes);
        }
        by_destination.entry(to).or_default().push((caller.clone(), cell));
    }
    for (to, mut callers) in by_destination {
        callers.retain(|(caller, _)| caller.is_some());
        if callers.len() > WIDE {
            learn_together(&to, callers, seen, thresholds, &mut grants);
        }
    }
    grants
}

/// Requests of many callers to one destination are not accidents of each: then few requests of one caller are enough,
/// and which path segments are data is learned from all callers. Each caller only gets what it requested itself.
fn learn_together(
    to: &LearnedDestination,
    mut callers: Vec<(Caller, &CallerCell)>,
    seen: &SeenTraffic,
    thresholds: EvidenceThresholds,
    grants: &mut Grants,
) {
    let few = thresholds.path();
    let mut all = Evidence::default();
    callers.retain(|(_, cell)| {
        let own = own_patterns(cell, seen, thresholds);
        let is_habit = !shapes(own.clone(), few, few, thresholds).is_empty();
        own.iter().filter(|_| is_habit).for_each(|own| all.requests += own.evidence.requests);
        is_habit
    });
    if callers.len() <= WIDE || all.requests < u64::from(thresholds.requests) * WIDE as u64 {
        return;
    }
    let mut together: BTreeMap<u32, Tree> = BTreeMap::new();
    for (number, tree) in callers.iter().flat_map(|(_, cell)| &cell.ways) {
        together.entry(*number).or_default().absorb((**tree).clone(), thresholds);
    }
    let patterns: BTreeMap<u32, Vec<Pattern>> =
        together.into_iter().map(|(number, tree)| (number, tree.patterns(thresholds))).collect();
    for (caller, cell) in callers {
        let mut own = Vec::new();
        for (number, tree) in &cell.ways {
            for pattern in patterns.get(number).into_iter().flatten() {
                let evidence = evidence_of(tree, std::slice::from_ref(pattern), thresholds);
                if let Some(way) = seen.ways.get(*number as usize).filter(|_| evidence.is_enough(few, thresholds)) {
                    own.push(Own { way, patterns: vec![pattern.clone()], evidence });
                }
            }
        }
        let key = (caller, to.clone());
        let mut learned = shapes(own, few, few, thresholds);
        learned.extend(grants.remove(&key).into_iter().flatten());
        if !learned.is_empty() {
            grants.insert(key, united(learned));
        }
    }
}

/// The requests of one caller to one destination in one form, for paths with enough evidence.
#[derive(Clone, Debug)]
struct Own<'s> {
    way: &'s RequestWay,
    patterns: Vec<Pattern>,
    evidence: Evidence,
}

fn own_patterns<'s>(cell: &CallerCell, seen: &'s SeenTraffic, thresholds: EvidenceThresholds) -> Vec<Own<'s>> {
    let mut all = Vec::new();
    for (number, tree) in &cell.ways {
        let Some(way) = seen.ways.get(*number as usize) else { continue };
        let patterns = tree.patterns(thresholds);
        let evidence = evidence_of(tree, &patterns, thresholds);
        all.push(Own { way, patterns, evidence });
    }
    all
}

/// The evidence for these patterns.
fn evidence_of(tree: &Tree, patterns: &[Pattern], thresholds: EvidenceThresholds) -> Evidence {
    let mut sum = Evidence::default();
    tree.each(&mut |visit| {
        let (is_one, evidence) = match visit {
            Visit::Here(path, evidence) => (patterns.iter().any(|p| p.has(path)), evidence),
            Visit::Below(path, evidence) => (patterns.iter().any(|p| p.has_below(path)), evidence),
        };
        if is_one {
            sum.absorb(evidence, thresholds);
        }
    });
    sum
}

/// Learns for one caller and destination, with thresholds for requests with a method and for all requests. Only what is
/// learned is counted, so that learning again from what the rules allow gives the same rules.
fn shapes(own: Vec<Own<'_>>, method: u32, all: u32, thresholds: EvidenceThresholds) -> Vec<GrantShape> {
    let mut by_way: BTreeMap<&RequestWay, (Vec<Pattern>, Evidence)> = BTreeMap::new();
    for own in own {
        let (patterns, evidence) = by_way.entry(own.way).or_default();
        patterns.extend(own.patterns);
        evidence.absorb(&own.evidence, thresholds);
    }
    by_way.retain(|_, (_, evidence)| evidence.is_enough(method, thresholds));
    let mut sum = Evidence::default();
    by_way.values().for_each(|(_, evidence)| sum.absorb(evidence, thresholds));
    if !sum.is_enough(all, thresholds) {
        return Vec::new();
    }
    let shape = |(way, (patterns, _)): (&RequestWay, (Vec<Pattern>, Evidence))| GrantShape {
        class: GrantClass { upgrades: way.upgrades.clone(), form: way.form },
        methods: BTreeSet::from([way.method.clone()]),
        paths: if way.form == AskedForm::Request { patterns } else { vec![Pattern::Tunnel] },
    };
    united(by_way.into_iter().map(shape).collect())
}

/// One grant for each form: every method on every path.
fn united(shapes: Vec<GrantShape>) -> Vec<GrantShape> {
    let mut by_class: BTreeMap<GrantClass, (BTreeSet<String>, Vec<Pattern>)> = BTreeMap::new();
    for shape in shapes {
        let (methods, paths) = by_class.entry(shape.class).or_default();
        methods.extend(shape.methods);
        paths.extend(shape.paths);
    }
    by_class.into_iter().map(|(class, (methods, paths))| GrantShape { class, methods, paths: widest(paths) }).collect()
}

/// A name and what is learned for it.
type Sibling = (LearnedDestination, Vec<GrantShape>);

/// Replaces more than `most` names below one parent, which one caller requests in the same way, by a wildcard. A
/// wildcard never covers a name of the Public Suffix List, below which anyone can register names.
pub fn add_stars(grants: &mut Grants, most: usize) {
    let mut siblings: BTreeMap<(Caller, Rc<str>, u16), Vec<Sibling>> = BTreeMap::new();
    for ((caller, to), shapes) in grants.iter() {
        if let Some(parent) = cells::parent(&to.host, false).filter(|parent| !to.is_star && takes_star(parent)) {
            let place = siblings.entry((caller.clone(), parent.into(), to.port)).or_default();
            place.push((to.clone(), shapes.clone()));
        }
    }
    for ((caller, parent, port), names) in siblings {
        let stars = common(&names, most);
        if stars.is_empty() {
            continue;
        }
        for (to, shapes) in names {
            let mut left = shapes;
            left.retain(|shape| !stars.iter().any(|star| star.covers(shape)));
            let key = (caller.clone(), to);
            match left.is_empty() {
                true => drop(grants.remove(&key)),
                false => drop(grants.insert(key, left)),
            }
        }
        grants.insert((caller, LearnedDestination { host: parent, is_star: true, port }), stars);
    }
}

/// Whether a wildcard above this name may be learned.
fn takes_star(parent: &str) -> bool {
    parent.contains('.') && psl::suffix(parent.as_bytes()).is_none_or(|suffix| suffix.as_bytes() != parent.as_bytes())
}

/// The methods and paths that more than `most` of the names have.
fn common(names: &[Sibling], most: usize) -> Vec<GrantShape> {
    let mut stars = Vec::new();
    let classes: BTreeSet<&GrantClass> =
        names.iter().flat_map(|(_, shapes)| shapes).map(|shape| &shape.class).collect();
    for class in classes {
        let shapes: Vec<&GrantShape> =
            names.iter().flat_map(|(_, shapes)| shapes).filter(|shape| shape.class == *class).collect();
        let mut methods: BTreeMap<&String, usize> = BTreeMap::new();
        // Of each pattern the shapes that have it.
        let mut paths: BTreeMap<&Pattern, BTreeSet<usize>> = BTreeMap::new();
        for (number, shape) in shapes.iter().enumerate() {
            shape.methods.iter().for_each(|method| *methods.entry(method).or_default() += 1);
            for path in &shape.paths {
                paths.entry(path).or_default().insert(number);
            }
        }
        let methods: BTreeSet<String> =
            methods.into_iter().filter(|(_, count)| *count > most).map(|(method, _)| method.clone()).collect();
        let is_common = |path: &&&Pattern| {
            let having: BTreeSet<usize> =
                path.wider().filter_map(|wider| paths.get(&wider)).flatten().copied().collect();
            having.len() > most
        };
        let paths = widest(paths.keys().filter(is_common).map(|path| (*path).clone()).collect());
        if !methods.is_empty() && !paths.is_empty() {
            stars.push(GrantShape { class: class.clone(), methods, paths });
        }
    }
    stars
}

/// Removes what is also allowed by a grant to anyone, by a wildcard, or for connections.
pub fn drop_covered(grants: &mut Grants) {
    let all = grants.clone();
    let is_covered = |caller: &Caller, to: &LearnedDestination, shape: &GrantShape| {
        let at = |caller: &Caller, to: &LearnedDestination| {
            all.get(&(caller.clone(), to.clone())).is_some_and(|shapes| shapes.iter().any(|wide| wide.covers(shape)))
        };
        let above = to.host.match_indices('.').filter_map(|(dot, _)| to.host.get(dot + 1..));
        let stars = above.map(|host| LearnedDestination { host: host.into(), is_star: true, port: to.port });
        let mut wider = stars.chain((caller.is_some()).then(|| to.clone()));
        let beside = all.get(&(caller.clone(), to.clone())).into_iter().flatten();
        beside.into_iter().any(|wide| wide != shape && wide.allows_whole_hosts() && wide.covers(shape))
            || wider.any(|wide| (caller.is_some() && at(&None, &wide)) || (wide != *to && at(caller, &wide)))
    };
    grants.retain(|(caller, to), shapes| {
        shapes.retain(|shape| !is_covered(caller, to, shape));
        !shapes.is_empty()
    });
}
