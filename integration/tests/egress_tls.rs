//! `verifySni` behind a listener that terminates TLS. The client is another Envoy, which opens connections with the
//! given server names.

use anyhow::Result;
use penstock_integration::http::{self, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Listener, Route, Upstream, WasmFilter, workspace};
use serde_json::{Value, json};

/// The listener with the module: TLS, HTTP/1.1 and HTTP/2.
fn gateway(filter: &WasmFilter) -> Value {
    let file = |name: &str| workspace::root().join("integration/tests/tls").join(name).display().to_string();
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "http_filters": [
            {"name": "egress", "typed_config": filter.typed_config()},
            {"name": "router", "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}},
        ],
        "route_config": {"name": "all", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}},
        ]}]},
    });
    json!({
        "name": "gateway",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        // Filters only see the server name through this listener filter.
        "listener_filters": [{"name": "tls", "typed_config":
            {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}],
        "filter_chains": [{
            "filters": [{"name": "http", "typed_config": manager}],
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_certificates": [{
                        "certificate_chain": {"filename": file("gateway.crt")}, "private_key": {"filename": file("gateway.key")},
                    }],
                },
            }},
        }],
    })
}

/// A cluster that connects to `port` with TLS and the server name `sni`, or without a server name.
fn client(name: &str, port: u16, sni: &str, protocol: Protocol) -> Value {
    let options = match protocol {
        Protocol::Http1 => json!({"http_protocol_options": {}}),
        Protocol::Http2 => json!({"http2_protocol_options": {}}),
    };
    let alpn = if protocol == Protocol::Http2 { "h2" } else { "http/1.1" };
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
            {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": options,
        }},
        "transport_socket": {"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": sni,
            "common_tls_context": {"alpn_protocols": [alpn]},
        }},
    })
}

#[test]
fn a_request_for_another_name_than_the_server_name_gets_421() -> Result<()> {
    let upstream = Upstream::echo()?;
    let policy = json!({"egress": {"verifySni": true, "rules": [
        {"name": "r", "to": [{"host": "a.test"}, {"host": "b.test"}, {"cidr": "192.0.2.0/24"}]},
    ]}});
    let filter = WasmFilter::new("egress-allowlist", policy)?.named("egress");
    let mut gateway =
        Bootstrap::new()?.cluster("upstream", upstream.address()).any_listener(gateway(&filter)).start()?;
    let port = gateway.address("gateway")?.port();
    for protocol in Protocol::ALL {
        let mut sidecar = Bootstrap::new()?;
        for (name, sni) in [("a", "a.test"), ("upper", "A.Test"), ("none", "")] {
            sidecar = sidecar.any_cluster(client(name, port, sni, protocol));
        }
        let routes = ["a", "upper", "none"].map(|name| Route::header("x-connection", name).to(name));
        let listener = routes.into_iter().fold(Listener::new("sidecar"), Listener::route);
        let sidecar = sidecar.listener(listener).start()?;
        for (connection, authority, status) in [
            ("a", "a.test", 200),
            ("a", "A.TEST.", 200),
            ("a", "a.test:443", 200),
            ("upper", "a.test", 200),
            // The host is listed, but the connection was opened for another name.
            ("a", "b.test", 421),
            ("none", "a.test", 421),
            // An IP address is never a server name.
            ("a", "192.0.2.7", 421),
            // The host is not listed, which is checked first.
            ("a", "evil.test", 403),
        ] {
            let before = upstream.requests();
            let request = HttpRequest::new("GET", authority, "/").header("x-connection", connection);
            let response = http::send(protocol, sidecar.address("sidecar")?, &request)?;
            let case = format!("{protocol} {connection} {authority}: {}", response.text());
            assert_eq!((response.status, upstream.requests() - before), (status, usize::from(status == 200)), "{case}");
            if status == 421 {
                assert_eq!(response.json().get("reason"), Some(&json!("sniMismatch")), "{case}");
            }
        }
    }
    gateway.check_healthy()
}
