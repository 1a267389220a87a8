//! The registry of dynamic modules in an EnvoyProxy (Envoy Gateway): checks our module's entry.

use penstock_policy::document::Node;

use super::review::ReviewAnswer;
use crate::manifests;

/// Checks the entries of our module; those of other vendors are ignored.
pub fn judge(object: &Node, name: &str) -> ReviewAnswer {
    let mut answer = ReviewAnswer::default();
    let Some(Node::List(entries)) = object.get("spec").and_then(|spec| spec.get("dynamicModules")) else {
        return answer;
    };
    let mut problems = Vec::new();
    for (number, entry) in entries.iter().enumerate().filter(|(_, entry)| is_ours(entry)) {
        let at = format!("spec.dynamicModules[{number}]");
        let source = entry.get("source");
        let of = |kind: &str| source.and_then(|source| source.get(kind));
        if let Some(remote) = of("remote") {
            let is_pinned = matches!(remote.get("sha256"), Some(Node::String(hash)) if is_sha256(hash));
            if !is_pinned {
                problems.push(format!("{at}.source.remote: has no sha256: anybody who can change what is at the URL runs code in the proxy; give the 64 hexadecimal digits"));
            }
            answer.warnings.push(format!("{at}.source.remote: until the module is fetched requests pass without it; use `source.local` with an image volume or an init container"));
        }
        if let Some(Node::String(path)) = of("local").and_then(|local| local.get("path"))
            && !(path.starts_with('/') && path.ends_with(".so"))
        {
            problems.push(format!("{at}.source.local.path: is not an absolute path to a .so; write the whole path, such as /usr/lib/libpenstock.so"));
        }
    }
    if !problems.is_empty() {
        answer.refusal = Some(format!("\n{name}:\n{}", problems.join("\n")));
    }
    answer
}

/// Whether an entry loads our module, by its name or by that of the library.
fn is_ours(entry: &Node) -> bool {
    let text = |node: Option<&Node>| match node {
        Some(Node::String(text)) => text.clone(),
        _ => String::new(),
    };
    let source = |kind: &str, field: &str| text(entry.get("source").and_then(|source| source.get(kind)?.get(field)));
    manifests::is_ours(&text(entry.get("name")))
        || manifests::is_our_library(&source("local", "path"))
        || manifests::is_our_library(&source("remote", "url"))
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}
