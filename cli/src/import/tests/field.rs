//! Objects as they stand in clusters, with what is rarely tried: nothing becomes wider, and nothing is lost silently.

use super::sources::{get, statuses};
use super::*;

/// Asserts the routes of requests, and a part of each loss that is reported, in any order.
fn says(yaml: &str, requests: &[(&str, &str)], losses: &[&str]) {
    let (policy, report) = read(yaml);
    let said = lost(&report);
    for part in losses {
        assert!(said.iter().any(|said| said.contains(part)), "{part} in {said:#?}\n{yaml}");
    }
    assert_eq!(said.len(), losses.len(), "{said:#?}\n{yaml}\n{}", yaml_text::block(&policy, 0));
    let (asked, expected): (Vec<&str>, Vec<&str>) = requests.iter().copied().unzip();
    assert_eq!(routes(yaml, &asked), expected, "{yaml}\n{}", yaml_text::block(&policy, 0));
}

fn notes(yaml: &str) -> Vec<String> {
    let (_, report) = read(yaml);
    report.notes.iter().map(|note| format!("{}: {}", note.place, note.what)).collect()
}

fn virtual_service(hosts: &str, http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: vs, namespace: shop}}\nspec:\n  hosts: [{hosts}]\n  \
         gateways: [gw]\n  http:\n{http}"
    )
}

#[test]
fn one_match_that_a_policy_cannot_express_leaves_the_others_of_its_rule() {
    let yaml = virtual_service(
        "a.test, '*.b.test'",
        "  - match: [{method: {exact: get}, uri: {exact: /m}}, {uri: {regex: '/(?=x)'}}, {uri: {exact: /ok}}]\n    route: [{destination: {host: a}}]\n  \
           - route: [{destination: {host: rest}}]\n",
    );
    says(
        &yaml,
        &[("GET a.test /ok", "a"), ("GET x.b.test /ok", "a"), ("GET a.test /m", "rest"), ("GET a.test /x", "rest")],
        &["method: \"get\"", "look-around"],
    );
    let of_gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  hostnames: [a.test]\n  rules:\n  \
        - matches: [{headers: [{name: A, type: RegularExpression, value: '(?=x)'}]}, {path: {value: /ok}}]\n    backendRefs: [{name: a, port: 80}]\n";
    says(of_gateway, &[("GET a.test /ok/x", "a"), ("GET a.test / a: x", "continue")], &["look-around"]);
    // Each is reported once, however many hosts it has.
    let bad = virtual_service(
        "a.test, '*.b.test'",
        "  - match: [{uri: {regex: '/(?=x)'}}]\n    route: [{destination: {host: a}}]\n",
    );
    let (draft, _) = import(&[(String::new(), Located::read(&bad).unwrap().node)], &mut ImportReport::default());
    assert_eq!(draft.text().matches("look-around").count(), 1, "{}", draft.text());
}

#[test]
fn an_authority_of_a_match_is_compared_as_it_is_written() {
    for authority in ["'*.a.test'", "'*'", "''", "a.test:8443", "a_b c"] {
        for field in
            [format!("authority: {{exact: {authority}}}"), format!("headers: {{':authority': {{exact: {authority}}}}}")]
        {
            let yaml = virtual_service(
                "'*'",
                &format!("  - match: [{{{field}}}]\n    route: [{{destination: {{host: a}}}}]\n"),
            );
            says(&yaml, &[("GET a.test /", "continue"), ("GET x.a.test /", "continue")], &["not a host name"]);
        }
    }
    let twice = "  - match: [{authority: {exact: a.test}, headers: {host: {exact: b.test}}}]\n    route: [{destination: {host: a}}]\n";
    says(
        &virtual_service("'*'", twice),
        &[("GET a.test /", "continue"), ("GET b.test /", "continue")],
        &["headers.host"],
    );
    let other = "  - match: [{authority: {exact: c.test}}]\n    route: [{destination: {host: a}}]\n";
    let notes = notes(&virtual_service("a.test", other));
    assert!(notes.iter().any(|note| note.contains("authority c.test: it is none of spec.hosts")), "{notes:?}");
}

#[test]
fn values_that_envoy_fills_in_are_not_set_literally() {
    let yaml = virtual_service(
        "a.test",
        "  - headers: {request: {set: {x-ip: '%DOWNSTREAM_REMOTE_ADDRESS%', x-share: '100%%', x-id: 'a%REQ(x-id)%'}}}\n    \
           route: [{destination: {host: a}}]\n",
    );
    says(&yaml, &[("GET a.test /", "a")], &["set.x-ip: %DOWNSTREAM", "set.x-id: a%REQ"]);
    let text = yaml_text::block(&read(&yaml).0, 0);
    assert!(text.contains("value: \"100%\"") && !text.contains("x-ip"), "{text}");
    let yaml = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  hostnames: [a.test]\n  rules:\n  \
        - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: '%PROTOCOL%'}, {name: b, value: 5%}]}}]\n    \
          backendRefs: [{name: a, port: 80}]\n";
    says(yaml, &[("GET a.test /", "a")], &["\"a\": %PROTOCOL%"]);
    assert!(yaml_text::block(&read(yaml).0, 0).contains("name: b"));
}

#[test]
fn a_host_that_cannot_be_imported_is_reported_as_it_is_written() {
    for host in ["''", "'[::1]'", "a.b.", "'*foo.com'", "'a.test:8443'"] {
        let yaml = virtual_service(&format!("{host}, b.test"), "  - route: [{destination: {host: a}}]\n")
            .replace("[gw]", "[mesh]");
        let written = host.trim_matches('\'');
        says(
            &yaml,
            &[("GET b.test /", "a"), ("GET x.test /", "continue")],
            &[&format!("spec.hosts: {written:?} is not")],
        );
    }
}

#[test]
fn routes_of_several_gateways_are_told_apart_only_by_the_user() {
    let one = virtual_service("a.test", "  - route: [{destination: {host: a}}]\n");
    let both = format!(
        "{one}---\n{}",
        one.replace("[gw]", "[internal]").replace("a.test", "b.test").replace("name: vs", "name: w")
    );
    says(&one, &[("GET a.test /", "a")], &[]);
    says(&both, &[("GET b.test /", "a")], &["routes of different gateways: gw, internal"]);
    let route = |name: &str, gateway: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\nspec: {{parentRefs: [{{name: {gateway}}}], hostnames: [{name}.test], \
             rules: [{{backendRefs: [{{name: a, port: 80}}]}}]}}\n---\n"
        )
    };
    says(&(route("a", "x") + &route("b", "x")), &[("GET b.test /", "a")], &[]);
    says(
        &(route("a", "x") + &route("b", "z")),
        &[("GET b.test /", "a")],
        &["routes of different Gateways: Gateway default/x, Gateway default/z"],
    );
    let traefik = |name: &str, entry: &str| {
        format!(
            "apiVersion: traefik.io/v1alpha1\nkind: IngressRoute\nmetadata: {{name: {name}}}\nspec: {{entryPoints: [{entry}], \
             routes: [{{kind: Rule, match: 'Host(`{name}.test`)', services: [{{name: a, port: 80}}]}}]}}\n---\n"
        )
    };
    says(&(traefik("a", "web") + &traefik("b", "websecure")), &[("GET b.test / x-forwarded-proto: https", "a")], &[]);
    says(
        &(traefik("a", "web") + &traefik("b", "metrics")),
        &[("GET b.test /", "a")],
        &["routes of different entry points: metrics"],
    );
}

#[test]
fn a_route_says_which_of_its_parents_send_it_nothing() {
    let yaml = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec: {listeners: [{name: http, port: 80, protocol: HTTP}]}\n---\n\
        apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec: {parentRefs: [{name: gw, sectionName: http}, {name: gw, sectionName: htps}, {name: gw, port: 8080}], \
        hostnames: [a.test], rules: [{backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: p, weight: 0}, {name: a, port: 80}]}]}\n";
    says(yaml, &[("GET a.test /", "a")], &[]);
    let notes = notes(yaml);
    for part in ["spec.parentRefs[1]: no listener of Gateway default/gw", "spec.parentRefs[2]: no listener"] {
        assert!(notes.iter().any(|note| note.contains(part)), "{part} in {notes:?}");
    }
    assert!(!yaml_text::block(&read(yaml).0, 0).contains("canar"), "a pool of weight 0 is no variant");
}

/// Two routes with a label each, and a policy of Envoy Gateway.
fn limited(targets: &str, rules: &str) -> String {
    let route = |name: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop, labels: {{team: {name}}}}}\n\
             spec: {{parentRefs: [{{name: gw}}], hostnames: [{name}.test], rules: [{{backendRefs: [{{name: {name}, port: 80}}]}}]}}\n---\n"
        )
    };
    format!(
        "{}{}apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: BackendTrafficPolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n  {targets}\n  \
         rateLimit: {{type: Global, global: {{rules: [{rules}]}}}}\n",
        route("a"),
        route("b")
    )
}

const BOTH: &str = "targetRefs: [{kind: HTTPRoute, name: a}, {kind: HTTPRoute, name: b}]";

#[test]
fn targets_share_a_count_only_when_the_policy_says_so() {
    let asked = [get("a.test", "/"), get("b.test", "/"), get("a.test", "/"), get("b.test", "/")];
    let yaml = |shared: &str| limited(BOTH, &format!("{{limit: {{requests: 1, unit: Hour}}{shared}}}"));
    assert_eq!(statuses(&yaml(""), &asked), [0, 0, 429, 429]);
    assert_eq!(statuses(&yaml(", shared: false"), &asked), [0, 0, 429, 429]);
    assert_eq!(statuses(&yaml(", shared: true"), &asked), [0, 429, 429, 429]);
    let gateway = yaml(", shared: true").replace(BOTH, "targetRefs: [{kind: Gateway, name: gw}]");
    assert_eq!(statuses(&gateway, &asked), [0, 429, 429, 429]);
}

#[test]
fn a_route_of_one_port_is_left_out_when_another_port_takes_the_same_requests() {
    let gateway = |listeners: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: gw}}\nspec: {{listeners: [{listeners}]}}\n"
        )
    };
    let route = |name: &str, parent: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\nspec: {{hostnames: [a.test], parentRefs: [{{name: gw{parent}}}], \
             rules: [{{backendRefs: [{{name: {name}}}]}}]}}\n"
        )
    };
    let two = gateway("{name: app, port: 443, protocol: HTTPS}, {name: adm, port: 8443, protocol: HTTPS}");
    let apart = [&*two, &route("adm", ", sectionName: adm"), &route("app", ", port: 443")].concat();
    says(
        &apart,
        &[("GET a.test /", "continue")],
        &["only requests to port 443, not 8443", "only requests to port 8443"],
    );
    for both in [
        [&*two, &route("app", "")].concat(),
        [&*two, &route("app", ", sectionName: app}, {name: gw, sectionName: adm")].concat(),
        [
            &*gateway("{name: app, port: 443, protocol: HTTPS}, {name: old, port: 80, protocol: HTTP}"),
            &route("app", ", port: 443"),
        ]
        .concat(),
        [
            &*gateway(
                "{name: app, port: 443, protocol: HTTPS}, {name: b, port: 8443, protocol: HTTPS, hostname: b.test}",
            ),
            &route("app", ", port: 443"),
        ]
        .concat(),
    ] {
        assert_eq!(routes(&both, &["GET a.test / x-forwarded-proto: https"]), ["app"], "{both}");
    }
}

#[test]
fn a_listener_accepts_only_the_kinds_that_it_lists() {
    let yaml = |kinds: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: gw}}\nspec: {{listeners: [{{name: l, port: 80, protocol: HTTP, allowedRoutes: {{kinds: {kinds}}}}}]}}\n\
             ---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec: {{hostnames: [a.test], parentRefs: [{{name: gw}}], rules: [{{backendRefs: [{{name: web}}]}}]}}\n"
        )
    };
    for (kinds, route) in [
        ("[]", "web"),
        ("[{kind: HTTPRoute}, {kind: GRPCRoute}]", "web"),
        ("[{kind: GRPCRoute}]", "continue"),
        ("x", "continue"),
    ] {
        assert_eq!(routes(&yaml(kinds), &["GET a.test /"]), [route], "{kinds}");
    }
}

#[test]
fn a_selector_targets_the_routes_with_its_labels() {
    let asked = [get("a.test", "/"), get("a.test", "/"), get("b.test", "/"), get("b.test", "/")];
    let rule = "{limit: {requests: 1, unit: Hour}}";
    for (selector, expected) in [
        ("matchLabels: {team: a}", [0, 429, 0, 0]),
        ("matchExpressions: [{key: team, operator: In, values: [b, c]}]", [0, 0, 0, 429]),
        ("matchExpressions: [{key: team, operator: Exists}]", [0, 429, 0, 429]),
        ("matchLabels: {team: a}, matchExpressions: [{key: team, operator: DoesNotExist}]", [0, 0, 0, 0]),
        ("matchLabels: {team: a}, futureField: 1", [0, 0, 0, 0]),
    ] {
        let yaml = limited(&format!("targetSelectors: [{{kind: HTTPRoute, {selector}}}]"), rule);
        assert_eq!(statuses(&yaml, &asked), expected, "{selector}");
        let (_, report) = read(&yaml);
        assert_eq!(report.is_complete(), expected.contains(&429), "{selector}: {:?}", lost(&report));
    }
    let listener = limited("targetRefs: [{kind: Gateway, name: gw, sectionName: http}]", rule);
    says(&listener, &[("GET a.test /", "a")], &["one listener of a Gateway"]);
}

#[test]
fn a_limit_whose_selector_envoy_gateway_refuses_is_left_out() {
    for (selectors, part) in [
        ("{headers: [{name: x-user, type: Distinct, invert: true}]}", "Envoy Gateway refuses it"),
        ("{methods: [{}]}", "a method without a value"),
        ("{path: {value: /a}}, {path: {value: /b}}", "two conditions on the path"),
        ("{sourceCIDR: {value: 10.0.0.0/8, type: Distinct}}", "no condition on addresses"),
    ] {
        let yaml = limited(BOTH, &format!("{{clientSelectors: [{selectors}], limit: {{requests: 1, unit: Hour}}}}"));
        assert!(read(&yaml).0.get("rateLimits").is_none(), "{selectors}");
        says(&yaml, &[("GET a.test /", "a")], &[part]);
    }
}

fn annotated(annotations: &str, host: &str) -> String {
    let annotations: String =
        annotations.split(", ").map(|one| format!("nginx.ingress.kubernetes.io/{one}, ")).collect();
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: web, annotations: {{{annotations}}}}}\nspec: {{rules: [{{host: '{host}', \
         http: {{paths: [{{path: /x, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]}}\n"
    )
}

#[test]
fn annotations_have_the_values_that_nginx_reads() {
    for (annotation, request, route) in [
        // As Go parses booleans.
        ("canary: 'True', canary-weight: '100'", "GET a.test /x", "continue"),
        ("canary: '1', canary-weight: '100'", "GET a.test /x", "continue"),
        ("canary: 'yes', canary-weight: '100'", "GET a.test /x", "web"),
        ("use-regex: 'TRUE'", "GET a.test /X", "web"),
        ("force-ssl-redirect: 'T'", "GET a.test /x x-forwarded-proto: http", "respond"),
        ("ssl-redirect: 'False'", "GET a.test /x x-forwarded-proto: http", "web"),
    ] {
        assert_eq!(routes(&annotated(annotation, "a.test"), &[request]), [route], "{annotation}");
    }
    for (multiplier, burst) in [("'0'", 6), ("'-2'", 6), ("'1'", 2), ("'3'", 4)] {
        let (policy, _) = read(&annotated(&format!("limit-rpm: '1', limit-burst-multiplier: {multiplier}"), "a.test"));
        let text = yaml_text::block(&policy, 0);
        assert!(text.contains(&format!("burst: {burst}}}")), "{multiplier}: {text}");
    }
}

#[test]
fn a_host_that_is_left_to_nginx_has_no_limit_of_its_own() {
    let yaml = annotated("limit-rps: '1'", "*.a.test");
    assert!(read(&yaml).0.get("rateLimits").is_none());
    says(&yaml, &[("GET x.a.test /x", "continue"), ("GET x.y.a.test /z", "continue")], &["one label in ingress-nginx"]);
}

#[test]
fn the_first_versions_of_ingress_name_their_service_in_the_backend() {
    for version in ["extensions/v1beta1", "networking.k8s.io/v1beta1"] {
        let yaml = format!(
            "apiVersion: {version}\nkind: Ingress\nmetadata: {{name: old}}\nspec: {{rules: [{{host: a.test, http: {{paths: [{{path: /x, backend: {{serviceName: web, servicePort: http}}}}]}}}}]}}\n"
        );
        says(&yaml, &[("GET a.test /x/y", "web"), ("GET a.test /y", "continue")], &[]);
    }
}

#[test]
fn chains_and_services_of_traefik_that_contain_themselves_are_left_to_traefik() {
    let yaml = "apiVersion: traefik.io/v1alpha1\nkind: Middleware\nmetadata: {name: loop}\nspec: {chain: {middlewares: [{name: loop}]}}\n---\n\
        apiVersion: traefik.io/v1alpha1\nkind: TraefikService\nmetadata: {name: ring}\nspec: {weighted: {services: [{name: ring, kind: TraefikService}]}}\n---\n\
        apiVersion: traefik.io/v1alpha1\nkind: IngressRoute\nmetadata: {name: r}\nspec:\n  routes:\n  \
        - {match: 'Host(`a.test`)', middlewares: [{name: loop}], services: [{name: a, port: 80}]}\n  \
        - {match: 'Host(`b.test`)', services: [{name: ring, kind: TraefikService}]}\n  \
        - {match: 'Host(`c.test`)', services: [{name: api@internal, kind: TraefikService}]}\n  \
        - {match: 'Host(`d.test`)', services: [{name: d, port: 80}]}\n";
    says(
        yaml,
        &[
            ("GET a.test /", "unrouted"),
            ("GET b.test /", "unrouted"),
            ("GET c.test /", "unrouted"),
            ("GET d.test /", "d"),
        ],
        &["a chain contains itself", "ring contains itself", "api@internal is a service of Traefik itself"],
    );
}
