//! Global limits with a real Envoy and envoyproxy/ratelimit.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use penstock_integration::http::{self, ClientConnection, HttpRequest, HttpResponse, Protocol, h1};
use penstock_integration::{
    Answer, Bootstrap, Envoy, GrpcServer, PATIENCE, RateLimitService, grpc_cluster, wait_until,
};
use serde_json::{Value, json};

/// Tests run one at a time, because several services and Envoys at once would be too slow.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A timeout that is long enough on a busy machine.
const PATIENT: &str = "5s";

/// One global limit whose window does not end during a test.
fn limit(name: &str, key: Value, requests: u32) -> Value {
    json!({"name": name, "key": key, "limit": {"requests": requests, "per": "24h"}, "scope": scope(PATIENT, "Deny")})
}

fn scope(timeout: &str, on_failure: &str) -> Value {
    json!({"global": {"cluster": "ratelimit", "domain": "shop", "timeout": timeout, "onFailure": on_failure}})
}

fn with(mut limit: Value, field: &str, value: Value) -> Value {
    if let Some(fields) = limit.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
    limit
}

fn envoy(module: &str, limits: &[Value], cluster: Value) -> Result<Envoy> {
    let policy = json!({"rateLimits": limits});
    Bootstrap::module(module, &policy, &[])?.any_cluster(cluster).concurrency(4).start()
}

/// A service that only knows the domain: the limits are in the policy.
fn service() -> Result<Option<RateLimitService>> {
    RateLimitService::start(&["domain: shop\ndescriptors: []\n"])
}

/// Sends a request on a new connection, so that requests reach all workers.
fn send(envoy: &Envoy, request: &HttpRequest) -> Result<HttpResponse> {
    http::send(Protocol::Http2, envoy.ingress()?, request)
}

fn passed(envoy: &Envoy, request: &HttpRequest, count: usize) -> Result<usize> {
    let statuses = (0..count).map(|_| Ok(send(envoy, request)?.status)).collect::<Result<Vec<_>>>()?;
    ensure!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    Ok(statuses.iter().filter(|&&status| status == 200).count())
}

/// Waits until a counter of a limit has the expected value.
fn counted(envoy: &Envoy, limit: &str, outcome: &str, expected: u64) -> Result<()> {
    let name = format!("wasmcustom.penstock.requests_total.section.rateLimits.rule.{limit}.outcome.{outcome}");
    wait_until(format!("{name} is {expected}"), || Ok(envoy.admin().stat(&name)? == expected))
}

/// The number of calls that the service has received.
fn calls(envoy: &Envoy) -> Result<u64> {
    envoy.admin().stat("cluster.ratelimit.upstream_rq_total")
}

fn user(name: &str) -> HttpRequest {
    HttpRequest::get("/").header("x-user", name)
}

fn by_user() -> Value {
    json!([{"header": "x-user"}])
}

#[test]
fn all_workers_together_pass_exactly_as_many_as_the_limit_says() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock();
    let Some(service) = service()? else { return Ok(()) };
    for (number, module) in ["rate-limit", "suite"].into_iter().enumerate() {
        let name = format!("exact-{number}");
        let mut envoy = envoy(module, &[limit(&name, by_user(), 7)], service.cluster("ratelimit"))?;
        for name in ["a", "b"] {
            assert_eq!(passed(&envoy, &user(name), 15)?, 7, "{module} {name}");
        }
        assert_eq!(passed(&envoy, &HttpRequest::get("/"), 10)?, 7, "those without a key share one");
        counted(&envoy, &name, "passed", 21)?;
        counted(&envoy, &name, "limited", 19)?;
        envoy.check_healthy()?;
    }
    Ok(())
}

#[test]
fn several_limits_are_one_call_and_the_tightest_answers() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock();
    let Some(service) = service()? else { return Ok(()) };
    let limits = [limit("two-wide", json!([]), 100), limit("two-narrow", by_user(), 4)];
    let mut envoy = envoy("rate-limit", &limits, service.cluster("ratelimit"))?;
    assert_eq!(passed(&envoy, &user("a"), 6)?, 4);
    assert_eq!(passed(&envoy, &user("b"), 6)?, 4);
    assert_eq!(calls(&envoy)?, 12);
    counted(&envoy, "two-narrow", "limited", 4)?;
    counted(&envoy, "two-wide", "passed", 8)?;
    envoy.check_healthy()
}

#[test]
fn a_cost_counts_as_many_hits() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock();
    let Some(service) = service()? else { return Ok(()) };
    let costly = with(limit("cost", json!([]), 20), "cost", json!({"header": "x-cost"}));
    // Another limit in the same call, which counts requests.
    let mut envoy = envoy("rate-limit", &[costly, limit("plain", json!([]), 20)], service.cluster("ratelimit"))?;
    assert_eq!(passed(&envoy, &HttpRequest::get("/").header("x-cost", "5"), 6)?, 4);
    counted(&envoy, "plain", "limited", 0)?;
    envoy.check_healthy()
}

#[test]
fn a_refusal_has_the_services_headers_times_and_quotas() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock();
    let Some(service) = service()? else { return Ok(()) };
    let mut limit = with(limit("told", json!([]), 2), "quotaHeaders", json!("IETF"));
    limit["response"] = json!({"status": 430, "body": "later\n", "headers": [{"name": "x-reason", "value": "limit"}]});
    let mut envoy = envoy("rate-limit", &[limit], service.cluster("ratelimit"))?;
    let first = send(&envoy, &HttpRequest::get("/"))?;
    let quota = first.header("ratelimit").context("no ratelimit")?;
    assert!(first.status == 200 && quota.starts_with("\"told\";r=1;t="), "{first:?}");
    assert_eq!(first.header("ratelimit-remaining").as_deref(), Some("1"), "the service's own header: {first:?}");
    send(&envoy, &HttpRequest::get("/"))?;
    for protocol in Protocol::ALL {
        let refused = http::send(protocol, envoy.ingress()?, &HttpRequest::get("/"))?;
        assert_eq!((refused.status, refused.text().as_str()), (430, "later\n"));
        let header = |name: &str| refused.header(name).with_context(|| format!("no {name} in {refused:?}"));
        assert_eq!(header("x-reason")?, "limit");
        assert_eq!(header("ratelimit-policy")?, "\"told\";q=2;w=86400");
        assert_eq!(header("ratelimit-remaining")?, "0");
        let wait: u64 = header("retry-after")?.parse()?;
        assert!((1..=86_400).contains(&wait), "{wait}");
        assert_eq!(header("ratelimit")?.split(";t=").next(), Some("\"told\";r=0"));
    }
    let grpc = HttpRequest::new("POST", "example.com", "/pkg.Service/Call").header("content-type", "application/grpc");
    let refused = send(&envoy, &grpc)?;
    assert_eq!((refused.status, refused.header("grpc-status").as_deref()), (200, Some("8")));
    envoy.check_healthy()
}

#[test]
fn sections_after_the_limits_decide_as_if_no_call_had_happened() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock();
    let Some(service) = service()? else { return Ok(()) };
    let policy = json!({
        "rateLimits": [limit("routed", json!([]), 3)],
        "routes": {"default": "stable", "rules": [
            {"name": "beta", "matches": [{"headers": [{"name": "x-user", "value": "b"}]}], "route": "beta"}]},
    });
    let bootstrap = Bootstrap::suite(&policy, &["stable", "beta"])?.any_cluster(service.cluster("ratelimit"));
    let mut envoy = bootstrap.start()?;
    // A body that arrives during the call is forwarded, too.
    for (request, text) in [(user("a"), "stable"), (user("b").body("x".repeat(9000)), "beta")] {
        assert_eq!(send(&envoy, &request)?.text().trim(), text);
    }
    assert_eq!(passed(&envoy, &user("b"), 3)?, 1);
    envoy.check_healthy()
}

#[test]
fn a_shadow_limit_calls_the_service_and_refuses_no_request() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock();
    let Some(service) = service()? else { return Ok(()) };
    let shadow = with(limit("shadow", json!([]), 2), "mode", json!("Shadow"));
    let mut envoy = envoy("rate-limit", &[shadow], service.cluster("ratelimit"))?;
    assert_eq!(passed(&envoy, &HttpRequest::get("/"), 5)?, 5);
    counted(&envoy, "shadow", "wouldLimit", 3)?;
    envoy.check_healthy()
}

#[test]
fn a_local_limit_in_front_keeps_calls_from_the_service() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock();
    let Some(service) = service()? else { return Ok(()) };
    let local = |name: &str, key: Value, requests: u32| json!({"name": name, "key": key, "limit": {"requests": requests, "per": "24h"}});
    // The local limit passes 10 requests; the service passes 6 of them.
    let limits = [local("shield", by_user(), 10), local("other", json!([]), 8), limit("shielded", by_user(), 6)];
    let mut envoy = envoy("rate-limit", &limits, service.cluster("ratelimit"))?;
    assert_eq!(passed(&envoy, &user("a"), 30)?, 6);
    assert_eq!(calls(&envoy)?, 10);
    // A request that the service refused has not consumed the limit with the other key: 8 minus the 6 that passed.
    assert_eq!(passed(&envoy, &user("b"), 30)?, 2);
    assert_eq!(calls(&envoy)?, 12);
    envoy.check_healthy()
}

/// The limits of the failure tests: one allows requests and one refuses them on failure, selected by the path.
fn failing(timeout: &str) -> [Value; 2] {
    ["Allow", "Deny"].map(|on_failure| {
        let limit = with(limit(on_failure, json!([]), 1_000_000), "scope", scope(timeout, on_failure));
        with(limit, "matches", json!([{"path": {"type": "Exact", "value": format!("/{on_failure}")}}]))
    })
}

/// Sends `count` requests on one connection; returns the statuses and the median duration.
fn timed(address: SocketAddr, path: &str, count: usize) -> Result<(Vec<u16>, Duration, Duration)> {
    let mut connection = ClientConnection::open(Protocol::Http1, address)?;
    let mut times = Vec::new();
    let mut statuses = Vec::new();
    for _ in 0..count {
        let started = Instant::now();
        statuses.push(connection.request(&HttpRequest::get(path))?.status);
        times.push(started.elapsed());
    }
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    Ok((statuses, at(50), at(99)))
}

/// Every request must be handled as `onFailure` says, with no more delay than the timeout plus some scheduling delay.
/// On a machine that does other things, one of five measurements may show it.
fn fails(envoy: &Envoy, what: &str, timeout: Duration) -> Result<()> {
    for (path, status) in [("/Allow", 200), ("/Deny", 429)] {
        let mut least = Duration::MAX;
        for _ in 0..5 {
            let (statuses, median, p99) = timed(envoy.ingress()?, path, 40)?;
            println!("{what}, {path}: median {median:?}, p99 {p99:?}, timeout {timeout:?}");
            ensure!(statuses.iter().all(|found| *found == status), "{what}, {path}: {statuses:?}");
            least = least.min(median);
            if least < timeout + Duration::from_millis(200) {
                break;
            }
        }
        ensure!(least < timeout + Duration::from_millis(200), "{what}, {path}: median {least:?}");
    }
    Ok(())
}

#[test]
fn a_service_that_dies_or_hangs_delays_no_request_longer_than_the_timeout() -> Result<()> {
    const TIMEOUT: Duration = Duration::from_millis(20);
    let _alone = ONE_AT_A_TIME.lock();
    let Some(mut service) = service()? else { return Ok(()) };
    let mut envoy = envoy("rate-limit", &failing("20ms"), service.cluster("ratelimit"))?;
    let address = envoy.ingress()?;
    // The service works at first; on a busy machine not every call finishes within 20 ms.
    let (statuses, median, p99) = timed(address, "/Allow", 40)?;
    println!("alive: median {median:?}, p99 {p99:?}");
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");

    service.hang()?;
    fails(&envoy, "hung", TIMEOUT)?;
    let counted = |outcome: &str| {
        let limit = "wasmcustom.penstock.requests_total.section.rateLimits.rule.Deny";
        envoy.admin().stat(&format!("{limit}.outcome.{outcome}"))
    };
    // A call that only one of the two clocks sees time out counts as an error, so not all are timeouts.
    wait_until("the calls are counted", || Ok(counted("timeout")? + counted("error")? >= 40))?;
    assert!(counted("timeout")? >= 20, "{} timeouts, {} errors", counted("timeout")?, counted("error")?);
    service.wake()?;
    let started = Instant::now();
    while send(&envoy, &HttpRequest::get("/Deny"))?.status != 200 {
        assert!(started.elapsed() < PATIENCE, "the service is not asked again");
    }

    // The service is killed while requests are in flight.
    let traffic = thread::scope(|scope| {
        let clients: Vec<_> = ["/Allow", "/Deny"].map(|path| scope.spawn(move || timed(address, path, 400))).into();
        thread::sleep(Duration::from_millis(100));
        service.kill();
        let join = |client: thread::ScopedJoinHandle<'_, Result<_>>| client.join().ok().context("a client panicked")?;
        clients.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    for ((statuses, median, _), allowed) in traffic.into_iter().zip([&[200][..], &[200, 429]]) {
        assert!(statuses.iter().all(|status| allowed.contains(status)), "{statuses:?}");
        println!("killed: median {median:?}");
    }
    fails(&envoy, "dead", Duration::ZERO)?;
    envoy.check_healthy()
}

#[test]
fn an_invalid_answer_is_a_failure_and_causes_no_trap() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock();
    // Field 1 is the overall code.
    let over_limit = vec![0x08, 2];
    for (answer, what) in [
        (Answer::Message(vec![]), "empty"),
        (Answer::Message(vec![0x08, 0]), "UNKNOWN"),
        (Answer::Message(vec![0x08, 99]), "a code of the future"),
        (Answer::Message(vec![0xff; 200]), "garbage"),
        (Answer::Message([&over_limit[..], &[0x12, 0x7f]].concat()), "cut off"),
        (Answer::Message([&over_limit[..], &[0x2a, 0x80, 0x80, 0x40], &[b'x'; 1 << 20]].concat()), "a mebibyte"),
        (Answer::Body(vec![1, 2, 3]), "no frame"),
        (Answer::Body(vec![0, 0xff, 0xff, 0xff, 0xff, 1]), "a frame that lies"),
        (Answer::Status(200, "text/html"), "a web page"),
        (Answer::Status(503, "text/plain"), "503"),
        (Answer::Grpc(0), "OK without a message"),
        (Answer::Grpc(13), "INTERNAL"),
        (Answer::Reset, "a reset"),
        (Answer::GoAway, "a farewell"),
        (Answer::Close, "a closed connection"),
        (Answer::Hang, "nothing"),
        (Answer::After(Duration::from_millis(400), over_limit), "too late"),
    ] {
        let server = GrpcServer::start(answer)?;
        let cluster = grpc_cluster("ratelimit", server.address());
        let mut envoy = envoy("rate-limit", &failing("100ms"), cluster)?;
        for (path, status) in [("/Allow", 200), ("/Deny", 429)] {
            for protocol in Protocol::ALL {
                let response = http::send(protocol, envoy.ingress()?, &HttpRequest::get(path))?;
                assert_eq!(response.status, status, "{what}, {path}: {response:?}");
                assert_eq!(response.header("retry-after"), None, "{what}: nobody knows when");
            }
        }
        assert!(server.calls() > 0, "{what}: nobody asked");
        envoy.check_healthy().with_context(|| what.to_owned())?;
    }
    Ok(())
}

#[test]
fn an_answer_without_details_applies_to_all_limits() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock();
    for (code, status) in [(1, 200), (2, 429)] {
        let server = GrpcServer::start(Answer::Message(vec![0x08, code]))?;
        let mut envoy = envoy("rate-limit", &[limit("l", json!([]), 5)], grpc_cluster("ratelimit", server.address()))?;
        let response = send(&envoy, &HttpRequest::get("/"))?;
        assert_eq!(response.status, status);
        assert_eq!(response.header("retry-after").as_deref(), (code == 2).then_some("1"));
        envoy.check_healthy()?;
    }
    Ok(())
}

#[test]
fn an_unknown_cluster_is_a_failure() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock();
    for module in ["rate-limit", "suite"] {
        let other = grpc_cluster("another", SocketAddr::from(([127, 0, 0, 1], 1)));
        let mut envoy = envoy(module, &failing("20ms"), other)?;
        fails(&envoy, "unknown", Duration::ZERO)?;
        counted(&envoy, "Allow", "error", 40)?;
        envoy.check_healthy()?;
    }
    Ok(())
}

#[test]
fn clients_that_leave_during_a_call_leak_nothing() -> Result<()> {
    let _alone = ONE_AT_A_TIME.lock();
    let server = GrpcServer::start(Answer::After(Duration::from_millis(300), vec![0x08, 1]))?;
    let limits = [with(limit("l", json!([]), 5), "scope", scope("2s", "Deny"))];
    let mut envoy = envoy("rate-limit", &limits, grpc_cluster("ratelimit", server.address()))?;
    for round in 0..30 {
        let mut client = TcpStream::connect(envoy.ingress()?)?;
        client.write_all(&h1::encode(&HttpRequest::get("/")))?;
        // Some clients leave before the call, some during it, some at its end.
        thread::sleep(Duration::from_millis(round * 12));
        drop(client);
    }
    let asked = server.calls();
    assert!(asked > 0, "nobody waited");
    assert_eq!(send(&envoy, &HttpRequest::get("/"))?.status, 200);
    envoy.check_healthy()
}
