//! What one look at a proxy brings, whichever way it was taken.

use std::collections::{BTreeMap, BTreeSet};

/// A policy as a proxy runs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunningPolicy {
    /// What the dash calls the plugin: its name, and where several plugins of one Envoy share that, also their listeners or a number.
    pub plugin: String,
    /// The name of the plugin in its configuration, and in its metrics; empty where it has none.
    pub metrics: String,
    /// The prefixes of the counters of the listeners that it stands in, where the configuration says so.
    pub listeners: BTreeSet<String>,
    /// The document.
    pub document: serde_json::Value,
}

/// Who a proxy says that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Envoy's version, such as `1.40.0`.
    pub version: Option<String>,
    /// The node's id.
    pub node: Option<String>,
    /// The namespace of its pod, where the control plane tells (`NAMESPACE` in the node's metadata).
    pub namespace: Option<String>,
    /// For how long it runs, in seconds.
    pub uptime: Option<u64>,
}

/// The numbers of one proxy at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Counters of the modules, `<section>.<rule>.<outcome>`: see [`names::key`](crate::names::key).
    pub counters: BTreeMap<Box<str>, u64>,
    /// Gauges of the modules, such as `policy.<plugin>.hash`.
    pub gauges: BTreeMap<Box<str>, f64>,
    /// Counters of Envoy's clusters and listeners: `cluster.<name>.<what>`, `http.<prefix>.<what>`.
    pub traffic: BTreeMap<Box<str>, u64>,
    /// A module reports metrics that this version of the dash does not know.
    pub is_of_another_version: bool,
}

/// So many numbers of one proxy are kept: of a thousand rules of each section with their outcomes, and a few thousand clusters.
const MOST_NUMBERS: usize = 40_000;

/// The sections of names that are gauges; all others are counters.
const GAUGES: [&str; 5] = ["policy.", "refused.", "keys.", "breakers.", "weights."];

impl Sample {
    /// Files one counter of Envoy's own.
    pub fn add_traffic(&mut self, name: Box<str>, value: u64) {
        if self.traffic.len() < MOST_NUMBERS {
            self.traffic.insert(name, value);
        }
    }

    /// Files one metric of a module under its [`names::key`](crate::names::key).
    pub fn add(&mut self, name: &str, value: f64) {
        if self.counters.len() + self.gauges.len() >= MOST_NUMBERS {
            return;
        }
        if GAUGES.iter().any(|section| name.starts_with(section)) {
            self.gauges.insert(name.into(), value);
        } else {
            // Counters are whole numbers; Prometheus prints them as floats, exact up to 2^53.
            self.counters.insert(name.into(), value as u64);
        }
    }

    /// The gauge `name`.
    pub fn gauge(&self, name: &str) -> Option<f64> {
        self.gauges.get(name).copied()
    }

    /// The plugins that say which policy they run.
    pub fn plugins(&self) -> impl Iterator<Item = &str> {
        self.gauges.keys().filter_map(|name| name.strip_prefix("policy.")?.strip_suffix(".hash"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_rises_is_told_from_what_is_now() {
        let mut sample = Sample::default();
        sample.add("egress.stripe.denied", 3.0);
        sample.add("policy.suite.hash", 7.0);
        assert_eq!(sample.counters.get("egress.stripe.denied"), Some(&3));
        assert_eq!(sample.gauge("policy.suite.hash"), Some(7.0));
        assert_eq!(sample.plugins().collect::<Vec<_>>(), ["suite"]);
    }
}
