//! Why a text is no YAML.

/// Text that is not one document of YAML, or of JSON.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NotYaml {
    /// What it should be: `YAML`, `JSON`.
    pub language: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    /// Byte offset in the text.
    pub at: usize,
}

impl NotYaml {
    /// Something wrong at a byte of the text.
    pub(super) fn at(at: usize, message: impl Into<String>) -> NotYaml {
        NotYaml { language: "YAML", message: message.into(), help: None, at }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> NotYaml {
        self.help = Some(help.into());
        self
    }
}
