//! The key that is hashed to choose a user's variant, so that each user keeps the same one.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::asked::AskedNames;
use crate::client::Clients;
use crate::document::{
    At, Context, Decode, Empty, HeaderName, Kind, Name, Node, NonEmpty, PositiveDuration, object, one_of, words,
    wrong_kind,
};
use crate::environment::Environment;
use crate::facts::{FactName, MetadataDocument};
use crate::request::Request;

/// Where the key comes from.
#[derive(Clone, Debug)]
pub enum Stickiness {
    /// The first value of a header.
    Header(HeaderName),
    /// A cookie, which is given to clients that have none when it is the last source.
    Cookie(CookieDocument),
    /// The client's address.
    SourceAddress,
    /// The caller's verified identity.
    Peer,
    /// A claim of a verified token, or other metadata that an earlier filter left.
    Fact(FactName),
}

impl Stickiness {
    /// Adds the header, the cookie or the fact that it reads.
    pub(super) fn add_name(&self, names: &mut AskedNames) {
        match self {
            Stickiness::Header(name) => names.headers.add(name.0.as_bytes()),
            Stickiness::Cookie(cookie) => names.cookies.add(cookie.name.0.as_bytes()),
            Stickiness::Fact(name) => names.facts.add(name.as_bytes()),
            _ => {}
        }
    }
}

object! {
    /// The cookie that contains a user's id.
    pub struct CookieDocument {
        /// Its name, case-sensitive.
        name as "name": CookieName,
        /// How long a browser keeps it, counted from the user's first visit.
        max_age as "maxAge": CookieAge = CookieAge(24 * 3600),
        /// The paths for which a browser sends it.
        path as "path": CookiePath = CookiePath("/".into()),
        /// Whether a browser sends it with requests that another site began.
        same_site as "sameSite": SameSite = SameSite::Lax,
    }
}

words! {
    /// Whether a browser sends a cookie with requests that another site began.
    pub enum SameSite {
        /// When the user follows a link from there.
        Lax = "Lax",
        /// Never.
        Strict = "Strict",
        /// Always: the cookie is then `Secure`, and browsers keep it over https only.
        None = "None",
    }
}

/// One or several sources of the key: the first one that the request has is used.
#[derive(Clone, Debug)]
pub struct StickinessList(pub Box<[Stickiness]>);

impl StickinessList {
    /// The cookie that is given to a client without a key: one that is the last source.
    fn given(&self) -> Option<&CookieDocument> {
        match self.0.last()? {
            Stickiness::Cookie(cookie) => Some(cookie),
            _ => None,
        }
    }
}

impl Decode for StickinessList {
    const KIND: Kind = Stickiness::KIND;

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        Some(StickinessList(match node {
            Node::List(_) => NonEmpty::decode(node, at, cx)?.0.into(),
            Node::Map(_) => Box::new([Stickiness::decode(node, at, cx)?]),
            _ => return wrong_kind::<Self>(node, at, cx),
        }))
    }
}

/// The name of a cookie: an HTTP token (RFC 6265 §4.1.1).
#[derive(Clone, Debug)]
pub struct CookieName(pub Box<str>);

impl Decode for CookieName {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a cookie's name";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if text.is_empty() || text.len() > 256 || !text.bytes().all(token) {
            let help = "use letters, digits and !#$%&'*+-.^_`|~, at most 256 of them".to_owned();
            cx.problem(at, node, "is not a cookie's name", help);
            return None;
        }
        // RFC 6265bis §4.1.3: browsers drop such cookies unless they have attributes that not every request allows.
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("__secure-") || lower.starts_with("__host-") {
            let help = "browsers refuse such cookies over plain http: use another name".to_owned();
            cx.problem(at, node, "has a prefix that browsers treat specially", help);
            return None;
        }
        Some(CookieName(text.as_str().into()))
    }
}

/// Whole seconds, at least one.
#[derive(Clone, Copy, Debug)]
pub struct CookieAge(pub u64);

impl Decode for CookieAge {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = PositiveDuration::EXPECTED;

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let PositiveDuration(age) = PositiveDuration::decode(node, at, cx)?;
        if age.subsec_nanos() != 0 {
            cx.problem(
                at,
                node,
                "is not a whole number of seconds",
                "a cookie's lifetime is in seconds: write 1s or more".to_owned(),
            );
            return None;
        }
        Some(CookieAge(age.as_secs()))
    }
}

/// A cookie's `Path`.
#[derive(Clone, Debug)]
pub struct CookiePath(pub Box<str>);

impl Decode for CookiePath {
    const KIND: Kind = Kind::Text;
    const EXPECTED: &'static str = "a string: a path";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Node::String(text) = node else { return wrong_kind::<Self>(node, at, cx) };
        if !text.starts_with('/') || text.len() > 1024 || text.bytes().any(|b| !b.is_ascii_graphic() || b == b';') {
            let help = "begin with `/` and use visible ASCII without `;`".to_owned();
            cx.problem(at, node, "is not a cookie's path", help);
            return None;
        }
        Some(CookiePath(text.as_str().into()))
    }
}

one_of! {
    /// How a user is recognised.
    Stickiness {
        /// The first value of this header.
        "header": HeaderName => Stickiness::Header,
        /// A cookie. If no other source follows, clients without the cookie get one.
        "cookie": CookieDocument => Stickiness::Cookie,
        /// The client's address.
        "sourceAddress": Empty => |Empty| Stickiness::SourceAddress,
        /// The caller's verified identity.
        "peer": Empty => |Empty| Stickiness::Peer,
        /// This claim of a verified token; if it is a list, its first element.
        "claim": Name => |name| Stickiness::Fact(FactName::claim(&name)),
        /// This value of the dynamic metadata of an earlier filter; if it is a list, its first element.
        "metadata": MetadataDocument => |place| Stickiness::Fact(FactName::metadata(&place)),
    }
}

/// A key in the form in which it is hashed.
#[derive(Debug)]
pub enum HashedKey<'a> {
    /// Bytes of the request.
    Text(&'a [u8]),
    /// Bytes of the connection.
    Owned(Vec<u8>),
    /// The four octets of an IPv4 address.
    V4([u8; 4]),
    /// The sixteen octets of an IPv6 address.
    V6([u8; 16]),
    /// Random.
    Random([u8; 8]),
    /// A new user's id: 32 hexadecimal digits.
    Id([u8; 32]),
}

impl HashedKey<'_> {
    /// What is hashed.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            HashedKey::Text(bytes) => bytes,
            HashedKey::Owned(bytes) => bytes,
            HashedKey::V4(octets) => octets,
            HashedKey::V6(octets) => octets,
            HashedKey::Random(bytes) => bytes,
            HashedKey::Id(digits) => digits,
        }
    }
}

/// The key of a request: from the first source that has one. When no source has one, the key is random; when the last
/// source is a cookie, the key is a new id, which the response sets as a cookie: see [`set_cookie`].
pub fn key<'a>(
    stickiness: Option<&StickinessList>,
    request: &Request<'a>,
    clients: &Clients,
    environment: &mut impl Environment,
) -> HashedKey<'a> {
    let given = |value: Option<&'a [u8]>| value.filter(|value| !value.is_empty()).map(HashedKey::Text);
    for source in stickiness.iter().flat_map(|list| &list.0) {
        let found = match source {
            Stickiness::Header(name) => given(request.value(name.0.as_bytes())),
            Stickiness::Cookie(cookie) => given(request.cookie(cookie.name.0.as_bytes())),
            Stickiness::SourceAddress => {
                clients.address(request, environment).map(|address| match address.to_canonical() {
                    IpAddr::V4(address) => HashedKey::V4(address.octets()),
                    IpAddr::V6(address) => HashedKey::V6(address.octets()),
                })
            }
            Stickiness::Peer => clients.identity(request, environment).map(|caller| match caller {
                Cow::Borrowed(caller) => HashedKey::Text(caller),
                Cow::Owned(caller) => HashedKey::Owned(caller),
            }),
            Stickiness::Fact(name) => given(request.fact_value(name.as_bytes(), environment)),
        };
        if let Some(key) = found {
            return key;
        }
    }
    match stickiness.and_then(StickinessList::given) {
        Some(_) => HashedKey::Id(new_id(environment)),
        None => HashedKey::Random(environment.chance().to_le_bytes()),
    }
}

/// 128 random bits as hexadecimal digits. They contain nothing about the user or the variant.
fn new_id(environment: &mut impl Environment) -> [u8; 32] {
    let bits = (u128::from(environment.random()) << 64) | u128::from(environment.random());
    let mut digits = [0; 32];
    for (place, digit) in (0_u32..).zip(digits.iter_mut().rev()) {
        let nibble = (bits >> (4 * place)) as u8 & 0xf;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    }
    digits
}

/// The `set-cookie` that stores a new user's id; `None` when the key is no new id. `Secure` only where the browser would
/// send it back, and with `SameSite=None`, which browsers refuse without it.
pub fn set_cookie(
    stickiness: Option<&StickinessList>,
    key: Option<&HashedKey<'_>>,
    request: &Request<'_>,
) -> Option<Vec<u8>> {
    let (Some(cookie), Some(HashedKey::Id(id))) = (stickiness.and_then(StickinessList::given), key) else {
        return None;
    };
    let is_secure = request.scheme.eq_ignore_ascii_case(b"https") || cookie.same_site == SameSite::None;
    let same_site: &[u8] = match cookie.same_site {
        SameSite::Lax => b"Lax",
        SameSite::Strict => b"Strict",
        SameSite::None => b"None",
    };
    let age = cookie.max_age.0.to_string();
    let secure: &[u8] = if is_secure { b"; Secure" } else { b"" };
    let parts: [&[u8]; 9] = [
        cookie.name.0.as_bytes(),
        b"=",
        id,
        b"; Path=",
        cookie.path.0.as_bytes(),
        b"; Max-Age=",
        age.as_bytes(),
        b"; HttpOnly; SameSite=",
        same_site,
    ];
    let mut value = parts.concat();
    value.extend_from_slice(secure);
    Some(value)
}
