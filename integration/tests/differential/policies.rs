//! Generates random policies with all sections. All of them are valid.

use penstock_integration::Body;
use serde_json::{Map, Value, json};

use super::random::Random;
use super::words::{
    COOKIE_NAMES, COOKIE_VALUES, HEADER_EXPRESSIONS, HEADERS, HOST_RULES, METHODS, PATH_EXPRESSIONS, PATH_RULES,
    PEER_STATE, QUERY_NAMES, QUERY_VALUES, WORKLOADS,
};

/// Generates one policy. `is_edge`: Envoy appends the peer's address to `x-forwarded-for`.
pub fn policy(random: &mut Random, is_edge: bool) -> Value {
    let mut policy = Map::new();
    let has_egress = random.percent(35);
    let settings = settings(random, is_edge, has_egress);
    if !settings.is_empty() {
        policy.insert("settings".into(), Value::Object(settings));
    }
    if has_egress {
        policy.insert("egress".into(), egress(random));
    }
    if random.percent(50) {
        let limits = (0..1 + random.below(3)).map(|number| limit(random, number)).collect();
        policy.insert("rateLimits".into(), Value::Array(limits));
    }
    let canaries = if random.percent(60) { 1 + random.below(2) } else { 0 };
    // The last choice may be a rule's own value.
    let of_a_rule = canaries > 0 && random.percent(30);
    if random.percent(80) || of_a_rule || policy.is_empty() {
        policy.insert("routes".into(), routes(random, has_egress, of_a_rule.then(|| format!("c{}", canaries - 1))));
    }
    if canaries > 0 {
        let list = (0..canaries).map(|number| canary(random, number, of_a_rule && number == canaries - 1)).collect();
        policy.insert("canaries".into(), Value::Array(list));
    }
    Value::Object(policy)
}

fn settings(random: &mut Random, is_edge: bool, has_egress: bool) -> Map<String, Value> {
    let mut settings = Map::new();
    if random.percent(20) {
        settings.insert("routeHeader".into(), json!("x-route-to"));
    }
    if random.percent(30) {
        settings.insert("path".into(), json!("Canonical"));
    }
    if has_egress && random.percent(60) || random.percent(20) {
        // A dynamic module does not see the node's metadata.
        let identity = match Body::of_environment() {
            Body::Wasm => json!({"workload": {"trustDomain": "cluster.local"}}),
            Body::Native => json!({"filterState": PEER_STATE}),
        };
        settings.insert("identity".into(), identity);
    }
    match random.below(4) {
        // Without the appended address, clients control all entries: the documentation recommends 0 here.
        0 if is_edge => settings.insert("sourceAddress".into(), json!({"trustedHops": 1 + random.below(2)})),
        1 => settings.insert("sourceAddress".into(), json!({"trustedProxies": ["10.0.0.0/8"]})),
        _ => None,
    };
    settings
}

fn condition(random: &mut Random, name: &str, values: &[&str], expressions: &[&str]) -> Value {
    let value = random.pick(values);
    let mut condition = match random.below(9) {
        0 => json!({"type": "Prefix", "value": value.get(..2).unwrap_or("b")}),
        1 => json!({"type": "Suffix", "value": value.get(1..).filter(|rest| !rest.is_empty()).unwrap_or("a")}),
        2 => json!({"type": "Contains", "value": value.get(1..2).unwrap_or("e")}),
        3 => json!({"type": "RegularExpression", "value": random.pick(expressions)}),
        4 => {
            let mut values = random.some(values, 50);
            values.dedup();
            json!({"type": "In", "values": values})
        }
        5 => json!({"type": "Present"}),
        6 => {
            let joined = [value, random.pick(values)].join(",");
            json!({"type": "Exact", "value": joined})
        }
        _ => json!({"value": value}),
    };
    condition["name"] = json!(name);
    if random.percent(15) {
        condition["invert"] = json!(true);
    }
    condition
}

fn matches(random: &mut Random) -> Value {
    (0..1 + random.below(3)).map(|_| entry(random)).collect()
}

fn entry(random: &mut Random) -> Value {
    let mut entry = Map::new();
    for _ in 0..1 + random.below(2) {
        match random.below(7) {
            0 => entry.insert("method".into(), json!(random.pick(&METHODS))),
            1 => entry.insert("hostnames".into(), json!(random.some(&HOST_RULES, 30))),
            2 => entry.insert("path".into(), path(random)),
            3 => entry.insert(
                "queryParams".into(),
                json!([condition(random, QUERY_NAMES[0], &QUERY_VALUES, &HEADER_EXPRESSIONS)]),
            ),
            4 => {
                let name = random.pick(&COOKIE_NAMES);
                let values = &COOKIE_VALUES[..3];
                entry.insert("cookies".into(), json!([condition(random, name, values, &HEADER_EXPRESSIONS)]))
            }
            _ => {
                // Conditions may not use the route header.
                let (name, values) = random.pick(&HEADERS[2..]);
                entry.insert("headers".into(), json!([condition(random, name, values, &HEADER_EXPRESSIONS)]))
            }
        };
    }
    Value::Object(entry)
}

fn path(random: &mut Random) -> Value {
    match random.below(4) {
        0 => json!({"type": "Exact", "value": random.pick(&PATH_RULES)}),
        1 => json!({"type": "RegularExpression", "value": random.pick(&PATH_EXPRESSIONS)}),
        _ => json!({"type": "PathPrefix", "value": random.pick(&PATH_RULES)}),
    }
}

fn maybe_matches(random: &mut Random, item: &mut Value, percent: usize) {
    if random.percent(percent) {
        item["matches"] = matches(random);
    }
}

fn routes(random: &mut Random, has_egress: bool, canary: Option<String>) -> Value {
    let number = 1 + random.below(5);
    let rules = (0..number).map(|number| {
        let mut rule = json!({"name": format!("r{number}")});
        maybe_matches(random, &mut rule, 90);
        if let Some(canary) = canary.as_ref().filter(|_| number == 0) {
            rule["canary"] = json!(canary);
        } else if !has_egress && random.percent(15) {
            rule["redirect"] = redirect(random);
            rule["matches"] = json!([{"path": {"type": "Exact", "value": "/cart/42"}}]);
            return rule;
        } else {
            rule["route"] = json!(format!("r{number}"));
        }
        if random.percent(50) {
            rule["requestHeaders"] = json!({
                "set": [{"name": "x-plan", "value": "set"}, {"name": "x-set", "value": "1"}],
                "add": [{"name": "x-user-group", "value": "added"}, {"name": "via", "value": "penstock"}],
                "remove": ["authorization", "x-forwarded-host"],
            });
        }
        if random.percent(40) {
            rule["responseHeaders"] = json!({
                "set": [{"name": "x-served-by", "value": "r"}],
                "add": [{"name": "vary", "value": "x-user-group"}],
                "remove": ["x-removed"],
            });
        }
        if !has_egress && random.percent(25) {
            rule["rewrite"] =
                json!({"hostname": "rewritten.internal", "path": {"type": "ReplaceFullPath", "value": "/new"}});
        }
        if random.percent(20) {
            rule["timeout"] = json!("2s");
            rule["retries"] = json!({"attempts": 2, "retryOn": ["5xx", "reset"], "perTryTimeout": "250ms"});
        }
        if random.percent(10) && rule.get("route").is_some() {
            rule["failover"] = json!({"route": "stable", "errorPercent": 50, "window": "10s", "minRequests": 20});
        }
        rule
    });
    let mut routes = json!({"rules": rules.collect::<Vec<_>>()});
    if random.percent(50) {
        routes["default"] = json!("stable");
    }
    if random.percent(30) {
        routes["precedence"] = json!("GatewayAPI");
    }
    routes
}

fn redirect(random: &mut Random) -> Value {
    match random.below(3) {
        0 => json!({"scheme": "https", "statusCode": 301}),
        1 => json!({"hostname": "new.example.com", "port": 8443}),
        _ => json!({"path": {"type": "ReplaceFullPath", "value": "/other"}}),
    }
}

fn canary(random: &mut Random, number: usize, of_a_rule: bool) -> Value {
    let mut canary = json!({
        "name": format!("c{number}"),
        "variants": [{"name": "v1", "weight": 1 + random.below(3)}, {"name": "v2", "weight": random.below(4)}],
    });
    if !of_a_rule {
        maybe_matches(random, &mut canary, 70);
    }
    match random.below(6) {
        0 => canary["stickiness"] = json!({"header": "x-user-id"}),
        1 => canary["stickiness"] = json!({"cookie": {"name": "id", "maxAge": "24h"}}),
        2 => canary["stickiness"] = json!({"sourceAddress": {}}),
        3 => canary["stickiness"] = json!([{"header": "x-user-id"}, {"cookie": {"name": "id"}}]),
        4 => canary["stickiness"] = json!({"peer": {}}),
        _ => {}
    }
    if random.percent(40) {
        canary["overrides"] = json!([
            {"header": {"name": "x-plan", "value": "gold"}, "variant": "v2"},
            {"cookie": {"name": "canary", "value": "never"}, "variant": "v1"},
        ]);
    }
    if random.percent(20) {
        let starts = random.pick(&["2020-01-01T00:00:00Z", "2250-01-01T00:00:00Z"]);
        canary["ramp"] =
            json!({"variant": "v2", "startsAt": starts, "steps": [{"weight": 10, "for": "1h"}, {"weight": 60}]});
    }
    canary
}

fn limit(random: &mut Random, number: usize) -> Value {
    let part = |random: &mut Random| match random.below(9) {
        0 => json!({"sourceAddress": {"ipv6Prefix": 64}}),
        1 => json!({"header": random.pick(&["x-user-id", "x-plan", "accept"])}),
        2 => json!({"cookie": random.pick(&COOKIE_NAMES)}),
        3 => json!({"queryParam": random.pick(&QUERY_NAMES)}),
        4 => json!({"path": {}}),
        5 => json!({"method": {}}),
        6 => json!({"hostname": {}}),
        7 => json!({"peer": {}}),
        _ => json!({"constant": "one"}),
    };
    let mut key: Vec<Value> = (0..random.below(3)).map(|_| part(random)).collect();
    key.dedup();
    let mut limit = json!({
        "name": format!("l{number}"),
        "key": key,
        // The limit is so slow that no token is added while the test runs.
        "limit": {"requests": 2 + random.below(30), "per": "24h"},
        "mode": random.pick(&["Enforce", "Enforce", "Enforce", "Shadow"]),
        "quotaHeaders": random.pick(&["Off", "IETF", "Draft03"]),
    });
    if limit["key"] != json!([]) {
        limit["onMissingKey"] = json!(random.pick(&["Share", "Share", "Skip", "Deny"]));
    }
    maybe_matches(random, &mut limit, 70);
    if random.percent(30) {
        limit["cost"] = json!({"header": "x-cost", "default": 1, "max": 50});
    }
    if random.percent(30) {
        limit["response"] =
            json!({"status": 503, "body": "slow down\n", "headers": [{"name": "x-reason", "value": "l"}]});
    }
    limit
}

fn egress(random: &mut Random) -> Value {
    let ports = |random: &mut Random| random.pick(&[&[80][..], &[443], &[80, 443, 8443]]);
    let number = 1 + random.below(4);
    let rules = (0..number).map(|number| {
        let to: Vec<Value> = (0..1 + random.below(3))
            .map(|_| {
                let mut to = match random.below(4) {
                    0 => json!({"cidr": random.pick(&["10.0.0.0/8", "203.0.113.7/32", "2001:db8::/32", "::/0"])}),
                    _ => json!({"host": random.pick(&HOST_RULES)}),
                };
                if random.percent(30) {
                    to["ports"] = json!(ports(random));
                }
                to
            })
            .collect();
        let mut rule = json!({"name": format!("e{number}"), "owner": "o", "reason": "a test", "to": to});
        if random.percent(30) {
            rule["methods"] = json!(random.some(&METHODS, 40));
        }
        if random.percent(50) {
            rule["paths"] = (0..1 + random.below(2)).map(|_| path(random)).collect();
        }
        if random.percent(20) {
            rule["from"] = json!(random.some(&WORKLOADS, 40));
        }
        if random.percent(40) {
            rule["upgrades"] = json!(["websocket"]);
        }
        match random.below(8) {
            0 => rule["expires"] = json!("2020-01-01T00:00:00Z"),
            1 => rule["expires"] = json!("2250-01-01T00:00:00Z"),
            2 => rule["notBefore"] = json!("2250-01-01T00:00:00Z"),
            _ => {}
        }
        rule
    });
    let mut egress = json!({"rules": rules.collect::<Vec<_>>()});
    if random.percent(30) {
        egress["mode"] = json!("Audit");
    }
    if random.percent(30) {
        egress["defaultPort"] = json!(random.pick(&[80, 443]));
    }
    if random.percent(50) {
        egress["deny"] =
            json!([{"host": "www.example.com"}, {"cidr": "10.1.0.0/16"}, {"host": "v1.api.test", "ports": [80]}]);
    }
    egress
}
