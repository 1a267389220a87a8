//! `settings`: what all sections share.

use crate::document::{At, Context, Decode, HeaderName, Node, Whole, object};

/// The route header unless the policy names another.
pub const DEFAULT_ROUTE_HEADER: &str = "x-penstock-route";

object! {
    /// What all sections share.
    pub struct Settings {
        /// The request header that carries the route's name to the host's own route table.
        route_header as "routeHeader": HeaderName = HeaderName(DEFAULT_ROUTE_HEADER.into()),
        /// How the client's address is found.
        source_address as "sourceAddress": SourceAddress = SourceAddress::default(),
        /// Whether access logs and traces can read which rule and variant decided, from the filter state `penstock.rule`,
        /// `penstock.variant`, `penstock.reason` and `penstock.heldBack`; each costs a call to the host.
        filter_state as "filterState": bool = false,
    }
}

object! {
    /// How the client's address is found.
    #[derive(Default)]
    pub struct SourceAddress {
        /// How many trusted proxies stand in front and append to `x-forwarded-for`; 0: the connection's own peer is
        /// the client.
        trusted_hops as "trustedHops": Whole<0, 32> = Whole(0),
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            route_header: HeaderName(DEFAULT_ROUTE_HEADER.into()),
            source_address: SourceAddress::default(),
            filter_state: false,
        }
    }
}

impl Settings {
    /// Reads the `settings` of a whole document, the defaults when it has none.
    pub(crate) fn of_document(document: &Node, cx: &mut Context) -> Option<Settings> {
        match document.get("settings") {
            Some(node) => Settings::decode(node, &At::Root.field("settings"), cx),
            None => Some(Settings::default()),
        }
    }
}
