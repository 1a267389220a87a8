//! The registry of dynamic modules of an EnvoyProxy (Envoy Gateway): what our module's entry must say.

use penstock_policy::document::Node;

use super::review::Answer;

/// The name under which our dynamic module is registered and looked up: `libpenstock.so`.
const OURS: &str = "penstock";

/// Whether the entries of our module are right; those of others are not looked at.
pub fn judge(object: &Node, name: &str) -> Answer {
    let mut answer = Answer::default();
    let Some(Node::List(entries)) = object.get("spec").and_then(|spec| spec.get("dynamicModules")) else {
        return answer;
    };
    let mut problems = Vec::new();
    let ours = |entry: &&Node| matches!(entry.get("name"), Some(Node::String(name)) if name == OURS);
    for (number, entry) in entries.iter().enumerate().filter(|(_, entry)| ours(entry)) {
        let at = format!("spec.dynamicModules[{number}]");
        let source = entry.get("source");
        let remote = source.and_then(|source| source.get("remote"));
        let local = source.and_then(|source| source.get("local"));
        if let Some(remote) = remote {
            let is_pinned = matches!(remote.get("sha256"), Some(Node::String(hash)) if is_sha256(hash));
            if !is_pinned {
                problems.push(format!("{at}.source.remote: has no sha256: anybody who can change what is at the URL runs code in the proxy; give the 64 hexadecimal digits"));
            }
            answer.warnings.push(format!("{at}.source.remote: until the module is fetched requests pass without it; use `source.local` with an image volume or an init container"));
        }
        if let Some(Node::String(path)) = local.and_then(|local| local.get("path"))
            && !(path.starts_with('/') && path.ends_with(".so"))
        {
            problems.push(format!("{at}.source.local.path: is not an absolute path to a .so; write /…/libpenstock.so"));
        }
    }
    if entries.iter().filter(ours).count() > 1 {
        problems.push(format!("spec.dynamicModules: has `{OURS}` twice; only one can be meant"));
    }
    if !problems.is_empty() {
        answer.refusal = Some(format!("\n{name}:\n{}", problems.join("\n")));
    }
    answer
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}
