//! The schemas of the small values: as close to their decoders as a pattern can be.
//!
//! Patterns are in the part of ECMA 262 that every validator knows: no look-around, no Unicode classes.

use serde_json::{Value, json};

use super::definitions::{Definitions, Describe};
use crate::breaker::Percentile;
use crate::canaries::{CookieAge, CookieName, CookiePath};
use crate::cidr::Cidr;
use crate::document::{
    GatewayDuration, HeaderName, HeaderValue, Method, Name, PositiveDuration, RouteHeader, RouteName,
    WritableHeaderName,
};
use crate::egress::{CallerPattern, EgressHost, FilterStateKey, RuleText, TrustDomain, UpgradeProtocol};
use crate::matching::{HostPattern, PairName};
use crate::routes::{Hostname, NewPath, RedirectStatus, RetryOn};
use crate::timestamp::Timestamp;

/// A label of a DNS name as policies write it.
const LABEL: &str = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?";
/// A header name or method.
const TOKEN: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]";
/// A name without hidden characters, as far as a pattern that every validator knows can say it.
const VISIBLE: &str = concat!(
    r"^[^\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e",
    r"\u2060-\u206f\u3164\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff]*$"
);
/// One to four numbers with units.
const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// A pattern for any of the words in upper or lower case.
fn any_case(words: &[&str]) -> String {
    let letter = |c: char| match c.is_ascii_alphabetic() {
        true => format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase()),
        false => c.to_string(),
    };
    let words: Vec<String> = words.iter().map(|word| word.chars().map(letter).collect()).collect();
    format!("^({})$", words.join("|"))
}

/// `std::time::Duration` in the largest unit in which it is a whole number.
fn duration(duration: std::time::Duration) -> Value {
    let millis = duration.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = units.into_iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{millis}ms"), |(unit, name)| format!("{}{name}", millis / unit)).into()
}

/// Describes types by a definition each, and writes their defaults.
macro_rules! scalars {
    ($($type:ty, $key:literal $(, |$value:ident| $written:expr)? => $schema:expr;)*) => {$(
        impl Describe for $type {
            fn describe(schema: &mut Definitions) -> Value {
                schema.define($key, |_| $schema)
            }

            $(fn written(&self) -> Option<Value> {
                let $value = self;
                Some($written)
            })?
        }
    )*};
}

scalars! {
    Name, "name", |name| (&*name.0).into() => json!({
        "title": "name",
        "description": "1 to 253 bytes without control characters, separators of lines, bidirectional and zero-width characters.",
        "type": "string", "maxLength": 253, "allOf": [{"pattern": r"\S"}, {"pattern": VISIBLE}],
    });
    TrustDomain, "trustDomain" => json!({
        "title": "trust domain",
        "description": "1 to 255 lower-case letters, digits, dots, hyphens and underscores.",
        "type": "string", "pattern": "^[a-z0-9._-]{1,255}$",
    });
    FilterStateKey, "filterStateKey" => json!({
        "title": "filter state",
        "description": "The name of a filter state object: 1 to 253 visible ASCII characters.",
        "type": "string", "pattern": "^[!-~]{1,253}$",
    });
    RuleText, "text" => json!({
        "title": "text",
        "description": "1 to 1024 bytes without control characters.",
        "type": "string", "maxLength": 1024, "allOf": [{"pattern": r"\S"}, {"pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"}],
    });
    RouteName, "routeName" => json!({
        "title": "route name",
        "description": "The value of the route header: 1 to 253 visible ASCII characters, no spaces.",
        "type": "string", "pattern": "^[!-~]{1,253}$",
    });
    HeaderName, "headerName", |name| (&*name.0).into() => json!({
        "title": "header name",
        "description": "In any case; not a pseudo-header, not Host, not the route header.",
        "type": "string", "pattern": format!("^{TOKEN}{{1,256}}$"), "not": {"pattern": any_case(&["host"])},
    });
    RouteHeader, "routeHeader", |name| (&*name.0).into() => {
        let taken = ["host", "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer",
            "transfer-encoding", "upgrade", "cookie", "set-cookie", "proxy-authenticate", "proxy-authorization"];
        json!({
            "title": "header name",
            "description": "In any case; not a pseudo-header, not Host, no cookie, none that belongs to one hop, none of x-envoy-….",
            "type": "string", "pattern": format!("^{TOKEN}{{1,256}}$"),
            "not": {"anyOf": [{"pattern": any_case(&taken)}, {"pattern": "^[xX]-[eE][nN][vV][oO][yY]-"}]},
        })
    };
    WritableHeaderName, "writableHeaderName" => {
        let taken = ["host", "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer",
            "transfer-encoding", "upgrade"];
        json!({
            "title": "header name",
            "description": "In any case; not a pseudo-header, not Host, not the route header, none that frames the message.",
            "type": "string", "pattern": format!("^{TOKEN}{{1,256}}$"), "not": {"pattern": any_case(&taken)},
        })
    };
    HeaderValue, "headerValue" => json!({
        "title": "header value",
        "description": "No control characters but tab, no space at the ends.",
        "type": "string",
        "pattern": r"^([^\u0000-\u0020\u007f]([^\u0000-\u0008\u000a-\u001f\u007f]*[^\u0000-\u0020\u007f])?)?$",
    });
    Method, "method" => {
        let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
        json!({
            "title": "method",
            "description": "A request method, case-sensitive.",
            "anyOf": [
                {"enum": known},
                {"type": "string", "pattern": format!("^{TOKEN}{{1,64}}$"), "not": {"pattern": any_case(&known)}},
            ],
        })
    };
    GatewayDuration, "duration", |value| duration(value.0) => json!({
        "title": "duration",
        "description": "A Gateway API duration such as 250ms, 10s, 5m or 1h30m.",
        "type": "string", "pattern": DURATION,
    });
    PositiveDuration, "positiveDuration", |value| duration(value.0) => json!({
        "title": "duration",
        "description": "A Gateway API duration above zero, such as 250ms, 10s, 5m or 1h30m.",
        "type": "string", "pattern": DURATION, "not": {"pattern": "^(0+(h|m|s|ms))+$"},
    });
    CookieAge, "cookieAge", |value| duration(std::time::Duration::from_secs(value.0)) => json!({
        "title": "duration",
        "description": "Whole seconds, at least one, as a Gateway API duration such as 24h.",
        "type": "string", "pattern": DURATION, "not": {"pattern": "^(0+(h|m|s|ms))+$"},
    });
    Timestamp, "time" => json!({
        "title": "time",
        "description": "RFC 3339 with seconds and offset, such as 2026-01-31T09:30:00Z.",
        "type": "string", "format": "date-time",
        "pattern": r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$",
    });
    Percentile, "percentile" => json!({
        "title": "percentile",
        "description": "1 to 99.99, to two decimals.",
        "type": "number", "minimum": 1, "exclusiveMaximum": 99.995,
    });
    HostPattern, "hostPattern" => json!({
        "title": "host pattern",
        "description": "A host name in lower case without port; `*.` in front stands for one or more labels.",
        "type": "string", "pattern": format!(r"^(\*\.)?{LABEL}(\.{LABEL})*$"), "maxLength": 255,
    });
    Hostname, "hostname" => json!({
        "title": "host name",
        "description": "A host name in lower case, without port and star.",
        "type": "string", "pattern": format!(r"^{LABEL}(\.{LABEL})*$"), "maxLength": 253,
    });
    EgressHost, "egressHost" => json!({
        "title": "host pattern",
        "description": "A host name in lower case without port, or `*.` and a name of at least two labels: everything below it. Never an IP address.",
        "type": "string", "maxLength": 255,
        "pattern": format!(r"^({LABEL}|\*\.{LABEL}\.{LABEL})(\.{LABEL})*$"),
        "not": {"pattern": r"(^|\.)([0-9]+|0x[0-9a-f]*)$"},
    });
    Cidr, "cidr" => json!({
        "title": "address range",
        "description": "A range such as 203.0.113.0/24 or 2001:db8::/32, with no bits set after its prefix.",
        "type": "string",
        "anyOf": [
            {"pattern": r"^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3})/(3[0-2]|[12]?[0-9])$"},
            {"pattern": r"^[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*/(12[0-8]|1[01][0-9]|[1-9]?[0-9])$"},
        ],
    });
    CallerPattern, "caller" => json!({
        "title": "caller",
        "description": "A verified identity such as spiffe://cluster.local/ns/shop/sa/cart; a path segment `*` stands for exactly one.",
        "type": "string", "maxLength": 2048, "pattern": "^[!-)+-9;-~]*:[!-~]*$",
    });
    UpgradeProtocol, "protocol" => json!({
        "title": "protocol",
        "description": "An upgrade protocol such as websocket.",
        "type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z/-]{1,64}$", "not": {"const": "*"},
    });
    NewPath, "newPath" => json!({
        "title": "path",
        "description": "A path to write: empty or beginning with a slash, visible ASCII, no query, no fragment.",
        "type": "string", "pattern": r#"^(/[!-"$->@-~]*)?$"#,
    });
    CookieName, "cookieName" => json!({
        "title": "cookie name",
        "description": "Letters, digits and signs; no `__Secure-` or `__Host-`, which browsers refuse over plain http.",
        "type": "string", "pattern": format!("^{TOKEN}{{1,256}}$"),
        "not": {"pattern": "^__([sS][eE][cC][uU][rR][eE]|[hH][oO][sS][tT])-"},
    });
    CookiePath, "cookiePath", |path| (&*path.0).into() => json!({
        "title": "cookie path",
        "description": "Begins with a slash; visible ASCII without a semicolon.",
        "type": "string", "pattern": "^/[!-:<-~]{0,1023}$",
    });
    PairName, "pairName" => json!({
        "title": "name",
        "description": "The name as it stands in the request, case-sensitive.",
        "type": "string", "pattern": r##"^[!"$%'-:<>@-~]+$"##,
    });
    RedirectStatus, "redirectStatus", |status| status.0.into() => json!({
        "title": "status of a redirect",
        "description": "301 or 308 (for good), 302 or 307 (for now), 303 (look there with GET).",
        "enum": RedirectStatus::ALL,
    });
    RetryOn, "retryOn" => json!({
        "title": "retry condition",
        "description": "A retry condition of Envoy, or a status code from 400 to 599.",
        "anyOf": [
            {"enum": RetryOn::words()},
            {"type": "string", "pattern": "^[45][0-9]{2}$"},
            {"type": "integer", "minimum": 400, "maximum": 599},
        ],
    });
}
