//! Envoy's admin interface.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::http::{self, HttpRequest, Protocol};

/// A client of one Envoy's admin interface.
#[derive(Clone, Debug)]
pub struct Admin {
    address: SocketAddr,
}

impl Admin {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Admin { address }
    }

    /// The address that the admin interface listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the body of a page, such as `/stats`.
    pub fn get(&self, path: &str) -> Result<String> {
        self.ask("GET", path)
    }

    /// Sends a command (a POST), such as `/logging?wasm=debug`.
    pub fn post(&self, path: &str) -> Result<String> {
        self.ask("POST", path)
    }

    fn ask(&self, method: &str, path: &str) -> Result<String> {
        let request = HttpRequest::new(method, &self.address.to_string(), path);
        let response = http::send(Protocol::Http1, self.address, &request)?;
        let body = response.text();
        ensure!(response.status == 200, "the admin interface answered {} to {path}: {body}", response.status);
        Ok(body)
    }

    /// Returns a page parsed as JSON, such as `/config_dump`.
    pub fn json(&self, path: &str) -> Result<Value> {
        let body = self.get(path)?;
        serde_json::from_str(&body).with_context(|| format!("{path} is not JSON: {body}"))
    }

    /// Returns every counter and gauge whose name contains `part`.
    pub fn stats(&self, part: &str) -> Result<Vec<(String, u64)>> {
        let page = self.get("/stats")?;
        Ok(page
            .lines()
            .filter_map(|line| line.rsplit_once(": "))
            .filter(|(name, _)| name.contains(part))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect())
    }

    /// Returns the value of one counter or gauge, or 0 while Envoy does not have it.
    pub fn stat(&self, name: &str) -> Result<u64> {
        Ok(self.stats(name)?.into_iter().find(|(found, _)| found == name).map_or(0, |(_, value)| value))
    }
}
