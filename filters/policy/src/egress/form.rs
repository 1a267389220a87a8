//! Point 1 of the contract: an ambiguous request is refused before any rule is evaluated.

use super::authority::{Authority, BadAuthority};
use super::facts::Facts;
use crate::document::is_token;
use crate::environment::Environment;
use crate::reason::Reason;
use crate::redirection::{DESTINATION_OVERRIDE, METHOD_OVERRIDES, PATH_OVERRIDES};
use crate::request::Request;

/// A request that is unambiguous.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form<'a> {
    /// The one authority.
    pub authority: Authority<'a>,
    /// The method that rules see.
    pub method: &'a [u8],
    /// Whether the request opens a tunnel whose bytes nobody reads: CONNECT, but not one for an upgrade.
    pub is_tunnel: bool,
    /// Whether an `upgrade` header or `:protocol` asks for another protocol.
    pub has_upgrade: bool,
    /// Whether a header asks for another method.
    pub has_method_override: bool,
    /// Whether a header asks for another path.
    pub has_path_override: bool,
}

impl<'a> Form<'a> {
    /// Checks everything that does not depend on rules, except what needs the port: see [`hosts_agree`].
    ///
    /// # Errors
    /// With the reason.
    pub fn check(request: &Request<'a>) -> Result<Form<'a>, Reason> {
        let authority = Authority::parse(request.authority).map_err(BadAuthority::reason)?;
        if !is_token(request.method) {
            return Err(Reason::MethodMalformed);
        }
        let is_connect = request.method == b"CONNECT";
        if request.protocol.is_some() && !is_connect {
            return Err(Reason::ProtocolWithoutConnect);
        }
        // RFC 8441: CONNECT with a protocol is how HTTP/2 writes GET with `upgrade`, and Envoy rewrites it to that
        // before a filter sees it. It does not rewrite `bytestream`, which is a tunnel like any other.
        let is_upgrade = request.protocol.is_some_and(|protocol| !protocol.eq_ignore_ascii_case(b"bytestream"));
        let is_tunnel = is_connect && !is_upgrade;
        check_target(request, is_tunnel)?;
        if is_tunnel && authority.port.is_none() {
            return Err(Reason::ConnectWithoutPort);
        }
        if request.repeats_pseudo_header() {
            return Err(Reason::PseudoHeaderRepeated);
        }
        let mut form = Form {
            authority,
            method: if is_connect && is_upgrade { b"GET" } else { request.method },
            is_tunnel,
            has_upgrade: request.protocol.is_some(),
            has_method_override: false,
            has_path_override: false,
        };
        form.check_headers(request)?;
        Ok(form)
    }

    /// One pass over all headers; most are dismissed by their first byte.
    fn check_headers(&mut self, request: &Request<'_>) -> Result<(), Reason> {
        for &(name, _) in request.headers() {
            match name {
                [b'u', ..] => self.has_upgrade |= name == b"upgrade",
                [b'x', ..] => {
                    if name == DESTINATION_OVERRIDE.as_bytes() {
                        return Err(Reason::DestinationOverrideHeader);
                    }
                    self.has_path_override |= PATH_OVERRIDES.iter().any(|known| known.as_bytes() == name);
                    self.has_method_override |= METHOD_OVERRIDES.iter().any(|known| known.as_bytes() == name);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// `:path` is origin-form in visible ASCII without fragment and backslash. Only `OPTIONS *` and tunnels have another
/// form.
fn check_target(request: &Request<'_>, is_tunnel: bool) -> Result<(), Reason> {
    let target = request.target;
    let other_form = is_tunnel || (request.method == b"OPTIONS" && target == b"*");
    if !other_form && target.first() != Some(&b'/') {
        return Err(Reason::PathNotOriginForm);
    }
    match target.iter().all(|&b| b.is_ascii_graphic() && b != b'#' && b != b'\\') {
        true => Ok(()),
        false => Err(Reason::PathMalformed),
    }
}

/// Whether every `host` header means what `:authority` means.
pub(super) fn hosts_agree<E: Environment>(
    request: &Request<'_>,
    authority: &Authority<'_>,
    facts: &mut Facts<'_, E>,
) -> bool {
    request.values(b"host").all(|value| {
        // The same bytes mean the same. That is nearly always the case, so the port need not be read.
        value == request.authority
            || Authority::parse(value).is_ok_and(|host| {
                host.host == authority.host
                    && (host.port == authority.port || host.port.or_else(|| facts.default_port()) == facts.port())
            })
    })
}
