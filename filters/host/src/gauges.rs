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
    /// For the plugin with this name, whose configuration has the hash `hash`.
    pub(crate) fn new<M: Runs>(
        policy: &Policy<M>,
        plugin: &str,
        hash: u64,
        environment: &mut impl Environment,
    ) -> GaugeWriter {
        GaugeWriter { gauges: Gauges::new(policy, plugin, hash, environment), written: vec![] }
    }

    /// The names of all gauges.
    pub(crate) fn names(&self) -> &[Box<str>] {
        self.gauges.names()
    }

    /// Writes the gauges that have changed, if this worker is the one that writes them; values that the proxy does not
    /// accept are tried again. Returns `false` when another worker writes, or when another policy has replaced this
    /// one.
    pub(crate) fn refresh<M: Runs, H: Host>(
        &mut self,
        policy: &Policy<M>,
        host: &H,
        environment: &mut impl Environment,
    ) -> bool {
        let GaugeWriter { gauges, written } = self;
        let mut changed = Vec::new();
        let is_ours = gauges.refresh(policy, environment, |place, value| {
            if written.get(place).copied().flatten().is_none_or(|(_, last)| last != value) {
                changed.push((place, value));
            }
        });
        if !is_ours {
            // Another worker may write other values before this worker writes again.
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
