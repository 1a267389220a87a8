//! The network filter.

use crate::abi::fake::{FakePassage, LoadedFilter, with_faults};

const POLICY: &str = r#"{"egress": {"rules": [{"name": "r", "to": [{"host": "*.example.com"}]}]}}"#;

fn egress(name: &str) -> LoadedFilter {
    LoadedFilter::network(&format!("egress-allowlist/{name}"), POLICY).unwrap()
}

#[test]
fn a_connection_goes_on_only_when_its_name_is_known() {
    let loaded = egress("connections-known");
    for (sni, expected) in
        [(Some("a.example.com"), (true, false)), (Some("evil.test"), (false, true)), (None, (false, true))]
    {
        assert_eq!(FakePassage::new(&loaded, sni, &["spiffe://a/x"]).opened(), expected, "{sni:?}");
    }
    loaded.tick();
    assert_eq!(loaded.metric("penstock.requests_total.section.egress.rule.r.outcome.allowed"), Some(1));
}

#[test]
fn a_panic_closes_the_connection_alone() {
    let loaded = egress("connections-panic");
    assert_eq!(FakePassage::new(&loaded, Some("trap.test"), &[]).opened(), (false, true));
    assert_eq!(FakePassage::new(&loaded, Some("a.example.com"), &[]).opened(), (true, false));
    loaded.tick();
    assert_eq!(loaded.metric("penstock.internal_errors_total.operation.panic"), Some(1));
}

#[test]
fn no_failure_of_envoy_lets_an_unknown_name_through() {
    let policy =
        r#"{"egress": {"rules": [{"name": "r", "to": [{"host": "*.example.com"}], "from": ["spiffe://a/x"]}]}}"#;
    let loaded = LoadedFilter::network("egress-allowlist/connections-failing", policy).unwrap();
    assert!(FakePassage::new(&loaded, Some("a.example.com"), &["spiffe://a/x"]).opened().0);
    for name in
        crate::abi::fake::OPTIONAL.iter().filter(|name| name.starts_with("network_") && !name.ends_with("_delete"))
    {
        with_faults(
            |faults| faults.failing.extend([*name]),
            || {
                assert!(!FakePassage::new(&loaded, Some("evil.test"), &["spiffe://a/x"]).opened().0, "{name}");
                assert!(!FakePassage::new(&loaded, Some("a.example.com"), &["spiffe://b/x"]).opened().0, "{name}");
                loaded.tick();
            },
        );
    }
    for count in [usize::MAX, 1_000] {
        with_faults(
            |faults| faults.count = Some(count),
            || assert!(!FakePassage::new(&loaded, Some("a.example.com"), &[]).opened().0, "{count}"),
        );
    }
    with_faults(
        |faults| faults.null_views = true,
        || assert!(!FakePassage::new(&loaded, Some("a.example.com"), &["spiffe://a/x"]).opened().0),
    );
}
