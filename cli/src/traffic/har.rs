//! HTTP Archives (HAR 1.2), as browsers and debugging proxies export them.

use std::time::Duration;

use anyhow::Context as _;
use penstock_policy::Timestamp;
use penstock_policy::wire::WireRequest;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::url;

/// The part of an archive that contains the requests. Entries are parsed one by one, so that a malformed one does not
/// affect the others.
#[derive(Debug, Deserialize)]
pub struct Archive {
    log: HarLog,
}

#[derive(Debug, Deserialize)]
struct HarLog {
    entries: Vec<Box<RawValue>>,
}

/// One exchange. Tools write `null` for unknown values.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HarEntry {
    started_date_time: Option<String>,
    /// Milliseconds; -1 when unknown.
    time: Option<f64>,
    request: HarRequest,
    response: Option<HarResponse>,
}

#[derive(Debug, Deserialize)]
struct HarRequest {
    method: String,
    url: String,
    headers: Option<Vec<HarHeader>>,
}

#[derive(Debug, Deserialize)]
struct HarHeader {
    name: String,
    value: Option<String>,
}

#[derive(Debug, Deserialize)]
struct HarResponse {
    /// 0 when there was no response.
    status: Option<i64>,
}

impl Archive {
    /// Parses an archive.
    ///
    /// # Errors
    /// Returns an error when it is not a HAR file.
    pub fn read(text: &str) -> anyhow::Result<Archive> {
        // Some tools write a byte order mark.
        serde_json::from_str(text.trim_start_matches('\u{feff}')).context("not a HAR file: JSON with log.entries")
    }

    /// The requests in order, as a proxy would have received them; an error for a malformed entry. Each entry stays
    /// text until it is parsed, because an archive may have hundreds of megabytes.
    pub fn requests(self) -> impl ExactSizeIterator<Item = anyhow::Result<WireRequest>> {
        self.log.entries.into_iter().map(|entry| {
            let entry: HarEntry = serde_json::from_str(entry.get()).context("not an entry with a request")?;
            entry.request()
        })
    }
}

impl HarEntry {
    fn request(self) -> anyhow::Result<WireRequest> {
        // The handshake of a WebSocket is an ordinary request.
        let scheme = |from: &str, to: &str| self.request.url.strip_prefix(from).map(|rest| format!("{to}{rest}"));
        let url = scheme("wss://", "https://").or_else(|| scheme("ws://", "http://"));
        let mut request = url::request(url.as_deref().unwrap_or(&self.request.url))?;
        request.method = self.request.method;
        for header in self.request.headers.unwrap_or_default() {
            header.value.into_iter().for_each(|value| url::add_header(&mut request, &header.name, &value));
        }
        request.time = self.started_date_time.as_deref().and_then(Timestamp::parse);
        let status = self.response.and_then(|response| u16::try_from(response.status?).ok());
        let millis = self.time.unwrap_or(0.0);
        request.response = status.filter(|status| (100..600).contains(status)).map(|status| {
            super::log::response(status, Duration::try_from_secs_f64(millis / 1000.0).unwrap_or_default())
        });
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_what_the_browser_sent() {
        let text = r#"{"log":{"version":"1.2","creator":{"name":"x"},"entries":[{"startedDateTime":"2026-01-01T01:00:00.5+01:00",
            "time":12.5,"request":{"method":"POST","url":"https://a.test/x?y=1#z","httpVersion":"h2","cookies":[],
            "headers":[{"name":":authority","value":"b.test"},{"name":"Cookie","value":"a=1"}],"queryString":[]},
            "response":{"status":503}}]}}"#;
        let archive = Archive::read(&format!("\u{feff}{text}")).unwrap();
        let request = archive.requests().next().unwrap().unwrap();
        assert_eq!((&*request.method, &*request.authority, &*request.path), ("POST", "a.test", "/x?y=1"));
        assert_eq!(request.headers, [("cookie".to_owned(), "a=1".to_owned())]);
        assert_eq!(request.time, Timestamp::parse("2026-01-01T00:00:00.5Z"));
        assert_eq!(request.response.map(|r| (r.status, r.latency)), Some((503, Duration::from_micros(12_500))));
        assert!(Archive::read("{}").is_err());
    }

    #[test]
    fn an_odd_entry_is_an_error_of_its_own_and_nulls_are_nothing() {
        let entry =
            |url: &str, more: &str| format!(r#"{{"request":{{"method":"GET","url":"{url}"{more}}},"time":null}}"#);
        let entries = [
            entry("https://a.test/", r#","headers":[{"name":"x","value":null}]"#),
            entry("wss://a.test/ws", r#","headers":[{"name":"Upgrade","value":"websocket"}]"#),
            entry("https://a.test/?q={x}", r#","headers":null"#),
            entry("data:image/png;base64,AA==", ""),
            entry("chrome-extension://a/b", ""),
            entry("https://a.test/a b", ""),
            r#"{"request":null}"#.to_owned(),
            "7".to_owned(),
        ];
        let archive = Archive::read(&format!(r#"{{"log":{{"entries":[{}]}}}}"#, entries.join(","))).unwrap();
        let read: Vec<Option<String>> = archive
            .requests()
            .map(|request| request.ok().map(|request| format!("{}{}", request.authority, request.path)))
            .collect();
        let expected = ["a.test/", "a.test/ws", "a.test/?q={x}"].map(|text| Some(text.to_owned()));
        assert_eq!(read.get(..3), Some(&expected[..]));
        assert!(read[3..].iter().all(Option::is_none), "{read:?}");
    }
}
