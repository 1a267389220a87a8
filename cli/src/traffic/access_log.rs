//! Envoy's access logs: JSON objects a line, and the default text formats of Envoy and Istio.
//!
//! Of JSON the keys are those of Istio's and Envoy Gateway's default formats; a header is any other key with a hyphen.
//! `-` is Envoy's way to say that there is nothing.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use penstock_policy::Timestamp;
use penstock_policy::wire::{WireRequest, WireResponse};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::url;

/// Keys for each part of a request, the first that is there counts; a rewritten path comes after the original one.
const METHOD: [&str; 2] = ["method", ":method"];
const PATH: [&str; 5] = ["x-envoy-original-path", "x-envoy-origin-path", "x_envoy_original_path", "path", ":path"];
const AUTHORITY: [&str; 3] = ["authority", ":authority", "host"];
const SCHEME: [&str; 3] = ["scheme", ":scheme", "x-forwarded-proto"];
const TIME: [&str; 1] = ["start_time"];
const SOURCE: [&str; 3] =
    ["downstream_remote_address", "downstream_remote_address_without_port", "downstream_direct_remote_address"];
const LOCAL: [&str; 2] = ["downstream_local_address", "downstream_local_port"];
const SNI: [&str; 1] = ["requested_server_name"];
const PEER: [&str; 1] = ["downstream_peer_uri_san"];
const STATUS: [&str; 1] = ["response_code"];
const DURATION: [&str; 1] = ["duration"];

/// Headers whose keys have no hyphen.
const HEADERS: [(&str, &str); 7] = [
    ("user_agent", "user-agent"),
    ("x_forwarded_for", "x-forwarded-for"),
    ("request_id", "x-request-id"),
    ("x_request_id", "x-request-id"),
    ("cookie", "cookie"),
    ("authorization", "authorization"),
    ("referer", "referer"),
];

/// Keys with a hyphen that are no headers of the request.
const NO_HEADERS: [&str; 3] = ["x-envoy-upstream-service-time", "x-envoy-original-path", "x-envoy-origin-path"];

/// Whether a JSON object looks like an access log's.
pub fn is_json_log(object: &Map<String, Value>) -> bool {
    let has = |keys: &[&str]| keys.iter().any(|key| object.contains_key(*key));
    has(&METHOD) && has(&PATH) && (has(&TIME) || has(&STATUS))
}

/// The request of a JSON line; `None`: the line is about no request, or is no JSON object.
pub fn json(line: &[u8]) -> Option<WireRequest> {
    let Given::Object(fields) = serde_json::from_slice(line).ok()? else { return None };
    let find = |key: &str| fields.iter().find(|(name, _)| name == key).and_then(|(_, value)| value.text());
    let text = |keys: &[&str]| keys.iter().find_map(|key| find(key)).map(str::to_owned);
    let mut request = WireRequest {
        method: text(&METHOD)?,
        scheme: text(&SCHEME),
        authority: text(&AUTHORITY)?,
        path: text(&PATH).unwrap_or_default(),
        source_address: text(&SOURCE).and_then(|text| address(&text)),
        destination_port: text(&LOCAL).and_then(|text| port(&text)),
        sni: text(&SNI),
        // A certificate may name several; Envoy's identity is the first.
        peer: text(&PEER).and_then(|names| Some(names.split(',').next()?.to_owned())),
        time: text(&TIME).and_then(|time| Timestamp::parse(&time)),
        response: response(text(&STATUS), text(&DURATION)),
        ..WireRequest::default()
    };
    for (key, value) in &fields {
        let known = HEADERS.iter().find(|(known, _)| known == key).map(|(_, name)| *name);
        let name = known.or(Some(&**key).filter(|key| key.contains('-') && !NO_HEADERS.contains(key)));
        if let (Some(name), Some(value)) = (name, value.text()) {
            url::add_header(&mut request, name, value);
        }
        if let ("headers", Given::Object(headers)) = (&**key, value) {
            for (name, value) in headers {
                value.text().into_iter().for_each(|value| url::add_header(&mut request, name, value));
            }
        }
    }
    Some(request)
}

/// A value of a log, borrowed from its line where it can be: a tree of owned values would take half of the time.
enum Given<'l> {
    /// Text, or a number as text.
    Text(Cow<'l, str>),
    /// An object.
    Object(Vec<(Cow<'l, str>, Given<'l>)>),
    /// `null`, a boolean, a list.
    Nothing,
}

impl Given<'_> {
    /// What says something, as text.
    fn text(&self) -> Option<&str> {
        match self {
            Given::Text(text) if !text.is_empty() && text != "-" => Some(text),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Given<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GivenVisitor)
    }
}

struct GivenVisitor;

impl<'de> Visitor<'de> for GivenVisitor {
    type Value = Given<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Given<'de>, E> {
        Ok(Given::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Given<'de>, E> {
        Ok(Given::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Given<'de>, E> {
        Ok(Given::Text(Cow::Owned(number.to_string())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Given<'de>, E> {
        Ok(Given::Text(Cow::Owned(number.to_string())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Given<'de>, E> {
        Ok(Given::Text(Cow::Owned(number.to_string())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Given<'de>, E> {
        Ok(Given::Nothing)
    }

    fn visit_unit<E>(self) -> Result<Given<'de>, E> {
        Ok(Given::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Given<'de>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Given::Nothing)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given<'de>, A::Error> {
        let mut fields = Vec::with_capacity(32);
        while let Some((key, value)) = map.next_entry::<Given<'de>, Given<'de>>()? {
            if let Given::Text(key) = key {
                fields.push((key, value));
            }
        }
        Ok(Given::Object(fields))
    }
}

/// `10.0.0.1:4711`, `[::1]:4711` or an address alone.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip())).ok()
}

fn port(text: &str) -> Option<u16> {
    text.rsplit(':').next()?.parse().ok().filter(|port| *port > 0)
}

/// Status 0 is Envoy's for no response.
fn response(status: Option<String>, millis: Option<String>) -> Option<WireResponse> {
    let status = status?.parse().ok().filter(|status| (100..600).contains(status))?;
    let millis = millis.and_then(|millis| millis.parse().ok()).unwrap_or(0);
    Some(WireResponse { status, latency: Duration::from_millis(millis) })
}

/// Whether a line looks like the text formats: `[time] "METHOD …`.
pub fn is_text_log(line: &[u8]) -> bool {
    let Some(end) = memchr::memmem::find(line, b"] \"") else { return false };
    line.first() == Some(&b'[')
        && line
            .get(1..end)
            .and_then(|time| std::str::from_utf8(time).ok())
            .is_some_and(|time| Timestamp::parse(time).is_some())
}

/// The request of a line in Envoy's or Istio's default text format; `None`: it is about no request, or in another
/// format.
///
/// ```text
/// [START_TIME] "METHOD PATH PROTOCOL" RESPONSE_CODE RESPONSE_FLAGS … DURATION UPSTREAM_SERVICE_TIME
///     "X-FORWARDED-FOR" "USER-AGENT" "X-REQUEST-ID" "AUTHORITY" "UPSTREAM_HOST"
///     (Istio:) UPSTREAM_CLUSTER UPSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_REMOTE_ADDRESS SNI ROUTE
/// ```
pub fn text(line: &[u8]) -> Option<WireRequest> {
    let line = String::from_utf8_lossy(line);
    let (time, rest) = line.trim().strip_prefix('[')?.split_once("] ")?;
    let (line, rest) = rest.strip_prefix('"')?.split_once("\" ")?;
    let (method, target) = line.split_once(' ')?;
    // A path has no space, but a client may have sent one.
    let (path, _protocol) = target.rsplit_once(' ')?;
    // Envoy does not escape quotes, so what a client chooses is what is left over in the middle.
    let (to_forwarded, tail) = rest.split_once("\" \"")?;
    let (numbers, forwarded) = to_forwarded.rsplit_once('"')?;
    let (quoted, after) = tail.rsplit_once('"')?;
    let mut quoted = quoted.rsplitn(4, "\" \"");
    let (_upstream, authority, request_id, agent) = (quoted.next()?, quoted.next()?, quoted.next()?, quoted.next()?);
    let some = |text: &str| (!text.is_empty() && text != "-").then(|| text.to_owned());
    let before = |back: usize| numbers.split_ascii_whitespace().rev().nth(back).and_then(some);
    let after = |on: usize| after.split_ascii_whitespace().nth(on).and_then(some);
    let mut request = WireRequest {
        method: some(method)?,
        authority: some(authority)?,
        path: some(path).unwrap_or_default(),
        time: Timestamp::parse(time),
        source_address: after(3).and_then(|text| address(&text)),
        destination_port: after(2).and_then(|text| port(&text)),
        sni: after(4),
        response: response(numbers.split_ascii_whitespace().next().and_then(some), before(1)),
        ..WireRequest::default()
    };
    for (name, value) in [("x-forwarded-for", forwarded), ("user-agent", agent), ("x-request-id", request_id)] {
        some(value).into_iter().for_each(|value| url::add_header(&mut request, name, &value));
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(request: &WireRequest) -> String {
        let headers: Vec<String> = request.headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let response = request.response.as_ref().map(|response| (response.status, response.latency));
        format!(
            "{} {} {} {:?} {:?} {:?} {:?} {:?} [{}]",
            request.method,
            request.authority,
            request.path,
            request.source_address,
            request.destination_port,
            request.sni,
            request.time.map(crate::words::instant),
            response,
            headers.join(" ")
        )
    }

    #[test]
    fn envoys_text_format_is_read() {
        let line = r#"[2016-04-15T20:17:00.310Z] "POST /api/v1/locations HTTP/2" 204 - 154 0 226 100 "10.0.35.28" "nsq2http" "cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2" "locations" "tcp://10.0.2.1:80""#;
        assert_eq!(
            shown(&text(line.as_bytes()).unwrap()),
            "POST locations /api/v1/locations None None None Some(\"2016-04-15T20:17:00.31Z\") Some((204, 226ms)) \
             [x-forwarded-for=10.0.35.28 user-agent=nsq2http x-request-id=cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2]"
        );
        assert!(is_text_log(line.as_bytes()));
    }

    #[test]
    fn istios_text_format_is_read() {
        let line = r#"[2020-11-25T21:26:18.409Z] "GET /status/418 HTTP/1.1" 418 - via_upstream - "-" 0 135 3 1 "-" "curl/7.73.0-DEV" "84961386-6d84-929d-98bd-c5aee93b5c88" "httpbin:8000" "127.0.0.1:80" inbound|8000|| 127.0.0.1:41854 10.44.1.27:80 10.44.1.23:37652 outbound_.8000_._.httpbin.foo.svc.cluster.local default"#;
        assert_eq!(
            shown(&text(line.as_bytes()).unwrap()),
            "GET httpbin:8000 /status/418 Some(10.44.1.23) Some(80) Some(\"outbound_.8000_._.httpbin.foo.svc.cluster.local\") \
             Some(\"2020-11-25T21:26:18.409Z\") Some((418, 3ms)) \
             [user-agent=curl/7.73.0-DEV x-request-id=84961386-6d84-929d-98bd-c5aee93b5c88]"
        );
    }

    #[test]
    fn quotes_in_a_user_agent_do_not_move_the_authority() {
        let line = r#"[2026-01-01T00:00:00Z] "GET / HTTP/1.1" 200 - 0 0 1 1 "-" "a" "b" c" "id" "shop.test" "-""#;
        let request = text(line.as_bytes()).unwrap();
        assert_eq!((&*request.authority, request.headers[0].1.as_str()), ("shop.test", "a\" \"b\" c"));
    }

    #[test]
    fn the_json_formats_of_istio_and_envoy_gateway_are_read() {
        let istio = r#"{"start_time":"2026-01-01T00:00:00.5Z","method":"GET","path":"/x?y=1","authority":"a.test","protocol":"HTTP/2","response_code":503,"duration":12,
            "downstream_remote_address":"10.0.0.1:4711","downstream_local_address":"10.0.0.2:8443","requested_server_name":"a.test","user_agent":"curl","x_forwarded_for":"-","x-user-id":"7","upstream_host":null}"#;
        assert_eq!(
            shown(&json(istio.as_bytes()).unwrap()),
            "GET a.test /x?y=1 Some(10.0.0.1) Some(8443) Some(\"a.test\") Some(\"2026-01-01T00:00:00.5Z\") Some((503, 12ms)) [user-agent=curl x-user-id=7]"
        );
        let gateway = r#"{":authority":"a.test","method":"GET","x-envoy-origin-path":"/old","path":"/new","response_code":0,"user-agent":"x","x-envoy-upstream-service-time":"3","downstream_remote_address":"[::1]:1","headers":{"X-A":"1\u00e9","x-b":null},"tags":[1,{"a":[true]}],"ok":false}"#;
        assert_eq!(
            shown(&json(gateway.as_bytes()).unwrap()),
            "GET a.test /old Some(::1) None None None None [user-agent=x x-a=1é]"
        );
    }

    #[test]
    fn what_is_no_request_is_none() {
        for line in [
            "",
            "x",
            "[",
            "[x] ",
            "[2026-01-01T00:00:00Z] \"- - -\" 0 - 0 0 0 - \"-\" \"-\" \"-\" \"-\" \"-\"",
            "[2026-01-01T00:00:00Z] \"GET /",
            "[2026-01-01T00:00:00Z] \"GET / HTTP/1.1\" 200",
            "[2026-01-01T00:00:00Z] \"GET / HTTP/1.1\" 200 - 0 0 1 1 \"-\" \"-\" \"-\" \"-\" \"-\"",
        ] {
            assert!(text(line.as_bytes()).is_none(), "{line}");
        }
        for line in ["", "{}", "[]", "{\"method\":\"GET\"}", r#"{"method":"-","authority":"a","path":"/"}"#] {
            assert!(json(line.as_bytes()).is_none(), "{line}");
        }
    }
}
