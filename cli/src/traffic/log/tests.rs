use super::*;

use penstock_policy::wire::WireRequest;

fn request(line: Line) -> WireRequest {
    match line {
        Line::Request(request) => *request,
        other => panic!("{other:?}"),
    }
}

fn shown(line: Line) -> String {
    let request = request(line);
    let headers: Vec<String> = request.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let response = request.response.as_ref().map(|response| (response.status, response.latency));
    format!(
        "{} {} {} {:?} {:?} {:?} {:?} {:?} [{}]",
        request.method,
        request.authority,
        request.path,
        request.source_address,
        request.destination_port,
        request.sni,
        request.time.map(crate::words::instant),
        response,
        headers.join(" ")
    )
}

#[test]
fn envoys_text_format_is_read() {
    let line = r#"[2016-04-15T20:17:00.310Z] "POST /api/v1/locations HTTP/2" 204 - 154 0 226 100 "10.0.35.28" "nsq2http" "cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2" "locations" "tcp://10.0.2.1:80""#;
    assert_eq!(
        shown(text(line.as_bytes())),
        "POST locations /api/v1/locations None None None Some(\"2016-04-15T20:17:00.31Z\") Some((204, 226ms)) \
         [x-forwarded-for=10.0.35.28 user-agent=nsq2http x-request-id=cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2]"
    );
    assert!(is_text_log(line.as_bytes()));
}

#[test]
fn istios_text_format_is_read() {
    let line = r#"[2020-11-25T21:26:18.409Z] "GET /status/418 HTTP/1.1" 418 - via_upstream - "-" 0 135 3 1 "-" "curl/7.73.0-DEV" "84961386-6d84-929d-98bd-c5aee93b5c88" "httpbin:8000" "127.0.0.1:80" inbound|8000|| 127.0.0.1:41854 10.44.1.27:80 10.44.1.23:37652 outbound_.8000_._.httpbin.foo.svc.cluster.local default"#;
    assert_eq!(
        shown(text(line.as_bytes())),
        "GET httpbin:8000 /status/418 Some(10.44.1.23) Some(80) Some(\"outbound_.8000_._.httpbin.foo.svc.cluster.local\") \
         Some(\"2020-11-25T21:26:18.409Z\") Some((418, 3ms)) \
         [user-agent=curl/7.73.0-DEV x-request-id=84961386-6d84-929d-98bd-c5aee93b5c88]"
    );
}

#[test]
fn quotes_in_a_user_agent_do_not_move_the_authority() {
    let line = r#"[2026-01-01T00:00:00Z] "GET / HTTP/1.1" 200 - 0 0 1 1 "-" "a" "b" c" "84961386-6d84-929d-98bd-c5aee93b5c88" "shop.test" "-""#;
    let request = request(text(line.as_bytes()));
    assert_eq!((&*request.authority, request.headers[0].1.as_str()), ("shop.test", "a\" \"b\" c"));
}

#[test]
fn a_text_line_with_other_fields_than_the_default_is_left_out() {
    for line in [
        // Two more quoted fields; durations in quotes; one field more; one field less.
        r#"[2026-01-01T00:00:00Z] "GET / HTTP/1.1" 200 - 0 0 1 1 "-" "x" "id" "shop.test" "-" "alice" "https://a.test/""#,
        r#"[2026-01-01T00:00:00Z] "GET / HTTP/1.1" 200 - 0 0 "45" "23" "203.0.113.9" "x" "id" "shop.test" "10.0.0.5:80""#,
        r#"[2026-01-01T00:00:00Z] "GET / HTTP/1.1" 200 - 0 0 1 1 7 "-" "x" "id" "shop.test" "-""#,
        r#"[2026-01-01T00:00:00Z] "GET / HTTP/1.1" 200 - 0 0 1 1 "x" "id" "shop.test" "-""#,
        r#"[2026-01-01T00:00:00Z] "GET / HTTP/1.1" 200 - via_upstream - "-" 0 2 1 0 "-" "x" "id" "a.test" "-" c l d r - default "alice""#,
    ] {
        assert!(matches!(text(line.as_bytes()), Line::OtherLayout), "{line}");
    }
}

#[test]
fn a_declared_format_says_which_value_is_which() {
    let format = LogFormat::parse(&format!("{} \"%REQ(X-USER)%\" %REQ(REFERER):5%\n", format::ISTIO)).unwrap();
    let line = r#"[2026-01-01T00:00:00.123Z] "GET / HTTP/1.1" 200 - via_upstream - "-" 0 2 1 0 "203.0.113.9" "curl/8" "id1" "beta.test" "10.0.0.1:80" outbound|80||a 10.0.0.2:1 10.0.0.3:8080 203.0.113.1:5 - default "alice" https"#;
    assert_eq!(
        shown(described(line.as_bytes(), &format)),
        "GET beta.test / Some(203.0.113.1) Some(8080) None Some(\"2026-01-01T00:00:00.123Z\") Some((200, 1ms)) \
         [x-forwarded-for=203.0.113.9 user-agent=curl/8 x-request-id=id1 x-user=alice]"
    );
    let json = r#"{"when":"%START_TIME(%s.%3f)%","line":"%REQ(:METHOD)% %REQ(:PATH)%","to":"%REQ(:AUTHORITY)%","client":{"ip":"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},"100%%":"x"}"#;
    let format = LogFormat::parse(json).unwrap();
    let line = r#"{"when":"1767225600.500","line":"GET /a?b","to":"a.test","client":{"ip":"10.0.0.1"},"n":null}"#;
    assert_eq!(
        shown(described(line.as_bytes(), &format)),
        "GET a.test /a?b Some(10.0.0.1) None None Some(\"2026-01-01T00:00:00.5Z\") None []"
    );
}

/// A line written by Envoy 1.40.
#[test]
fn times_ports_and_identifiers_are_one_word_each() {
    let format = LogFormat::parse(
        "[%START_TIME%] %START_TIME(%s.%3f)% %START_TIME_LOCAL% %EMIT_TIME% %REQ(:METHOD)% %REQ(:PATH)% \
         %COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)% %REQ(:AUTHORITY)% \"%REQ(X-FORWARDED-FOR)%\" %DOWNSTREAM_REMOTE_PORT% \
         %ACCESS_LOG_TYPE% %UNIQUE_ID% %TLS_JA3_FINGERPRINT% %DOWNSTREAM_TLS_VERSION% 100%%",
    )
    .unwrap();
    let line = br#"[2026-11-26T22:42:35.098Z] 1795732955.098 2026-11-26T22:42:35.098+0000 2026-11-26T22:42:35.099Z POST /x 129 b.test:80 "1.2.3.4, 5.6.7.8" 41832 DownstreamEnd 7d4c - - 100%"#;
    let request = request(described(line, &format));
    assert_eq!((&*request.method, &*request.path, &*request.authority), ("POST", "/x", "b.test:80"));
    assert_eq!(request.headers, [("x-forwarded-for".to_owned(), "1.2.3.4, 5.6.7.8".to_owned())]);
}

#[test]
fn a_path_without_its_query_is_a_path() {
    let read = |path: &str| {
        let format = format!("%REQ(:METHOD)% {path} %REQ(:AUTHORITY)% \"%REQ_WITHOUT_QUERY(REFERER)%\"");
        shown(described(br#"GET /a a.test "https://b.test/""#, &LogFormat::parse(&format).unwrap()))
    };
    for path in ["%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)%", "%REQ_WITHOUT_QUERY(:PATH):100%", "%PATH(NQ)%"] {
        assert_eq!(read(path), "GET a.test /a None None None None None []", "{path}");
    }
}

#[test]
fn an_ambiguous_line_is_left_out() {
    let format = LogFormat::parse("%REQ(:METHOD)% %REQ(:AUTHORITY)% %REQ(:PATH)% \"%REQ(A)%\" \"%REQ(B)%\"").unwrap();
    assert!(matches!(described(br#"GET a.test / "1" "2""#, &format), Line::Request(_)));
    assert!(matches!(described(br#"GET a.test / "1" "x" "2""#, &format), Line::OtherLayout));
    // Regardless of its length.
    let hostile = format!("GET a.test / \"{}", "\" \"".repeat(100_000));
    assert!(matches!(described(hostile.as_bytes(), &format), Line::OtherLayout));
}

#[test]
fn a_format_that_cannot_be_read_says_why() {
    for (format, message) in [
        ("%REQ(:METHOD)% %REQ(:PATH)%", "%REQ(:AUTHORITY)%"),
        ("%REQ(:METHOD)%%REQ(:PATH)% %REQ(:AUTHORITY)%", "nothing between"),
        ("%REQ(:METHOD% x", "closing parenthesis"),
        ("100% %REQ(:METHOD)%", "does not begin an operator"),
        ("%PROTOCOL", "no closing %"),
        ("{}", "needs %REQ(:METHOD)%"),
    ] {
        let error = format!("{:#}", LogFormat::parse(format).unwrap_err());
        assert!(error.contains(message), "{format}: {error}");
    }
}

#[test]
fn the_json_formats_of_istio_envoy_gateway_and_contour_are_read() {
    let istio = r#"{"start_time":"2026-01-01T00:00:00.5Z","method":"GET","path":"/x?y=1","authority":"a.test","protocol":"HTTP/2","response_code":503,"duration":12,
        "downstream_remote_address":"10.0.0.1:4711","downstream_local_address":"10.0.0.2:8443","requested_server_name":"a.test","user_agent":"curl","x_forwarded_for":"-","x-user-id":"7","upstream_host":null}"#;
    assert_eq!(
        shown(json(istio.as_bytes())),
        "GET a.test /x?y=1 Some(10.0.0.1) Some(8443) Some(\"a.test\") Some(\"2026-01-01T00:00:00.5Z\") Some((503, 12ms)) [user-agent=curl x-user-id=7]"
    );
    let gateway = r#"{":authority":"a.test","method":"GET","x-envoy-origin-path":"/old","path":"/new","response_code":0,"user-agent":"x","x-envoy-upstream-service-time":"3","downstream_remote_address":"[::1]:1","headers":{"X-A":"1\u00e9","x-b":null},"tags":[1,{"a":[true]}],"ok":false}"#;
    assert_eq!(shown(json(gateway.as_bytes())), "GET a.test /old Some(::1) None None None None [user-agent=x x-a=1é]");
    let contour = r#"{"@timestamp":"2026-01-01T00:00:00Z","method":"GET","path":"/","authority":"a.test","response_code":200,"downstream_remote_address":"203.0.113.7:1"}"#;
    assert!(shown(json(contour.as_bytes())).contains("2026-01-01T00:00:00Z"));
    let own =
        r#"{"timestamp":1767225600,"method":"GET","path":"/","host":"a.test","status":200,"source_ip":"203.0.113.7"}"#;
    assert_eq!(
        shown(json(own.as_bytes())),
        "GET a.test / Some(203.0.113.7) None None Some(\"2026-01-01T00:00:00Z\") Some((200, 0ns)) []"
    );
    let odd = r#"{"time":"noon","method":"GET","path":"/","host":"a.test","status":200}"#;
    assert!(matches!(json(odd.as_bytes()), Line::WithoutTime(_)));
}

#[test]
fn a_line_that_is_not_a_request_gives_none() {
    for line in [
        "[2026-01-01T00:00:00Z] \"- - -\" 0 - 0 0 0 - \"-\" \"-\" \"-\" \"-\" \"-\"",
        "[2026-01-01T00:00:00Z] \"GET / HTTP/1.1\" 200 - 0 0 1 1 \"-\" \"-\" \"-\" \"-\" \"-\"",
    ] {
        assert!(matches!(text(line.as_bytes()), Line::NoRequest), "{line}");
    }
    for line in
        ["", "x", "[", "[x] ", "[2026-01-01T00:00:00Z] \"GET /", "[2026-01-01T00:00:00Z] \"GET / HTTP/1.1\" 200"]
    {
        assert!(matches!(text(line.as_bytes()), Line::OtherLayout), "{line}");
    }
    for (line, no_request) in [
        ("", false),
        ("{}", false),
        ("[]", false),
        ("{\"method\":\"GET\"}", true),
        (r#"{"method":"-","authority":"a","path":"/"}"#, true),
    ] {
        let read = json(line.as_bytes());
        assert!(matches!(read, Line::NoRequest) == no_request && !matches!(read, Line::Request(_)), "{line}");
    }
}
