//! The server from which Envoy fetches the module is unreachable, closes the connection early, or sends other bytes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use penstock_integration::http::{self, HttpRequest, HttpResponse, Protocol};
use penstock_integration::{
    Bootstrap, Envoy, Listener, Reload, Route, Traffic, Upstream, UpstreamReply, WasmFilter, workspace,
};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::{assert_flawless, beside_others, wait_until};

/// How the server responds to a request for the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Serves,
    /// Closes the connection at once.
    HangsUp,
    /// Announces the length of the module, sends half of it, and closes.
    BreaksOff,
    /// Sends other bytes.
    Lies,
    /// Responds with status 500.
    Fails,
}

const BROKEN: [Manner; 4] = [Manner::HangsUp, Manner::BreaksOff, Manner::Lies, Manner::Fails];

/// A server for one module, on its own port.
struct CodeServer {
    address: SocketAddr,
    bytes: Arc<Vec<u8>>,
    manner: Arc<Mutex<Manner>>,
    asked: Arc<AtomicUsize>,
    name: &'static str,
    stopped: Arc<AtomicBool>,
}

impl CodeServer {
    /// The module's name is also the name of the cluster.
    fn start(module: &'static str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let server = CodeServer {
            address: listener.local_addr()?,
            bytes: Arc::new(std::fs::read(workspace::module(module)?)?),
            manner: Arc::new(Mutex::new(Manner::Serves)),
            asked: Arc::default(),
            name: module,
            stopped: Arc::default(),
        };
        let (bytes, manner) = (Arc::clone(&server.bytes), Arc::clone(&server.manner));
        let (asked, stopped) = (Arc::clone(&server.asked), Arc::clone(&server.stopped));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(std::result::Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                asked.fetch_add(1, Ordering::SeqCst);
                let manner = *manner.lock().unwrap();
                // The proxy may close the connection.
                let _ = answer(stream, manner, &bytes);
            }
        });
        Ok(server)
    }

    fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn cluster(&self) -> Value {
        json!({
            "name": self.name, "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": self.name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
                {"socket_address": {"address": "127.0.0.1", "port_value": self.address.port()}}}}]}]},
        })
    }

    /// The module from this server, with one retry. `nack` is `nack_on_code_cache_miss`.
    fn filter(&self, policy: &Value, nack: bool) -> WasmFilter {
        let sha256: String = digest(&SHA256, &self.bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let code = json!({"remote": {
            "http_uri": {"uri": format!("http://{}/module.wasm", self.address), "cluster": self.name, "timeout": "5s"},
            "sha256": sha256,
            "retry_policy": {"num_retries": 1, "retry_back_off": {"base_interval": "0.1s", "max_interval": "0.2s"}},
        }});
        WasmFilter::at("penstock", Path::new(""), policy).code(code, nack)
    }
}

impl Drop for CodeServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn answer(mut stream: TcpStream, manner: Manner, bytes: &[u8]) -> std::io::Result<()> {
    if manner == Manner::HangsUp {
        return Ok(());
    }
    let _ = stream.read(&mut [0; 4096])?;
    if manner == Manner::Fails {
        return stream.write_all(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len());
    stream.write_all(head.as_bytes())?;
    match manner {
        Manner::BreaksOff => stream.write_all(&bytes[..bytes.len() / 2]),
        Manner::Lies => stream.write_all(&vec![7; bytes.len()]),
        _ => stream.write_all(bytes),
    }
}

/// Everyone may call `always.test`. With a route, the policy also names it in the response.
fn policy(route: Option<&str>) -> Value {
    let egress = json!({"rules": [{"name": "known", "to": [{"host": "always.test"}]}]});
    match route {
        Some(route) => json!({"egress": egress, "routes": {"default": route}}),
        None => json!({"egress": egress}),
    }
}

fn ask(envoy: &Envoy, host: &str) -> Result<u16> {
    Ok(http::send(Protocol::Http1, envoy.ingress()?, &HttpRequest::get("/").at(host))?.status)
}

/// The status of an allowed request and of one that is not.
fn both(envoy: &Envoy) -> Result<[u16; 2]> {
    Ok([ask(envoy, "always.test")?, ask(envoy, "evil.test")?])
}

/// The route with which the policy identifies itself.
fn named(envoy: &Envoy) -> Result<Option<String>> {
    let response = http::send(Protocol::Http1, envoy.ingress()?, &HttpRequest::get("/").at("always.test"))?;
    Ok(response.header("x-saw-x-penstock-route"))
}

/// An Envoy that runs the suite from `suite`, and will be told to fetch another module from `other`.
fn envoy_of_two(suite: &CodeServer, other: &CodeServer, upstream: &Upstream) -> Result<Envoy> {
    let mut bootstrap = Bootstrap::new()?
        .cluster("upstream", upstream.address())
        .any_cluster(suite.cluster())
        .any_cluster(other.cluster());
    let filter = bootstrap.discovered(suite.filter(&policy(Some("v1")), false))?;
    let route = Route::any().to("upstream").echo(&["x-penstock-route"]);
    let envoy = bootstrap.listener(Listener::new("ingress").discovered(filter).route(route)).start()?;
    assert_eq!(both(&envoy)?, [200, 403]);
    assert_eq!(named(&envoy)?.as_deref(), Some("v1"));
    Ok(envoy)
}

fn upstream() -> Result<Upstream> {
    Upstream::start(|_| UpstreamReply::Status(200, vec![]))
}

#[test]
fn a_proxy_that_never_fetched_the_code_answers_503_and_forwards_nothing() -> Result<()> {
    let _others = beside_others();
    for (manner, discovered) in BROKEN.into_iter().zip([false, true, true, false]) {
        let (server, upstream) = (CodeServer::start("suite")?, upstream()?);
        server.set(manner);
        let mut bootstrap = Bootstrap::new()?.cluster("upstream", upstream.address()).any_cluster(server.cluster());
        let filter = server.filter(&policy(None), false);
        let listener = Listener::new("ingress").route(Route::any().to("upstream"));
        let listener =
            if discovered { listener.discovered(bootstrap.discovered(filter)?) } else { listener.wasm(&filter) };
        let envoy = bootstrap.listener(listener).start()?;
        assert_eq!(both(&envoy)?, [503, 503], "{manner:?}");
        // Envoy tries as often as the retry policy says, and then never again.
        let asked = server.asked();
        server.set(Manner::Serves);
        thread::sleep(Duration::from_secs(1));
        assert_eq!(both(&envoy)?, [503, 503], "{manner:?}, the server is back");
        assert_eq!((asked, server.asked(), upstream.requests()), (2, 2, 0), "{manner:?}");
        // docs/envoy.md quotes this line.
        assert!(envoy.log()?.contains("Retry limit exceeded for fetching data from remote data source"), "{manner:?}");
        println!("no code at the start, {manner:?}: 503 for all, asked {asked} times, forwarded nothing");
    }
    Ok(())
}

#[test]
fn a_new_policy_for_code_that_envoy_has_needs_no_server() -> Result<()> {
    let _others = beside_others();
    let (suite, other, upstream) = (CodeServer::start("suite")?, CodeServer::start("canary")?, upstream()?);
    let mut envoy = envoy_of_two(&suite, &other, &upstream)?;
    for (manner, route) in BROKEN.into_iter().zip(["v2", "v3", "v4", "v5"]) {
        suite.set(manner);
        envoy.must_reload("penstock", policy(Some(route)))?;
        assert_eq!(named(&envoy)?.as_deref(), Some(route), "{manner:?}");
        assert_eq!(both(&envoy)?, [200, 403], "{manner:?}");
    }
    assert_eq!(suite.asked(), 1);
    envoy.check_healthy()
}

#[test]
fn new_code_that_cannot_be_fetched_is_refused_and_the_old_keeps_serving_where_envoy_is_told_to() -> Result<()> {
    let _others = beside_others();
    for manner in BROKEN {
        let (suite, other) = (CodeServer::start("suite")?, CodeServer::start("egress-allowlist")?);
        let upstream = upstream()?;
        let mut envoy = envoy_of_two(&suite, &other, &upstream)?;
        let traffic = Traffic::of(2, envoy.ingress()?, |client, number| {
            let (host, status) = [("always.test", 200), ("evil.test", 403)][(client + number) % 2];
            (HttpRequest::get("/").at(host), move |response: &HttpResponse| {
                ensure!(response.status == status, "{host}: {response:?}");
                Ok(())
            })
        });
        other.set(manner);
        // Envoy does not retry a refused configuration that comes again unchanged, so each attempt has a different
        // text. The first one is refused even when the server works, because the code is fetched in the background.
        let mut attempts = (0..).map(|number| {
            let mut policy = policy(None);
            policy["egress"]["rules"][0]["owner"] = json!(format!("attempt-{number}"));
            other.filter(&policy, true)
        });
        for attempt in attempts.by_ref().take(2) {
            let outcome = envoy.replace("penstock", attempt)?;
            assert!(matches!(outcome, Reload::Refused(_)), "{manner:?}");
            traffic.wait_for(50)?;
        }
        assert_eq!(named(&envoy)?.as_deref(), Some("v1"), "{manner:?}");
        other.set(Manner::Serves);
        // Envoy caches a failure for some seconds.
        let back = Instant::now();
        wait_until("the new code", || {
            thread::sleep(Duration::from_millis(500));
            let attempt = attempts.next().context("no end of numbers")?;
            Ok(envoy.replace("penstock", attempt)? == Reload::Taken)
        })?;
        let waited = back.elapsed();
        wait_until("the new module serves", || Ok(named(&envoy)?.is_none()))?;
        traffic.wait_for(50)?;
        let tally = traffic.stop()?;
        assert_flawless(&tally, 100);
        println!(
            "no new code, {manner:?}: {} requests, none failed; new code {waited:?} after the server was back",
            tally.good
        );
        assert!(upstream.all().iter().all(|request| request.header("host").as_deref() == Some("always.test")));
    }
    Ok(())
}

/// This is not desirable: it documents what Envoy 1.40 does, which is the reason for a warning in `docs/envoy.md`. When
/// this test fails, Envoy has improved, and the warning can be removed.
#[test]
fn new_code_is_not_fetched_and_requests_pass_without_a_filter_where_envoy_is_not_told_to_refuse_it() -> Result<()> {
    let _others = beside_others();
    let (suite, other) = (CodeServer::start("suite")?, CodeServer::start("egress-allowlist")?);
    let upstream = upstream()?;
    let mut envoy = envoy_of_two(&suite, &other, &upstream)?;
    assert_eq!(envoy.replace("penstock", other.filter(&policy(None), false))?, Reload::Taken);
    assert_eq!(both(&envoy)?, [200, 200]);
    // The server works again, but Envoy does not contact it.
    thread::sleep(Duration::from_secs(1));
    assert_eq!((both(&envoy)?, other.asked()), ([200, 200], 0));
    Ok(())
}
