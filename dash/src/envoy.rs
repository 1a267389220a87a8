//! Polls one Envoy through its admin interface. Sends only GET requests, and requests only the statistics that are
//! shown.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::configuration::{EnvoyConfiguration, short};
use crate::names;
use crate::sample::{Identity, Sample};

/// The statistics that are shown. Envoy applies the filter, so that it does not format thousands of others each second.
const FILTER: &str = r"^(wasmcustom\.penstock\.|access_logs\.grpc_access_log\.logs_dropped$|cluster\..*\.upstream_rq_(total|5xx|timeout)$|cluster\..*\.upstream_cx_connect_fail$|http\..*\.downstream_rq_(total|5xx)$)";

/// The largest configuration in bytes; one with 100,000 rules is smaller.
const MOST_CONFIGURATION: u64 = 64 << 20;
/// The largest page of statistics in bytes, enough for tens of thousands of counters.
const MOST_STATS: u64 = 16 << 20;
const MOST_INFO: u64 = 1 << 20;

/// Returns warnings about a configuration dump, one sentence each.
pub type FindWarnings = fn(&str) -> Vec<String>;

/// One Envoy.
#[derive(Debug)]
pub struct EnvoyAdmin {
    url: String,
    agent: ureq::Agent,
}

#[derive(Deserialize)]
struct Stats {
    stats: Vec<Stat>,
}

/// Histograms have no name.
#[derive(Deserialize)]
struct Stat {
    name: Option<Box<str>>,
    value: Option<Value>,
}

/// An HTTP agent for sources. Each response must be complete within `timeout`.
pub(crate) fn agent(timeout: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("penstock-dash/", env!("CARGO_PKG_VERSION")));
    config.build().into()
}

impl EnvoyAdmin {
    /// An Envoy with its admin interface at `url`.
    pub fn new(url: &str, timeout: Duration) -> EnvoyAdmin {
        EnvoyAdmin { url: url.trim_end_matches('/').to_owned(), agent: agent(timeout) }
    }

    /// Fetches the current metrics.
    ///
    /// # Errors
    /// Returns an error when it does not respond, or when the response is not Envoy's.
    pub fn sample(&self) -> Result<Sample> {
        let page = self.get(&format!("/stats?format=json&usedonly&filter={}", encode(FILTER)), MOST_STATS)?;
        let stats: Stats = serde_json::from_slice(&page).context("/stats is not in Envoy's format")?;
        let mut sample = Sample::default();
        for stat in stats.stats {
            let (Some(name), Some(value)) = (stat.name, stat.value.as_ref().and_then(Value::as_f64)) else { continue };
            match names::of_stat(&name) {
                Some((metric, labels)) => match names::key(metric, |name| names::label(&labels, name)) {
                    Some(key) => sample.add(&key, value),
                    None => sample.is_of_another_version |= !names::is_known(metric),
                },
                None => sample.add_traffic(name, value as u64),
            }
        }
        Ok(sample)
    }

    /// Fetches its identity.
    ///
    /// # Errors
    /// Returns an error when it does not respond, or when the response is not Envoy's.
    pub fn identity(&self) -> Result<Identity> {
        let page: Value = serde_json::from_slice(&self.get("/server_info", MOST_INFO)?)
            .context("/server_info is not in Envoy's format")?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(short);
        let uptime = text(page.get("uptime_current_epoch"));
        // The version has the form commit/version/….
        let version = text(page.get("version")).and_then(|text| text.split('/').nth(1).map(str::to_owned));
        Ok(Identity {
            version: Some(version.context("/server_info is not in Envoy's format: it has no version")?),
            node: text(page.pointer("/node/id")),
            namespace: text(page.pointer("/node/metadata/NAMESPACE")),
            uptime: uptime.and_then(|text| text.trim_end_matches('s').split('.').next()?.parse().ok()),
        })
    }

    /// Fetches the policies in its configuration, and its routes: from a route's name to a cluster.
    ///
    /// # Errors
    /// Returns an error when it does not respond, or when the response is not Envoy's.
    pub fn configuration(&self, find_warnings: FindWarnings) -> Result<EnvoyConfiguration> {
        let page = self.get("/config_dump", MOST_CONFIGURATION)?;
        let dump: Value = serde_json::from_slice(&page).context("/config_dump is not in Envoy's format")?;
        let warnings = std::str::from_utf8(&page).map_or_else(|_| Vec::new(), find_warnings);
        Ok(EnvoyConfiguration::of(&dump, warnings))
    }

    /// A page of at most `most` bytes. The agent does not request compression and does not decompress.
    fn get(&self, path: &str, most: u64) -> Result<Vec<u8>> {
        let mut response = self.agent.get(format!("{}{path}", self.url)).call()?;
        let page = path.split('?').next().unwrap_or_default();
        let read = response.body_mut().with_config().limit(most).read_to_vec();
        read.with_context(|| format!("{page} cannot be read, or has more than {} MiB", most >> 20))
    }
}

/// Encodes a query value; handles only the characters in [`FILTER`].
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
        out
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// An admin interface that responds to everything with these bytes, and repeats the last part without end.
    fn hostile(head: &'static str, part: Vec<u8>) -> EnvoyAdmin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n").as_bytes());
                while !part.is_empty() && stream.write_all(&part).is_ok() {}
            }
        });
        EnvoyAdmin::new(&url, Duration::from_secs(60))
    }

    fn no_warnings(_: &str) -> Vec<String> {
        vec![]
    }

    #[test]
    fn a_page_without_end_is_an_error() {
        let envoy = hostile("connection: close\r\n", vec![b' '; 1 << 16]);
        for error in [envoy.sample().err(), envoy.identity().err(), envoy.configuration(no_warnings).err()] {
            let error = format!("{:#}", error.unwrap());
            assert!(error.contains("has more than"), "{error}");
        }
    }

    #[test]
    fn a_page_that_envoy_does_not_write_is_an_error_and_nothing_is_decompressed() {
        // 10 MiB of zeros, compressed to 10 KiB.
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&vec![0; 10 << 20]).unwrap();
        let packed = packed.finish().unwrap();
        let head: &'static str =
            Box::leak(format!("content-encoding: gzip\r\ncontent-length: {}\r\n", packed.len()).into_boxed_str());
        for envoy in [hostile(head, packed), hostile("content-length: 12\r\n", b"<b>hello</b>".to_vec())] {
            let error = format!("{:#}", envoy.sample().unwrap_err());
            assert!(error.contains("/stats is not in Envoy's format"), "{error}");
        }
    }

    #[test]
    fn the_filter_is_a_query_that_needs_no_further_encoding() {
        assert!(encode(FILTER).bytes().all(|byte| byte.is_ascii_alphanumeric() || b"%-._~".contains(&byte)));
        assert_eq!(encode("a+b&c"), "a%2Bb%26c");
    }
}
