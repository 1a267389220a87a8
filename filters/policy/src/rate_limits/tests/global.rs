//! Limits that a service counts.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A limit of global scope.
fn global(name: &str, rest: &str) -> String {
    format!(
        r#"{{"name":"{name}","key":[{{"header":"x-user"}}],"limit":{{"requests":9,"per":"1h"}},
        "scope":{{"global":{{"cluster":"rl","domain":"shop"}}}}{rest}}}"#
    )
}

/// Decides with these replies, one for each question; the decision's status, 0 for none, and how many were asked.
fn ask(
    policy: &Policy<module::RateLimit>,
    worker: &mut Worker<'_>,
    headers: &[Header<'_>],
    replies: &[RlsReply],
) -> (u16, usize) {
    let request = Request::new(headers);
    let status = |decision: &Decision<'_>| match &decision.action {
        Action::Respond(response) => response.status,
        Action::Continue => 0,
    };
    let mut pending = match policy.decide(&request, worker) {
        Ok(decision) => return (status(&decision), 0),
        Err(pending) => pending,
    };
    let mut asked = 0;
    while policy.rls_request(&pending).is_some() {
        pending.on_reply(replies[asked].clone());
        asked += 1;
    }
    (status(&policy.resume(&request, &pending, worker)), asked)
}

#[test]
fn limits_of_one_service_are_one_question_and_a_refusal_ends_it() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let other = global("c", "").replace("shop", "other");
    let policy = policy(&[global("a", ""), other, global("b", "")].join(","));
    let (ok, over) = (RlsReply::plain(false), RlsReply::plain(true));
    assert_eq!(ask(&policy, &mut worker, &user("x"), &[ok.clone(), ok.clone()]), (0, 2));
    assert_eq!(ask(&policy, &mut worker, &user("x"), &[ok, over.clone()]), (429, 2));
    assert_eq!(ask(&policy, &mut worker, &user("x"), &[over]), (429, 1));
}

#[test]
fn a_service_that_fails_is_what_the_limit_says() {
    for (rest, status) in [("", 0), (r#","mode":"Shadow""#, 0)] {
        for failure in [ServiceFailure::Timeout, ServiceFailure::Error] {
            let shared = RefCell::default();
            let mut worker = Worker::new(&shared);
            let allow = policy(&global("a", rest));
            assert_eq!(ask(&allow, &mut worker, &user("x"), &[RlsReply::failed(failure)]), (status, 1));
            let deny = global("a", rest).replace(r#""shop""#, r#""shop","onFailure":"Deny""#);
            let expected = if rest.is_empty() { 429 } else { 0 };
            assert_eq!(ask(&policy(&deny), &mut worker, &user("x"), &[RlsReply::failed(failure)]), (expected, 1));
        }
    }
}

#[test]
fn what_a_service_refuses_takes_nothing_from_local_limits_but_its_shield() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let local =
        |name: &str, key: &str| format!(r#"{{"name":"{name}","key":[{key}],"limit":{{"requests":3,"per":"1h"}}}}"#);
    let limits = [local("shield", r#"{"header":"x-user"}"#), local("all", ""), global("g", "")].join(",");
    let policy = policy(&limits);
    for expected in [(429, 1), (429, 1), (429, 1), (429, 0)] {
        assert_eq!(ask(&policy, &mut worker, &user("x"), &[RlsReply::plain(true)]), expected);
    }
    // Another user's shield is full, and so is the bucket of all.
    for expected in [(0, 1), (0, 1), (0, 1), (429, 0)] {
        assert_eq!(ask(&policy, &mut worker, &user("y"), &[RlsReply::plain(false)]), expected);
    }
}

#[test]
fn what_is_given_back_is_never_more_than_is_still_owed() {
    for (burst, waits, expected) in [
        // One each 10 ms: what the first took has drained when the second takes, so nothing is left to give back.
        (1, [10, 1], 0),
        // The second takes when a half of the first is paid off: that half is there.
        (2, [5, 0], 1),
        (2, [5, 4], 1),
        (2, [5, 5], 1),
        (3, [0, 0], 2),
    ] {
        let shared = RefCell::default();
        let mut worker = Worker::new(&shared);
        let local = format!(r#"{{"name":"all","key":[],"limit":{{"requests":100,"per":"1s","burst":{burst}}}}}"#);
        let policy = policy(&format!("{local},{}", global("g", "")));
        let headers = user("x");
        let request = Request::new(&headers);
        let mut first = policy.decide(&request, &mut worker).unwrap_err();
        worker.now.0 += waits[0] * 1_000_000;
        let second = policy.decide(&request, &mut worker).unwrap_err();
        worker.now.0 += waits[1] * 1_000_000;
        first.on_reply(RlsReply::plain(true));
        policy.resume(&request, &first, &mut worker);
        drop(second);
        let alone = super::policy(&local);
        assert_eq!(passed(&alone, &mut worker, &[], 9), expected, "{burst} {waits:?}");
    }
}

#[test]
fn what_a_service_cannot_do_is_refused() {
    let problem = |from: &str, to: &str| problems(&global("g", "").replace(from, to)).concat();
    assert!(
        problem(r#""1h""#, r#""10s""#)
            .contains("limit.per: is not a unit of a rate-limit service; use 1s, 1m, 1h or 24h")
    );
    assert!(problem(r#""per""#, r#""burst":3,"per""#).contains("limit.burst: has no meaning in global scope"));
    assert!(problem(r#""scope""#, r#""capacity":3,"scope""#).contains("capacity: has no meaning in global scope"));
    assert!(problem(r#""shop""#, r#""shop","onFailure":"Open""#).contains("onFailure"));
    assert!(problem(r#""shop""#, r#""shop","timeout":"0s""#).contains("timeout"));
}

#[cfg(not(target_arch = "wasm32"))]
mod answers {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_a_failure(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let shared = RefCell::default();
            let policy = policy(&[global("a", ""), global("b", "")].join(","));
            let (status, asked) = ask(&policy, &mut Worker::new(&shared), &user("x"), &[RlsReply::read(&bytes)]);
            prop_assert!(asked == 1 && [0, 429].contains(&status));
        }
    }

    #[test]
    fn an_answer_is_read_limit_by_limit() {
        let shared = RefCell::default();
        let policy = policy(&[global("a", r#","quotaHeaders":"IETF""#), global("b", "")].join(","));
        // OVER_LIMIT; a: OK, 4 left, reset in 90.5 s; b: OVER_LIMIT, reset in 7 s; a response header, and one that frames.
        let answer =
            b"\x08\x02\x12\x0e\x08\x01\x18\x04\x22\x08\x08\x5a\x10\x80\xca\xb5\xee\x01\x12\x06\x08\x02\x22\x02\x08\x07\
            \x1a\x06\x0a\x01X\x12\x01y\x1a\x13\x0a\x0econtent-length\x12\x011";
        let request = user("x");
        let request = Request::new(&request);
        let mut worker = Worker::new(&shared);
        let mut pending = policy.decide(&request, &mut worker).unwrap_err();
        pending.on_reply(RlsReply::read(answer));
        let decision = policy.resume(&request, &pending, &mut worker);
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let text = |(name, value): &(&str, std::borrow::Cow<'_, [u8]>)| header(name, &String::from_utf8_lossy(value));
        let headers: Vec<_> = decision.response_headers.iter().map(text).collect();
        assert_eq!(
            headers,
            [header("x", "y"), header("ratelimit-policy", "\"a\";q=9;w=3600"), header("ratelimit", "\"a\";r=4;t=91")]
        );
        let Action::Respond(response) = &decision.action else { panic!("{decision:?}") };
        assert_eq!(response.headers.iter().map(text).collect::<Vec<_>>(), [header("retry-after", "7")]);
        assert_eq!(decision.rule, Some("b"));
    }
}

/// A reply of OK that asks for these headers of the request.
fn reply_with(headers: &[(&str, &str)]) -> RlsReply {
    let mut message = vec![1 << 3, 1];
    for (name, value) in headers {
        let mut header = Vec::new();
        crate::protobuf::put_bytes(&mut header, 1, name.as_bytes());
        crate::protobuf::put_bytes(&mut header, 2, value.as_bytes());
        crate::protobuf::put_bytes(&mut message, 4, &header);
    }
    RlsReply::read(&message)
}

#[test]
fn a_service_adds_no_header_that_frames_routes_or_redirects_the_request() {
    let shared = RefCell::default();
    let mut worker = Worker::new(&shared);
    let mut policy = policy(&global("a", ""));
    policy.start(&mut worker).unwrap();
    let names = policy.metrics().names();
    let headers = user("x");
    let request = Request::new(&headers);
    for (name, is_added) in [
        ("x-quota", true),
        ("x-forwarded-prefix", true),
        ("X-Penstock-Route", false),
        ("x-envoy-original-dst-host", false),
        (":authority", false),
        ("Host", false),
        (":path", false),
        (":method", false),
        ("x-original-url", false),
        ("X-Rewrite-URL", false),
        ("x-http-method-override", false),
        ("X-HTTP-Method", false),
        ("x-method-override", false),
        ("transfer-encoding", false),
        ("Content-Length", false),
        ("connection", false),
        ("upgrade", false),
    ] {
        let mut pending = policy.decide(&request, &mut worker).unwrap_err();
        pending.on_reply(reply_with(&[(name, "v"), ("x-other", "v")]));
        let decision = policy.resume(&request, &pending, &mut worker);
        let added: Vec<&str> = decision
            .headers
            .iter()
            .map(|change| match change {
                HeaderOp::Set(name, _) | HeaderOp::Add(name, _) | HeaderOp::Remove(name) => *name,
            })
            .collect();
        let name = name.to_ascii_lowercase();
        let expected = if is_added { vec![&*name, "x-other"] } else { vec!["x-other"] };
        assert_eq!(added, expected);
        let dropped =
            decision.counts.iter().filter(|metric| names[metric.index()].ends_with("_service.outcome.headersDropped"));
        assert_eq!(dropped.count(), usize::from(!is_added), "{name}");
    }
}
