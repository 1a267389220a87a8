//! The headers that Envoy joins or drops before a filter sees a request, measured with a real Envoy and compared with
//! the list that `replay`, `explain` and `test` use. `PENSTOCK_WRITE=1` writes the list and its page.

use std::fs;

use anyhow::{Result, ensure};
use penstock_integration::http::{ClientConnection, Field, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Envoy, Listener, Route, workspace};
use penstock_policy::wire::as_received;
use serde_json::json;

/// The headers of the HTTP registries, of proxies, and of Envoy itself. Hop-by-hop headers have their own rules.
const CANDIDATES: &str = "a-im accept accept-charset accept-datetime accept-encoding accept-language accept-patch \
    accept-post accept-ranges access-control-allow-origin access-control-request-headers \
    access-control-request-local-network access-control-request-method access-control-request-private-network age allow \
    alt-used authorization baggage cache-control cdn-loop client-cert content-disposition content-encoding \
    content-language content-location content-md5 content-range content-security-policy content-type cookie date \
    device-memory dnt dpop early-data etag expect expires forwarded from front-end-https grpc-accept-encoding \
    grpc-encoding grpc-message grpc-status grpc-timeout http2-settings idempotency-key if-match if-modified-since \
    if-none-match if-range if-unmodified-since last-modified link location max-forwards origin pragma prefer priority \
    proxy-authenticate proxy-authorization proxy-status range referer referrer-policy retry-after save-data sec-ch-ua \
    sec-fetch-mode sec-fetch-site sec-websocket-extensions sec-websocket-key sec-websocket-protocol \
    sec-websocket-version server server-timing set-cookie soapaction strict-transport-security tk traceparent \
    tracestate trailer upgrade-insecure-requests user-agent vary via warning www-authenticate x-amzn-trace-id x-api-key \
    x-b3-flags x-b3-sampled x-b3-spanid x-b3-traceid x-client-trace-id x-cluster-client-ip x-correlation-id x-csrf-token \
    x-datadog-trace-id x-device-id x-envoy-attempt-count x-envoy-decorator-operation x-envoy-degraded \
    x-envoy-downstream-service-cluster x-envoy-downstream-service-node x-envoy-expected-rq-timeout-ms \
    x-envoy-external-address x-envoy-force-trace x-envoy-hedge-on-per-try-timeout x-envoy-immediate-health-check-fail \
    x-envoy-internal x-envoy-ip-tags x-envoy-is-timeout-retry x-envoy-max-retries x-envoy-original-dst-host \
    x-envoy-original-host x-envoy-original-method x-envoy-original-path x-envoy-original-url x-envoy-overloaded \
    x-envoy-peer-metadata x-envoy-peer-metadata-id x-envoy-ratelimited x-envoy-retriable-header-names \
    x-envoy-retriable-status-codes x-envoy-retry-grpc-on x-envoy-retry-on x-envoy-upstream-alt-stat-name \
    x-envoy-upstream-canary x-envoy-upstream-healthchecked-cluster x-envoy-upstream-rq-per-try-timeout-ms \
    x-envoy-upstream-rq-timeout-alt-response x-envoy-upstream-rq-timeout-ms x-envoy-upstream-service-time \
    x-envoy-upstream-stream-duration-ms x-forwarded-client-cert x-forwarded-for x-forwarded-host x-forwarded-port \
    x-forwarded-prefix x-forwarded-proto x-forwarded-scheme x-forwarded-server x-http-method x-http-method-override \
    x-method-override x-original-forwarded-for x-original-host x-original-method x-original-uri x-original-url \
    x-ot-span-context x-penstock-route x-powered-by x-real-ip x-request-id x-request-start x-requested-with x-rewrite-url \
    x-user-group x-user-id x-version";

/// A filter that responds with the headers that it received, one a line.
const ECHO: &str = "function envoy_on_request(request)
  local lines = {}
  for name, value in pairs(request:headers()) do table.insert(lines, name .. ': ' .. value) end
  request:respond({[':status'] = '200'}, table.concat(lines, '\\n'))
end";

/// `inside` is Envoy's default, `edge` is the setting of a gateway.
fn echo() -> Result<Envoy> {
    let mut bootstrap = Bootstrap::new()?;
    for (name, is_edge) in [("inside", false), ("edge", true)] {
        let lua = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": ECHO},
        });
        let listener = Listener::new(name)
            .filter("lua", lua)
            .manager("use_remote_address", json!(is_edge))
            .manager("upgrade_configs", json!([{"upgrade_type": "websocket"}]))
            .route(Route::any());
        bootstrap = bootstrap.listener(listener);
    }
    bootstrap.start()
}

/// What a filter receives of these headers, without pseudo-headers.
fn seen(connection: &mut ClientConnection, headers: &[Field]) -> Result<Vec<Field>> {
    let mut request = HttpRequest::get("/");
    request.headers = headers.to_vec();
    let response = connection.request(&request)?;
    ensure!(response.status == 200, "{headers:?}: {response:?}");
    let lines = response.body.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b":"));
    let field = |line: &[u8]| {
        let colon = line.windows(2).position(|pair| pair == b": ")?;
        Some((line.get(..colon)?.to_vec(), line.get(colon + 2..)?.to_vec()))
    };
    Ok(lines.filter_map(field).collect())
}

fn fields(headers: &[(&str, &str)]) -> Vec<Field> {
    headers.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// How Envoy changed the candidates.
#[derive(Debug, Default, PartialEq)]
struct Findings<'a> {
    joined: Vec<&'a str>,
    dropped: Vec<&'a str>,
    /// Where `use_remote_address` is true.
    dropped_at_edges: Vec<&'a str>,
    written_at_edges: Vec<&'a str>,
}

fn ask<'a>(envoy: &Envoy, protocol: Protocol) -> Result<Findings<'a>> {
    let mut findings = Findings::default();
    let mut inside = ClientConnection::open(protocol, envoy.address("inside")?)?;
    let mut edge = ClientConnection::open(protocol, envoy.address("edge")?)?;
    for name in CANDIDATES.split_whitespace() {
        let twice = fields(&[(name, "one"), (name, "two")]);
        let values = |connection: &mut ClientConnection| -> Result<Vec<String>> {
            let found = seen(connection, &twice)?.into_iter().filter(|(found, _)| found == name.as_bytes());
            Ok(found.map(|(_, value)| String::from_utf8_lossy(&value).into_owned()).collect())
        };
        let (at_inside, at_edge) = (values(&mut inside)?, values(&mut edge)?);
        match at_inside.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["one,two"] => findings.joined.push(name),
            [] => findings.dropped.push(name),
            ["one", "two"] => {}
            // One list of cookies (RFC 9113, section 8.2.3); the engine reads both forms alike.
            ["one; two"] if name == "cookie" && protocol == Protocol::Http2 => {}
            ref other => anyhow::bail!("{name} over {protocol}: {other:?}"),
        }
        match &at_edge[..] {
            same if *same == at_inside[..] => {}
            [] => findings.dropped_at_edges.push(name),
            _ => findings.written_at_edges.push(name),
        }
    }
    Ok(findings)
}

fn source(findings: &Findings<'_>) -> String {
    let list = |name: &str, about: &str, names: &[&str]| {
        let lines: String = names.iter().map(|name| format!("    \"{name}\",\n")).collect();
        format!("\n/// {about}\npub(super) const {name}: [&str; {}] = [\n{lines}];\n", names.len())
    };
    let about = "//! What Envoy does to a client's headers before a filter sees them. Written by \
                 `integration/tests/received_headers.rs`, which\n//! asks Envoy, with `PENSTOCK_WRITE=1`.\n";
    let joined = list("JOINED", "Repeated, they become one value, joined with `,`.", &findings.joined);
    let dropped = list("DROPPED", "No filter ever sees them of a client that is not internal.", &findings.dropped);
    [about, &joined, &dropped].concat()
}

/// The part of the page between its two markers.
fn page(findings: &Findings<'_>, page: &str) -> Option<String> {
    let (before, rest) = page.split_once("<!-- headers of Envoy -->\n")?;
    let (_, after) = rest.split_once("<!-- end -->\n")?;
    let list = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let rows = [
        ("joined with `,` into one value", &findings.joined),
        ("dropped, of every client that is not internal", &findings.dropped),
        ("dropped where `use_remote_address` is true", &findings.dropped_at_edges),
        ("written by Envoy where `use_remote_address` is true", &findings.written_at_edges),
    ];
    let rows: String = rows.iter().map(|(what, names)| format!("| {what} | {} |\n", list(names))).collect();
    Some(format!(
        "{before}<!-- headers of Envoy -->\n| what Envoy does | headers |\n|---|---|\n{rows}<!-- end -->\n{after}"
    ))
}

#[test]
fn the_list_of_joined_and_dropped_headers_is_envoys() -> Result<()> {
    let mut envoy = echo()?;
    let findings = ask(&envoy, Protocol::Http1)?;
    assert_eq!(findings, ask(&envoy, Protocol::Http2)?, "one list does for both versions of HTTP");
    envoy.check_healthy()?;
    for (file, renewed) in [
        ("filters/policy/src/wire/envoy_headers.rs", Some(source(&findings))),
        ("docs/policy.md", page(&findings, &fs::read_to_string(workspace::root().join("docs/policy.md"))?)),
    ] {
        let path = workspace::root().join(file);
        let Some(renewed) = renewed else { anyhow::bail!("{file} has lost its markers") };
        if std::env::var_os("PENSTOCK_WRITE").is_some() {
            fs::write(path, renewed)?;
        } else {
            assert!(fs::read_to_string(path)? == renewed, "{file}: run the test with PENSTOCK_WRITE=1");
        }
    }
    Ok(())
}

/// Headers that Envoy adds to every request, whoever sends it.
fn is_envoys_own(name: &[u8]) -> bool {
    [&b"x-request-id"[..], b"x-forwarded-proto"].contains(&name)
}

#[test]
fn the_options_of_a_connection_are_read_as_envoy_reads_them() -> Result<()> {
    let mut envoy = echo()?;
    let lists: [&[(&str, &str)]; 17] = [
        &[("connection", "keep-alive"), ("keep-alive", "timeout=5"), ("x-plan", "gold")],
        &[("connection", "keep-alive, X-Plan"), ("x-plan", "gold")],
        &[("connection", "keep-alive"), ("connection", "x-plan"), ("x-plan", "gold"), ("x-plan", "silver")],
        &[("connection", "cookie"), ("cookie", "a=b"), ("x-a", "1")],
        &[("proxy-connection", "keep-alive"), ("x-a", "1")],
        &[("te", "trailers")],
        &[("te", "gzip, Trailers")],
        &[("te", "gzip"), ("te", "trailers")],
        &[("te", "deflate")],
        &[("connection", "te"), ("te", "trailers")],
        &[("connection", "Upgrade"), ("upgrade", "websocket")],
        &[("connection", "Upgrade, x-plan"), ("upgrade", "WebSocket"), ("x-plan", "gold"), ("keep-alive", "3")],
        &[("connection", "Upgrade"), ("connection", "x-plan"), ("upgrade", "websocket"), ("x-plan", "gold")],
        &[("connection", "keep-alive"), ("upgrade", "websocket")],
        &[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")],
        &[("connection", "Upgrade"), ("upgrade", "h2c")],
        &[("accept", ""), ("x-a", ""), ("accept", "b"), ("accept", ""), ("x-a", "")],
    ];
    for list in lists {
        let sent = fields(list);
        // After an upgrade, or `close`, the connection has no next request.
        let mut connection = ClientConnection::open(Protocol::Http1, envoy.address("inside")?)?;
        let mut found = seen(&mut connection, &sent)?;
        found.retain(|(name, _)| !is_envoys_own(name));
        assert_eq!(as_received(sent), found, "{list:?}");
    }
    envoy.check_healthy()
}
