//! The names of the modules' metrics, and the keys under which the dash stores them.

/// The key of a module's metric: a counter has `<section>.<rule>.<outcome>`, a gauge one of the sections that
/// [`Sample::add`](crate::sample::Sample::add) knows.
///
/// `metric` is its name without `penstock`, such as `requests_total`; `label` returns the value of a label. `None`: the
/// dash does not show this metric.
pub fn key<'v>(metric: &str, label: impl Fn(&str) -> &'v str) -> Option<String> {
    Some(match metric {
        "requests_total" => format!("{}.{}.{}", label("section"), label("rule"), label("outcome")),
        "variant_requests_total" => format!("variants.{}.{}", label("rule"), label("variant")),
        "breaker_transitions_total" => {
            format!("transitions.{}/{}/{}.{}", label("section"), label("rule"), label("variant"), label("outcome"))
        }
        "egress_reasons_total" => format!("egressReasons.{}.{}", label("reason"), label("outcome")),
        "internal_errors_total" => format!("errors.{}.failed", label("operation")),
        "foreign_values_total" => "errors.state.foreign".to_owned(),
        "policy_refusals_total" => format!("refusals.{}.refused", label("plugin")),
        "policy_hash" => format!("policy.{}.hash", label("plugin")),
        "policy_generation" => format!("policy.{}.generation", label("plugin")),
        "policy_loaded_timestamp_seconds" => format!("policy.{}.loaded", label("plugin")),
        "policy_refused_timestamp_seconds" => format!("refused.{}", label("plugin")),
        "rate_limit_keys_used" => format!("keys.{}.used", label("rule")),
        "rate_limit_keys_capacity" => format!("keys.{}.capacity", label("rule")),
        "breaker_state" => format!("breakers.{}/{}.{}", label("section"), label("rule"), label("variant")),
        "variant_weight" => format!("weights.{}.{}", label("rule"), label("variant")),
        _ => return None,
    })
}

/// Splits a name of Envoy's admin interface, `wasmcustom.penstock.<metric>[.<label>.<value>]…`, into the metric and its
/// labels. `None` when it is not a module's.
pub fn of_stat(name: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let mut parts = name.strip_prefix("wasmcustom.penstock.")?.split('.');
    let metric = parts.next()?;
    let labels = std::iter::from_fn(|| Some((parts.next()?, parts.next()?)));
    Some((metric, labels.collect()))
}

/// The value of a label, or an empty string.
pub fn label<'v>(labels: &[(&str, &'v str)], name: &str) -> &'v str {
    labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
}

/// Whether it is a metric of the modules. One that is not shown means that the module has another version.
pub fn is_known(metric: &str) -> bool {
    let unseen = ["decision_duration_nanos", "egress_next_expiry_timestamp_seconds", "long_values_total"];
    unseen.contains(&metric) || key(metric, |_| "").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filed(stat: &str) -> Option<String> {
        let (metric, labels) = of_stat(stat)?;
        key(metric, |name| label(&labels, name))
    }

    #[test]
    fn a_metric_is_filed_by_its_labels_whatever_these_are_called() {
        for (stat, key) in [
            ("requests_total.section.rateLimits.rule.outcome.outcome.limited", "rateLimits.outcome.limited"),
            ("variant_requests_total.rule.shop.variant.rolledBack", "variants.shop.rolledBack"),
            (
                "breaker_transitions_total.section.canaries.rule.shop.variant.v2.outcome.rolledBack",
                "transitions.canaries/shop/v2.rolledBack",
            ),
            ("policy_hash.plugin.suite", "policy.suite.hash"),
            ("breaker_state.section.routes.rule.r.variant.eu", "breakers.routes/r.eu"),
            ("foreign_values_total", "errors.state.foreign"),
        ] {
            assert_eq!(filed(&format!("wasmcustom.penstock.{stat}")).as_deref(), Some(key), "{stat}");
        }
        assert_eq!(filed("server.live"), None);
    }

    #[test]
    fn metrics_of_another_version_are_distinguished_from_those_that_are_not_shown() {
        for (stat, known) in [
            ("wasmcustom.penstock.rateLimits.l.limited", false),
            ("wasmcustom.penstock.policy.suite.hash", false),
            ("wasmcustom.penstock.long_values_total", true),
            ("wasmcustom.penstock.requests_total.section.routes.rule.r.outcome.matched", true),
        ] {
            let (metric, _) = of_stat(stat).unwrap_or_default();
            assert_eq!(is_known(metric), known, "{stat}");
        }
    }
}
