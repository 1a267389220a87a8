//! The section `egress` of the document.

use super::caller::CallerPattern;
use super::host::EgressHost;
use crate::canonical_path::canonical;
use crate::cidr::Cidr;
use crate::document::{
    At, Context, Decode, Kind, Method, Name, Named, Node, NonEmpty, Whole, made_of, object, words, wrong_kind,
};
use crate::identity::IdentitySource;
use crate::matching::{PathMatch, PathMatchDocument};
use crate::timestamp::Timestamp;

words! {
    /// What happens to requests that no rule allows.
    pub enum Mode {
        /// It is refused.
        Enforce = "Enforce",
        /// It passes and is reported.
        Audit = "Audit",
    }
}

object! {
    /// The section `egress`: which requests may leave, and where to.
    pub struct EgressDocument {
        /// What happens to requests that no rule allows.
        mode as "mode": Mode = Mode::Enforce,
        /// The older name of `settings.identity`.
        identity as "identity": Option<IdentitySource>,
        /// The port for an authority without a port: the one to which the proxy then connects. Default: 443 if the
        /// connection uses TLS, otherwise 80.
        default_port as "defaultPort": Option<Whole<1, 65535>>,
        /// Whether the connection's SNI must equal the authority's host.
        verify_sni as "verifySni": bool = false,
        /// Destinations that are always refused, even if a rule allows them.
        deny as "deny": Vec<Destination> = Vec::new(),
        /// The rules. Without rules, no request is allowed.
        rules as "rules": Named<EgressRuleDocument> = Named::default(),
    }
}

object! {
    /// A rule, which allows requests.
    pub struct EgressRuleDocument check = EgressRuleDocument::check {
        /// The name of the rule, unique among the rules.
        name as "name": Name,
        /// The team or person that is responsible for the rule.
        owner as "owner": Option<RuleText>,
        /// Why the rule exists.
        reason as "reason": Option<RuleText>,
        /// The callers that may use the rule. Default: any caller.
        from as "from": Option<NonEmpty<CallerPattern>>,
        /// The allowed destinations.
        to as "to": NonEmpty<Destination>,
        /// The allowed methods. Default: any.
        methods as "methods": Option<NonEmpty<Method>>,
        /// The allowed paths. Default: any.
        paths as "paths": Option<NonEmpty<EgressPath>>,
        /// Whether clients may open tunnels with CONNECT.
        connect as "connect": bool = false,
        /// The protocols that clients may request with `upgrade` or extended CONNECT. Default: none.
        upgrades as "upgrades": Vec<UpgradeProtocol> = Vec::new(),
        /// The time from which the rule applies.
        not_before as "notBefore": Option<Timestamp>,
        /// The time from which the rule no longer applies.
        expires as "expires": Option<Timestamp>,
    }
}

impl EgressRuleDocument {
    /// The patterns of `from`.
    pub(super) fn callers(&self) -> Option<&[CallerPattern]> {
        self.from.as_ref().map(|from| &*from.0)
    }

    fn check(&self, at: &At<'_>, cx: &mut Context) -> bool {
        let never = self.not_before.zip(self.expires).is_some_and(|(start, end)| end <= start);
        if never {
            let help = "let the rule expire after it begins".to_owned();
            cx.problem_at(&at.field("expires"), "is not after `notBefore`: the rule would never hold", help);
        }
        !never
    }
}

/// Owner or reason: 1–1024 bytes without control characters, because they are printed into logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleText(pub Box<str>);

impl Decode for RuleText {
    const KIND: Kind = Kind::Text;

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        if text.trim().is_empty() || text.len() > 1024 || text.chars().any(char::is_control) {
            let help = "write 1 to 1024 bytes without control characters, or leave it out".to_owned();
            cx.problem(at, node, "cannot be printed with a decision", help);
            return None;
        }
        Some(RuleText(text.as_str().into()))
    }
}

/// What a destination names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DestinationTarget {
    /// Names.
    Host(EgressHost),
    /// IP literals.
    Cidr(Cidr),
}

/// Names or addresses, and ports.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Names or addresses.
    pub target: DestinationTarget,
    /// Absent: any port.
    pub ports: Option<NonEmpty<Whole<1, 65535>>>,
}

object! {
    /// A destination: a host or an address range, and ports.
    struct DestinationDocument one of ["host", "cidr"] {
        /// A host name. `*.` in front of a name stands for one or more labels.
        host as "host": Option<EgressHost>,
        /// An address range, for requests whose authority is an IP address.
        cidr as "cidr": Option<Cidr>,
        /// The ports. Default: any port.
        ports as "ports": Option<NonEmpty<Whole<1, 65535>>>,
    }
}

made_of!(Destination, DestinationDocument, |document, _, _| Destination::new(document));

impl Destination {
    fn new(document: DestinationDocument) -> Option<Destination> {
        let target = document.host.map(DestinationTarget::Host).or(document.cidr.map(DestinationTarget::Cidr))?;
        Some(Destination { target, ports: document.ports })
    }
}

/// A path match on canonical paths: a literal must be canonical itself, because otherwise it could never match.
#[derive(Clone, Debug)]
pub struct EgressPath(pub PathMatch);

made_of!(EgressPath, PathMatchDocument, |document, at, cx| EgressPath::new(&document, at, cx));

impl EgressPath {
    fn new(document: &PathMatchDocument, at: &At<'_>, cx: &mut Context) -> Option<EgressPath> {
        let path = PathMatch::new(document, at, cx)?;
        let (PathMatch::Exact(literal) | PathMatch::Prefix(literal)) = &path else { return Some(EgressPath(path)) };
        // The trailing slash of a prefix has been removed already, which leaves nothing of `/`.
        let literal: &[u8] = if literal.is_empty() { b"/" } else { literal };
        let help = match canonical(literal) {
            Ok(form) if *form == *literal => return Some(EgressPath(path)),
            Ok(form) => format!("write {}", String::from_utf8_lossy(&form)),
            Err(_) => "leave out escaped delimiters, broken escapes and dot segments".to_owned(),
        };
        let value = Node::String(document.value.clone());
        cx.problem(&at.field("value"), &value, "is not canonical: no request would match it", help);
        None
    }
}

/// An upgrade protocol, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeProtocol(pub Box<str>);

impl Decode for UpgradeProtocol {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a protocol such as websocket";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&b);
        if text.is_empty() || text.len() > 64 || text == "*" || !text.bytes().all(valid) {
            cx.problem(at, node, "is not a protocol", "write its name, such as websocket".to_owned());
            return None;
        }
        Some(UpgradeProtocol(text.to_ascii_lowercase().into()))
    }
}
