//! Every function of the host answers every status: a request is decided or refused, and never forwarded without a
//! decision.

use super::*;

/// All sections, with conditions on claims, a variant that is watched, and a limit that a service counts.
const EVERYTHING: &str = r#"{"settings":{"filterState":true},
    "egress":{"rules":[{"name":"a","to":[{"host":"a.test"}],"from":["spiffe://td/ns/*/sa/*"]}]},
    "rateLimits":[{"name":"l","key":[{"header":"x-key"}],"limit":{"requests":1000,"per":"1m"}},
        {"name":"g","key":[],"limit":{"requests":5,"per":"1m"},
            "scope":{"global":{"cluster":"rl","domain":"shop","onFailure":"Deny"}}}],
    "routes":{"rules":[{"name":"pro","matches":[{"claims":[{"name":"tier","value":"pro"}]}],"route":"pro"},
        {"name":"all","canary":"c",
            "requestHeaders":{"add":[{"name":"x-added","value":"1"}],"remove":["x-secret"]}}]},
    "canaries":[{"name":"c","stickiness":{"cookie":{"name":"id"}},
        "variants":[{"name":"v1","weight":0},{"name":"v2","weight":1}],
        "rollback":{"variant":"v2","to":"v1","errorPercent":5}}]}"#;

/// What the host was told to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// To forward it.
    Forward,
    /// To answer it with this status.
    Answer(u32),
    /// To reset it.
    Reset,
    /// Nothing: its own timeout ends it.
    Wait,
}

/// What is expected when only this function fails, once the policy is loaded.
fn expected(function: &str, status: u32) -> Told {
    const NOT_FOUND: u32 = 1;
    match function {
        // A value that does not exist yet.
        "proxy_get_shared_data" if status == NOT_FOUND => Told::Forward,
        "proxy_get_header_map_pairs"
        | "proxy_add_header_map_value"
        | "proxy_replace_header_map_value"
        | "proxy_remove_header_map_value"
        | "proxy_get_shared_data"
        | "proxy_set_shared_data"
        | "proxy_get_current_time_nanoseconds"
        | "proxy_continue_stream"
        | "random_get" => Told::Answer(503),
        // The caller is unknown.
        "proxy_get_property" => Told::Answer(403),
        // The service cannot be asked, or its reply cannot be read.
        "proxy_grpc_call" | "proxy_get_buffer_bytes" => Told::Answer(429),
        "proxy_set_effective_context" => Told::Wait,
        _ => Told::Forward,
    }
}

const FUNCTIONS: [&str; 23] = [
    "proxy_log",
    "proxy_get_log_level",
    "proxy_get_buffer_bytes",
    "proxy_get_header_map_pairs",
    "proxy_get_header_map_value",
    "proxy_add_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_remove_header_map_value",
    "proxy_send_local_response",
    "proxy_close_stream",
    "proxy_get_property",
    "proxy_set_property",
    "proxy_get_shared_data",
    "proxy_set_shared_data",
    "proxy_get_current_time_nanoseconds",
    "proxy_define_metric",
    "proxy_increment_metric",
    "proxy_record_metric",
    "proxy_grpc_call",
    "proxy_grpc_cancel",
    "proxy_continue_stream",
    "proxy_set_effective_context",
    "random_get",
];

/// A request that the service lets pass, and its response.
fn exchange() -> Told {
    with(|proxy| {
        let forged = ("x-penstock-route", "forged");
        let headers = [(":method", "GET"), (":authority", "a.test"), (":path", "/"), ("x-secret", "1"), forged];
        proxy.headers = headers.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).to_vec();
        proxy.response_headers = vec![(b":status".to_vec(), b"200".to_vec())];
        proxy.grpc_message = vec![8, 1];
    });
    vm().context_create(STREAM, PLUGIN);
    let flow = vm().request_headers(STREAM, true);
    vm().grpc_receive(1, 2);
    vm().response_headers(STREAM, true);
    vm().delete(STREAM);
    vm().tick(PLUGIN);
    let (was_resumed, sent, was_reset) =
        with(|proxy| (proxy.continued > 0, proxy.sent.as_ref().map(|sent| sent.status), proxy.was_reset));
    match (flow == Flow::Continue || was_resumed, sent, was_reset) {
        (true, None, false) => Told::Forward,
        (false, Some(status), false) => Told::Answer(status),
        (false, None, true) => Told::Reset,
        (false, None, false) => Told::Wait,
        more => panic!("more than one: {more:?}"),
    }
}

#[test]
fn whatever_the_host_answers_the_outcome_is_known() {
    for function in FUNCTIONS {
        for status in (1..=15).chain([255, u32::MAX]) {
            // A second broken function: the refusal itself fails.
            for second in [None, Some("proxy_send_local_response"), Some("proxy_define_metric"), Some("proxy_log")] {
                let case = format!("{function} {status} {second:?}");
                let broken = || [Some(function), second].into_iter().flatten().map(|name| (name, status)).collect();
                fresh();
                with(|proxy| {
                    let caller = b"spiffe://td/ns/a/sa/b".to_vec();
                    proxy.properties.push(("connection\0uri_san_peer_certificate", caller));
                });
                assert!(configured(PLUGIN, EVERYTHING), "{case}");
                with(|proxy| proxy.broken = broken());
                let told = match expected(function, status) {
                    Told::Answer(_) if second == Some("proxy_send_local_response") => Told::Reset,
                    told => told,
                };
                assert_eq!(exchange(), told, "{case}");
                let routes = if told == Told::Forward { vec!["v2"] } else { vec![] };
                assert!(told != Told::Forward || route() == routes, "{case}: {:?}", route());

                // The same host from the beginning: the policy is loaded or refused.
                fresh();
                with(|proxy| proxy.broken = broken());
                assert!(vm_start());
                let is_loaded = configured(PLUGIN, EVERYTHING);
                let told = exchange();
                assert!(is_loaded || matches!(told, Told::Answer(503) | Told::Reset), "{case}: {told:?}");
            }
        }
    }
}
