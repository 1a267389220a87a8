//! Access logs in JSON whose keys are those of the default formats of Istio, Envoy Gateway and Contour, or usual names
//! for the same values. Any other key with a hyphen is a header.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::fields::{AddressSource, Line, LogField, LogRecord};

/// Keys for each part of a request; the first key that exists is used.
const METHOD: &[&str] = &["method", ":method", "request_method", "http_method"];
const ORIGINAL_PATH: &[&str] =
    &["x-envoy-original-path", "x-envoy-origin-path", "x_envoy_original_path", "original_path"];
const PATH: &[&str] = &["path", ":path", "request_path", "uri", "request_uri"];
const AUTHORITY: &[&str] = &["authority", ":authority", "host", "request_host", "http_host"];
const SCHEME: &[&str] = &["scheme", ":scheme", "x-forwarded-proto", "x_forwarded_proto"];
const TIME: &[&str] = &["start_time", "@timestamp", "timestamp", "time", "startTime", "ts", "datetime", "time_iso8601"];
const STATUS: &[&str] = &["response_code", "status", "status_code", "response_status"];
const DURATION: &[&str] = &["duration", "duration_ms", "durationMs"];
const SOURCE: &[&str] = &[
    "downstream_remote_address",
    "downstream_remote_address_without_port",
    "client_ip",
    "source_ip",
    "remote_addr",
    "remote_address",
    "remote_ip",
    "client_address",
    "source",
];
const DIRECT: &[&str] = &["downstream_direct_remote_address", "downstream_direct_remote_address_without_port"];
const LOCAL: &[&str] = &["downstream_local_address", "downstream_local_port"];
const SNI: &[&str] = &["requested_server_name", "sni"];
const PEER: &[&str] = &["downstream_peer_uri_san", "caller"];

/// Headers whose keys have no hyphen.
const HEADERS: [(&str, &str); 8] = [
    ("user_agent", "user-agent"),
    ("x_forwarded_for", "x-forwarded-for"),
    ("x_forwarded_proto", "x-forwarded-proto"),
    ("request_id", "x-request-id"),
    ("x_request_id", "x-request-id"),
    ("cookie", "cookie"),
    ("authorization", "authorization"),
    ("referer", "referer"),
];

/// Keys with a hyphen that are not request headers.
const NO_HEADERS: [&str; 3] = ["x-envoy-upstream-service-time", "x-envoy-original-path", "x-envoy-origin-path"];

/// Whether a JSON object looks like an access log line.
pub fn is_log(object: &Map<String, Value>) -> bool {
    let has = |keys: &[&str]| keys.iter().any(|key| object.contains_key(*key));
    has(METHOD) && (has(PATH) || has(ORIGINAL_PATH)) && (has(TIME) || has(STATUS))
}

/// Parses a line.
pub fn read(line: &[u8]) -> Line {
    let Ok(Given::Object(fields)) = serde_json::from_slice(line) else { return Line::OtherLayout };
    let find = |key: &str| fields.iter().find(|(name, _)| name == key).and_then(|(_, value)| value.text());
    let mut found = LogRecord::default();
    let mut has_method_key = false;
    let mut take = |keys: &[&str], field: LogField| {
        if let Some(value) = keys.iter().find_map(|key| find(key)) {
            found.take(&field, value);
        }
    };
    for (keys, field) in [
        (METHOD, LogField::Method),
        (ORIGINAL_PATH, LogField::OriginalPath),
        (PATH, LogField::Path),
        (AUTHORITY, LogField::Authority),
        (SCHEME, LogField::Scheme),
        (TIME, LogField::Time(String::new())),
        (STATUS, LogField::Status),
        (DURATION, LogField::Duration),
        (SOURCE, LogField::Source(AddressSource::Remote)),
        (DIRECT, LogField::Source(AddressSource::Direct)),
        (LOCAL, LogField::Local),
        (SNI, LogField::Sni),
        (PEER, LogField::Peer),
    ] {
        take(keys, field);
    }
    for (key, value) in &fields {
        has_method_key |= METHOD.contains(&&**key);
        let known = HEADERS.iter().find(|(known, _)| known == key).map(|(_, name)| *name);
        let name = known.or(Some(&**key).filter(|key| key.contains('-') && !NO_HEADERS.contains(key)));
        if let (Some(name), Some(value)) = (name, value.text()) {
            found.take(&LogField::header(name, None), value);
        }
        if let ("headers", Given::Object(headers)) = (&**key, value) {
            for (name, value) in headers {
                value.text().into_iter().for_each(|value| found.take(&LogField::header(name, None), value));
            }
        }
    }
    if has_method_key { found.finish() } else { Line::OtherLayout }
}

/// A value that borrows from its line where it can: a tree of owned values would take half of the time.
enum Given<'l> {
    /// A string, or a number as text.
    Text(Cow<'l, str>),
    /// An object.
    Object(Vec<(Cow<'l, str>, Given<'l>)>),
    /// `null`, a boolean, or a list.
    Nothing,
}

impl Given<'_> {
    /// The value as text.
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
