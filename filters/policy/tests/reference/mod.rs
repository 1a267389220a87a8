//! The egress section once more, as naive as can be: every rule is tried, nothing is indexed, everything is a string.
//!
//! It shares no code with the engine. Property tests and fuzzers hold both against each other.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    dead_code,
    reason = "test code; the fuzzers use other parts of it than the tests"
)]

use std::net::{Ipv4Addr, Ipv6Addr};

use penstock_policy::Timestamp;
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

/// What is answered: a status, or 0 for what is forwarded, and then with which target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub would_respond: Option<u16>,
    pub target: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Name(String),
    V4(u32),
    V6(u128),
}

fn answer(status: u16) -> Answer {
    Answer { status, would_respond: None, target: None }
}

/// `host[:port]` by the words of the contract.
pub fn authority(text: &str) -> Option<(Host, Option<u16>)> {
    if !text.is_ascii() || text.is_empty() {
        return None;
    }
    let colon = if text.starts_with('[') { text.find("]:").map(|at| at + 1) } else { text.find(':') };
    let (host, port) = match colon {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let port = match port {
        None => None,
        Some(port) => Some((1..=65535u32).contains(&port.parse().unwrap_or(0)).then(|| port.to_owned())?),
    };
    // A port that prints as it was written has no sign and no leading zero.
    let port = match port {
        None => None,
        Some(text) => Some(text.parse::<u16>().ok().filter(|port| port.to_string() == text)?),
    };
    if let Some(inside) = host.strip_prefix('[') {
        let address: Ipv6Addr = inside.strip_suffix(']')?.parse().ok()?;
        return Some((Host::V6(address.into()), port));
    }
    if let Some(v4) = dotted_quad(host) {
        return Some((Host::V4(v4), port));
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let labels: Vec<&str> = name.split('.').collect();
    let good = |label: &&str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    let last = labels.last()?;
    let hex = last.strip_prefix("0x").is_some_and(|hex| hex.chars().all(|c| c.is_ascii_hexdigit()));
    let numeric = hex || last.chars().all(|c| c.is_ascii_digit());
    (name.len() <= 253 && labels.iter().all(good) && !numeric).then(|| (Host::Name(name.clone()), port))
}

fn dotted_quad(text: &str) -> Option<u32> {
    let parts: Vec<&str> = text.split('.').collect();
    let bytes: Vec<u8> = parts
        .iter()
        .map(|part| part.parse::<u8>().ok().filter(|byte| byte.to_string() == *part))
        .collect::<Option<_>>()?;
    let four: [u8; 4] = bytes.try_into().ok()?;
    Some(u32::from(Ipv4Addr::from(four)))
}

/// The canonical path, as a chain of rewritings of text.
pub fn canonical(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let mut raw = Vec::new();
    let mut text = String::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'%' {
            raw.push(bytes[at]);
            text.push(bytes[at] as char);
            at += 1;
            continue;
        }
        let digits = path.get(at + 1..at + 3)?;
        if !digits.chars().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        let octet = u8::from_str_radix(digits, 16).ok()?;
        match octet as char {
            '/' | '\\' | '\0' | '%' => return None,
            c if c.is_ascii_alphanumeric() || "-._~;".contains(c) => text.push(c),
            _ => text += &format!("%{octet:02X}"),
        }
        raw.push(octet);
        at += 3;
    }
    let compatible: String = String::from_utf8(raw).ok()?.chars().filter(|c| !c.is_ascii()).nfkc().collect();
    if compatible.contains(['.', '/', '\\', '%', ';']) {
        return None;
    }
    let mut stack: Vec<&str> = Vec::new();
    let parts: Vec<&str> = text.split('/').skip(1).map(|part| part.split(';').next().unwrap()).collect();
    for part in &parts {
        match *part {
            "" | "." => {}
            ".." => drop(stack.pop()?),
            part => stack.push(part),
        }
    }
    let open = matches!(*parts.last()?, "" | "." | "..");
    let joined = format!("/{}", stack.join("/"));
    Some(if open && joined != "/" { joined + "/" } else { joined })
}

fn host_covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => pattern == name,
    }
}

fn range_covers(range: &str, host: &Host) -> bool {
    let (address, length) = range.split_once('/').unwrap();
    let length: u32 = length.parse().unwrap();
    match (address.parse::<Ipv4Addr>(), address.parse::<Ipv6Addr>(), host) {
        (Ok(ours), _, Host::V4(theirs)) => (0..length).all(|i| (u32::from(ours) ^ theirs) >> (31 - i) & 1 == 0),
        (_, Ok(ours), Host::V6(theirs)) => (0..length).all(|i| (u128::from(ours) ^ theirs) >> (127 - i) & 1 == 0),
        _ => false,
    }
}

/// The IPv4 addresses that the digits of an IPv6 address show.
fn embedded(bits: u128) -> Vec<Host> {
    let hex = format!("{bits:032x}");
    let mut found = Vec::new();
    let mut digits = |digits: String| found.push(Host::V4(u32::from_str_radix(&digits, 16).unwrap()));
    let last = hex[24..].to_owned();
    let zeros = |count: usize| "0".repeat(count);
    for prefix in [zeros(24), zeros(20) + "ffff", zeros(16) + "ffff0000", "0064ff9b".to_owned() + &zeros(16)] {
        if hex.starts_with(&prefix) {
            digits(last.clone());
        }
    }
    if hex.starts_with("0064ff9b0001") {
        digits(hex[12..16].to_owned() + &hex[18..22]);
        digits(hex[14..16].to_owned() + &hex[18..24]);
        digits(hex[18..26].to_owned());
        digits(last.clone());
    }
    if hex.starts_with("2002") {
        digits(hex[4..12].to_owned());
    }
    if hex.starts_with("20010000") {
        digits(hex[8..16].to_owned());
        digits(format!("{:08x}", !u32::from_str_radix(&last, 16).unwrap()));
    }
    if ["00005efe", "02005efe"].contains(&&hex[16..24]) {
        digits(last);
    }
    found
}

fn target_covers(to: &Value, host: &Host) -> bool {
    match (to["host"].as_str(), to["cidr"].as_str(), host) {
        (Some(pattern), _, Host::Name(name)) => host_covers(pattern, name),
        (_, Some(range), host) => range_covers(range, host),
        _ => false,
    }
}

fn list(value: &Value) -> Option<Vec<&Value>> {
    value.as_array().map(|items| items.iter().collect())
}

fn caller_covers(pattern: &str, caller: &str) -> bool {
    let (ours, theirs): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), caller.split('/').collect());
    ours.len() == theirs.len()
        && ours.iter().zip(&theirs).all(|(o, t)| o == t || (*o == "*" && !["", ".", ".."].contains(t)))
}

fn path_covers(rule: &Value, path: &str) -> bool {
    let value = rule["value"].as_str().unwrap();
    if rule["type"] == "Exact" {
        return path == value;
    }
    path.starts_with('/') && format!("{}/", path).starts_with(&format!("{}/", value.trim_end_matches('/')))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// Decides `request` by the `egress` object `policy`; both in the form of `penstock replay`.
pub fn decide(policy: &Value, request: &Value) -> Answer {
    let field = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> = list(&request["headers"])
        .unwrap_or_default()
        .iter()
        .map(|pair| (pair[0].as_str().unwrap().to_ascii_lowercase(), pair[1].as_str().unwrap().to_owned()))
        .collect();
    let values = |names: &[&str]| -> Vec<String> {
        headers.iter().filter(|(n, _)| names.contains(&n.as_str())).map(|(_, v)| v.clone()).collect()
    };
    let (method, target) = (field("method"), field("path"));
    let protocol = request["protocol"].as_str();
    let Some((host, port)) = authority(&field("authority")) else { return answer(400) };
    if !is_token(&method) || (protocol.is_some() && method != "CONNECT") {
        return answer(400);
    }
    let tunnel = method == "CONNECT" && protocol.is_none_or(|p| p.eq_ignore_ascii_case("bytestream"));
    let form = tunnel || target.starts_with('/') || (method == "OPTIONS" && target == "*");
    if !form || target.bytes().any(|b| b <= b' ' || b >= 0x7f || b == b'#' || b == b'\\') {
        return answer(400);
    }
    if (tunnel && port.is_none()) || !values(&["x-envoy-original-dst-host"]).is_empty() {
        return answer(400);
    }
    let default = match (policy["defaultPort"].as_u64(), field("scheme").to_ascii_lowercase().as_str()) {
        (Some(port), _) => Some(port as u16),
        (None, "https") => Some(443),
        (None, "http") => Some(80),
        (None, _) => None,
    };
    let full = |port: Option<u16>| port.or(default);
    for value in values(&["host"]) {
        match authority(&value) {
            Some((other, other_port)) if other == host && full(other_port) == full(port) => {}
            _ => return answer(400),
        }
    }
    let has = |to: &Value, port: Option<u16>, unknown: bool| match list(&to["ports"]) {
        None => true,
        Some(ports) => port.map_or(unknown, |port| ports.iter().any(|p| p.as_u64() == Some(u64::from(port)))),
    };
    let has_port = |to: &Value| has(to, full(port), false);
    let now = Timestamp::parse(&field("time"));
    let as_seen = if method == "CONNECT" && !tunnel { "GET".to_owned() } else { method.clone() };
    let lists = |rule: &Value, method: &str| list(&rule["methods"]).is_none_or(|m| m.iter().any(|m| *m == method));
    let selected: Vec<&Value> = list(&policy["rules"])
        .unwrap_or_default()
        .into_iter()
        .filter(|rule| {
            let to = list(&rule["to"]).unwrap();
            let from = list(&rule["from"]);
            let time = |name: &str| rule[name].as_str().and_then(Timestamp::parse);
            to.iter().any(|to| target_covers(to, &host) && has_port(to))
                && from.is_none_or(|from| {
                    request["peer"].as_str().is_some_and(|peer| {
                        !peer.is_empty() && from.iter().any(|p| caller_covers(p.as_str().unwrap(), peer))
                    })
                })
                && lists(rule, &as_seen)
                && time("notBefore").is_none_or(|start| start <= now.unwrap())
                && time("expires").is_none_or(|end| now.unwrap() < end)
        })
        .collect();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query)),
        None => (target.clone(), None),
    };
    let mut seen_path = path.clone();
    if selected.iter().any(|rule| rule.get("paths").is_some()) {
        if !values(&["x-original-url", "x-rewrite-url"]).is_empty() {
            return answer(400);
        }
        if path.starts_with('/') {
            match canonical(&path) {
                Some(path) => seen_path = path,
                None => return answer(400),
            }
        }
    }
    let changed = (seen_path != path).then(|| query.map_or(seen_path.clone(), |query| format!("{seen_path}?{query}")));
    let mut asked: Vec<String> =
        values(&["upgrade"]).iter().flat_map(|v| v.split(',').map(str::to_owned).collect::<Vec<_>>()).collect();
    asked.extend(protocol.map(str::to_owned));
    let allowed = selected.iter().any(|rule| {
        values(&["x-http-method-override", "x-http-method", "x-method-override"]).iter().all(|m| lists(rule, m))
            && (!tunnel || rule["connect"] == true)
            && asked.iter().all(|protocol| {
                list(&rule["upgrades"])
                    .unwrap_or_default()
                    .iter()
                    .any(|listed| listed.as_str().unwrap().eq_ignore_ascii_case(protocol.trim_ascii()))
            })
            && list(&rule["paths"]).is_none_or(|paths| !tunnel && paths.iter().any(|p| path_covers(p, &seen_path)))
    });
    let embedded = match host {
        Host::V6(bits) => embedded(bits),
        _ => Vec::new(),
    };
    let denied = list(&policy["deny"])
        .unwrap_or_default()
        .into_iter()
        .any(|to| (target_covers(to, &host) || embedded.iter().any(|v4| target_covers(to, v4))) && has(to, port, true));
    if denied || !allowed {
        return match policy["mode"] == "Audit" {
            true => Answer { status: 0, would_respond: Some(403), target: None },
            false => answer(403),
        };
    }
    if policy["verifySni"] == true {
        let sni = request["sni"].as_str().map(|sni| sni.strip_suffix('.').unwrap_or(sni).to_ascii_lowercase());
        if sni.map(Host::Name) != Some(host) {
            return answer(421);
        }
    }
    Answer { status: 0, would_respond: None, target: changed }
}
