//! The request as a decision sees it: borrowed bytes, split once.

/// A header as the host hands it over: name in lower case, value as raw bytes.
pub type Header<'a> = (&'a [u8], &'a [u8]);

/// A view of one request's header map, pseudo-headers included.
///
/// Nothing is copied: every field borrows from the host's buffer. Values are bytes because nothing forces a
/// client to send UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `:method`; empty when the map has none.
    pub method: &'a [u8],
    /// `:scheme`; empty when the map has none.
    pub scheme: &'a [u8],
    /// `:authority` exactly as received.
    pub authority: &'a [u8],
    /// `:path` with its query, exactly as received; empty for a plain CONNECT.
    pub target: &'a [u8],
    /// `:protocol` of an extended CONNECT (RFC 8441).
    pub protocol: Option<&'a [u8]>,
    /// `:path` without query and fragment.
    pub path: &'a [u8],
    /// What follows the first `?`, without a fragment; `None` when there is no `?`.
    pub query: Option<&'a [u8]>,
    /// The host of `:authority`: no port, no trailing dot, case as received, IPv6 in its brackets.
    pub host: &'a [u8],
    headers: &'a [Header<'a>],
    repeats_pseudo_header: bool,
    scratch: Option<&'a Scratch>,
}

/// Where a decision keeps a request target that it made, so that what follows can borrow it like a received one.
#[derive(Debug, Default)]
pub struct Scratch(std::cell::OnceCell<Box<[u8]>>);

impl<'a> Request<'a> {
    /// Splits a header map into the parts that policies match on.
    ///
    /// Names must be in lower case, as every proxy-wasm host delivers them. The first of a repeated pseudo-header
    /// counts; Envoy's codecs refuse repeated ones before a filter sees them.
    pub fn new(headers: &'a [Header<'a>]) -> Self {
        let mut request = Request {
            method: b"",
            scheme: b"",
            authority: b"",
            target: b"",
            protocol: None,
            path: b"",
            query: None,
            host: b"",
            headers,
            repeats_pseudo_header: false,
            scratch: None,
        };
        let (mut authority, mut target, mut method, mut scheme) = (None, None, None, None);
        for &(name, value) in headers {
            if name.first() != Some(&b':') {
                continue;
            }
            let slot = match name {
                b":method" => &mut method,
                b":scheme" => &mut scheme,
                b":authority" => &mut authority,
                b":path" => &mut target,
                b":protocol" => &mut request.protocol,
                _ => continue,
            };
            request.repeats_pseudo_header |= slot.is_some();
            slot.get_or_insert(value);
        }
        request.method = method.unwrap_or_default();
        request.scheme = scheme.unwrap_or_default();
        request.authority = authority.unwrap_or_default();
        request.target = target.unwrap_or_default();
        (request.path, request.query) = split_target(request.target);
        request.host = host_of(request.authority);
        request
    }

    /// The same request with a place for a target that a decision makes. Without one, egress rules with `paths` refuse
    /// every path that is not canonical.
    #[must_use]
    pub fn with_scratch(self, scratch: &'a Scratch) -> Self {
        Request { scratch: Some(scratch), ..self }
    }

    /// The target with `path` in place of its path, kept in the scratch; `None` when there is no free one.
    pub(crate) fn keep_target(&self, path: &[u8]) -> Option<&'a [u8]> {
        let cell = &self.scratch?.0;
        let mut target = path.to_vec();
        if let Some(query) = self.query {
            target.push(b'?');
            target.extend_from_slice(query);
        }
        cell.set(target.into()).ok()?;
        cell.get().map(|target| &**target)
    }

    /// The same request with another target.
    #[must_use]
    pub fn with_target(self, target: &'a [u8]) -> Self {
        let (path, query) = split_target(target);
        Request { target, path, query, ..self }
    }

    /// All headers in the order received, pseudo-headers included.
    pub fn headers(&self) -> &'a [Header<'a>] {
        self.headers
    }

    /// Whether a pseudo-header comes twice.
    pub(crate) fn repeats_pseudo_header(&self) -> bool {
        self.repeats_pseudo_header
    }

    /// The values of every header called `name` (lower case), in order.
    pub fn values(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.headers.iter().filter(move |(n, _)| *n == name).map(|(_, value)| *value)
    }

    /// The values of every header called `name` (lower case), the last one first.
    pub fn values_from_last(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().rev().filter(move |(n, _)| *n == name).map(|(_, value)| *value)
    }

    /// The first value of the header `name` (lower case).
    pub fn value(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// Query parameters in order, undecoded, as Envoy's own matcher sees them. A name without `=` has the value "".
    pub fn query_params(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
        self.query
            .unwrap_or_default()
            .split(|&b| b == b'&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| split_once(pair, b'=').unwrap_or((pair, b"")))
    }

    /// The first value of the query parameter `name` (case-sensitive).
    pub fn query_param(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.query_params().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Cookies over all `cookie` headers, in order. One pair of double quotes around a value is dropped, as Envoy does.
    pub fn cookies(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone {
        self.values(b"cookie").flat_map(|value| value.split(|&b| b == b';')).filter_map(|pair| {
            let (name, value) = split_once(pair, b'=')?;
            let value = value.trim_ascii();
            let value = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
            Some((name.trim_ascii(), value))
        })
    }

    /// The first value of the cookie `name` (case-sensitive).
    pub fn cookie(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.cookies().find(|(n, _)| *n == name).map(|(_, value)| value)
    }
}

/// Splits at the first `at`.
fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = bytes.iter().position(|&b| b == at)?;
    let (before, rest) = bytes.split_at(position);
    Some((before, rest.get(1..).unwrap_or_default()))
}

/// Path and query of a request target; a fragment, which no client should send, belongs to neither.
fn split_target(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    let target = split_once(target, b'#').map_or(target, |(before, _)| before);
    match split_once(target, b'?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// The host part of an authority. Only well-formed authorities have a meaning here; `egress` checks the form itself.
fn host_of(authority: &[u8]) -> &[u8] {
    let host = if authority.first() == Some(&b'[') {
        let end = authority.iter().position(|&b| b == b']').map_or(authority.len(), |at| at + 1);
        authority.get(..end).unwrap_or(authority)
    } else {
        split_once(authority, b':').map_or(authority, |(host, _)| host)
    };
    host.strip_suffix(b".").unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn with<'a>(headers: &'a [Header<'a>]) -> Request<'a> {
        Request::new(headers)
    }

    #[test]
    fn the_path_ends_at_query_or_fragment() {
        for (target, path, query) in [
            ("/a?b=c#d", "/a", Some("b=c")),
            ("/a#d?b=c", "/a", None),
            ("/a?", "/a", Some("")),
            ("/a?b?c", "/a", Some("b?c")),
            ("", "", None),
        ] {
            assert_eq!(split_target(target.as_bytes()), (path.as_bytes(), query.map(str::as_bytes)), "{target}");
        }
    }

    #[test]
    fn the_host_has_no_port_and_no_trailing_dot() {
        for (authority, host) in [
            ("Shop.example.com", "Shop.example.com"),
            ("shop.example.com:8443", "shop.example.com"),
            ("shop.example.com.:80", "shop.example.com"),
            ("[2001:db8::1]:443", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("[broken", "[broken"),
            ("", ""),
        ] {
            assert_eq!(host_of(authority.as_bytes()), host.as_bytes(), "{authority}");
        }
    }

    #[test]
    fn the_first_value_of_a_repeated_query_parameter_counts() {
        let headers: [Header<'_>; 1] = [(b":path", b"/?v=one&v=two&flag&&x=1=2")];
        let request = with(&headers);
        assert_eq!(request.query_param(b"v"), Some(&b"one"[..]));
        assert_eq!(request.query_param(b"flag"), Some(&b""[..]));
        assert_eq!(request.query_param(b"x"), Some(&b"1=2"[..]));
        assert_eq!(request.query_param(b"V"), None);
    }

    #[test]
    fn cookies_come_from_every_cookie_header_and_lose_their_quotes() {
        let headers: [Header<'_>; 2] = [(b"cookie", b"a=1; plan=\"gold\" ;novalue; b="), (b"cookie", b"c=3;a=9")];
        let request = with(&headers);
        assert_eq!(request.cookie(b"a"), Some(&b"1"[..]));
        assert_eq!(request.cookie(b"plan"), Some(&b"gold"[..]));
        assert_eq!(request.cookie(b"b"), Some(&b""[..]));
        assert_eq!(request.cookie(b"c"), Some(&b"3"[..]));
        assert_eq!(request.cookie(b"novalue"), None);
    }

    #[test]
    fn pseudo_headers_are_split_out_once() {
        let headers: [Header<'_>; 5] = [
            (b":method", b"GET"),
            (b":authority", b"a.test:1"),
            (b":path", b"/x?y=z"),
            (b":protocol", b"websocket"),
            (b"x", b"1"),
        ];
        let request = with(&headers);
        assert_eq!((request.method, request.host, request.path), (&b"GET"[..], &b"a.test"[..], &b"/x"[..]));
        assert_eq!(request.protocol, Some(&b"websocket"[..]));
        assert_eq!(request.value(b"x"), Some(&b"1"[..]));
    }
}
