//! Recorded requests in several formats.

mod foreign;
pub mod har;
pub mod input;
mod left_out;
pub mod log;
pub mod reader;
pub mod url;
mod wrapped;

pub use reader::{ReadOptions, Record, RecordReader, each, one_stdin, request};

use penstock_policy::wire::WireRequest;

use crate::words;

/// A request in one line: method and URL.
pub fn line(request: &WireRequest) -> String {
    let WireRequest { method, authority, path, .. } = request;
    let scheme = request.scheme.as_ref().map(|scheme| format!("{scheme}://")).unwrap_or_default();
    words::shortened(&format!("{method} {scheme}{authority}{path}").replace(char::is_control, "\u{fffd}"), 300)
}
