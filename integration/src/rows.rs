//! Tables of requests and the routes that must take them.

use std::fmt::Write;

use anyhow::{Result, ensure};

use crate::Envoy;
use crate::http::{self, HttpRequest, Protocol};

/// The route that takes a request which the policy gives none.
pub const NONE: &str = "none";

/// Sends each request with each version of HTTP to the listener `ingress` and compares the body, which names the route,
/// with the name beside it. The error lists every row that is wrong; an Envoy that has trapped is an error too.
pub fn check_routes(envoy: &mut Envoy, rows: &[(HttpRequest, &str)]) -> Result<()> {
    check_routes_over(&Protocol::ALL, envoy, rows)
}

/// The same over some versions of HTTP only.
pub fn check_routes_over(protocols: &[Protocol], envoy: &mut Envoy, rows: &[(HttpRequest, &str)]) -> Result<()> {
    let address = envoy.ingress()?;
    let mut wrong = String::new();
    for &protocol in protocols {
        for (request, route) in rows {
            let line = String::from_utf8_lossy(&http::h1::encode(request)).trim_end().replace("\r\n", " | ");
            let line = shortened(&line);
            match http::send(protocol, address, request) {
                Ok(response) if response.text() == *route => {}
                Ok(response) => {
                    let (status, text) = (response.status, response.text());
                    writeln!(wrong, "{protocol} {line}: {status} {text:?}, not {route:?}")?;
                }
                Err(error) => writeln!(wrong, "{protocol} {line}: {error:#}, not {route:?}")?,
            }
        }
    }
    envoy.check_healthy()?;
    ensure!(wrong.is_empty(), "wrong answers:\n{wrong}");
    Ok(())
}

/// A line that a person can read.
fn shortened(line: &str) -> String {
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}… ({} bytes)", line.get(..end).unwrap_or_default(), line.len()),
        None => line.to_owned(),
    }
}
