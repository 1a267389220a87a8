//! Policies that change during traffic, and policies that must be refused.

use anyhow::{Result, ensure};
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{
    Body, Bootstrap, Configuration, Envoy, Listener, NONE, Reload, Route, Traffic, TrafficTally, WasmFilter,
    check_routes,
};
use serde_json::{Value, json};

/// All requests go to `route`.
fn all_to(route: &str) -> Value {
    json!({"routes": {"default": route}})
}

/// A wasm module gets a message in its serialized form. For the native body, Envoy converts it to JSON, which is a
/// policy without a section.
fn struct_message() -> (&'static str, Configuration, &'static str) {
    let (value, expected) = match Body::of_environment() {
        Body::Wasm => (json!({"routes": {}}), "JSON"),
        Body::Native => (json!({"routez": {}}), "routez"),
    };
    let message = json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": value});
    ("a message that is not text", Configuration::Any(message), expected)
}

/// Policies that every module must refuse, and what its log must say.
fn bad_policies() -> Vec<(&'static str, Configuration, &'static str)> {
    let rule = |field: &str, value: Value| {
        let mut rule = json!({"name": "first", "route": "v1"}).as_object().cloned().unwrap_or_default();
        rule.insert(field.to_owned(), value);
        Configuration::from(json!({"routes": {"rules": [{"name": "zeroth", "route": "v0"}, rule]}}))
    };
    vec![
        ("no configuration", Configuration::None, "empty"),
        ("an empty text", Configuration::from(""), "empty"),
        struct_message(),
        (
            "bytes that are not UTF-8",
            Configuration::Any(json!({"@type": "type.googleapis.com/google.protobuf.BytesValue", "value": "/+8A"})),
            "JSON",
        ),
        ("text that is not JSON", Configuration::from("routes: [this is YAML]"), "JSON"),
        ("half a document", Configuration::from("{\"routes\":"), "JSON"),
        ("a list", Configuration::from("[]"), "object"),
        ("an unknown section", Configuration::from(json!({"routez": {}})), "routez"),
        ("an unknown field", rule("mathces", json!([])), "routes.rules[1].mathces"),
        (
            "a bad regular expression",
            rule("matches", json!([{"path": {"type": "RegularExpression", "value": "("}}])),
            "routes.rules[1].matches[0].path",
        ),
        (
            "a bad host",
            rule("matches", json!([{"hostnames": ["a.*.test"]}])),
            "routes.rules[1].matches[0].hostnames[0]",
        ),
        (
            "an unknown match type",
            rule("matches", json!([{"headers": [{"name": "a", "type": "Near", "value": "b"}]}])),
            "routes.rules[1].matches[0].headers[0].type",
        ),
        ("a bad duration", rule("timeout", json!("2 seconds")), "routes.rules[1].timeout"),
        ("a repeated name", rule("name", json!("zeroth")), "routes.rules[1].name"),
    ]
}

/// Describes what is wrong with a response that names neither route.
fn one_of(routes: [&'static str; 2]) -> impl Fn(&http::HttpResponse) -> Result<()> + Clone + Send + 'static {
    move |response| {
        ensure!(response.status == 200 && routes.contains(&response.text().as_str()), "{response:?}");
        Ok(())
    }
}

fn assert_flawless(tally: &TrafficTally) {
    assert!(
        tally.failures.is_empty(),
        "{} of {} failed: {:?}",
        tally.failures.len(),
        tally.good,
        tally.failures.first()
    );
    assert!(tally.good > 100, "only {} requests were sent", tally.good);
}

fn route_of(envoy: &Envoy, protocol: Protocol) -> Result<String> {
    Ok(http::send(protocol, envoy.ingress()?, &HttpRequest::get("/"))?.text())
}

#[test]
fn a_new_policy_takes_effect_under_traffic_without_a_failed_request() -> Result<()> {
    let mut envoy = Bootstrap::suite(&all_to("v1"), &["v1", "v2"])?.start()?;
    let traffic = Traffic::start(4, envoy.ingress()?, &HttpRequest::get("/"), one_of(["v1", "v2"]));
    for round in 0..10 {
        let route = if round % 2 == 0 { "v2" } else { "v1" };
        envoy.must_reload("penstock", all_to(route))?;
        // Every worker uses the policy by now: new connections reach any of them.
        for protocol in Protocol::ALL.repeat(4) {
            assert_eq!(route_of(&envoy, protocol)?, route, "{protocol}, round {round}");
        }
    }
    traffic.wait_for(100)?;
    assert_flawless(&traffic.stop()?);
    envoy.check_healthy()
}

#[test]
fn a_bad_policy_is_refused_under_traffic_and_the_old_one_keeps_serving() -> Result<()> {
    let mut envoy = Bootstrap::suite(&all_to("v1"), &["v1"])?.start()?;
    let traffic = Traffic::start(4, envoy.ingress()?, &HttpRequest::get("/"), one_of(["v1", "v1"]));
    let mut wrong = Vec::new();
    for (what, policy, expected) in bad_policies() {
        match envoy.reload("penstock", policy)? {
            Reload::Refused(log) if log.contains(expected) => {}
            Reload::Refused(log) => wrong.push(format!("{what}: the log has no {expected:?}:\n{log}")),
            Reload::Taken => wrong.push(format!("{what} was taken")),
        }
    }
    traffic.wait_for(100)?;
    assert_flawless(&traffic.stop()?);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    envoy.check_healthy()?;
    envoy.must_reload("penstock", all_to("v1"))
}

#[test]
fn an_envoy_with_a_bad_policy_from_the_start_does_not_start() -> Result<()> {
    for (what, policy, expected) in bad_policies().into_iter().step_by(5) {
        let filter = WasmFilter::new("suite", policy)?;
        let listener = Listener::new("ingress").wasm(&filter).route(Route::any());
        let Err(error) = Bootstrap::new()?.listener(listener).start() else {
            panic!("{what}: Envoy started");
        };
        let log = error.to_string();
        assert!(log.contains(expected) && !log.contains("panicked"), "{what}: {log}");
    }
    Ok(())
}

#[test]
fn a_module_refuses_sections_of_another_module() -> Result<()> {
    let sections = [
        ("header-routing", "routes", json!({"default": "stable"})),
        ("canary", "canaries", json!([{"name": "c", "variants": [{"name": "v1", "weight": 1}]}])),
        ("rate-limit", "rateLimits", json!([{"name": "l", "key": [], "limit": {"requests": 1, "per": "1m"}}])),
        ("egress-allowlist", "egress", json!({"rules": []})),
    ];
    let mut envoy = Bootstrap::suite(&all_to("v1"), &["v1"])?.start()?;
    let everything: Value =
        sections.iter().map(|(_, section, content)| (section.to_string(), content.clone())).collect();
    let mut wrong = Vec::new();
    for (module, own, _) in &sections {
        let outcome = envoy.replace("penstock", WasmFilter::new(module, &everything)?)?;
        let reasons = outcome.reasons();
        for (owner, section, _) in &sections {
            let refused =
                reasons.iter().any(|why| why.starts_with(&format!("{section}: is not run by the {module} module")));
            if refused == (section == own) {
                wrong.push(format!("{module}, {section} of {owner}: {reasons:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(route_of(&envoy, Protocol::Http1)?, "v1");
    envoy.check_healthy()
}

#[test]
fn a_single_section_module_replaces_the_suite_under_traffic() -> Result<()> {
    let mut envoy = Bootstrap::suite(&all_to("v1"), &["v1", "v2"])?.start()?;
    let traffic = Traffic::start(4, envoy.ingress()?, &HttpRequest::get("/"), one_of(["v1", "v2"]));
    for (module, route) in [("header-routing", "v2"), ("suite", "v1"), ("header-routing", "v2")] {
        assert_eq!(envoy.replace("penstock", WasmFilter::new(module, all_to(route))?)?, Reload::Taken);
        for protocol in Protocol::ALL.repeat(4) {
            assert_eq!(route_of(&envoy, protocol)?, route, "{protocol}, {module}");
        }
    }
    traffic.wait_for(100)?;
    assert_flawless(&traffic.stop()?);
    envoy.check_healthy()
}

#[test]
fn an_empty_policy_forwards_requests_but_no_spoofed_route() -> Result<()> {
    let mut envoy = Bootstrap::suite(&json!({}), &["beta"])?.start()?;
    let spoof = HttpRequest::get("/").header("x-penstock-route", "beta");
    check_routes(&mut envoy, &[(HttpRequest::get("/"), NONE), (spoof, NONE)])
}
