//! A plugin's configuration is accepted, or refused with a reason.

use super::*;

/// Whether the configuration is accepted, and the lines of the log.
fn configure_with_log(configuration: &str) -> (bool, Vec<String>) {
    fresh();
    let taken = Plugin::<penstock_policy::module::HeaderRouting, FakeHost>::configure(
        FakeHost,
        Ok::<_, String>(configuration.as_bytes()),
    )
    .is_some();
    (taken, with(|proxy| proxy.log.drain(..).map(|(level, line)| format!("{level} {line}")).collect()))
}

#[test]
fn a_good_policy_is_taken_in_silence() {
    assert_eq!(configure_with_log(r#"{"routes":{"default":"stable"}}"#), (true, vec![]));
}

#[test]
fn each_problem_is_a_line_at_error_level() {
    let (taken, log) =
        configure_with_log(r#"{"routes":{"rules":[{"name":"a","route":"b","timeout":"2x"}],"defualt":"c"}}"#);
    assert!(!taken);
    assert_eq!(log.len(), 2, "{log:?}");
    let start = "4 penstock header-routing: configuration refused: routes";
    assert!(log.iter().all(|line| line.starts_with(start) || line.contains("unknown field")), "{log:?}");
    assert_eq!(metric("penstock.policy_refusals_total.plugin.header-routing"), Some(1));
    assert!(metric("penstock.policy_refused_timestamp_seconds.plugin.header-routing").is_some());
}

#[test]
fn what_is_no_policy_is_refused_in_a_line() {
    for (configuration, why) in
        [("", "the configuration is empty"), ("routes: {}", "not JSON"), (r#"{"egress":{}}"#, "egress: is not run by")]
    {
        let (taken, log) = configure_with_log(configuration);
        assert!(!taken);
        assert!(log[0].contains(&format!("configuration refused: {why}")), "{log:?}");
    }
}

#[test]
fn thousands_of_problems_are_not_thousands_of_lines() {
    let rules = vec![r#"{"name":1,"route":2}"#; 2000].join(",");
    let (taken, log) = configure_with_log(&format!(r#"{{"routes":{{"rules":[{rules}]}}}}"#));
    assert!(!taken);
    assert_eq!(log.len(), 51);
    assert!(log[50].ends_with("and 3,950 more problems"), "{}", log[50]);
}

#[test]
fn a_configuration_that_the_proxy_does_not_hand_over_is_refused() {
    fresh();
    assert!(Plugin::<Suite, FakeHost>::configure(FakeHost, Err("it was lost")).is_none());
    with(|proxy| assert_eq!(proxy.log[0].1, "penstock suite: configuration refused: it was lost"));
}

#[test]
fn a_proxy_without_timers_still_runs_the_policy() {
    fresh();
    with(|proxy| proxy.broken.push(("start_timer", 12)));
    let plugin = configured(ROUTES);
    assert_eq!(request(&plugin, &[("x-user-group", "beta")]), Flow::Continue);
    assert_eq!(route(), ["beta"]);
    with(|proxy| assert!(proxy.log[0].1.contains("no timer"), "{:?}", proxy.log));
}
