//! What one look at a proxy brings, whichever way it was taken.

use std::collections::BTreeMap;

/// A policy as a proxy runs it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningPolicy {
    /// The name of the plugin (the filter's `name` in its configuration), or of the filter.
    pub plugin: String,
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
    /// Counters of the modules, without `penstock.`: `<section>.<rule>.<outcome>`.
    pub counters: BTreeMap<Box<str>, u64>,
    /// Gauges of the modules, without `penstock.`, such as `policy.<plugin>.hash`.
    pub gauges: BTreeMap<Box<str>, f64>,
    /// Counters of Envoy's clusters and listeners: `cluster.<name>.<what>`, `http.<prefix>.<what>`.
    pub traffic: BTreeMap<Box<str>, u64>,
}

/// The sections of names that are gauges; all others are counters.
const GAUGES: [&str; 5] = ["policy.", "slots.", "breakers.", "shares.", "egressExpiry."];

impl Sample {
    /// Files one metric of a module by its name without `penstock.`.
    pub fn add(&mut self, name: &str, value: f64) {
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
