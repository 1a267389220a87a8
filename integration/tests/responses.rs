//! How rules change responses, of the upstream and of the proxy itself, and where redirects lead.

use anyhow::Result;
use penstock_integration::http::{self, HttpRequest, HttpResponse, Protocol};
use penstock_integration::{Bootstrap, Envoy, Listener, Route, Upstream, UpstreamReply, WasmFilter};
use serde_json::{Value, json};

fn in_front_of(upstream: &Upstream, policy: Value) -> Result<Envoy> {
    let filter = WasmFilter::new("suite", policy)?;
    let listener = Listener::new("ingress").wasm(&filter).route(Route::any().to("upstream"));
    Bootstrap::new()?.cluster("upstream", upstream.address()).listener(listener).start()
}

fn header(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

fn values(response: &HttpResponse, name: &str) -> Vec<String> {
    let all = response.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()));
    all.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
}

#[test]
fn a_rule_changes_the_response_of_the_upstream_and_of_the_proxy_and_no_other_rules() -> Result<()> {
    let upstream = Upstream::start(|request| match request.path().as_str() {
        "/app/close" => UpstreamReply::Close,
        "/app/hang" => UpstreamReply::Hang,
        "/app/missing" => UpstreamReply::Status(404, vec![("x-served-by".into(), "upstream".into())]),
        _ => UpstreamReply::Status(
            200,
            ["x-served-by: upstream", "x-served-by: again", "vary: origin", "x-secret: s"]
                .iter()
                .filter_map(|header| header.split_once(": "))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        ),
    })?;
    let mut envoy = in_front_of(
        &upstream,
        json!({
            "rateLimits": [{"name": "none", "key": [], "limit": {"requests": 1, "per": "24h", "burst": 1},
                "matches": [{"path": {"value": "/app/limited"}}], "cost": {"header": "x-cost"}}],
            "routes": {"rules": [
                {"name": "app", "route": "app", "timeout": "500ms", "matches": [{"path": {"value": "/app"}}],
                    "responseHeaders": {
                        "set": [header("X-Served-By", "a")], "add": [header("vary", "x-user-group")],
                        "remove": ["x-secret", "x-never-there"],
                    }},
                {"name": "old", "matches": [{"path": {"value": "/old"}}],
                    "redirect": {"path": {"type": "ReplacePrefixMatch", "value": "/new"}, "statusCode": 308},
                    "responseHeaders": {"set": [header("x-served-by", "redirect")]}},
            ]},
        }),
    )?;
    for protocol in Protocol::ALL {
        let ask = |path: &str| http::send(protocol, envoy.ingress()?, &HttpRequest::get(path));
        // The status, x-served-by, and the other headers.
        let answer = ask("/app/x")?;
        assert_eq!((answer.status, values(&answer, "x-served-by")), (200, vec!["a".to_owned()]), "{protocol}");
        assert_eq!(values(&answer, "vary").join(","), "origin,x-user-group", "{protocol}");
        assert_eq!(values(&answer, "x-secret"), [""; 0], "{protocol}");
        // An error of the upstream, and responses of the proxy itself in its place.
        for (path, status) in [("/app/missing", 404), ("/app/close", 503), ("/app/hang", 504)] {
            let answer = ask(path)?;
            assert_eq!((answer.status, values(&answer, "x-served-by")), (status, vec!["a".to_owned()]), "{path}");
        }
        // A response for another rule, or for none.
        let answer = ask("/other")?;
        assert_eq!(values(&answer, "x-served-by"), ["upstream", "again"], "{protocol}");
        let answer = ask("/old/a?b=c")?;
        assert_eq!((answer.status, values(&answer, "x-served-by")), (308, vec!["redirect".to_owned()]), "{protocol}");
        assert!(answer.header("location").is_some_and(|to| to.ends_with("/new/a?b=c")), "{answer:?}");
        // A refusal happens before any rule is evaluated.
        let refused = http::send(protocol, envoy.ingress()?, &HttpRequest::get("/app/limited").header("x-cost", "2"))?;
        assert_eq!((refused.status, values(&refused, "x-served-by")), (429, vec![]), "{protocol}");
    }
    envoy.check_healthy()
}
