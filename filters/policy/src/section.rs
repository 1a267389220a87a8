//! The sections of a policy document.

/// A section of the policy document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Section {
    /// Default-deny allowlist.
    Egress,
    /// Limits per key.
    RateLimits,
    /// Header-based routing.
    Routes,
    /// Weighted splits.
    Canaries,
}

impl Section {
    /// Every section, in the order in which a suite decides them.
    pub const ALL: [Section; 4] = [Section::Egress, Section::RateLimits, Section::Routes, Section::Canaries];

    /// The field of the document that holds it.
    pub const fn field(self) -> &'static str {
        match self {
            Section::Egress => "egress",
            Section::RateLimits => "rateLimits",
            Section::Routes => "routes",
            Section::Canaries => "canaries",
        }
    }
}
