//! Matching: what `matches` means, and the index that finds the entry without trying each.

mod explain;
mod facts;
mod host;
mod index;
mod path;
mod regex;
mod request;
mod text;
mod value_set;

pub use explain::ConditionVerdict;
pub use facts::{ClaimCondition, MetadataCondition};
pub(crate) use host::is_name;
pub use host::{BadHost, HostPattern, HostSet, HostTrie};
pub use index::Index;
pub use path::{PathMatch, PathMatchType, PathTrie};
pub(crate) use regex::{Answers, Asked, Expressions};
pub use regex::{BadRegex, LONGEST_VALUE, Regex, Substring};
pub use request::RequestMatch;
#[cfg(feature = "schema")]
pub(crate) use text::PairName;
pub use text::{Condition, HeaderCondition, PairCondition, TextMatch, TextMatchType};
pub use value_set::ValueSet;
