//! HTTP Archives (HAR 1.2), as browsers and debugging proxies export them.

use std::time::Duration;

use anyhow::Context as _;
use penstock_policy::Timestamp;
use penstock_policy::wire::{WireRequest, WireResponse};
use serde::Deserialize;

use super::url;

/// The part of an archive that says what was sent.
#[derive(Debug, Deserialize)]
pub struct Archive {
    log: Log,
}

#[derive(Debug, Deserialize)]
struct Log {
    entries: Vec<Entry>,
}

/// One exchange.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    #[serde(default)]
    started_date_time: Option<String>,
    /// Milliseconds, -1 when unknown.
    #[serde(default)]
    time: f64,
    request: Sent,
    #[serde(default)]
    response: Option<Received>,
}

#[derive(Debug, Deserialize)]
struct Sent {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<Header>,
}

#[derive(Debug, Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
struct Received {
    /// 0 when there was none.
    #[serde(default)]
    status: i64,
}

impl Archive {
    /// Reads an archive.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(text: &str) -> anyhow::Result<Archive> {
        // Some tools begin with a byte order mark.
        serde_json::from_str(text.trim_start_matches('\u{feff}')).context("not a HAR file: JSON with log.entries")
    }

    /// The exchanges in order.
    pub fn entries(&self) -> &[Entry] {
        &self.log.entries
    }
}

impl Entry {
    /// The request as a proxy would have received it.
    ///
    /// # Errors
    /// When its URL is none.
    pub fn request(&self) -> anyhow::Result<WireRequest> {
        let mut request = url::request(&self.request.url)?;
        request.method.clone_from(&self.request.method);
        for header in &self.request.headers {
            url::add_header(&mut request, &header.name, &header.value);
        }
        request.time = self.started_date_time.as_deref().and_then(Timestamp::parse);
        let status = self.response.as_ref().and_then(|response| u16::try_from(response.status).ok());
        request.response = status.filter(|status| (100..600).contains(status)).map(|status| WireResponse {
            status,
            latency: Duration::try_from_secs_f64(self.time / 1000.0).unwrap_or_default(),
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
        let request = archive.entries()[0].request().unwrap();
        assert_eq!((&*request.method, &*request.authority, &*request.path), ("POST", "a.test", "/x?y=1"));
        assert_eq!(request.headers, [("cookie".to_owned(), "a=1".to_owned())]);
        assert_eq!(request.time, Timestamp::parse("2026-01-01T00:00:00.5Z"));
        assert_eq!(request.response.map(|r| (r.status, r.latency)), Some((503, Duration::from_micros(12_500))));
        assert!(Archive::read("{}").is_err());
    }
}
