//! The scenarios: policies, requests, and how often they are repeated.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::budget::{Budget, ScenarioCost};
use crate::guest::{Guest, Spent};
use crate::profile::{self, Profile};

/// The number of warm requests over which the mean is taken: enough to include work that happens every 50 ms.
const WARM: u64 = 100;

/// The same for large requests.
const WARM_LARGE: u64 = 5;

/// A hostile request may cost at most this many times as much as an ordinary one of its size.
const HOSTILE_TIMES: u64 = 20;

/// 2026-06-01T00:00:00Z in nanoseconds.
const START: u64 = 1_780_272_000_000_000_000;

/// A module with a policy, and a request to it.
struct Scenario {
    name: &'static str,
    module: &'static str,
    policy: Value,
    /// Headers in addition to the usual ones, which they precede.
    headers: Vec<(&'static str, String)>,
    /// Whether the request continues.
    goes_on: bool,
    /// Whether the first request is measured, too.
    cold: bool,
    /// The name under which the cost of loading the policy is recorded.
    configure: Option<&'static str>,
}

impl Scenario {
    /// Whether the request has the maximum size that Envoy accepts.
    fn is_large(&self) -> bool {
        self.name.starts_with("56 KiB")
    }

    fn warm(&self) -> u64 {
        if self.is_large() { WARM_LARGE } else { WARM }
    }
}

/// The headers of a browser's request; the pseudo-headers can be replaced.
const USUAL: [(&str, &str); 13] = [
    (":authority", "shop.example.com"),
    (":path", "/index.html?utm_source=mail"),
    (":method", "GET"),
    (":scheme", "https"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    ("accept-encoding", "gzip, deflate, br"),
    ("referer", "https://shop.example.com/start"),
    ("cookie", "session=0123456789abcdef0123456789abcdef; plan=gold; consent=1"),
    ("x-forwarded-for", "203.0.113.7"),
    ("x-request-id", "6f1a2b3c-4d5e-4f60-8a7b-9c0d1e2f3a4b"),
    ("x-forwarded-proto", "https"),
];

fn routes(rules: usize) -> Value {
    // Rules that are distinguished by host and path together.
    let rule = |i: usize| {
        json!({"name": format!("r{i}"), "route": format!("r{}", i % 10), "matches": [{
            "hostnames": [format!("h{}.example.com", i % 100)],
            "path": {"value": format!("/api/v{}", i / 100)},
        }]})
    };
    json!({"default": "stable", "rules": (0..rules).map(rule).collect::<Vec<_>>()})
}

fn egress(rules: usize) -> Value {
    let rule = |i: usize| {
        json!({"name": format!("e{i}"), "owner": "team", "reason": "needed",
            "to": [{"host": format!("h{i}.example.com"), "ports": [443]}], "methods": ["GET"]})
    };
    json!({"rules": (0..rules).map(rule).collect::<Vec<_>>()})
}

fn limits(count: usize, requests: u32) -> Value {
    let limit = |i: usize| {
        json!({"name": format!("l{i}"), "key": [{"header": "x-user"}], "matches": [{"hostnames": [format!("h{i}.example.com")]}],
            "limit": {"requests": requests, "per": "1h"}, "capacity": 1024})
    };
    json!((0..count).map(limit).collect::<Vec<_>>())
}

fn canaries(count: usize, fields: &Value) -> Value {
    let canary = |i: usize| {
        let mut canary = json!({"name": format!("c{i}"), "matches": [{"hostnames": [format!("h{i}.example.com")]}],
            "variants": [{"name": "v1", "weight": 90}, {"name": "v2", "weight": 10}]});
        if let (Some(canary), Some(fields)) = (canary.as_object_mut(), fields.as_object()) {
            canary.extend(fields.clone());
        }
        canary
    };
    json!((0..count).map(canary).collect::<Vec<_>>())
}

/// A policy with all four sections: `rules` each in egress and routes, ten limits, ten canaries.
fn everything(rules: usize, requests: u32) -> Value {
    json!({"egress": egress(rules), "rateLimits": limits(10, requests), "routes": routes(rules),
        "canaries": canaries(10, &json!({"stickiness": {"header": "x-user"}}))})
}

/// A rule for each of twenty kinds of robots, by an expression on the header `name`.
fn robots(name: &str) -> Value {
    let rule = |i: usize| {
        json!({"name": format!("r{i}"), "route": format!("r{i}"), "matches": [{"headers": [
            {"name": name, "type": "RegularExpression", "value": format!(".*(Bot{i}|crawler{i}|spider{i}).*")}]}]})
    };
    json!({"default": "stable", "rules": (0..20).map(rule).collect::<Vec<_>>()})
}

/// A rule for each of two hundred kinds of robots, by a substring of the header `name`.
fn contained(name: &str) -> Value {
    let rule = |i: usize| {
        json!({"name": format!("r{i}"), "route": format!("r{i}"), "matches": [{"headers": [
            {"name": name, "type": "Contains", "value": format!("crawler{i}/")}]}]})
    };
    json!({"default": "stable", "rules": (0..200).map(rule).collect::<Vec<_>>()})
}

/// A large request.
const LARGE: usize = 56 << 10;

/// As many headers from `make` as fit into [`LARGE`].
fn filled(make: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for piece in (0..).map(make) {
        if text.len() + piece.len() > LARGE {
            break;
        }
        text.push_str(&piece);
    }
    text
}

/// Policies and requests that are designed to be slow; each once blocked a worker for a tenth of a second or more. The
/// first is an ordinary request of the same size.
fn hostile() -> Vec<Scenario> {
    let told_apart = |field: &str, count: usize| {
        let rule = |i: usize| json!({"name": format!("r{i}"), "route": "r", "matches": [{field: [{"name": "v", "value": format!("v{i}")}]}]});
        json!({"routes": {"default": "stable", "rules": (0..count).map(rule).collect::<Vec<_>>()}})
    };
    let mut all = Vec::new();
    let mut add = |name, policy: Value, headers: Vec<(&'static str, String)>| {
        all.push(Scenario { name, module: "suite", policy, headers, goes_on: true, cold: false, configure: None });
    };
    // Half of the bytes are cookies of 1,400 bytes, such as tokens, the other half cookies of 40 bytes.
    let cookies = || filled(|i| format!("c{i}={}; ", "x".repeat(if i % 36 == 0 { 1400 } else { 34 })));
    let mut ordinary = to(5, "/index.html");
    ordinary.push(("cookie", format!("session=7; {}", cookies())));
    let mut policy = everything(10, 1_000_000);
    if let Some(policy) = policy.as_object_mut() {
        policy.insert("canaries".into(), canaries(10, &json!({"stickiness": {"cookie": {"name": "session"}}})));
    }
    add(ORDINARY, policy, ordinary);
    let query = || format!("/?{}", filled(|i| format!("v=x{i}&")));
    let repeated = || filled(|i| format!("v=x{i};"));
    add(
        "56 KiB, hostile: one query parameter repeated, 12 rules",
        told_apart("queryParams", 12),
        vec![(":path", query())],
    );
    add(
        "56 KiB, hostile: one query parameter repeated, 2,000 rules",
        told_apart("queryParams", 2000),
        vec![(":path", query())],
    );
    add("56 KiB, hostile: one cookie repeated, 12 rules", told_apart("cookies", 12), vec![("cookie", repeated())]);
    add("56 KiB, hostile: one cookie repeated, 2,000 rules", told_apart("cookies", 2000), vec![("cookie", repeated())]);
    let named = |i: usize| {
        json!({"name": format!("r{i}"), "route": "r", "matches": [{"cookies": [
            {"name": format!("n{i}"), "type": "RegularExpression", "value": "y.*"}]}]})
    };
    let named = json!({"routes": {"default": "stable", "rules": (0..2000).map(named).collect::<Vec<_>>()}});
    add(
        "56 KiB, hostile: 2,000 cookies, each with an expression of its own",
        named,
        vec![("cookie", filled(|i| format!("n{i}=yx;")))],
    );
    let over = |i: usize| json!({"cookie": {"name": "user", "value": format!("u{i}")}, "variant": "v2"});
    let overridden = json!({"canaries": canaries(1, &json!({"matches": null, "overrides": (0..5000).map(over).collect::<Vec<_>>()}))});
    let overridden = without_nulls(overridden);
    add(
        "56 KiB, hostile: 5,000 overrides by a cookie",
        overridden,
        vec![("cookie", filled(|i| format!("user=x{i};")))],
    );
    let agents = |value: &str, values: usize| {
        let value = value.chars().cycle().take(LARGE / values).collect::<String>();
        (0..values).map(|_| ("x-agent", value.clone())).collect::<Vec<_>>()
    };
    let near = "Bot crawler spide Botcrawler ";
    add("56 KiB, hostile: 20 expressions on seven long values", json!({"routes": robots("x-agent")}), agents(near, 7));
    add("56 KiB, hostile: 20 expressions on ninety values", json!({"routes": robots("x-agent")}), agents(near, 90));
    add(
        "56 KiB, hostile: 200 texts that a value may contain",
        json!({"routes": contained("x-agent")}),
        agents("crawler", 1),
    );
    let one = |pattern: &str| {
        json!({"routes": {"default": "stable", "rules": [{"name": "r", "route": "r", "matches": [
            {"headers": [{"name": "x-agent", "type": "RegularExpression", "value": pattern}]}]}]}})
    };
    add("56 KiB, hostile: a counted repetition", one("(?i).*[a-z0-9]{1,200}x.*"), agents("a", 7));
    add("56 KiB, hostile: a value that is too long for an expression", one("(?i).*[a-z0-9]{1,200}x.*"), agents("a", 1));
    let values: Vec<String> = (0..60).map(|i| format!("v{i}")).collect();
    let list = |i: usize| {
        json!({"name": format!("r{i}"), "route": "r", "matches": [{"headers": [{"name": "x-agent", "type": "In", "values": values},
            {"name": "x-other", "type": "Prefix", "value": format!("{i}-")}]}]})
    };
    let lists = json!({"routes": {"default": "stable", "rules": (0..500).map(list).collect::<Vec<_>>()}});
    let mut all_values: Vec<_> = values.iter().map(|value| ("x-agent", value.clone())).collect();
    all_values.push(("x-other", "y".repeat(LARGE)));
    add("56 KiB, hostile: a header with all values of the lists of 500 rules", lists, all_values);
    // Four thousand headers, and a thousand rules with conditions on the last of them and on absent ones.
    let rule = |i: usize| {
        json!({"name": format!("r{i}"), "route": "r", "matches": [{"headers": [{"name": "x-agent", "type": "Present"},
            {"name": format!("x-{i}"), "value": "a", "invert": true},
            {"name": "x-agent", "type": "Prefix", "value": format!("{i}-")}]}]})
    };
    let rules = json!({"routes": {"default": "stable", "rules": (0..1000).map(rule).collect::<Vec<_>>()}});
    let mut many: Vec<_> = (0..4000).map(|_| ("x-more", "1234567".to_owned())).collect();
    many.push(("x-agent", "a".to_owned()));
    add("56 KiB, hostile: 4,000 headers, and 1,000 rules that ask for three", rules, many);
    all
}

/// The ordinary request that hostile ones are compared with.
const ORDINARY: &str = "56 KiB, ordinary";

/// `canaries` sets the fields to remove to null.
fn without_nulls(mut policy: Value) -> Value {
    for canary in policy.get_mut("canaries").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(canary) = canary.as_object_mut() {
            canary.retain(|_, value| !value.is_null());
        }
    }
    policy
}

/// A request to host `n` from user 7.
fn to(n: usize, path: &str) -> Vec<(&'static str, String)> {
    vec![(":authority", format!("h{n}.example.com")), (":path", path.to_owned()), ("x-user", "user-7".to_owned())]
}

fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut add = |name, module, policy: Value, headers, goes_on| {
        all.push(Scenario { name, module, policy, headers, goes_on, cold: false, configure: None });
    };
    let only = |section: &str, content: Value| json!({ section: content });
    // Each module alone.
    add("header-routing: a rule of 10", "header-routing", only("routes", routes(10)), to(5, "/api/v0/cart"), true);
    add(
        "header-routing: a rule of 10,000",
        "header-routing",
        only("routes", routes(10_000)),
        to(50, "/api/v50/x"),
        true,
    );
    add("header-routing: the default", "header-routing", only("routes", routes(10)), to(500, "/"), true);
    let sticky = |fields| only("canaries", canaries(10, &fields));
    add("canary: sticky header", "canary", sticky(json!({"stickiness": {"header": "x-user"}})), to(5, "/"), true);
    let cookie = json!({"stickiness": {"cookie": {"name": "session"}}});
    add("canary: sticky cookie", "canary", sticky(cookie), to(5, "/"), true);
    let cookie = json!({"stickiness": {"cookie": {"name": "penstock-id"}}});
    add("canary: a new user's cookie", "canary", sticky(cookie), to(5, "/"), true);
    let watched = json!({"stickiness": {"header": "x-user"},
        "variants": [{"name": "v1", "weight": 0}, {"name": "v2", "weight": 1}],
        "rollback": {"variant": "v2", "to": "v1", "errorPercent": 5}});
    add("canary: watched for a rollback", "canary", sticky(watched), to(5, "/"), true);
    let many = 1_000_000;
    let limited = |requests| only("rateLimits", limits(10, requests));
    add("rate-limit: passed", "rate-limit", limited(many), to(5, "/"), true);
    add("rate-limit: limited", "rate-limit", limited(1), to(5, "/"), false);
    let quota = |kind: &str| {
        let mut limits = limits(10, many);
        for limit in limits.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            limit.insert("quotaHeaders".into(), kind.into());
        }
        only("rateLimits", limits)
    };
    add("rate-limit: passed, quota headers of IETF", "rate-limit", quota("IETF"), to(5, "/"), true);
    add("rate-limit: passed, quota headers of Draft03", "rate-limit", quota("Draft03"), to(5, "/"), true);
    add("egress-allowlist: allowed by a rule of 10", "egress-allowlist", only("egress", egress(10)), to(5, "/"), true);
    let ten_thousand = only("egress", egress(10_000));
    add("egress-allowlist: allowed by a rule of 10,000", "egress-allowlist", ten_thousand, to(5000, "/"), true);
    add("egress-allowlist: denied", "egress-allowlist", only("egress", egress(10)), to(500, "/"), false);
    // The suite with all four sections.
    add("suite, 10 rules: allowed", "suite", everything(10, many), to(5, "/index.html"), true);
    add("suite, 10 rules: denied", "suite", everything(10, many), to(100_000, "/"), false);
    add("suite, 10 rules: limited", "suite", everything(10, 1), to(5, "/index.html"), false);
    add("suite, 10,000 rules: allowed", "suite", everything(10_000, many), to(5, "/index.html"), true);
    let mut sticky = everything(10, many);
    if let Some(policy) = sticky.as_object_mut() {
        policy.insert("canaries".into(), canaries(10, &json!({"stickiness": {"cookie": {"name": "session"}}})));
    }
    add("suite, 10 rules: sticky cookie", "suite", sticky, to(5, "/index.html"), true);
    add("suite: a policy that does nothing", "suite", json!({}), vec![], true);
    add(
        "header-routing: 20 expressions on the user agent",
        "header-routing",
        only("routes", robots("user-agent")),
        vec![],
        true,
    );
    for scenario in &mut all {
        scenario.cold = scenario.name.ends_with("rules: allowed");
        scenario.configure = match scenario.name {
            "suite, 10 rules: allowed" => Some("configure: suite, 10 rules in egress and in routes"),
            "suite, 10,000 rules: allowed" => Some("configure: suite, 10,000 rules in egress and in routes"),
            "header-routing: a rule of 10,000" => Some("configure: header-routing, 10,000 rules"),
            "egress-allowlist: allowed by a rule of 10,000" => Some("configure: egress-allowlist, 10,000 rules"),
            _ => None,
        };
    }
    all.extend(hostile());
    all
}

/// Measures the scenarios whose names contain `part`, with the modules in `dist`.
///
/// # Errors
/// Returns an error when a module does not decide as its scenario says.
pub fn measure(dist: &Path, part: &str) -> Result<Budget> {
    let mut budget = Budget::default();
    for scenario in scenarios().into_iter().filter(|scenario| scenario.name.contains(part)) {
        request_costs(&scenario, dist, &mut budget)?;
    }
    let instructions = |cost: &ScenarioCost| match cost {
        ScenarioCost::Request { instructions, .. } | ScenarioCost::Configure { instructions, .. } => *instructions,
    };
    let Some(ordinary) = budget.0.get(ORDINARY).map(instructions) else { return Ok(budget) };
    for (name, cost) in budget.0.iter().filter(|(name, _)| name.contains("hostile")) {
        let (cost, most) = (instructions(cost), ordinary * HOSTILE_TIMES);
        ensure!(
            cost <= most,
            "{name}: {cost} instructions, more than {HOSTILE_TIMES} times the {ordinary} of an ordinary request"
        );
    }
    Ok(budget)
}

/// Measures what takes minutes: policies with 100,000 rules.
///
/// # Errors
/// Returns an error when a module refuses them.
pub fn measure_large(dist: &Path) -> Result<Budget> {
    let mut budget = Budget::default();
    for (name, module, policy) in [
        ("configure: header-routing, 100,000 rules", "header-routing", json!({"routes": routes(100_000)})),
        ("configure: egress-allowlist, 100,000 rules", "egress-allowlist", json!({"egress": egress(100_000)})),
    ] {
        let mut guest = Guest::load(&dist.join(format!("{module}.wasm")))?;
        configure(&mut guest, name, &policy, Some(name), &mut budget)?;
    }
    Ok(budget)
}

/// Passes its policy to the guest, and records the cost under the name `noted`.
fn configure(guest: &mut Guest, name: &str, policy: &Value, noted: Option<&str>, budget: &mut Budget) -> Result<()> {
    guest.host().time = START;
    let text = policy.to_string();
    let spent = guest.cost_of(|guest| {
        ensure!(guest.configure(text)?, "{name}: refused: {:?}", guest.host().log);
        Ok(())
    })?;
    if let Some(noted) = noted {
        let cost = ScenarioCost::Configure { instructions: spent.instructions, memory_kib: guest.memory_kib() };
        budget.0.insert(noted.to_owned(), cost);
    }
    Ok(())
}

/// The functions that execute the instructions of a scenario's warm requests; for a name that starts with `configure:
/// `, of its configuration.
///
/// # Errors
/// Returns an error when there is no such scenario, or a module does not decide as it says.
pub fn profile(name: &str, dist: &Path) -> Result<Profile> {
    let all = scenarios();
    let names = || all.iter().flat_map(|scenario| [Some(scenario.name), scenario.configure]).flatten();
    let known = || names().map(|name| format!("\n  {name}")).collect::<String>();
    let is_load = name.starts_with("configure: ");
    let is_it = |scenario: &&Scenario| if is_load { scenario.configure == Some(name) } else { scenario.name == name };
    let scenario = all.iter().find(is_it);
    let scenario = scenario.with_context(|| format!("there is no scenario {name:?}; there are:{}", known()))?;
    let module = dist.join(format!("{}.wasm", scenario.module));
    let mut guest = Guest::load_profiling(&module)?;
    let mut before = Vec::new();
    let mut times = 1.0;
    if is_load {
        before = guest.spent_by_function();
        configure(&mut guest, name, &scenario.policy, None, &mut Budget::default())?;
    } else {
        times = scenario.warm() as f64;
        exchanges(scenario, &mut guest, &mut Budget::default(), |guest| before = guest.spent_by_function())?;
    }
    let spent = before.into_iter().zip(guest.spent_by_function()).map(|(before, after)| (after - before) as f64);
    let once = spent.map(|spent| spent / times);
    let mut functions: Vec<_> = profile::names(&module)?.into_iter().zip(once).collect();
    functions.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    Ok(Profile(functions))
}

fn request_costs(scenario: &Scenario, dist: &Path, budget: &mut Budget) -> Result<()> {
    let mut guest = Guest::load(&dist.join(format!("{}.wasm", scenario.module)))?;
    exchanges(scenario, &mut guest, budget, |_| ())
}

/// Runs a scenario; calls `warm` before the requests that count.
fn exchanges(scenario: &Scenario, guest: &mut Guest, budget: &mut Budget, mut warm: impl FnMut(&Guest)) -> Result<()> {
    for (name, value) in [
        ("source\0address", &b"10.0.0.1:4711"[..]),
        ("connection\0tls_version", b"TLSv1.3"),
        ("response\0flags", &[0; 8]),
    ] {
        guest.host().properties.insert(name.into(), value.into());
    }
    configure(guest, scenario.name, &scenario.policy, scenario.configure, budget)?;
    let exchange = |guest: &mut Guest, stream: u32, expected: bool| {
        let host = guest.host();
        host.time += 1_000_000;
        host.request_headers = headers(scenario);
        host.response_headers = vec![(b":status".to_vec(), b"200".to_vec())];
        let spent = guest.cost_of(|guest| {
            let went_on = guest.request(stream)?;
            ensure!(went_on == expected, "{}: it went on: {went_on}; {:?}", scenario.name, guest.host().log);
            // A response by the guest is passed through its own response callbacks, too.
            guest.response(stream)
        })?;
        ensure!(guest.host().sent.take().is_some() != expected, "{}: no response", scenario.name);
        Ok(spent)
    };
    // With a limit of one, the first request passes.
    let first = exchange(guest, 2, scenario.goes_on || scenario.name.ends_with("limited"))?;
    if scenario.cold {
        budget.0.insert(format!("{}, the first request", scenario.name), ScenarioCost::of(&first, 1));
    }
    let mut sum = Spent::default();
    for stream in 0..=scenario.warm() {
        if stream == 1 {
            warm(guest);
        }
        let spent = exchange(guest, u32::try_from(stream)? + 3, scenario.goes_on)?;
        // The first of these requests may still allocate memory.
        if stream > 0 {
            sum.instructions += spent.instructions;
            sum.host_calls += spent.host_calls;
            sum.callbacks += spent.callbacks;
        }
    }
    budget.0.insert(scenario.name.to_owned(), ScenarioCost::of(&sum, scenario.warm()));
    Ok(())
}

/// The usual headers; those of the scenario replace them or are appended.
fn headers(scenario: &Scenario) -> Vec<(Vec<u8>, Vec<u8>)> {
    let of = |name: &str| scenario.headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str());
    let usual = USUAL.iter().map(|(name, value)| (*name, of(name).unwrap_or(value)));
    let is_usual = |name: &str| USUAL.iter().any(|(usual, _)| *usual == name);
    let more = scenario.headers.iter().filter(|(name, _)| !is_usual(name)).map(|(name, value)| (*name, value.as_str()));
    usual.chain(more).map(|(name, value)| (name.into(), value.into())).collect()
}
