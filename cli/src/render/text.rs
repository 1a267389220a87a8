//! Small text helpers for manifests.

/// One file of the output.
pub(super) struct RenderedFile {
    pub(super) file: &'static str,
    pub(super) text: String,
}

/// Indents each line of `text` by `indent` spaces.
pub(super) fn indented(text: &str, indent: usize) -> String {
    let pad = " ".repeat(indent);
    text.lines().map(|line| format!("{pad}{line}\n")).collect()
}
