//! The current state: clusters, their proxies, and the sums of their counters.

use std::collections::BTreeMap;

use crate::configuration::EnvoyConfiguration;
use crate::sample::{Identity, Sample};
use crate::series::PollInterval;
use crate::series_table::SeriesTable;

/// The maximum number of counters of a cluster: enough for a thousand rules in each section with their outcomes.
/// Further ones are dropped, which the page reports.
const MOST_SERIES: usize = 20_000;

/// The maximum number of counters over all namespaces of a cluster. Above it, each namespace has the same share.
const MOST_SERIES_OF_ALL: usize = 200_000;

/// The maximum number of proxies of a cluster. A Prometheus may report more: new ones replace those that are down.
const MOST_PROXIES: usize = 5_000;

/// How long a proxy that its Prometheus does not report any more is shown, in seconds: Pods come and go.
const GONE: f64 = 900.0;

/// How long counters that were left out are reported, in seconds.
const LEFT_OUT: f64 = 60.0;

/// All clusters.
#[derive(Debug, Default)]
pub struct Fleet {
    clusters: BTreeMap<String, ClusterState>,
}

/// One cluster.
#[derive(Debug, Default)]
pub struct ClusterState {
    endpoints: BTreeMap<String, Endpoint>,
    /// By namespace, because a viewer may be restricted to some of them.
    groups: BTreeMap<Option<String>, Group>,
    /// The Prometheus instances that report its proxies, and when each last answered.
    prometheus: BTreeMap<String, Option<f64>>,
    /// How many proxies are not shown because there are more than the maximum.
    left_out: usize,
    /// When watching the cluster started, and the time of the last tick.
    ticked: Option<(f64, f64)>,
    /// The seconds between the last two ticks.
    interval: f64,
}

/// The sum of the counters of all proxies in one namespace.
#[derive(Debug, Default)]
pub struct Group {
    /// Counters of the modules.
    pub counters: SeriesTable,
    /// Counters of Envoy.
    pub traffic: SeriesTable,
    /// When a proxy was last polled, and when counters were last left out because there are more than the maximum.
    seen: f64,
    left_out: Option<f64>,
}

/// How a proxy is polled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PollMethod {
    /// Through its admin interface.
    #[default]
    Admin,
    /// Through a Prometheus, which has metrics only: no identity and no configuration.
    Prometheus,
}

/// One proxy.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// Where it is polled: its admin interface, or the Prometheus that scrapes it.
    pub url: String,
    /// How it is polled.
    pub method: PollMethod,
    /// Why the last poll failed.
    pub error: Option<String>,
    /// The time of its last metrics in seconds since 1970: of the last successful poll, or of Prometheus' last scrape.
    pub last_seen: Option<f64>,
    /// Whether its identity and configuration have been read.
    pub is_read: bool,
    /// Its identity.
    pub identity: Identity,
    /// Its configuration; a Prometheus has none.
    pub configuration: EnvoyConfiguration,
    /// Its last metrics.
    pub sample: Sample,
}

impl Endpoint {
    /// Whether the last poll succeeded.
    pub fn alive(&self) -> bool {
        self.error.is_none() && self.last_seen.is_some()
    }
}

impl Group {
    fn len(&self) -> usize {
        self.counters.len() + self.traffic.len()
    }

    /// Whether there are more counters than the maximum.
    pub fn truncated(&self) -> bool {
        self.left_out.is_some_and(|at| self.seen - at < LEFT_OUT)
    }

    /// Adds a proxy's counters; `most` is the maximum number of counters of each kind.
    fn note(&mut self, before: Option<&Sample>, now: &Sample, at: f64, most: usize) {
        self.seen = at;
        let is_left_out = [
            self.counters.note_all(before.map(|sample| &sample.counters), &now.counters, at, most),
            self.traffic.note_all(before.map(|sample| &sample.traffic), &now.traffic, at, most),
        ];
        if is_left_out.contains(&true) || now.dropped > 0 {
            self.left_out = Some(at);
        }
    }

    /// Removes counters above the maximum.
    fn trim(&mut self, most: usize, at: f64) {
        if self.counters.trim(most) | self.traffic.trim(most) {
            self.left_out = Some(at);
        }
    }
}

/// The largest share such that `all` suffices if none has more than it; all that they want if that is not more.
fn fair_share(mut wanted: Vec<usize>, all: usize) -> usize {
    wanted.sort_unstable();
    let mut left = all;
    let sharing = (1..=wanted.len()).rev();
    for (wanted, sharing) in wanted.into_iter().zip(sharing) {
        let share = left / sharing;
        if wanted > share {
            return share;
        }
        left -= wanted;
    }
    usize::MAX
}

impl ClusterState {
    /// Its proxies, by name.
    pub fn endpoints(&self) -> impl Iterator<Item = (&str, &Endpoint)> {
        self.endpoints.iter().map(|(name, endpoint)| (name.as_str(), endpoint))
    }

    /// Its counters, by namespace.
    pub fn groups(&self) -> impl Iterator<Item = (Option<&str>, &Group)> {
        self.groups.iter().map(|(namespace, group)| (namespace.as_deref(), group))
    }

    /// The Prometheus instances that report its proxies, and when each last answered.
    pub fn prometheus(&self) -> impl Iterator<Item = (&str, Option<f64>)> {
        self.prometheus.iter().map(|(url, answered)| (url.as_str(), *answered))
    }

    /// How many proxies are not shown because there are more than the maximum.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The seconds between the last two polls.
    pub fn interval(&self) -> f64 {
        self.interval
    }

    /// Records a proxy's metrics.
    fn note(&mut self, name: &str, sample: Sample, at: f64) {
        // A slow proxy may be polled twice before the first tick.
        self.ticked.get_or_insert((at, at));
        let endpoint = self.endpoints.entry(name.to_owned()).or_default();
        let before = endpoint.last_seen.is_some().then_some(&endpoint.sample);
        let namespace = endpoint.identity.namespace.clone();
        let group = self.groups.entry(namespace.clone()).or_default();
        let new = sample.counters.len() + sample.traffic.len();
        let own = group.len();
        let all: usize = self.groups.values().map(Group::len).sum();
        let mut most = MOST_SERIES;
        if all + new > MOST_SERIES_OF_ALL {
            let others = self.groups.iter().filter(|(name, _)| **name != namespace).map(|(_, group)| group.len());
            let share = fair_share(others.chain([own + new]).collect(), MOST_SERIES_OF_ALL);
            most = most.min(share / 2);
            self.groups.values_mut().for_each(|group| group.trim(most, at));
        }
        if let Some(group) = self.groups.get_mut(&namespace) {
            group.note(before, &sample, at, most);
        }
        endpoint.last_seen = Some(at - sample.age);
        endpoint.sample = sample;
        endpoint.error = None;
    }

    /// The names of proxies that are down, the one that has been for the longest time last: new ones may replace them.
    fn down(&self) -> Vec<String> {
        let is_down = |one: &Endpoint| one.error.is_some() && one.method == PollMethod::Prometheus;
        let mut down: Vec<_> = self.endpoints.iter().filter(|(_, one)| is_down(one)).collect();
        down.sort_by(|(_, a), (_, b)| b.last_seen.unwrap_or(0.0).total_cmp(&a.last_seen.unwrap_or(0.0)));
        down.into_iter().map(|(name, _)| name.clone()).collect()
    }
}

impl Fleet {
    /// Adds a proxy before its first poll.
    pub fn add(&mut self, cluster: &str, endpoint: &str, url: &str) {
        let endpoint = self.endpoint(cluster, endpoint);
        url.clone_into(&mut endpoint.url);
    }

    /// Adds a cluster without proxies.
    pub fn add_cluster(&mut self, cluster: &str) {
        self.clusters.entry(cluster.to_owned()).or_default();
    }

    /// Adds a Prometheus that reports proxies of a cluster.
    pub fn add_prometheus(&mut self, cluster: &str, url: &str) {
        self.clusters.entry(cluster.to_owned()).or_default().prometheus.insert(url.to_owned(), None);
    }

    /// Records a proxy's identity and configuration.
    pub fn know(&mut self, cluster: &str, endpoint: &str, identity: Identity, configuration: EnvoyConfiguration) {
        let before = {
            let endpoint = self.endpoint(cluster, endpoint);
            endpoint.configuration = configuration;
            endpoint.is_read = true;
            // After a restart all counters began at zero, even those that are higher now.
            if identity.uptime < endpoint.identity.uptime && identity.uptime.is_some() {
                endpoint.sample = Sample::default();
            }
            std::mem::replace(&mut endpoint.identity, identity).namespace
        };
        // A hostile proxy could report a new namespace each time, so namespaces without proxies are removed. Thus there
        // are never more than there are sources.
        let Some(cluster) = self.clusters.get_mut(cluster) else { return };
        if !cluster.endpoints.values().any(|endpoint| endpoint.identity.namespace == before) {
            cluster.groups.remove(&before);
        }
    }

    /// Records a proxy's metrics.
    pub fn note(&mut self, cluster: &str, name: &str, sample: Sample, at: f64) {
        self.clusters.entry(cluster.to_owned()).or_default().note(name, sample, at);
    }

    /// Records that a proxy does not respond. Its entry and its counters stay.
    pub fn fail(&mut self, cluster: &str, endpoint: &str, error: String) {
        self.endpoint(cluster, endpoint).error = Some(error);
    }

    /// Records that a Prometheus does not respond, so that the state of its proxies is unknown.
    pub fn fail_all(&mut self, cluster: &str, url: &str, error: &str) {
        let cluster = self.clusters.entry(cluster.to_owned()).or_default();
        if !cluster.endpoints.values().any(|endpoint| endpoint.url == url) {
            let endpoint = cluster.endpoints.entry(url.to_owned()).or_default();
            endpoint.url = url.to_owned();
            endpoint.method = PollMethod::Prometheus;
        }
        for endpoint in cluster.endpoints.values_mut().filter(|endpoint| endpoint.url == url) {
            endpoint.error = Some(error.to_owned());
        }
    }

    /// Records the metrics of each proxy that a Prometheus scrapes. A proxy that it does not report any more is down, and
    /// is forgotten later.
    pub fn note_all(&mut self, cluster: &str, url: &str, samples: BTreeMap<String, Sample>, at: f64) {
        let cluster = self.clusters.entry(cluster.to_owned()).or_default();
        cluster.prometheus.insert(url.to_owned(), Some(at));
        // Removes the entry that represented the Prometheus while it did not respond.
        cluster.endpoints.remove(url);
        let is_gone = |endpoint: &Endpoint| endpoint.last_seen.is_none_or(|last_seen| at - last_seen >= GONE);
        cluster
            .endpoints
            .retain(|name, endpoint| endpoint.url != url || samples.contains_key(name) || !is_gone(endpoint));
        for (name, endpoint) in cluster.endpoints.iter_mut().filter(|(_, endpoint)| endpoint.url == url) {
            if !samples.contains_key(name) {
                endpoint.error = Some("Prometheus has no fresh samples of it".to_owned());
            }
        }
        cluster.left_out = 0;
        let mut down = None;
        for (name, sample) in samples {
            if !cluster.endpoints.contains_key(&name) {
                if cluster.endpoints.len() >= MOST_PROXIES {
                    let Some(oldest) = down.get_or_insert_with(|| cluster.down()).pop() else {
                        cluster.left_out += 1;
                        continue;
                    };
                    cluster.endpoints.remove(&oldest);
                }
                let (url, method) = (url.to_owned(), PollMethod::Prometheus);
                cluster.endpoints.insert(name.clone(), Endpoint { url, method, ..Endpoint::default() });
            }
            cluster.note(&name, sample, at);
        }
    }

    /// Ends the current interval of all counters.
    pub fn tick(&mut self, at: f64) {
        for cluster in self.clusters.values_mut() {
            let (began, before) = cluster.ticked.unwrap_or((at, at));
            cluster.ticked = Some((began, at));
            cluster.interval = at - before;
            let tick = PollInterval { at, seconds: at - before, watched: at - began };
            for group in cluster.groups.values_mut() {
                group.counters.tick(tick);
                group.traffic.tick(tick);
            }
        }
    }

    /// The names of all clusters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.clusters.keys().map(String::as_str)
    }

    /// One cluster.
    pub fn cluster(&self, name: &str) -> Option<&ClusterState> {
        self.clusters.get(name)
    }

    fn endpoint(&mut self, cluster: &str, endpoint: &str) -> &mut Endpoint {
        self.clusters.entry(cluster.to_owned()).or_default().endpoints.entry(endpoint.to_owned()).or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn sample(denied: u64) -> Sample {
        let mut sample = Sample::default();
        sample.add("egress.stripe.denied", denied as f64);
        sample
    }

    #[test]
    fn what_two_proxies_count_is_one_rate_of_their_cluster() {
        let mut fleet = Fleet::default();
        for at in 0..3 {
            for endpoint in ["a", "b"] {
                fleet.note("east", endpoint, sample(100 + 5 * at), at as f64);
            }
            fleet.tick(at as f64);
        }
        let cluster = fleet.cluster("east").unwrap();
        let (_, group) = cluster.groups().next().unwrap();
        let rate = group.counters.get("egress.stripe.denied").unwrap().rate();
        assert_eq!((rate.total, rate.per_second), (220, 10.0));
    }

    #[test]
    fn what_is_counted_before_the_first_tick_has_a_rate() {
        let mut fleet = Fleet::default();
        fleet.note("east", "a", sample(100), 1.0);
        fleet.note("east", "a", sample(140), 3.0);
        fleet.tick(5.0);
        let (_, group) = fleet.cluster("east").unwrap().groups().next().unwrap();
        let rate = group.counters.get("egress.stripe.denied").unwrap().rate();
        assert_eq!((rate.recent, rate.per_second), (40, 10.0));
    }

    #[test]
    fn a_restarted_proxy_that_has_counted_more_than_before_loses_nothing() {
        let mut fleet = Fleet::default();
        let up = |seconds: u64| Identity { uptime: Some(seconds), ..Identity::default() };
        for (uptime, denied, total) in [(50, 10, 10), (80, 12, 12), (3, 20, 32), (33, 21, 33)] {
            fleet.know("east", "a", up(uptime), EnvoyConfiguration::default());
            fleet.note("east", "a", sample(denied), 1.0);
            fleet.tick(1.0);
            let (_, group) = fleet.cluster("east").unwrap().groups().next().unwrap();
            assert_eq!(group.counters.get("egress.stripe.denied").unwrap().rate().total, total);
        }
    }

    #[test]
    fn a_dead_proxy_stays_and_may_come_back() {
        let mut fleet = Fleet::default();
        fleet.add("east", "a", "http://a");
        let alive = |fleet: &Fleet| fleet.cluster("east").unwrap().endpoints().next().unwrap().1.alive();
        assert!(!alive(&fleet));
        fleet.note("east", "a", sample(1), 1.0);
        assert!(alive(&fleet));
        fleet.fail("east", "a", "refused".to_owned());
        assert!(!alive(&fleet));
        fleet.note("east", "a", sample(1), 2.0);
        assert!(alive(&fleet));
    }

    #[test]
    fn a_proxy_that_prometheus_forgets_is_down() {
        let mut fleet = Fleet::default();
        fleet.fail_all("east", "http://p", "refused");
        fleet.note_all("east", "http://p", [("a".to_owned(), sample(1))].into(), 1.0);
        assert_eq!(fleet.cluster("east").unwrap().endpoints().map(|(name, _)| name).collect::<Vec<_>>(), ["a"]);
        fleet.note_all("east", "http://p", BTreeMap::new(), 2.0);
        assert!(!fleet.cluster("east").unwrap().endpoints().next().unwrap().1.alive());
    }

    #[test]
    fn counters_are_bounded() {
        let mut fleet = Fleet::default();
        let mut many = Sample::default();
        (0..MOST_SERIES + 5).for_each(|rule| many.add(&format!("routes.r{rule}.matched"), 1.0));
        fleet.note("east", "a", many, 1.0);
        let (_, group) = fleet.cluster("east").unwrap().groups().next().unwrap();
        assert_eq!((group.counters.len(), group.truncated()), (MOST_SERIES, true));
    }

    fn known(namespace: String) -> Identity {
        Identity { namespace: Some(namespace), ..Identity::default() }
    }

    #[test]
    fn each_namespace_with_a_proxy_is_counted_and_others_are_forgotten() {
        let mut fleet = Fleet::default();
        fleet.know("east", "b", known("shop".to_owned()), EnvoyConfiguration::default());
        fleet.note("east", "b", sample(1), 0.0);
        // A proxy that reports a new namespace each time.
        for number in 0..3_000 {
            fleet.know("east", "a", known(format!("n{number}")), EnvoyConfiguration::default());
            fleet.note("east", "a", sample(1), 1.0);
        }
        let groups: Vec<_> = fleet.cluster("east").unwrap().groups().map(|(namespace, _)| namespace).collect();
        assert_eq!(groups, [Some("n2999"), Some("shop")]);
        for number in 0..3_000 {
            fleet.know("east", &format!("p{number}"), known(format!("p{number}")), EnvoyConfiguration::default());
            fleet.note("east", &format!("p{number}"), sample(1), 1.0);
        }
        assert_eq!(fleet.cluster("east").unwrap().groups().count(), 3_002);
    }

    #[test]
    fn a_namespace_finds_room_among_others_that_would_fill_all_of_it() {
        let mut fleet = Fleet::default();
        let note = |fleet: &mut Fleet, namespace: &str, rules: usize| {
            let mut many = Sample::default();
            (0..rules).for_each(|rule| many.add(&format!("routes.r{rule}.matched"), 1.0));
            (0..rules).for_each(|rule| many.add_traffic(format!("cluster.c{rule}.upstream_rq_total").into(), 1));
            fleet.know("east", namespace, known(namespace.to_owned()), EnvoyConfiguration::default());
            fleet.note("east", namespace, many, 1.0);
        };
        (0..8).for_each(|number| note(&mut fleet, &format!("n{number}"), MOST_SERIES));
        note(&mut fleet, "late", 50);
        let cluster = fleet.cluster("east").unwrap();
        let late = cluster.groups().find(|(namespace, _)| *namespace == Some("late")).unwrap().1;
        assert_eq!((late.counters.len(), late.traffic.len(), late.truncated()), (50, 50, false));
        assert!(cluster.groups().map(|(_, group)| group.len()).sum::<usize>() <= MOST_SERIES_OF_ALL);
        let others: Vec<_> = cluster.groups().filter(|(namespace, _)| *namespace != Some("late")).collect();
        assert!(others.iter().all(|(_, group)| group.truncated() && group.len() > 20_000), "{}", others.len());
    }

    #[test]
    fn shares_are_fair() {
        assert_eq!(fair_share(vec![], 10), usize::MAX);
        assert_eq!(fair_share(vec![3, 4], 7), usize::MAX);
        assert_eq!(fair_share(vec![9, 1, 9], 11), 5);
        assert_eq!(fair_share(vec![5; 3], 2), 0);
    }

    #[test]
    fn proxies_that_come_and_go_are_forgotten_and_never_leave_a_later_one_out() {
        let mut fleet = Fleet::default();
        let names = |from: usize, to: usize| -> BTreeMap<String, Sample> {
            (from..to).map(|number| (format!("10.0.0.{number}"), sample(1))).collect()
        };
        fleet.note_all("east", "http://p", names(0, MOST_PROXIES), 1.0);
        // All are replaced at once, and then there are more than the maximum.
        fleet.note_all("east", "http://p", names(MOST_PROXIES, 2 * MOST_PROXIES + 7), 2.0);
        let cluster = fleet.cluster("east").unwrap();
        assert_eq!(cluster.endpoints().filter(|(_, endpoint)| endpoint.alive()).count(), MOST_PROXIES);
        assert_eq!((cluster.endpoints().count(), cluster.left_out()), (MOST_PROXIES, 7));
        fleet.note_all("east", "http://p", names(0, 2), 3.0);
        assert_eq!(fleet.cluster("east").unwrap().left_out(), 0);
        // Those that do not come back are shown as down for a quarter of an hour.
        fleet.note_all("east", "http://p", names(0, 2), 2.0 + GONE);
        assert_eq!(fleet.cluster("east").unwrap().endpoints().count(), 2);
    }
}
