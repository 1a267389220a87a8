//! The reasons for decisions, each with its name and its meaning.

/// Declares [`Reason`]: a variant, the name in decisions, logs and metrics, and the meaning.
macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $name:literal: $words:literal,)*) => {
        /// Why a decision is not the ordinary one.
        ///
        /// The order is the order of evaluation: of two egress rules that do not allow a request, the one with the
        /// greater reason came nearer to allowing it.
        // The meanings are written for people: brackets in them are not links.
        #[allow(rustdoc::broken_intra_doc_links)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = concat!("`", $name, "`: ", $words, ".")] $(#[$doc])* $reason,)*
        }

        impl Reason {
            /// Every reason, in order.
            pub const ALL: &'static [Reason] = &[$(Reason::$reason,)*];

            /// The camelCase name that decisions, logs, filter state and metrics show.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$reason => $name,)*
                }
            }

            /// What it means, for people: the rest of a sentence.
            pub const fn words(self) -> &'static str {
                match self {
                    $(Reason::$reason => $words,)*
                }
            }
        }
    };
}

reasons! {
    // Reasons about the form of a request: refused in every mode.
    AuthorityMissing = "authorityMissing": "there is no authority",
    AuthorityMalformed = "authorityMalformed": "the authority is not host[:port] with a valid name or address",
    HostIsAmbiguousNumber = "hostIsAmbiguousNumber": "the host is a number that some parsers take for an address",
    PortMalformed = "portMalformed": "the port is not a plain number from 1 to 65535",
    HostHeaderMismatch = "hostHeaderMismatch": "a Host header names another host than the authority",
    MethodMalformed = "methodMalformed": "the method is not a token",
    ProtocolWithoutConnect = "protocolWithoutConnect": "there is a :protocol without CONNECT",
    PseudoHeaderRepeated = "pseudoHeaderRepeated": "a pseudo-header is there twice",
    PathNotOriginForm = "pathNotOriginForm": "the path does not begin with /",
    PathMalformed = "pathMalformed": "the path has a fragment, a space, a control byte, a backslash or a byte that is not ASCII",
    PathNotCanonical = "pathNotCanonical": "the canonical path could not be kept",
    ConnectWithoutPort = "connectWithoutPort": "CONNECT needs a port",
    DestinationOverrideHeader = "destinationOverrideHeader": "x-envoy-original-dst-host would choose another destination",
    PathOverrideHeader = "pathOverrideHeader": "x-original-url or x-rewrite-url would choose another path",
    PathEscapeMalformed = "pathEscapeMalformed": "the path has a % without two hexadecimal digits",
    PathEscapesDelimiter = "pathEscapesDelimiter": "the path has %2F, %5C, %00 or %25: the next parser would see another path",
    PathNotUtf8 = "pathNotUtf8": "the path's escapes are not UTF-8",
    PathAboveRoot = "pathAboveRoot": "the path climbs above the root",
    // `deny`.
    HostDenied = "hostDenied": "`deny` lists the host",
    // How far the evaluation of a rule went: a later reason is nearer to allowing.
    HostNotAllowed = "hostNotAllowed": "no rule lists the host",
    PortNotAllowed = "portNotAllowed": "a rule lists the host, but not the port",
    CallerUnknown = "callerUnknown": "the rules for this destination are for certain callers, and this one has no verified identity",
    CallerNotAllowed = "callerNotAllowed": "the rules for this destination are for other callers",
    RuleNotYetValid = "ruleNotYetValid": "the rule for this is not yet in force",
    RuleExpired = "ruleExpired": "the rule for this has expired",
    MethodNotAllowed = "methodNotAllowed": "no rule for this destination lists the method",
    RuleNeedsHttp = "ruleNeedsHttp": "the rule has conditions on HTTP, which an undecrypted connection does not show",
    MethodOverrideNotAllowed = "methodOverrideNotAllowed": "a header asks for another method that the rule does not list",
    ConnectNotAllowed = "connectNotAllowed": "the rule does not open tunnels",
    UpgradeNotAllowed = "upgradeNotAllowed": "the rule does not list the protocol of the upgrade",
    PathNotAllowed = "pathNotAllowed": "no rule for this destination lists the path",
    // The connection.
    SniMismatch = "sniMismatch": "the connection was opened for another server name",
    ServerNameMissing = "serverNameMissing": "the connection names no server, and no rule covers its address",
    ServerNameMalformed = "serverNameMalformed": "the connection's server name is not a valid name",
    // Limits.
    Limited = "limited": "no quota is left",
    MissingKey = "missingKey": "the request has no key to count it by",
    ServiceFailed = "serviceFailed": "the rate-limit service did not answer, and the limit's onFailure is Deny",
    // Routes and canaries.
    FailedOver = "failedOver": "the rule's own route is failing",
    Override = "override": "an override of the canary beats the weights",
    RolledBack = "rolledBack": "the variant is rolled back",
}

impl Reason {
    /// The reasons of the egress section, each at the position of its counter.
    pub(crate) fn of_egress() -> impl Iterator<Item = Reason> {
        Reason::ALL.iter().copied().take_while(|reason| *reason < Reason::Limited)
    }

    /// Its position in [`Reason::ALL`].
    pub(crate) const fn index(self) -> u32 {
        self as u32
    }

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<Reason> {
        Reason::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn every_reason_has_words_and_a_name_of_its_own() {
        for (place, &reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(Reason::from_name(reason.as_str()), Some(reason), "{reason} is named twice");
            assert!(reason.as_str().bytes().all(|b| b.is_ascii_alphanumeric()), "{reason}");
            assert!(reason.words().contains(' '), "{reason}");
            assert_eq!(reason.index() as usize, place);
        }
    }
}
