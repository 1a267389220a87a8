//! Authorities, ports, addresses, targets: one reading or none.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn an_authority_has_one_reading_or_none() {
    let policy = open();
    for (authority, expected) in [
        ("api.example.com", 200),
        ("API.Example.COM", 200),
        ("api.example.com.", 200),
        ("api.example.com.:443", 200),
        ("a_b.example.com", 200),
        ("1.example.com", 200),
        ("0x7f.example.com", 200),
        ("localhost", 200),
        ("localhost.", 200),
        ("evil.test", 403),
        ("example.com.evil.test", 403),
        ("evilexample.com", 403),
        ("com", 403),
        ("", 400),
        (".", 400),
        ("..", 400),
        (".api.example.com", 400),
        ("api..example.com", 400),
        ("api.example.com..", 400),
        ("-api.example.com", 400),
        ("api-.example.com", 400),
        ("user@api.example.com", 400),
        ("user:pass@api.example.com", 400),
        ("api.example.com@evil.test", 400),
        ("api.example.com:443@evil.test", 400),
        ("@api.example.com", 400),
        ("api.example.com,evil.test", 400),
        ("api.example.com, evil.test", 400),
        ("api.example.com%2eevil.test", 400),
        ("api%2eexample.com", 400),
        ("%61pi.example.com", 400),
        ("api.example.com%00", 400),
        ("api.example.com/", 400),
        ("api.example.com/path", 400),
        ("api.example.com?x", 400),
        ("api.example.com#x", 400),
        ("api.example.com\\evil.test", 400),
        ("api.example.com;x", 400),
        ("api.example.com&x", 400),
        ("api.example.com=x", 400),
        ("api.example.com|x", 400),
        ("api.example.com\u{0}", 400),
        ("api.example.com\t", 400),
        ("api.example.com\r\nhost: evil.test", 400),
        (" api.example.com", 400),
        ("api.example.com ", 400),
        ("api .example.com", 400),
        ("\"api.example.com\"", 400),
        ("<api.example.com>", 400),
        ("*.example.com", 400),
        ("http://api.example.com", 400),
        ("//api.example.com", 400),
        ("api.example.com\u{200b}", 400),
        ("api\u{3002}example.com", 400),
        ("api\u{ff0e}example.com", 400),
        ("\u{ff41}pi.example.com", 400),
        ("ap\u{131}.example.com", 400),
        ("api.example.com\u{ad}", 400),
        ("b\u{fc}cher.example.com", 400),
    ] {
        assert_eq!(status(&policy, &json!({"authority": authority})), expected, "{authority:?}");
    }
    let long = |labels: usize| format!("{}example.com", "a.".repeat(labels));
    assert_eq!(status(&policy, &json!({"authority": long(121)})), 200, "253 characters");
    assert_eq!(status(&policy, &json!({"authority": format!("{}.", long(121))})), 200, "and a dot");
    assert_eq!(status(&policy, &json!({"authority": long(122)})), 400, "255 characters");
    assert_eq!(status(&policy, &json!({"authority": format!("{}.example.com", "a".repeat(63))})), 200);
    assert_eq!(status(&policy, &json!({"authority": format!("{}.example.com", "a".repeat(64))})), 400);
}

#[test]
fn a_port_is_plain_digits_or_nothing() {
    let policy = open();
    for (port, expected) in [
        ("443", 200),
        ("8443", 200),
        ("80", 403),
        ("1", 403),
        ("65535", 403),
        ("", 400),
        ("0", 400),
        ("00443", 400),
        ("0443", 400),
        ("+443", 400),
        ("-443", 400),
        ("443 ", 400),
        (" 443", 400),
        ("44 3", 400),
        ("65536", 400),
        ("65979", 400),
        ("4294967739", 400),
        ("18446744073709552059", 400),
        ("0x1bb", 400),
        ("443.0", 400),
        ("443e0", 400),
        ("4_43", 400),
        ("https", 400),
        ("443:80", 400),
        ("443,80", 400),
        ("443@evil.test", 400),
        ("443#", 400),
        ("443/", 400),
        ("\u{ff14}\u{ff14}\u{ff13}", 400),
        ("\u{664}\u{664}\u{663}", 400),
    ] {
        assert_eq!(status(&policy, &json!({"authority": format!("api.example.com:{port}")})), expected, "{port:?}");
        assert_eq!(
            status(&policy, &json!({"authority": format!("[2001:db8::1]:{port}")})),
            if port == "8443" { 403 } else { expected },
            "{port:?}"
        );
    }
}

#[test]
fn the_implicit_port_is_that_of_the_connection_and_never_the_listeners() {
    let policy = open();
    for (change, expected) in [
        (json!({}), 200),
        (json!({"destinationPort": 80}), 200),
        (json!({"destinationPort": 8443}), 200),
        (json!({"destinationPort": 443, "scheme": "http"}), 403),
        (json!({"scheme": "HTTPS"}), 200),
        (json!({"scheme": "http"}), 403),
        (json!({"scheme": null}), 403),
        (json!({"scheme": "gopher"}), 403),
        (json!({"scheme": "http", "authority": "api.example.com:443"}), 200),
        // No `ports`: any, known or not.
        (json!({"scheme": null, "authority": "localhost"}), 200),
    ] {
        assert_eq!(status(&policy, &change), expected, "{change}");
    }
}

#[test]
fn the_default_port_is_that_of_every_authority_without_one() {
    let to = |port: u16| json!({"rules": [{"name": "r", "to": [{"host": "api.example.com", "ports": [port]}]}]});
    for (default, listed, change, expected) in [
        (443, 443, json!({"scheme": "http"}), 200),
        (8443, 8443, json!({}), 200),
        (8443, 443, json!({}), 403),
        (8443, 443, json!({"authority": "api.example.com:443"}), 200),
        (8443, 8443, json!({"scheme": null}), 200),
        (8443, 8443, json!({"headers": [["host", "api.example.com:8443"]]}), 200),
        (8443, 8443, json!({"headers": [["host", "api.example.com:443"]]}), 400),
    ] {
        let mut egress = to(listed);
        egress["defaultPort"] = json!(default);
        assert_eq!(status(&policy(&egress), &change), expected, "{default} {listed} {change}");
    }
}

#[test]
fn what_is_denied_on_some_port_is_denied_without_a_port() {
    for default in [json!({}), json!({"defaultPort": 443})] {
        let mut egress = json!({
            "deny": [{"host": "secret.ok.test", "ports": [80]}, {"cidr": "192.0.2.0/24", "ports": [22]}],
            "rules": [{"name": "r", "to": [{"host": "*.ok.test"}, {"cidr": "0.0.0.0/0"}]}],
        });
        egress.as_object_mut().unwrap().extend(default.as_object().unwrap().clone());
        let policy = policy(&egress);
        for (authority, expected) in [
            ("secret.ok.test", (403, "hostDenied")),
            ("SECRET.ok.test.", (403, "hostDenied")),
            ("secret.ok.test:80", (403, "hostDenied")),
            ("secret.ok.test:443", (200, "")),
            ("open.ok.test", (200, "")),
            ("192.0.2.1", (403, "hostDenied")),
            ("192.0.2.1:23", (200, "")),
        ] {
            for scheme in ["https", "http"] {
                let change = json!({"authority": authority, "scheme": scheme});
                assert_eq!(reason(&policy, &change), expected, "{authority} {scheme}");
            }
        }
    }
}

#[test]
fn an_address_has_one_spelling_that_counts() {
    let policy = open();
    for (authority, expected) in [
        ("203.0.113.7", 200),
        ("203.0.113.7:443", 200),
        ("203.0.113.255", 200),
        ("203.0.114.0", 403),
        ("10.0.0.1", 403),
        ("0.0.0.0", 403),
        ("255.255.255.255", 403),
        ("203.0.113.7.", 400),
        ("203.0.113.07", 400),
        ("203.0.113.0x7", 400),
        ("0xcb.0.113.7", 400),
        ("0313.0.0161.7", 400),
        ("203.0.113.256", 400),
        ("203.0.113", 400),
        ("203.0.28935", 400),
        ("203.29191", 400),
        ("3405803783", 400),
        ("0xcb007107", 400),
        ("0XCB007107", 400),
        ("031300070407", 400),
        ("0x", 400),
        ("a.0x", 400),
        ("1.2.3.4.5", 400),
        ("example.1", 400),
        ("example.0xff", 400),
        ("example.0xfg", 403),
        ("example.1a", 403),
        ("[2001:db8::1]", 200),
        ("[2001:DB8::1]", 200),
        ("[2001:0db8:0:0:0:0:0:1]", 200),
        ("[2001:db8::1]:443", 200),
        ("[2001:db8::203.0.113.7]", 200),
        ("[2001:db9::1]", 403),
        ("[::]", 403),
        ("[::ffff:203.0.113.7]", 403),
        ("[::ffff:cb00:7107]", 403),
        ("[::203.0.113.7]", 403),
        ("[64:ff9b::203.0.113.7]", 403),
        ("2001:db8::1", 400),
        ("[2001:db8::1", 400),
        ("2001:db8::1]", 400),
        ("[2001:db8::1]x", 400),
        ("[2001:db8::1].", 400),
        ("[2001:db8::1]443", 400),
        ("[[2001:db8::1]]", 400),
        ("[2001:db8::1%25eth0]", 400),
        ("[2001:db8::1%eth0]", 400),
        ("[2001:db8:::1]", 400),
        ("[2001:db8::1::]", 400),
        ("[2001:db8::12345]", 400),
        ("[1:2:3:4:5:6:7]", 400),
        ("[1:2:3:4:5:6:7:8:9]", 400),
        ("[::ffff:203.0.113.07]", 400),
        ("[::ffff:203.0.113]", 400),
        ("[203.0.113.7]", 400),
        ("[api.example.com]", 400),
        ("[]", 400),
        ("[", 400),
        ("[v1.fe80::a]", 400),
        ("[ 2001:db8::1]", 400),
    ] {
        assert_eq!(status(&policy, &json!({"authority": authority})), expected, "{authority}");
    }
}

#[test]
fn an_address_that_carries_another_needs_its_own_range_and_finds_no_way_round_deny() {
    let policy = policy(&json!({
        "deny": [{"cidr": "169.254.0.0/16"}, {"cidr": "2001:db8:bad::/48"}, {"host": "localhost", "ports": [22]}],
        "rules": [{"name": "all", "to": [{"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}, {"host": "localhost"}]}],
    }));
    for (authority, expected) in [
        ("1.2.3.4", 200),
        ("[2001:db8::1]", 200),
        ("[::ffff:1.2.3.4]", 200),
        ("169.254.169.254", 403),
        ("169.255.0.0", 200),
        ("[::ffff:169.254.169.254]", 403),
        ("[::ffff:a9fe:a9fe]", 403),
        ("[::169.254.169.254]", 403),
        ("[::ffff:0:169.254.169.254]", 403),
        ("[64:ff9b::a9fe:a9fe]", 403),
        ("[64:FF9B::169.254.169.254]", 403),
        ("[64:ff9b:1::a9fe:a9fe]", 403),
        ("[64:ff9b:1:a9fe:a9:fe00::]", 403),
        ("[64:ff9b:1:7:a9:fea9:fe00:0]", 403),
        ("[64:ff9b:1:7:aa:fea9:fe00:0]", 200),
        ("[2002:a9fe:a9fe::1]", 403),
        ("[2001:db8::5efe:169.254.169.254]", 403),
        ("[fe80::200:5efe:169.254.169.254]", 403),
        ("[64:ff9b::c000:201]", 200),
        ("[2002:c000:201::1]", 200),
        ("[2001:db8:bad::1]", 403),
        ("[2001:db8:bae::1]", 200),
        ("localhost:22", 403),
        ("LOCALHOST.:22", 403),
        ("localhost:2222", 200),
    ] {
        assert_eq!(status(&policy, &json!({"authority": authority})), expected, "{authority}");
    }
    let unknown_port = json!({"authority": "localhost", "scheme": null});
    assert_eq!(reason(&policy, &unknown_port), (403, "hostDenied"), "deny counts what is unclear");
}

#[test]
fn every_host_header_agrees_with_the_authority() {
    let policy = open();
    for (hosts, expected) in [
        (&["api.example.com"][..], 200),
        (&["API.example.com.:443"], 200),
        (&["api.example.com", "api.example.com:443"], 200),
        (&["api.example.com:8443"], 400),
        (&["evil.test"], 400),
        (&["api.example.com", "evil.test"], 400),
        (&[""], 400),
        (&["api.example.com,api.example.com"], 400),
        (&["user@api.example.com"], 400),
        (&[" api.example.com"], 400),
    ] {
        let headers: Vec<_> = hosts.iter().map(|host| ("Host", host)).collect();
        assert_eq!(status(&policy, &json!({"headers": headers})), expected, "{hosts:?}");
    }
    let addressed =
        |authority: &str, host: &str| status(&policy, &json!({"authority": authority, "headers": [["host", host]]}));
    assert_eq!(addressed("[2001:db8::1]", "[2001:0DB8::0:1]:443"), 200);
    assert_eq!(addressed("203.0.113.7", "[::ffff:203.0.113.7]"), 400);
}

#[test]
fn repeated_pseudo_headers_and_destination_overrides_are_refused() {
    for policy in [open(), scoped()] {
        for (name, value) in [
            (":authority", "evil.test"),
            (":path", "/other"),
            (":method", "DELETE"),
            (":scheme", "http"),
            ("x-envoy-original-dst-host", "10.0.0.1:80"),
            ("X-Envoy-Original-Dst-Host", ""),
        ] {
            assert_eq!(status(&policy, &json!({"headers": [[name, value]]})), 400, "{name}");
        }
    }
    for name in ["x-original-url", "X-Rewrite-URL"] {
        let change = json!({"headers": [[name, "/admin"]]});
        assert_eq!(reason(&scoped(), &change), (400, "pathOverrideHeader"));
        assert_eq!(status(&open(), &change), 200, "no path is promised, so none is overridden");
    }
}

#[test]
fn a_request_target_is_origin_form() {
    for policy in [open(), scoped()] {
        for path in [
            "",
            "*",
            "v1",
            "http://evil.test/",
            "https://api.example.com/v1",
            "//evil.test\\",
            "/v1#x",
            "/v1?#",
            "/v1 x",
            "/v1?a b",
            "/v1\\x",
            "/v1?a\\b",
            "/v1\u{7f}",
            "/v1\u{1}",
            "/v1\r\n",
            "/v1\t",
            "/v1\u{e9}",
            "/v1?\u{e9}",
            "?x",
            "evil.test:443",
            "/v1\u{0}",
        ] {
            assert_eq!(status(&policy, &json!({"path": path})), 400, "{path:?}");
        }
    }
    assert_eq!(status(&open(), &json!({"method": "OPTIONS", "path": "*"})), 200);
    assert_eq!(status(&open(), &json!({"method": "OPTIONS", "path": "**"})), 400);
    let any_method = policy(&json!({"rules": [{
        "name": "r", "to": [{"host": "api.example.com"}], "paths": [{"value": "/"}],
    }]}));
    assert_eq!(reason(&any_method, &json!({"method": "OPTIONS", "path": "*"})), (403, "pathNotAllowed"));
}
