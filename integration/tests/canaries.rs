//! `canaries` and `failover` in a real Envoy: agreement of all workers and replicas, cookies, chains, and a variant
//! that breaks under load. What counts as a failure is tested in `breakers.rs`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use penstock_integration::http::{self, ClientConnection, HttpRequest, HttpResponse, Protocol};
use penstock_integration::{Body, Bootstrap, Listener, Route, Traffic, Upstream, UpstreamReply, WasmFilter, workspace};
use penstock_policy::module::Suite;
use penstock_policy::wire::{WireRequest, World};
use penstock_policy::{Policy, Timestamp};
use serde_json::{Value, json};

fn reviews(weights: [u32; 3]) -> Value {
    let [v1, v2, v3] = weights;
    json!({"canaries": [{"name": "reviews", "stickiness": {"header": "x-user"},
        "variants": [{"name": "v1", "weight": v1}, {"name": "v2", "weight": v2}, {"name": "v3", "weight": v3}]}]})
}

/// The variants of `users`, with requests over several connections so that several workers respond.
fn variants(addresses: &[SocketAddr], users: usize) -> Result<Vec<Vec<String>>> {
    let mut replicas = Vec::new();
    for address in addresses {
        let mut connections = Vec::new();
        for protocol in Protocol::ALL.repeat(8) {
            connections.push(ClientConnection::open(protocol, *address)?);
        }
        let count = connections.len();
        let mut variants = Vec::new();
        for user in 0..users {
            let connection = connections.get_mut(user * 7 % count).ok_or_else(|| anyhow!("no connection"))?;
            variants.push(connection.request(&HttpRequest::get("/").header("x-user", format!("user-{user}")))?.text());
        }
        replicas.push(variants);
    }
    Ok(replicas)
}

/// The variant according to `penstock explain` and `replay`.
fn by_the_command(policy: &Policy<Suite>, user: usize) -> Result<String> {
    let request = json!({"method": "GET", "scheme": "http", "authority": "a.test", "path": "/", "headers": [["x-user", format!("user-{user}")]]});
    let request: WireRequest = serde_json::from_value(request)?;
    let decision = request.decide(policy, &mut World::new(Timestamp(0), 0));
    decision.variant.map(|variant| variant.to_string()).ok_or_else(|| anyhow!("no variant"))
}

/// Two replicas with four workers each: one with each body, where both are built.
#[test]
fn both_bodies_and_the_command_agree_on_every_key() -> Result<()> {
    const USERS: usize = 10_000;
    let policy = reviews([50, 30, 20]);
    let names = ["v1", "v2", "v3"];
    let start = |body: Body, module: &str| {
        let filter = WasmFilter::in_body(body, module, &policy)?.named("reviews");
        let listener = Listener::new("ingress").wasm(&filter).routes_named(&names).route(Route::any());
        Bootstrap::new()?.concurrency(4).listener(listener).start()
    };
    let other = if workspace::native_library().is_ok() { Body::Native } else { Body::Wasm };
    let mut replicas = [start(Body::Wasm, "suite")?, start(other, "canary")?];
    let [one, other] = &variants(&[replicas[0].ingress()?, replicas[1].ingress()?], USERS)?[..] else {
        return Err(anyhow!("two replicas"));
    };
    assert_eq!(one, other);
    let engine = Policy::<Suite>::from_json(policy.to_string().as_bytes()).map_err(|problems| anyhow!("{problems}"))?;
    for (user, variant) in one.iter().enumerate() {
        assert_eq!(*variant, by_the_command(&engine, user)?, "user-{user}");
    }
    // The golden vectors of the engine, made with OpenSSL and Python: see `canaries/tests.rs`.
    let golden = "311212311221122111121121112121311213133123121131131112131121";
    let begin: String = one.iter().take(60).map(|variant| variant.trim_start_matches('v')).collect();
    assert_eq!(begin, golden);
    for (name, share) in names.into_iter().zip([0.5, 0.3, 0.2]) {
        let count = one.iter().filter(|variant| *variant == name).count() as f64 / USERS as f64;
        assert!((count - share).abs() < 0.02, "{name}: {count}");
    }
    replicas.iter_mut().try_for_each(|envoy| envoy.check_healthy())
}

#[test]
fn no_user_changes_variant_while_the_policy_is_reloaded() -> Result<()> {
    let policy = |route: &str| {
        let mut policy = reviews([50, 30, 20]);
        policy["routes"] = json!({"rules": [{"name": "admin", "route": route,
            "matches": [{"path": {"type": "PathPrefix", "value": "/admin"}}]}]});
        policy
    };
    let mut envoy = Bootstrap::suite(&policy("a"), &["v1", "v2", "v3", "a", "b"])?.concurrency(2).start()?;
    let address = envoy.ingress()?;
    let mut traffic = Vec::new();
    for user in 0..4 {
        let request = HttpRequest::get("/").header("x-user", format!("user-{user}"));
        let expected = http::send(Protocol::Http1, address, &request)?.text();
        traffic.push(Traffic::start(1, address, &request, move |response: &HttpResponse| {
            ensure!(response.text() == expected, "{} instead of {expected}", response.text());
            Ok(())
        }));
    }
    for route in ["b", "a", "b", "a"] {
        envoy.must_reload("penstock", policy(route))?;
        traffic.iter().try_for_each(|traffic| traffic.wait_for(10))?;
    }
    for traffic in traffic {
        let tally = traffic.stop()?;
        assert!(tally.failures.is_empty() && tally.good >= 40, "{tally:?}");
    }
    envoy.check_healthy()
}

#[test]
fn a_new_user_gets_a_cookie_with_an_id_and_keeps_its_variant() -> Result<()> {
    let policy = json!({"canaries": [{"name": "shop", "stickiness": {"cookie": {"name": "penstock-id"}},
        "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 1}]}]});
    let mut envoy = Bootstrap::module("canary", &policy, &["v1", "v2"])?.concurrency(2).start()?;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        for protocol in Protocol::ALL {
            let first = http::send(protocol, envoy.ingress()?, &HttpRequest::get("/"))?;
            let cookies: Vec<String> = first.values("set-cookie").collect();
            let [cookie] = &cookies[..] else { return Err(anyhow!("{cookies:?}")) };
            let (pair, attributes) = cookie.split_once("; ").ok_or_else(|| anyhow!("{cookie}"))?;
            assert_eq!(attributes, "Path=/; Max-Age=86400; HttpOnly; SameSite=Lax");
            assert!(seen.insert(pair.to_owned()), "{pair} twice");
            let request = HttpRequest::get("/").header("cookie", pair);
            let next = http::send(protocol, envoy.ingress()?, &request)?;
            assert_eq!(next.text(), first.text());
            assert_eq!(next.values("set-cookie").count(), 0);
        }
    }
    envoy.check_healthy()
}

#[test]
fn an_address_sticks_and_a_client_behind_a_proxy_cannot_choose_its_own() -> Result<()> {
    // The number of trusted proxies comes from the policy when Envoy uses the remote address, and otherwise from
    // Envoy's configuration.
    for (hops, remote) in [(1, true), (0, false)] {
        let policy = json!({"settings": {"sourceAddress": {"trustedHops": hops}}, "canaries": [{"name": "shop",
            "stickiness": {"sourceAddress": {}},
            "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 1}]}]});
        let native =
            Policy::<Suite>::from_json(policy.to_string().as_bytes()).map_err(|problems| anyhow!("{problems}"))?;
        let canary = native.canaries().and_then(|all| all.iter().next()).ok_or_else(|| anyhow!("no canary"))?;
        let listener = Listener::new("ingress")
            .manager("use_remote_address", json!(remote))
            .proxy_protocol()
            .wasm(&WasmFilter::new("suite", &policy)?)
            .routes_named(&["v1", "v2"]);
        let mut envoy = Bootstrap::new()?.listener(listener).start()?;
        let address = envoy.ingress()?;
        // The proxy in front. It is not on loopback, because Envoy treats loopback peers specially.
        let ask = |protocol: Protocol, request: &HttpRequest| -> Result<String> {
            let mut connection =
                ClientConnection::open_after(protocol, address, b"PROXY TCP4 192.0.2.9 192.0.2.1 4711 80\r\n")?;
            Ok(connection.request(request)?.text())
        };
        for last in 0..40_u8 {
            let client = [203, 0, 113, last];
            let expected = canary.variant_of(&client, Timestamp(0));
            let address = std::net::Ipv4Addr::from(client).to_string();
            let forged = format!("198.51.100.{last}, {address}");
            for (protocol, forwarded) in Protocol::ALL.into_iter().flat_map(|p| [(p, &address), (p, &forged)]) {
                let request = HttpRequest::get("/").header("x-forwarded-for", forwarded);
                assert_eq!(Some(ask(protocol, &request)?.as_str()), expected, "{hops} {protocol} {forwarded}");
            }
        }
        // Without the header, the address of the connection counts.
        let own = ask(Protocol::Http1, &HttpRequest::get("/"))?;
        assert_eq!(Some(own.as_str()), canary.variant_of(&[192, 0, 2, 9], Timestamp(0)));
        envoy.check_healthy()?;
    }
    Ok(())
}

#[test]
fn behind_a_header_routing_filter_rules_win_defaults_give_way_and_clients_cannot_lie() -> Result<()> {
    let routing = json!({"settings": {"chained": true}, "routes": {"default": "stable", "rules": [
        {"name": "beta", "route": "beta", "matches": [{"headers": [{"name": "x-group", "value": "beta"}]}]}]}});
    let canary = json!({"canaries": [{"name": "shop", "matches": [{"path": {"type": "PathPrefix", "value": "/shop"}}],
        "variants": [{"name": "v2", "weight": 1}]}]});
    let names = ["stable", "beta", "v2"];
    let listener = |filters: &[WasmFilter]| {
        let listener = filters.iter().fold(Listener::new("ingress"), |listener, filter| listener.wasm(filter));
        listener.routes_named(&names).route(Route::any().answers(200, "none"))
    };
    let chain = [WasmFilter::new("header-routing", &routing)?, WasmFilter::new("canary", &canary)?];
    let alone = WasmFilter::new("canary", &canary)?;
    for (filters, rows) in [
        (
            &chain[..],
            [
                ("/shop", "", "", "v2"),
                ("/shop", "beta", "", "beta"),
                ("/", "", "beta", "stable"),
                ("/", "beta", "v2", "beta"),
                ("/shop", "", "beta", "v2"),
            ],
        ),
        (
            std::slice::from_ref(&alone),
            [
                ("/shop", "", "", "v2"),
                ("/shop", "beta", "", "v2"),
                ("/", "", "beta", "none"),
                ("/", "beta", "v2", "none"),
                ("/shop", "", "beta", "v2"),
            ],
        ),
    ] {
        let mut envoy = Bootstrap::new()?.listener(listener(filters)).start()?;
        for (path, group, spoofed, route) in rows {
            for protocol in Protocol::ALL {
                let mut request = HttpRequest::get(path).header("x-group", group);
                if !spoofed.is_empty() {
                    request = request.header("x-penstock-route", spoofed);
                }
                let answer = http::send(protocol, envoy.ingress()?, &request)?.text();
                assert_eq!(answer, route, "{protocol} {path} {group} {spoofed}, {} filters", filters.len());
            }
        }
        envoy.check_healthy()?;
    }
    Ok(())
}

/// What the variant saw in one round of [`a_variant_that_starts_to_fail_at_500_requests_a_second_is_removed_at_once`].
#[derive(Debug)]
struct Round {
    /// Requests a second before it broke.
    rate: f64,
    /// The total number of failed responses.
    failures: usize,
    /// The time from the failure that completed the minimum to the last request that reached the variant.
    late: Duration,
}

#[test]
fn a_variant_that_starts_to_fail_at_500_requests_a_second_is_removed_at_once() -> Result<()> {
    const MINIMUM: usize = 50;
    const CLIENTS: u32 = 10;
    const RATE: u32 = 500;
    /// When the variant breaks. Before that it has had so many successes that the failures are a small share of the
    /// window: 250 of 5,000 are 5 %.
    const HEALTHY: Duration = Duration::from_secs(4);
    /// On a busy machine, scheduling alone may exceed the time limit, so one quiet round is enough.
    const ROUNDS: usize = 8;

    let round = |number: usize| -> Result<Round> {
        let policy = json!({"canaries": [{"name": format!("shop-{number}"),
            "variants": [{"name": "v1", "weight": 0}, {"name": "v2", "weight": 1}],
            "rollback": {"variant": "v2", "to": "v1", "window": "60s", "minRequests": MINIMUM, "errorPercent": 5}}]});
        let broken = Arc::new(AtomicBool::new(false));
        let failures = Arc::new(Mutex::new(Vec::<Instant>::new()));
        let failing = Upstream::forgetful({
            let (broken, failures) = (Arc::clone(&broken), Arc::clone(&failures));
            move |_| {
                if !broken.load(Ordering::SeqCst) {
                    return UpstreamReply::Status(200, vec![]);
                }
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                UpstreamReply::Status(503, vec![])
            }
        })?;
        let listener = Listener::new("ingress")
            .wasm(&WasmFilter::new("suite", &policy)?)
            .route(Route::named("v1"))
            .route(Route::named("v2").to("v2"));
        let mut envoy = Bootstrap::new()?.cluster("v2", failing.address()).concurrency(4).listener(listener).start()?;
        let address = envoy.ingress()?;
        let start = Instant::now() + Duration::from_millis(200);
        let end = start + HEALTHY + Duration::from_secs(2);
        let clients: Vec<_> = Protocol::ALL
            .into_iter()
            .cycle()
            .zip(0..CLIENTS)
            .map(|(protocol, client)| {
                std::thread::spawn(move || -> Result<()> {
                    let mut connection = ClientConnection::open(protocol, address)?;
                    // Clients send at different times, so that all requests together are evenly spread.
                    let mut next = start + Duration::from_secs(1) * client / RATE;
                    while next < end {
                        std::thread::sleep(next.saturating_duration_since(Instant::now()));
                        connection.request(&HttpRequest::get("/"))?;
                        next += Duration::from_secs(1) * CLIENTS / RATE;
                    }
                    Ok(())
                })
            })
            .collect();
        std::thread::sleep((start + HEALTHY).saturating_duration_since(Instant::now()));
        let rate = failing.requests() as f64 / HEALTHY.as_secs_f64();
        broken.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        let line = format!("canary shop-{number}: variant v2: ");
        assert!(envoy.log()?.contains(&line), "{}", envoy.log()?);
        envoy.check_healthy()?;
        let failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
        let minimum = failures.get(MINIMUM - 1).ok_or_else(|| anyhow!("only {} failures", failures.len()))?;
        let late = failures.last().map(|last| last.duration_since(*minimum)).unwrap_or_default();
        Ok(Round { rate, failures: failures.len(), late })
    };
    let mut rounds = Vec::new();
    for number in 0..ROUNDS {
        let round = round(number)?;
        println!("{round:?}");
        // This holds on a busy machine, too: the worker that counts the fiftieth failure knows at once, the others read
        // the state every 50 ms. Only half of the requests that follow could come so soon.
        assert!(round.failures < MINIMUM + usize::try_from(RATE / 2)?, "{round:?}");
        let good = round.late <= Duration::from_millis(100)
            && round.failures <= MINIMUM + usize::try_from(RATE / 10)?
            && round.rate > 0.9 * f64::from(RATE);
        rounds.push(round);
        if good {
            return Ok(());
        }
    }
    Err(anyhow!("no round was good: {rounds:?}"))
}

#[test]
fn the_golden_logarithms_are_the_same_bits_in_the_proxy() -> Result<()> {
    // The user's variant shows which of two scores is greater. Two pairs of weights that enclose the ratio of the
    // golden logarithms as closely as weights can, to about 10⁻¹², must therefore give two different variants.
    const GOLDEN: &str = include_str!("../../filters/policy/src/canaries/golden.txt");
    let cost = |name: &str, user: &str| -> Result<f64> {
        let start = format!("reviews\t{name}\t{user}\t");
        let line =
            GOLDEN.lines().find(|line| line.starts_with(&start)).ok_or_else(|| anyhow!("{start} is not there"))?;
        let bits = line.rsplit('\t').next().unwrap_or_default();
        Ok(f64::from_bits(u64::from_str_radix(bits, 16)?))
    };
    let mut canaries = Vec::new();
    let mut expected = Vec::new();
    for user in 0..30 {
        let user = format!("user-{user}");
        // v1 wins when weight 1 / weight 2 > cost 1 / cost 2.
        let ratio = cost("v1", &user)? / cost("v2", &user)?;
        for (side, (one, two)) in [("v2", neighbours(ratio).0), ("v1", neighbours(ratio).1)] {
            let name = format!("{user}-{side}");
            canaries.push(json!({"name": name, "salt": "reviews", "stickiness": {"header": "x-user"},
                "matches": [{"headers": [{"name": "x-case", "value": name}]}],
                "variants": [{"name": "v1", "weight": one}, {"name": "v2", "weight": two}]}));
            expected.push((user.clone(), name, side));
        }
    }
    let policy = json!({ "canaries": canaries });
    for module in ["suite", "canary"] {
        let mut envoy = Bootstrap::module(module, &policy, &["v1", "v2"])?.start()?;
        for (user, case, variant) in &expected {
            let request = HttpRequest::get("/").header("x-user", user).header("x-case", case);
            let answer = http::send(Protocol::Http1, envoy.ingress()?, &request)?.text();
            assert_eq!(&answer, variant, "{module} {case}");
        }
        envoy.check_healthy()?;
    }
    Ok(())
}

/// The greatest fraction below `ratio` and the least above it, with numerators and denominators up to a million, found
/// by a search in the Stern-Brocot tree.
fn neighbours(ratio: f64) -> ((u32, u32), (u32, u32)) {
    let (mut below, mut above) = ((0, 1), (1, 0));
    loop {
        let between: (u32, u32) = (below.0 + above.0, below.1 + above.1);
        if between.0.max(between.1) > 1_000_000 {
            return (below, above);
        }
        if f64::from(between.0) < ratio * f64::from(between.1) { below = between } else { above = between }
    }
}

#[test]
fn a_cookie_is_secure_exactly_when_the_client_came_over_tls() -> Result<()> {
    let policy = json!({"canaries": [{"name": "shop", "stickiness": {"cookie": {"name": "penstock-id"}},
        "variants": [{"name": "v1", "weight": 1}]}]});
    let filter = WasmFilter::new("canary", &policy)?;
    let listener = |name: &str| Listener::new(name).wasm(&filter).route(Route::named("v1"));
    let file = |name: &str| workspace::root().join("integration/tests/tls").join(name);
    let mut server = Bootstrap::new()?
        .listener(listener("plain").manager("use_remote_address", json!(true)))
        .listener(
            listener("tls").manager("use_remote_address", json!(true)).tls(&file("gateway.crt"), &file("gateway.key")),
        )
        .listener(listener("behind"))
        .start()?;
    // The TLS client is another Envoy.
    let cluster = |name: &str, protocol: Protocol| -> Result<Value> {
        let address = server.address("tls")?;
        let options = match protocol {
            Protocol::Http1 => json!({"http_protocol_options": {}}),
            Protocol::Http2 => json!({"http2_protocol_options": {}}),
        };
        Ok(json!({
            "name": name, "type": "STATIC",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address":
                {"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}}}}]}]},
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": options}},
        }))
    };
    let client = Bootstrap::new()?
        .any_cluster(cluster("one", Protocol::Http1)?)
        .any_cluster(cluster("two", Protocol::Http2)?)
        .listener(
            Listener::new("ingress").route(Route::header("x-over", "two").to("two")).route(Route::any().to("one")),
        )
        .start()?;
    let attributes = |address: SocketAddr, protocol: Protocol, request: &HttpRequest| -> Result<String> {
        let cookie = http::send(protocol, address, request)?.header("set-cookie").unwrap_or_default();
        Ok(cookie.split_once("; ").unwrap_or_default().1.to_owned())
    };
    const PLAIN: &str = "Path=/; Max-Age=86400; HttpOnly; SameSite=Lax";
    for protocol in Protocol::ALL {
        assert_eq!(attributes(server.address("plain")?, protocol, &HttpRequest::get("/"))?, PLAIN, "{protocol}");
    }
    for over in ["one", "two"] {
        // This setting makes the Envoy in between send `:scheme: https` over HTTP/2, as every TLS client does. HTTP/1.1
        // has no scheme; the proxy infers it from the connection.
        let scheme = if over == "two" { "https" } else { "http" };
        let request = HttpRequest::get("/").header("x-over", over).header("x-forwarded-proto", scheme);
        let found = attributes(client.ingress()?, Protocol::Http1, &request)?;
        assert_eq!(found, format!("{PLAIN}; Secure"), "HTTP {over} over TLS");
    }
    // A load balancer that terminates TLS reports the scheme in a header. It counts only where Envoy is configured to
    // trust it.
    for (listener, expected) in [("behind", format!("{PLAIN}; Secure")), ("plain", PLAIN.to_owned())] {
        let request = HttpRequest::get("/").header("x-forwarded-proto", "https");
        let found = attributes(server.address(listener)?, Protocol::Http1, &request)?;
        assert_eq!(found, expected, "{listener}");
    }
    server.check_healthy()
}
