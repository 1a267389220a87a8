//! The policy document: from text to a tree, from the tree to types, and every problem on the way.

mod decode;
mod node;
mod problem;
mod scalar;
mod unread;

#[cfg(feature = "schema")]
pub(crate) use decode::doc_text;
pub use decode::{Context, Decode, Fields, Named, NonEmpty, Whole, suggestion, unknown_field, wrong_kind};
pub(crate) use decode::{object, words};
pub use node::{Node, NotJson};
pub use problem::{At, Problem, Problems};
pub use scalar::{
    GatewayDuration, HeaderName, HeaderValue, Method, Name, PositiveDuration, RouteName, WritableHeaderName,
};
pub(crate) use scalar::{frames_message, is_token};
