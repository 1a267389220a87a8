//! Facts about a request that an earlier filter found out: claims of a token that it verified, and any other dynamic
//! metadata that it left. A client cannot write them: no header is ever one.
//!
//! A policy asks for a fixed set of facts, which is known when it loads. They are numbered, and those of a request are
//! read together, the first time that a rule or a key needs one of them: see [`crate::Environment::facts`].

mod fact;
mod metadata;
mod name;
mod place;

pub use fact::{Fact, FactTree};
pub use metadata::Metadata;
pub use name::{FactName, FactParts, MetadataDocument};
pub use place::{ClaimsDocument, FactPlace};
