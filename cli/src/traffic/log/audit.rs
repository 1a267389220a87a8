//! The lines that the modules write about egress decisions into the proxy's own log: `{"egress":"audit",…}`.
//!
//! They follow the prefix of the proxy's log, or are inside a field of a log in JSON.

use penstock_policy::Timestamp;
use penstock_policy::wire::WireRequest;
use serde::Deserialize;
use serde_json::Value;

use super::fields::Line;
use super::time;

/// The start of each line.
const BEGIN: &[u8] = b"{\"egress\":\"";

/// The same inside a JSON string.
const ESCAPED: &[u8] = b"{\\\"egress\\\":\\\"";

/// The content of a line. Unknown fields, which later versions may add, are ignored.
#[derive(Debug, Deserialize)]
struct AuditLine {
    egress: String,
    why: Option<String>,
    caller: Option<String>,
    host: Option<String>,
    method: Option<String>,
    path: Option<String>,
    port: Option<u16>,
    decisions: Option<u64>,
}

/// Whether a line contains one of the modules' lines.
pub fn is_audit(line: &[u8]) -> bool {
    memchr::memmem::find(line, BEGIN).is_some() || memchr::memmem::find(line, ESCAPED).is_some()
}

/// Parses a line.
pub fn read(line: &[u8]) -> Line {
    let text = String::from_utf8_lossy(line);
    if memchr::memmem::find(line, ESCAPED).is_some() {
        return match serde_json::from_str::<Value>(text.trim()) {
            Ok(object) => inside(&object).unwrap_or(Line::OtherLayout),
            Err(_) => Line::OtherLayout,
        };
    }
    message(&text, None)
}

/// The module's line in a field of a JSON log.
fn inside(object: &Value) -> Option<Line> {
    const TIMES: [&str; 6] = ["time", "timestamp", "@timestamp", "ts", "datetime", "start_time"];
    let fields = object.as_object()?;
    let message_of = |value: &Value| value.as_str().filter(|text| is_audit(text.as_bytes())).map(str::to_owned);
    let found = fields.values().find_map(message_of)?;
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let at = TIMES.iter().find_map(|name| time::read(&text(fields.get(*name)?)?, ""));
    Some(message(&found, at))
}

/// Parses the module's line in a log message.
fn message(text: &str, at: Option<Timestamp>) -> Line {
    let Some(begin) = memchr::memmem::find(text.as_bytes(), BEGIN) else { return Line::OtherLayout };
    let (before, from) = text.split_at_checked(begin).unwrap_or_default();
    let mut documents = serde_json::Deserializer::from_str(from).into_iter::<AuditLine>();
    let Some(Ok(written)) = documents.next() else { return Line::OtherLayout };
    if written.egress == "notLogged" {
        return Line::NotLogged(written.decisions.unwrap_or(0));
    }
    let Some(host) = written.host else { return Line::NoRequest };
    // A connection of a TLS listener has no method.
    let is_connection = written.method.is_none();
    let mut request = WireRequest {
        method: written.method.unwrap_or_default(),
        authority: host,
        path: written.path.unwrap_or_default(),
        peer: written.caller,
        time: at.or_else(|| time_in(before)),
        ..WireRequest::default()
    };
    add_port(&mut request, written.port, written.why.as_deref());
    if is_connection { Line::Connection(Box::new(request)) } else { Line::Request(Box::new(request)) }
}

/// The port that the module determined: for an authority without one, that of the connection, according to the scheme.
fn add_port(request: &mut WireRequest, port: Option<u16>, why: Option<&str>) {
    let Some(port) = port.filter(|_| why != Some("portMalformed")) else { return };
    let after_address = request.authority.rsplit(']').next().unwrap_or_default();
    match port {
        _ if after_address.contains(':') => {}
        443 => request.scheme = Some("https".to_owned()),
        80 => request.scheme = Some("http".to_owned()),
        port => request.authority = format!("{}:{port}", request.authority),
    }
}

/// The first time in the prefix of a message: `[2026-11-26 17:00:00.123][12][info]…`, or RFC 3339.
fn time_in(before: &str) -> Option<Timestamp> {
    let read = |word: &str| {
        word.split(' ').find_map(Timestamp::parse).or_else(|| {
            let (day, clock) = word.split_once(' ')?;
            let clock = clock.split(' ').next()?.replace(',', ".");
            Timestamp::parse(&format!("{day}T{clock}Z"))
        })
    };
    before.split(['[', ']', '\t', '"', '=']).map(str::trim).find_map(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        match read(line.as_bytes()) {
            Line::Request(request) => format!(
                "{} {:?} {} {} {:?} {:?}",
                request.method,
                request.scheme,
                request.authority,
                request.path,
                request.peer,
                request.time.map(crate::words::instant)
            ),
            other => format!("{other:?}"),
        }
    }

    const LINE: &str = r#"{"egress":"audit","why":"hostNotAllowed","rule":null,"owner":null,"reason":null,"caller":"spiffe://c/ns/a/sa/b","host":"api.test","method":"GET","path":"/v1","id":"0123456789abcdef","port":443}"#;

    #[test]
    fn a_line_is_found_behind_whatever_the_proxys_log_puts_before_it() {
        for (before, after, time) in [
            ("", "", "None"),
            (
                "[2026-11-26 17:00:00.123][12][info][wasm] [source/extensions/common/wasm/context.cc:1137] wasm log penstock penstock: ",
                "",
                "Some(\"2026-11-26T17:00:00.123Z\")",
            ),
            (
                "2026-11-26T17:00:00.123456Z\tinfo\tenvoy wasm external/envoy/source/context.cc:1198\twasm log egress: ",
                "\tthread=24",
                "Some(\"2026-11-26T17:00:00.123456Z\")",
            ),
            (
                "2026-11-26T17:00:00.5Z stdout F [2026-11-26 17:00:00.123][12][info] ",
                "",
                "Some(\"2026-11-26T17:00:00.5Z\")",
            ),
        ] {
            assert_eq!(
                shown(&format!("{before}{LINE}{after}")),
                format!("GET Some(\"https\") api.test /v1 Some(\"spiffe://c/ns/a/sa/b\") {time}"),
                "{before}"
            );
        }
        let wrapped =
            serde_json::json!({"time": "2026-11-26T17:00:00Z", "level": "info", "msg": format!("wasm log: {LINE}")});
        assert!(shown(&wrapped.to_string()).ends_with("Some(\"2026-11-26T17:00:00Z\")"));
    }

    #[test]
    fn the_port_is_the_schemes_or_the_authoritys() {
        let with = |host: &str, port: &str| {
            shown(
                &LINE
                    .replace("\"api.test\"", &format!("\"{host}\""))
                    .replace("\"port\":443", &format!("\"port\":{port}")),
            )
        };
        assert!(with("api.test", "80").starts_with("GET Some(\"http\") api.test "));
        assert!(with("api.test", "8443").starts_with("GET None api.test:8443 "));
        assert!(with("api.test:8443", "8443").starts_with("GET None api.test:8443 "));
        assert!(with("[::1]", "8443").starts_with("GET None [::1]:8443 "));
        assert!(with("api.test", "null").starts_with("GET None api.test "));
    }

    #[test]
    fn lines_about_no_request_are_skipped() {
        assert!(matches!(read(br#"{"egress":"notLogged","decisions":900}"#), Line::NotLogged(900)));
        assert!(matches!(read(LINE.replace("\"api.test\"", "null").as_bytes()), Line::NoRequest));
        let connection = read(LINE.replace("\"GET\"", "null").replace("\"/v1\"", "null").as_bytes());
        assert!(matches!(connection, Line::Connection(one) if one.authority == "api.test" && one.method.is_empty()));
        assert!(matches!(read(br#"{"egress":"audit","why":"#), Line::OtherLayout));
        assert!(matches!(read(b"something else"), Line::OtherLayout));
    }
}
