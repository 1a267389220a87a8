//! Who calls: verified identities, and the patterns of `from`.

use crate::document::{At, Context, Decode, Empty, Kind, Node, object, one_of, wrong_kind};
use crate::identity::IdentitySource;

one_of! {
    /// Where the caller's verified identity comes from. It never comes from a header.
    IdentitySource {
        /// The URI SAN of the client's certificate, which the TLS handshake has verified.
        "peerCertificate": Empty => |Empty| IdentitySource::PeerCertificate,
        /// The proxy's own workload, for sidecars.
        "workload": Workload => |workload| IdentitySource::Workload { trust_domain: workload.trust_domain.0 },
        /// The name of a filter state object, such as io.istio.peer_principal.
        "filterState": FilterStateKey => |key| IdentitySource::FilterState(key.0),
    }
    written = |source| (*source == IdentitySource::default()).then(|| serde_json::json!({"peerCertificate": {}}))
}

object! {
    /// The proxy's own workload.
    struct Workload {
        /// The trust domain of its SPIFFE ID, such as cluster.local.
        trust_domain as "trustDomain": TrustDomain,
    }
}

/// The name of a filter state object.
#[derive(Clone, Debug)]
pub(crate) struct FilterStateKey(Box<str>);

impl Decode for FilterStateKey {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: the name of a filter state";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(key) = node else { return wrong_kind::<Self>(node, at, cx) };
        if key.is_empty() || key.len() > 253 || !key.bytes().all(|b| b.is_ascii_graphic()) {
            let help = "write its name, such as io.istio.peer_principal".to_owned();
            cx.problem(at, node, "is not the name of a filter state", help);
            return None;
        }
        Some(FilterStateKey(key.as_str().into()))
    }
}

/// A SPIFFE trust domain.
#[derive(Clone, Debug)]
pub(crate) struct TrustDomain(Box<str>);

impl Decode for TrustDomain {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a trust domain such as cluster.local";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(domain) = node else { return wrong_kind::<Self>(node, at, cx) };
        if !is_trust_domain(domain) {
            let help = "write it in lower case without spiffe://, such as cluster.local".to_owned();
            cx.problem(at, node, "is not a trust domain", help);
            return None;
        }
        Some(TrustDomain(domain.as_str().into()))
    }
}

/// SPIFFE-ID §2.1: 1–255 of `[a-z0-9.-_]`.
fn is_trust_domain(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
}

/// A pattern of `from`: an identity, in which a whole path segment `*` stands for exactly one segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallerPattern {
    text: Box<str>,
    has_star: bool,
}

impl CallerPattern {
    /// Whether the pattern covers `identity`, byte for byte but for the stars. A star covers no empty segment and no
    /// `.` or `..`, which no SPIFFE ID has.
    pub fn covers(&self, identity: &[u8]) -> bool {
        let text = self.text.as_bytes();
        if !self.has_star {
            return text == identity;
        }
        let mut theirs = identity.split(|&b| b == b'/');
        let covered = text.split(|&b| b == b'/').all(|ours| match (ours, theirs.next()) {
            (b"*", Some(segment)) => !matches!(segment, b"" | b"." | b".."),
            (ours, Some(segment)) => ours == segment,
            (_, None) => false,
        });
        covered && theirs.next().is_none()
    }

    /// Whether any segment is a star.
    pub fn has_star(&self) -> bool {
        self.has_star
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Decode for CallerPattern {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: an identity such as spiffe://cluster.local/ns/shop/sa/cart";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        let (message, help) = match caller_problem(text) {
            None => return Some(CallerPattern { text: text.as_str().into(), has_star: text.contains('*') }),
            Some(problem) => problem,
        };
        cx.problem(at, node, message, help);
        None
    }
}

/// What is wrong with a pattern, and what would be right.
fn caller_problem(text: &str) -> Option<(&'static str, Option<String>)> {
    if text == "*" {
        return Some(("covers every caller", Some("leave `from` out for that".to_owned())));
    }
    if text.is_empty() || text.len() > 2048 || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Some(("is not an identity", Some("write it like spiffe://cluster.local/ns/shop/sa/cart".to_owned())));
    }
    let Some((scheme, rest)) = text.split_once(':') else {
        return Some(("has no scheme", Some(format!("write spiffe://{}", text.trim_start_matches('/')))));
    };
    if scheme.contains('*') || rest.strip_prefix("//").is_some_and(|rest| rest.split('/').next() == Some("*")) {
        return Some(("has a star before the path", Some("a star stands for one segment of the path".to_owned())));
    }
    if rest.split('/').any(|segment| segment.contains('*') && segment != "*") {
        return Some(("has a star inside a segment", Some("a star stands for one whole path segment".to_owned())));
    }
    if scheme.eq_ignore_ascii_case("spiffe") {
        let path = rest.strip_prefix("//").and_then(|rest| rest.split_once('/'));
        let valid = path.is_some_and(|(domain, path)| {
            is_trust_domain(domain) && path.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
        });
        if scheme != "spiffe" || !valid {
            let help = "write spiffe://<trust domain in lower case>/<path without empty segments>".to_owned();
            return Some(("is not a SPIFFE ID", Some(help)));
        }
    }
    None
}
