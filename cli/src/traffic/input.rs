//! The forms of recorded requests.

/// The forms of recorded requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Input {
    /// Detect from the first lines.
    Auto,
    /// One JSON request a line.
    Jsonl,
    /// Envoy's access log as JSON: `method`, `path`, `authority`, `start_time`, …
    EnvoyJson,
    /// Envoy's access log in the default text format, or in Istio's.
    EnvoyText,
    /// The lines about egress decisions that the modules write into the proxy's own log.
    Audit,
    /// An HTTP Archive.
    Har,
}
