//! `rewrite`: path and host, as the Gateway API's `HTTPURLRewriteFilter`.

use std::borrow::Cow;

use crate::decision::{Effects, HeaderOp};
use crate::document::{At, Context, Decode, Kind, Node, object, words, wrong_kind};
use crate::matching::{HostPattern, PathMatch};
use crate::request::Request;

object! {
    /// Changes of the path and the host of a request.
    pub struct Rewrite {
        /// The new path; the query stays.
        path as "path": Option<PathRewrite>,
        /// The new `:authority`.
        hostname as "hostname": Option<Hostname>,
    }
}

words! {
    /// Which part of the path is replaced.
    pub enum PathRewriteType {
        /// The segments that the rule's PathPrefix matched.
        ReplacePrefixMatch = "ReplacePrefixMatch",
        /// All of it.
        ReplaceFullPath = "ReplaceFullPath",
    }
}

object! {
    /// A change of the path.
    pub struct PathRewrite {
        /// Which part of the path is replaced.
        kind as "type": PathRewriteType,
        /// The replacement.
        value as "value": NewPath,
    }
}

/// A path to write: empty (with ReplacePrefixMatch: the prefix is removed) or beginning with a slash, visible ASCII, no
/// query, no fragment.
#[derive(Clone, Debug)]
pub struct NewPath(Box<str>);

impl Decode for NewPath {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a path";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        let (message, help) = if !text.is_empty() && !text.starts_with('/') {
            ("must begin with a slash", format!("write /{text}"))
        } else if text.bytes().any(|b| !b.is_ascii_graphic() || b == b'?' || b == b'#') {
            ("is not a path", "write visible ASCII, percent-encoded where needed; the query stays as it is".to_owned())
        } else {
            return Some(NewPath(text.as_str().into()));
        };
        cx.problem(at, node, message, help);
        None
    }
}

/// A host name to write: an exact name, no port, no star.
#[derive(Clone, Debug)]
pub struct Hostname(pub(super) Box<str>);

impl Decode for Hostname {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a host name";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let pattern = HostPattern::decode(node, at, cx)?;
        if pattern.wildcard {
            cx.problem(at, node, "has a star", "write one whole host name".to_owned());
            return None;
        }
        Some(Hostname(pattern.name))
    }
}

impl Rewrite {
    /// Appends the changes for `request`, which the rule matched with `matched`.
    pub(super) fn apply<'a>(
        &'a self,
        matched: Option<&PathMatch>,
        request: &Request<'a>,
        effects: &mut Effects<'_, 'a>,
    ) {
        if let Some(target) = self.path.as_ref().and_then(|path| path.target(matched, request)) {
            effects.change(std::iter::once(HeaderOp::Set(":path", target)));
        }
        if let Some(Hostname(name)) = &self.hostname {
            effects.change(std::iter::once(HeaderOp::Set(":authority", Cow::Borrowed(name.as_bytes()))));
        }
    }
}

impl PathRewrite {
    /// Whether the rule needs a PathPrefix match.
    pub fn replaces_prefix(&self) -> bool {
        self.kind == PathRewriteType::ReplacePrefixMatch
    }

    /// Whether the rewrite leaves every path that `matched` takes unchanged.
    pub(super) fn keeps(&self, matched: Option<&PathMatch>) -> bool {
        let value = self.value.0.as_bytes();
        match (self.kind, matched) {
            (PathRewriteType::ReplaceFullPath, Some(PathMatch::Exact(path))) => **path == *value,
            (PathRewriteType::ReplacePrefixMatch, Some(PathMatch::Prefix(prefix))) => {
                **prefix == *value.strip_suffix(b"/").unwrap_or(value)
            }
            _ => false,
        }
    }

    /// The new `:path` with the request's query. `None` for a path without segments (CONNECT, `OPTIONS *`), which is
    /// left unchanged.
    pub(super) fn target<'a>(&'a self, matched: Option<&PathMatch>, request: &Request<'a>) -> Option<Cow<'a, [u8]>> {
        if !request.path.starts_with(b"/") {
            return None;
        }
        let value = self.value.0.as_bytes();
        let (front, rest) = match self.kind {
            PathRewriteType::ReplaceFullPath => (value, &b""[..]),
            PathRewriteType::ReplacePrefixMatch => {
                let Some(PathMatch::Prefix(prefix)) = matched else { return None };
                // The rest after the prefix is empty or begins with a slash, so the value must not end with one.
                (value.strip_suffix(b"/").unwrap_or(value), request.path.strip_prefix(&**prefix)?)
            }
        };
        // The target without its path: "?query", or nothing.
        let query = request.behind_path();
        if front.is_empty() && rest.is_empty() {
            return Some(Cow::Owned([b"/", query].concat()));
        }
        if rest.is_empty() && query.is_empty() {
            return Some(Cow::Borrowed(front));
        }
        Some(Cow::Owned([front, rest, query].concat()))
    }
}
