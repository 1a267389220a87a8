use super::*;

mod field;
mod peers;
mod properties;
mod sources;
mod unreadable;

use std::collections::BTreeMap;

use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Policy, Timestamp};

use crate::yaml_text;

fn read(yaml: &str) -> (Node, ImportReport) {
    let mut report = ImportReport::default();
    let documents = Located::read_all(yaml).unwrap();
    let documents: Vec<(String, Node)> = documents.into_iter().map(|located| (String::new(), located.node)).collect();
    let (draft, known) = import(&documents, &mut report);
    assert!(known > 0);
    let node = draft.node();
    // The text that is printed means the same as the policy in memory.
    assert_eq!(Located::read(&draft.text()).unwrap().node, node, "{}", draft.text());
    (node, report)
}

/// The reported losses that change decisions.
fn lost(report: &ImportReport) -> Vec<String> {
    report.notes.iter().filter(|note| note.decides).map(|note| format!("{}: {}", note.place, note.what)).collect()
}

/// The routes of requests (`GET authority path name: value, …`), with `seed` for random choices.
fn routes_with(yaml: &str, seed: u64, requests: &[&str]) -> Vec<String> {
    let (node, _) = read(yaml);
    let policy = Policy::from_node(&node).unwrap_or_else(|p| panic!("{p}\n{}", yaml_text::block(&node, 0)));
    let decide = |request: &&str| {
        let words: Vec<&str> = request.splitn(4, ' ').collect();
        let headers: Vec<(&str, &str)> =
            words.get(3).into_iter().flat_map(|list| list.split(", ")).map(|h| h.split_once(": ").unwrap()).collect();
        let json = serde_json::json!({"method": words[0], "authority": words[1], "path": words[2], "headers": headers});
        let request: WireRequest = serde_json::from_value(json).unwrap();
        let decision = request.decide(&policy, &mut World::new(Timestamp(0), seed));
        let decision = serde_json::to_value(decision).unwrap();
        decision["route"].as_str().or(decision["action"].as_str()).unwrap().to_owned()
    };
    requests.iter().map(decide).collect()
}

fn routes(yaml: &str, requests: &[&str]) -> Vec<String> {
    routes_with(yaml, 0, requests)
}

/// For each route, how many of 2,000 requests take it.
fn shares(yaml: &str, request: &str) -> BTreeMap<String, u32> {
    let (node, _) = read(yaml);
    let policy = Policy::from_node(&node).unwrap();
    let words: Vec<&str> = request.split(' ').collect();
    let json = serde_json::json!({"method": words[0], "authority": words[1], "path": words[2]});
    let mut world = World::new(Timestamp(0), 7);
    let mut shares = BTreeMap::new();
    for _ in 0..2_000 {
        let request: WireRequest = serde_json::from_value(json.clone()).unwrap();
        let decision = serde_json::to_value(request.decide(&policy, &mut world)).unwrap();
        *shares.entry(decision["route"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    shares
}

/// Based on the examples in ingress-nginx's documentation of canaries.
fn ingress(annotations: &str) -> String {
    let one = |name: &str, service: &str, annotations: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  annotations: {{{annotations}}}\nspec:\n  \
             ingressClassName: nginx\n  rules:\n  - host: echo.prod.mydomain.com\n    http:\n      paths:\n      - pathType: Prefix\n        \
             path: /\n        backend: {{service: {{name: {service}, port: {{number: 80}}}}}}\n"
        )
    };
    format!("{}---\n{}", one("production", "production", ""), one("canary", "canary", annotations))
}

#[test]
fn ingress_nginx_headers_beat_cookies_and_cookies_beat_weights() {
    let yaml = ingress(
        "nginx.ingress.kubernetes.io/canary: 'true', nginx.ingress.kubernetes.io/canary-by-header: X-Canary, \
         nginx.ingress.kubernetes.io/canary-by-cookie: users_from_Japan, nginx.ingress.kubernetes.io/canary-weight: '0'",
    );
    let base = "GET echo.prod.mydomain.com /";
    assert_eq!(
        routes(
            &yaml,
            &[
                base,
                &format!("{base} X-Canary: always"),
                &format!("{base} X-Canary: never, cookie: users_from_Japan=always"),
                &format!("{base} X-Canary: maybe, cookie: users_from_Japan=always"),
                &format!("{base} cookie: users_from_Japan=never"),
                "GET other.test / X-Canary: always",
            ]
        ),
        ["production", "canary", "production", "canary", "production", "continue"]
    );
    assert_eq!(lost(&read(&yaml).1), [] as [&str; 0]);
}

#[test]
fn ingress_nginx_weights_are_shares_of_their_total() {
    let yaml = ingress(
        "nginx.ingress.kubernetes.io/canary: 'true', nginx.ingress.kubernetes.io/canary-weight: '50', \
         nginx.ingress.kubernetes.io/canary-weight-total: '200'",
    );
    let canary = shares(&yaml, "GET echo.prod.mydomain.com /")["canary"];
    assert!((400..600).contains(&canary), "{canary} of 2000");
}

#[test]
fn ingress_nginx_values_and_patterns_of_headers() {
    for (annotation, yes, no) in [
        ("canary-by-header-value: DoCanary", "DoCanary", "always"),
        ("canary-by-header-pattern: 'you|me'", "not you", "her"),
    ] {
        let yaml = ingress(&format!(
            "nginx.ingress.kubernetes.io/canary: 'true', nginx.ingress.kubernetes.io/canary-by-header: Region, \
             nginx.ingress.kubernetes.io/{annotation}"
        ));
        let base = "GET echo.prod.mydomain.com /";
        assert_eq!(
            routes(&yaml, &[&format!("{base} Region: {yes}"), &format!("{base} Region: {no}")]),
            ["canary", "production"],
            "{annotation}"
        );
    }
}

/// Based on Istio's Bookinfo examples.
fn reviews(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec:\n  hosts: [reviews]\n  http:\n{http}"
    )
}

#[test]
fn bookinfo_jason_sees_v2_and_everybody_else_v1() {
    let yaml = reviews(
        "  - match: [{headers: {end-user: {exact: jason}}}]\n    route: [{destination: {host: reviews, subset: v2}}]\n  \
         - route: [{destination: {host: reviews, subset: v1}}]\n",
    );
    assert_eq!(
        routes(
            &yaml,
            &["GET reviews:9080 /reviews/0 end-user: jason", "GET reviews /reviews/0", "GET ratings / end-user: jason"]
        ),
        ["reviews-v2", "reviews-v1", "continue"]
    );
    assert_eq!(lost(&read(&yaml).1), [] as [&str; 0]);
}

#[test]
fn bookinfo_ninety_ten_after_a_match_keeps_its_order() {
    let yaml = reviews(
        "  - match: [{headers: {end-user: {exact: jason}}}]\n    route: [{destination: {host: reviews, subset: v3}}]\n  \
         - match: [{uri: {prefix: /reviews}}]\n    route:\n    - {destination: {host: reviews, subset: v1}, weight: 90}\n    \
         - {destination: {host: reviews, subset: v2}, weight: 10}\n  - route: [{destination: {host: reviews, subset: v1}}]\n",
    );
    let v2 = shares(&yaml, "GET reviews /reviews/0")["reviews-v2"];
    assert!((140..260).contains(&v2), "{v2} of 2000");
    assert_eq!(
        routes(&yaml, &["GET reviews /reviews/0 end-user: jason", "GET reviews /other"]),
        ["reviews-v3", "reviews-v1"]
    );
}

#[test]
fn bookinfo_the_product_pages_paths_are_prefixes_of_letters() {
    let yaml = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: bookinfo}\nspec:\n  hosts: ['*']\n  \
        gateways: [bookinfo-gateway]\n  http:\n  - match:\n    - uri: {exact: /productpage}\n    - uri: {prefix: /static}\n    \
        - uri: {exact: /login}\n    - uri: {prefix: /api/v1/products}\n    route: [{destination: {host: productpage, port: {number: 9080}}}]\n";
    assert_eq!(
        routes(
            yaml,
            &[
                "GET a /productpage",
                "GET a /static/x.css",
                "GET a /staticfiles",
                "GET a /api/v1/products/0",
                "GET a /login/x"
            ]
        ),
        ["productpage", "productpage", "productpage", "productpage", "continue"]
    );
    let report = read(yaml).1;
    assert_eq!(lost(&report), [] as [&str; 0]);
    assert_eq!(report.notes[0].place, "VirtualService bookinfo: spec.gateways");
    assert_eq!((&*report.routes[0].route, &*report.routes[0].to), ("productpage", "productpage port 9080"));
}

#[test]
fn what_a_policy_cannot_say_is_reported_with_its_place() {
    let yaml = reviews(
        "  - fault: {delay: {percentage: {value: 100}, fixedDelay: 7s}}\n    timeout: 0.5s\n    retries: {attempts: 3, perTryTimeout: 0.2s}\n    \
         route: [{destination: {host: reviews, subset: v1}}]\n",
    );
    let (policy, report) = read(&yaml);
    assert_eq!(
        lost(&report),
        [
            "VirtualService reviews: spec.http[0].fault: {\"delay\":{\"percentage\":{\"value\":100},\"fixedDelay\":\"7s\"}}"
        ]
    );
    let text = yaml_text::block(&policy, 0);
    assert!(text.contains("timeout: \"500ms\"") && text.contains("perTryTimeout: \"200ms\""), "{text}");
    penstock_policy::check(&policy, Module::Suite).unwrap();
}

#[test]
fn the_most_specific_match_of_an_http_route_wins_weights_or_not() {
    let route = |weighted: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: foo}}\nspec:\n  hostnames: [foo.example.com]\n  \
             rules:\n  - matches: [{{path: {{type: PathPrefix, value: /}}}}]\n    backendRefs: [{weighted}]\n  - matches:\n    \
             - headers: [{{name: traffic, value: test}}]\n      path: {{value: /}}\n    backendRefs: [{{name: foo-v2, port: 8080}}]\n"
        )
    };
    for weighted in ["{name: foo-v1, port: 8080}", "{name: foo-v1, weight: 1}, {name: foo-v3, weight: 0}"] {
        let yaml = route(weighted);
        assert_eq!(
            routes(&yaml, &["GET foo.example.com /", "GET foo.example.com /x traffic: test", "GET bar.example.com /"]),
            ["foo-v1", "foo-v2", "continue"],
            "{weighted}"
        );
    }
    let v3 =
        shares(&route("{name: foo-v1, weight: 90}, {name: foo-v3, weight: 10}"), "GET foo.example.com /")["foo-v3"];
    assert!((140..260).contains(&v3), "{v3} of 2000");
}

/// Based on the examples in envoyproxy/ratelimit's README.
#[test]
fn ratelimits_descriptors_count_by_what_they_name() {
    let yaml = "domain: messaging\ndescriptors:\n- key: message_type\n  value: marketing\n  descriptors:\n  - key: to_number\n    \
        rate_limit: {unit: day, requests_per_unit: 5}\n- key: to_number\n  rate_limit: {unit: day, requests_per_unit: 100}\n";
    let (policy, report) = read(yaml);
    assert!(report.is_complete(), "{:?}", lost(&report));
    let policy = Policy::from_node(&policy).unwrap();
    let mut world = World::new(Timestamp(0), 0);
    let mut passed = |headers: serde_json::Value, tries: u32| {
        let ask = |_: &u32| {
            let json = serde_json::json!({"method": "POST", "authority": "a", "path": "/", "headers": headers});
            let request: WireRequest = serde_json::from_value(json).unwrap();
            serde_json::to_value(request.decide(&policy, &mut world)).unwrap()["action"] == "continue"
        };
        (0..tries).filter(ask).count()
    };
    assert_eq!(passed(serde_json::json!([["message_type", "marketing"], ["to_number", "1"]]), 20), 5);
    assert_eq!(passed(serde_json::json!([["to_number", "2"]]), 200), 100);
    assert_eq!(passed(serde_json::json!([["message_type", "marketing"]]), 200), 200);
}

#[test]
fn a_value_of_its_own_goes_before_the_general_limit() {
    let yaml = "domain: d\ndescriptors:\n- key: x_user\n  rate_limit: {unit: hour, requests_per_unit: 2}\n- key: x_user\n  value: vip\n  \
        rate_limit: {unlimited: true}\n- key: remote_address\n  rate_limit: {unit: second, requests_per_unit: 10}\n  shadow_mode: true\n";
    let (policy, _) = read(yaml);
    let text = yaml_text::block(&policy, 0);
    assert!(text.contains("mode: Shadow") && text.contains("sourceAddress: {}"), "{text}");
    let policy = Policy::from_node(&policy).unwrap();
    let mut world = World::new(Timestamp(0), 0);
    let mut passed = |user: &str| {
        let json = serde_json::json!({"method": "GET", "authority": "a", "path": "/", "headers": [["x_user", user]]});
        let ask = |_: &u32| {
            let request: WireRequest = serde_json::from_value(json.clone()).unwrap();
            serde_json::to_value(request.decide(&policy, &mut world)).unwrap()["action"] == "continue"
        };
        (0..9).filter(ask).count()
    };
    assert_eq!((passed("a"), passed("vip")), (2, 9));
}
