//! A thread for each source, which looks at it once an interval and notes what it saw.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::envoy::{EnvoyAdmin, FindWarnings};
use crate::fleet::Fleet;
use crate::prometheus::PrometheusClient;
use crate::sample::Sample;

/// What all threads share.
pub type Shared = Arc<Mutex<Fleet>>;

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScrapeSource {
    /// The admin interface of one Envoy.
    Envoy {
        /// Its cluster's name.
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

/// A stack that is enough for reading JSON: there may be a hundred threads.
const STACK: usize = 512 << 10;

/// No source may take longer: it is down then.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long the configuration of a proxy whose policies stay the same is relied on: it may be megabytes.
const REREAD: Duration = Duration::from_secs(30);

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Locks the fleet. A thread that panicked with it (none should) has left numbers, not broken ones.
pub fn lock(fleet: &Shared) -> std::sync::MutexGuard<'_, Fleet> {
    fleet.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts to look at `sources`, each once an `interval`.
///
/// # Errors
/// When the system gives no more threads.
pub fn start(sources: &[ScrapeSource], interval: Duration, find_warnings: FindWarnings, fleet: &Shared) -> Result<()> {
    for (number, source) in sources.iter().enumerate() {
        let (source, fleet) = (source.clone(), Arc::clone(fleet));
        // Not all in the same moment.
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
                lock(&fleet).add_cluster(&cluster);
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
        // A source that takes long is asked less often, not all the time.
        thread::sleep(interval.saturating_sub(started.elapsed()).max(interval / 10));
    }
}

/// One Envoy and what of its slow pages is known.
struct WatchedEnvoy {
    envoy: EnvoyAdmin,
    cluster: String,
    name: String,
    /// The policies at the time when its configuration was read, and that time. `None`: read it, for the first time or after it
    /// was down.
    known: Option<(PolicyGauges, Instant)>,
    find_warnings: FindWarnings,
}

/// Which policies run: any change of them is a change of hash or generation.
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
        // A filter that was taken out changes none of its numbers: they stay as they were.
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
