//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/local_rate_limit_filter>: each filter has one
//! bucket for all requests; without `filter_enabled` it does nothing, without `filter_enforced` it only counts.

use super::*;

#[derive(Clone, Debug)]
struct Filter {
    app: &'static str,
    enabled: Option<u32>,
    enforced: Option<u32>,
    most: u32,
    has_descriptors: bool,
}

fn filters() -> impl Strategy<Value = Vec<Filter>> {
    let share = || prop::option::weighted(0.9, prop::sample::select(&[0_u32, 50, 100, 100, 100][..]));
    let filter =
        (prop::sample::select(&["a", "a", "a", "b"][..]), share(), share(), 1..5_u32, prop::bool::weighted(0.1));
    let filter = filter.prop_map(|(app, enabled, enforced, most, has_descriptors)| Filter {
        app,
        enabled,
        enforced,
        most,
        has_descriptors,
    });
    prop::collection::vec(filter, 1..4)
}

fn json_of(i: usize, filter: &Filter) -> Value {
    let mut config = json!({"stat_prefix": "x", "token_bucket": {"max_tokens": filter.most, "tokens_per_fill": 1, "fill_interval": "3600s"}});
    for (field, share) in [("filter_enabled", filter.enabled), ("filter_enforced", filter.enforced)] {
        if let Some(share) = share {
            config[field] =
                json!({"runtime_key": "x", "default_value": {"numerator": share, "denominator": "HUNDRED"}});
        }
    }
    if filter.has_descriptors {
        config["descriptors"] = json!([{"entries": [{"key": "a", "value": "b"}], "token_bucket": {"max_tokens": 1, "fill_interval": "1s"}}]);
    }
    // Both forms in Istio's documentation.
    let typed = if i.is_multiple_of(2) {
        config["@type"] = json!("type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit");
        config
    } else {
        json!({"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", "value": config})
    };
    json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": {"name": format!("f{i}"), "namespace": "prod"},
        "spec": {"workloadSelector": {"labels": {"app": filter.app}}, "configPatches": [
            {"applyTo": "HTTP_FILTER", "match": {"context": "SIDECAR_INBOUND"}, "patch": {"operation": "INSERT_BEFORE",
                "value": {"name": "envoy.filters.http.local_ratelimit", "typed_config": typed}}}]}})
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn local_limits_let_pass_what_envoys_filters_let_pass(filters in filters()) {
        let documents: Vec<Value> = filters.iter().enumerate().map(|(i, filter)| json_of(i, filter)).collect();
        let imported = imported(&documents);
        let mut world = World::new(Timestamp(0), 0);
        let request: WireRequest = serde_json::from_value(json!({"method": "GET", "authority": "a", "path": "/"})).unwrap();
        let passed = (0..9).filter(|_| request.decide(&imported.policy, &mut world).status.is_none()).count() as u32;
        let one_place = filters.iter().all(|filter| filter.app == filters[0].app);
        let counts = |filter: &&Filter| filter.enabled == Some(100) && filter.enforced == Some(100) && !filter.has_descriptors && one_place;
        let expected = filters.iter().filter(counts).map(|filter| filter.most).min().unwrap_or(9);
        prop_assert_eq!(passed, expected, "{}", imported.text);
        let is_partial = |filter: &Filter| filter.enabled == Some(50) || filter.enabled == Some(100) && filter.enforced == Some(50);
        let is_lost = !one_place || filters.iter().any(|filter| is_partial(filter) || filter.has_descriptors);
        prop_assert_eq!(imported.is_complete, !is_lost, "{}", imported.text);
    }
}
