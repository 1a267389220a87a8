//! The policy's gauges, written when they change.

use penstock_policy::{Environment, Gauges, Policy, Runs};

use crate::host::{Host, MetricKind};

/// The gauges of one plugin in one worker.
#[derive(Debug)]
pub struct GaugeWriter {
    gauges: Gauges,
    /// The values that this worker wrote last, each with the proxy's number; empty while another worker writes.
    written: Vec<Option<(u32, u64)>>,
}

impl GaugeWriter {
    /// For the plugin of this name, which is being configured with a text of the hash `hash`.
    pub(crate) fn new<M: Runs>(
        policy: &Policy<M>,
        plugin: &str,
        hash: u64,
        environment: &mut impl Environment,
    ) -> GaugeWriter {
        GaugeWriter { gauges: Gauges::new(policy, plugin, hash, environment), written: vec![] }
    }

    /// Every gauge that there can be.
    pub(crate) fn names(&self) -> &[Box<str>] {
        self.gauges.names()
    }

    /// Writes the gauges that have changed, when this worker's turn has come. What the proxy does not accept is tried
    /// again. Returns whether it has: another worker's turn, or another policy's that has replaced this one, is `false`.
    pub(crate) fn refresh<M: Runs, H: Host>(
        &mut self,
        policy: &Policy<M>,
        host: &H,
        environment: &mut impl Environment,
    ) -> bool {
        let GaugeWriter { gauges, written } = self;
        let mut changed = Vec::new();
        let is_ours = gauges.look(policy, environment, |place, value| {
            if written.get(place).copied().flatten().is_none_or(|(_, last)| last != value) {
                changed.push((place, value));
            }
        });
        if !is_ours {
            // Another worker may write other values before this worker's turn comes again.
            written.clear();
            return false;
        }
        written.resize(gauges.names().len(), None);
        for (place, value) in changed {
            let (Some(written), Some(name)) = (written.get_mut(place), gauges.names().get(place)) else { continue };
            let id = written.map_or_else(|| host.define_metric(MetricKind::Gauge, name), |(id, _)| Ok(id));
            if let Ok(id) = id
                && host.record(id, value).is_ok()
            {
                *written = Some((id, value));
            }
        }
        true
    }
}
