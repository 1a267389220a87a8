//! A request to explain, as the page's form sends it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The request to explain.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExplainQuestion {
    /// Only policies of this proxy.
    #[serde(default, skip_serializing)]
    pub proxy: Option<String>,
    /// Only policies of this plugin.
    #[serde(default, skip_serializing)]
    pub plugin: Option<String>,
    /// Only policies with this section.
    #[serde(default, skip_serializing)]
    pub section: Option<String>,
    /// The method.
    pub method: String,
    /// `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// The authority.
    #[serde(rename(serialize = "authority"))]
    pub host: String,
    /// The path with query.
    pub path: String,
    /// Names and values of headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The client's address; for a network (`203.0.113.0/24`), its first address is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// The caller's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The server name of the TLS handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The time in seconds since 1970; absent for now.
    #[serde(default, skip_serializing)]
    pub at: Option<f64>,
}

impl ExplainQuestion {
    /// The request in the format of `penstock replay`.
    pub fn request(&self) -> Value {
        let mut request = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = request.as_object_mut() {
            if let Some(address) = self.address() {
                fields.insert("sourceAddress".to_owned(), json!(address));
            }
            if let Some(time) = self.time() {
                fields.insert("time".to_owned(), json!(time));
            }
        }
        request
    }

    /// The client's address; the first one of a network.
    pub fn address(&self) -> Option<&str> {
        self.source_address.as_deref().map(|address| address.split('/').next().unwrap_or(address))
    }

    /// The time in RFC 3339.
    pub fn time(&self) -> Option<String> {
        let nanos = (self.at? * 1_000.0).round() as i128 * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?.format(&Rfc3339).ok()
    }

    /// Inputs that an access log lacks and that decisions may depend on.
    pub fn notes(&self) -> Vec<&'static str> {
        let mut notes = Vec::new();
        if self.source_address.as_deref().is_some_and(|address| address.contains('/')) {
            notes.push("The address is the first of the client's network: the feed keeps no whole addresses.");
        }
        notes.push("Headers, cookies and the query are those of this form. Limits begin with full buckets, and breakers closed.");
        notes
    }
}
