//! A thread for each source, which polls it periodically and records the result.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::envoy::{EnvoyAdmin, FindWarnings};
use crate::fleet::Fleet;
use crate::prometheus::PrometheusClient;
use crate::sample::Sample;

/// State that all threads share.
pub type Shared = Arc<Mutex<Fleet>>;

/// What is polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScrapeSource {
    /// The admin interface of one Envoy.
    Envoy {
        /// The cluster's name.
        cluster: String,
        /// Its address, such as `http://127.0.0.1:9901`.
        url: String,
    },
    /// A Prometheus.
    Prometheus {
        /// The name of the cluster whose proxies it scrapes.
        cluster: String,
        /// Its address.
        url: String,
    },
}

/// A stack that is large enough for parsing JSON; small because there may be a hundred threads.
const STACK: usize = 512 << 10;

/// A source that takes longer counts as down.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long the configuration of a proxy is reused while its policies stay the same; it may be megabytes.
const REREAD: Duration = Duration::from_secs(30);

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Locks the fleet. If a thread panicked while it held the lock (none should), the numbers are still valid.
pub fn lock(fleet: &Shared) -> std::sync::MutexGuard<'_, Fleet> {
    fleet.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts to poll `sources`, each once an `interval`.
///
/// # Errors
/// Returns an error when no thread can be started.
pub fn start(sources: &[ScrapeSource], interval: Duration, find_warnings: FindWarnings, fleet: &Shared) -> Result<()> {
    for (number, source) in sources.iter().enumerate() {
        let (source, fleet) = (source.clone(), Arc::clone(fleet));
        // Spreads the polls over the interval.
        let first = interval.mul_f64(number as f64 / sources.len() as f64);
        let builder = thread::Builder::new().name(format!("source-{number}")).stack_size(STACK);
        match source {
            ScrapeSource::Envoy { cluster, url } => {
                let name =
                    url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).trim_end_matches('/').to_owned();
                lock(&fleet).add(&cluster, &name, &url);
                let mut watch =
                    WatchedEnvoy { envoy: EnvoyAdmin::new(&url, TIMEOUT), cluster, name, known: None, find_warnings };
                builder.spawn(move || every(interval, first, || watch.look(&fleet)))?;
            }
            ScrapeSource::Prometheus { cluster, url } => {
                lock(&fleet).add_prometheus(&cluster, &url);
                let prometheus = PrometheusClient::new(&url, TIMEOUT);
                builder.spawn(move || {
                    every(interval, first, || match prometheus.samples() {
                        Ok(samples) => lock(&fleet).note_all(&cluster, &url, samples, now()),
                        Err(error) => lock(&fleet).fail_all(&cluster, &url, &format!("{error:#}")),
                    });
                })?;
            }
        }
    }
    let fleet = Arc::clone(fleet);
    thread::Builder::new()
        .name("ticks".to_owned())
        .spawn(move || every(interval, interval, || lock(&fleet).tick(now())))?;
    Ok(())
}

fn every(interval: Duration, first: Duration, mut what: impl FnMut()) {
    thread::sleep(first);
    loop {
        let started = Instant::now();
        what();
        // A slow source is polled less often.
        thread::sleep(interval.saturating_sub(started.elapsed()).max(interval / 10));
    }
}

/// One Envoy, with its last configuration.
struct WatchedEnvoy {
    envoy: EnvoyAdmin,
    cluster: String,
    name: String,
    /// The policies at the time when its configuration was read, and that time. `None`: read it, for the first time or
    /// after it was down.
    known: Option<(PolicyGauges, Instant)>,
    find_warnings: FindWarnings,
}

/// Identifies the running policies: every change of them changes a hash or a generation.
type PolicyGauges = Vec<(Box<str>, u64)>;

fn policies(sample: &Sample) -> PolicyGauges {
    let policies = sample.gauges.iter().filter(|(name, _)| name.starts_with("policy."));
    policies.map(|(name, value)| (name.clone(), *value as u64)).collect()
}

impl WatchedEnvoy {
    fn look(&mut self, fleet: &Shared) {
        if let Err(error) = self.try_look(fleet) {
            self.known = None;
            lock(fleet).fail(&self.cluster, &self.name, format!("{error:#}"));
        }
    }

    fn try_look(&mut self, fleet: &Shared) -> Result<()> {
        let sample = self.envoy.sample()?;
        let running = policies(&sample);
        // Removing a filter does not change its metrics, which stay as they were.
        let is_new = |(known, read): &(PolicyGauges, Instant)| *known != running || read.elapsed() >= REREAD;
        if self.known.as_ref().is_none_or(is_new) {
            let (identity, configuration) = (self.envoy.identity()?, self.envoy.configuration(self.find_warnings)?);
            lock(fleet).know(&self.cluster, &self.name, identity, configuration);
            self.known = Some((running, Instant::now()));
        }
        lock(fleet).note(&self.cluster, &self.name, sample, now());
        Ok(())
    }
}
