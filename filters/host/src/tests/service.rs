//! Requests that wait for a rate-limit service.

use super::*;

/// A limit that a service counts, and a route that shows whether the later sections are evaluated.
const GLOBAL: &str = r#"{"routes":{"default":"stable"},"rateLimits":[{"name":"l","key":[],
    "limit":{"requests":5,"per":"1m"},"scope":{"global":{"cluster":"rl","domain":"shop","onFailure":"Deny"}}}]}"#;

/// Field 1, the overall code.
const OK: &[u8] = &[8, 1];
const OVER_LIMIT: &[u8] = &[8, 2];

/// Begins a request that calls the service. It waits, unless the call ends at once.
fn asking() -> (Flow, Exchange) {
    let plugin = configured(GLOBAL);
    set_headers(&[]);
    Exchange::begin(&plugin)
}

/// How often the request was resumed, and the status of the response that the plugin sent.
fn outcome() -> (u32, Option<u32>) {
    with(|proxy| (proxy.continued, proxy.sent.as_ref().map(|sent| sent.status)))
}

#[test]
fn a_request_waits_for_the_service_and_does_what_it_says() {
    for (message, expected) in [(OK, (1, None)), (OVER_LIMIT, (0, Some(429))), (&[0xff; 9], (0, Some(429)))] {
        fresh();
        let (flow, mut exchange) = asking();
        assert_eq!((flow, outcome()), (Flow::Pause, (0, None)));
        with(|proxy| {
            let (cluster, request, timeout) = proxy.questions.last().unwrap();
            assert_eq!((cluster.as_slice(), *timeout), (&b"rl"[..], 20));
            // Domain, one descriptor with one entry, the limit and the hits, and the hits again.
            assert_eq!(
                request,
                b"\x0a\x04shop\x12\x1c\x0a\x10\x0a\x0bgeneric_key\x12\x01l\x12\x04\x08\x05\x10\x02\x1a\x02\x08\x01\x18\x01"
                    .as_slice()
            );
        });
        exchange.reply(Some(message));
        assert_eq!(outcome(), expected);
        assert_eq!(route(), if expected.0 == 1 { vec!["stable"] } else { vec![] });
        exchange.end();
        with(|proxy| assert!(proxy.cancelled.is_empty()));
    }
}

#[test]
fn a_call_may_be_over_before_it_has_a_number() {
    for (early, broken, expected) in [
        (Some(Some(OK)), None, (Flow::Continue, None)),
        (Some(Some(OVER_LIMIT)), None, (Flow::Pause, Some(429))),
        (Some(None), None, (Flow::Pause, Some(429))),
        (None, Some(10), (Flow::Pause, Some(429))),
    ] {
        fresh();
        with(|proxy| {
            proxy.early_reply = early.map(|reply| reply.map(<[u8]>::to_vec));
            proxy.broken.extend(broken.map(|status| ("call", status)));
        });
        let (flow, exchange) = asking();
        assert_eq!((flow, outcome().1), expected);
        // It was not paused, so it is not resumed.
        assert_eq!(outcome().0, 0);
        exchange.end();
    }
}

#[test]
fn a_request_that_ends_while_it_waits_gives_its_call_up() {
    for by_response in [false, true] {
        fresh();
        let (flow, mut exchange) = asking();
        assert_eq!(flow, Flow::Pause);
        if by_response {
            exchange.response();
        }
        exchange.end();
        assert_eq!(outcome(), (0, None));
        with(|proxy| assert_eq!(proxy.cancelled, [1]));
    }
}

#[test]
fn a_service_that_is_late_is_a_timeout_and_one_that_fails_an_error() {
    for (nanos, counter) in [(20_000_000, "timeout"), (1_000_000, "error")] {
        fresh();
        let (_, mut exchange) = asking();
        with(|proxy| proxy.time += nanos);
        exchange.reply(None);
        exchange.plugin.tick();
        assert_eq!(counted(), [(format!("penstock.requests_total.section.rateLimits.rule.l.outcome.{counter}"), 1)]);
    }
}

#[test]
fn a_request_that_cannot_go_on_is_refused() {
    fresh();
    let (_, mut exchange) = asking();
    with(|proxy| proxy.broken.push(("resume", 10)));
    exchange.reply(Some(OK));
    assert_eq!(with(|proxy| proxy.sent.clone()), refused("continue", "cannot forward the request"));
}

/// The same limit, with a cost that a header of the response states.
fn settling(takes_back: bool) -> String {
    let cost = r#""cost":{"responseHeader":"x-tokens-used","reserve":3,"max":1000},"limit""#;
    let global = format!(r#""takesBack":{takes_back},"cluster""#);
    GLOBAL.replace(r#""limit""#, cost).replace(r#""cluster""#, &global)
}

#[test]
fn a_service_is_told_what_the_response_has_cost_beyond_the_reserve() {
    // Hits of the second message, after those of the descriptor: a `UInt64Value`, and whether they are given back.
    let more = |hits: u8| [b"\x1a\x02\x08".as_slice(), &[hits]].concat();
    let back = |hits: u8| [b"\x1a\x02\x08".as_slice(), &[hits], b"\x20\x01"].concat();
    for (takes_back, said, expected) in [
        (false, Some("10"), Some(more(7))),
        (true, Some("10"), Some(more(7))),
        (true, Some("1"), Some(back(2))),
        (true, Some("0"), Some(back(3))),
        // If the service does not support giving back, the reserved amount stays counted.
        (false, Some("1"), None),
        (false, Some("3"), None),
        (true, Some("3"), None),
        (true, Some("none"), None),
        (true, None, None),
    ] {
        fresh();
        let plugin = configured(&settling(takes_back));
        set_headers(&[]);
        let (_, mut exchange) = Exchange::begin(&plugin);
        exchange.reply(Some(OK));
        with(|proxy| {
            assert_eq!(proxy.questions.len(), 1);
            let (_, asked, _) = proxy.questions.last().unwrap();
            assert!(asked.windows(4).any(|part| part == more(3)), "the reserve: {asked:?}");
            proxy.response_headers = vec![(b":status".to_vec(), b"200".to_vec())];
            let said = said.map(|said| (b"x-tokens-used".to_vec(), said.as_bytes().to_vec()));
            proxy.response_headers.extend(said);
        });
        exchange.response();
        with(|proxy| {
            let told = proxy.questions.get(1).map(|(cluster, message, _)| {
                assert_eq!(cluster, b"rl");
                message.clone()
            });
            let has = |part: &Vec<u8>| told.as_ref().is_some_and(|told| told.windows(part.len()).any(|p| p == part));
            assert_eq!(told.is_some(), expected.is_some(), "{takes_back} {said:?}");
            assert!(expected.as_ref().is_none_or(has), "{takes_back} {said:?}: {told:?}");
            assert!(!has(&back(7)), "given back what was to be taken");
        });
        exchange.end();
        plugin.tick();
        let bad = metric("penstock.requests_total.section.rateLimits.rule.l.outcome.badCost");
        assert_eq!(bad, (said == Some("none")).then_some(1), "{said:?}");
    }
}

#[test]
fn what_was_reserved_stays_when_no_response_comes() {
    fresh();
    let plugin = configured(&settling(true));
    set_headers(&[]);
    let (_, mut exchange) = Exchange::begin(&plugin);
    exchange.reply(Some(OK));
    exchange.end();
    with(|proxy| assert_eq!(proxy.questions.len(), 1));
}
