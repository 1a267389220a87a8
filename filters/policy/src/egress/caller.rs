//! Who calls: verified identities, and the patterns of `from`.

use crate::document::{At, Context, Decode, Fields, Node, wrong_kind};
use crate::identity::IdentitySource;

impl Decode for IdentitySource {
    const EXPECTED: &'static str = "an object with one of peerCertificate, workload, filterState";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        const KNOWN: [&str; 3] = ["peerCertificate", "workload", "filterState"];
        let fields = Fields::open::<Self>(node, at, cx, &KNOWN)?;
        if KNOWN.iter().filter(|name| fields.has(name)).count() != 1 {
            let help = "name one source: {peerCertificate: {}}, {workload: {trustDomain: cluster.local}} or \
                        {filterState: io.istio.peer_principal}";
            cx.problem(at, node, "must have exactly one source", help.to_owned());
            return None;
        }
        if fields.has("workload") {
            let workload = fields.get::<Workload>("workload", at, cx)?;
            return Some(IdentitySource::Workload { trust_domain: workload.0 });
        }
        if fields.has("filterState") {
            let key = fields.get::<String>("filterState", at, cx)?;
            if key.is_empty() || key.len() > 253 || !key.bytes().all(|b| b.is_ascii_graphic()) {
                cx.problem_at(&at.field("filterState"), "is not a filter state key", "write its name".to_owned());
                return None;
            }
            return Some(IdentitySource::FilterState(key.into()));
        }
        fields.get::<Nothing>("peerCertificate", at, cx).map(|Nothing| IdentitySource::PeerCertificate)
    }
}

/// `{}`.
struct Nothing;

impl Decode for Nothing {
    const EXPECTED: &'static str = "an empty object: {}";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        Fields::open::<Self>(node, at, cx, &[]).map(|_| Nothing)
    }
}

/// `{trustDomain: cluster.local}`.
struct Workload(Box<str>);

impl Decode for Workload {
    const EXPECTED: &'static str = "an object";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let fields = Fields::open::<Self>(node, at, cx, &["trustDomain"])?;
        let domain = fields.get::<String>("trustDomain", at, cx)?;
        if !is_trust_domain(&domain) {
            let help = "write it in lower case without spiffe://, such as cluster.local".to_owned();
            let value = Node::String(domain);
            cx.problem(&at.field("trustDomain"), &value, "is not a trust domain", help);
            return None;
        }
        Some(Workload(domain.into()))
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
