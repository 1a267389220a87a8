//! The port of an authority that has none, with a dynamic forward proxy behind the module: the request must go to the
//! port that the rule lists.

use anyhow::{Context, Result};
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Upstream, WasmFilter};
use serde_json::{Value, json};

fn cache() -> Value {
    json!({"name": "outside", "dns_lookup_family": "V4_ONLY"})
}

/// A listener without TLS: the module, and Envoy's dynamic forward proxy to `cluster`. Each response says where the
/// request went.
fn listener(name: &str, cluster: &str, filter: &WasmFilter) -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "http_filters": [
            {"name": "egress", "typed_config": filter.typed_config()},
            {"name": "forward", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
                "dns_cache_config": cache(),
            }},
            {"name": "router", "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}},
        ],
        "route_config": {"name": "all", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{
            "match": {"prefix": "/"}, "route": {"cluster": cluster},
            "response_headers_to_add": [{"header": {"key": "x-went-to", "value": "%UPSTREAM_HOST%"}}],
        }]}]},
    });
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    })
}

fn cluster(name: &str, has_tls: bool) -> Value {
    let mut cluster = json!({
        "name": name, "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "1s",
        "cluster_type": {"name": "envoy.clusters.dynamic_forward_proxy", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
            "dns_cache_config": cache(),
        }},
    });
    if let Some(cluster) = cluster.as_object_mut().filter(|_| has_tls) {
        let tls = json!({"name": "tls", "typed_config":
            {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}});
        cluster.insert("transport_socket".to_owned(), tls);
    }
    cluster
}

#[test]
fn a_request_goes_to_the_port_that_its_rule_lists() -> Result<()> {
    let upstream = Upstream::echo()?;
    let other = upstream.address().port();
    let policy = |default: Option<u16>, ports: &[u16]| {
        let mut egress = json!({
            "deny": [{"host": "localhost", "ports": [9]}, {"host": "denied.localhost", "ports": [80]}],
            "rules": [
                {"name": "listed", "to": [{"host": "127.0.0.1.localhost", "ports": ports}, {"cidr": "127.0.0.1/32", "ports": ports}]},
                {"name": "denied", "to": [{"host": "denied.localhost"}]},
            ],
        });
        if let Some(port) = default {
            egress["defaultPort"] = json!(port);
        }
        json!({"egress": egress})
    };
    // A listener, its cluster, and its policy.
    let gateways = [
        ("plain", "plain", policy(None, &[80])),
        ("plain-443", "plain", policy(None, &[443])),
        ("tls", "tls", policy(Some(443), &[443])),
        ("tls-80", "tls", policy(Some(443), &[80])),
        ("explicit", "plain", policy(None, &[other])),
    ];
    let mut bootstrap = Bootstrap::new()?.any_cluster(cluster("plain", false)).any_cluster(cluster("tls", true));
    for (name, cluster, policy) in &gateways {
        let filter = WasmFilter::new("egress-allowlist", policy)?.named(name);
        bootstrap = bootstrap.any_listener(listener(name, cluster, &filter));
    }
    let mut envoy = bootstrap.start()?;
    for protocol in Protocol::ALL {
        for (name, authority, scheme, expected) in [
            ("plain", "127.0.0.1".to_owned(), "http", Some(80)),
            // A scheme that the client claims does not change what its connection is.
            ("plain", "127.0.0.1".to_owned(), "https", Some(80)),
            ("plain", "127.0.0.1:443".to_owned(), "http", None),
            ("plain", "denied.localhost".to_owned(), "http", None),
            ("plain-443", "127.0.0.1".to_owned(), "http", None),
            ("plain-443", "127.0.0.1".to_owned(), "https", None),
            ("tls", "127.0.0.1".to_owned(), "http", Some(443)),
            ("tls-80", "127.0.0.1".to_owned(), "http", None),
            ("explicit", format!("127.0.0.1:{other}"), "http", Some(other)),
            ("explicit", "127.0.0.1".to_owned(), "http", None),
        ] {
            let mut request = HttpRequest::new("GET", &authority, "/");
            request.scheme = scheme.into();
            let address = envoy.address(name)?;
            let response = http::send(protocol, address, &request)?;
            let case = format!("{protocol} {name} {authority} {scheme}: {} {}", response.status, response.text());
            match expected {
                None => assert_eq!(response.json().get("error"), Some(&json!("egress denied")), "{case}"),
                Some(port) => {
                    let went_to = response.header("x-went-to").with_context(|| case.clone())?;
                    assert_eq!(went_to, format!("127.0.0.1:{port}"), "{case}");
                }
            }
            let listener = format!("127.0.0.1:{}", address.port());
            assert_ne!(response.header("x-went-to"), Some(listener), "never to the gateway itself: {case}");
        }
    }
    assert!(upstream.requests() >= 2);
    envoy.check_healthy()
}
