//! The egress section in a real Envoy: the contract's cases in raw bytes, identities, TLS passthrough, the log.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use penstock_integration::contract::{Case, cases};
use penstock_integration::http::{self, ClientConnection, HttpRequest, HttpResponse, Protocol, client_hello};
use penstock_integration::{Body, Bootstrap, Envoy, Upstream, WasmFilter, workspace};
use serde_json::{Value, json};

const CHECKOUT: &str = "spiffe://cluster.local/ns/payments/sa/checkout";

/// An HTTP listener for connections that start with a PROXY line, which sets the destination address and port. The
/// caller is the filter state `test.peer`, set from a header that only this listener trusts.
fn http_listener(name: &str, filter: &WasmFilter) -> Value {
    let mut listener = tls_listener(name, filter);
    if let Some(chain) = listener.pointer_mut("/filter_chains/0").and_then(Value::as_object_mut) {
        chain.remove("transport_socket");
    }
    listener
}

/// The same listener with TLS.
fn tls_listener(name: &str, filter: &WasmFilter) -> Value {
    let peer = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config",
        "on_request_headers": [{
            "object_key": "test.peer", "factory_key": "envoy.string", "skip_if_empty": true,
            "format_string": {"text_format_source": {"inline_string": "%REQ(x-test-peer)%"}, "omit_empty_values": true},
        }],
    });
    let rules = "%FILTER_STATE(wasm.penstock.egress.outcome:PLAIN)% %FILTER_STATE(wasm.penstock.egress.reason:PLAIN)% \
                 %FILTER_STATE(wasm.penstock.egress.rule:PLAIN)%\n";
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "http2_protocol_options": {"allow_connect": true},
        "upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}],
        "access_log": [{"name": "file", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
            "log_format": {"text_format_source": {"inline_string": format!("ACCESS {rules}")}},
        }}],
        "http_filters": [
            {"name": "peer", "typed_config": peer},
            {"name": name, "typed_config": filter.typed_config()},
            {"name": "router", "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}},
        ],
        "route_config": {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"connect_matcher": {}}, "direct_response": {"status": 200}},
            {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}},
        ]}]},
    });
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "listener_filters": [{"name": "proxy", "typed_config":
            {"@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}}],
        "filter_chains": [{
            "filters": [{"name": "http", "typed_config": manager}],
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"tls_certificates": [{
                    "certificate_chain": {"filename": tls_file("gateway.crt")},
                    "private_key": {"filename": tls_file("gateway.key")},
                }]},
            }},
        }],
    })
}

fn tls_file(name: &str) -> String {
    workspace::root().join("integration/tests/tls").join(name).display().to_string()
}

/// An Envoy whose listeners with these names accept a PROXY line, and pass the bytes on to the TLS listeners at these
/// addresses.
fn tls_clients(gateways: &[(String, SocketAddr)]) -> Result<Envoy> {
    let mut bootstrap = Bootstrap::new()?;
    for (name, address) in gateways {
        let inner = json!({"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        }});
        bootstrap = bootstrap
            .any_cluster(json!({
                "name": name, "type": "STATIC", "connect_timeout": "5s",
                "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
                    {"socket_address": {"address": "127.0.0.1", "port_value": address.port()}}}}]}]},
                "transport_socket": {"name": "proxy", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
                    "config": {"version": "V1"},
                    "transport_socket": inner,
                }},
            }))
            .any_listener(json!({
                "name": name,
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                "filter_chains": [{"filters": [{"name": "tcp", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": "tls", "cluster": name,
                }}]}],
            }));
    }
    bootstrap.start()
}

/// The PROXY line of a connection to `destination`.
fn proxy_line(destination: &str, port: u64) -> String {
    format!("PROXY TCP4 192.0.2.1 {destination} 40000 {port}\r\n")
}

/// Sends one request on a connection to port 443, or to the port that it names.
fn ask(address: SocketAddr, protocol: Protocol, request: &HttpRequest, port: u64) -> Result<HttpResponse> {
    ClientConnection::open_after(protocol, address, proxy_line("192.0.2.2", port).as_bytes())?.request(request)
}

/// An Envoy with a listener `egress` and an upstream behind it.
fn envoy(module: &str, egress: &Value) -> Result<(Envoy, Upstream)> {
    let upstream = Upstream::echo()?;
    let policy = json!({"settings": {"filterState": true}, "egress": egress});
    let filter = WasmFilter::new(module, policy)?.named("egress");
    let bootstrap = Bootstrap::new()?.cluster("upstream", upstream.address());
    Ok((bootstrap.any_listener(http_listener("egress", &filter)).start()?, upstream))
}

/// Why a case cannot be sent by this test.
fn obstacle(case: &Case) -> Option<&'static str> {
    let policy = case.policy.to_string();
    if case.policy.pointer("/egress/verifySni").is_some() || case.request.get("sni").is_some() {
        return Some("the listener does not speak TLS");
    }
    (policy.contains("notBefore") || policy.contains("expires")).then_some("the clock is the machine's")
}

/// Why a case cannot be expressed in a version of HTTP.
fn impossible(case: &Case, protocol: Protocol) -> Option<&'static str> {
    let headers = case.request.get("headers").map(Value::to_string).unwrap_or_default();
    let field = |name: &str| case.request.get(name).and_then(Value::as_str).unwrap_or_default();
    match protocol {
        Protocol::Http1 if headers.contains("\"host\"") => Some("the Host header is the authority"),
        Protocol::Http1 if case.request.get("protocol").is_some() => Some("it has no :protocol"),
        Protocol::Http1 if field("path").starts_with("http:") => Some("an absolute target is the authority"),
        Protocol::Http1 if field("authority") != field("authority").trim() => {
            Some("space around a value is no part of it")
        }
        Protocol::Http2 if headers.contains("\"upgrade\"") => Some("it has no upgrade header"),
        Protocol::Http2 if headers.contains("\"evil.test\"") && headers.contains("\"host\"") => {
            Some("Envoy drops a Host header beside :authority")
        }
        _ => None,
    }
}

/// The case's request in a version of HTTP.
fn request(case: &Case, protocol: Protocol) -> HttpRequest {
    let field = |name: &str| case.request.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut request = HttpRequest::new(field("method"), field("authority"), field("path"));
    request.protocol = case.request.get("protocol").and_then(Value::as_str).map(|name| name.as_bytes().to_vec());
    // HTTP/2 requires a scheme.
    request.scheme = case.request.get("scheme").and_then(Value::as_str).unwrap_or("http").into();
    for pair in case.request.get("headers").and_then(Value::as_array).into_iter().flatten() {
        let part = |i: usize| pair.get(i).and_then(Value::as_str).unwrap_or_default();
        request = request.header(part(0), part(1));
        // Without this header, Envoy drops the other one.
        if part(0) == "upgrade" {
            request = request.header("connection", "upgrade");
        }
    }
    if protocol == Protocol::Http1 && request.method == b"CONNECT" {
        request.path.clone_from(&request.authority);
    }
    match case.request.get("peer").and_then(Value::as_str) {
        Some(peer) => request.header("x-test-peer", peer),
        None => request,
    }
}

#[test]
fn envoy_decides_the_contracts_cases_as_the_engine_does() -> Result<()> {
    let upstream = Upstream::echo()?;
    let mut bootstrap = Bootstrap::new()?.cluster("upstream", upstream.address());
    let mut listeners: BTreeMap<(String, bool), String> = BTreeMap::new();
    let mut runnable = Vec::new();
    let files = ["egress-cases.jsonl", "next-cases.jsonl", "field-cases.jsonl"];
    let all = files.into_iter().map(cases).collect::<Result<Vec<_>>>()?.concat();
    for case in all.into_iter().filter(|case| case.policy.get("egress").is_some()) {
        if let Some(reason) = obstacle(&case) {
            println!("not sent: {} ({reason})", case.name);
            continue;
        }
        let mut policy = case.policy.clone();
        if let Some(egress) = policy.pointer_mut("/egress").and_then(Value::as_object_mut) {
            egress.insert("identity".into(), json!({"filterState": "test.peer"}));
        }
        let next = format!("egress-{}", listeners.len());
        // The scheme of a case says whether its connection uses TLS.
        let has_tls =
            case.request.get("scheme").and_then(Value::as_str).is_some_and(|s| s.eq_ignore_ascii_case("https"));
        let key = (policy.to_string(), has_tls);
        if !listeners.contains_key(&key) {
            let filter = WasmFilter::new("egress-allowlist", &policy)?.named(&next);
            let listener = if has_tls { tls_listener(&next, &filter) } else { http_listener(&next, &filter) };
            bootstrap = bootstrap.any_listener(listener);
        }
        runnable.push((listeners.entry(key).or_insert(next).clone(), has_tls, case));
    }
    let mut envoy = bootstrap.start()?;
    let with_tls = listeners.iter().filter(|((_, has_tls), _)| *has_tls).map(|(_, name)| name);
    let gateways = with_tls.map(|name| Ok((name.clone(), envoy.address(name)?))).collect::<Result<Vec<_>>>()?;
    let clients = tls_clients(&gateways)?;
    let (mut decided, mut failed) = (0, Vec::new());
    for (listener, has_tls, case) in &runnable {
        for protocol in Protocol::ALL {
            let is_tunnel = case.request.get("method") == Some(&json!("CONNECT"));
            if let Some(reason) = impossible(case, protocol) {
                println!("not sent: {} over {protocol} ({reason})", case.name);
                continue;
            }
            let port = case.request.get("destinationPort").and_then(Value::as_u64).unwrap_or(443);
            let before = upstream.requests();
            let response = match has_tls {
                true => http::send(protocol, clients.address(listener)?, &request(case, protocol)),
                false => ask(envoy.address(listener)?, protocol, &request(case, protocol), port),
            };
            let forwarded = upstream.requests() > before;
            let expected = case.expect.get("status").and_then(Value::as_u64).unwrap_or(200);
            let found = response.as_ref().map(|response| u64::from(response.status));
            let is_ours = response.as_ref().is_ok_and(|response| response.header("x-penstock-decision-id").is_some());
            match found {
                Ok(200) if expected == 200 && (forwarded || is_tunnel) => decided += 1,
                Ok(found) if is_ours && found == expected && !forwarded => decided += 1,
                // Envoy's own parser refused the request first. The status and that nothing was forwarded must still be
                // as expected.
                Ok(400 | 403 | 404 | 426 | 501) | Err(_) if expected >= 400 && !is_ours && !forwarded => {
                    println!("refused by Envoy itself: {} over {protocol}: {found:?}", case.name);
                }
                found => failed.push(format!(
                    "{} over {protocol}: {found:?}, not {expected}; forwarded: {forwarded}; {:?}",
                    case.name,
                    response.as_ref().map(HttpResponse::text)
                )),
            }
        }
    }
    println!("{decided} requests were decided as the contract says");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(decided >= 140, "{decided}");
    envoy.check_healthy()
}

#[test]
fn a_host_header_beside_the_authority_is_not_forwarded() -> Result<()> {
    let (mut envoy, upstream) =
        envoy("egress-allowlist", &json!({"rules": [{"name": "r", "to": [{"host": "a.test"}]}]}))?;
    let two = HttpRequest::new("GET", "a.test", "/").header("host", "evil.test");
    let response = ask(envoy.address("egress")?, Protocol::Http2, &two, 443)?;
    let hosts = upstream.last().map(|received| received.values("host")).unwrap_or_default();
    assert!(response.status == 400 || hosts == ["a.test"], "{} {hosts:?}", response.status);
    let response = ask(envoy.address("egress")?, Protocol::Http1, &two, 443);
    assert!(!response.is_ok_and(|response| response.status == 200) && upstream.requests() <= 1);
    envoy.check_healthy()
}

#[test]
fn what_is_forwarded_is_the_canonical_path_byte_for_byte() -> Result<()> {
    let (mut envoy, upstream) = envoy(
        "suite",
        &json!({"rules": [
            {"name": "r", "to": [{"host": "api.test"}], "paths": [{"value": "/v1"}]},
            {"name": "any", "to": [{"host": "any.test"}]},
        ]}),
    )?;
    for protocol in Protocol::ALL {
        for (host, path, forwarded) in [
            ("api.test", "/v1/a/../b?x=/../", "/v1/b?x=/../"),
            ("api.test", "//v1/./%61;p=1/c", "/v1/a/c"),
            ("api.test", "/v1/a", "/v1/a"),
            ("any.test", "//v1/../a%2fb;x", "//v1/../a%2fb;x"),
        ] {
            let response = ask(envoy.address("egress")?, protocol, &HttpRequest::new("GET", host, path), 443)?;
            assert_eq!((response.status, upstream.last().map(|r| r.path())), (200, Some(forwarded.into())), "{path}");
        }
        let response = ask(envoy.address("egress")?, protocol, &HttpRequest::new("GET", "api.test", "/v1/../v2"), 443)?;
        assert_eq!(response.status, 403);
    }
    envoy.check_healthy()
}

#[test]
fn a_refusal_is_json_or_a_grpc_status_a_log_line_and_filter_state() -> Result<()> {
    let (mut envoy, upstream) = envoy(
        "egress-allowlist",
        &json!({"rules": [
            {"name": "stripe", "owner": "payments", "reason": "cards", "to": [{"host": "a.test"}], "methods": ["GET"]},
        ]}),
    )?;
    let address = envoy.address("egress")?;
    let refused = ask(address, Protocol::Http1, &HttpRequest::new("POST", "A.test", "/x?secret=1"), 443)?;
    assert_eq!((refused.status, refused.header("content-type")), (403, Some("application/json".into())));
    assert_eq!(
        refused.json(),
        json!({"error": "egress denied", "reason": "methodNotAllowed", "host": "a.test", "rule": "stripe"})
    );
    let id = refused.header("x-penstock-decision-id").context("no id")?;
    let grpc = HttpRequest::new("POST", "evil.test", "/s/m").header("content-type", "application/grpc");
    let answer = ask(address, Protocol::Http2, &grpc, 443)?;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("7".into())));
    assert_eq!(ask(address, Protocol::Http1, &HttpRequest::new("GET", "a.test", "/"), 443)?.status, 200);
    assert_eq!(upstream.requests(), 1);
    // Envoy flushes access logs every ten seconds.
    let mut log = envoy.log()?;
    for _ in 0..600 {
        if log.contains("ACCESS - - stripe") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        log = envoy.log()?;
    }
    let line = format!(
        "{{\"egress\":\"deny\",\"why\":\"methodNotAllowed\",\"rule\":\"stripe\",\"owner\":\"payments\",\"reason\":\"cards\",\
         \"caller\":null,\"host\":\"a.test\",\"method\":\"POST\",\"path\":\"/x\",\"id\":\"{id}\",\"port\":80}}"
    );
    assert!(log.contains(&line), "{line} in {log}");
    assert!(!log.contains("secret"), "{log}");
    assert!(log.contains("ACCESS deny methodNotAllowed stripe"), "{log}");
    assert!(log.contains("ACCESS deny hostNotAllowed -"), "{log}");
    assert!(log.contains("ACCESS - - stripe"), "{log}");
    envoy.check_healthy()
}

#[test]
fn audit_forwards_and_reports() -> Result<()> {
    let (mut envoy, upstream) = envoy("egress-allowlist", &json!({"mode": "Audit", "rules": []}))?;
    let address = envoy.address("egress")?;
    for protocol in Protocol::ALL {
        assert_eq!(ask(address, protocol, &HttpRequest::new("GET", "new.test", "/"), 443)?.status, 200);
        assert_eq!(ask(address, protocol, &HttpRequest::new("GET", "127.1", "/"), 443)?.status, 400);
    }
    assert_eq!(upstream.requests(), 2);
    assert!(envoy.log()?.contains("\"egress\":\"audit\",\"why\":\"hostNotAllowed\""));
    envoy.check_healthy()
}

#[test]
fn validity_windows_use_the_system_clock() -> Result<()> {
    let (mut envoy, _upstream) = envoy(
        "egress-allowlist",
        &json!({"rules": [
            {"name": "past", "to": [{"host": "past.test"}], "expires": "2020-01-01T00:00:00Z"},
            {"name": "now", "to": [{"host": "now.test"}], "notBefore": "2020-01-01T00:00:00Z", "expires": "2500-01-01T00:00:00Z"},
            {"name": "future", "to": [{"host": "future.test"}], "notBefore": "2500-01-01T00:00:00Z"},
        ]}),
    )?;
    for (host, status, reason) in [
        ("past.test", 403, json!("ruleExpired")),
        ("now.test", 200, json!(null)),
        ("future.test", 403, json!("ruleNotYetValid")),
    ] {
        let response = ask(envoy.address("egress")?, Protocol::Http1, &HttpRequest::new("GET", host, "/"), 443)?;
        assert_eq!(response.status, status, "{host}");
        assert_eq!(response.json().get("reason").cloned().unwrap_or_default(), reason, "{host}");
    }
    envoy.check_healthy()
}

#[test]
fn a_sidecars_own_workload_is_the_caller() -> Result<()> {
    // Envoy does not show the node's metadata to a dynamic module, so the native body refuses such a policy when it
    // loads.
    if Body::of_environment() == Body::Native {
        return Ok(());
    }
    for (account, status) in [("checkout", 200), ("web", 403)] {
        let upstream = Upstream::echo()?;
        let policy = json!({"egress": {"identity": {"workload": {"trustDomain": "cluster.local"}}, "rules": [
            {"name": "r", "to": [{"host": "a.test"}], "from": [CHECKOUT]},
        ]}});
        let filter = WasmFilter::new("egress-allowlist", policy)?.named("egress");
        let metadata = json!({"NAMESPACE": "payments", "SERVICE_ACCOUNT": account});
        let mut envoy = Bootstrap::new()?
            .field("node", json!({"id": "sidecar", "cluster": "c", "metadata": metadata}))
            .cluster("upstream", upstream.address())
            .any_listener(http_listener("egress", &filter))
            .start()?;
        let response = ask(envoy.address("egress")?, Protocol::Http1, &HttpRequest::new("GET", "a.test", "/"), 443)?;
        assert_eq!(response.status, status, "{account}: {}", response.text());
        envoy.check_healthy()?;
    }
    Ok(())
}

/// An RFC 3339 date, this many days from now.
fn in_days(days: u64) -> Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    // Howard Hinnant's `civil_from_days`, for dates after 1970.
    let (day, second) = (now / 86_400 + days, now % 86_400);
    let z = day + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (d, m) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let y = yoe + era * 400 + u64::from(m <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    Ok(format!("{y:04}-{m:02}-{d:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

#[test]
fn rules_and_reasons_are_counted_and_expiry_is_announced() -> Result<()> {
    let (mut envoy, _upstream) = envoy(
        "egress-allowlist",
        &json!({"rules": [
            {"name": "soon", "owner": "web", "to": [{"host": "a.test"}], "methods": ["GET"], "expires": in_days(5)?},
            {"name": "later", "to": [{"host": "b.test"}], "expires": in_days(50)?},
        ]}),
    )?;
    let address = envoy.address("egress")?;
    for (method, host) in
        [("GET", "a.test"), ("GET", "a.test"), ("POST", "a.test"), ("GET", "c.test"), ("GET", "127.1")]
    {
        ask(address, Protocol::Http1, &HttpRequest::new(method, host, "/"), 443)?;
    }
    let rule = |outcome: &str| format!("requests_total.section.egress.rule.soon.outcome.{outcome}");
    let reason = |reason: &str| format!("egress_reasons_total.reason.{reason}.outcome.denied");
    let expected = [
        (rule("allowed"), 2),
        (rule("denied"), 1),
        (reason("methodNotAllowed"), 1),
        (reason("hostNotAllowed"), 1),
        (reason("hostIsAmbiguousNumber"), 1),
    ];
    let mut found = Vec::new();
    for _ in 0..600 {
        found = envoy.admin().stats("penstock.")?;
        let has =
            |name: &str, count: u64| found.iter().any(|(n, c)| n.ends_with(&format!("penstock.{name}")) && *c == count);
        let is_expiry = |name: &str| name.contains(".egress_next_expiry_timestamp_seconds.plugin.");
        if expected.iter().all(|(name, count)| has(name, *count)) {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
            let ends: Vec<u64> = found.iter().filter(|(name, _)| is_expiry(name)).map(|(_, end)| *end).collect();
            let days = ends.iter().map(|end| end.saturating_sub(now) / 86_400).collect::<Vec<_>>();
            assert_eq!(days, [4], "{found:?}");
            // Logged once, although each worker and the main thread loads the policy.
            assert_eq!(envoy.log()?.matches("1 egress rule ends within 14 days: soon (owner: web) in 4 d").count(), 1);
            assert!(
                !found.iter().any(|(name, _)| name.contains(".later.")),
                "what never counted is not there: {found:?}"
            );
            return envoy.check_healthy();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("{found:?}")
}

/// Sends `bytes` on a connection; returns whether the upstream responds. `None`: the connection was closed.
fn tunnel(address: SocketAddr, preamble: &str, bytes: &[u8]) -> Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(preamble.as_bytes())?;
    stream.write_all(bytes)?;
    let mut answer = [0; 4];
    Ok(stream.read(&mut answer).is_ok_and(|read| read > 0))
}

/// A server that counts connections and responds to the first bytes of each with four bytes.
fn counting_server() -> Result<(SocketAddr, std::sync::Arc<std::sync::atomic::AtomicUsize>)> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&count);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut first = [0; 1024];
                // The proxy may close the connection.
                let _ = stream.read(&mut first).and_then(|_| stream.write_all(b"pong"));
            });
        }
    });
    Ok((address, count))
}

/// A filter chain of `tls_inspector`, the module as a network filter, and `tcp_proxy`.
fn passthrough_listener(name: &str, module: &str, policy: Value) -> Result<Value> {
    let filter = WasmFilter::new(module, policy)?.named(name);
    Ok(json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "listener_filters": [
            {"name": "proxy", "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}},
            {"name": "tls", "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}},
        ],
        "listener_filters_timeout": "2s",
        "filter_chains": [{"filters": [
            {"name": "egress", "typed_config": filter.network_config()},
            {"name": "tcp", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": name, "cluster": "upstream",
            }},
        ]}],
    }))
}

#[test]
fn a_refused_connection_never_reaches_the_upstream() -> Result<()> {
    let rules = json!([
        {"name": "named", "to": [{"host": "*.example.com", "ports": [443]}]},
        {"name": "ranged", "to": [{"cidr": "203.0.113.0/24", "ports": [443]}]},
    ]);
    for module in ["egress-allowlist", "suite"] {
        let (server, connections) = counting_server()?;
        let mut envoy = Bootstrap::new()?
            .cluster("upstream", server)
            .any_listener(passthrough_listener("enforce", module, json!({"egress": {"rules": rules}}))?)
            .any_listener(passthrough_listener("audit", module, json!({"egress": {"mode": "Audit", "rules": rules}}))?)
            .start()?;
        let mut open = 0;
        for (listener, name, destination, port, expected) in [
            ("enforce", Some("api.example.com"), "192.0.2.2", 443, true),
            ("enforce", Some("API.example.com"), "192.0.2.2", 443, true),
            ("enforce", Some("api.example.com"), "192.0.2.2", 8443, false),
            ("enforce", Some("example.com"), "192.0.2.2", 443, false),
            ("enforce", Some("evil.test"), "192.0.2.2", 443, false),
            ("enforce", Some("203.0.113.7"), "192.0.2.2", 443, false),
            ("enforce", None, "192.0.2.2", 443, false),
            ("enforce", None, "203.0.113.7", 443, true),
            ("enforce", None, "203.0.113.7", 80, false),
            ("audit", Some("evil.test"), "192.0.2.2", 443, true),
            ("audit", None, "192.0.2.2", 443, true),
        ] {
            let answered = tunnel(envoy.address(listener)?, &proxy_line(destination, port), &client_hello(name))?;
            assert_eq!(answered, expected, "{module} {listener}: {name:?} {destination}:{port}");
            open += usize::from(expected);
            std::thread::sleep(Duration::from_millis(50));
            let opened = connections.load(std::sync::atomic::Ordering::SeqCst);
            assert_eq!(opened, open, "{module} {listener}: {name:?} {destination}:{port}: upstream connections");
        }
        // Bytes that are not TLS have no server name.
        assert!(!tunnel(envoy.address("enforce")?, &proxy_line("192.0.2.2", 443), b"GET / HTTP/1.1\r\n\r\n")?);
        assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), open);
        assert!(envoy.log()?.contains("\"egress\":\"deny\",\"why\":\"hostNotAllowed\""));
        envoy.check_healthy()?;
    }
    Ok(())
}
