//! The result of polling a proxy, from Envoy or from Prometheus.

use std::collections::{BTreeMap, BTreeSet};

/// A policy of a proxy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunningPolicy {
    /// The plugin's name in the dash: its own name, plus its listeners or a number where several plugins of one Envoy
    /// have the same.
    pub plugin: String,
    /// The plugin's name in its configuration and metrics; empty when it has none.
    pub metrics: String,
    /// The prefixes of the counters of its listeners, as far as the configuration tells.
    pub listeners: BTreeSet<String>,
    /// The policy's document.
    pub document: serde_json::Value,
}

/// The identity that a proxy reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Envoy's version, such as `1.40.0`.
    pub version: Option<String>,
    /// The node id.
    pub node: Option<String>,
    /// The namespace of its pod, if the control plane provides it (`NAMESPACE` in the node's metadata).
    pub namespace: Option<String>,
    /// The uptime in seconds.
    pub uptime: Option<u64>,
}

/// The metrics of one proxy at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Counters of the modules, `<section>.<rule>.<outcome>`: see [`names::key`](crate::names::key).
    pub counters: BTreeMap<Box<str>, u64>,
    /// Gauges of the modules, such as `policy.<plugin>.hash`.
    pub gauges: BTreeMap<Box<str>, f64>,
    /// Counters of Envoy's clusters and listeners: `cluster.<name>.<what>`, `http.<prefix>.<what>`.
    pub traffic: BTreeMap<Box<str>, u64>,
    /// Whether a module reports metrics that this version of the dash does not know.
    pub is_of_another_version: bool,
    /// How old the metrics were when they were read, in seconds.
    pub age: f64,
    /// How many metrics are missing because there are more than the maximum.
    pub dropped: usize,
}

/// The maximum number of metrics of one proxy: enough for a thousand rules in each section with their outcomes, and a
/// few thousand clusters.
const MOST_NUMBERS: usize = 40_000;

/// The sections whose metrics are gauges; all others are counters.
const GAUGES: [&str; 5] = ["policy.", "refused.", "keys.", "breakers.", "weights."];

impl Sample {
    /// Adds a counter of Envoy.
    pub fn add_traffic(&mut self, name: Box<str>, value: u64) {
        if self.traffic.len() < MOST_NUMBERS {
            self.traffic.insert(name, value);
        } else {
            self.dropped += 1;
        }
    }

    /// Adds a metric of a module under its [`names::key`](crate::names::key).
    pub fn add(&mut self, name: &str, value: f64) {
        if self.counters.len() + self.gauges.len() >= MOST_NUMBERS {
            self.dropped += 1;
            return;
        }
        if GAUGES.iter().any(|section| name.starts_with(section)) {
            self.gauges.insert(name.into(), value);
        } else {
            // Counters are integers; Prometheus prints them as floats, which are exact up to 2^53.
            self.counters.insert(name.into(), value as u64);
        }
    }

    /// The value of the gauge `name`.
    pub fn gauge(&self, name: &str) -> Option<f64> {
        self.gauges.get(name).copied()
    }

    /// The plugins that report which policy they run.
    pub fn plugins(&self) -> impl Iterator<Item = &str> {
        self.gauges.keys().filter_map(|name| name.strip_prefix("policy.")?.strip_suffix(".hash"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_distinguished_from_gauges() {
        let mut sample = Sample::default();
        sample.add("egress.stripe.denied", 3.0);
        sample.add("policy.suite.hash", 7.0);
        assert_eq!(sample.counters.get("egress.stripe.denied"), Some(&3));
        assert_eq!(sample.gauge("policy.suite.hash"), Some(7.0));
        assert_eq!(sample.plugins().collect::<Vec<_>>(), ["suite"]);
    }

    #[test]
    fn metrics_are_bounded_and_the_others_are_counted() {
        let mut sample = Sample::default();
        (0..MOST_NUMBERS + 3).for_each(|rule| sample.add(&format!("routes.r{rule}.matched"), 1.0));
        (0..MOST_NUMBERS + 4).for_each(|cluster| sample.add_traffic(format!("cluster.c{cluster}").into(), 1));
        assert_eq!((sample.counters.len(), sample.traffic.len(), sample.dropped), (MOST_NUMBERS, MOST_NUMBERS, 7));
    }
}
