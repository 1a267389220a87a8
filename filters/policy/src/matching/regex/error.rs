//! Why a pattern was refused.

/// Why a pattern was refused, in one line, and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadRegex {
    /// What is wrong, to follow the pattern.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl BadRegex {
    /// What RE2 refuses as well.
    pub(super) fn syntax(message: impl std::fmt::Display, help: impl Into<String>) -> BadRegex {
        BadRegex { message: format!("is not a regular expression: it {message}"), help: help.into() }
    }

    /// A valid regular expression that cannot be used here.
    pub(super) fn limit(message: impl Into<String>, help: impl Into<String>) -> BadRegex {
        BadRegex { message: message.into(), help: help.into() }
    }

    pub(super) fn too_large() -> BadRegex {
        let help = "a counted repetition after `.*`, as in `.*a.{1,100}b`, needs a state for each combination: count \
                    without it, or use Contains, Prefix, Suffix or In";
        BadRegex::limit("takes too many states to be matched in one pass", help)
    }
}
