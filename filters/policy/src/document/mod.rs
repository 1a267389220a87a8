//! The policy document: parses text into a tree, decodes the tree into types, and collects the problems.

mod context;
mod decode;
mod fields;
mod hidden;
mod json;
mod lists;
mod macros;
mod node;
mod problem;
mod scalar;
mod suggest;

pub use context::Context;
pub use decode::{Decode, Kind, Whole, unknown_word, wrong_kind};
pub use fields::{Empty, Fields};
pub use hidden::{is_hidden, visible};
pub use json::NotJson;
pub use lists::{Named, NonEmpty};
#[cfg(feature = "schema")]
pub(crate) use macros::doc_text;
pub(crate) use macros::{made_of, object, one_of, words};
pub use node::Node;
pub use problem::{At, Problem, Problems, shown_key, thousands};
pub use scalar::{
    GatewayDuration, HeaderName, HeaderValue, Method, Name, PositiveDuration, RouteHeader, RouteName,
    WritableHeaderName,
};
pub(crate) use scalar::{frames_message, is_token};
pub use suggest::suggestion;
