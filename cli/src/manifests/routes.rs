//! The routes in the platform's own configuration, for comparison with those that policies name.

use std::collections::BTreeSet;

use penstock_policy::document::Node;

/// The values of the route header that the platform's routes match, from all configurations together.
#[derive(Debug, Default)]
pub struct HostRoutes {
    exact: BTreeSet<String>,
    /// Whether a route matches the header by something other than equality.
    open: bool,
    /// Whether the platform has any route.
    pub any: bool,
}

impl HostRoutes {
    /// Adds the routes of one document.
    pub fn add(&mut self, node: &Node, header: &str) {
        match node {
            Node::Map(entries) => {
                let kind = match node.get("kind") {
                    Some(Node::String(kind)) => kind.as_str(),
                    _ => "",
                };
                self.any |= matches!(kind, "VirtualService" | "HTTPRoute" | "GRPCRoute")
                    || node.get("virtual_hosts").or_else(|| node.get("virtualHosts")).is_some();
                for (name, value) in entries {
                    match (name.as_str(), value) {
                        ("pluginConfig", _) => {}
                        ("headers", Node::List(conditions)) => {
                            conditions.iter().for_each(|c| self.condition(c, header))
                        }
                        ("headers", Node::Map(conditions)) => {
                            for (_, condition) in
                                conditions.iter().filter(|(name, _)| name.eq_ignore_ascii_case(header))
                            {
                                self.value(condition.get("exact"));
                            }
                        }
                        _ => {}
                    }
                    if name != "pluginConfig" {
                        self.add(value, header);
                    }
                }
            }
            Node::List(items) => items.iter().for_each(|item| self.add(item, header)),
            _ => {}
        }
    }

    /// A header condition of the Gateway API or of Envoy.
    fn condition(&mut self, condition: &Node, header: &str) {
        if !matches!(condition.get("name"), Some(Node::String(name)) if name.eq_ignore_ascii_case(header)) {
            return;
        }
        let envoy = ["string_match", "stringMatch"].iter().find_map(|field| condition.get(field)?.get("exact"));
        let envoy = envoy.or_else(|| condition.get("exact_match")).or_else(|| condition.get("exactMatch"));
        let regex = matches!(condition.get("type"), Some(Node::String(kind)) if kind != "Exact");
        self.value(if regex { None } else { condition.get("value").or(envoy) });
    }

    fn value(&mut self, value: Option<&Node>) {
        match value {
            Some(Node::String(value)) => drop(self.exact.insert(value.clone())),
            _ => self.open = true,
        }
    }

    /// Whether there is a route for `name`; true when unknown.
    pub fn has(&self, name: &str) -> bool {
        self.open || self.exact.contains(name)
    }

    /// The names for which there are routes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.exact.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Located;

    #[test]
    fn host_routes_are_read_in_the_words_of_every_host() {
        for (text, names) in [
            ("kind: VirtualService\nspec: {http: [{match: [{headers: {X-Penstock-Route: {exact: a}}}]}]}", "a"),
            ("kind: HTTPRoute\nspec: {rules: [{matches: [{headers: [{name: x-penstock-route, value: a}]}]}]}", "a"),
            (
                "virtual_hosts: [{routes: [{match: {headers: [{name: x-penstock-route, string_match: {exact: a}}]}}]}]",
                "a",
            ),
            ("kind: VirtualService\nspec: {http: [{match: [{headers: {x: {exact: a}}}]}]}", ""),
        ] {
            let mut routes = HostRoutes::default();
            routes.add(&Located::read(text).unwrap().node, "x-penstock-route");
            assert_eq!((routes.any, routes.names().collect::<String>()), (true, names.to_owned()), "{text}");
            assert_eq!((routes.has("a"), routes.has("b")), (!names.is_empty(), false));
        }
        let mut routes = HostRoutes::default();
        routes.add(
            &Located::read("virtual_hosts: [{match: {headers: [{name: x, present_match: true}]}}]").unwrap().node,
            "x",
        );
        assert!(routes.has("anything"));
    }
}
