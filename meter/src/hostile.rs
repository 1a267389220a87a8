//! Requests and policies that are designed to be slow.
//!
//! The cost of a request is bounded by its size: `FIXED + PER_BYTE × bytes` guest instructions, whatever the client
//! sends and whichever policy of this module runs. The generator converts any bytes to a request of up to [`LONGEST`]
//! bytes that repeats what the policy looks for; a property test chooses the bytes at random, and a fuzzer searches for
//! the most expensive ones.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::guest::{Guest, Spent};

/// The maximum cost of a request apart from its size, with all sections in use.
const FIXED: u64 = 400_000;

/// The maximum cost of each byte of a request's headers.
const PER_BYTE: u64 = 100;

/// The size of request headers that Envoy accepts by default.
pub const LONGEST: usize = 60 << 10;

/// The number of headers that Envoy accepts by default.
const MOST_HEADERS: usize = 100;

type Headers = Vec<(Vec<u8>, Vec<u8>)>;

/// Names that the policies look for, and one that they do not.
const NAMES: [&str; 6] = ["v", "w", "user", "x-agent", "n7", "other"];

/// Values that conditions of the policies look for, and values that are similar to them.
const PIECES: [&str; 16] = [
    "v1",
    "v12",
    "1-",
    "Bot3",
    "crawler7",
    "spider",
    "a",
    "x",
    "u77",
    "1",
    "é",
    "/",
    "=",
    "-",
    "aaaaaaaaaaaaaaaa",
    "zzzzzzzzzzzzzzzzx",
];

/// A condition of each type on a field, with type and value chosen by number.
fn condition(name: &str, i: usize) -> Value {
    match i % 7 {
        0 => json!({"name": name, "value": format!("v{i}")}),
        1 => json!({"name": name, "type": "In", "values": (0..20).map(|j| format!("v{}", i + j)).collect::<Vec<_>>()}),
        2 => json!({"name": name, "type": "Prefix", "value": format!("{i}-")}),
        3 => json!({"name": name, "type": "RegularExpression", "value": format!(".*(Bot{i}|crawler{i}|spider{i}).*")}),
        4 => {
            json!({"name": name, "type": "RegularExpression", "value": format!("(?i)[a-z0-9]{{1,200}}x{i}.*"), "invert": true})
        }
        5 => json!({"name": name, "type": "Contains", "value": format!("a{i}")}),
        _ => json!({"name": name, "type": "Suffix", "value": format!("x{i}")}),
    }
}

/// Entries of `matches` that differ in their conditions on one kind of field.
fn entries(field: &str, count: usize) -> Vec<Value> {
    (0..count).map(|i| json!({field: [condition("v", i), condition("w", i + 1)]})).collect()
}

/// Policies with all sections, each with many items of one kind.
pub fn policies() -> Vec<Value> {
    let routes = |field: &str, count: usize| {
        let rule = |(i, entry): (usize, Value)| json!({"name": format!("r{i}"), "route": "r", "matches": [entry]});
        json!({"default": "d", "rules": entries(field, count).into_iter().enumerate().map(rule).collect::<Vec<_>>()})
    };
    let told_apart = |field: &str, name: &str| {
        let rule = |i: usize| json!({"name": format!("r{i}"), "route": "r", "matches": [{field: [{"name": name, "value": format!("v{i}")}]}]});
        json!({"default": "d", "rules": (0..2_000).map(rule).collect::<Vec<_>>()})
    };
    let limits = |field: &str| {
        let limit = |i: usize, entry: Value| {
            json!({"name": format!("l{i}"), "matches": [entry], "key": [{"cookie": "user"}, {"queryParam": "v"}, {"header": "x-agent"}],
                "limit": {"requests": 1_000_000, "per": "1h"}, "capacity": 64})
        };
        json!(entries(field, 8).into_iter().enumerate().map(|(i, entry)| limit(i, entry)).collect::<Vec<_>>())
    };
    let canaries = |overrides: usize| {
        let over = |i: usize| match i % 2 {
            0 => json!({"cookie": {"name": "user", "value": format!("u{i}")}, "variant": "v1"}),
            _ => json!({"header": {"name": "x-agent", "value": format!("u{i}")}, "variant": "v2"}),
        };
        json!([{"name": "c", "stickiness": {"cookie": {"name": "user"}}, "overrides": (0..overrides).map(over).collect::<Vec<_>>(),
            "variants": [{"name": "v1", "weight": 1}, {"name": "v2", "weight": 1}]}])
    };
    let egress = |paths: Value| {
        let rule = |i: usize| json!({"name": format!("e{i}"), "to": [{"host": "*.example.com"}], "methods": ["GET"], "paths": paths});
        json!({"mode": "Audit", "rules": (0..4).map(rule).collect::<Vec<_>>()})
    };
    let expressions = |fields: usize| {
        let rule = |i: usize| {
            json!({"name": format!("r{i}"), "route": "r", "matches": [{"cookies": [
                {"name": format!("n{i}"), "type": "RegularExpression", "value": ".*a.*"}, {"name": "v", "value": "none"}]}]})
        };
        json!({"default": "d", "rules": (0..fields).map(rule).collect::<Vec<_>>()})
    };
    let agent = |i: usize| {
        json!({"name": format!("a{i}"), "route": "r", "matches": [{"headers": [
            {"name": "x-agent", "type": "RegularExpression", "value": format!(".*(Bot{i}|crawler{i}|spider{i}).*")}]}]})
    };
    vec![
        json!({"routes": told_apart("queryParams", "v"), "canaries": canaries(3)}),
        json!({"routes": told_apart("cookies", "v"), "rateLimits": limits("queryParams")}),
        json!({"routes": told_apart("headers", "x-agent"), "canaries": canaries(2_000)}),
        json!({"routes": routes("queryParams", 20), "rateLimits": limits("cookies"), "canaries": canaries(2_000)}),
        json!({"routes": routes("cookies", 20), "rateLimits": limits("headers")}),
        json!({"routes": routes("headers", 20), "egress": egress(json!([{"type": "PathPrefix", "value": "/"}]))}),
        json!({"routes": expressions(300), "canaries": canaries(2_000)}),
        json!({"routes": {"default": "d", "rules": (0..20).map(agent).collect::<Vec<_>>()},
            "egress": egress(json!([{"type": "RegularExpression", "value": "/([a-z]+/)*x"}, {"type": "PathPrefix", "value": "/a/b"}]))}),
    ]
}

/// Bytes that determine the generator's choices. After the last one, every byte is 0.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> usize {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(byte)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let chosen = self.byte();
        all.get(chosen % all.len().max(1)).copied()
    }

    /// A number up to 2¹⁵; small numbers are more frequent.
    fn size(&mut self) -> usize {
        let exponent = self.byte() % 16;
        (1 << exponent) + self.byte() % (1 << exponent).min(256)
    }

    fn name(&mut self) -> String {
        match self.byte() % 8 {
            7 => format!("n{}", self.byte()),
            i => NAMES.get(i % NAMES.len()).copied().unwrap_or_default().to_owned(),
        }
    }

    /// A text of at most `length` bytes: a few pieces, repeated.
    fn text(&mut self, length: usize) -> String {
        let unit: String = (0..1 + self.byte() % 4).filter_map(|_| self.of(&PIECES)).collect();
        let times = (self.size().min(length) / unit.len().max(1)).max(1);
        let mut text = unit.repeat(times);
        while text.len() > length {
            text.pop();
        }
        text
    }

    /// `name=value` many times, with a changing number in the value or in the name.
    fn pairs(&mut self, between: &str, length: usize) -> String {
        let (name, kind, times) = (self.name(), self.byte() % 4, self.size());
        let value = self.text(64);
        let mut text = String::new();
        for i in 0..times {
            let pair = match kind {
                0 => format!("{name}={value}{between}"),
                1 => format!("{name}=v{i}{between}"),
                2 => format!("n{i}={value}{between}"),
                _ => format!("{name}{between}"),
            };
            if text.len() + pair.len() > length {
                break;
            }
            text.push_str(&pair);
        }
        text
    }
}

/// Chooses a policy and a request from any bytes.
pub fn request(bytes: &[u8], policies: usize) -> (usize, Headers) {
    let mut choices = Choices(bytes);
    let policy = choices.byte() % policies.max(1);
    let (mut path, mut query, mut host) = ("/a/b".to_owned(), String::new(), "shop.example.com".to_owned());
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut left = LONGEST - 200;
    while !choices.0.is_empty() && left > 16 && headers.len() < MOST_HEADERS - 4 {
        let before = left;
        match choices.byte() % 8 {
            0 => {
                let text = choices.text(left);
                left -= text.len();
                path.push('/');
                path.push_str(&text.replace(['é', '='], "a"));
            }
            1 => {
                let text = choices.pairs("&", left);
                left -= text.len();
                query.push_str(&text.replace('é', "a"));
            }
            2 => {
                host = format!("{}.{host}", "a.".repeat(choices.byte() % 100).trim_end_matches('.'));
                left -= host.len().min(left);
            }
            3 | 4 => {
                let text = choices.pairs("; ", left - 8);
                left -= (text.len() + 8).min(left);
                headers.push(("cookie".into(), text));
            }
            5 => {
                // One header many times, with the same value or with different values.
                let (name, times, value) = (choices.name(), choices.byte() % MOST_HEADERS, choices.text(left / 4));
                let changes = choices.byte() % 2 == 0;
                for i in 0..times {
                    let value = if changes { format!("v{i}{value}") } else { value.clone() };
                    if value.len() + 16 > left || headers.len() >= MOST_HEADERS - 4 {
                        break;
                    }
                    left -= value.len() + name.len();
                    headers.push((name.clone(), value));
                }
            }
            _ => {
                let (name, value) = (choices.name(), choices.text(left - 16));
                left -= value.len() + name.len();
                headers.push((name, value));
            }
        }
        left = left.min(before - 1);
    }
    let target = if query.is_empty() { path } else { format!("{path}?{query}") };
    let pseudo =
        [(":method", "GET".to_owned()), (":scheme", "https".to_owned()), (":authority", host), (":path", target)];
    let all = pseudo.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(headers);
    (policy, all.map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect())
}

/// The size of the request's headers in bytes.
pub fn size(headers: &[(Vec<u8>, Vec<u8>)]) -> u64 {
    headers.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum()
}

/// A guest with one of the policies.
///
/// # Errors
/// Returns an error when it refuses the policy.
pub fn configured(suite: &std::path::Path, policy: &Value) -> Result<Guest> {
    let mut guest = Guest::load(suite)?;
    let host = guest.host();
    host.time = 1_780_272_000_000_000_000;
    host.properties.insert(b"source\0address".to_vec(), b"192.0.2.1:4711".to_vec());
    host.properties.insert(b"destination\0port".to_vec(), 443_i64.to_le_bytes().to_vec());
    ensure!(guest.configure(policy.to_string())?, "refused: {:?}", guest.host().log);
    Ok(guest)
}

/// The cost of a request.
///
/// # Errors
/// Returns an error when the guest traps.
pub fn cost(guest: &mut Guest, headers: &Headers) -> Result<Spent> {
    let host = guest.host();
    host.time += 1_000_000;
    host.request_headers.clone_from(headers);
    host.response_headers = vec![(b":status".to_vec(), b"200".to_vec())];
    host.sent = None;
    guest.cost_of(|guest| {
        guest.request(7)?;
        guest.response(7)
    })
}

/// Checks that a request does not cost more than its size allows.
///
/// # Errors
/// Otherwise returns an error with the cost.
pub fn check(spent: &Spent, headers: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
    let (bytes, most) = (size(headers), FIXED + PER_BYTE * size(headers));
    let instructions = spent.instructions;
    ensure!(instructions <= most, "{instructions} instructions for {bytes} bytes, {most} allowed");
    Ok(())
}
