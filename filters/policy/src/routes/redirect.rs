//! `redirect`: the client is sent to another URL, as by the Gateway API's `HTTPRequestRedirect`.

use std::borrow::Cow;

use super::rewrite::{Hostname, PathRewrite};
use crate::decision::{HeaderOp, Response, ResponseHeaders};
use crate::document::{At, Context, Decode, Kind, Node, Whole, object, words, wrong_kind};
use crate::matching::{PathMatch, RequestMatch};
use crate::request::Request;

object! {
    /// `redirect`: the URL to which the client is sent. Parts that are not given stay as in the request; the query
    /// always stays.
    pub struct Redirect {
        /// The new scheme. It also sets the scheme's default port, unless `port` is given.
        scheme as "scheme": Option<Scheme>,
        /// The new host name.
        hostname as "hostname": Option<Hostname>,
        /// The new port. The scheme's default port is never written.
        port as "port": Option<Whole<1, 65535>>,
        /// The new path.
        path as "path": Option<PathRewrite>,
        /// The status of the response.
        status_code as "statusCode": RedirectStatus = RedirectStatus(302),
    }
}

words! {
    /// The scheme of a redirect.
    pub enum Scheme {
        /// Port 80.
        Http = "http",
        /// Port 443.
        Https = "https",
    }
}

/// The status of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedirectStatus(pub u16);

impl RedirectStatus {
    /// Every status that redirects a client.
    pub(crate) const ALL: [u16; 5] = [301, 302, 303, 307, 308];
}

impl Decode for RedirectStatus {
    const KIND: Kind = Kind::Number;
    const EXPECTED: &'static str = "a number: the status of a redirect";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::Integer(status) = node else { return wrong_kind::<Self>(node, at, cx) };
        let found = RedirectStatus::ALL.into_iter().find(|known| i64::from(*known) == *status);
        if found.is_none() {
            let help = "write 301 or 308 (for good), 302 or 307 (for now), or 303 (look there with GET)".to_owned();
            cx.problem(at, node, "is not the status of a redirect", help);
        }
        found.map(RedirectStatus)
    }
}

/// The parts of a URL that a redirect may replace.
#[derive(Clone, Copy, Debug)]
struct Origin<'a> {
    scheme: &'a str,
    host: &'a [u8],
    /// In digits; `None`: the scheme's default.
    port: Option<&'a [u8]>,
}

impl Redirect {
    /// Whether the redirect leaves the URL of every request that `entry` takes unchanged, which would be a loop.
    pub(super) fn leads_back_to(&self, entry: &RequestMatch) -> bool {
        let same_host = self.hostname.as_ref().is_none_or(|Hostname(name)| {
            let patterns = entry.hostnames.as_ref().map_or(&[][..], |hosts| hosts.patterns());
            matches!(patterns, [only] if !only.wildcard && only.name == *name)
        });
        let same_path = self.path.as_ref().is_none_or(|path| path.keeps(entry.path.as_ref()));
        self.scheme.is_none() && self.port.is_none() && same_host && same_path
    }

    /// The response that sends `request` elsewhere, with the rule's own changes of the response.
    pub(super) fn response<'a>(
        &self,
        matched: Option<&PathMatch>,
        request: &Request<'_>,
        changes: impl Iterator<Item = HeaderOp<'a>>,
    ) -> Response<'a> {
        let mut headers = ResponseHeaders::new();
        headers.push(("location", Cow::Owned(self.location(matched, request))));
        headers.extend(changes.filter_map(|change| match change {
            HeaderOp::Set(name, value) | HeaderOp::Add(name, value) => Some((name, value)),
            // The response has no other headers yet.
            HeaderOp::Remove(_) => None,
        }));
        Response { status: self.status_code.0, headers, body: Cow::Borrowed(b""), grpc_status: None }
    }

    /// The new URL of `request`, which the rule matched with `matched`.
    fn location(&self, matched: Option<&PathMatch>, request: &Request<'_>) -> Vec<u8> {
        let given = self.port.map(|port| port.0.to_string());
        let origin = Origin {
            scheme: match self.scheme {
                Some(Scheme::Https) => "https",
                Some(Scheme::Http) => "http",
                None if request.scheme.eq_ignore_ascii_case(b"https") => "https",
                None => "http",
            },
            host: self.hostname.as_ref().map_or(request.host, |Hostname(name)| name.as_bytes()),
            port: match (&given, self.scheme) {
                (Some(port), _) => Some(port.as_bytes()),
                (None, Some(_)) => None,
                (None, None) => port_of(request.authority),
            },
        };
        let target = self.path.as_ref().and_then(|path| path.target(matched, request));
        let target = match &target {
            Some(target) => target,
            // `OPTIONS *` has no path.
            None if request.target.starts_with(b"/") => request.target,
            None => b"/",
        };
        origin.with(target)
    }
}

impl Origin<'_> {
    /// The URL of `target` there.
    fn with(self, target: &[u8]) -> Vec<u8> {
        // A request without a host, as HTTP/1.0 allows: a relative URL, because the client knows the host.
        if self.host.is_empty() {
            return target.to_vec();
        }
        let own: &[u8] = if self.scheme == "https" { b"443" } else { b"80" };
        let mut url = [self.scheme.as_bytes(), b"://", self.host].concat();
        if let Some(port) = self.port.filter(|port| *port != own) {
            url.push(b':');
            url.extend_from_slice(port);
        }
        url.extend_from_slice(target);
        url
    }
}

/// The port of an authority, if it has a valid one.
fn port_of(authority: &[u8]) -> Option<&[u8]> {
    // The last colon outside of brackets.
    let colon = authority.iter().rposition(|&b| matches!(b, b':' | b']'))?;
    let port = authority.get(colon..)?.strip_prefix(b":")?;
    ((1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit)).then_some(port)
}
