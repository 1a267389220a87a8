//! Facts about a request from earlier filters: claims of a token that a filter has verified, and any other dynamic
//! metadata that a filter has stored. A client cannot write them, because headers are never facts.
//!
//! A policy reads a fixed set of facts, which is known when it loads. They are numbered, and those of a request are
//! read together, the first time that a rule or a key needs one of them: see [`crate::Environment::facts`].

mod fact;
mod metadata;
mod name;
mod place;

pub use fact::{Fact, FactTree};
pub use metadata::Metadata;
pub use name::{FactName, FactParts, MetadataDocument};
pub use place::{ClaimsDocument, FactPlace};
