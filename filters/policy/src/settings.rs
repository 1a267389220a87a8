//! `settings`: what all sections share.

use crate::client::{Clients, SourceAddress};
use crate::document::{At, Context, Decode, Node, RouteHeader, object, words};
use crate::facts::ClaimsDocument;
use crate::identity::IdentitySource;

/// The route header unless the policy names another.
pub const DEFAULT_ROUTE_HEADER: &str = "x-penstock-route";

object! {
    /// Settings for all sections.
    pub struct Settings {
        /// The request header for the route's name. The platform's own route table matches it.
        route_header as "routeHeader": RouteHeader = RouteHeader(DEFAULT_ROUTE_HEADER.into()),
        /// How the client's address is found.
        source_address as "sourceAddress": SourceAddress = SourceAddress::default(),
        /// How the caller is identified, for `from` of egress rules and for `peer` in keys and stickiness. Default: by
        /// its certificate.
        identity as "identity": Option<IdentitySource>,
        /// Where an earlier filter stores the claims of the client's token, which it has verified.
        claims as "claims": ClaimsDocument = ClaimsDocument::default(),
        /// The form of the path that all sections except `egress` match, and that limits count by.
        path as "path": MatchedPath = MatchedPath::Received,
        /// Whether the decision is written to the filter state, for access logs and traces: `penstock.rule`,
        /// `penstock.variant`, `penstock.reason`, `penstock.heldBack`, `penstock.egress.rule`, `penstock.egress.outcome` and
        /// `penstock.egress.reason`. Each value costs a call to the proxy.
        filter_state as "filterState": bool = false,
        /// Set it in a header-routing module that is followed by a separate canary module in the filter chain. The canary
        /// module then learns whether a rule or the default chose the route. It costs a call to the proxy.
        chained as "chained": bool = false,
    }
}

words! {
    /// Which path a request is matched by. The setting changes nothing that is forwarded; `egress` always uses the
    /// canonical path.
    pub enum MatchedPath {
        /// The path as received.
        Received = "Received",
        /// Unreserved escapes decoded, `;params` dropped, slashes merged, dot segments resolved. A path without such a
        /// form is matched as received.
        Canonical = "Canonical",
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            route_header: RouteHeader(DEFAULT_ROUTE_HEADER.into()),
            source_address: SourceAddress::default(),
            identity: None,
            claims: ClaimsDocument::default(),
            path: MatchedPath::Received,
            filter_state: false,
            chained: false,
        }
    }
}

impl Settings {
    /// How clients are told apart.
    pub(crate) fn clients(&self) -> Clients {
        let identity = self.identity.clone().unwrap_or_default();
        Clients::new(self.source_address.clone(), identity)
    }

    /// Merges `egress.identity`, the older name of `identity`; an error if both are given.
    pub(crate) fn adopt_identity(&mut self, older: Option<&IdentitySource>, cx: &mut Context) -> bool {
        let Some(older) = older else { return true };
        if self.identity.is_some() {
            let at = At::Root.field("egress");
            let help = "leave it out: `settings.identity` holds for all sections".to_owned();
            cx.problem_at(&at.field("identity"), "is given in `settings` too", help);
            return false;
        }
        self.identity = Some(older.clone());
        true
    }

    /// Reads the `settings` of a whole document, or the defaults.
    pub(crate) fn of_document(document: &Node, cx: &mut Context) -> Option<Settings> {
        match document.get("settings") {
            Some(node) => Settings::decode(node, &At::Root.field("settings"), cx),
            None => Some(Settings::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Policy, module::Suite};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_identity_is_given_in_one_place() {
        let problems = |settings: &str, egress: &str| {
            let json = format!(r#"{{"settings":{{{settings}}},"egress":{{{egress}"rules":[]}}}}"#);
            Policy::<Suite>::from_json(json.as_bytes()).err().map(|problems| problems.to_string())
        };
        const CERTIFICATE: &str = r#""identity":{"peerCertificate":{}}"#;
        assert_eq!(problems(CERTIFICATE, ""), None);
        assert_eq!(problems("", &format!("{CERTIFICATE},")), None);
        assert_eq!(
            problems(CERTIFICATE, &format!("{CERTIFICATE},")).unwrap(),
            "egress.identity: is given in `settings` too; leave it out: `settings.identity` holds for all sections"
        );
    }
}
