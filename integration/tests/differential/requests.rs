//! Generates random requests, both as a line for `penstock replay` and as a client sends them.

use penstock_integration::http::{HttpRequest, Protocol};
use serde_json::{Value, json};

use super::random::Random;
use super::words::{
    ADDRESSES, COOKIE_NAMES, COOKIE_VALUES, HEADERS, HOSTS, METHODS, PATHS, PORTS, QUERY_NAMES, QUERY_VALUES,
};

/// The same request in both forms.
#[derive(Clone, Debug)]
pub struct Sent {
    /// A line for `penstock replay`.
    pub line: Value,
    /// What a client sends.
    pub request: HttpRequest,
    /// Why Envoy's codec, or its rules for paths and upgrades, may refuse the request before any filter. Such requests
    /// are not compared.
    pub may_be_refused: Option<&'static str>,
}

pub fn request(random: &mut Random, protocol: Protocol) -> Sent {
    let mut may_be_refused = None;
    let method = match protocol {
        // Envoy's HTTP/1.1 codec accepts a list of methods, its HTTP/2 codec any token.
        Protocol::Http2 if random.percent(5) => random.pick(&["BREW", "get", "M-SEARCH"]),
        _ => random.pick(&METHODS),
    };
    let host = if random.percent(70) { HOSTS[random.below(6)] } else { random.pick(&HOSTS) };
    let authority = [host, random.pick(&PORTS)].concat();
    let mut path = if random.percent(60) { PATHS[random.below(8)] } else { random.pick(&PATHS) }.to_owned();
    if !path.is_ascii() || path.contains('\\') {
        may_be_refused = Some("a path that is no URI");
    }
    if random.percent(40) {
        let pairs: Vec<String> = (0..1 + random.below(3))
            .map(|_| {
                [random.pick(&QUERY_NAMES), random.pick(&["=", "=", "=", ""]), random.pick(&QUERY_VALUES)].concat()
            })
            .collect();
        path = [&path, "?", &pairs.join("&")].concat();
    }
    let mut headers: Vec<(String, String)> = Vec::new();
    for _ in 0..random.below(6) {
        // The last ones make egress refuse the request. They are rare, because otherwise most requests would be
        // refused.
        let known = if random.percent(92) { HEADERS.len() - 3 } else { HEADERS.len() };
        let (name, values) = HEADERS[random.below(known)];
        for _ in 0..1 + usize::from(random.percent(30)) {
            headers.push((spelled(random, name), (random.pick(values)).to_owned()));
        }
    }
    if random.percent(40) {
        let pair = |random: &mut Random| [random.pick(&COOKIE_NAMES), "=", random.pick(&COOKIE_VALUES)].concat();
        for _ in 0..1 + usize::from(random.percent(30)) {
            let pairs: Vec<String> = (0..1 + random.below(3)).map(|_| pair(random)).collect();
            headers.push(("cookie".to_owned(), pairs.join(random.pick(&["; ", ";"]))));
        }
    }
    if random.percent(30) {
        let list: Vec<&str> = (0..1 + random.below(3)).map(|_| random.pick(&ADDRESSES)).collect();
        headers.push(("x-forwarded-for".to_owned(), list.join(", ")));
    }
    if random.percent(2) {
        headers.push(("x-user-group".to_owned(), "beta".repeat(2500)));
    }
    if random.percent(10) {
        headers.push(("te".to_owned(), "trailers".to_owned()));
    }
    let mut is_upgrade = false;
    if protocol == Protocol::Http1 && random.percent(10) {
        match random.below(4) {
            0 => headers.push(("Connection".to_owned(), "keep-alive, X-Plan, x-user-group".to_owned())),
            1 => headers.push(("connection".to_owned(), "te".to_owned())),
            _ if method == "GET" => {
                is_upgrade = true;
                let options = random.pick(&["Upgrade", "upgrade, x-plan, x-penstock-route, x-route-to"]);
                headers.push(("Connection".to_owned(), options.to_owned()));
                headers.push(("upgrade".to_owned(), (random.pick(&["websocket", "WebSocket", "h2c"])).to_owned()));
            }
            _ => {}
        }
    }
    let mut request = HttpRequest::new(method, &authority, &path);
    for (name, value) in &headers {
        let name = if protocol == Protocol::Http2 { name.to_lowercase() } else { name.clone() };
        request = request.header(name, value);
    }
    if !is_upgrade && ["POST", "PUT", "PATCH"].contains(&method) && random.percent(30) {
        request = request.body("some body");
        headers.push(("content-length".to_owned(), "9".to_owned()));
    }
    let line = json!({
        "method": method, "scheme": "http", "authority": authority, "path": path, "headers": headers,
    });
    Sent { line, request, may_be_refused }
}

/// Changes a name to upper or lower case at random.
fn spelled(random: &mut Random, name: &str) -> String {
    if random.percent(20) { name.to_uppercase() } else { name.to_owned() }
}
