//! Cases with several objects from the test suites of other products.

use super::*;

/// The destinations of requests in full, or that they are left alone.
fn leads(yaml: &str, requests: &[&str]) -> Vec<String> {
    let (_, report) = read(yaml);
    routes(yaml, requests)
        .into_iter()
        .map(|route| {
            let lead = report.routes.iter().find(|lead| lead.route == route);
            lead.map_or_else(|| "-".to_owned(), |lead| lead.to.clone())
        })
        .collect()
}

fn virtual_service(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: prod}}\nspec: {spec}\n---\n"
    )
}

fn http_route(metadata: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{{metadata}, namespace: prod}}\nspec: {spec}\n---\n"
    )
}

#[test]
fn two_virtual_services_of_a_host_are_one_list_with_the_catch_all_last() {
    let yaml = virtual_service("a", "{hosts: [h.test], gateways: [g], http: [{route: [{destination: {host: all}}]}]}")
        + &virtual_service(
            "b",
            "{hosts: [h.test], gateways: [g], http: [{match: [{uri: {prefix: /api}}], route: [{destination: {host: api}}]}]}",
        );
    assert_eq!(leads(&yaml, &["GET h.test /api", "GET h.test /"]), ["api namespace prod", "all namespace prod"]);
}

#[test]
fn requests_that_a_specific_host_has_no_rule_for_do_not_fall_to_a_wider_one() {
    let yaml = virtual_service("a", "{hosts: ['*'], gateways: [g], http: [{route: [{destination: {host: landing}}]}]}")
        + &virtual_service(
            "b",
            "{hosts: [shop.test], gateways: [g], http: [{match: [{uri: {exact: /cart}}], route: [{destination: {host: cart}}]}]}",
        );
    assert_eq!(
        leads(&yaml, &["GET shop.test /cart", "GET shop.test /x", "GET www.test /cart"]),
        ["cart namespace prod", "-", "landing namespace prod"]
    );
}

#[test]
fn a_delegate_replaces_its_route_and_is_not_a_catch_all() {
    let delegate = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: d, namespace: team}\nspec: {http: [{match: [{uri: {prefix: /cart/v2}}], route: [{destination: {host: v2}}]}, {match: [{uri: {prefix: /other}}], route: [{destination: {host: never}}]}, {route: [{destination: {host: v1}}]}]}\n---\n";
    let root = virtual_service(
        "root",
        "{hosts: [h.test], gateways: [g], http: [{match: [{uri: {prefix: /cart}}], delegate: {name: d, namespace: team}}, {route: [{destination: {host: web}}]}]}",
    );
    assert_eq!(
        leads(
            &format!("{root}{delegate}"),
            &["GET h.test /cart/v2", "GET h.test /cart", "GET h.test /other", "GET x.test /cart"]
        ),
        ["v2 namespace prod", "v1 namespace prod", "web namespace prod", "-"]
    );
    // Without its delegate, the route's requests are left alone; a delegate alone has no effect.
    assert_eq!(leads(&root, &["GET h.test /cart", "GET h.test /"]), ["-", "web namespace prod"]);
    let (policy, report) = read(delegate);
    assert_eq!((policy, report.is_complete()), (Node::Map(Vec::new()), false));
}

#[test]
fn a_service_has_all_names_that_istio_gives_it() {
    let yaml = virtual_service("r", "{hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}");
    let names = ["reviews", "reviews.prod", "reviews.prod.svc", "reviews.prod.svc.cluster.local:9080"];
    for name in names {
        assert_eq!(leads(&yaml, &[&format!("GET {name} /")]), ["reviews namespace prod"], "{name}");
    }
    assert_eq!(leads(&yaml, &["GET reviews.other /", "GET reviews.prod.svc.example /"]), ["-", "-"]);
}

#[test]
fn istios_headers_and_their_absence_mean_what_they_mean_there() {
    let yaml = virtual_service(
        "h",
        "{hosts: [h.test], gateways: [g], http: [\
         {match: [{withoutHeaders: {end-user: {regex: '.*'}}}], route: [{destination: {host: never}}]}, \
         {match: [{headers: {x-any: {regex: '*'}}, uri: {prefix: /any}}], route: [{destination: {host: any}}]}, \
         {match: [{method: {regex: 'PUT|PATCH'}}], route: [{destination: {host: writes}}]}, \
         {match: [{uri: {prefix: /Case}, ignoreUriCase: true}], route: [{destination: {host: case}}]}, \
         {match: [{authority: {prefix: h}}], route: [{destination: {host: lost}}]}, \
         {match: [{withoutHeaders: {end-user: {}}}], route: [{destination: {host: anonymous}}]}, \
         {route: [{destination: {host: rest}}]}]}",
    );
    assert_eq!(
        leads(
            &yaml,
            &[
                "GET h.test /",
                "GET h.test / end-user: jason",
                "GET h.test /any x-any: 1, end-user: a",
                "PATCH h.test / end-user: a",
                "GET h.test /cASEs end-user: a",
            ]
        ),
        ["anonymous", "rest", "any", "writes", "case"].map(|name| format!("{name} namespace prod"))
    );
    let (_, report) = read(&yaml);
    assert_eq!(lost(&report).len(), 1, "{:?}", lost(&report));
    assert!(report.notes.iter().any(|note| note.what.contains("authority") && note.consequence.contains("left out")));
}

#[test]
fn a_rewrite_of_characters_takes_no_request_with_a_different_result() {
    let yaml = virtual_service(
        "w",
        "{hosts: [h.test], gateways: [g], http: [{match: [{uri: {prefix: /api}}, {uri: {exact: /one}}], rewrite: {uri: /v2}, route: [{destination: {host: api}}]}, {route: [{destination: {host: web}}]}]}",
    );
    assert_eq!(
        leads(&yaml, &["GET h.test /api/x", "GET h.test /apiary", "GET h.test /one", "GET h.test /"]),
        ["api namespace prod", "-", "api namespace prod", "web namespace prod"]
    );
    let text = yaml_text::block(&read(&yaml).0, 0);
    assert!(text.contains("ReplacePrefixMatch") && text.contains("ReplaceFullPath"), "{text}");
}

#[test]
fn a_route_without_a_destination_is_no_route() {
    let weight_0 = http_route(
        "name: a",
        "{rules: [{matches: [{path: {value: /x}}], backendRefs: [{name: a, weight: 0}]}, {backendRefs: [{name: b}]}]}",
    );
    assert_eq!(leads(&weight_0, &["GET h.test /x", "GET h.test /"]), ["-", "b namespace prod"]);
    let pool = http_route(
        "name: a",
        "{rules: [{matches: [{path: {value: /x}}], backendRefs: [{name: a, kind: InferencePool, group: x}]}, {backendRefs: [{name: b}]}]}",
    );
    assert_eq!(leads(&pool, &["GET h.test /x", "GET h.test /"]), ["-", "b namespace prod"]);
}

#[test]
fn of_equal_http_routes_the_older_counts_and_then_the_name() {
    let route = |name: &str, created: &str| {
        http_route(
            &format!("name: {name}, creationTimestamp: '{created}'"),
            &format!("{{rules: [{{backendRefs: [{{name: {name}}}]}}]}}"),
        )
    };
    let yaml =
        route("b", "2026-01-02T00:00:00Z") + &route("a", "2026-01-02T00:00:00Z") + &route("c", "2026-01-03T00:00:00Z");
    assert_eq!(leads(&yaml, &["GET h.test /"]), ["a namespace prod"]);
    let yaml = yaml + &route("z", "2026-01-01T00:00:00Z");
    assert_eq!(leads(&yaml, &["GET h.test /"]), ["z namespace prod"]);
}

#[test]
fn of_equal_names_of_headers_the_first_counts() {
    let yaml = http_route(
        "name: a",
        "{rules: [{matches: [{headers: [{name: foo, value: a}, {name: Foo, value: b}]}], backendRefs: [{name: a}]}]}",
    );
    assert_eq!(leads(&yaml, &["GET h.test / foo: a", "GET h.test / foo: b"]), ["a namespace prod", "-"]);
}

#[test]
fn a_gateways_listeners_say_which_hosts_a_route_has() {
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: prod}\nspec:\n  listeners:\n  - {name: a, port: 80, protocol: HTTP, hostname: '*.a.test'}\n  - {name: b, port: 80, protocol: HTTP, hostname: b.test}\n---\n";
    let yaml = format!(
        "{gateway}{}{}",
        http_route(
            "name: r",
            "{parentRefs: [{name: g, sectionName: a}], hostnames: [x.a.test, b.test], rules: [{backendRefs: [{name: r}]}]}"
        ),
        http_route("name: s", "{parentRefs: [{name: g}], rules: [{backendRefs: [{name: s}]}]}")
    );
    assert_eq!(
        leads(&yaml, &["GET x.a.test /", "GET y.a.test /", "GET b.test /", "GET c.test /"]),
        ["r namespace prod", "s namespace prod", "s namespace prod", "-"]
    );
    let strange = yaml.replace(
        "namespace: prod}\nspec: {parentRefs: [{name: g}]",
        "namespace: other}\nspec: {parentRefs: [{name: g, namespace: prod}]",
    );
    assert_eq!(leads(&strange, &["GET y.a.test /"]), ["-"], "from another namespace");
}

#[test]
fn grpc_methods_are_paths() {
    let yaml = "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: r}\nspec:\n  rules:\n  - matches: [{method: {service: a.B, method: C}}]\n    backendRefs: [{name: one}]\n  - matches: [{method: {service: a.B}}]\n    backendRefs: [{name: two}]\n  - matches: [{method: {method: C}}]\n    backendRefs: [{name: three}]\n";
    assert_eq!(
        routes(yaml, &["POST h.test /a.B/C", "POST h.test /a.B/D", "POST h.test /x/C", "POST h.test /x/D"]),
        ["one", "two", "three", "continue"]
    );
}

#[test]
fn a_canary_of_a_wildcard_ingress_is_left_to_the_platform() {
    // In the source a wildcard stands for one label; in a policy for one or more.
    let yaml = ingress("nginx.ingress.kubernetes.io/canary: 'true', nginx.ingress.kubernetes.io/canary-weight: '100'")
        .replace("echo.prod.mydomain.com", "'*.mydomain.com'");
    let (policy, report) = read(&yaml);
    assert!(policy == Node::Map(Vec::new()) && !report.is_complete(), "{policy}");
}

#[test]
fn totals_below_a_hundred_and_empty_values_are_as_in_nginx() {
    let yaml = ingress(
        "nginx.ingress.kubernetes.io/canary: 'true', nginx.ingress.kubernetes.io/canary-weight: '50', \
         nginx.ingress.kubernetes.io/canary-weight-total: '50', nginx.ingress.kubernetes.io/canary-by-header: X-C, \
         nginx.ingress.kubernetes.io/canary-by-header-value: ''",
    );
    let canary = shares(&yaml, "GET echo.prod.mydomain.com /")["canary"];
    assert!((800..1200).contains(&canary), "{canary} of 2000");
    assert_eq!(routes(&yaml, &["GET echo.prod.mydomain.com / X-C: always"]), ["canary"]);
}

#[test]
fn an_expression_of_nginx_ignores_case_and_begins_the_path() {
    let yaml = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a, annotations: {nginx.ingress.kubernetes.io/use-regex: 'true', nginx.ingress.kubernetes.io/rewrite-target: /$2}}\nspec: {rules: [{host: h.test, http: {paths: [{path: '/api(/|$)(.*)', pathType: ImplementationSpecific, backend: {service: {name: api, port: {number: 80}}}}, {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}\n";
    let text = yaml_text::block(&read(yaml).0, 0);
    // The second path has the same annotation, but no second group for $2.
    assert_eq!(
        routes(yaml, &["GET h.test /api/x", "GET h.test /API/x", "GET h.test /y"]),
        ["api", "continue", "continue"],
        "{text}"
    );
}

#[test]
fn two_destinations_never_share_a_route() {
    let yaml = virtual_service(
        "v",
        "{hosts: [h.test], gateways: [g], http: [\
         {match: [{uri: {prefix: /a}}], route: [{destination: {host: web, port: {number: 80}}}]}, \
         {match: [{uri: {prefix: /b}}], route: [{destination: {host: web, port: {number: 90}}}]}, \
         {match: [{uri: {prefix: /c}}], route: [{destination: {host: web, subset: v1}}]}, \
         {match: [{uri: {prefix: /d}}], route: [{destination: {host: web-v1}}]}, \
         {route: [{destination: {host: unrouted}}]}]}",
    );
    assert_eq!(
        leads(&yaml, &["GET h.test /a", "GET h.test /b", "GET h.test /c", "GET h.test /d", "GET h.test /e"]),
        [
            "web namespace prod port 80",
            "web namespace prod port 90",
            "web namespace prod subset v1",
            "web-v1 namespace prod",
            "unrouted namespace prod"
        ]
    );
}

#[test]
fn the_report_is_for_programs_and_strictness_for_what_decides() {
    let (_, report) = read(&virtual_service(
        "v",
        "{hosts: [h.test], gateways: [g], http: [{mirror: {host: m}, route: [{destination: {host: web}}]}]}",
    ));
    let json = report.json();
    assert_eq!(json["routes"], serde_json::json!([{"route": "web", "to": "web namespace prod"}]));
    let notes = json["notImported"].as_array().unwrap();
    assert_eq!(notes.len(), 2);
    assert!(
        notes.iter().all(|note| ["where", "what", "consequence"].iter().all(|key| note[key].is_string())),
        "{json}"
    );
    assert_eq!(lost(&report), ["VirtualService prod/v: spec.http[0].mirror: {\"host\":\"m\"}"]);
}
