//! One example for each source besides Ingress, VirtualService and HTTPRoute.

use super::*;

use serde_json::json;

/// The statuses of requests in the format of `replay`; 0 for those that pass.
pub(super) fn statuses(yaml: &str, requests: &[serde_json::Value]) -> Vec<u16> {
    let (node, _) = read(yaml);
    let policy =
        Policy::from_node(&node).unwrap_or_else(|problems| panic!("{problems}\n{}", yaml_text::block(&node, 0)));
    let mut world = World::new(Timestamp(0), 0);
    let decide = |request: &serde_json::Value| {
        let request: WireRequest = serde_json::from_value(request.clone()).unwrap();
        request.decide(&policy, &mut world).status.unwrap_or(0)
    };
    requests.iter().map(decide).collect()
}

pub(super) fn get(authority: &str, path: &str) -> serde_json::Value {
    json!({"method": "GET", "authority": authority, "path": path, "sourceAddress": "203.0.113.9", "scheme": "https"})
}

const TRAEFIK: &str = "\
apiVersion: traefik.io/v1alpha1
kind: Middleware
metadata: {name: limit, namespace: shop}
spec: {rateLimit: {average: 1, period: 1m, burst: 2}}
---
apiVersion: traefik.io/v1alpha1
kind: Middleware
metadata: {name: all, namespace: shop}
spec: {chain: {middlewares: [{name: limit}, {name: strip}]}}
---
apiVersion: traefik.io/v1alpha1
kind: Middleware
metadata: {name: strip, namespace: shop}
spec: {stripPrefix: {prefixes: [/api]}}
---
apiVersion: traefik.io/v1alpha1
kind: Middleware
metadata: {name: login, namespace: shop}
spec: {basicAuth: {secret: users}}
---
apiVersion: traefik.io/v1alpha1
kind: TraefikService
metadata: {name: split, namespace: shop}
spec: {weighted: {services: [{name: v1, port: 80, weight: 0}, {name: inner, kind: TraefikService, weight: 3}]}}
---
apiVersion: traefik.io/v1alpha1
kind: TraefikService
metadata: {name: inner, namespace: shop}
spec: {weighted: {services: [{name: v2, port: 80, weight: 1}, {name: v3, port: 80, weight: 0}]}}
---
apiVersion: traefik.io/v1alpha1
kind: IngressRoute
metadata: {name: shop, namespace: shop}
spec:
  routes:
  - {kind: Rule, match: Host(`h.test`), services: [{name: split, kind: TraefikService}]}
  - {kind: Rule, match: Host(`h.test`) && PathPrefix(`/api`), middlewares: [{name: all}], services: [{name: api, port: 80}]}
  - {kind: Rule, match: Host(`h.test`) && PathPrefix(`/admin`), middlewares: [{name: login}], services: [{name: admin, port: 80}]}
";

#[test]
fn traefiks_routes_decide_by_priority_with_their_middlewares() {
    assert_eq!(
        routes(
            TRAEFIK,
            &["GET h.test /", "GET h.test /api/x", "GET h.test /apiary", "GET h.test /admin", "GET x.test /"]
        ),
        ["v2", "api", "unrouted", "unrouted", "continue"]
    );
    assert_eq!(
        statuses(TRAEFIK, &[get("h.test", "/api"), get("h.test", "/api/x"), get("h.test", "/api"), get("h.test", "/")]),
        [0, 0, 429, 0]
    );
}

#[test]
fn a_limit_counts_only_the_requests_of_its_route() {
    let ingress = |name: &str, path: &str, annotations: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\nspec: {{rules: [{{host: h.test, http: {{paths: [{{path: {path}, pathType: Prefix, backend: {{service: {{name: {name}, port: {{number: 80}}}}}}}}]}}}}]}}\n---\n"
        )
    };
    let limited = ingress(
        "web",
        "/",
        "nginx.ingress.kubernetes.io/limit-rpm: '1', nginx.ingress.kubernetes.io/limit-burst-multiplier: '1'",
    );
    let yaml = limited.clone() + &ingress("admin", "/admin", "");
    assert_eq!(
        statuses(
            &yaml,
            &[
                get("h.test", "/"),
                get("h.test", "/admin"),
                get("h.test", "/x"),
                get("h.test", "/admin/x"),
                get("h.test", "/adm")
            ]
        ),
        [0, 0, 0, 0, 503]
    );
    let exempt = limited.replace("limit-burst-multiplier: '1'", "limit-whitelist: 10.0.0.0/8");
    let (policy, report) = read(&exempt);
    assert!(policy.get("rateLimits").is_none() && !report.is_complete(), "{policy}");
}

#[test]
fn annotations_that_refuse_some_requests_are_left_to_nginx() {
    for annotation in [
        "whitelist-source-range: 10.0.0.0/8",
        "auth-url: https://auth.test",
        "configuration-snippet: 'return 403;'",
        "server-snippet: 'location /foo { deny all; }'",
        "modsecurity-snippet: 'SecRuleEngine On'",
    ] {
        let yaml =
            ingress("nginx.ingress.kubernetes.io/canary: 'true', nginx.ingress.kubernetes.io/canary-weight: '50'")
                .replacen("annotations: {}", &format!("annotations: {{nginx.ingress.kubernetes.io/{annotation}}}"), 1);
        let (policy, report) = read(&yaml);
        assert!(policy == Node::Map(Vec::new()) && !report.is_complete(), "{annotation}: {policy}");
    }
}

#[test]
fn affinity_keeps_a_user_on_the_variant_that_served_it() {
    let yaml = ingress("nginx.ingress.kubernetes.io/canary: 'true', nginx.ingress.kubernetes.io/canary-weight: '50'")
        .replacen("annotations: {}", "annotations: {nginx.ingress.kubernetes.io/affinity: cookie, nginx.ingress.kubernetes.io/session-cookie-name: sid, nginx.ingress.kubernetes.io/session-cookie-max-age: '172800'}", 1);
    let text = yaml_text::block(&read(&yaml).0, 0);
    assert!(text.contains("cookie: {name: sid, maxAge: \"48h\"}"), "{text}");
}

#[test]
fn a_hash_of_a_destination_rule_makes_a_weighted_choice_stick() {
    let yaml = reviews(
        "  - route: [{destination: {host: reviews, subset: v1}, weight: 50}, {destination: {host: reviews, subset: v2}, weight: 50}]\n",
    ) + "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\nspec: {host: reviews.default.svc.cluster.local, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}\n";
    let text = yaml_text::block(&read(&yaml).0, 0);
    assert!(
        text.contains("stickiness: {header: x-user}") || text.contains("stickiness:\n    header: x-user"),
        "{text}"
    );
}

const LOCAL: &str = "\
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: limit, namespace: prod}
spec:
  workloadSelector: {labels: {app: a}}
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          stat_prefix: x
          token_bucket: {max_tokens: 2, tokens_per_fill: 1, fill_interval: 60s}
          filter_enabled: {default_value: {numerator: 100, denominator: HUNDRED}}
          filter_enforced: {default_value: {numerator: 100, denominator: HUNDRED}}
";

#[test]
fn istios_local_limits_are_limits_of_one_workload() {
    assert_eq!(statuses(LOCAL, &[get("a", "/"), get("b", "/"), get("c", "/")]), [0, 0, 429]);
    let other = LOCAL.replace("app: a", "app: b");
    let (policy, report) = read(&format!("{LOCAL}---\n{other}"));
    assert!(policy == Node::Map(Vec::new()) && !report.is_complete(), "{policy}");
    // Envoy enables nothing by default.
    let (policy, _) = read(&LOCAL.replace("filter_enabled", "unused"));
    assert_eq!(policy, Node::Map(Vec::new()));
    for lossy in
        ["descriptors: [{entries: [{key: a}]}]\n          stat_prefix", "rate_limits: []\n          stat_prefix"]
    {
        let (policy, report) = read(&LOCAL.replace("stat_prefix", lossy));
        assert!(policy == Node::Map(Vec::new()) && !report.is_complete(), "{lossy}: {policy}");
    }
}

const ENTRY: &str = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: stripe, namespace: shop}
spec:
  hosts: [api.stripe.com]
  location: MESH_EXTERNAL
  ports: [{number: 443, name: tls, protocol: TLS}, {number: 5432, name: db, protocol: TCP}]
";

#[test]
fn service_entries_are_an_allowlist_when_the_mesh_lets_out_nothing_else() {
    let (policy, report) = read(ENTRY);
    assert!(policy == Node::Map(Vec::new()) && !report.is_complete(), "{policy}");
    for mesh in [
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata:\n  mesh: |\n    outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n",
        "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {meshConfig: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}}\n",
        "meshConfig: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}\n",
    ] {
        let yaml = format!("{ENTRY}---\n{mesh}");
        assert_eq!(
            statuses(&yaml, &[get("api.stripe.com", "/"), get("api.stripe.com:5432", "/"), get("evil.test", "/")]),
            [0, 403, 403],
            "{mesh}"
        );
    }
    let open = format!("{ENTRY}---\nmeshConfig: {{outboundTrafficPolicy: {{mode: ALLOW_ANY}}}}\n");
    assert_eq!(read(&open).0, Node::Map(Vec::new()));
}

#[test]
fn ciliums_names_are_allowed_as_far_as_its_stars_reach() {
    let yaml = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: f, namespace: shop}
spec:
  endpointSelector: {matchLabels: {io.cilium.k8s.policy.serviceaccount: cart}}
  egress:
  - toFQDNs: [{matchName: a.test}, {matchPattern: '*.b.test'}, {matchPattern: '**.c.test'}]
    toPorts: [{ports: [{port: '443', protocol: TCP}, {port: '53', protocol: UDP}]}]
  - toEntities: [world]
";
    let ask = |host: &str, peer: &str| {
        let mut request = get(host, "/");
        request["peer"] = json!(peer);
        request
    };
    let cart = "spiffe://cluster.local/ns/shop/sa/cart";
    assert_eq!(
        statuses(
            yaml,
            &[
                ask("a.test", cart),
                ask("x.b.test", cart),
                ask("x.y.c.test", cart),
                ask("a.test", "spiffe://x/y"),
                ask("a.test:80", cart)
            ]
        ),
        [0, 403, 0, 403, 403]
    );
    assert_eq!(lost(&read(yaml).1).len(), 2);
}

#[test]
fn cilium_allows_no_http_to_where_it_allows_only_pings_or_nothing_at_all() {
    let object = |spec: &str| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: f, namespace: shop}}\nspec:\n  endpointSelector: {{}}\n{spec}"
        )
    };
    let names =
        "  egress: [{toFQDNs: [{matchName: a.test}], toPorts: [{ports: [{port: '443'}]}]}, {toCIDR: [10.0.0.0/8]}]\n";
    let asked = [get("a.test", "/"), get("10.0.0.5", "/")];
    for (spec, expected) in [
        ("  egress: [{toFQDNs: [{matchName: a.test}], icmps: [{fields: [{type: 8}]}]}]\n".to_owned(), [403, 403]),
        ("  egress: [{toFQDNs: [{matchName: a.test}], authentication: {mode: required}}]\n".to_owned(), [403, 403]),
        ("  egress: [{toFQDNs: [{matchName: a.test}], authentication: {mode: disabled}}]\n".to_owned(), [0, 403]),
        (names.to_owned(), [0, 0]),
        (format!("{names}  egressDeny: [{{toCIDR: [10.0.0.5/32]}}]\n"), [0, 403]),
        (format!("{names}  egressDeny: [{{toCIDRSet: [{{cidr: 10.0.0.0/24, except: [10.0.0.5/32]}}]}}]\n"), [0, 403]),
        (format!("{names}  egressDeny: [{{toEntities: [world]}}]\n"), [403, 403]),
        (format!("{names}  egressDeny: [{{toPorts: [{{ports: [{{port: '443', protocol: TCP}}]}}]}}]\n"), [403, 403]),
        (format!("{names}  egressDeny: [{{toGroups: [{{aws: {{}}}}]}}]\n"), [403, 403]),
        (format!("{names}  egressDeny: {{}}\n"), [403, 403]),
        (format!("{names}  egressDeny: [{{toPorts: [{{ports: [{{port: '53', protocol: UDP}}]}}]}}]\n"), [0, 0]),
        (format!("{names}  egressDeny: [{{toEntities: [kube-apiserver]}}, {{toEndpoints: [{{}}]}}]\n"), [0, 0]),
        (format!("{names}  egressDeny: []\n"), [0, 0]),
    ] {
        assert_eq!(statuses(&object(&spec), &asked), expected, "{spec}");
    }
    // What one policy denies, another for the same Pods cannot allow.
    let other = format!("{}---\n{}", object(names), object("  egressDeny: [{toEntities: [all]}]\n"));
    assert_eq!(statuses(&other, &asked), [403, 403]);
}

#[test]
fn smokescreens_services_reach_what_they_list() {
    let yaml = "\
version: v1
services:
- {name: checkout, project: payments, action: enforce, allowed_domains: [api.stripe.com, '*.adyen.com']}
default: {name: default, project: security, action: enforce, allowed_domains: [api.stripe.com, example.org]}
global_allow_list: [telemetry.test]
";
    let ask = |host: &str, peer: &str| json!({"method": "CONNECT", "authority": format!("{host}:443"), "path": "", "peer": peer});
    assert_eq!(
        statuses(
            yaml,
            &[
                ask("x.adyen.com", "smokescreen-role:checkout"),
                ask("x.adyen.com", "spiffe://x/y"),
                ask("api.stripe.com", "spiffe://x/y"),
                ask("telemetry.test", "spiffe://x/y"),
                ask("example.org", "smokescreen-role:checkout"),
            ]
        ),
        [0, 403, 0, 0, 403]
    );
    let audit = yaml.replace("enforce", "report");
    assert!(yaml_text::block(&read(&audit).0, 0).contains("mode: Audit"));
}

#[test]
fn envoy_gateways_limits_count_the_requests_of_their_route() {
    let yaml = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: prod}
spec: {hostnames: [h.test], parentRefs: [{name: g}], rules: [{backendRefs: [{name: shop}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: admin, namespace: prod}
spec: {hostnames: [h.test], parentRefs: [{name: g}], rules: [{matches: [{path: {value: /admin}}], backendRefs: [{name: admin}]}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: limit, namespace: prod}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}]
  rateLimit:
    type: Local
    local: {rules: [{clientSelectors: [{methods: [{value: GET}], headers: [{name: x-u, type: Distinct}]}], limit: {requests: 1, unit: Minute}}]}
";
    let ask = |path: &str, user: &str| {
        let mut request = get("h.test", path);
        request["headers"] = json!([["x-u", user]]);
        request
    };
    assert_eq!(
        statuses(yaml, &[ask("/", "a"), ask("/x", "a"), ask("/", "b"), ask("/admin", "a"), get("h.test", "/")]),
        [0, 429, 0, 0, 0]
    );
    let by_address = yaml.replace("headers: [{name: x-u, type: Distinct}]", "sourceCIDR: {value: 10.0.0.0/8}");
    let (policy, report) = read(&by_address);
    assert!(policy.get("rateLimits").is_none() && !report.is_complete());
}

#[test]
fn a_limit_of_ratelimit_is_left_out_with_all_that_hangs_on_a_lost_condition() {
    for key in ["generic_key", "header_match", "source_cluster", "remote_address"] {
        let yaml = format!(
            "domain: d\ndescriptors:\n- key: {key}\n  value: v\n  rate_limit: {{unit: hour, requests_per_unit: 1}}\n  descriptors: [{{key: x-a, rate_limit: {{unit: hour, requests_per_unit: 1}}}}]\n"
        );
        let (policy, report) = read(&yaml);
        assert!(policy == Node::Map(Vec::new()) && !report.is_complete(), "{key}: {policy}");
    }
    let paths = "domain: d\ndescriptors:\n- {key: path, value: /api/*/action, rate_limit: {unit: hour, requests_per_unit: 1}}\n- {key: path, rate_limit: {unit: hour, requests_per_unit: 2}}\n- {key: path, value: /free, rate_limit: {unlimited: true}}\n";
    let (_, report) = read(paths);
    // The key alone excludes the values of an expression, which a policy cannot express.
    assert_eq!(lost(&report).len(), 1, "{:?}", lost(&report));
    assert_eq!(
        statuses(
            paths,
            &[
                get("a", "/api/x/action"),
                get("a", "/api/x/action"),
                get("a", "/free"),
                get("a", "/free"),
                get("a", "/free")
            ]
        ),
        [0, 429, 0, 0, 0]
    );
}

/// The status and location of redirects.
fn redirected(yaml: &str, requests: &[serde_json::Value]) -> Vec<String> {
    let (node, report) = read(yaml);
    assert!(report.is_complete(), "{:?}", lost(&report));
    let policy = Policy::from_node(&node).unwrap_or_else(|problems| panic!("{problems}"));
    let decide = |request: &serde_json::Value| {
        let request: WireRequest = serde_json::from_value(request.clone()).unwrap();
        let decision = serde_json::to_value(request.decide(&policy, &mut World::new(Timestamp(0), 0))).unwrap();
        match decision["status"].as_u64() {
            Some(status) => format!("{status} {}", decision["responseHeaders"][0][1].as_str().unwrap_or_default()),
            None => decision["route"].as_str().unwrap_or("-").to_owned(),
        }
    };
    requests.iter().map(decide).collect()
}

#[test]
fn redirects_lead_where_the_source_leads() {
    let istio = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec: {hosts: [h.test], gateways: [g], http: [{match: [{uri: {prefix: /old}}], redirect: {uri: /new, authority: n.test}}, {route: [{destination: {host: web}}]}]}\n";
    assert_eq!(
        redirected(istio, &[get("h.test", "/old/x?q=1"), get("h.test", "/")]),
        ["301 https://n.test/new?q=1", "web"]
    );
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec: {rules: [{matches: [{path: {value: /old}}], filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}, {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-a, value: b}]}}]}, {backendRefs: [{name: web}]}]}\n";
    assert_eq!(
        redirected(gateway, &[get("h.test", "/old/x"), get("h.test", "/")]),
        ["302 https://h.test/new/x", "web"]
    );
    let ingress = |annotation: &str, more: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: i, annotations: {{nginx.ingress.kubernetes.io/{annotation}}}}}\nspec: {{{more}rules: [{{host: h.test, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]}}\n"
        )
    };
    for (annotation, expected) in [
        ("permanent-redirect: 'https://n.test$request_uri'", "301 https://n.test/x"),
        ("temporal-redirect: https://n.test/y", "302 https://n.test/y"),
    ] {
        assert_eq!(redirected(&ingress(annotation, ""), &[get("h.test", "/x")]), [expected]);
    }
    let plain = |headers: serde_json::Value| json!({"method": "GET", "authority": "h.test", "path": "/x", "scheme": "http", "headers": headers});
    let tls = ingress("proxy-body-size: 1m", "tls: [{hosts: [h.test]}], ");
    assert_eq!(
        redirected(&tls, &[plain(json!([["x-forwarded-proto", "http"]])), get("h.test", "/x")]),
        ["308 https://h.test/x", "web"]
    );
    let root = ingress("app-root: /app", "");
    assert_eq!(redirected(&root, &[get("h.test", "/"), get("h.test", "/app")]), ["302 https://h.test/app", "web"]);
    let traefik = "apiVersion: traefik.io/v1alpha1\nkind: Middleware\nmetadata: {name: tls}\nspec: {redirectScheme: {scheme: https, permanent: true}}\n---\napiVersion: traefik.io/v1alpha1\nkind: IngressRoute\nmetadata: {name: a}\nspec: {entryPoints: [web], routes: [{kind: Rule, match: Host(`h.test`), middlewares: [{name: tls}], services: [{name: web, port: 80}]}]}\n";
    assert_eq!(redirected(traefik, &[plain(json!([]))]), ["301 https://h.test/x"]);
}
