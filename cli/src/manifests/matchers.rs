//! Envoy's `ExtensionWithMatcher`: a matcher that skips a filter, or chooses one, by what a request contains.

use penstock_policy::document::Node;

use super::path::join;

/// A filter with a matcher.
pub struct MatchedFilter {
    /// The path of its configuration.
    path: String,
    /// The field with the matcher.
    field: &'static str,
    /// Whether the matcher skips it for some requests.
    skips: bool,
}

/// All filters with a matcher in a document.
pub fn of(document: &Node) -> Vec<MatchedFilter> {
    let mut all = Vec::new();
    walk(document, "", &mut all);
    all
}

impl MatchedFilter {
    /// A warning for a plugin at this path, with the path of the matcher: what happens, and what would be right.
    pub fn doubt(&self, plugin: &str) -> Option<(String, String, String)> {
        let below = plugin.strip_prefix(&self.path).filter(|rest| rest.starts_with('.'))?;
        let is_chosen = below.strip_prefix('.').and_then(|below| below.strip_prefix(self.field));
        let message = match is_chosen.is_some_and(|rest| rest.starts_with('.')) {
            true => "only requests that this matcher selects pass through the filter: all others pass without it",
            false if self.skips => "requests for which this matcher says `SkipFilter` pass without the filter",
            false => return None,
        };
        let help = "leave the matcher out, and restrict the policy to the requests that it is for";
        Some((join(&self.path, self.field), message.to_owned(), help.to_owned()))
    }
}

/// Whether a matcher below this node has the action `SkipFilter`.
pub fn skips(node: &Node) -> bool {
    match node {
        Node::Map(fields) => is_of(node, ".SkipFilter") || fields.iter().any(|(_, value)| skips(value)),
        Node::List(items) => items.iter().any(skips),
        _ => false,
    }
}

fn walk(node: &Node, path: &str, all: &mut Vec<MatchedFilter>) {
    match node {
        Node::Map(fields) => {
            // `matcher` is its older form.
            let matcher = ["xds_matcher", "xdsMatcher", "matcher"].into_iter().find(|field| node.get(field).is_some());
            if let Some(field) = matcher.filter(|_| is_of(node, ".ExtensionWithMatcher")) {
                let skips = node.get(field).is_some_and(skips);
                all.push(MatchedFilter { path: path.to_owned(), field, skips });
            }
            fields.iter().for_each(|(name, value)| walk(value, &join(path, name), all));
        }
        Node::List(items) => {
            items.iter().enumerate().for_each(|(i, item)| walk(item, &format!("{path}[{i}]"), all));
        }
        _ => {}
    }
}

fn is_of(node: &Node, kind: &str) -> bool {
    matches!(node.get("@type"), Some(Node::String(type_url)) if type_url.ends_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Located;

    fn said(yaml: &str, plugin: &str) -> Vec<String> {
        let document = Located::read(yaml).unwrap().node;
        of(&document)
            .iter()
            .filter_map(|filter| filter.doubt(plugin))
            .map(|(path, message, _)| path + ": " + &message)
            .collect()
    }

    #[test]
    fn a_matcher_that_keeps_requests_from_the_filter_is_reported() {
        let skip = "{\"@type\": t/x.v3.SkipFilter}";
        let filter = |actions: &str| {
            format!(
                "typed_config: {{\"@type\": t/x.v3.ExtensionWithMatcher, extension_config: {{name: p}}, xds_matcher: {{a: [{actions}]}}}}"
            )
        };
        let inside = "typed_config.extension_config.typed_config.config";
        let skipped = said(&filter(skip), inside);
        assert!(
            skipped.len() == 1 && skipped[0].starts_with("typed_config.xds_matcher: requests for which"),
            "{skipped:?}"
        );
        assert_eq!(said(&filter("{}"), inside), [] as [&str; 0]);
        assert_eq!(said(&filter(skip), "other.config"), [] as [&str; 0]);
        let chosen = said(&filter("{name: p}"), "typed_config.xds_matcher.a[0].typed_config.config");
        assert!(chosen.len() == 1 && chosen[0].contains("all others pass without it"), "{chosen:?}");
    }
}
