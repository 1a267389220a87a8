//! The scenarios: one listener each with its own filters; all get the same requests and use the same route table.

use std::net::TcpListener;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::http::{self, HttpRequest, Protocol};
use crate::{Body, Envoy, Listener, Route, WasmFilter, workspace};

/// Without a filter: the baseline of the other scenarios.
pub(super) const NONE: &str = "none";
/// The suite; its throughput also sets the rate at which latency is measured.
pub(super) const SUITE: &str = "suite";
/// The suite measured a second time. The difference shows the error of the measurement.
pub(super) const SUITE_AGAIN: &str = "suite-again";
/// A `suite.wasm` of another version, if one was given.
pub(super) const OLD: &str = "old-suite";
/// The same with [`Load::Browser`].
pub(super) const BROWSER_OLD: &str = "browser-old-suite";
/// The suite as a dynamic module, in Envoy's own process.
pub(super) const NATIVE_SUITE: &str = "so-suite";
/// The dynamic module measured a second time.
pub(super) const NATIVE_AGAIN: &str = "so-suite-again";
/// The baseline of the scenarios with [`Load::Browser`].
pub(super) const BROWSER_NONE: &str = "browser-none";
/// Only the host calls of the suite.
pub(super) const FLOOR: &str = "floor";

const HOST: &str = "shop.example.com";
/// The path of every request.
pub(super) const PATH: &str = "/cart/items?page=2";

/// The headers of a request: what a browser sends, and what the policies look at.
pub(super) const HEADERS: [(&str, &str); 12] = [
    ("Host", HOST),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "http://shop.example.com/cart"),
    ("cookie", "session=5f2c1d3e8a7b4960; plan=gold; theme=dark"),
    ("x-user-id", "user-48151623"),
    ("x-user-group", "public"),
    ("x-api-key", "k-0a1b2c3d4e5f"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
];

/// The kind of requests that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// [`HEADERS`].
    Plain,
    /// The same headers with 3 KB of cookies, as browsers send them to a site that sets many.
    Browser,
}

impl Load {
    /// The headers of a request.
    pub(super) fn headers(self) -> Vec<(&'static str, String)> {
        let cookies = || {
            let others = (0..60).map(|number| format!("analytics_{number:02}=GA1.2.{:032x}", number * 7_919_u64));
            others.collect::<Vec<_>>().join("; ")
        };
        let value = |name: &str, value: &str| match self {
            Load::Browser if name == "cookie" => format!("{value}; {}", cookies()),
            _ => value.to_owned(),
        };
        HEADERS.iter().map(|(name, text)| (*name, value(name, text))).collect()
    }

    /// The same request as an [`HttpRequest`].
    pub(super) fn request(self) -> HttpRequest {
        let others = self.headers().into_iter().filter(|(name, _)| *name != "Host");
        others.fold(HttpRequest::new("GET", HOST, PATH), |request, (name, value)| request.header(name, value))
    }

    /// [`HEADERS`] with another API key, by which the policies limit.
    pub(super) fn request_with_key(number: usize) -> HttpRequest {
        let others = HEADERS.into_iter().filter(|(name, _)| *name != "Host");
        others.fold(HttpRequest::new("GET", HOST, PATH), |request, (name, value)| match name {
            "x-api-key" => request.header(name, format!("k-{number:012x}")),
            _ => request.header(name, value),
        })
    }
}

#[derive(Clone, Debug)]
pub(super) struct BenchScenario {
    /// The name of the listener.
    pub name: String,
    /// The title in the tables.
    pub title: String,
    /// Whether latency is measured, too.
    pub timed: bool,
    /// The requests that this scenario gets.
    pub load: Load,
    /// The name and typed configuration of each filter.
    filters: Vec<(String, Value)>,
    /// The port that the listener takes, or 0 for a free one.
    port: u16,
    /// Whether Envoy's own route table splits the traffic.
    native: bool,
    /// Whether a filter must choose the variant.
    splits: bool,
}

impl BenchScenario {
    pub(super) fn new(name: &str, title: &str) -> Self {
        BenchScenario {
            name: name.to_owned(),
            title: title.to_owned(),
            timed: false,
            load: Load::Plain,
            filters: Vec::new(),
            port: 0,
            native: false,
            splits: false,
        }
    }

    fn filter(mut self, name: &str, config: Value) -> Self {
        self.filters.push((name.to_owned(), config));
        self
    }

    /// Gives each filter and scenario a VM of its own, so that scenarios do not influence each other.
    fn wasm(self, filter: WasmFilter) -> Self {
        let vm_id = format!("{}-{}", self.name, self.filters.len());
        let config = filter.vm_id(&vm_id).named(&vm_id).typed_config();
        self.filter(&vm_id, config)
    }

    fn ours(self, module: &str, policy: &Value) -> Result<Self> {
        Ok(self.wasm(WasmFilter::in_body(Body::Wasm, module, policy)?))
    }

    /// The same policy in the native body.
    fn shared_object(self, module: &str, policy: &Value) -> Result<Self> {
        Ok(self.wasm(WasmFilter::in_body(Body::Native, module, policy)?))
    }

    fn at(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    fn browser(mut self) -> Self {
        self.load = Load::Browser;
        self
    }

    fn peer(self, module: &str, settings: Value) -> Result<Self> {
        let path = workspace::root().join(format!("target/peers/wasm32-wasip1/release/{module}.wasm"));
        ensure!(path.is_file(), "there is no module at {}: run `make bench`", path.display());
        Ok(self.wasm(WasmFilter::at(module, &path, settings)))
    }

    /// Whether it is the baseline of other scenarios.
    pub(super) fn is_base(&self) -> bool {
        [NONE, BROWSER_NONE].contains(&&*self.name)
    }

    fn has_native_body(&self) -> bool {
        self.filters.iter().any(|(_, config)| config.get("dynamic_module_config").is_some())
    }

    fn timed(mut self) -> Self {
        self.timed = true;
        self
    }

    fn native(mut self) -> Self {
        self.native = true;
        self
    }

    fn splits(mut self) -> Self {
        self.splits = true;
        self
    }

    pub(super) fn listener(&self) -> Result<Listener> {
        let mut listener = Listener::new(&self.name).port(self.port).routes_named(&["beta", "v1", "v2"]);
        if self.native {
            listener = listener.route(Route::header("x-user-group", "beta")).route(Route::any().fraction(10));
        }
        for (name, config) in &self.filters {
            listener = listener.filter(name, config.clone());
        }
        Ok(listener.route(Route::any()))
    }

    /// Checks that the filters do their work before they are measured.
    pub(super) fn check(&self, envoy: &Envoy) -> Result<()> {
        let response = http::send(Protocol::Http1, envoy.address(&self.name)?, &self.load.request())?;
        ensure!(response.status == 200, "{}: {response:?}", self.title);
        let variant = response.text();
        ensure!(!self.splits || matches!(variant.as_str(), "v1" | "v2"), "{}: went to {variant}", self.title);
        Ok(())
    }
}

/// All scenarios, in the order of the tables; `old` is a `suite.wasm` of another version.
pub(super) fn all(old: Option<&Path>) -> Result<Vec<BenchScenario>> {
    let mut all = ours()?;
    all.extend(others()?);
    if let Some(old) = old {
        ensure!(old.is_file(), "OLD: there is no module at {}", old.display());
        let of = |name, title, policy: Value| {
            BenchScenario::new(name, title).wasm(WasmFilter::at("suite", old, policy)).splits()
        };
        all.push(of(OLD, "`suite.wasm` before (`OLD`)", together(1)));
        // Earlier versions added the port of the connection to an authority without one, so the rule lists that form,
        // too.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let title = "3 KB of cookies: `suite.wasm` before (`OLD`)";
        all.push(of(BROWSER_OLD, title, honest(&[port])).browser().at(port));
    }
    Ok(all)
}

/// The modules of this workspace, and the listener without a filter.
fn ours() -> Result<Vec<BenchScenario>> {
    Ok(vec![
        BenchScenario::new(NONE, "no filter").timed(),
        BenchScenario::new("header-routing", "`header-routing.wasm`").ours("header-routing", &routes(1))?,
        BenchScenario::new("canary", "`canary.wasm`").ours("canary", &canaries())?.splits(),
        BenchScenario::new("rate-limit", "`rate-limit.wasm`").ours("rate-limit", &limits())?,
        BenchScenario::new("egress-allowlist", "`egress-allowlist.wasm`").ours("egress-allowlist", &egress(1))?,
        BenchScenario::new("chain", "our four chained")
            .ours("egress-allowlist", &egress(1))?
            .ours("rate-limit", &limits())?
            .ours("header-routing", &chained(routes(1)))?
            .ours("canary", &canaries())?
            .splits(),
        BenchScenario::new(SUITE, "**`suite.wasm`**, all four").ours("suite", &together(1))?.splits().timed(),
        BenchScenario::new(SUITE_AGAIN, "the same once more").ours("suite", &together(1))?.splits(),
        BenchScenario::new("suite-10", "`suite.wasm`, 10 + 10 rules").ours("suite", &together(10))?.splits(),
        BenchScenario::new("suite-10000", "`suite.wasm`, 10,000 + 10,000 rules")
            .ours("suite", &together(10_000))?
            .splits(),
        BenchScenario::new("so-header-routing", "`libpenstock.so`: `header-routing`")
            .shared_object("header-routing", &routes(1))?,
        BenchScenario::new("so-canary", "`libpenstock.so`: `canary`").shared_object("canary", &canaries())?.splits(),
        BenchScenario::new("so-rate-limit", "`libpenstock.so`: `rate-limit`").shared_object("rate-limit", &limits())?,
        BenchScenario::new("so-egress-allowlist", "`libpenstock.so`: `egress-allowlist`")
            .shared_object("egress-allowlist", &egress(1))?,
        BenchScenario::new(NATIVE_SUITE, "**`libpenstock.so`**, all four")
            .shared_object("suite", &together(1))?
            .splits()
            .timed(),
        BenchScenario::new(NATIVE_AGAIN, "the same once more").shared_object("suite", &together(1))?.splits(),
        BenchScenario::new("so-suite-10", "`libpenstock.so`, 10 + 10 rules")
            .shared_object("suite", &together(10))?
            .splits(),
        BenchScenario::new("so-suite-10000", "`libpenstock.so`, 10,000 + 10,000 rules")
            .shared_object("suite", &together(10_000))?
            .splits(),
        BenchScenario::new(BROWSER_NONE, "3 KB of cookies: no filter").browser(),
        BenchScenario::new("browser-suite", "3 KB of cookies: `suite.wasm`")
            .ours("suite", &honest(&[]))?
            .splits()
            .browser(),
        BenchScenario::new("browser-so-suite", "3 KB of cookies: `libpenstock.so`")
            .shared_object("suite", &honest(&[]))?
            .splits()
            .browser(),
    ])
}

/// Those of the native body.
pub(super) fn native() -> Result<Vec<BenchScenario>> {
    Ok(ours()?.into_iter().filter(BenchScenario::has_native_body).collect())
}

/// The filters that the modules are compared with.
fn others() -> Result<Vec<BenchScenario>> {
    let (limit, ab, denylist) = (peer_limit(), peer_ab(), peer_denylist());
    let native =
        |name, title| BenchScenario::new(name, title).filter("rbac", rbac()).filter("limit", local_limit()).native();
    Ok(vec![
        BenchScenario::new("empty", "empty wasm filter").peer("empty", json!({}))?,
        BenchScenario::new("empty-sdk", "empty wasm filter on the SDK").peer("sdk", json!({"job": "empty"}))?,
        BenchScenario::new(FLOOR, "the suite's host calls, no work").peer("floor", json!({}))?.splits(),
        native("native", "Envoy's own: RBAC, local rate limit, routes").timed(),
        BenchScenario::new("lua", "Lua: allowlist, route, split").filter("lua", lua()).splits().timed(),
        BenchScenario::new("peer-limit", "SDK filter: rate limit").peer("sdk", limit.clone())?,
        BenchScenario::new("peer-ab", "SDK filter: A/B").peer("sdk", ab.clone())?.splits(),
        BenchScenario::new("peer-denylist", "SDK filter: denylist").peer("sdk", denylist.clone())?,
        BenchScenario::new("peers", "three SDK filters chained")
            .peer("sdk", denylist.clone())?
            .peer("sdk", limit.clone())?
            .peer("sdk", ab.clone())?
            .splits()
            .timed(),
        native("browser-native", "3 KB of cookies: Envoy's own").browser(),
        BenchScenario::new("browser-lua", "3 KB of cookies: Lua").filter("lua", lua()).splits().browser(),
        BenchScenario::new("browser-peers", "3 KB of cookies: three SDK filters chained")
            .peer("sdk", denylist)?
            .peer("sdk", limit)?
            .peer("sdk", ab)?
            .splits()
            .browser(),
    ])
}

/// Marks a policy as part of a chain, for the header-routing module that runs before the canary module.
fn chained(mut policy: Value) -> Value {
    if let Some(policy) = policy.as_object_mut() {
        policy.insert("settings".to_owned(), json!({"chained": true}));
    }
    policy
}

/// A policy for all four jobs, with features that cost more: a rule with ports, and a limit by client address.
fn honest(more_ports: &[u16]) -> Value {
    let ports = [&[80, 443, 8443], more_ports].concat();
    let mut policy = together(10);
    let mut rules = egress(9).pointer("/egress/rules").and_then(Value::as_array).cloned().unwrap_or_default();
    rules.pop();
    rules.push(json!({
        "name": "shop", "to": [{"host": "shop.example.com", "ports": ports}], "methods": ["GET", "POST"],
    }));
    if let Some(policy) = policy.as_object_mut() {
        policy.insert("egress".to_owned(), json!({"rules": rules}));
        policy.insert(
            "rateLimits".to_owned(),
            json!([{
                "name": "per-address", "key": [{"sourceAddress": {}}], "limit": {"requests": 1_000_000_000, "per": "1s"},
            }]),
        );
        policy.insert("settings".to_owned(), json!({"sourceAddress": {"trustedHops": 0}}));
    }
    policy
}

/// A policy with `n` routes that do not match the request, so that the canary decides.
fn routes(count: usize) -> Value {
    let beta =
        json!({"name": "beta", "matches": [{"headers": [{"name": "x-user-group", "value": "beta"}]}], "route": "beta"});
    let others = (1..count).map(|number| {
        let host = format!("shop-{number}.example.com");
        json!({"name": format!("rule-{number}"), "matches": [{"hostnames": [host]}], "route": "beta"})
    });
    json!({"routes": {"rules": std::iter::once(beta).chain(others).collect::<Vec<_>>()}})
}

fn canaries() -> Value {
    json!({"canaries": [{
        "name": "shop",
        "stickiness": {"header": "x-user-id"},
        "variants": [{"name": "v1", "weight": 90}, {"name": "v2", "weight": 10}],
    }]})
}

fn limits() -> Value {
    json!({"rateLimits": [{
        "name": "per-key",
        "key": [{"header": "x-api-key"}],
        "limit": {"requests": 1_000_000_000, "per": "1s"},
    }]})
}

/// A policy with `n` egress rules, of which the last allows the request.
fn egress(count: usize) -> Value {
    let others = (1..count).map(|number| {
        json!({"name": format!("host-{number}"), "to": [{"host": format!("api-{number}.example.com"), "ports": [80]}]})
    });
    let shop = json!({"name": "shop", "owner": "web", "to": [{"host": "shop.example.com"}], "methods": ["GET"]});
    json!({"egress": {"rules": others.chain(std::iter::once(shop)).collect::<Vec<_>>()}})
}

/// A policy for all four jobs, with `n` rules each in `egress` and in `routes`.
pub(super) fn together(count: usize) -> Value {
    let mut policy = serde_json::Map::new();
    for section in [egress(count), limits(), routes(count), canaries()] {
        policy.extend(section.as_object().cloned().unwrap_or_default());
    }
    Value::Object(policy)
}

/// Envoy's own RBAC allowlist, the closest equivalent of an egress rule.
fn rbac() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {"action": "ALLOW", "policies": {"shop": {
            "permissions": [{"and_rules": {"rules": [
                {"header": {"name": ":authority", "string_match": {"exact": "shop.example.com"}}},
                {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
            ]}}],
            "principals": [{"any": true}],
        }}},
    })
}

/// One token bucket for all requests: Envoy's own filter has no bucket for keys that the configuration does not list.
fn local_limit() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "bench",
        "token_bucket": {"max_tokens": 1_000_000_000, "tokens_per_fill": 1_000_000_000, "fill_interval": "1s"},
        "filter_enabled": {"default_value": {"numerator": 100}},
        "filter_enforced": {"default_value": {"numerator": 100}},
    })
}

/// A short Lua script for three of the four jobs. Lua has no memory that workers share, so it cannot limit rates.
const SCRIPT: &str = r#"
local allowed = { ["shop.example.com"] = { GET = true } }
function envoy_on_request(handle)
  local headers = handle:headers()
  local methods = allowed[headers:get(":authority")]
  if not methods or not methods[headers:get(":method")] then
    handle:respond({ [":status"] = "403" }, "denied\n")
    return
  end
  if headers:get("x-user-group") == "beta" then
    headers:replace("x-penstock-route", "beta")
    return
  end
  local user, hash = headers:get("x-user-id") or "", 5381
  for at = 1, #user do hash = (hash * 33 + string.byte(user, at)) % 4294967296 end
  headers:replace("x-penstock-route", hash % 100 < 10 and "v2" or "v1")
end
"#;

fn lua() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": SCRIPT},
    })
}

fn peer_limit() -> Value {
    json!({"job": "rate-limit", "header": "x-api-key", "limit": 1_000_000_000, "window_seconds": 60})
}

fn peer_ab() -> Value {
    json!({"job": "ab", "header": "x-user-id", "percent": 10})
}

fn peer_denylist() -> Value {
    json!({"job": "denylist", "hosts": ["evil.example.com"], "addresses": ["192.0.2.1"]})
}
