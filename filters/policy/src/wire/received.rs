//! A client's headers as a filter receives them: a proxy joins some repeated headers and drops others before any filter
//! sees the request. Applied here, so that a recorded request is decided as in the proxy.

use super::envoy_headers::{DROPPED, JOINED};

/// A header, its name in lower case.
pub type Field = (Vec<u8>, Vec<u8>);

/// Headers of a connection, not of its requests (RFC 9110, section 7.6.1); `upgrade` stays with an upgrade.
const OF_THE_CONNECTION: [&str; 4] = ["connection", "keep-alive", "proxy-connection", "upgrade"];
/// Envoy answers 400 to more options than these.
const MOST_OPTIONS: usize = 10;

/// The header list that Envoy passes to its filters for this one. Names must be in lower case.
///
/// A record without `connection` does not say whether its `upgrade` is an upgrade: it counts as one, as over HTTP/2.
pub fn as_received(fields: Vec<Field>) -> Vec<Field> {
    let mut received: Vec<Field> = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        let is_joined = is_in(&JOINED, &name) || is_in(&OF_THE_CONNECTION, &name) || name == b"te";
        match is_joined.then(|| received.iter_mut().find(|(found, _)| *found == name)).flatten() {
            Some((_, joined)) => join(joined, &value),
            None => received.push((name, value)),
        }
    }
    let options: Option<Vec<Vec<u8>>> = value_of(&received, b"connection").map(|list| items(list).collect());
    let is_upgrade = match &options {
        None => true,
        Some(options) => {
            let wanted = value_of(&received, b"upgrade").map(<[u8]>::to_ascii_lowercase);
            options.iter().any(|option| option == b"upgrade") && wanted.is_some_and(|wanted| wanted != b"h2c")
        }
    };
    // With an upgrade Envoy forwards the options and the headers that they name.
    let named = options.filter(|options| !is_upgrade && options.len() <= MOST_OPTIONS).unwrap_or_default();
    received.retain_mut(|(name, value)| {
        if name == b"expect" && value.eq_ignore_ascii_case(b"100-continue") {
            return false; // Envoy answers it.
        }
        if name == b"te" {
            let accepts_trailers = value.split(|byte| *byte == b',').any(|item| item.trim_ascii() == b"trailers");
            *value = b"trailers".to_vec();
            return accepts_trailers;
        }
        let stays = is_upgrade && (name == b"connection" || name == b"upgrade");
        stays || !(is_in(&OF_THE_CONNECTION, name) || is_in(&DROPPED, name) || named.contains(name))
    });
    received
}

fn is_in(names: &[&str], name: &[u8]) -> bool {
    names.iter().any(|other| other.as_bytes() == name)
}

fn value_of<'a>(fields: &'a [Field], name: &[u8]) -> Option<&'a [u8]> {
    fields.iter().find(|(found, _)| found == name).map(|(_, value)| &**value)
}

/// As Envoy does: an empty value adds nothing.
fn join(joined: &mut Vec<u8>, value: &[u8]) {
    if !joined.is_empty() && !value.is_empty() {
        joined.push(b',');
    }
    joined.extend_from_slice(value);
}

/// The items of a comma-separated list, in lower case.
fn items(list: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    list.split(|byte| *byte == b',').map(|item| item.trim_ascii().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn received(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        as_received(fields).into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    fn becomes(fields: &[(&str, &str)], expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(received(fields), expected);
    }

    #[test]
    fn headers_with_a_place_of_their_own_in_envoy_are_joined_where_the_first_one_stands() {
        becomes(
            &[("accept", "a"), ("x-a", "1"), ("accept", "b"), ("x-a", "2"), ("accept", "c")],
            &[("accept", "a,b,c"), ("x-a", "1"), ("x-a", "2")],
        );
        becomes(&[("accept", ""), ("accept", "b"), ("accept", "")], &[("accept", "b")]);
        becomes(&[("cookie", "a=1"), ("cookie", "b=2")], &[("cookie", "a=1"), ("cookie", "b=2")]);
    }

    #[test]
    fn what_clients_may_not_say_to_envoy_is_dropped() {
        becomes(
            &[("x-envoy-retry-on", "5xx"), ("x-envoy-original-dst-host", "a")],
            &[("x-envoy-original-dst-host", "a")],
        );
        becomes(&[("x-forwarded-client-cert", "URI=spiffe://a/b")], &[]);
    }

    #[test]
    fn options_of_the_connection_take_what_they_name_along() {
        becomes(&[("connection", "close, X-Plan"), ("x-plan", "gold"), ("x-other", "1")], &[("x-other", "1")]);
        becomes(&[("connection", "keep-alive"), ("connection", "x-plan"), ("x-plan", "gold")], &[]);
        becomes(&[("keep-alive", "timeout=5"), ("proxy-connection", "close")], &[]);
        becomes(&[("te", "gzip, trailers")], &[("te", "trailers")]);
        becomes(&[("te", "gzip, Trailers")], &[]);
        becomes(&[("expect", "100-Continue")], &[]);
    }

    #[test]
    fn an_upgrade_keeps_the_options_and_what_they_name() {
        let upgrade = [("connection", "Upgrade, x-plan"), ("upgrade", "websocket"), ("x-plan", "gold")];
        becomes(&upgrade, &upgrade);
        becomes(&[("connection", "close"), ("upgrade", "websocket")], &[]);
        becomes(&[("connection", "Upgrade"), ("upgrade", "h2c")], &[]);
        // A record of HTTP/2, or one that left `connection` out.
        becomes(&[("upgrade", "websocket, h2c")], &[("upgrade", "websocket, h2c")]);
    }
}
