//! The small values of the document: parsed once, into types that cannot be wrong.

use std::time::Duration;

use super::context::Context;
use super::decode::{Decode, Kind, wrong_kind};
use super::hidden::is_hidden;
use super::node::Node;
use super::problem::At;
use super::suggest::suggestion;
use crate::timestamp::Timestamp;

/// Records a problem and returns `None`, for the end of a decoder.
fn refuse<T>(node: &Node, at: &At<'_>, cx: &mut Context, message: &str, help: impl Into<Option<String>>) -> Option<T> {
    cx.problem(at, node, message, help);
    None
}

/// Whether `byte` may stand in an HTTP token (RFC 9110 §5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether `bytes` is an HTTP token: the form of methods and header names.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_token_byte(b))
}

/// Whether a header, by its name in lower case, frames the message for one hop.
pub(crate) fn frames_message(name: &str) -> bool {
    const FRAMING: [&str; 8] = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    FRAMING.contains(&name)
}

/// The name of a rule, canary, variant or limit: 1–253 bytes without hidden characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(pub Box<str>);

impl Decode for Name {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a name";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        if text.trim().is_empty() {
            return refuse(node, at, cx, "is empty", "give it a name, such as \"beta-users\"".to_owned());
        }
        if let Some(hidden) = text.chars().find(|c| is_hidden(*c)) {
            let message = format!("has the hidden character U+{:04X}: two names could look alike", u32::from(hidden));
            let help = "leave out control characters, line separators, bidirectional and zero-width characters";
            return refuse(node, at, cx, &message, help.to_owned());
        }
        if text.len() > 253 {
            return refuse(node, at, cx, "is not a name", "use at most 253 bytes".to_owned());
        }
        Some(Name(text.as_str().into()))
    }
}

/// A route name: the value of the route header, so visible ASCII only, 1–253 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteName(pub Box<str>);

impl Decode for RouteName {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a route name";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        if text.is_empty() || text.len() > 253 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            let help = "it becomes a header value: use 1 to 253 visible ASCII characters, no spaces";
            return refuse(node, at, cx, "is not a route name", help.to_owned());
        }
        Some(RouteName(text.as_str().into()))
    }
}

/// Checks the form that all header names share and gives the name in lower case.
fn header_name(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Box<str>> {
    let Node::String(text) = node else {
        return wrong_kind::<HeaderName>(node, at, cx).map(|name| name.0);
    };
    let lower = text.to_ascii_lowercase();
    let instead = match lower.as_str() {
        ":method" => Some("`method`"),
        ":path" => Some("`path` (in `matches`) or `rewrite.path`"),
        ":authority" | "host" => Some("`hostnames` (in `matches`) or `rewrite.hostname`"),
        _ if lower.starts_with(':') => Some("the field for that value: pseudo-headers are not headers"),
        _ => None,
    };
    if let Some(instead) = instead {
        return refuse(node, at, cx, "cannot be used as a header", format!("use {instead}"));
    }
    if !is_token(lower.as_bytes()) || lower.len() > 256 {
        let help = "use letters, digits and !#$%&'*+-.^_`|~, at most 256 of them".to_owned();
        return refuse(node, at, cx, "is not a header name", help);
    }
    if lower == cx.route_header {
        let help = "it is the route header, which only penstock writes: use `route` or `settings.routeHeader`";
        return refuse(node, at, cx, "cannot be named here", help.to_owned());
    }
    Some(lower.into())
}

/// The name of a header that a policy reads, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderName(pub Box<str>);

impl Decode for HeaderName {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a header name";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        header_name(node, at, cx).map(HeaderName)
    }
}

/// The name of the route header, in lower case: none that frames or directs a request, that carries cookies, or that
/// Envoy reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteHeader(pub Box<str>);

impl Decode for RouteHeader {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a header name";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        /// RFC 2616 §13.5.1 counts them among the hop-by-hop headers.
        const OF_PROXIES: [&str; 2] = ["proxy-authenticate", "proxy-authorization"];
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        let name = text.to_ascii_lowercase();
        let reason = match name.as_str() {
            name if name.starts_with(':') => "is a pseudo-header: it defines the request's target",
            "host" => "defines the request's target",
            "cookie" | "set-cookie" => "carries the client's cookies",
            name if frames_message(name) || OF_PROXIES.contains(&name) => "belongs to one hop: proxies read or drop it",
            name if name.starts_with("x-envoy-") => "is one that Envoy reads or removes",
            _ => return header_name(node, at, cx).map(RouteHeader),
        };
        let help = "name a header of your own, such as x-penstock-route".to_owned();
        refuse(node, at, cx, &format!("cannot carry the route: it {reason}"), help)
    }
}

/// The name of a header that a rule may change, in lower case: not one that frames the message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WritableHeaderName(pub Box<str>);

impl Decode for WritableHeaderName {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a header name";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let name = header_name(node, at, cx)?;
        if frames_message(&name) {
            let advice = "leave it out: the proxy handles it".to_owned();
            return refuse(node, at, cx, "cannot be changed: it frames the message for one hop", advice);
        }
        Some(WritableHeaderName(name))
    }
}

/// A header value to write: no control characters but tab, no space at the ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderValue(pub Box<str>);

impl Decode for HeaderValue {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a header value";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        if text.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) || text.trim_matches([' ', '\t']) != text {
            let help = "leave out control characters (line breaks too) and spaces at the ends".to_owned();
            return refuse(node, at, cx, "is not a header value", help);
        }
        Some(HeaderValue(text.as_str().into()))
    }
}

/// A request method: a token, case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Method(pub Box<str>);

impl Decode for Method {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a method";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        let upper = text.to_ascii_uppercase();
        if *text != upper && KNOWN.contains(&upper.as_str()) {
            return refuse(node, at, cx, "methods are case-sensitive", format!("write {upper}"));
        }
        if !is_token(text.as_bytes()) || text.len() > 64 {
            return refuse(node, at, cx, "is not a method", suggestion(text, &KNOWN));
        }
        Some(Method(text.as_str().into()))
    }
}

/// A Gateway API duration (GEP-2257): one to four of `<1–5 digits><h|m|s|ms>`, so whole milliseconds up to about
/// 45 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GatewayDuration(pub Duration);

impl GatewayDuration {
    /// Parses the text form; `None` when it is not one.
    pub fn parse(text: &str) -> Option<GatewayDuration> {
        let mut rest = text;
        let mut total = Duration::ZERO;
        for _ in 0..4 {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if !(1..=5).contains(&digits) {
                return None;
            }
            let (number, tail) = rest.split_at_checked(digits)?;
            let number: u64 = number.parse().ok()?;
            // "ms" before "m": the longer unit wins.
            let (unit, tail) = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
                .into_iter()
                .find_map(|(unit, millis)| tail.strip_prefix(unit).map(|tail| (millis, tail)))?;
            total += Duration::from_millis(number * unit);
            rest = tail;
            if rest.is_empty() {
                return Some(GatewayDuration(total));
            }
        }
        None
    }
}

impl Decode for GatewayDuration {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a duration such as 250ms, 10s or 1h30m";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let text = match node {
            Node::String(text) => text,
            Node::Integer(number) => {
                return refuse(node, at, cx, "has no unit", format!("write {number}s or {number}ms"));
            }
            _ => return wrong_kind::<Self>(node, at, cx),
        };
        let duration = GatewayDuration::parse(text);
        if duration.is_none() {
            let help = "write it like 250ms, 10s, 5m or 1h30m: up to four whole numbers with h, m, s or ms";
            return refuse(node, at, cx, "is not a duration", help.to_owned());
        }
        duration
    }
}

/// A [`GatewayDuration`] above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PositiveDuration(pub Duration);

impl Decode for PositiveDuration {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = GatewayDuration::EXPECTED;

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let GatewayDuration(duration) = GatewayDuration::decode(node, at, cx)?;
        if duration.is_zero() {
            return refuse(node, at, cx, "must be longer than zero", "write at least 1ms".to_owned());
        }
        Some(PositiveDuration(duration))
    }
}

impl Decode for Timestamp {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a time such as 2026-01-31T09:30:00Z";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        let time = Timestamp::parse_from_1970(text);
        if time.is_none() {
            let help = "write RFC 3339 with seconds and offset, from 1970 on: 2026-01-31T09:30:00Z".to_owned();
            return refuse(node, at, cx, "is not a time", help);
        }
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn decode<T: Decode>(text: &str) -> Result<T, String> {
        let mut cx = Context::new("x-penstock-route".into(), 0);
        let value = T::decode(&Node::String(text.into()), &At::Root, &mut cx);
        value.ok_or_else(|| cx.into_problems().first().map(ToString::to_string).unwrap_or_default())
    }

    #[test]
    fn durations_are_those_of_the_gateway_api() {
        for (text, millis) in [
            ("250ms", 250),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h1m1s1ms", 3_661_001),
            ("0s", 0),
        ] {
            assert_eq!(GatewayDuration::parse(text).unwrap().0.as_millis(), millis, "{text}");
        }
        for text in ["", "5", "s", "1.5s", "-1s", "+1s", "1d", "100000s", "1h1m1s1ms1s", "1 s", "1S", "1µs"] {
            assert_eq!(GatewayDuration::parse(text), None, "{text}");
        }
        assert_eq!(GatewayDuration::parse("99999h99999h99999h99999h").unwrap().0.as_secs(), 4 * 99_999 * 3_600);
    }

    #[test]
    fn times_need_seconds_and_an_offset() {
        assert_eq!(decode::<Timestamp>("1970-01-01T01:00:01.5+01:00").unwrap(), Timestamp(1_500_000_000));
        assert_eq!(decode::<Timestamp>("2024-02-29T00:00:00Z").unwrap(), Timestamp(1_709_164_800_000_000_000));
        // An instant beyond the range of the clock is never reached.
        assert_eq!(decode::<Timestamp>("2554-07-21T23:34:33Z").unwrap(), Timestamp(18_446_744_073_000_000_000));
        for text in ["2554-07-21T23:34:34Z", "2999-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59"] {
            assert_eq!(decode::<Timestamp>(text).unwrap(), Timestamp(u64::MAX), "{text}");
        }
        for text in ["2026-01-01", "2026-01-01T00:00:00", "2025-02-29T00:00:00Z", "1969-12-31T23:59:59Z", "soon"] {
            assert!(decode::<Timestamp>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn header_names_are_tokens_in_lower_case() {
        assert_eq!(&*decode::<HeaderName>("X-User").unwrap().0, "x-user");
        for (text, hint) in [
            ("", "is not a header name"),
            ("x user", "is not a header name"),
            ("x:y", "is not a header name"),
            (":path", "`path`"),
            ("Host", "`hostnames`"),
            ("X-Penstock-Route", "route header"),
        ] {
            let message = decode::<HeaderName>(text).unwrap_err();
            assert!(message.contains(hint), "{text}: {message}");
        }
    }

    #[test]
    fn headers_that_frame_the_message_are_read_but_not_written() {
        assert!(decode::<HeaderName>("Upgrade").is_ok());
        assert!(decode::<WritableHeaderName>("Transfer-Encoding").is_err());
    }

    #[test]
    fn header_values_cannot_smuggle_a_line() {
        assert!(decode::<HeaderValue>("gold; q=1\té").is_ok());
        assert!(decode::<HeaderValue>("").is_ok());
        for text in ["a\r\nb: c", "a\nb", "\0", " a", "a ", "\u{7f}"] {
            assert!(decode::<HeaderValue>(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn methods_are_case_sensitive_and_say_so() {
        assert_eq!(&*decode::<Method>("PURGE").unwrap().0, "PURGE");
        assert!(decode::<Method>("get").unwrap_err().contains("write GET"));
        assert!(decode::<Method>("GE T").unwrap_err().contains("did you mean `GET`"));
    }
}
