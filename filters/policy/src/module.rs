//! The modules that ship, and which sections each runs.

use std::fmt;

use crate::section::Section;

/// A wasm module of the suite: the sections that it runs.
///
/// ```
/// use penstock_policy::document::Node;
/// use penstock_policy::{Module, Section, check};
///
/// assert_eq!(Module::of(Section::Egress), Module::EgressAllowlist);
/// let policy = Node::from_json(br#"{"routes": {}}"#).expect("this is JSON");
/// assert!(check(&policy, Module::Suite).is_ok());
/// assert!(check(&policy, Module::Canary).is_err(), "that module does not run `routes`");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// `header-routing.wasm`: `routes`.
    HeaderRouting,
    /// `canary.wasm`: `canaries`.
    Canary,
    /// `rate-limit.wasm`: `rateLimits`.
    RateLimit,
    /// `egress-allowlist.wasm`: `egress`.
    EgressAllowlist,
    /// `suite.wasm`: everything; also what the CLI runs.
    Suite,
}

impl Module {
    /// Every module.
    pub const ALL: [Module; 5] =
        [Module::Suite, Module::EgressAllowlist, Module::RateLimit, Module::HeaderRouting, Module::Canary];

    /// The module's name: that of its file, without the ending.
    pub const fn name(self) -> &'static str {
        match self {
            Module::HeaderRouting => "header-routing",
            Module::Canary => "canary",
            Module::RateLimit => "rate-limit",
            Module::EgressAllowlist => "egress-allowlist",
            Module::Suite => "suite",
        }
    }

    /// The one section that it runs; `None` for the suite, which runs all.
    pub const fn only(self) -> Option<Section> {
        match self {
            Module::HeaderRouting => Some(Section::Routes),
            Module::Canary => Some(Section::Canaries),
            Module::RateLimit => Some(Section::RateLimits),
            Module::EgressAllowlist => Some(Section::Egress),
            Module::Suite => None,
        }
    }

    /// Whether it runs `section`.
    pub const fn runs(self, section: Section) -> bool {
        match self.only() {
            Some(only) => only as u8 == section as u8,
            None => true,
        }
    }

    /// Whether it writes the route header, and so must remove one that a client sent.
    pub const fn owns_route_header(self) -> bool {
        self.runs(Section::Routes) || self.runs(Section::Canaries)
    }

    /// The single module that runs `section`.
    pub fn of(section: Section) -> Module {
        Module::ALL.into_iter().find(|module| module.only() == Some(section)).unwrap_or(Module::Suite)
    }
}

/// A [`Module`] as a type, so that a wasm module carries no code of sections that it does not run.
pub trait Runs: fmt::Debug + 'static {
    /// The module.
    const MODULE: Module;
}

/// Declares the type of each module.
macro_rules! modules {
    ($($module:ident)*) => {$(
        #[doc = concat!("[`Module::", stringify!($module), "`] as a type.")]
        #[derive(Clone, Copy, Debug)]
        pub enum $module {}

        impl Runs for $module {
            const MODULE: Module = Module::$module;
        }
    )*};
}
modules!(HeaderRouting Canary RateLimit EgressAllowlist Suite);
