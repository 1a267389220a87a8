//! ingress-nginx's annotations.

use penstock_policy::document::Node;

use crate::import::matching::condition;
use crate::import::objects::{map, text};
use crate::import::reader::{FieldReader, KubernetesObject};
use crate::import::report::ImportReport;
use crate::import::table::RuleHost;

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// Annotations for connections, buffers and logs, which belong in the proxy's own configuration.
const TRANSPORT: [&str; 14] = [
    "proxy-",
    "ssl-",
    "client-",
    "connection-proxy-",
    "backend-protocol",
    "service-upstream",
    "upstream-hash-by",
    "load-balance",
    "enable-access-log",
    "enable-rewrite-log",
    "http2-",
    "server-tokens",
    "preserve-trailing-slash",
    "enable-opentelemetry",
];

/// Annotations that refuse some of the requests.
const GUARDS: [&str; 11] = [
    "whitelist-source-range",
    "allowlist-source-range",
    "denylist-source-range",
    "auth-url",
    "auth-type",
    "auth-secret",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "satisfy",
    "enable-modsecurity",
    "modsecurity-snippet",
];

/// The parsed annotations.
#[derive(Default)]
pub struct IngressSettings {
    /// The canary settings, when the Ingress is a canary.
    pub canary: Option<CanaryAnnotations>,
    /// Whether paths are regular expressions.
    pub use_regex: bool,
    /// The path that replaces the path of the request.
    pub rewrite_target: Option<String>,
    /// Why its requests must not be imported: the source refuses some of them.
    pub guarded: Option<String>,
    /// Why no path of its hosts must be imported: its snippet is in their `server` block.
    pub guards_hosts: Option<String>,
    /// The redirect for all its requests, or why it cannot be expressed.
    pub redirect: Option<Result<Node, String>>,
    /// The redirect for requests for `/`.
    pub app_root: Option<String>,
    /// The host that the upstream sees.
    pub upstream_host: Option<String>,
    /// Additional hosts.
    pub aliases: Vec<String>,
    /// How the choice between main and canary sticks.
    pub stickiness: Option<Node>,
    /// Limits by the client's address, with the names of their annotations.
    pub limits: Vec<(String, Vec<(&'static str, Node)>)>,
    ssl_redirect: bool,
    force_ssl_redirect: bool,
}

/// The settings of a canary.
#[derive(Default)]
pub struct CanaryAnnotations {
    /// The conditions that choose main or canary, in order.
    pub overrides: Vec<OverrideAnnotation>,
    /// The canary's weight, in units of `total`.
    pub weight: i64,
    /// The sum of all weights.
    pub total: i64,
}

/// A header or cookie that chooses main or canary.
pub struct OverrideAnnotation {
    /// `header` or `cookie`.
    pub field: &'static str,
    /// The value that it is compared with.
    pub condition: Node,
    /// Whether it chooses the canary, or else main.
    pub to_canary: bool,
}

impl IngressSettings {
    /// Reads the annotations of an object and reports those that are not imported.
    pub fn read(object: &KubernetesObject<'_>, report: &mut ImportReport) -> IngressSettings {
        let reader = object.annotations(report);
        let take = |name: &str, report: &mut ImportReport| reader.string(&format!("{PREFIX}{name}"), report);
        let flag = |name: &str, report: &mut ImportReport| take(name, report).and_then(|value| parse_bool(&value));
        let is_true = |name: &str, report: &mut ImportReport| flag(name, report) == Some(true);
        let mut settings = IngressSettings { ssl_redirect: true, ..IngressSettings::default() };
        if is_true("canary", report) {
            settings.canary = Some(canary(&reader, report));
            // Nginx ignores all other annotations of a canary.
            return settings;
        }
        settings.use_regex = is_true("use-regex", report);
        settings.rewrite_target = take("rewrite-target", report).filter(|target| !target.is_empty());
        settings.app_root = take("app-root", report).filter(|root| root.starts_with('/'));
        settings.upstream_host = take("upstream-vhost", report);
        settings.ssl_redirect = flag("ssl-redirect", report) != Some(false);
        settings.force_ssl_redirect = is_true("force-ssl-redirect", report);
        settings.aliases = take("server-alias", report)
            .map(|aliases| aliases.split(',').map(|alias| alias.trim().to_owned()).collect())
            .unwrap_or_default();
        let guards: Vec<String> = GUARDS
            .iter()
            .filter_map(|name| {
                Some(match reader.take(&format!("{PREFIX}{name}"))? {
                    Node::String(value) => format!("{name} {value}"),
                    value => format!("{name} {value}"),
                })
            })
            .filter(|guard| guard != "enable-modsecurity false")
            .collect();
        let (snippet, of_server) = (take("configuration-snippet", report), take("server-snippet", report));
        let does_more = |snippet: &&String| {
            ["return", "deny", "allow", "rewrite", "proxy_pass", "auth", "if", "lua", "limit"]
                .iter()
                .any(|word| snippet.contains(word))
        };
        let is_unknown = of_server.as_ref().is_some_and(|snippet| does_more(&snippet));
        settings.guards_hosts = is_unknown.then(|| "server-snippet: `import` does not know what it does".to_owned());
        settings.guarded = match snippet.as_ref().filter(does_more) {
            _ if !guards.is_empty() => Some(format!("{}: a policy has no such condition", guards.join(", "))),
            Some(_) => Some("configuration-snippet: `import` does not know what it does".to_owned()),
            None => None,
        };
        for (name, snippet) in [("configuration-snippet", snippet), ("server-snippet", of_server)] {
            if let Some(snippet) = snippet {
                report.lost(&reader.at(name), snippet, "requests are handled without it");
            }
        }
        settings.redirect = redirect(&reader, report);
        settings.stickiness = stickiness(&reader, report);
        settings.limits = limits(&reader, report);
        for (name, value) in reader.rest() {
            let Some(short) = name.strip_prefix(PREFIX) else { continue };
            let at = format!("metadata.annotations.{name}");
            if TRANSPORT.iter().any(|prefix| short.starts_with(prefix)) {
                report.elsewhere(&at, value.to_string(), "configure it in the proxy itself");
            } else {
                report.lost(&at, value.to_string(), "requests are handled without it");
            }
        }
        settings
    }

    /// Whether requests without TLS are redirected.
    pub fn redirects_to_https(&self, host: &RuleHost, tls: &[String]) -> bool {
        let has_tls = || {
            tls.iter().filter_map(|name| RuleHost::parse(name)).any(|name| name != RuleHost::Any && name.covers(host))
        };
        self.force_ssl_redirect || (self.ssl_redirect && has_tls())
    }
}

/// A boolean as ingress-nginx reads it.
fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn canary(reader: &FieldReader<'_>, report: &mut ImportReport) -> CanaryAnnotations {
    let take = |name: &str, report: &mut ImportReport| {
        // An empty value means that the annotation is not set.
        reader.string(&format!("{PREFIX}{name}"), report).filter(|value| !value.is_empty())
    };
    let mut canary = CanaryAnnotations::default();
    let mut add = |field, name: &str, kind: &str, value: &str, to_canary| {
        canary.overrides.push(OverrideAnnotation { field, condition: condition(name, kind, value), to_canary });
    };
    let (value, pattern) = (take("canary-by-header-value", report), take("canary-by-header-pattern", report));
    match (take("canary-by-header", report), &value, &pattern) {
        (Some(header), Some(value), _) => add("header", &header, "Exact", value, true),
        // Nginx matches anywhere in the value.
        (Some(header), None, Some(pattern)) => {
            add("header", &header, "RegularExpression", &format!(".*(?:{pattern}).*"), true);
        }
        (Some(header), None, None) => {
            add("header", &header, "Exact", "always", true);
            add("header", &header, "Exact", "never", false);
        }
        (None, None, None) => {}
        (None, ..) => {
            let what = "canary-by-header-value or -pattern without canary-by-header";
            report.elsewhere("metadata.annotations", what, "nginx ignores it, too");
        }
    }
    if let Some(cookie) = take("canary-by-cookie", report) {
        add("cookie", &cookie, "Exact", "always", true);
        add("cookie", &cookie, "Exact", "never", false);
    }
    // A total below 100 counts as 100.
    let integer = |name: &str, report: &mut ImportReport| reader.integer(&format!("{PREFIX}{name}"), report);
    canary.total = integer("canary-weight-total", report).unwrap_or(100).max(100);
    canary.weight = integer("canary-weight", report).unwrap_or(0).clamp(0, canary.total);
    canary
}

/// Reads `permanent-redirect` and `temporal-redirect`.
fn redirect(reader: &FieldReader<'_>, report: &mut ImportReport) -> Option<Result<Node, String>> {
    let code = |name: &str, default: i64, report: &mut ImportReport| {
        reader.integer(&format!("{PREFIX}{name}"), report).filter(|code| (300..=308).contains(code)).unwrap_or(default)
    };
    let temporal_code = code("temporal-redirect-code", 302, report);
    let permanent_code = code("permanent-redirect-code", 301, report);
    let take = |name: &str, report: &mut ImportReport| reader.string(&format!("{PREFIX}{name}"), report);
    let (temporal, permanent) = (take("temporal-redirect", report), take("permanent-redirect", report));
    let (url, status) = match (temporal, permanent) {
        (Some(url), _) => (url, temporal_code),
        (None, Some(url)) => (url, permanent_code),
        (None, None) => return None,
    };
    Some(url_of(&url).map(|mut node| {
        node.push(("statusCode", Node::Integer(status)));
        map(node)
    }))
}

/// The parts of a redirect's URL.
fn url_of(url: &str) -> Result<Vec<(&'static str, Node)>, String> {
    let cannot = |why: &str| Err(format!("redirect to {url}: {why}"));
    let keeps_path = url.ends_with("$request_uri");
    let plain = url.strip_suffix("$request_uri").unwrap_or(url);
    let mut node = Vec::new();
    let Some((scheme, rest)) = plain.split_once("://") else {
        return cannot("a redirect of a policy needs a whole URL");
    };
    if scheme != "$scheme" {
        node.push(("scheme", text(scheme)));
    }
    let (authority, path) = rest.find('/').and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, ""));
    if path.contains(['?', '#', '$']) || authority.contains('$') || (keeps_path && !matches!(path, "" | "/")) {
        return cannot("a redirect of a policy has a host and a path, without variables and query");
    }
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    node.push(("hostname", text(host)));
    if let Ok(port) = port.parse() {
        node.push(("port", Node::Integer(port)));
    }
    if !keeps_path {
        let path = if path.is_empty() { "/" } else { path };
        node.push(("path", map([("type", text("ReplaceFullPath")), ("value", text(path))])));
    }
    Ok(node)
}

/// With `affinity: cookie`, users whom a canary has served stay on it.
fn stickiness(reader: &FieldReader<'_>, report: &mut ImportReport) -> Option<Node> {
    let take = |name: &str, report: &mut ImportReport| reader.string(&format!("{PREFIX}{name}"), report);
    let affinity = take("affinity", report);
    let behavior = take("affinity-canary-behavior", report);
    let name = take("session-cookie-name", report).unwrap_or_else(|| "INGRESSCOOKIE".to_owned());
    let (age, expires) = (take("session-cookie-max-age", report), take("session-cookie-expires", report));
    let seconds = age.or(expires);
    let path = take("session-cookie-path", report);
    let same_site = take("session-cookie-samesite", report);
    for field in [
        "affinity-mode",
        "session-cookie-secure",
        "session-cookie-change-on-failure",
        "session-cookie-conditional-samesite-none",
        "session-cookie-domain",
    ] {
        take(field, report);
    }
    if affinity? != "cookie" || behavior.as_deref() == Some("legacy") {
        return None;
    }
    let mut node = vec![("name", text(name))];
    node.extend(
        seconds
            .and_then(|seconds| crate::import::objects::duration(&format!("{seconds}s")))
            .map(|age| ("maxAge", text(age))),
    );
    node.extend(path.map(|path| ("path", text(path))));
    node.extend(same_site.filter(|same_site| same_site != "None").map(|same_site| ("sameSite", text(same_site))));
    Some(map([("cookie", map(node))]))
}

/// Reads `limit-rps` and `limit-rpm`, which limit by the client's address, with a burst.
fn limits(reader: &FieldReader<'_>, report: &mut ImportReport) -> Vec<(String, Vec<(&'static str, Node)>)> {
    let name = |short: &str| format!("{PREFIX}{short}");
    let multiplier = reader.integer(&name("limit-burst-multiplier"), report).filter(|factor| *factor > 0).unwrap_or(5);
    let exempt =
        reader.string(&name("limit-whitelist"), report).or_else(|| reader.string(&name("limit-allowlist"), report));
    for short in ["limit-connections", "limit-rate", "limit-rate-after"] {
        if let Some(value) = reader.string(&name(short), report) {
            report.lost(&reader.at(&name(short)), value, "connections and bandwidth have no limit");
        }
    }
    let mut limits = Vec::new();
    for (short, per) in [("limit-rps", "1s"), ("limit-rpm", "1m")] {
        let Some(requests) = reader.integer(&name(short), report).filter(|requests| *requests > 0) else { continue };
        if let Some(exempt) = &exempt {
            let what = format!("{requests}, except for {exempt}: a policy has no condition on addresses");
            report.lost(&reader.at(&name(short)), what, "the limit is left out");
            continue;
        }
        // The request itself, plus the number of requests that nginx queues.
        let burst = requests.saturating_mul(multiplier).saturating_add(1);
        let quota = map([("requests", Node::Integer(requests)), ("per", text(per)), ("burst", Node::Integer(burst))]);
        let key = Node::List(vec![map([("sourceAddress", map([]))])]);
        let response = map([("status", Node::Integer(503))]);
        limits.push((name(short), vec![("key", key), ("limit", quota), ("response", response)]));
    }
    limits
}
