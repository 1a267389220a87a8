//! The next steps of ramps in the running policies.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::access::Visibility;
use crate::fleet::ClusterState;
use crate::history::{HistoryMark, MarkKind};
use crate::view::{instant, seconds};

/// Each step between two times, once for all proxies.
pub fn steps(cluster: &ClusterState, scope: Visibility<'_>, from: f64, to: f64) -> Vec<HistoryMark> {
    let mut seen = BTreeSet::new();
    let endpoints = cluster.endpoints().filter(|(_, one)| scope.namespace(one.identity.namespace.as_deref()));
    let policies = endpoints.flat_map(|(_, endpoint)| &endpoint.configuration.policies);
    let canaries = policies.filter_map(|policy| policy.document.get("canaries")?.as_array()).flatten();
    for canary in canaries {
        for (at, weight) in canary.get("ramp").and_then(steps_of).unwrap_or_default() {
            let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
            if (from..=to).contains(&at) {
                let name =
                    format!("{}: {} to {weight} %", text(canary.get("name")), text(canary.pointer("/ramp/variant")));
                seen.insert((at.to_bits(), name));
            }
        }
    }
    seen.into_iter().map(|(at, name)| HistoryMark::new(f64::from_bits(at), MarkKind::Ramp, name)).collect()
}

fn steps_of(ramp: &Value) -> Option<Vec<(f64, f64)>> {
    let mut at = instant(ramp.get("startsAt")?.as_str()?)?;
    let mut steps = Vec::new();
    for step in ramp.get("steps")?.as_array()? {
        steps.push((at, step.get("weight")?.as_f64()?));
        at += step.get("for").and_then(Value::as_str).and_then(seconds).unwrap_or(0.0);
    }
    Some(steps)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_ramp_has_a_time_for_each_step() {
        let ramp = json!({"variant": "v2", "startsAt": "1970-01-01T00:01:00Z",
            "steps": [{"weight": 5, "for": "10m"}, {"weight": 25, "for": "1h30m"}, {"weight": 100}]});
        assert_eq!(steps_of(&ramp).unwrap(), [(60.0, 5.0), (660.0, 25.0), (6060.0, 100.0)]);
    }
}
