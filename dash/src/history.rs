//! What the dash has recorded since it started: a few rates of each cluster, and the times of changes. Bounded.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use serde::Serialize;

use crate::access::Visibility;
use crate::fleet::{ClusterState, Endpoint, Group};
use crate::scrape::{self, Shared};
use crate::series_table::SeriesTable;

/// The number of polls for each point.
pub const POLLS: u32 = 10;

/// The maximum number of points of a namespace: six hours at one poll a second.
const POINTS: usize = 2_160;

/// The maximum number of points of all namespaces of a cluster. With more than 200 namespaces, each has fewer.
const POINTS_OF_ALL: usize = 200 * POINTS;

/// The maximum number of marks of a cluster.
const MARKS: usize = 500;

/// The maximum number of namespaces without a proxy whose history is kept: a proxy could report a new one each time.
const PAST_NAMESPACES: usize = 100;

/// State that all threads share.
pub type SharedHistory = Arc<Mutex<History>>;

/// Locks the history. If a thread panicked while it held the lock (none should), the points are still complete.
pub fn lock(history: &SharedHistory) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The rates of some proxies at one time, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct HistoryRates {
    /// Requests to their listeners.
    pub requests: f32,
    /// Requests that egress rules and limits refused.
    pub refused: f32,
    /// 5xx responses of the clusters that they send to.
    pub errors: f32,
}

impl std::ops::Add for HistoryRates {
    type Output = HistoryRates;

    fn add(self, other: HistoryRates) -> HistoryRates {
        HistoryRates {
            requests: self.requests + other.requests,
            refused: self.refused + other.refused,
            errors: self.errors + other.errors,
        }
    }
}

/// A change at a time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HistoryMark {
    /// The time in seconds since 1970.
    pub at: f64,
    /// The kind of change.
    pub kind: MarkKind,
    /// The plugin, or `<rule>: <variant>`.
    pub name: String,
    /// The number of proxies.
    pub proxies: usize,
    #[serde(skip)]
    namespace: Option<String>,
}

impl HistoryMark {
    /// A mark that every viewer of the cluster may see.
    pub fn new(at: f64, kind: MarkKind, name: String) -> HistoryMark {
        HistoryMark { at, kind, name, proxies: 1, namespace: None }
    }
}

/// The kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum MarkKind {
    /// A proxy runs a different policy.
    Reload,
    /// A breaker opened: a variant was rolled back, or a route failed over.
    Rollback,
    /// A ramp reached its next step.
    Ramp,
}

/// The histories of all clusters.
#[derive(Debug, Default)]
pub struct History {
    clusters: BTreeMap<String, ClusterHistory>,
}

/// The history of one cluster.
#[derive(Debug, Default)]
struct ClusterHistory {
    namespaces: BTreeMap<Option<String>, VecDeque<(f64, HistoryRates)>>,
    marks: HistoryMarks,
    /// For each proxy, the values that change with its policies.
    known: BTreeMap<String, BTreeMap<Box<str>, u64>>,
}

fn rates(group: &Group) -> HistoryRates {
    let sum = |table: &SeriesTable, wanted: &dyn Fn(&str) -> bool| {
        table.iter().filter(|(name, _)| wanted(name)).map(|(_, series)| series.rate().per_second as f32).sum::<f32>()
    };
    let is_listener = |name: &str| {
        name.starts_with("http.") && !name.starts_with("http.admin.") && name.ends_with(".downstream_rq_total")
    };
    let is_refusal = |name: &str| {
        name.starts_with("egressReasons.") && name.ends_with(".denied")
            || name.starts_with("rateLimits.") && name.ends_with(".limited")
    };
    HistoryRates {
        requests: sum(&group.traffic, &is_listener),
        refused: sum(&group.counters, &is_refusal),
        errors: sum(&group.traffic, &|name| name.starts_with("cluster.") && name.ends_with(".upstream_rq_5xx")),
    }
}

/// The metrics of a proxy that change when a policy is replaced, or a breaker opens.
fn watched(endpoint: &Endpoint) -> BTreeMap<Box<str>, u64> {
    let sample = &endpoint.sample;
    let hashes = sample.gauges.iter().filter(|(name, _)| name.starts_with("policy.") && name.ends_with(".hash"));
    let opened =
        sample.counters.iter().filter(|(name, _)| [".rolledBack", ".failedOver"].iter().any(|end| name.ends_with(end)));
    hashes
        .map(|(name, value)| (name.clone(), *value as u64))
        .chain(opened.map(|(name, value)| (name.clone(), *value)))
        .collect()
}

/// The kind and the name of a change.
fn change(name: &str) -> Option<(MarkKind, String)> {
    if let Some(plugin) = name.strip_prefix("policy.").and_then(|rest| rest.strip_suffix(".hash")) {
        return Some((MarkKind::Reload, plugin.to_owned()));
    }
    let (place, _) = name.rsplit_once('.')?;
    let breaker = place.strip_prefix("transitions.").unwrap_or(place);
    let mut parts = breaker.splitn(3, ['/', '.']).skip(1);
    let (rule, variant) = (parts.next()?, parts.next());
    Some((MarkKind::Rollback, variant.map_or(rule.to_owned(), |variant| format!("{rule}: {variant}"))))
}

impl ClusterHistory {
    /// Forgets what is above the bounds; `present` namespaces have a proxy.
    fn forget(&mut self, present: usize) {
        while self.namespaces.len() > present + PAST_NAMESPACES {
            let newest = |points: &VecDeque<(f64, HistoryRates)>| points.back().map_or(0.0, |(at, _)| *at);
            let mut namespaces = self.namespaces.iter();
            let Some(first) = namespaces.next() else { break };
            let oldest = namespaces.fold(first, |a, b| if newest(b.1) < newest(a.1) { b } else { a }).0.clone();
            self.namespaces.remove(&oldest);
        }
        let most = POINTS.min(POINTS_OF_ALL / self.namespaces.len().max(1));
        for points in self.namespaces.values_mut() {
            let over = points.len().saturating_sub(most);
            points.drain(..over);
        }
    }
}

impl History {
    /// Records the current rates and changes of a cluster.
    pub fn note(&mut self, name: &str, cluster: &ClusterState, at: f64) {
        let history = self.clusters.entry(name.to_owned()).or_default();
        let mut present = 0;
        for (namespace, group) in cluster.groups() {
            history.namespaces.entry(namespace.map(str::to_owned)).or_default().push_back((at, rates(group)));
            present += 1;
        }
        history.forget(present);
        for (proxy, endpoint) in cluster.endpoints().filter(|(_, endpoint)| endpoint.alive()) {
            let now = watched(endpoint);
            // The first poll, and one after a restart, are not changes.
            if let Some(before) = history.known.get(proxy) {
                let changed = now.iter().filter(|(name, value)| match before.get(*name) {
                    Some(before) if name.starts_with("policy.") => before != *value,
                    Some(before) => before < *value,
                    None => !name.starts_with("policy.") && **value > 0,
                });
                let namespace = endpoint.identity.namespace.clone();
                for (kind, name) in changed.filter_map(|(name, _)| change(name)) {
                    history.marks.add(HistoryMark { at, kind, name, proxies: 1, namespace: namespace.clone() });
                }
            }
            history.known.insert(proxy.to_owned(), now);
        }
        let living: Vec<&str> = cluster.endpoints().map(|(proxy, _)| proxy).collect();
        if history.known.len() > living.len() {
            history.known.retain(|proxy, _| living.contains(&proxy.as_str()));
        }
    }

    /// How many changes of a cluster are not known any more because of newer ones.
    pub fn replaced_marks(&self, cluster: &str) -> u64 {
        self.clusters.get(cluster).map_or(0, |history| history.marks.replaced)
    }

    /// The rates of a cluster since `from` that `scope` may see, and the changes.
    pub fn since(
        &self,
        cluster: &str,
        scope: Visibility<'_>,
        from: f64,
    ) -> (Vec<(f64, HistoryRates)>, Vec<HistoryMark>) {
        let Some(history) = self.clusters.get(cluster) else { return Default::default() };
        let mut points = BTreeMap::<u64, HistoryRates>::new();
        let visible = history.namespaces.iter().filter(|(namespace, _)| scope.namespace(namespace.as_deref()));
        for (at, rates) in visible.flat_map(|(_, points)| points).filter(|(at, _)| *at >= from) {
            // Points that were recorded together have the same time.
            let sum = points.entry(at.to_bits()).or_default();
            *sum = *sum + *rates;
        }
        let marks =
            history.marks.kept.iter().filter(|mark| mark.at >= from && scope.namespace(mark.namespace.as_deref()));
        (points.into_iter().map(|(at, rates)| (f64::from_bits(at), rates)).collect(), marks.cloned().collect())
    }
}

/// The changes of a cluster, the oldest first.
#[derive(Debug, Default)]
struct HistoryMarks {
    kept: VecDeque<HistoryMark>,
    /// How many newer ones have replaced.
    replaced: u64,
}

impl HistoryMarks {
    /// Adds a mark: one for all proxies with the same change within a minute.
    fn add(&mut self, new: HistoryMark) {
        let same = |mark: &&mut HistoryMark| {
            (mark.kind, &mark.name, &mark.namespace) == (new.kind, &new.name, &new.namespace) && new.at - mark.at < 60.0
        };
        if let Some(known) = self.kept.iter_mut().rev().take(50).find(same) {
            known.proxies += 1;
            return;
        }
        if self.kept.len() >= MARKS {
            // The oldest of the namespace with the most, so that it does not displace those of others.
            let mut counts = BTreeMap::<&Option<String>, usize>::new();
            self.kept.iter().for_each(|mark| *counts.entry(&mark.namespace).or_default() += 1);
            let most = counts.into_iter().max_by_key(|(_, count)| *count).map(|(namespace, _)| namespace.clone());
            let oldest = self.kept.iter().position(|mark| most.as_ref() == Some(&mark.namespace));
            self.kept.remove(oldest.unwrap_or_default());
            self.replaced += 1;
        }
        self.kept.push_back(new);
    }
}

/// Records all clusters periodically in a new thread.
///
/// # Errors
/// Returns an error when no thread can be started.
pub fn start(fleet: &Shared, history: &SharedHistory, interval: Duration) -> io::Result<()> {
    let (fleet, history, step) = (Arc::clone(fleet), Arc::clone(history), interval * POLLS);
    thread::Builder::new().name("history".to_owned()).spawn(move || {
        loop {
            thread::sleep(step);
            let fleet = scrape::lock(&fleet);
            let mut history = lock(&history);
            let at = scrape::now();
            for name in fleet.names() {
                if let Some(cluster) = fleet.cluster(name) {
                    history.note(name, cluster, at);
                }
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::configuration::EnvoyConfiguration;
    use crate::fleet::Fleet;
    use crate::sample::{Identity, Sample};

    fn sample(hash: f64, rolled_back: f64) -> Sample {
        let mut sample = Sample::default();
        sample.add("policy.edge.hash", hash);
        sample.add("transitions.canaries/reviews/v2.rolledBack", rolled_back);
        sample
    }

    #[test]
    fn reloads_and_rollbacks_are_marked_once_for_all_proxies() {
        let mut fleet = Fleet::default();
        let mut history = History::default();
        let mut look = |at: f64, hash: f64, rolled_back: f64| {
            for proxy in ["a", "b"] {
                fleet.add("east", proxy, "http://x");
                fleet.note("east", proxy, sample(hash, rolled_back), at);
            }
            history.note("east", fleet.cluster("east").unwrap(), at);
        };
        look(10.0, 1.0, 3.0);
        look(20.0, 1.0, 3.0);
        look(30.0, 2.0, 3.0);
        look(40.0, 2.0, 4.0);
        let (points, marks) = history.since("east", Visibility::Everything, 0.0);
        assert_eq!(points.len(), 4);
        let found: Vec<_> = marks.iter().map(|mark| (mark.at, mark.kind, &*mark.name, mark.proxies)).collect();
        assert_eq!(found, [(30.0, MarkKind::Reload, "edge", 2), (40.0, MarkKind::Rollback, "reviews: v2", 2)]);
        assert_eq!(history.since("east", Visibility::Everything, 35.0).1.len(), 1);
        assert_eq!(history.since("west", Visibility::Everything, 0.0), (vec![], vec![]));
    }

    #[test]
    fn each_namespace_with_a_proxy_has_a_history_and_of_others_the_last_ones() {
        let (mut fleet, mut history) = (Fleet::default(), History::default());
        let mut note = |proxy: &str, namespace: String, at: f64| {
            let identity = Identity { namespace: Some(namespace), ..Identity::default() };
            fleet.know("east", proxy, identity, EnvoyConfiguration::default());
            fleet.note("east", proxy, sample(1.0, 0.0), at);
            history.note("east", fleet.cluster("east").unwrap(), at);
        };
        // A proxy that reports a new namespace each time, and one that comes later.
        (0..500).for_each(|number| note("hostile", format!("n{number}"), f64::from(number)));
        note("late", "zz".to_owned(), 500.0);
        let namespaces = &history.clusters["east"].namespaces;
        assert_eq!(namespaces.len(), 2 + PAST_NAMESPACES);
        let points = |namespace: &str| namespaces.get(&Some(namespace.to_owned())).map(VecDeque::len);
        assert_eq!((points("zz"), points("n499"), points("n450"), points("n300")), (Some(1), Some(2), Some(1), None));
    }

    #[test]
    fn many_namespaces_have_shorter_histories() {
        let mut history = ClusterHistory::default();
        let points: VecDeque<_> = (0..POINTS).map(|at| (at as f64, HistoryRates::default())).collect();
        history.namespaces = (0..400).map(|number| (Some(number.to_string()), points.clone())).collect();
        history.forget(400);
        assert!(
            history.namespaces.len() == 400 && history.namespaces.values().all(|points| points.len() == POINTS / 2)
        );
        assert_eq!(
            history.namespaces.values().next().and_then(|points| points.back()).map(|(at, _)| *at),
            Some((POINTS - 1) as f64)
        );
    }

    #[test]
    fn a_proxy_that_changes_all_the_time_does_not_displace_the_marks_of_others() {
        let mut marks = HistoryMarks::default();
        let of = |namespace: &str, at: f64, name: String| HistoryMark {
            namespace: Some(namespace.to_owned()),
            ..HistoryMark::new(at, MarkKind::Reload, name)
        };
        (0..3).for_each(|number| marks.add(of("quiet", 100.0 * f64::from(number), "p".to_owned())));
        (0..5_000).for_each(|number| marks.add(of("loud", f64::from(number), format!("p{number}"))));
        let quiet = marks.kept.iter().filter(|mark| mark.namespace.as_deref() == Some("quiet")).count();
        assert_eq!((marks.kept.len(), quiet, marks.replaced), (MARKS, 3, 5_003 - MARKS as u64));
    }

    #[test]
    fn history_is_bounded() {
        let mut fleet = Fleet::default();
        fleet.add("east", "a", "http://x");
        fleet.note("east", "a", sample(1.0, 0.0), 0.0);
        let mut history = History::default();
        for second in 0..POINTS + 10 {
            history.note("east", fleet.cluster("east").unwrap(), second as f64);
        }
        assert_eq!(history.since("east", Visibility::Everything, 0.0).0.len(), POINTS);
        let mut marks = HistoryMarks::default();
        for number in 0..2 * MARKS {
            marks.add(HistoryMark::new(100.0 * number as f64, MarkKind::Reload, "p".to_owned()));
        }
        assert_eq!(marks.kept.len(), MARKS);
    }
}
