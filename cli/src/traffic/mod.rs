//! Recorded requests in the forms in which people have them.

pub mod har;
pub mod url;

use std::io::BufRead as _;
use std::path::Path;

use anyhow::Context as _;
use penstock_policy::wire::WireRequest;

use crate::{source, words};

/// A request in one line: method and URL.
pub fn line(request: &WireRequest) -> String {
    let WireRequest { method, authority, path, .. } = request;
    let scheme = request.scheme.as_ref().map(|scheme| format!("{scheme}://")).unwrap_or_default();
    words::shortened(&format!("{method} {scheme}{authority}{path}").replace(char::is_control, "\u{fffd}"), 300)
}

/// Calls `each` with every request of a file and the number of its line.
///
/// # Errors
/// When the file cannot be read, a line is not a request, or `each` says so.
pub fn each(path: &Path, each: &mut dyn FnMut(u64, WireRequest) -> anyhow::Result<()>) -> anyhow::Result<()> {
    for (number, line) in (1..).zip(source::open(path)?.split(b'\n')) {
        let line = line.with_context(|| format!("cannot read {}", source::display(path)))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let place = || format!("{}:{number}", source::display(path));
        each(number, serde_json::from_slice(&line).context("not a request").with_context(place)?)?;
    }
    Ok(())
}
