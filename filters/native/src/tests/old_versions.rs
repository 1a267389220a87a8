//! Envoy 1.38, which shows dynamic modules less than later versions: what cannot work is refused or logged when a policy
//! is loaded.

use super::{SUITE, fate, suite};
use crate::abi::fake::{FakeExchange, FakePassage, Fate, LoadedFilter, load_without, log};

/// What Envoy 1.38.2 and 1.38.3 lack of the callbacks that the module uses.
const LACKING_IN_1_38: [&str; 7] = [
    "http_filter_config_increment_counter",
    "http_filter_config_set_gauge",
    "http_filter_config_record_histogram_value",
    "network_filter_config_increment_counter",
    "network_filter_config_set_gauge",
    "network_filter_config_record_histogram_value",
    "network_filter_get_attribute_string",
];

/// Runs `act` in Envoy 1.38, and returns the lines that it logged as warnings or errors.
fn in_1_38(act: impl FnOnce()) -> Vec<String> {
    log();
    assert!(load_without(&LACKING_IN_1_38));
    act();
    let lines = log();
    load_without(&[]);
    lines.into_iter().filter(|(level, _)| *level >= 3).map(|(_, line)| line).collect()
}

#[test]
fn metrics_wait_for_the_next_request_and_the_log_says_so_once() {
    let lines = in_1_38(|| {
        let beta = |loaded: &LoadedFilter| fate(loaded, &[("x-user", "a"), ("x-group", "beta")]);
        let loaded = suite("old-metrics", SUITE);
        assert_eq!(beta(&loaded), Fate::Forwarded);
        loaded.tick();
        assert_eq!(loaded.metric("penstock.requests_total routes beta matched"), None);
        assert_eq!(beta(&loaded), Fate::Forwarded);
        assert_eq!(loaded.metric("penstock.requests_total routes beta matched"), Some(1));
    });
    let about = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!(about("takes metrics only with a request"), 1, "{lines:?}");
    // The policy has a breaker.
    assert_eq!((about("cut off after its headers"), lines.len()), (1, 2), "{lines:?}");
}

#[test]
fn a_policy_that_verifies_server_names_is_refused_with_the_version_that_can() {
    const POLICY: &str = r#"{"egress": {"verifySni": true, "rules": [{"name": "r", "to": [{"host": "shop.test"}]}]}}"#;
    let lines = in_1_38(|| {
        assert!(LoadedFilter::http("suite/old-sni", POLICY).is_none());
        assert!(LoadedFilter::http("egress-allowlist/old-sni", POLICY).is_none());
    });
    let about = |line: &&String| line.contains("refused: egress.verifySni") && line.contains("Envoy 1.39 or later");
    assert_eq!(lines.iter().filter(about).count(), 2, "{lines:?}");
    // As a network filter, which sees the name in every version.
    in_1_38(|| {
        let loaded = LoadedFilter::network("egress-allowlist/old-sni", POLICY).unwrap();
        assert_eq!(FakePassage::new(&loaded, Some("shop.test"), &[]).opened(), (true, false));
        assert_eq!(FakePassage::new(&loaded, Some("evil.test"), &[]).opened(), (false, true));
    });
    assert!(LoadedFilter::http("suite/old-sni", POLICY).is_some());
}

#[test]
fn attributes_that_envoy_does_not_show_are_not_read() {
    let policy = r#"{"routes": {"rules": [{"name": "r", "route": "eu",
        "failover": {"route": "us", "errorPercent": 50, "minRequests": 20, "window": "1h", "cooldown": "1h"}}]}}"#;
    let lines = in_1_38(|| {
        let loaded = suite("old-breaker", policy);
        for _ in 0..30 {
            let exchange = FakeExchange::sent(&loaded, &[]);
            assert_eq!(exchange.values(0, "x-penstock-route"), ["eu"]);
            exchange.response_begins(&[(":status", "200")]);
        }
        // What the response says itself still counts.
        for _ in 0..30 {
            FakeExchange::sent(&loaded, &[]).response(&[(":status", "503")], &[]);
        }
        assert_eq!(FakeExchange::sent(&loaded, &[]).values(0, "x-penstock-route"), ["us"]);
    });
    assert!(!lines.iter().any(|line| line.contains("Unsupported attribute")), "{lines:?}");
}
