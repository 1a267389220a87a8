//! 50,000 clients, each identified by an address in `x-forwarded-for` and by a key.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use penstock_integration::http::{HttpRequest, h1};
use penstock_integration::{Bootstrap, Listener, Route, WasmFilter};
use serde_json::{Value, json};

use crate::alone;

const CLIENTS: usize = 50_000;
/// The memory of the full tables of two limits with 65,536 keys each (see docs/operations.md), and of Envoy's
/// connections, in KiB.
const BOUND: u64 = 2 * 3 * 1024 + 4 * 1024;

/// One limit by address and one by key, each of which passes every client once a day.
fn policy() -> Value {
    let once = json!({"requests": 1, "per": "24h"});
    let matches = json!([{"hostnames": ["shop.test"]}]);
    json!({
        "settings": {"sourceAddress": {"trustedHops": 1}},
        "rateLimits": [
            {"name": "by-address", "matches": matches, "key": [{"sourceAddress": {}}], "limit": once},
            {"name": "by-key", "matches": matches, "key": [{"header": "x-api-key"}], "limit": once},
        ],
    })
}

fn address_of(client: usize) -> Result<Ipv4Addr> {
    // The last address of the list is the one that the trusted proxy saw; the one before was written by the client.
    Ok(Ipv4Addr::from(0x0b00_0000 + u32::try_from(client)?))
}

fn request(host: &str, client: usize) -> Result<Vec<u8>> {
    let address = address_of(client)?;
    let request = HttpRequest::get("/")
        .at(host)
        .header("x-forwarded-for", format!("198.51.100.1, {address}"))
        .header("x-api-key", format!("key-of-client-{client}"));
    Ok(h1::encode(&request))
}

/// Each of this many clients sends one request; returns how many pass.
fn round(address: SocketAddr, host: &'static str, clients: usize) -> Result<usize> {
    const THREADS: usize = 4;
    let part = move |thread: usize| -> Result<usize> {
        let mut connection = h1::Http1Connection::open_after(address, b"PROXY TCP4 192.0.2.9 192.0.2.1 4711 80\r\n")?;
        let mut passed = 0;
        for client in (thread..clients).step_by(2 * THREADS) {
            connection.send(&[request(host, client)?, request(host, client + THREADS)?].concat())?;
            for _ in 0..2 {
                let response = connection.receive(false)?;
                ensure!([200, 429].contains(&response.status), "{response:?}");
                passed += usize::from(response.status == 200);
            }
        }
        Ok(passed)
    };
    let threads: Vec<_> = (0..THREADS).map(|number| thread::spawn(move || part(number))).collect();
    threads.into_iter().map(|thread| thread.join().ok().context("a client panicked")?).sum()
}

#[test]
fn fifty_thousand_clients_have_their_own_buckets_in_bounded_memory() -> Result<()> {
    let _alone = alone();
    let listener = Listener::new("ingress")
        .manager("use_remote_address", json!(true))
        .proxy_protocol()
        .wasm(&WasmFilter::new("suite", policy())?)
        .route(Route::any());
    let mut envoy = Bootstrap::new()?.concurrency(4).listener(listener).start()?;
    let address = envoy.ingress()?;
    // First warms up connections, buffers and workers, with hosts that have no limit.
    round(address, "none.test", CLIENTS / 10)?;
    let before = envoy.resident()?;
    let started = Instant::now();
    let first = round(address, "shop.test", CLIENTS)?;
    let second = round(address, "shop.test", CLIENTS)?;
    let took = started.elapsed();
    // No client is refused because of others, except the few whose set is full and who share a bucket.
    assert!(first * 1000 >= CLIENTS * 999, "{first} passed");
    assert_eq!(second, 0, "more than the limit");
    let after = envoy.resident()?;
    println!(
        "{CLIENTS} clients twice in {took:?}: {first} passed the first time, {second} the second; {before} KiB before, {after} KiB after"
    );
    assert!(after < before + BOUND, "{before} KiB, then {after} KiB");
    envoy.check_healthy()
}
