//! Small text helpers for manifests.

/// One file of the output.
pub(super) struct RenderedFile {
    pub(super) file: &'static str,
    pub(super) text: String,
}

/// Converts a route's name to a valid Kubernetes name (RFC 1123 label).
pub(super) fn object_name(route: &str) -> String {
    let name: String =
        route.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(63).collect();
    match name.trim_matches('-') {
        "" => "route".to_owned(),
        name => name.to_owned(),
    }
}

/// Indents each line of `text` by `indent` spaces.
pub(super) fn indented(text: &str, indent: usize) -> String {
    let pad = " ".repeat(indent);
    text.lines().map(|line| format!("{pad}{line}\n")).collect()
}
