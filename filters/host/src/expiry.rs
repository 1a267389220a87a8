//! Egress rules that end soon: a gauge, and a warning once a day.

use std::sync::atomic::{AtomicU64, Ordering};

use penstock_policy::Timestamp;
use penstock_policy::egress::Egress;

use crate::environment::{PluginEnvironment, Worker};
use crate::host::{Host, MetricKind};

/// The gauge's name.
pub(crate) const GAUGE: &str = "penstock.egressExpiry.next.days";

/// Seconds between two checks.
const PERIOD: u64 = 60;

/// When one plugin's rules are checked next: once a minute.
#[derive(Debug, Default)]
pub(crate) struct ExpiryWarning {
    /// In seconds of the proxy's clock.
    next: AtomicU64,
}

impl ExpiryWarning {
    /// Sets the gauge, and warns when it is time to.
    pub(crate) fn refresh<H: Host>(&self, egress: &Egress, host: &H, worker: &mut Worker<H>) {
        let Timestamp(now) = host.now().unwrap_or_default();
        let second = now / 1_000_000_000;
        if second < self.next.load(Ordering::Relaxed) {
            return;
        }
        self.next.store(if egress.expires() { second + PERIOD } else { u64::MAX }, Ordering::Relaxed);
        let mut environment = PluginEnvironment::new(host, worker);
        if let Some(days) = egress.days_to_next_expiry(Timestamp(now)) {
            // If the log fails there is nobody to tell.
            let gauge = host.define_metric(MetricKind::Gauge, GAUGE);
            let _ = gauge.and_then(|gauge| host.record(gauge, days));
        }
        if let Some(line) = egress.expiry_warning(&mut environment) {
            log::warn!("penstock: {line}");
        }
    }
}
