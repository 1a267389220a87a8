//! The forms of recorded requests.

/// The forms of recorded requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Input {
    /// Detect from the first lines.
    Auto,
    /// JSON lines with one request each.
    Jsonl,
    /// Envoy's access log as JSON: `method`, `path`, `authority`, `start_time`, …
    EnvoyJson,
    /// Envoy's access log in the default text format, or in Istio's.
    EnvoyText,
    /// The lines about egress decisions that the modules write to the proxy's log.
    Audit,
    /// An HTTP Archive.
    Har,
}
