//! The webhook's metrics, in the text format of Prometheus.

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

/// Upper bounds of the histogram's buckets, in seconds.
const BOUNDS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0];

/// Kinds with their own series; all others count as `other`, so that clients cannot create series.
const KINDS: [&str; 6] = ["WasmPlugin", "TrafficExtension", "EnvoyExtensionPolicy", "EnvoyProxy", "ConfigMap", "other"];

/// The counters.
#[derive(Debug, Default)]
pub struct WebhookMetrics(Mutex<WebhookCounts>);

#[derive(Debug, Default)]
struct WebhookCounts {
    /// By kind: allowed, refused, with warnings.
    admissions: [[u64; 3]; KINDS.len()],
    errors: u64,
    buckets: [u64; BOUNDS.len() + 1],
    seconds: f64,
    reloads: [u64; 4],
}

/// What can be reloaded.
#[derive(Clone, Copy, Debug)]
pub enum Reloaded {
    /// The certificate.
    Certificate,
    /// The ceilings.
    Ceilings,
}

impl WebhookMetrics {
    fn with<T>(&self, change: impl FnOnce(&mut WebhookCounts) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a response.
    pub fn admission(&self, kind: &str, is_allowed: bool, warns: bool, took: Duration) {
        let place = KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len() - 1);
        self.with(|counts| {
            if let Some([allowed, refused, warned]) = counts.admissions.get_mut(place) {
                *(if is_allowed { allowed } else { refused }) += 1;
                *warned += u64::from(warns);
            }
            let bucket = BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound).unwrap_or(BOUNDS.len());
            if let Some(count) = counts.buckets.get_mut(bucket) {
                *count += 1;
            }
            counts.seconds += took.as_secs_f64();
        });
    }

    /// Counts a request that was not an AdmissionReview, or could not be answered.
    pub fn error(&self) {
        self.with(|counts| counts.errors += 1);
    }

    /// Counts a reload, or a failed one.
    pub fn reload(&self, what: Reloaded, is_fine: bool) {
        self.with(|counts| {
            let place = usize::from(matches!(what, Reloaded::Ceilings)) * 2 + usize::from(!is_fine);
            if let Some(count) = counts.reloads.get_mut(place) {
                *count += 1;
            }
        });
    }

    /// The page for Prometheus.
    pub fn page(&self, ceilings: usize, routes_known: bool) -> String {
        let mut page = String::new();
        let head = |page: &mut String, name: &str, kind: &str, help: &str| {
            let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        };
        self.with(|counts| {
            head(&mut page, "penstock_webhook_admissions_total", "counter", "Objects that were checked.");
            for (kind, [allowed, refused, _]) in KINDS.iter().zip(&counts.admissions) {
                for (word, count) in [("true", allowed), ("false", refused)] {
                    let _ = writeln!(
                        page,
                        "penstock_webhook_admissions_total{{kind=\"{kind}\",allowed=\"{word}\"}} {count}"
                    );
                }
            }
            head(&mut page, "penstock_webhook_warned_total", "counter", "Answers with warnings.");
            for (kind, [_, _, warned]) in KINDS.iter().zip(&counts.admissions) {
                let _ = writeln!(page, "penstock_webhook_warned_total{{kind=\"{kind}\"}} {warned}");
            }
            head(&mut page, "penstock_webhook_errors_total", "counter", "Requests that could not be answered.");
            let _ = writeln!(page, "penstock_webhook_errors_total {}", counts.errors);
            let name = "penstock_webhook_duration_seconds";
            head(&mut page, name, "histogram", "The duration of answers.");
            let mut total = 0;
            for (i, count) in counts.buckets.iter().enumerate() {
                total += count;
                let bound = BOUNDS.get(i).map_or("+Inf".to_owned(), ToString::to_string);
                let _ = writeln!(page, "{name}_bucket{{le=\"{bound}\"}} {total}");
            }
            let _ = writeln!(page, "{name}_sum {}\n{name}_count {total}", counts.seconds);
            head(&mut page, "penstock_webhook_reloads_total", "counter", "Files that were read again.");
            for (i, count) in counts.reloads.iter().enumerate() {
                let what = if i < 2 { "certificate" } else { "ceilings" };
                let outcome = if i % 2 == 0 { "success" } else { "failure" };
                let _ =
                    writeln!(page, "penstock_webhook_reloads_total{{what=\"{what}\",outcome=\"{outcome}\"}} {count}");
            }
        });
        head(&mut page, "penstock_webhook_ceilings", "gauge", "Ceilings in use.");
        let _ = writeln!(page, "penstock_webhook_ceilings {ceilings}");
        head(&mut page, "penstock_webhook_routes_known", "gauge", "Whether the routes of the cluster are known.");
        let _ = writeln!(page, "penstock_webhook_routes_known {}", u8::from(routes_known));
        page
    }
}
