//! Log lines as a cluster delivers them: container runtimes wrap each line (CRI, Docker), and `kubectl logs` and
//! similar tools add a time and names in front.

use std::borrow::Cow;

use penstock_policy::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::log;

/// The output of a process in a line of a container runtime's log; `false` when it continues in the next line.
pub fn written(line: &[u8]) -> Option<(Cow<'_, [u8]>, bool)> {
    match line.first()? {
        b'{' => docker(line),
        b'0'..=b'9' => cri(line).map(|(line, is_whole)| (Cow::Borrowed(line), is_whole)),
        _ => None,
    }
}

/// Parses `{"log":"…\n","stream":"stdout","time":"…"}`.
fn docker(line: &[u8]) -> Option<(Cow<'_, [u8]>, bool)> {
    #[derive(Deserialize)]
    struct DockerLine {
        log: String,
        stream: Option<String>,
        time: Option<String>,
    }
    memchr::memmem::find(line.get(..64).unwrap_or(line), b"\"log\"")?;
    let docker: DockerLine = serde_json::from_slice(line).ok()?;
    docker.stream.or(docker.time)?;
    let is_whole = docker.log.ends_with('\n');
    Some((Cow::Owned(docker.log.trim_end_matches(['\r', '\n']).to_owned().into_bytes()), is_whole))
}

/// Parses `2026-01-01T00:00:00.123456789Z stdout F …`; `P` marks a part.
fn cri(line: &[u8]) -> Option<(&[u8], bool)> {
    let mut words = line.splitn(4, |&byte| byte == b' ');
    let (time, stream, tag, rest) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let is_cri = matches!(stream, b"stdout" | b"stderr") && is_time(time);
    let tag = tag.split(|&byte| byte == b':').next()?;
    (is_cri && matches!(tag, b"F" | b"P")).then_some((rest, tag == b"F"))
}

fn is_time(word: &[u8]) -> bool {
    std::str::from_utf8(word).is_ok_and(|word| Timestamp::parse(word).is_some())
}

/// The log line after the prefix of `kubectl logs --timestamps` and `--prefix`, stern, or docker compose.
pub fn behind_prefix(line: &[u8]) -> Option<&[u8]> {
    const WORDS: usize = 4;
    let mut rest = line;
    for _ in 0..WORDS {
        let end = rest.iter().position(|&byte| byte == b' ' || byte == b'\t')?;
        let (word, after) = rest.split_at_checked(end)?;
        if word.contains(&b'"') || word.starts_with(b"{") {
            return None;
        }
        rest = after.trim_ascii_start();
        if is_known(rest) {
            return Some(rest);
        }
    }
    None
}

/// Whether a line belongs to an access log with a known format.
fn is_known(line: &[u8]) -> bool {
    match line.first() {
        Some(b'[') => log::is_text_log(line),
        Some(b'{') => {
            let object: Map<String, Value> = serde_json::from_slice(line).unwrap_or_default();
            log::is_json_log(&object)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[2026-01-01T00:00:00.123Z] \"GET / HTTP/1.1\" 200 -";
    const JSON: &str = r#"{"start_time":"2026-01-01T00:00:00.5Z","method":"GET","path":"/"}"#;

    #[test]
    fn the_output_of_a_process_is_extracted_from_the_runtimes_line() {
        for (line, expected) in [
            (format!("2026-01-01T00:00:01.123456789Z stdout F {TEXT}"), Some((TEXT, true))),
            (format!("2026-01-01T00:00:01.1+01:00 stderr P:x {TEXT}"), Some((TEXT, false))),
            (format!("2026-01-01T00:00:01.1Z stdin F {TEXT}"), None),
            (format!("yesterday stdout F {TEXT}"), None),
            (
                serde_json::json!({"log": format!("{JSON}\n"), "stream": "stdout", "time": "x"}).to_string(),
                Some((JSON, true)),
            ),
            (serde_json::json!({"log": "{\"a\":", "stream": "stdout"}).to_string(), Some(("{\"a\":", false))),
            (r#"{"log": {"entries": []}}"#.to_owned(), None),
            (r#"{"log": "x", "method": "GET"}"#.to_owned(), None),
            (JSON.to_owned(), None),
            (TEXT.to_owned(), None),
        ] {
            let read = written(line.as_bytes());
            let read = read.as_ref().map(|(line, is_whole)| (std::str::from_utf8(line).unwrap(), *is_whole));
            assert_eq!(read, expected, "{line}");
        }
    }

    #[test]
    fn a_known_line_is_found_behind_times_and_names() {
        for prefix in [
            "2026-01-01T00:00:01.1Z ",
            "[pod/gw-1/istio-proxy] ",
            "gw-1 istio-proxy ",
            "envoy-1  | ",
            "+ gw-1 \u{203a} a ",
        ] {
            for log in [TEXT, JSON] {
                assert_eq!(behind_prefix(format!("{prefix}{log}").as_bytes()), Some(log.as_bytes()), "{prefix}");
            }
        }
        for line in [
            TEXT,
            JSON,
            "",
            "a b c d e f",
            "\"x\" [2026-01-01T00:00:00Z] \"GET",
            "{\"a\": 1} [x] \"",
            "a {\"method\":\"GET\"}",
        ] {
            assert_eq!(behind_prefix(line.as_bytes()), None, "{line}");
        }
    }
}
