//! Egress rules that end soon: a gauge, and a warning once a day.

use std::sync::atomic::{AtomicU64, Ordering};

use penstock_policy::egress::Egress;
use penstock_policy::{Timestamp, metric_name};

use crate::environment::{PluginEnvironment, Worker};
use crate::host::{Host, MetricKind};

/// The name of the gauge with the time at which the plugin's next rule expires, in seconds since 1970.
fn gauge_name(plugin: &str) -> Box<str> {
    metric_name("egress_next_expiry_timestamp_seconds", &[("plugin", plugin)])
}

/// Seconds between two checks.
const PERIOD: u64 = 60;

/// Schedules the checks of one plugin's rules: one a minute.
#[derive(Debug)]
pub(crate) struct ExpiryWarning {
    gauge: Box<str>,
    /// The time of the next check, in seconds of the proxy's clock.
    next: AtomicU64,
}

impl ExpiryWarning {
    /// For the plugin with this name.
    pub(crate) fn new(plugin: &str) -> ExpiryWarning {
        ExpiryWarning { gauge: gauge_name(plugin), next: AtomicU64::new(0) }
    }

    /// The gauge's name.
    pub(crate) fn gauge(&self) -> &str {
        &self.gauge
    }

    /// Sets the gauge, and logs a warning when one is due. Only the worker that writes the gauges does this, and only
    /// for the policy in use.
    pub(crate) fn refresh<H: Host>(&self, egress: &Egress, host: &H, worker: &mut Worker<H>, is_writer: bool) {
        if !is_writer {
            self.next.store(0, Ordering::Relaxed);
            return;
        }
        let Timestamp(now) = host.now().unwrap_or_default();
        let second = now / 1_000_000_000;
        if second < self.next.load(Ordering::Relaxed) {
            return;
        }
        self.next.store(if egress.expires() { second + PERIOD } else { u64::MAX }, Ordering::Relaxed);
        let mut environment = PluginEnvironment::new(host, worker);
        // Zero when no rule expires, because a gauge that a former policy set stays in the proxy.
        let next = egress.next_expiry(Timestamp(now)).unwrap_or_default();
        // If this fails, nothing can be done.
        let gauge = host.define_metric(MetricKind::Gauge, &self.gauge);
        let _ = gauge.and_then(|gauge| host.record(gauge, next.0 / 1_000_000_000));
        if let Some(line) = egress.expiry_warning(&mut environment) {
            log::warn!("penstock: {line}");
        }
    }
}
