//! Duplicate fields of an object. Kubernetes and Envoy silently take the last one.

use std::collections::HashSet;

use penstock_policy::document::Node;

use super::path::join;
use super::plugin::has_section;
use crate::diagnostics::Finding;
use crate::text::SourceText;
use crate::yaml::Located;

/// Keeps the last of duplicate fields and reports them. A policy is left unchanged: there, duplicates are an error.
pub fn keep_last(node: &mut Node) -> Vec<String> {
    let mut paths = Vec::new();
    below(node, "", &mut paths);
    paths
}

fn below(node: &mut Node, path: &str, paths: &mut Vec<String>) {
    match node {
        Node::Map(_) if has_section(node) => {}
        Node::Map(entries) => {
            let mut seen = HashSet::with_capacity(entries.len());
            let is_last: Vec<bool> = entries.iter().rev().map(|(name, _)| seen.insert(name.as_str())).collect();
            let mut is_last = is_last.into_iter().rev();
            entries.retain(|(name, _)| {
                let stays = is_last.next().unwrap_or(true);
                if !stays {
                    paths.push(join(path, name));
                }
                stays
            });
            for (name, value) in entries {
                below(value, &join(path, name), paths);
            }
        }
        Node::List(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                below(item, &format!("{path}[{i}]"), paths);
            }
        }
        _ => {}
    }
}

/// The message about a duplicate field.
pub fn finding(path: &str, located: &Located, text: &SourceText) -> Finding {
    let name = path.rsplit('.').next().unwrap_or(path);
    let message = format!("`{name}` is given twice: this one, the last, is used");
    Finding::at(located.span(path, true), message, Some("keep one".to_owned()), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_fields_stays_but_for_those_of_a_policy() {
        let text = "{a: 1, b: [{c: 1, c: 2}], a: 3, a: 4, p: {routes: {d: x, d: y}}}";
        let mut node = Located::read(text).unwrap().node;
        assert_eq!(keep_last(&mut node), ["a", "a", "b[0].c"]);
        let left = r#"{"b":[{"c":2}],"a":4,"p":{"routes":{"d":"x","d":"y"}}}"#;
        assert_eq!(node.to_string(), left);
    }
}
