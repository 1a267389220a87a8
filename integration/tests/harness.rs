//! Tests of the harness itself: what the other tests rely on.

use std::time::Duration;

use anyhow::{Result, ensure};
use penstock_integration::http::{self, ClientConnection, HttpRequest, Protocol, h1, h2};
use penstock_integration::{Bootstrap, Envoy, Listener, Route, Upstream, UpstreamReply};
use serde_json::{Value, json};

fn plain() -> Result<(Envoy, Upstream)> {
    let upstream = Upstream::echo()?;
    let listener = Listener::new("ingress")
        .route(Route::named("beta").echo(&["x-note", ":path"]))
        .route(Route::header("x-to", "upstream").to("echo"))
        .route(Route::any());
    let bootstrap = Bootstrap::new()?.listener(listener).cluster("echo", upstream.address());
    Ok((bootstrap.start()?, upstream))
}

#[test]
fn envoy_takes_the_route_that_the_header_names_and_echoes_what_it_saw() -> Result<()> {
    let (envoy, _upstream) = plain()?;
    for protocol in Protocol::ALL {
        let request = HttpRequest::get("/x?y").header("x-penstock-route", "beta").header("x-note", "hello");
        let response = http::send(protocol, envoy.ingress()?, &request)?;
        assert_eq!((response.status, response.text()), (200, "beta".to_owned()), "{protocol}");
        assert_eq!(response.header("x-saw-x-note"), Some("hello".to_owned()));
        assert_eq!(response.header("x-saw-path"), Some("/x?y".to_owned()));
        let response = http::send(protocol, envoy.ingress()?, &HttpRequest::get("/"))?;
        assert_eq!((response.status, response.text()), (200, "none".to_owned()), "{protocol}");
    }
    Ok(())
}

#[test]
fn the_upstream_reports_what_it_received() -> Result<()> {
    let (envoy, upstream) = plain()?;
    for protocol in Protocol::ALL {
        let request = HttpRequest::new("POST", "a.test:81", "/p%41th?q")
            .header("x-to", "upstream")
            .header("x-two", "1")
            .header("x-two", "2")
            .header("x-bytes", b"\xff\xfe")
            .body("some body");
        let response = http::send(protocol, envoy.ingress()?, &request)?;
        let body = response.json();
        assert_eq!(body.get("method"), Some(&json!("POST")), "{protocol}: {response:?}");
        assert_eq!(body.get("path"), Some(&json!("/p%41th?q")));
        assert_eq!(body.get("body"), Some(&json!("some body")));
        let received = upstream.last().unwrap();
        assert_eq!(received.values("host"), ["a.test:81"]);
        assert_eq!(received.values("x-two"), ["1", "2"]);
        assert!(received.headers.contains(&(b"x-bytes".to_vec(), b"\xff\xfe".to_vec())), "{received:?}");
    }
    assert_eq!(upstream.requests(), 2);
    Ok(())
}

#[test]
fn one_connection_serves_one_request_after_the_other() -> Result<()> {
    let (envoy, _upstream) = plain()?;
    for protocol in Protocol::ALL {
        let mut connection = ClientConnection::open(protocol, envoy.ingress()?)?;
        for number in 0..50 {
            let response = connection.request(&HttpRequest::get(&format!("/{number}")))?;
            assert_eq!(response.status, 200, "{protocol}");
        }
        assert_eq!(connection.request(&HttpRequest::new("HEAD", "a.test", "/"))?.body, b"");
    }
    Ok(())
}

#[test]
fn bytes_arrive_as_they_were_sent() -> Result<()> {
    let (envoy, _upstream) = plain()?;
    let mut connection = h1::Http1Connection::open(envoy.ingress()?)?;
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-PENSTOCK-route: beta\r\nBad header: 1\r\n\r\n")?;
    assert_eq!(connection.receive(false)?.status, 400);
    assert!(connection.is_closed()?);

    let field = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let mut connection = h2::Http2Connection::open(envoy.ingress()?)?;
    let fields = [field(":method", "GET"), field(":method", "GET"), field(":path", "/"), field(":scheme", "http")];
    assert!(connection.send(&fields, b"").is_err(), "a repeated pseudo-header ends the connection");
    Ok(())
}

#[test]
fn an_envoy_that_refuses_its_configuration_says_why() -> Result<()> {
    let bad = Listener::new("ingress").manager("no_such_field", Value::Null).route(Route::any());
    let error = Bootstrap::new()?.listener(bad).start().unwrap_err().to_string();
    assert!(error.contains("no_such_field"), "{error}");
    Ok(())
}

#[test]
fn a_stopped_envoy_leaves_no_process() -> Result<()> {
    let (envoy, _upstream) = plain()?;
    let address = envoy.ingress()?;
    drop(envoy);
    assert!(http::send(Protocol::Http1, address, &HttpRequest::get("/")).is_err());
    Ok(())
}

#[test]
fn an_upstream_closes_or_delays_on_demand() -> Result<()> {
    let upstream = Upstream::start(|request| match request.path().as_str() {
        "/close" => UpstreamReply::Close,
        "/slow" => UpstreamReply::After(Duration::from_millis(50), Box::new(UpstreamReply::Status(204, vec![]))),
        _ => UpstreamReply::Status(404, vec![("x-reason".to_owned(), "unknown".to_owned())]),
    })?;
    let ask = |path| http::send(Protocol::Http1, upstream.address(), &HttpRequest::get(path));
    ensure!(ask("/close").is_err());
    assert_eq!(ask("/slow")?.status, 204);
    assert_eq!(ask("/other")?.header("x-reason"), Some("unknown".to_owned()));
    assert_eq!((upstream.requests(), upstream.connections()), (3, 3));
    Ok(())
}
