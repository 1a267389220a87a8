//! Tables of requests with the routes that must take them.

use std::fmt::Write;

use anyhow::{Result, ensure};

use crate::Envoy;
use crate::http::{self, HttpRequest, Protocol};

/// The name of the route for requests that the policy routes nowhere.
pub const NONE: &str = "none";

/// Sends each request with each version of HTTP to the listener `ingress`, and compares the body, which is the route's
/// name, with the expected name. The error lists every row that differs. A trap in Envoy is an error, too.
pub fn check_routes(envoy: &mut Envoy, rows: &[(HttpRequest, &str)]) -> Result<()> {
    check_routes_over(&Protocol::ALL, envoy, rows)
}

/// The same with only some versions of HTTP.
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

/// Describes a request for an error message.
fn shortened(line: &str) -> String {
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}… ({} bytes)", line.get(..end).unwrap_or_default(), line.len()),
        None => line.to_owned(),
    }
}
