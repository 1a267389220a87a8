//! The request as a decision sees it: borrowed bytes, split once.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::net::IpAddr;

use memchr::memchr;

use crate::asked::{AskedNames, NameSet, Pairs, Span};
use crate::bytes::same;
use crate::canonical_path::canonical;
use crate::environment::Environment;
use crate::facts::Fact;
use crate::matching::Answers;

pub use crate::header_table::Header;
use crate::header_table::{FEW, HeaderTable, HeaderValues};

/// A view of one request's header map, pseudo-headers included.
///
/// Nothing is copied: every field borrows from the proxy's buffer. Values are bytes because a client need not send
/// UTF-8.
///
/// ```
/// use penstock_policy::Request;
///
/// let headers: [(&[u8], &[u8]); 3] =
///     [(b":method", b"GET"), (b":authority", b"Shop.example.com:8443"), (b":path", b"/cart?id=7")];
/// let request = Request::new(&headers);
/// assert_eq!(request.host, b"Shop.example.com");
/// assert_eq!((request.path, request.query), (&b"/cart"[..], Some(&b"id=7"[..])));
/// ```
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
    has_connection: bool,
    scratch: Option<&'a Scratch>,
    asked: Option<&'a AskedNames>,
}

/// What one decision knows about its request, for all later steps: the tables of cookies and query parameters,
/// the expressions that match, and a request target that it made.
#[derive(Debug, Default)]
pub struct Scratch {
    target: OnceCell<Box<[u8]>>,
    canonical_path: OnceCell<Box<[u8]>>,
    headers: OnceCell<HeaderTable>,
    cookies: OnceCell<Pairs>,
    query_params: OnceCell<Pairs>,
    answers: Answers,
    client_address: OnceCell<Option<IpAddr>>,
    identity: OnceCell<Option<Box<[u8]>>>,
    /// The facts by their numbers, once the platform has been asked for them.
    facts: OnceCell<Box<[Fact]>>,
    /// Whether a condition needed a fact before that.
    wants_facts: Cell<bool>,
    is_used: Cell<bool>,
}

impl<'a> Request<'a> {
    /// Splits a header map into the parts that policies match on.
    ///
    /// Names must be in lower case, as every proxy-wasm platform delivers them. Of a repeated pseudo-header the first
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
            has_connection: false,
            scratch: None,
            asked: None,
        };
        let (mut authority, mut target, mut method, mut scheme) = (None, None, None, None);
        for &(name, value) in headers {
            if name.first() != Some(&b':') {
                request.has_connection |= name.len() == b"connection".len() && name == b"connection";
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

    /// The same request with a scratch for what a decision finds out. Without one, egress rules with `paths` refuse
    /// every path that is not canonical, and conditions on claims and metadata never hold.
    #[must_use]
    pub fn with_scratch(self, scratch: &'a Scratch) -> Self {
        Request { scratch: Some(scratch), ..self }
    }

    /// The same request, prepared for look-ups of these cookies and query parameters. A scratch that another decision
    /// has used is not changed, because its tables are for other names.
    #[must_use]
    pub(crate) fn asked_for(self, names: &'a AskedNames) -> Self {
        let scratch = self.scratch.filter(|scratch| !scratch.is_used.replace(true));
        Request { scratch, asked: Some(names), ..self }
    }

    /// A fact by the bytes of its name. `None`: the platform has not been asked for facts yet, which is recorded.
    pub(crate) fn fact(&self, name: &[u8]) -> Option<&'a Fact> {
        let scratch = self.scratch?;
        let number = self.asked?.facts.number(name)?;
        let facts = scratch.facts.get();
        if facts.is_none() {
            scratch.wants_facts.set(true);
        }
        facts?.get(number as usize)
    }

    /// Whether a condition could not be decided without facts.
    pub(crate) fn wants_facts(&self) -> bool {
        self.scratch.is_some_and(|scratch| scratch.wants_facts.get() && scratch.facts.get().is_none())
    }

    /// Asks the platform for all facts of the policy, unless that has been done for this decision.
    #[cold]
    pub(crate) fn load_facts(&self, environment: &mut impl Environment) {
        let (Some(scratch), Some(asked)) = (self.scratch, self.asked) else { return };
        if scratch.facts.get().is_none() {
            let mut facts = environment.facts(&asked.fact_places);
            facts.resize_with(asked.fact_places.len(), Fact::default);
            // It was empty above and nothing else sets it, so this cannot fail.
            let _ = scratch.facts.set(facts.into());
        }
    }

    /// The first value of a fact, for a key; asks the platform where that has not been done.
    pub(crate) fn fact_value(&self, name: &[u8], environment: &mut impl Environment) -> Option<&'a [u8]> {
        self.load_facts(environment);
        self.fact(name)?.values().next()
    }

    /// The client's address, computed at most once in a decision: it may take a pass over all of `x-forwarded-for`.
    pub(crate) fn client_address(&self, find: impl FnOnce() -> Option<IpAddr>) -> Option<IpAddr> {
        match self.scratch {
            Some(scratch) => *scratch.client_address.get_or_init(find),
            None => find(),
        }
    }

    /// The caller's identity, read at most once in a decision.
    pub(crate) fn identity(&self, find: impl FnOnce() -> Option<Vec<u8>>) -> Option<Cow<'a, [u8]>> {
        match self.scratch {
            Some(scratch) => {
                let identity = scratch.identity.get_or_init(|| find().map(Vec::into_boxed_slice));
                identity.as_deref().map(Cow::Borrowed)
            }
            None => find().map(Cow::Owned),
        }
    }

    /// The expressions that are known to match.
    pub(crate) fn answers(&self) -> Option<&'a Answers> {
        self.scratch.map(|scratch| &scratch.answers)
    }

    /// The target with `path` instead of its path, kept in the scratch; `None` when there is no free scratch.
    pub(crate) fn keep_target(&self, path: &[u8]) -> Option<&'a [u8]> {
        let cell = &self.scratch?.target;
        let mut target = path.to_vec();
        if let Some(query) = self.query {
            target.push(b'?');
            target.extend_from_slice(query);
        }
        cell.set(target.into()).ok()?;
        cell.get().map(|target| &**target)
    }

    /// The same request with another path in its target; the query must be the same.
    #[must_use]
    pub fn with_target(self, target: &'a [u8]) -> Self {
        let (path, query) = split_target(target);
        Request { target, path, query, ..self }
    }

    /// The same request, matched by its canonical path. The target, which is forwarded, stays. A path without a
    /// canonical form stays as it is.
    #[must_use]
    pub(crate) fn with_canonical_path(self) -> Self {
        let is_visible = self.path.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'\\');
        if !is_visible || !self.path.starts_with(b"/") {
            return self;
        }
        let Ok(Cow::Owned(canonical)) = canonical(self.path) else { return self };
        match self.scratch {
            Some(scratch) => Request { path: scratch.canonical_path.get_or_init(|| canonical.into()), ..self },
            None => self,
        }
    }

    /// What follows the path in the target: `?` and the query, or nothing.
    pub fn behind_path(&self) -> &'a [u8] {
        self.target.get(split_target(self.target).0.len()..).unwrap_or_default()
    }

    /// All headers in the order received, pseudo-headers included.
    pub fn headers(&self) -> &'a [Header<'a>] {
        self.headers
    }

    /// Whether there are options of the connection: Envoy passes them to filters only with an upgrade.
    pub(crate) fn has_connection(&self) -> bool {
        self.has_connection
    }

    /// Whether a pseudo-header occurs twice.
    pub(crate) fn repeats_pseudo_header(&self) -> bool {
        self.repeats_pseudo_header
    }

    /// The values of every header called `name` (lower case), in order.
    pub fn values(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> + Clone {
        if self.headers.len() > FEW
            && let (Some(asked), Some(scratch)) = (self.asked, self.scratch)
            && let Some(number) = asked.headers.number(name)
        {
            let table = scratch.headers.get_or_init(|| HeaderTable::new(self.headers, &asked.headers));
            return table.values(self.headers, number);
        }
        HeaderValues::look_through(self.headers, name)
    }

    /// The values of every header called `name` (lower case), the last one first.
    pub fn values_from_last(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().rev().filter(move |(n, _)| same(n, name)).map(|(_, value)| *value)
    }

    /// The first value of the header `name` (lower case).
    pub fn value(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// The first value of the query parameter `name` (case-sensitive), undecoded, as Envoy's own matcher sees it. A name
    /// without `=` has the value "".
    pub fn query_param(&self, name: &[u8]) -> Option<&'a [u8]> {
        let query = self.query?;
        if let Some(number) = self.asked.and_then(|asked| asked.query_params.number(name))
            && let Some(pairs) = self.query_table()
        {
            return pairs.get(number)?.of(query);
        }
        first_of(|each| each_query_param(query, |found| same(found, name).then_some(()), each))?.of(query)
    }

    /// The first value of the cookie `name` (case-sensitive), over all `cookie` headers. A pair of double quotes around
    /// a value is dropped, as in Envoy.
    pub fn cookie(&self, name: &[u8]) -> Option<&'a [u8]> {
        if let Some(number) = self.asked.and_then(|asked| asked.cookies.number(name))
            && let Some(pairs) = self.cookie_table()
        {
            return self.cookie_value(pairs.get(number)?);
        }
        let span = first_of(|each| each_cookie(self.headers, |found| same(found, name).then_some(()), each))?;
        self.cookie_value(span)
    }

    /// The cookies that the policy asks for and the request has, by name, each with its first value; `None`: look up
    /// names one by one.
    pub(crate) fn asked_cookies(&self) -> Option<AskedPairs<'a>> {
        Some(AskedPairs { names: &self.asked?.cookies, pairs: self.cookie_table()? })
    }

    /// The same for query parameters.
    pub(crate) fn asked_query_params(&self) -> Option<AskedPairs<'a>> {
        Some(AskedPairs { names: &self.asked?.query_params, pairs: self.query_table()? })
    }

    /// The value of one of [`Request::asked_cookies`].
    pub(crate) fn cookie_value(&self, span: Span) -> Option<&'a [u8]> {
        self.headers.get(span.header as usize).and_then(|(_, value)| span.of(value))
    }

    /// The value of one of [`Request::asked_query_params`].
    pub(crate) fn query_value(&self, span: Span) -> Option<&'a [u8]> {
        span.of(self.query?)
    }

    fn cookie_table(&self) -> Option<&'a Pairs> {
        let (names, scratch) = (&self.asked?.cookies, self.scratch?);
        Some(scratch.cookies.get_or_init(|| {
            let mut pairs = Pairs::default();
            each_cookie(self.headers, |name| names.number(name), |number, span| add_first(&mut pairs, number, span));
            pairs
        }))
    }

    fn query_table(&self) -> Option<&'a Pairs> {
        let (names, scratch) = (&self.asked?.query_params, self.scratch?);
        Some(scratch.query_params.get_or_init(|| {
            let (mut pairs, query) = (Pairs::default(), self.query.unwrap_or_default());
            each_query_param(query, |name| names.number(name), |number, span| add_first(&mut pairs, number, span));
            pairs
        }))
    }
}

/// The values of the names that a policy reads.
#[derive(Clone, Copy)]
pub(crate) struct AskedPairs<'a> {
    names: &'a NameSet,
    pairs: &'a Pairs,
}

impl<'a> AskedPairs<'a> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// The names, and the places of their values.
    pub(crate) fn iter(self) -> impl Iterator<Item = (&'a [u8], Span)> {
        self.pairs.iter().filter_map(move |(number, span)| Some((self.names.name(number)?, span)))
    }
}

/// Adds the value of a name that the policy asks for, unless there is one already.
fn add_first(pairs: &mut Pairs, number: u32, span: Span) {
    if pairs.get(number).is_none() {
        pairs.insert(number, span);
    }
}

/// The first value that `all` yields.
fn first_of(all: impl FnOnce(&mut dyn FnMut((), Span))) -> Option<Span> {
    let mut first = None;
    all(&mut |(), span| first = first.or(Some(span)));
    first
}

/// Calls `each` for every query parameter that `wanted` accepts, with the result of `wanted` and the place of the value
/// in `query`.
fn each_query_param<N>(query: &[u8], wanted: impl Fn(&[u8]) -> Option<N>, mut each: impl FnMut(N, Span)) {
    let (mut start, mut rest) = (0, query);
    loop {
        let end = memchr(b'&', rest);
        let (pair, after) = rest.split_at(end.unwrap_or(rest.len()));
        let (name, has_value) = match pair.iter().position(|&b| b == b'=') {
            Some(at) => (pair.get(..at).unwrap_or_default(), true),
            None => (pair, false),
        };
        if !pair.is_empty()
            && let Some(name_is) = wanted(name)
        {
            // After the `=`, if there is one.
            let value = name.len() + usize::from(has_value);
            each(name_is, Span::new(0, start + value, pair.len() - value));
        }
        let Some((_, after)) = after.split_first() else { return };
        start += pair.len() + 1;
        rest = after;
    }
}

/// Calls `each` for every cookie that `wanted` accepts, with the result of `wanted` and the place of the value.
fn each_cookie<N>(headers: &[Header<'_>], wanted: impl Fn(&[u8]) -> Option<N>, mut each: impl FnMut(N, Span)) {
    for (number, (_, cookies)) in headers.iter().enumerate().filter(|(_, (name, _))| *name == b"cookie") {
        let (mut start, mut rest) = (0, *cookies);
        loop {
            let end = memchr(b';', rest);
            let (pair, after) = rest.split_at(end.unwrap_or(rest.len()));
            if let Some((name, raw)) = split_once(pair, b'=')
                && let Some(name_is) = wanted(name.trim_ascii())
            {
                let value = raw.trim_ascii_start();
                let blank = raw.len() - value.len();
                let value = value.trim_ascii_end();
                let unquoted = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\""));
                let quote = usize::from(unquoted.is_some());
                let at = start + pair.len() - raw.len() + blank + quote;
                each(name_is, Span::new(number, at, unquoted.unwrap_or(value).len()));
            }
            let Some((_, after)) = after.split_first() else { break };
            start += pair.len() + 1;
            rest = after;
        }
    }
}

/// Splits at the first `at`.
fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = bytes.iter().position(|&b| b == at)?;
    let (before, rest) = bytes.split_at(position);
    Some((before, rest.get(1..).unwrap_or_default()))
}

/// Path and query of a request target; a fragment, which no client should send, is part of neither.
fn split_target(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    let end = target.iter().position(|&b| b == b'?' || b == b'#').unwrap_or(target.len());
    let (path, rest) = target.split_at(end);
    let Some((b'?', query)) = rest.split_first() else { return (path, None) };
    (path, Some(split_once(query, b'#').map_or(query, |(before, _)| before)))
}

/// The host part of an authority. It is only meaningful for well-formed authorities; `egress` checks the form itself.
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
