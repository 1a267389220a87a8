//! What breakers count about an exchange: its result, and the upstream's time.

use super::*;

const MILLISECOND: u64 = 1_000_000;

/// A policy with one rule and the given thresholds, after which its route fails over.
fn policy(thresholds: &str) -> String {
    format!(
        r#"{{"routes":{{"rules":[{{"name":"pay","route":"eu","failover":{{"route":"us",{thresholds},"window":"10s",
        "minRequests":20,"cooldown":"30s"}}}}]}}}}"#
    )
}

/// One exchange, step by step.
struct Script {
    content_type: &'static str,
    /// Milliseconds until the last byte of the request; `None` if the request has no body.
    upload: Option<u64>,
    /// Milliseconds from the last byte of the request to the response's headers.
    upstream: u64,
    /// Whether the response begins before the request has ended.
    is_early: bool,
    /// Whether the proxy reports the end of the request a second time after the upstream has answered, as with trailers.
    ends_twice: bool,
    headers: &'static [(&'static str, &'static str)],
    trailers: Option<&'static str>,
}

const PLAIN: Script = Script {
    content_type: "text/plain",
    upload: None,
    upstream: 1,
    is_early: false,
    ends_twice: false,
    headers: &[(":status", "200")],
    trailers: None,
};

const GRPC: Script = Script { content_type: "application/grpc+proto", ..PLAIN };

fn pairs(headers: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    headers.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// The route that the request took.
fn run(plugin: &Rc<TestPlugin>, script: &Script) -> String {
    with(|proxy| {
        proxy.headers = pairs(&[(":path", "/"), ("content-type", script.content_type)]);
        proxy.response_headers = pairs(script.headers);
        proxy.response_trailers = script.trailers.map(|status| pairs(&[("grpc-status", status)])).unwrap_or_default();
    });
    let (flow, mut exchange) = Exchange::begin_with(plugin, script.upload.is_none());
    assert_eq!(flow, Flow::Continue);
    let route = route().concat();
    let pass = |milliseconds: u64| with(|proxy| proxy.time += milliseconds * MILLISECOND);
    let answer = |exchange: &mut Exchange| {
        pass(script.upstream);
        if script.ends_twice {
            assert_eq!(exchange.body(true), Flow::Continue);
        }
        exchange.response_with(script.trailers.is_none());
    };
    if script.is_early {
        answer(&mut exchange);
    }
    if let Some(upload) = script.upload {
        assert_eq!(exchange.body(false), Flow::Continue);
        pass(upload);
        assert_eq!(exchange.body(true), Flow::Continue);
    }
    if !script.is_early {
        answer(&mut exchange);
    }
    if script.trailers.is_some() {
        exchange.trailers();
    }
    exchange.end();
    route
}

/// Whether, after thirty such exchanges, requests take the other route.
fn fails_over(thresholds: &str, script: &Script) -> bool {
    fresh();
    with(|proxy| proxy.time = 1_700_000_000_000_000_000);
    let plugin = configured(&policy(thresholds));
    (0..30).map(|_| run(&plugin, script)).fold(String::new(), |_, route| route) == "us"
}

#[test]
fn grpc_fails_where_the_upstream_is_at_fault_in_headers_or_trailers() {
    for status in 0..=17 {
        let text: &'static str = format!("{status}").leak();
        let fails = [2, 4, 12, 13, 14, 15].contains(&status);
        let in_trailers = Script { trailers: Some(text), ..GRPC };
        let headers = pairs_of(text);
        let in_headers = Script { headers, ..GRPC };
        for (where_, exchange) in [("trailers", &in_trailers), ("headers", &in_headers)] {
            assert_eq!(fails_over(r#""errorPercent":50"#, exchange), fails, "{status} in {where_}");
        }
    }
    // A response that is not gRPC has no gRPC status, and a status that is not a number is ignored.
    let headers = pairs_of("14");
    assert!(!fails_over(r#""errorPercent":50"#, &Script { headers, ..PLAIN }));
    assert!(!fails_over(r#""errorPercent":50"#, &Script { trailers: Some("14"), ..PLAIN }));
    assert!(!fails_over(r#""errorPercent":50"#, &Script { trailers: Some("fourteen"), ..GRPC }));
}

#[test]
fn a_status_of_500_or_more_is_a_failure_whatever_the_trailers_say() {
    for (status, fails) in [("499", false), ("500", true), ("503", true)] {
        let headers = Vec::leak(vec![(":status", status)]);
        for trailers in [None, Some("0")] {
            let script = Script { headers, trailers, ..GRPC };
            assert_eq!(fails_over(r#""errorPercent":50"#, &script), fails, "{status} {trailers:?}");
        }
    }
}

fn pairs_of(status: &'static str) -> &'static [(&'static str, &'static str)] {
    Vec::leak(vec![(":status", "200"), ("grpc-status", status)])
}

#[test]
fn a_slow_upload_is_the_clients_and_a_slow_answer_the_upstreams() {
    const SLOW: &str = r#""latency":{"percentile":90,"above":"800ms"}"#;
    // Only canaries have a threshold for latency, so this case uses one.
    let canary = |thresholds: &str| {
        format!(
            r#"{{"canaries":[{{"name":"c","variants":[{{"name":"v1","weight":0}},{{"name":"v2","weight":1}}],
            "rollback":{{"variant":"v2","to":"v1",{thresholds},"window":"60s","minRequests":20,"cooldown":"10m"}}}}]}}"#
        )
    };
    let rolls_back = |script: &Script| {
        fresh();
        with(|proxy| proxy.time = 1_700_000_000_000_000_000);
        let plugin = configured(&canary(SLOW));
        (0..30).map(|_| run(&plugin, script)).fold(String::new(), |_, route| route) == "v1"
    };
    assert!(rolls_back(&Script { upstream: 900, ..PLAIN }));
    assert!(rolls_back(&Script { upload: Some(5), upstream: 900, ..PLAIN }));
    assert!(rolls_back(&Script { upload: Some(5), upstream: 900, ends_twice: true, ..PLAIN }));
    assert!(!rolls_back(&Script { upload: Some(5_000), ..PLAIN }));
    assert!(!rolls_back(&Script { upload: Some(5_000), upstream: 700, ..PLAIN }));
    // A response that begins before the request has ended counts as no time.
    assert!(!rolls_back(&Script { upload: Some(5), upstream: 5_000, is_early: true, ..PLAIN }));
}

#[test]
fn a_body_waits_with_its_request() {
    const GLOBAL: &str = r#"{"rateLimits":[{"name":"l","key":[],"limit":{"requests":5,"per":"1m"},
        "scope":{"global":{"cluster":"rl","domain":"shop"}}}]}"#;
    fresh();
    let plugin = configured(GLOBAL);
    set_headers(&[]);
    let (flow, mut exchange) = Exchange::begin_with(&plugin, false);
    assert_eq!((flow, exchange.body(false)), (Flow::Pause, Flow::Pause));
    exchange.reply(Some(&[8, 1]));
    assert_eq!(exchange.body(true), Flow::Continue);
    exchange.end();
}
