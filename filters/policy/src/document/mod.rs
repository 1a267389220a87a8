//! The policy document: from text to a tree, from the tree to types, and every problem on the way.

mod decode;
mod node;
mod problem;
mod scalar;

#[cfg(feature = "schema")]
pub(crate) use decode::doc_text;
pub use decode::{Context, Decode, Fields, Named, NonEmpty, Whole, suggestion, wrong_kind};
pub(crate) use decode::{object, words};
pub use node::{Node, NotJson};
pub use problem::{At, Problem, Problems};
pub(crate) use scalar::is_token;
pub use scalar::{
    GatewayDuration, HeaderName, HeaderValue, Method, Name, PositiveDuration, RouteName, WritableHeaderName,
};
