//! `istio/waypoint`: requests in HBONE (HTTP/2 CONNECT over mutual TLS) to a waypoint, as ztunnel sends them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use penstock_integration::control_plane::{Access, Pod, Role, eventually};
use penstock_integration::http::HttpRequest;
use penstock_integration::{Bootstrap, Envoy};
use serde_json::{Value, json};

use crate::mesh::{Mesh, ask, is_from, upstream};

/// The address of the waypoint's Pod, and the HBONE port.
const WAYPOINT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 97, 11)), 15008);
/// The Service's address, in the range that the API server does not assign automatically. Nothing listens there.
const CHECKOUT: &str = "127.0.96.5";

/// An Envoy that accepts TCP connections on a port and sends them through the waypoint to the Service, with the
/// certificate of `identity`.
fn tunnel(identity: &Path) -> Result<Envoy> {
    let file = |name: &str| json!({"filename": identity.join(name)});
    let proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tunnel", "cluster": "waypoint", "tunneling_config": {"hostname": format!("{CHECKOUT}:80")},
    });
    let listener = json!({
        "name": "ingress",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "tunnel", "typed_config": proxy}]}],
    });
    let endpoint = json!({"socket_address": {"address": WAYPOINT.ip(), "port_value": WAYPOINT.port()}});
    let cluster = json!({
        "name": "waypoint", "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "waypoint", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": endpoint}}]}],
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {"allow_connect": true}},
        }},
        "transport_socket": {"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [{"certificate_chain": file("cert-chain.pem"), "private_key": file("key.pem")}],
                "validation_context": {
                    "trusted_ca": file("root-cert.pem"),
                    "match_typed_subject_alt_names": [{
                        "san_type": "URI", "matcher": {"exact": "spiffe://cluster.local/ns/shop/sa/waypoint"},
                    }],
                },
            },
        }},
    });
    Bootstrap::new()?.any_listener(listener).any_cluster(cluster).start()
}

/// Filters of the waypoint that only Istio's build of Envoy has: they give the peer's workload to telemetry.
fn without_istios_own_filters(name: &str) -> Value {
    json!({
        "applyTo": "HTTP_FILTER",
        "match": {"context": "ANY", "listener": {"filterChain": {"filter":
            {"name": "envoy.filters.network.http_connection_manager", "subFilter": {"name": name}}}}},
        "patch": {"operation": "REMOVE"},
    })
}

#[test]
#[ignore = "needs `make control-planes`; `make e2e` runs it"]
fn a_waypoint_runs_what_is_attached_to_it_and_what_is_attached_to_a_service() -> Result<()> {
    let mesh = Mesh::start(&Access::Open)?;
    let checkout = upstream("checkout")?;
    let labels = json!({"gateway.networking.k8s.io/gateway-name": "waypoint"});
    for object in [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata":
                {"name": "checkout", "namespace": "shop", "labels": {"istio.io/use-waypoint": "waypoint"}},
            "spec": {"clusterIP": CHECKOUT, "selector": {"app": "checkout"}, "ports": [{"name": "http", "port": 80}]},
        }),
        // A WorkloadEntry in place of endpoints, which must not be on loopback.
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {"name": "checkout", "namespace": "shop"},
            "spec": {
                "address": "127.0.0.1", "labels": {"app": "checkout"}, "ports": {"http": checkout.address().port()},
            },
        }),
        // The configuration that istiod would derive from the Gateway, with the values of the chart that it injects
        // from.
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "waypoint", "namespace": "shop", "labels": labels},
            "spec": {
                "clusterIP": "127.0.96.6", "selector": labels,
                "ports": [{"name": "mesh", "port": 15008, "appProtocol": "hbone"}],
            },
        }),
        json!({
            "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
            "metadata": {"name": "stock-envoy", "namespace": "shop"},
            "spec": {
                "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}],
                "configPatches": (["waypoint_downstream_peer_metadata", "waypoint_upstream_peer_metadata"]
                    .map(without_istios_own_filters)),
            },
        }),
    ] {
        mesh.cluster.apply(&object.to_string())?;
    }
    mesh.cluster.apply(&mesh.kustomization("waypoint", &[])?)?;
    let address = json!({"addresses": [{"type": "Hostname", "value": "waypoint.shop.svc.cluster.local"}]});
    mesh.cluster.set_status("gateway.gateway.networking.k8s.io", "shop", "waypoint", &address)?;

    let labels = [("gateway.networking.k8s.io/gateway-name", "waypoint")];
    let std::net::IpAddr::V4(place) = WAYPOINT.ip() else { return Ok(()) };
    let mut proxy = Pod::new(Role::Waypoint, "shop", "waypoint-1", &labels)
        .account("waypoint")
        .address(place)
        // For later versions, istiod stores the caller in a kind of filter state that only Istio's build of Envoy has.
        .variable("ISTIO_META_ISTIO_VERSION", "1.29.1")
        .start(&mesh.cluster, &mesh.istio)?;
    proxy.wait_for_listener(WAYPOINT.port())?;

    // A workload that provides a certificate; its own proxy is not used.
    let idle = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "default", "namespace": "shop"},
        "spec": {"egress": [{"hosts": ["~/*"]}]},
    });
    mesh.cluster.apply(&idle.to_string())?;
    let certificates = tempfile::tempdir()?;
    let _client = Pod::new(Role::Sidecar, "shop", "client", &[("app", "client")])
        .account("client")
        .address([127, 0, 97, 12].into())
        .variable("OUTPUT_CERTS", certificates.path().display().to_string())
        .start(&mesh.cluster, &mesh.istio)?;
    eventually("a certificate", || std::fs::read(certificates.path().join("root-cert.pem")).context("not there"))?;
    let tunnel = tunnel(certificates.path())?;
    let port = tunnel.ingress()?.port();
    let tenant = |name: &str| HttpRequest::get("/").at("checkout.shop").header("x-tenant", name);
    let expect = |what: &str, name: &str, status: u16| {
        eventually(what, || {
            let response = ask(port, &tenant(name))?;
            ensure!(response.status == status, "{response:?}");
            Ok(response)
        })
    };
    let first = expect("an answer", "patient", 200)?;
    ensure!(is_from("checkout")(&first), "{first:?}");

    eprintln!("- the TrafficExtension on the Service: 50 a minute");
    let passed = (0..200).take_while(|_| ask(port, &tenant("patient")).is_ok_and(|it| it.status == 200)).count();
    ensure!((40..100).contains(&passed), "{passed} passed");
    ensure!(ask(port, &tenant("other"))?.status == 429, "it is for all together");

    eprintln!("- the WasmPlugin on the waypoint: 200 a minute and tenant");
    mesh.cluster.kubectl(["delete", "trafficextension", "penstock-checkout", "--namespace=shop"])?;
    eventually("an end of the first limit", || {
        // The limit passes one request every 1.2 seconds.
        ensure!((0..4).all(|_| ask(port, &tenant("nobody")).is_ok_and(|it| it.status == 200)));
        Ok(())
    })?;
    let passed = (0..600).take_while(|_| ask(port, &tenant("greedy")).is_ok_and(|it| it.status == 200)).count();
    ensure!((150..500).contains(&passed), "{passed} passed");
    ensure!(ask(port, &tenant("modest"))?.status == 200, "one tenant's limit is another's");

    eprintln!("- an allowlist by the caller, whom the tunnel's certificate names");
    let allow = |account: &str| {
        let policy = json!({"egress": {"identity": {"filterState": "io.istio.peer_principal"}, "rules": [{
            "name": "checkout", "from": [format!("spiffe://cluster.local/ns/shop/sa/{account}")],
            "to": [{"host": "checkout.shop"}],
        }]}});
        let plugin = json!({
            "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
            "metadata": {"name": "callers", "namespace": "shop"},
            "spec": {
                "targetRefs": [{"group": "", "kind": "Service", "name": "checkout"}],
                "url": format!("oci://{}/penstock/egress-allowlist:0.1.0", mesh.registry.address()),
                "failStrategy": "FAIL_RELOAD", "pluginConfig": policy,
            },
        });
        mesh.cluster.apply(&plugin.to_string())
    };
    allow("somebody-else")?;
    let refused = expect("a refusal", "modest", 403)?;
    ensure!(refused.json().get("reason") == Some(&json!("callerNotAllowed")), "{refused:?}");
    allow("client")?;
    expect("an answer", "modest", 200)?;
    mesh.cluster.kubectl(["delete", "wasmplugin", "callers", "--namespace=shop"])?;

    eprintln!("- a limit by the caller, whom the tunnel's certificate names");
    let by_peer = |name: &str, settings: Value| {
        let plugin = json!({
            "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "targetRefs": [{"group": "", "kind": "Service", "name": "checkout"}],
                "url": format!("oci://{}/penstock/rate-limit:0.1.0", mesh.registry.address()),
                "failStrategy": "FAIL_RELOAD",
                "pluginConfig": {"settings": settings, "rateLimits": [{
                    "name": name, "key": [{"peer": {}}], "onMissingKey": "Deny", "limit": {"requests": 5, "per": "1h"},
                    "response": {"status": 420},
                }]},
            },
        });
        mesh.cluster.apply(&plugin.to_string())
    };
    // The waypoint's own connection ends in the tunnel, so it has no certificate.
    by_peer("by-certificate", json!({}))?;
    expect("a refusal for want of a key", "modest", 420)?;
    mesh.cluster.kubectl(["delete", "wasmplugin", "by-certificate", "--namespace=shop"])?;
    expect("an answer again", "modest", 200)?;
    by_peer("by-principal", json!({"identity": {"filterState": "io.istio.peer_principal"}}))?;
    eventually("a limit of five", || {
        let statuses = (0..8).map(|_| Ok(ask(port, &tenant("modest"))?.status)).collect::<Result<Vec<_>>>()?;
        ensure!(statuses.ends_with(&[420]), "{statuses:?}");
        eprintln!("  {statuses:?}");
        Ok(())
    })?;
    Ok(())
}
