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

    /// The fields that the browsers write, with what is odd in each: pseudo-headers, addresses in brackets, WebSockets and
    /// blocked requests of Chrome; offsets and empty timings of Firefox; requests from the memory cache of Safari.
    #[test]
    fn the_archives_of_browsers_are_read() {
        let chrome = r#"{"log":{"version":"1.2","creator":{"name":"WebInspector","version":"537.36"},"pages":[{"id":"page_1","startedDateTime":"2026-05-06T07:08:09.123Z","title":"x","pageTimings":{"onContentLoad":312.1,"onLoad":null}}],"entries":[
            {"_connectionId":"413","_initiator":{"type":"other"},"_priority":"VeryHigh","_resourceType":"document","cache":{},"connection":"443","pageref":"page_1","request":{"method":"GET","url":"https://shop.test/cart?a=1#top","httpVersion":"http/2.0",
             "headers":[{"name":":authority","value":"shop.test"},{"name":":method","value":"GET"},{"name":":path","value":"/cart?a=1"},{"name":":scheme","value":"https"},{"name":"cookie","value":"a=b"}],"queryString":[{"name":"a","value":"1"}],"cookies":[{"name":"a","value":"b","sameSite":"None"}],"headersSize":-1,"bodySize":0},
             "response":{"status":200,"headers":[],"content":{"size":1},"_transferSize":300,"_error":null},"serverIPAddress":"[2001:db8::1]","startedDateTime":"2026-05-06T07:08:09.123Z","time":123.5,"timings":{"blocked":2.5,"dns":-1,"_blocked_queueing":1.2}},
            {"request":{"method":"GET","url":"wss://shop.test/ws","httpVersion":"HTTP/1.1","headers":[{"name":"Host","value":"shop.test"},{"name":"Upgrade","value":"websocket"}],"headersSize":5,"bodySize":0},"response":{"status":101},"_webSocketMessages":[{"type":"send","time":1.5,"opcode":1,"data":"x"}],"serverIPAddress":"","startedDateTime":"2026-05-06T07:08:10.123Z","time":5000.5},
            {"request":{"method":"POST","url":"https://api.test/x","httpVersion":"","headers":[],"postData":{"mimeType":"application/json","text":"{}"},"headersSize":-1,"bodySize":2},"response":{"status":0,"_error":"net::ERR_BLOCKED_BY_CLIENT"},"startedDateTime":"2026-05-06T07:08:11.123Z","time":-1}]}}"#;
        let firefox = r#"{"log":{"version":"1.2","creator":{"name":"Firefox","version":"140.0"},"browser":{"name":"Firefox","version":"140.0"},"pages":[],"entries":[
            {"startedDateTime":"2026-05-06T09:08:09.123+02:00","request":{"bodySize":0,"method":"GET","url":"https://shop.test/cart?a=1","httpVersion":"HTTP/2","headers":[{"name":"Host","value":"shop.test"},{"name":"Cookie","value":"a=b"}],"cookies":[],"queryString":[],"headersSize":4},
             "response":{"status":200,"content":{"encoding":"base64","text":"eA=="}},"cache":{},"timings":{"blocked":0},"time":81,"_securityState":"secure","serverIPAddress":"203.0.113.4","connection":"443","pageref":"page_1"},
            {"startedDateTime":"2026-05-06T09:08:09.200+02:00","request":{"method":"GET","url":"https://ads.test/a.js","httpVersion":"","headers":[],"headersSize":0},"response":{"status":0,"headersSize":-1},"cache":{},"timings":{},"time":0}]}}"#;
        let safari = r#"{"log":{"version":"1.2","creator":{"name":"WebKit Web Inspector","version":"1.0"},"pages":[{"id":"page_0","pageTimings":{"onLoad":600}}],"entries":[
            {"pageref":"page_0","startedDateTime":"2026-05-06T07:08:09.123Z","time":333.25,"request":{"method":"GET","url":"https://shop.test/cart?a=1","httpVersion":"HTTP/2","cookies":[],"headers":[{"name":"Cookie","value":"a=b"}],"queryString":[],"headersSize":1,"bodySize":0},
             "response":{"status":200,"content":{"compression":0}},"cache":{},"timings":{"dns":-1},"serverIPAddress":"203.0.113.4","connection":"1","_fetchType":"Network Load","_priority":"high"},
            {"startedDateTime":"2026-05-06T07:08:09.200Z","time":0,"request":{"method":"GET","url":"https://shop.test/a.png","httpVersion":"","cookies":[],"headers":[]},"response":{"status":200},"_fetchType":"Memory Cache"}]}}"#;
        for (text, others) in [
            (chrome, &["GET shop.test /ws", "POST api.test /x"][..]),
            (firefox, &["GET ads.test /a.js"]),
            (safari, &["GET shop.test /a.png"]),
        ] {
            let read: Vec<WireRequest> = Archive::read(text).unwrap().requests().map(Result::unwrap).collect();
            let first = read.first().unwrap();
            assert_eq!(first.time, Timestamp::parse("2026-05-06T07:08:09.123Z"), "{text}");
            assert!(first.headers.contains(&("cookie".to_owned(), "a=b".to_owned())), "{:?}", first.headers);
            assert!(first.headers.iter().all(|(name, _)| !name.starts_with(':')), "{:?}", first.headers);
            let shown: Vec<String> = read.iter().map(|r| format!("{} {} {}", r.method, r.authority, r.path)).collect();
            assert_eq!(shown.first().map(String::as_str), Some("GET shop.test /cart?a=1"));
            assert_eq!(shown[1..], *others);
        }
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
