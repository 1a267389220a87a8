//! What a viewer may see of a cluster, indexed by the names in metrics.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::access::Visibility;
use crate::fleet::{ClusterState, Endpoint};
use crate::sample::RunningPolicy;
use crate::series::{CounterRate, CounterSeries, RecentRate};

/// A counter, summed over all visible proxies.
#[derive(Clone, Debug, Default)]
pub struct VisibleCounter {
    /// Its rate.
    pub rate: CounterRate,
    /// The time of its last increase.
    pub last: Option<f64>,
}

/// The age in seconds from which metrics say nothing about the present. Prometheus repeats old values for 5 minutes.
const STALE: f64 = 150.0;

/// A viewer's part of a cluster.
#[derive(Debug)]
pub struct VisiblePart<'c> {
    /// The viewer's scope.
    pub scope: Visibility<'c>,
    /// The visible proxies.
    pub endpoints: Vec<(&'c str, &'c Endpoint)>,
    /// The policy of each plugin that was loaded last.
    pub policies: Vec<&'c RunningPolicy>,
    /// The clusters of Envoy's routes.
    pub routes: BTreeMap<&'c str, &'c str>,
    /// Envoy's own counters.
    pub traffic: BTreeMap<&'c str, VisibleCounter>,
    /// Whether some counters were dropped.
    pub truncated: bool,
    /// The age in seconds from which a proxy's metrics say nothing about the present.
    pub stale: f64,
    /// Names that several plugins of one proxy share; an empty name for none.
    pub shared_names: BTreeSet<String>,
    /// Egress rules, by their names in metrics, that have several owners: their counts belong to no single owner. Empty
    /// for a viewer who may see all.
    disputed: BTreeSet<String>,
    /// By section and rule, then by outcome.
    counters: BTreeMap<&'c str, BTreeMap<&'c str, BTreeMap<&'c str, VisibleCounter>>>,
}

/// A name as metrics contain it: dots separate parts, so they are replaced.
pub fn part(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

fn add(count: &mut VisibleCounter, series: &CounterSeries) {
    let rate = series.rate();
    count.rate.total = count.rate.total.saturating_add(rate.total);
    count.rate.per_second += rate.per_second;
    count.rate.recent = count.rate.recent.saturating_add(rate.recent);
    let longest = count.rate.history.len().max(rate.history.len());
    // Adds series with the newest point last; the shorter one started later.
    let pad = |history: &[f32]| {
        vec![0.0; longest - history.len()].into_iter().chain(history.iter().copied()).collect::<Vec<_>>()
    };
    count.rate.history = pad(&count.rate.history).into_iter().zip(pad(&rate.history)).map(|(a, b)| a + b).collect();
    count.last = [count.last, series.last_shown()].into_iter().flatten().reduce(f64::max);
}

impl<'c> VisiblePart<'c> {
    /// The part of `cluster` that `scope` may see.
    pub fn new(cluster: &'c ClusterState, scope: Visibility<'c>) -> VisiblePart<'c> {
        let mut seen = VisiblePart {
            scope,
            endpoints: cluster
                .endpoints()
                .filter(|(_, one)| scope.namespace(one.identity.namespace.as_deref()))
                .collect(),
            policies: Vec::new(),
            routes: BTreeMap::new(),
            traffic: BTreeMap::new(),
            truncated: false,
            stale: STALE.max(3.0 * cluster.interval()),
            shared_names: BTreeSet::new(),
            disputed: BTreeSet::new(),
            counters: BTreeMap::new(),
        };
        for (_, group) in cluster.groups().filter(|(namespace, _)| scope.namespace(*namespace)) {
            seen.truncated |= group.truncated();
            for (name, series) in group.counters.iter() {
                let mut parts = name.splitn(3, '.');
                let (Some(section), Some(rule), Some(outcome)) = (parts.next(), parts.next(), parts.next()) else {
                    continue;
                };
                add(
                    seen.counters.entry(section).or_default().entry(rule).or_default().entry(outcome).or_default(),
                    series,
                );
            }
            for (name, series) in group.traffic.iter() {
                add(seen.traffic.entry(name).or_default(), series);
            }
        }
        let mut policies = BTreeMap::<&str, (f64, &RunningPolicy)>::new();
        for (_, endpoint) in &seen.endpoints {
            for (route, cluster) in &endpoint.configuration.routes {
                seen.routes.insert(route, cluster);
            }
            seen.shared_names.extend(endpoint.configuration.shared_names().into_iter().map(str::to_owned));
            for policy in &endpoint.configuration.policies {
                let loaded = endpoint.sample.gauge(&format!("policy.{}.loaded", part(&policy.metrics))).unwrap_or(0.0);
                let newest = policies.entry(&policy.plugin).or_insert((loaded, policy));
                if loaded > newest.0 {
                    *newest = (loaded, policy);
                }
            }
        }
        seen.policies = policies.into_values().map(|(_, policy)| policy).collect();
        // Only a viewer who may see the rules of all owners may see these sums.
        if !scope.every_owner() {
            seen.disputed = seen.disputed();
        }
        seen
    }

    /// `hr.salaries` and `hr_salaries` have the same metric: if they have different owners, it belongs to neither.
    fn disputed(&self) -> BTreeSet<String> {
        let mut owners = BTreeMap::<String, BTreeSet<Option<&str>>>::new();
        let policies = self.endpoints.iter().flat_map(|(_, endpoint)| &endpoint.configuration.policies);
        for policy in policies {
            let rules = policy.document.pointer("/egress/rules").and_then(Value::as_array);
            for rule in rules.into_iter().flatten() {
                let text = |field: &str| rule.get(field).and_then(Value::as_str);
                owners.entry(part(text("name").unwrap_or_default())).or_default().insert(text("owner"));
            }
        }
        owners.into_iter().filter(|(_, owners)| owners.len() > 1).map(|(rule, _)| rule).collect()
    }

    /// The requests to the listeners of a plugin, by Envoy's own counters; `None` when its listeners are unknown.
    pub fn requests_of(&self, plugin: &str) -> Option<RecentRate> {
        let policies = self.endpoints.iter().flat_map(|(_, endpoint)| &endpoint.configuration.policies);
        let of_plugin = policies.filter(|policy| policy.plugin == plugin);
        let listeners: BTreeSet<&str> = of_plugin.flat_map(|policy| &policy.listeners).map(String::as_str).collect();
        let counts =
            listeners.iter().map(|prefix| self.traffic.get(format!("http.{prefix}.downstream_rq_total").as_str()));
        let counts = counts.flatten().collect::<Vec<&VisibleCounter>>();
        (!counts.is_empty()).then(|| counts.into_iter().map(|count| count.rate.flow()).sum())
    }

    /// The counters of a rule by outcome. `rule` is the name in the policy.
    pub fn outcomes(&self, section: &str, rule: &str) -> impl Iterator<Item = (&'c str, &VisibleCounter)> {
        let metric = part(rule);
        let is_hidden = section == "egress" && self.disputed.contains(&metric);
        let rules = self.counters.get(section).filter(|_| !is_hidden);
        let outcomes = rules.and_then(|rules| rules.get(metric.as_str()));
        outcomes.into_iter().flatten().map(|(outcome, count)| (*outcome, count))
    }

    /// One counter.
    pub fn count(&self, section: &str, rule: &str, outcome: &str) -> Option<&VisibleCounter> {
        self.outcomes(section, rule).find(|(found, _)| *found == outcome).map(|(_, count)| count)
    }

    /// When the breaker of a rule's route, or of a canary's variant, last opened.
    pub fn opened(&self, section: &str, rule: &str, variant: &str) -> Option<f64> {
        let breaker = format!("{section}/{}/{}", part(rule), part(variant));
        let counts = self.counters.get("transitions")?.get(breaker.as_str())?;
        ["rolledBack", "failedOver"].iter().filter_map(|outcome| counts.get(outcome)?.last).reduce(f64::max)
    }

    /// The rate of one counter, with the recent count.
    pub fn flow(&self, section: &str, rule: &str, outcome: &str) -> RecentRate {
        self.count(section, rule, outcome).map_or_else(RecentRate::default, |count| count.rate.flow())
    }

    /// The rate of one counter.
    pub fn per_second(&self, section: &str, rule: &str, outcome: &str) -> f64 {
        self.count(section, rule, outcome).map_or(0.0, |count| count.rate.per_second)
    }

    /// The rules of a section that have counters, by their names in metrics.
    pub fn counted(&self, section: &str) -> impl Iterator<Item = &'c str> {
        self.counters.get(section).into_iter().flat_map(|rules| rules.keys().copied())
    }

    /// The gauge of each proxy that responds and has it.
    pub fn gauges(&self, name: &str) -> Vec<f64> {
        let living = self.endpoints.iter().filter(|(_, endpoint)| endpoint.alive());
        living.filter_map(|(_, endpoint)| endpoint.sample.gauge(name)).collect()
    }

    /// How many proxies have a breaker, and in how many it is half-open and open.
    pub fn breaker(&self, section: &str, rule: &str, variant: &str) -> Option<[usize; 3]> {
        let states = self.gauges(&format!("breakers.{section}/{}.{}", part(rule), part(variant)));
        let count = |state: f64| states.iter().filter(|&&found| found == state).count();
        (!states.is_empty()).then(|| [states.len(), count(1.0), count(2.0)])
    }

    /// The entries of a list in every policy, such as `canaries`, or of `path` below a section, such as `routes` and
    /// `rules`, each with its plugin.
    pub fn entries(&self, section: &str, list: Option<&str>) -> impl Iterator<Item = (&'c str, &'c Value)> {
        self.policies.iter().flat_map(move |policy| {
            let section = policy.document.get(section);
            let list = match list {
                Some(list) => section.and_then(|section| section.get(list)),
                None => section,
            };
            list.and_then(Value::as_array).into_iter().flatten().map(|entry| (policy.plugin.as_str(), entry))
        })
    }

    /// The names of a section's rules: those in the policies, then those with only counters (a Prometheus has no
    /// policies).
    pub fn names(&self, section: &str, entries: &[(&'c str, &'c Value)]) -> Vec<(&'c str, Option<&'c Value>)> {
        let mut known = BTreeSet::new();
        let mut names = Vec::new();
        for (_, entry) in entries {
            let Some(name) = entry.get("name").and_then(Value::as_str) else { continue };
            if known.insert(part(name)) {
                names.push((name, Some(*entry)));
            }
        }
        names.extend(self.counted(section).filter(|name| !known.contains(*name)).map(|name| (name, None)));
        names
    }
}
