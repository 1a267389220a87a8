//! Compares the learned rules with the log: what they allow, and what stays refused and why.

use std::collections::{BTreeMap, BTreeSet};

use penstock_policy::Timestamp;

use super::cells::{self, SeenTraffic};
use super::evidence::{Evidence, EvidenceThresholds};
use super::grants::{Allowances, Objection};
use super::observe::AskedForm;
use super::pattern::Pattern;
use super::rules::{LearnedRule, RuleIndex};
use super::tree::Visit;

/// Why something is not learned, ordered by how suspicious it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Why {
    /// The policy's `deny` covers it.
    Denied,
    /// The host is an IP address.
    Address,
    /// The port is unusual.
    OddPort,
    /// A large number of names below one parent, each requested rarely.
    ManyNames,
    /// Parsers disagree about the request, so it gets 400.
    Ambiguous,
    /// No rule can express the caller.
    Identity,
    /// The caller is unknown.
    NoIdentity,
    /// The caller rarely requests this host.
    RareHost,
    /// The caller rarely requests this host with this method.
    RareMethod,
    /// The caller rarely requests this path of the host.
    RarePath,
}

impl Why {
    fn of(objection: Objection) -> Why {
        match objection {
            Objection::Address => Why::Address,
            Objection::Port => Why::OddPort,
            Objection::Identity => Why::Identity,
            Objection::NoIdentity => Why::NoIdentity,
        }
    }

    /// Whether more requests would change nothing.
    pub fn is_independent_of_thresholds(self) -> bool {
        !matches!(self, Why::ManyNames | Why::RareHost | Why::RareMethod | Why::RarePath)
    }

    /// The human-readable description.
    pub fn words(self) -> &'static str {
        match self {
            Why::Denied => "denied by the policy",
            Why::Address => "to an IP address",
            Why::OddPort => "to an unusual port",
            Why::ManyNames => "to many names below one parent, each rarely",
            Why::Ambiguous => "ambiguous: refused whatever the rules say",
            Why::Identity => "by a caller whose identity a rule cannot contain",
            Why::NoIdentity => "by a caller without identity",
            Why::RareHost => "to a host that the caller rarely uses",
            Why::RareMethod => "with a method that is rare there",
            Why::RarePath => "to a path that is rare there",
        }
    }
}

/// Requests that are not learned.
#[derive(Clone, Debug, Default)]
pub struct NotLearned {
    /// The callers.
    pub callers: BTreeSet<Option<String>>,
    /// Some of the names, when there are many.
    pub names: u64,
    /// The methods.
    pub methods: BTreeSet<String>,
    /// Some of the paths.
    pub paths: BTreeSet<String>,
    /// The number of requests and their times.
    pub requests: u64,
    /// The first and the last time.
    pub span: Option<(Timestamp, Timestamp)>,
}

impl NotLearned {
    /// Adds requests of `caller`.
    pub fn add(
        &mut self,
        caller: Option<&str>,
        method: &str,
        path: &str,
        requests: u64,
        span: Option<(Timestamp, Timestamp)>,
    ) {
        const MOST: usize = 5;
        self.requests += requests;
        if self.callers.len() < 1000 {
            self.callers.insert(caller.map(str::to_owned));
        }
        if !method.is_empty() && self.methods.len() < 10 {
            self.methods.insert(method.to_owned());
        }
        if !path.is_empty() && self.paths.len() < MOST {
            self.paths.insert(crate::words::shortened(path, 100));
        }
        if let Some((first, last)) = span {
            let (begin, end) = self.span.unwrap_or((first, last));
            self.span = Some((begin.min(first), end.max(last)));
        }
    }

    fn absorb(&mut self, other: NotLearned) {
        self.requests += other.requests;
        self.callers.extend(other.callers);
        self.methods.extend(other.methods);
        self.paths.extend(other.paths);
        if let Some((first, last)) = other.span {
            let (begin, end) = self.span.unwrap_or((first, last));
            self.span = Some((begin.min(first), end.max(last)));
        }
    }
}

/// The requests that are not learned, by reason and destination.
pub type AllRefused = BTreeMap<(Why, String), NotLearned>;

/// For one caller, the number of allowed requests and of all requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// Requests that are allowed.
    pub allowed: u64,
    /// Requests that stay refused.
    pub refused: u64,
}

/// The effect of the rules on the log.
#[derive(Debug, Default)]
pub struct Account {
    /// The requests that each rule allows.
    pub counts: Vec<Evidence>,
    /// The requests that stay refused.
    pub refused: AllRefused,
    /// The allowed part of each caller's requests.
    pub shares: BTreeMap<Option<String>, Share>,
}

impl Account {
    /// Counts the requests that the rules allow, for each the first rule that does. Lists the others and removes them
    /// from `seen`; returns whether any was removed.
    pub fn sift(
        &mut self,
        seen: &mut SeenTraffic,
        rules: &[LearnedRule],
        allowances: &Allowances,
        thresholds: EvidenceThresholds,
    ) -> bool {
        self.counts = vec![Evidence::default(); rules.len()];
        self.shares.values_mut().for_each(|share| share.allowed = 0);
        let mut is_changed = false;
        let index = RuleIndex::new(rules);
        let SeenTraffic { cells, ways, .. } = seen;
        for ((caller, host, port), cell) in cells {
            let caller = caller.as_deref();
            let for_caller = |rule: &&(usize, &LearnedRule)| rule.1.is_for(caller);
            let candidates: Vec<(usize, &LearnedRule)> = match cell.is_address {
                true => Vec::new(),
                false => index.of(host, *port).iter().filter(for_caller).copied().collect(),
            };
            let objection = allowances.objection(caller, cell.is_address, *port);
            let share = self.shares.entry(caller.map(str::to_owned)).or_default();
            for (number, tree) in &mut cell.ways {
                let Some(way) = ways.get(*number as usize) else { continue };
                let of_way: Vec<&(usize, &LearnedRule)> =
                    candidates.iter().filter(|(_, rule)| rule.shape.is_for(way)).collect();
                tree.retain(&mut |visit| {
                    let evidence = match &visit {
                        Visit::Here(_, evidence) | Visit::Below(_, evidence) => *evidence,
                    };
                    let allows = |pattern: &Pattern| match &visit {
                        _ if way.form != AskedForm::Request => *pattern == Pattern::Tunnel,
                        // A rule for connections has no paths.
                        _ if *pattern == Pattern::Tunnel => true,
                        Visit::Here(path, _) => pattern.has(path),
                        Visit::Below(path, _) => pattern.has_below(path),
                    };
                    let first = of_way.iter().find(|(_, rule)| rule.shape.paths.iter().any(allows));
                    if let Some(count) = first.and_then(|(number, _)| self.counts.get_mut(*number)) {
                        share.allowed += evidence.requests;
                        count.absorb(evidence, thresholds);
                        return true;
                    }
                    is_changed = true;
                    share.refused += evidence.requests;
                    let why = match objection {
                        Some(objection) => Why::of(objection),
                        None if candidates.is_empty() => Why::RareHost,
                        None if of_way.is_empty() => Why::RareMethod,
                        None => Why::RarePath,
                    };
                    let path = match visit {
                        _ if way.form != AskedForm::Request => String::new(),
                        Visit::Here(path, _) => path.to_owned(),
                        Visit::Below(path, _) => format!("{path}/…"),
                    };
                    let place = self.refused.entry((why, address(host, *port))).or_default();
                    place.add(caller, &way.method, &path, evidence.requests, evidence.span);
                    false
                });
            }
        }
        is_changed
    }

    /// Adds requests for too many names, and merges many rare names below one parent: random names may be an attempt to
    /// exfiltrate data.
    pub fn finish(&mut self, seen: &SeenTraffic) {
        for (parent, evidence) in &seen.overflow {
            let place = self.refused.entry((Why::ManyNames, format!("*.{parent}"))).or_default();
            place.add(None, "", "", evidence.requests, evidence.span);
            place.callers.clear();
        }
        self.refused = gather_names(std::mem::take(&mut self.refused));
    }
}

/// Host and port as in a URL.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Merges many rare names below one parent.
fn gather_names(refused: AllRefused) -> AllRefused {
    const MANY: u64 = 10;
    // The direct parent of the name; for names with several random labels, the registrable domain.
    let above = |place: &str| {
        let host = place.rsplit_once(':').map_or(place, |(host, _)| host);
        let parent = cells::parent(host, false).filter(|parent| parent.contains('.'));
        let registered = psl::domain_str(host).filter(|domain| *domain != host && Some(*domain) != parent);
        [parent, registered].map(|name| name.map(|name| format!("*.{name}")))
    };
    let mut below: BTreeMap<String, u64> = BTreeMap::new();
    for (_, place) in refused.keys().filter(|(why, _)| *why == Why::RareHost) {
        above(place).into_iter().flatten().for_each(|name| *below.entry(name).or_default() += 1);
    }
    let mut gathered = AllRefused::new();
    for ((why, place), one) in refused {
        let count = |name: String| below.get(&name).filter(|count| **count > MANY).map(|count| (name, *count));
        let many = above(&place).into_iter().flatten().filter(|_| why == Why::RareHost).find_map(count);
        match many {
            Some((parent, count)) => {
                let all = gathered.entry((Why::ManyNames, parent)).or_default();
                all.names = count;
                all.absorb(one);
            }
            None => gathered.entry((why, place)).or_default().absorb(one),
        }
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_are_one_line_whether_they_have_one_random_label_or_several() {
        let mut refused = AllRefused::new();
        for n in 0..20 {
            for host in [format!("x{n}.t.evil.com"), format!("x{n}.y{n}.tun.evil.org"), format!("b{n}.github.io")] {
                refused.insert(
                    (Why::RareHost, format!("{host}:443")),
                    NotLearned { requests: 1, ..NotLearned::default() },
                );
            }
        }
        refused.insert((Why::RareHost, "once.example.com:443".to_owned()), NotLearned::default());
        let gathered = gather_names(refused);
        let lines: Vec<(&str, u64)> = gathered.iter().map(|((_, place), one)| (place.as_str(), one.names)).collect();
        assert_eq!(lines, [("*.evil.org", 20), ("*.github.io", 20), ("*.t.evil.com", 20), ("once.example.com:443", 0)]);
    }
}
