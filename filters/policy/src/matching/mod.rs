//! Evaluates `matches`, with an index that finds the matching entry without trying each.

mod document;
mod explain;
mod host;
mod index;
mod path;
mod regex;
mod request;
mod text;
mod value_set;

#[cfg(feature = "schema")]
pub(crate) use document::PairName;
pub(crate) use document::PathMatchDocument;
pub use document::{ClaimCondition, HeaderCondition, MetadataCondition, PairCondition, PathMatchType, TextMatchType};
pub use explain::ConditionVerdict;
pub(crate) use host::is_name;
pub use host::{BadHost, HostPattern, HostSet, HostTrie};
pub use index::Index;
pub use path::{PathMatch, PathTrie};
pub(crate) use regex::{Answers, Asked, Expressions};
pub use regex::{BadRegex, LONGEST_VALUE, Regex, Substring};
pub use request::RequestMatch;
pub use text::{Condition, TextMatch};
pub use value_set::ValueSet;
