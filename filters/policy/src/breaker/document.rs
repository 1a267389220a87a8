//! The thresholds in `rollback` and `failover` of the document.

use super::nanos;
use super::state::BreakerThresholds;
use crate::document::{At, Context, Decode, Kind, Node, PositiveDuration, Whole, object, wrong_kind};

/// When a breaker opens, and for how long.
#[derive(Clone, Debug)]
pub struct Thresholds {
    /// Length of the sliding window.
    pub window: PositiveDuration,
    /// With fewer requests than this in the window the breaker does not decide.
    pub min_requests: Whole<1, 1_000_000>,
    /// The share of failures that opens it.
    pub error_percent: Option<Whole<1, 100>>,
    /// The latency that opens it.
    pub latency: Option<LatencyLimit>,
    /// How long it stays open before it probes.
    pub cooldown: PositiveDuration,
}

object! {
    /// The limit of the latency: a percentile, and the value that it may not exceed.
    pub struct LatencyLimit {
        /// The percentile of the latencies in the window.
        percentile as "percentile": Percentile,
        /// The latency that the percentile may not exceed.
        above as "above": PositiveDuration,
    }
}

/// A percentile from 1 to 99.99, in hundredths.
#[derive(Clone, Copy, Debug)]
pub struct Percentile(pub u32);

impl Decode for Percentile {
    const KIND: Kind = Kind::Number;
    const EXPECTED: &'static str = "a number: a percentile";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let hundredths = match node {
            Node::Integer(value) => *value as f64 * 100.0,
            Node::Float(value) => (*value * 100.0).round(),
            _ => return wrong_kind::<Self>(node, at, cx),
        };
        if !(100.0..=9999.0).contains(&hundredths) {
            cx.problem(at, node, "is out of range", "write a percentile from 1 to 99.99, such as 99".to_owned());
            return None;
        }
        Some(Percentile(hundredths as u32))
    }
}

impl Thresholds {
    /// The thresholds as plain numbers.
    pub(super) fn limits(&self) -> BreakerThresholds {
        let nanos = |PositiveDuration(duration): PositiveDuration| nanos(duration);
        BreakerThresholds {
            window: nanos(self.window),
            min_requests: self.min_requests.0,
            error_percent: self.error_percent.map(|percent| percent.0),
            slow_share: self.latency.as_ref().map(|latency| 10_000 - latency.percentile.0),
            cooldown: nanos(self.cooldown),
        }
    }

    /// The least number of requests that the percentile needs: with fewer, less than half a request is expected above
    /// the percentile, so a single slow response would decide. It replaces a smaller `minRequests`.
    pub fn percentile_needs(&self) -> Option<u32> {
        let share = 10_000_u32.saturating_sub(self.latency.as_ref()?.percentile.0).max(1);
        let needs = 5_000_u32.div_ceil(share);
        (self.min_requests.0 < needs).then_some(needs)
    }
}
