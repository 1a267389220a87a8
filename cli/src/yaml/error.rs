//! Syntax errors of YAML and JSON.

/// The error for text that is not one document of YAML or JSON.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NotYaml {
    /// The expected format: `YAML` or `JSON`.
    pub language: &'static str,
    /// The problem in one line.
    pub message: String,
    /// The suggested correction.
    pub help: Option<String>,
    /// The byte offset in the text.
    pub at: usize,
}

impl NotYaml {
    /// A problem at a byte of the text.
    pub(super) fn at(at: usize, message: impl Into<String>) -> NotYaml {
        NotYaml { language: "YAML", message: message.into(), help: None, at }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> NotYaml {
        self.help = Some(help.into());
        self
    }
}
