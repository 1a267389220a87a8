//! The values that policies and requests use: few enough that they often match.

/// The caller of every request, in the node's metadata and in the filter state.
pub const PEER: &str = "spiffe://cluster.local/ns/shop/sa/cart";
/// The filter state in which another filter stores it.
pub const PEER_STATE: &str = "test.peer";

/// Hosts of requests. The last ones are ambiguous for egress, or a proxy may refuse them itself.
pub const HOSTS: [&str; 16] = [
    "shop.example.com",
    "www.example.com",
    "a.b.example.com",
    "example.com",
    "api.test",
    "v1.api.test",
    "Shop.Example.COM",
    "shop.example.com.",
    "evil.test",
    "10.1.2.3",
    "203.0.113.7",
    "[2001:db8::7]",
    "[64:ff9b::a01:203]",
    "xn--bcher-kva.example.com",
    "0x7f.1",
    "sh_op.example.com",
];

pub const PORTS: [&str; 5] = ["", "", ":443", ":80", ":8443"];

pub const HOST_RULES: [&str; 6] =
    ["shop.example.com", "*.example.com", "*.b.example.com", "example.com", "api.test", "*.api.test"];

pub const PATHS: [&str; 24] = [
    "/",
    "/cart",
    "/cart/",
    "/cart/42",
    "/cartoon",
    "/v1/items/7",
    "/v1/items",
    "/v1",
    "/V1/items",
    "//v1//items",
    "/v1/./items",
    "/v1/../cart",
    "/../cart",
    "/%76%31/items",
    "/v1/%2e%2e/cart",
    "/v1%2fitems",
    "/v1/items;id=7",
    "/v1/..;/cart",
    "/v1/%zz",
    "/v1/%ef%bc%8e%ef%bc%8e%ef%bc%8fcart",
    "/v1\\items",
    "/\u{fc}ber",
    "/a%00b",
    "/v1/items/seven",
];

pub const PATH_RULES: [&str; 5] = ["/", "/cart", "/v1", "/v1/items", "/v1/items/7"];
pub const PATH_EXPRESSIONS: [&str; 4] = ["/v1/items/[0-9]+", "/(cart|v1)(/.*)?", ".*i.*", "(?i)/v1/items"];

pub const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"];

/// Headers with values. The first two name the route, which no condition may use. Envoy joins some of them when they
/// are repeated, and drops some.
pub const HEADERS: [(&str, &[&str]); 19] = [
    ("x-penstock-route", &["r0", "stable", "forged"]),
    ("x-route-to", &["r0", "forged"]),
    ("x-user-group", &["beta", "alpha", "", "Beta", "beta,alpha", "b\u{e9}ta"]),
    ("x-plan", &["gold", "silver", "gold silver"]),
    ("x-user-id", &["alice", "bob", "carol", "dave", "erin"]),
    ("x-cost", &["1", "2", "9", "0", "many"]),
    ("user-agent", &["Firefox/1", "curl/8", "Chrome on Firefox"]),
    ("accept", &["text/html", "application/json", "*/*", ""]),
    ("accept-language", &["de", "en"]),
    ("authorization", &["Bearer a", "Basic b"]),
    ("cache-control", &["no-cache", "max-age=0"]),
    ("origin", &["https://shop.example.com", "null"]),
    ("x-forwarded-host", &["shop.example.com", "evil.test"]),
    ("x-forwarded-client-cert", &["URI=spiffe://cluster.local/ns/shop/sa/cart"]),
    ("x-envoy-retry-on", &["5xx"]),
    ("x-envoy-upstream-rq-timeout-ms", &["5"]),
    ("x-http-method-override", &["DELETE", "GET"]),
    ("x-original-url", &["/cart"]),
    ("x-envoy-original-dst-host", &["10.0.0.1:80"]),
];

pub const HEADER_EXPRESSIONS: [&str; 5] =
    [".*Firefox.*", "[a-z]+", "(alpha|beta)", "text/html(,.*)?", "(gold|silver).*"];

pub const QUERY_NAMES: [&str; 3] = ["version", "v", "user"];
pub const QUERY_VALUES: [&str; 5] = ["two", "one", "", "t%77o", "alice"];
pub const COOKIE_NAMES: [&str; 3] = ["plan", "id", "canary"];
pub const COOKIE_VALUES: [&str; 5] = ["gold", "always", "never", "\"gold\"", "c7a1f00d"];

/// Clients and proxies. None is on loopback, because Envoy appends a different address for loopback peers.
pub const ADDRESSES: [&str; 5] = ["203.0.113.7", "203.0.113.8", "10.0.0.5", "10.0.0.6", "198.51.100.9"];

/// The identity of this Envoy, for policies that identify callers by workload.
pub const WORKLOADS: [&str; 3] = [
    "spiffe://cluster.local/ns/shop/sa/cart",
    "spiffe://cluster.local/ns/shop/sa/*",
    "spiffe://cluster.local/ns/other/sa/cart",
];
