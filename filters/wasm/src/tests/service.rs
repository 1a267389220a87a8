//! Requests that wait for a rate-limit service.

use super::*;

/// A limit that a service counts, and a route to see what comes after it.
const GLOBAL: &str = r#"{"routes":{"default":"stable"},"rateLimits":[{"name":"l","key":[],
    "limit":{"requests":5,"per":"1m"},"scope":{"global":{"cluster":"rl","domain":"shop","onFailure":"Deny"}}}]}"#;

/// Field 1, the overall code.
const OK: &[u8] = &[8, 1];
const OVER_LIMIT: &[u8] = &[8, 2];

/// A request that asks; it waits, unless its call is over at once.
fn asking() -> Flow {
    with(|proxy| proxy.headers = vec![(b":path".to_vec(), b"/".to_vec())]);
    vm().context_create(STREAM, PLUGIN);
    vm().request_headers(STREAM, true)
}

fn answer(call: u32, message: &[u8]) {
    with(|proxy| proxy.grpc_message = message.to_vec());
    vm().grpc_receive(call, message.len());
}

/// What became of the request: how often it was told to go on, and the status that it was answered with.
fn outcome() -> (u32, Option<u32>) {
    with(|proxy| (proxy.continued, proxy.sent.as_ref().map(|sent| sent.status)))
}

#[test]
fn a_request_waits_for_the_service_and_does_what_it_says() {
    for (message, expected) in [(OK, (1, None)), (OVER_LIMIT, (0, Some(429))), (&[0xff; 9], (0, Some(429)))] {
        fresh();
        assert!(configured(PLUGIN, GLOBAL));
        assert_eq!(asking(), Flow::Pause);
        assert_eq!(outcome(), (0, None));
        with(|proxy| {
            let (service, request, timeout) = proxy.questions.last().unwrap();
            assert_eq!((service.as_slice(), *timeout), (&b"\x0a\x04\x0a\x02rl"[..], 20));
            // Domain, one descriptor with one entry, the limit and the hits, and the hits again.
            assert_eq!(
                request,
                b"\x0a\x04shop\x12\x1c\x0a\x10\x0a\x0bgeneric_key\x12\x01l\x12\x04\x08\x05\x10\x02\x1a\x02\x08\x01\x18\x01"
                    .as_slice()
            );
        });
        // Somebody else's, or one that is over.
        answer(99, OVER_LIMIT);
        assert_eq!(outcome(), (0, None));
        answer(1, message);
        assert_eq!(outcome(), expected);
        assert_eq!(route(), if expected.0 == 1 { vec!["stable"] } else { vec![] });
        answer(1, OVER_LIMIT);
        assert_eq!(outcome(), expected);
        vm().delete(STREAM);
        with(|proxy| assert!(proxy.cancelled.is_empty()));
    }
}

#[test]
fn a_call_may_be_over_before_it_has_a_number() {
    for (within, broken, expected) in [
        (Some(OK), None, (Flow::Continue, None)),
        (Some(OVER_LIMIT), None, (Flow::Pause, Some(429))),
        (None, None, (Flow::Pause, Some(429))),
        (Some(OK), Some(10), (Flow::Pause, Some(429))),
    ] {
        fresh();
        assert!(configured(PLUGIN, GLOBAL));
        with(|proxy| {
            proxy.grpc_message = within.unwrap_or_default().to_vec();
            proxy.within_call = Some(match within {
                Some(_) => |call| vm().grpc_receive(call, 2),
                None => |call| vm().grpc_close(call),
            });
            proxy.broken.extend(broken.map(|status| ("proxy_grpc_call", status)));
        });
        assert_eq!((asking(), with(|proxy| proxy.sent.as_ref().map(|sent| sent.status))), expected);
        // Nobody pauses, so nobody needs to be told to go on.
        with(|proxy| assert_eq!(proxy.continued, 0));
        vm().delete(STREAM);
    }
}

#[test]
fn a_request_that_ends_while_it_waits_gives_its_call_up() {
    for by_response in [false, true] {
        fresh();
        assert!(configured(PLUGIN, GLOBAL));
        assert_eq!(asking(), Flow::Pause);
        if by_response {
            vm().response_headers(STREAM, true);
            answer(1, OVER_LIMIT);
        }
        vm().delete(STREAM);
        answer(1, OK);
        vm().grpc_close(1);
        assert_eq!(outcome(), (0, None));
        with(|proxy| assert_eq!(proxy.cancelled, [1]));
        assert_eq!(vm().contents(|contents| contents.calls.len() + contents.streams.len()), Some(0));
    }
}

#[test]
fn a_request_that_cannot_go_on_is_refused() {
    fresh();
    assert!(configured(PLUGIN, GLOBAL));
    asking();
    with(|proxy| proxy.broken.push(("proxy_continue_stream", 10)));
    answer(1, OK);
    let expected = refused("continue", "cannot forward the request");
    with(|proxy| assert_eq!(proxy.sent, expected));
    vm().delete(STREAM);
}

#[test]
fn a_body_never_takes_an_undecided_request_along() {
    fresh();
    assert!(configured(PLUGIN, GLOBAL));
    assert_eq!(asking(), Flow::Pause);
    assert_eq!(vm().request_body(STREAM, false), Flow::Pause);
    with(|proxy| proxy.broken.push(("proxy_set_effective_context", 10)));
    answer(1, OK);
    assert_eq!(outcome(), (0, None));
    assert_eq!(vm().request_body(STREAM, true), Flow::Pause);
    vm().delete(STREAM);
    // Nor one that was refused for want of a policy.
    assert_eq!(vm().request_headers(99, false), Flow::Pause);
    assert_eq!(vm().request_body(99, true), Flow::Pause);
}
