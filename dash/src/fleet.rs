//! The current state: clusters, their proxies, and the sums of their counters.

use std::collections::BTreeMap;

use crate::configuration::EnvoyConfiguration;
use crate::sample::{Identity, Sample};
use crate::series::{CounterSeries, PollInterval};

/// The maximum number of counters of a cluster: enough for a thousand rules in each section with their outcomes.
/// Further ones are dropped, which the page reports.
const MOST_SERIES: usize = 20_000;

/// The maximum number of namespaces with their own counters; counters of proxies in further namespaces are ignored.
const MOST_NAMESPACES: usize = 1_000;

/// The maximum number of counters over all namespaces of a cluster.
const MOST_SERIES_OF_ALL: usize = 200_000;

/// The maximum number of proxies of a cluster; a Prometheus may report more, which are dropped.
const MOST_PROXIES: usize = 5_000;

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
    /// When watching the cluster started, and the time of the last tick.
    ticked: Option<(f64, f64)>,
}

/// The sum of the counters of all proxies in one namespace.
#[derive(Debug, Default)]
pub struct Group {
    /// Counters of the modules.
    pub counters: BTreeMap<Box<str>, CounterSeries>,
    /// Counters of Envoy.
    pub traffic: BTreeMap<Box<str>, CounterSeries>,
    /// Whether there were more counters than the maximum.
    pub truncated: bool,
}

/// One proxy.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// Where it is polled: its admin interface, or the Prometheus that scrapes it.
    pub url: String,
    /// Why the last poll failed.
    pub error: Option<String>,
    /// The time of the last successful poll in seconds since 1970.
    pub last_seen: Option<f64>,
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

    /// Adds a proxy's counters; `most` is the maximum number of counters.
    fn note(&mut self, before: Option<&Sample>, now: &Sample, at: f64, most: usize) {
        let maps = [
            (&mut self.counters, before.map(|sample| &sample.counters), &now.counters),
            (&mut self.traffic, before.map(|sample| &sample.traffic), &now.traffic),
        ];
        for (series, before, now) in maps {
            for (name, &value) in now {
                // A counter that is new was 0 before, unless this is the first poll.
                let before = before.map(|before| before.get(name).copied().unwrap_or(0));
                if !series.contains_key(name) {
                    if series.len() >= most {
                        self.truncated = true;
                        continue;
                    }
                    series.insert(name.clone(), CounterSeries::default());
                }
                if let Some(series) = series.get_mut(name) {
                    series.note(before, value, at);
                }
            }
        }
    }
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
}

impl Fleet {
    /// Adds a proxy before its first poll.
    pub fn add(&mut self, cluster: &str, endpoint: &str, url: &str) {
        let endpoint = self.endpoint(cluster, endpoint);
        url.clone_into(&mut endpoint.url);
    }

    /// Adds a cluster without proxies, which a Prometheus will provide.
    pub fn add_cluster(&mut self, cluster: &str) {
        self.clusters.entry(cluster.to_owned()).or_default();
    }

    /// Records a proxy's identity and configuration.
    pub fn know(&mut self, cluster: &str, endpoint: &str, identity: Identity, configuration: EnvoyConfiguration) {
        let before = {
            let endpoint = self.endpoint(cluster, endpoint);
            endpoint.configuration = configuration;
            std::mem::replace(&mut endpoint.identity, identity).namespace
        };
        // A hostile proxy could report a new namespace each time, so namespaces without proxies are removed.
        let Some(cluster) = self.clusters.get_mut(cluster) else { return };
        if !cluster.endpoints.values().any(|endpoint| endpoint.identity.namespace == before) {
            cluster.groups.remove(&before);
        }
    }

    /// Records a proxy's metrics.
    pub fn note(&mut self, cluster: &str, name: &str, sample: Sample, at: f64) {
        let cluster = self.clusters.entry(cluster.to_owned()).or_default();
        let endpoint = cluster.endpoints.entry(name.to_owned()).or_default();
        let before = endpoint.last_seen.is_some().then_some(&endpoint.sample);
        let namespace = endpoint.identity.namespace.clone();
        if cluster.groups.len() < MOST_NAMESPACES || cluster.groups.contains_key(&namespace) {
            let others: usize = cluster.groups.values().map(Group::len).sum();
            let group = cluster.groups.entry(namespace).or_default();
            let most = MOST_SERIES.min(MOST_SERIES_OF_ALL.saturating_sub(others - group.len()) / 2);
            group.note(before, &sample, at, most);
        }
        endpoint.sample = sample;
        endpoint.last_seen = Some(at);
        endpoint.error = None;
    }

    /// Records that a proxy does not respond. Its entry and its counters stay.
    pub fn fail(&mut self, cluster: &str, endpoint: &str, error: String) {
        self.endpoint(cluster, endpoint).error = Some(error);
    }

    /// Records that a Prometheus does not respond, so that the state of its proxies is unknown.
    pub fn fail_all(&mut self, cluster: &str, url: &str, error: &str) {
        let cluster = self.clusters.entry(cluster.to_owned()).or_default();
        if !cluster.endpoints.values().any(|endpoint| endpoint.url == url) {
            cluster.endpoints.entry(url.to_owned()).or_default().url = url.to_owned();
        }
        for endpoint in cluster.endpoints.values_mut().filter(|endpoint| endpoint.url == url) {
            endpoint.error = Some(error.to_owned());
        }
    }

    /// Records the metrics of each proxy that a Prometheus scrapes. A proxy that it does not report any more is down.
    pub fn note_all(&mut self, cluster: &str, url: &str, samples: BTreeMap<String, Sample>, at: f64) {
        let known = self.clusters.entry(cluster.to_owned()).or_default();
        // Removes the entry that represented the Prometheus while it did not respond.
        known.endpoints.remove(url);
        for (name, endpoint) in known.endpoints.iter_mut().filter(|(_, endpoint)| endpoint.url == url) {
            if !samples.contains_key(name) {
                endpoint.error = Some("Prometheus has no fresh samples of it".to_owned());
            }
        }
        for (name, sample) in samples {
            let known = self.clusters.entry(cluster.to_owned()).or_default();
            if known.endpoints.len() >= MOST_PROXIES && !known.endpoints.contains_key(&name) {
                continue;
            }
            self.add(cluster, &name, url);
            self.note(cluster, &name, sample, at);
        }
    }

    /// Ends the current interval of all counters.
    pub fn tick(&mut self, at: f64) {
        for cluster in self.clusters.values_mut() {
            let (began, before) = cluster.ticked.unwrap_or((at, at));
            cluster.ticked = Some((began, at));
            let tick = PollInterval { at, seconds: at - before, watched: at - began };
            for group in cluster.groups.values_mut() {
                let series = group.counters.values_mut().chain(group.traffic.values_mut());
                series.for_each(|series| series.tick(tick));
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
        assert_eq!((group.counters.len(), group.truncated), (MOST_SERIES, true));
    }

    #[test]
    fn namespaces_are_bounded_and_those_with_proxies_stay() {
        let mut fleet = Fleet::default();
        let known = |namespace: String| Identity { namespace: Some(namespace), ..Identity::default() };
        fleet.know("east", "b", known("shop".to_owned()), EnvoyConfiguration::default());
        fleet.note("east", "b", sample(1), 0.0);
        for number in 0..100 {
            fleet.know("east", "a", known(format!("n{number}")), EnvoyConfiguration::default());
            fleet.note("east", "a", sample(1), 1.0);
        }
        let groups: Vec<_> = fleet.cluster("east").unwrap().groups().map(|(namespace, _)| namespace).collect();
        assert_eq!(groups, [Some("n99"), Some("shop")]);
        for number in 0..2 * MOST_NAMESPACES {
            fleet.know("east", &format!("p{number}"), known(format!("p{number}")), EnvoyConfiguration::default());
            fleet.note("east", &format!("p{number}"), sample(1), 1.0);
        }
        assert_eq!(fleet.cluster("east").unwrap().groups().count(), MOST_NAMESPACES);
    }

    #[test]
    fn counters_of_all_namespaces_together_are_bounded() {
        let mut fleet = Fleet::default();
        for number in 0..60 {
            let identity = Identity { namespace: Some(format!("n{number}")), ..Identity::default() };
            let mut many = Sample::default();
            (0..10_000).for_each(|rule| many.add(&format!("routes.r{rule}.matched"), 1.0));
            fleet.know("east", &format!("p{number}"), identity, EnvoyConfiguration::default());
            fleet.note("east", &format!("p{number}"), many, 1.0);
        }
        let cluster = fleet.cluster("east").unwrap();
        assert!(cluster.groups().map(|(_, group)| group.len()).sum::<usize>() <= MOST_SERIES_OF_ALL);
        assert!(cluster.groups().any(|(_, group)| group.truncated));
    }
}
