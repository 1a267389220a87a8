//! Requests that wait for a rate-limit service: every way in which its response arrives, or does not.

use super::suite;
use crate::abi::fake::{FakeCallEvent, FakeExchange, Fate, LoadedFilter, with_faults};
use crate::grpc;

const OK: &[u8] = &[8, 1];
const OVER_LIMIT: &[u8] = &[8, 2];
const GOOD: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];
const DONE: &[(&str, &str)] = &[("grpc-status", "0")];

/// A limit that a service counts. A request that it does not decide is refused.
fn global(name: &str) -> LoadedFilter {
    suite(
        name,
        r#"{"routes": {"default": "stable"}, "rateLimits": [{"name": "l", "key": [], "limit": {"requests": 5, "per": "1m"},
            "scope": {"global": {"cluster": "rl", "domain": "shop", "onFailure": "Deny"}}}]}"#,
    )
}

fn data(message: &[u8]) -> FakeCallEvent {
    FakeCallEvent::Data(vec![grpc::frame(message).unwrap()])
}

#[test]
fn a_request_waits_and_does_what_the_service_says() {
    let loaded = global("calls-whole");
    for (message, expected) in
        [(OK, Fate::Forwarded), (OVER_LIMIT, Fate::Answered(429)), (&[0xff], Fate::Answered(429))]
    {
        let exchange = FakeExchange::new(&loaded, &[]);
        assert!(!exchange.request_headers(false));
        assert_eq!((exchange.fate(), exchange.request_body(false)), (Fate::Waits, 2));
        let (calls, given_up) = exchange.calls();
        assert_eq!((calls.len(), calls[0].cluster.as_str(), given_up.len()), (1, "rl", 0));
        assert!(calls[0].headers.contains(&("te".to_owned(), b"trailers".to_vec())));
        assert!(grpc::unframe(&calls[0].body).is_some_and(|message| message.starts_with(b"\x0a\x04shop")));
        exchange.call(&FakeCallEvent::Headers(GOOD));
        exchange.call(&data(message));
        exchange.call(&FakeCallEvent::Trailers(DONE));
        assert_eq!(exchange.fate(), Fate::Waits);
        exchange.call(&FakeCallEvent::Complete);
        assert_eq!(exchange.fate(), expected);
        assert_eq!(exchange.request_body(true), if expected == Fate::Forwarded { 0 } else { 3 });
    }
}

#[test]
fn an_answer_in_pieces_is_one() {
    let loaded = global("calls-pieces");
    let exchange = FakeExchange::sent(&loaded, &[]);
    exchange.call(&FakeCallEvent::Headers(GOOD));
    for byte in grpc::frame(OK).unwrap() {
        exchange.call(&FakeCallEvent::Data(vec![vec![], vec![byte], vec![]]));
    }
    exchange.call(&FakeCallEvent::Trailers(DONE));
    exchange.call(&FakeCallEvent::Complete);
    assert_eq!(exchange.fate(), Fate::Forwarded);
}

/// An invalid response is a failure, which this policy refuses.
#[test]
fn whatever_else_comes_is_a_failure() {
    let loaded = global("calls-failures");
    let good = FakeCallEvent::Headers(GOOD);
    // More data than a message may have, with trailers that report success.
    let large = || FakeCallEvent::Data(vec![grpc::frame(OK).unwrap(), vec![0; 1 << 20]]);
    let failures = [
        vec![FakeCallEvent::Reset],
        vec![FakeCallEvent::Complete],
        vec![good.clone(), FakeCallEvent::Complete],
        vec![good.clone(), data(OK), FakeCallEvent::Complete],
        vec![good.clone(), data(OK), FakeCallEvent::Reset],
        vec![good.clone(), data(OK), FakeCallEvent::Trailers(&[("grpc-status", "14")]), FakeCallEvent::Complete],
        vec![good.clone(), data(OK), FakeCallEvent::Trailers(&[("grpc-status", "x")]), FakeCallEvent::Complete],
        vec![good.clone(), data(OK), FakeCallEvent::Trailers(&[]), FakeCallEvent::Complete],
        vec![
            FakeCallEvent::Headers(&[(":status", "503")]),
            data(OK),
            FakeCallEvent::Trailers(DONE),
            FakeCallEvent::Complete,
        ],
        vec![good.clone(), data(OK), data(OK), FakeCallEvent::Trailers(DONE), FakeCallEvent::Complete],
        vec![good.clone(), FakeCallEvent::Data(vec![]), FakeCallEvent::Trailers(DONE), FakeCallEvent::Complete],
        vec![good.clone(), large(), FakeCallEvent::Trailers(DONE), FakeCallEvent::Complete],
        vec![good.clone(), large(), data(OK), FakeCallEvent::Trailers(DONE), FakeCallEvent::Complete],
        vec![
            good.clone(),
            large(),
            FakeCallEvent::Headers(DONE),
            data(OK),
            FakeCallEvent::Trailers(DONE),
            FakeCallEvent::Complete,
        ],
    ];
    for events in failures {
        let exchange = FakeExchange::sent(&loaded, &[]);
        events.iter().for_each(|event| exchange.call(event));
        assert_eq!(exchange.fate(), Fate::Answered(429), "{:?}", events.len());
        // The same within the callback that starts the call.
        with_faults(
            |faults| faults.call_at_once.clone_from(&events),
            || assert_eq!(FakeExchange::sent(&loaded, &[]).fate(), Fate::Answered(429)),
        );
    }
    let well = vec![good, data(OK), FakeCallEvent::Trailers(DONE), FakeCallEvent::Complete];
    with_faults(
        |faults| faults.call_at_once = well,
        || assert_eq!(FakeExchange::sent(&loaded, &[]).fate(), Fate::Forwarded),
    );
}

#[test]
fn a_response_may_come_within_the_callback_that_lets_the_request_go() {
    let loaded = global("calls-inline");
    with_faults(
        |faults| faults.acts_at_once = true,
        || {
            for (message, expected) in [(OK, Fate::Forwarded), (OVER_LIMIT, Fate::Answered(429))] {
                let exchange = FakeExchange::sent(&loaded, &[]);
                [FakeCallEvent::Headers(GOOD), data(message), FakeCallEvent::Trailers(DONE), FakeCallEvent::Complete]
                    .iter()
                    .for_each(|event| exchange.call(event));
                assert_eq!(exchange.fate(), expected);
            }
        },
    );
}

#[test]
fn a_late_or_foreign_answer_changes_nothing() {
    let loaded = global("calls-late");
    let exchange = FakeExchange::sent(&loaded, &[]);
    for other in [0, 7, u64::MAX] {
        exchange.call_of(other, &FakeCallEvent::Headers(GOOD));
        exchange.call_of(other, &data(OK));
        exchange.call_of(other, &FakeCallEvent::Trailers(DONE));
        exchange.call_of(other, &FakeCallEvent::Complete);
    }
    assert_eq!(exchange.fate(), Fate::Waits);
    // The client leaves: the call is cancelled, and its response ignored.
    exchange.complete();
    assert_eq!(exchange.calls().1, [1]);
    exchange.call(&FakeCallEvent::Headers(GOOD));
    exchange.call(&data(OK));
    exchange.call(&FakeCallEvent::Complete);
    exchange.destroy();
    exchange.call(&FakeCallEvent::Headers(GOOD));
    exchange.call(&data(OK));
    exchange.call(&FakeCallEvent::Complete);
    exchange.call(&FakeCallEvent::Reset);
    assert_eq!(exchange.fate(), Fate::Waits);
}

#[test]
fn the_configuration_may_go_while_a_request_of_it_waits() {
    let loaded = global("calls-reload");
    let exchange = FakeExchange::sent(&loaded, &[]);
    drop(loaded);
    exchange.call(&FakeCallEvent::Headers(GOOD));
    exchange.call(&data(OK));
    exchange.call(&FakeCallEvent::Trailers(DONE));
    exchange.call(&FakeCallEvent::Complete);
    assert_eq!(exchange.fate(), Fate::Forwarded);
}

/// A limit whose service is told the cost that the response states.
fn settled(name: &str) -> LoadedFilter {
    suite(
        name,
        r#"{"rateLimits": [{"name": "l", "key": [], "limit": {"requests": 1000, "per": "1m"},
            "cost": {"responseHeader": "x-cost", "reserve": 1}, "scope": {"global": {"cluster": "rl", "domain": "shop"}}}]}"#,
    )
}

/// A request that the service has admitted.
fn admitted(loaded: &LoadedFilter) -> FakeExchange {
    let exchange = FakeExchange::sent(loaded, &[]);
    [FakeCallEvent::Headers(GOOD), data(OK), FakeCallEvent::Trailers(DONE), FakeCallEvent::Complete]
        .iter()
        .for_each(|event| exchange.call(event));
    assert_eq!((exchange.fate(), exchange.calls().0.len()), (Fate::Forwarded, 1));
    exchange
}

/// Envoy cancels the calls of a stream that ends.
#[test]
fn the_end_of_a_response_waits_until_the_service_has_its_cost() {
    let loaded = settled("calls-told");
    const COST: (&str, &str) = ("x-cost", "500");
    for end in [FakeCallEvent::Complete, FakeCallEvent::Reset] {
        let exchange = admitted(&loaded);
        exchange.response_begins(&[(":status", "200"), COST]);
        assert_eq!((exchange.calls().0.len(), exchange.response_body(false), exchange.response_body(true)), (2, 0, 2));
        exchange.call(&FakeCallEvent::Headers(GOOD));
        assert_eq!(exchange.responses_resumed(), 0);
        exchange.call(&end);
        exchange.call(&end);
        assert_eq!(exchange.responses_resumed(), 1);
        // The service has it before the end arrives: nothing waits.
        let exchange = admitted(&loaded);
        exchange.response_begins(&[(":status", "200"), COST]);
        exchange.call(&end);
        assert_eq!((exchange.response_body(true), exchange.responses_resumed()), (0, 0));
    }
    // A response without a body.
    let exchange = admitted(&loaded);
    assert_eq!(exchange.response(&[(":status", "204"), COST], &[]), 1);
    exchange.call(&FakeCallEvent::Complete);
    assert_eq!(exchange.responses_resumed(), 1);
    // There is nothing to tell.
    let exchange = admitted(&loaded);
    assert_eq!(exchange.response(&[(":status", "204"), ("x-cost", "1")], &[]), 0);
    // A call that ends while it is started, one that cannot start, and an Envoy that cannot continue a response.
    let exchange = admitted(&loaded);
    with_faults(
        |faults| faults.call_at_once = vec![FakeCallEvent::Reset],
        || assert_eq!(exchange.response(&[(":status", "204"), COST], &[]), 0),
    );
    let exchange = admitted(&loaded);
    with_faults(
        |faults| faults.failing.extend(["http_filter_start_http_stream"]),
        || assert_eq!(exchange.response(&[(":status", "204"), COST], &[]), 0),
    );
    assert!(crate::abi::fake::load_without(&["http_filter_continue_encoding"]));
    let exchange = admitted(&loaded);
    assert_eq!(exchange.response(&[(":status", "204"), COST], &[]), 0);
    crate::abi::fake::load_without(&[]);
}
