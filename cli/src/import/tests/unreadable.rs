//! A condition that cannot be read removes its whole rule: without the condition, the rule would take more requests
//! than the source.

use super::*;

fn of(kind: &str, spec: &str) -> String {
    let group = match kind {
        "HTTPRoute" | "GRPCRoute" | "Gateway" => "gateway.networking.k8s.io/v1",
        "VirtualService" | "ServiceEntry" | "Sidecar" => "networking.istio.io/v1",
        "Ingress" => "networking.k8s.io/v1",
        "IngressRoute" => "traefik.io/v1alpha1",
        "CiliumNetworkPolicy" => "cilium.io/v2",
        "BackendTrafficPolicy" => "gateway.envoyproxy.io/v1alpha1",
        _ => "v1",
    };
    format!(
        "apiVersion: {group}\nkind: {kind}\nmetadata: {{name: {}, namespace: prod}}\nspec: {spec}\n---\n",
        kind.to_lowercase()
    )
}

/// Objects whose rule must be absent, each with the reported reason.
#[test]
fn no_rule_is_wider_for_a_condition_that_cannot_be_read() {
    let vs = |http: &str| of("VirtualService", &format!("{{hosts: [h.test], gateways: [g], http: [{http}]}}"));
    let http_route = |rules: &str| of("HTTPRoute", &format!("{{hostnames: [h.test], rules: [{rules}]}}"));
    let to = "backendRefs: [{name: a, port: 80}]";
    for (yaml, said) in [
        (vs("{match: {uri: {prefix: /a}}, route: [{destination: {host: a}}]}"), "is not a list"),
        (
            vs("{match: [{uri: {prefix: /a, exact: /b}}], route: [{destination: {host: a}}]}"),
            "not exact, prefix or regex",
        ),
        (vs("{match: [{headers: [x-a]}], route: [{destination: {host: a}}]}"), "headers: [\"x-a\"] is not an object"),
        (
            vs("{match: [{ignoreUriCase: 'yes', uri: {prefix: /a}}], route: [{destination: {host: a}}]}"),
            "ignoreUriCase: \"yes\" is neither",
        ),
        (vs("{match: ['/a'], route: [{destination: {host: a}}]}"), "\"/a\" is not an object"),
        (
            vs("{match: [{headers: {'@request.auth.claims[a.b]': {exact: x}}}], route: [{destination: {host: a}}]}"),
            "a name cannot contain one",
        ),
        (http_route(&format!("{{matches: [{{path: /a}}], {to}}}")), "path: \"/a\" is not an object"),
        (
            http_route(&format!("{{matches: {{path: {{value: /a}}}}, {to}}}")),
            "matches: {\"path\":{\"value\":\"/a\"}} is not a list",
        ),
        (
            http_route(&format!("{{matches: [{{headers: [{{name: [a], value: b}}]}}], {to}}}")),
            "[\"a\"] is not a string",
        ),
        (
            http_route(&format!("{{filters: {{type: RequestRedirect}}, {to}}}")),
            "filters: {\"type\":\"RequestRedirect\"} is not a list",
        ),
        (
            of("HTTPRoute", &format!("{{hostnames: {{a: b}}, rules: [{{{to}}}]}}")),
            "hostnames: {\"a\":\"b\"} is not a list of strings",
        ),
        (of("HTTPRoute", &format!("{{hostnames: [[a]], rules: [{{{to}}}]}}")), "hostnames[0]: [\"a\"] is not a string"),
        (
            of(
                "Ingress",
                "{rules: [{host: [h.test], http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: a, port: {number: 80}}}}]}}]}",
            ),
            "host: [\"h.test\"] is not a string",
        ),
        (
            of(
                "Ingress",
                "{rules: [{host: h.test, http: {paths: [{path: /, pathType: prefix, backend: {service: {name: a, port: {number: 80}}}}]}}]}",
            ),
            "pathType prefix: it is Exact, Prefix or ImplementationSpecific",
        ),
        (
            of(
                "IngressRoute",
                "{routes: [{kind: Rule, match: Host(`h.test`), middlewares: {name: login}, services: [{name: a, port: 80}]}]}",
            ),
            "middlewares: {\"name\":\"login\"} is not a list",
        ),
    ] {
        let (policy, report) = read(&yaml);
        let rules = policy.get("routes").and_then(|routes| routes.get("rules")).map_or(&[][..], |rules| match rules {
            Node::List(rules) => rules.as_slice(),
            _ => &[],
        });
        let leads = rules.iter().any(|rule| rule.get("route") != Some(&Node::String("unrouted".to_owned())));
        assert!(!leads && lost(&report).join("\n").contains(said), "{yaml}{policy}\n{:?}", lost(&report));
    }
}

#[test]
fn no_egress_rule_is_wider_for_a_condition_that_cannot_be_read() {
    let mesh = "meshConfig: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}\n---\n";
    let entry = |more: &str| {
        of(
            "ServiceEntry",
            &format!(
                "{{hosts: [a.test], ports: [{{number: 443, name: t, protocol: TLS}}], location: MESH_EXTERNAL, {more}}}"
            ),
        )
    };
    let cilium = |rule: &str| {
        of(
            "CiliumNetworkPolicy",
            &format!("{{endpointSelector: {{}}, egress: [{{toFQDNs: [{{matchName: a.test}}], {rule}}}]}}"),
        )
    };
    for yaml in [
        format!("{mesh}{}", entry("exportTo: {a: b}")),
        format!("{mesh}{}{}", entry("resolution: DNS"), of("Sidecar", "{egress: {hosts: [./*]}}")),
        cilium("toPorts: {ports: [{port: '443'}]}"),
        cilium("toPorts: [{ports: [{port: '443', protocol: TCP}], rules: {http: {method: GET}}}]"),
        "version: v1\nservices: [{name: a, project: p, action: enforce, allowed_domains: []}]\nglobal_deny_list: {a: b}\nglobal_allow_list: [a.test]\n".to_owned(),
    ] {
        let (policy, report) = read(&yaml);
        let rules = policy.get("egress").and_then(|egress| egress.get("rules"));
        assert!(rules.is_none_or(|rules| *rules == Node::List(Vec::new())), "{yaml}{policy}");
        assert!(!report.is_complete(), "{yaml}");
    }
    let denied = of(
        "CiliumNetworkPolicy",
        "{endpointSelector: {}, egress: [{toFQDNs: [{matchName: a.test}]}], egressDeny: [{toCIDR: [10.0.0.0/8]}]}",
    );
    assert!(lost(&read(&denied).1)[0].contains("egressDeny"));
}

#[test]
fn no_limit_counts_more_for_a_condition_that_cannot_be_read() {
    let route = of("HTTPRoute", "{hostnames: [h.test], rules: [{backendRefs: [{name: a, port: 80}]}]}");
    for selector in [
        "{headers: {name: x}}",
        "{methods: GET}",
        "{headers: [{name: x, value: y, invert: 'yes'}]}",
        "{path: {value: /a}}, {path: {value: /b}}",
    ] {
        let policy = of(
            "BackendTrafficPolicy",
            &format!(
                "{{targetRefs: [{{kind: HTTPRoute, name: httproute}}], rateLimit: {{type: Local, local: {{rules: [{{clientSelectors: [{selector}], limit: {{requests: 1, unit: Hour}}}}]}}}}}}"
            ),
        );
        let (policy, report) = read(&format!("{route}{policy}"));
        assert!(policy.get("rateLimits").is_none() && !report.is_complete(), "{selector}: {policy}");
    }
    let (policy, report) =
        read("domain: d\ndescriptors:\n- {key: x-a, value: [b], rate_limit: {unit: hour, requests_per_unit: 1}}\n");
    assert!(policy.get("rateLimits").is_none() && !report.is_complete(), "{policy}");
}

#[test]
fn delegates_that_cannot_be_read_stay_left_out() {
    let delegate = |http: &str| of("VirtualService", &format!("{{http: [{http}]}}"));
    let root = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: root, namespace: prod}\nspec: {hosts: [h.test], gateways: [g], http: [{match: MATCH, delegate: {name: virtualservice}}]}\n";
    for (of_root, of_leaf) in [
        ("[{uri: {prefix: /a}}]", "{uri: {prefix: /a}}"),
        ("{uri: {prefix: /a}}", "[{uri: {prefix: /a}}]"),
        ("['/a']", "[{uri: {prefix: /a}}]"),
        ("[{headers: [a]}]", "[{headers: {a: {exact: b}}}]"),
    ] {
        let leaf = delegate(&format!("{{match: {of_leaf}, route: [{{destination: {{host: a}}}}]}}"));
        let (policy, report) = read(&(leaf + &root.replace("MATCH", of_root)));
        assert!(policy == Node::Map(Vec::new()) && !report.is_complete(), "{of_root} {of_leaf}: {policy}");
    }
}

#[test]
fn claims_of_istio_are_claims() {
    let yaml = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec:\n  hosts: [h.test]\n  gateways: [g]\n  http:\n  \
        - match: [{headers: {'@request.auth.claims.groups': {exact: admin}}, withoutHeaders: {'@request.auth.claims[realm][team]': {prefix: x}}}]\n    \
        route: [{destination: {host: admin}}]\n  - route: [{destination: {host: web}}]\n";
    let (policy, report) = read(yaml);
    assert!(report.is_complete(), "{:?}", lost(&report));
    let policy = Policy::from_node(&policy).unwrap();
    let route = |claims: serde_json::Value| {
        let json = serde_json::json!({"method": "GET", "authority": "h.test", "path": "/", "claims": claims});
        let request: WireRequest = serde_json::from_value(json).unwrap();
        request.decide(&policy, &mut World::new(Timestamp(0), 0)).route.unwrap()
    };
    assert_eq!(route(serde_json::json!({"groups": ["user", "admin"]})), "admin");
    assert_eq!(route(serde_json::json!({"groups": ["admin"], "realm": {"team": "xy"}})), "web");
    assert_eq!(route(serde_json::json!({"groups": "user"})), "web");
}

#[test]
fn a_missing_gateway_is_reported_where_it_decides_the_hosts() {
    let route = |hostnames: &str| {
        of(
            "HTTPRoute",
            &format!("{{parentRefs: [{{name: g}}], {hostnames} rules: [{{backendRefs: [{{name: a, port: 80}}]}}]}}"),
        )
    };
    let notes = |yaml: &str| read(yaml).1.notes.iter().map(|note| note.what.clone()).collect::<Vec<_>>().join("; ");
    assert!(notes(&route("")).contains("Gateway prod/g is missing in the input"), "{}", notes(&route("")));
    assert_eq!(notes(&route("hostnames: [h.test],")), "");
    // Nothing is known about other namespaces without their labels.
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: infra}\nspec: {listeners: [{name: l, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}}]}\n---\n";
    let (policy, report) = read(&format!("{gateway}{}", route("").replace("{name: g}", "{name: g, namespace: infra}")));
    assert_eq!(policy, Node::Map(Vec::new()));
    assert!(
        lost(&report)[0]
            .contains("it is unknown whether Namespace prod has the label team: add the Namespace to the input"),
        "{:?}",
        lost(&report)
    );
}

#[test]
fn what_the_whole_policy_says_of_a_part_names_the_place_in_its_source() {
    let yaml = of(
        "HTTPRoute",
        "{hostnames: [h.test], rules: [{matches: [{path: {value: /a}}], filters: [{type: RequestRedirect, requestRedirect: {statusCode: 302}}]}]}",
    );
    assert_eq!(
        lost(&read(&yaml).1),
        [
            "HTTPRoute prod/httproute: spec.rules[0]: redirect: leads what matches[0] takes back to itself: the client would never stop; change the scheme, the host, the port or the path"
        ]
    );
}
