//! Envoy's own path normalisation as a second parser: a path that the allowlist forwards must mean the same to Envoy.
//! Where Envoy would read the client's original path differently, that original must not be forwarded.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use anyhow::Result;
use penstock_integration::http::{ClientConnection, HttpRequest, Protocol};
use penstock_integration::{Bootstrap, Listener, Route, Upstream};
use penstock_policy::egress::canonical;
use serde_json::json;

/// The parts of which paths are made.
const PIECES: [&str; 30] = [
    "/", "/", "/", "/", "a", "b", ".", "..", "...", ";", ";x=1", "%2e", "%2E%2e", "%2f", "%5C", "%3b", "%41", "%7e",
    "%c3%a9", "%C3%A9", "%20", "%3F", "%23", "+", "@", ":", "~", "*", "'", "c:",
];

/// Generates paths in a fixed random order (Knuth's MMIX generator).
fn paths(count: usize) -> Vec<String> {
    let mut state = 7u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    (0..count).map(|_| format!("/{}", (0..next(9)).map(|_| PIECES[next(PIECES.len())]).collect::<String>())).collect()
}

/// Where the parsers may differ. Both cases are harmless because the allowlist's path is the one that is forwarded:
/// only the allowlist drops path parameters, and Envoy does not merge a path of nothing but slashes.
fn is_exception(path: &str) -> bool {
    path.contains(';') || path.contains("%3b") || path.bytes().all(|byte| byte == b'/')
}

/// The same path with its escapes in upper case, which Envoy leaves unchanged (RFC 3986 §6.2.2.1: the path is
/// equivalent).
fn upper_escapes(path: &str) -> String {
    let mut parts = path.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |out, part| format!("{out}%{}{}", part[..2].to_ascii_uppercase(), &part[2..]))
}

#[test]
fn envoy_reads_forwarded_paths_as_the_allowlist_does() -> Result<()> {
    let upstream = Upstream::echo()?;
    let mut bootstrap = Bootstrap::new()?.cluster("upstream", upstream.address());
    let actions = ["UNESCAPE_AND_FORWARD", "REJECT_REQUEST", "KEEP_UNCHANGED"];
    for action in actions {
        let listener = Listener::new(action)
            .manager("normalize_path", json!(true))
            .manager("merge_slashes", json!(true))
            .manager("path_with_escaped_slashes_action", json!(action));
        bootstrap = bootstrap.listener(listener.route(Route::any().to("upstream")));
    }
    let mut envoy = bootstrap.start()?;
    let (mut same, mut ours_only, mut differ) = (0, 0, 0);
    for action in actions {
        let address = envoy.address(action)?;
        let mut connection = ClientConnection::open(Protocol::Http1, address)?;
        // The path as Envoy normalises it, or `None` when Envoy refuses it.
        let mut read = |path: &str| -> Result<Option<String>> {
            let before = upstream.requests();
            let response = connection.request(&HttpRequest::new("GET", "a.test", path));
            if !response.as_ref().is_ok_and(|response| response.status == 200) {
                connection = ClientConnection::open(Protocol::Http1, address)?;
                assert_eq!(upstream.requests(), before, "{path}");
                return Ok(None);
            }
            Ok(upstream.last().map(|received| received.path()))
        };
        for path in paths(400) {
            let Ok(ours) = canonical(path.as_bytes()) else { continue };
            let ours = String::from_utf8(ours.into_owned())?;
            let again = read(&ours)?;
            assert_eq!(again.as_ref(), Some(&ours), "{action}: forwarded for {path}, and read differently");
            match read(&path)? {
                None => ours_only += 1,
                Some(theirs) if upper_escapes(&theirs) == ours => same += 1,
                Some(theirs) => {
                    assert!(is_exception(&path), "{action}: {path}: ours {ours}, Envoy's {theirs}");
                    differ += 1;
                }
            }
        }
    }
    println!("read alike: {same}; refused by Envoy only: {ours_only}; read differently: {differ}");
    assert!(same > 300, "{same}");
    envoy.check_healthy()
}
