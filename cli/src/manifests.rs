//! Policies inside other files: Kubernetes manifests and Envoy configurations, of several documents each.

use std::collections::BTreeSet;
use std::ops::Range;

use penstock_policy::document::Node;
use penstock_policy::{Module, Problem};

use crate::diagnostics::Finding;
use crate::yaml::{Located, NotYaml};

/// The fields by which a map is known as a policy.
const SECTIONS: [&str; 5] = ["settings", "egress", "rateLimits", "routes", "canaries"];

/// One policy of a file.
#[derive(Debug)]
pub struct Found {
    /// The object that it stands in, such as `WasmPlugin istio-system/penstock`; `None`: the document is the policy.
    pub resource: Option<String>,
    /// The policy.
    pub node: Node,
    /// The module that the object loads, when it says so.
    pub module: Option<Module>,
    place: Place,
}

/// How places in the policy become places in the file.
#[derive(Debug)]
enum Place {
    /// It is part of this document of the file.
    Inside { document: usize, prefix: String },
    /// It is JSON or YAML text in a string: its own places, and for each byte of that text one of the file.
    Text { located: Box<Located>, bytes: Vec<usize> },
}

/// A file with all its documents.
#[derive(Debug)]
pub struct File {
    text: String,
    documents: Vec<Located>,
    /// The policies in order.
    pub policies: Vec<Found>,
    /// Policies in strings that are not even YAML, with their object.
    pub broken: Vec<(String, Finding)>,
}

impl File {
    /// Reads a policy, or what holds some. A document that is neither an object of Kubernetes nor a configuration of
    /// Envoy is a policy.
    ///
    /// # Errors
    /// Text that is not YAML.
    pub fn read(text: String) -> Result<File, NotYaml> {
        let mut file = File { documents: Located::read_all(&text)?, text, policies: Vec::new(), broken: Vec::new() };
        let documents = std::mem::take(&mut file.documents);
        for (document, located) in documents.iter().enumerate() {
            match resource(&located.node) {
                // What follows a last `---`.
                None if located.node == Node::Null && documents.len() > 1 => {}
                None => file.policies.push(Found {
                    resource: None,
                    node: located.node.clone(),
                    module: None,
                    place: Place::Inside { document, prefix: String::new() },
                }),
                Some(resource) => file.search(&resource, document, located, &located.node, "", None),
            }
        }
        file.documents = documents;
        Ok(file)
    }

    /// The trees of the documents that are no policy.
    pub fn host_configs(&self) -> impl Iterator<Item = &Node> {
        self.documents.iter().map(|located| &located.node).filter(|node| resource(node).is_some())
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A problem of a policy, placed in the file.
    pub fn finding(&self, policy: &Found, problem: &Problem) -> Finding {
        let key = problem.value.is_none();
        let span = match &policy.place {
            Place::Inside { document, prefix } => {
                let path = join(prefix, &problem.path);
                self.documents.get(*document).map_or(0..0, |located| located.span(&path, key))
            }
            Place::Text { located, bytes } => outer(&located.span(&problem.path, key), bytes),
        };
        Finding {
            path: problem.path.clone(),
            value: problem.value.clone(),
            ..Finding::at(span, problem.message.clone(), problem.help.clone(), &self.text)
        }
    }

    /// Looks for policies in `node`, at `path` of the document. `module` is what the objects around it load.
    fn search(
        &mut self,
        resource: &str,
        document: usize,
        located: &Located,
        node: &Node,
        path: &str,
        module: Option<Module>,
    ) {
        match node {
            Node::Map(entries) => {
                let module = module_of(node).or(module);
                for (name, value) in entries {
                    let here = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    match (name.as_str(), value) {
                        // Istio's WasmPlugin and TrafficExtension; Envoy Gateway's EnvoyExtensionPolicy.
                        ("pluginConfig" | "config", Node::Map(_)) if is_ours(node, value) => {
                            let place = Place::Inside { document, prefix: here };
                            let resource = Some(resource.to_owned());
                            self.policies.push(Found { resource, node: value.clone(), module, place });
                        }
                        // Envoy's StringValue, wherever a wasm filter stands.
                        ("configuration", Node::Map(_)) => {
                            let Some(Node::String(text)) = value.get("value") else { continue };
                            let span = located.span(&format!("{here}.value"), false);
                            self.text_policy(resource, text, span, module);
                        }
                        _ => self.search(resource, document, located, value, &here, module),
                    }
                }
            }
            Node::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.search(resource, document, located, item, &format!("{path}[{i}]"), module);
                }
            }
            _ => {}
        }
    }

    /// A policy that is the text of a string at `span` of the file.
    fn text_policy(&mut self, resource: &str, text: &str, span: Range<usize>, module: Option<Module>) {
        let bytes = align(text, self.text.get(span.clone()).unwrap_or_default(), span.start);
        match Located::read(text) {
            Ok(located) if module.is_some() || has_section(&located.node) => {
                let node = located.node.clone();
                let place = Place::Text { located: Box::new(located), bytes };
                self.policies.push(Found { resource: Some(resource.to_owned()), node, module, place });
            }
            // Somebody else's plugin.
            Ok(_) => {}
            Err(error) if module.is_some() => {
                let at = outer(&(error.at..error.at + 1), &bytes);
                let message = format!("the policy in this string is not JSON: {}", error.message);
                self.broken.push((resource.to_owned(), Finding::at(at, message, None, &self.text)));
            }
            Err(_) => {}
        }
    }
}

/// `prefix` and a path below it.
fn join(prefix: &str, path: &str) -> String {
    match (prefix.is_empty(), path.is_empty()) {
        (true, _) => path.to_owned(),
        (_, true) => prefix.to_owned(),
        _ if path.starts_with('[') => format!("{prefix}{path}"),
        _ => format!("{prefix}.{path}"),
    }
}

/// What an object calls itself: kind and name of a Kubernetes object, or what part of an Envoy configuration it is.
/// `None`: it is neither.
fn resource(node: &Node) -> Option<String> {
    let string = |node: Option<&Node>| match node {
        Some(Node::String(text)) => Some(text.clone()),
        _ => None,
    };
    if let (Some(_), Some(kind)) = (string(node.get("apiVersion")), string(node.get("kind"))) {
        let metadata = node.get("metadata");
        let name = string(metadata.and_then(|metadata| metadata.get("name"))).unwrap_or_default();
        return Some(match string(metadata.and_then(|metadata| metadata.get("namespace"))) {
            Some(namespace) => format!("{kind} {namespace}/{name}"),
            None => format!("{kind} {name}"),
        });
    }
    if node.get("static_resources").is_some() || node.get("dynamic_resources").is_some() {
        return Some("Envoy bootstrap".to_owned());
    }
    if node.get("resources").is_some() || node.get("@type").is_some() {
        return Some("Envoy discovery file".to_owned());
    }
    node.get("virtual_hosts").map(|_| "Envoy RouteConfiguration".to_owned())
}

fn has_section(node: &Node) -> bool {
    SECTIONS.iter().any(|section| node.get(section).is_some())
}

/// Whether the configuration of a plugin is a policy: it has a section, or the plugin is one of our modules.
fn is_ours(plugin: &Node, configuration: &Node) -> bool {
    // In Envoy `config` also holds the plugin itself.
    let is_plugin = configuration.get("vm_config").is_some() || configuration.get("vmConfig").is_some();
    !is_plugin && (has_section(configuration) || module_of(plugin).is_some())
}

/// The module that a plugin loads, by the name of its file or image.
fn module_of(plugin: &Node) -> Option<Module> {
    let mut places = vec![plugin.get("url")];
    places.extend(["image", "http"].map(|source| plugin.get("code")?.get(source)?.get("url")));
    places.extend(["filename", "inline_string"].map(|source| {
        plugin.get("vm_config").or_else(|| plugin.get("vmConfig"))?.get("code")?.get("local")?.get(source)
    }));
    places.into_iter().flatten().find_map(|place| {
        let Node::String(text) = place else { return None };
        let file = text.rsplit('/').next()?;
        let name = file.split(['.', ':', '@']).next()?;
        let ours = text.contains("penstock") || file.ends_with(".wasm");
        Module::ALL.into_iter().find(|module| {
            ours && (name == module.name() || name == format!("penstock-{module}", module = module.name()))
        })
    })
}

/// The place in the file of a span of a string's text.
fn outer(span: &Range<usize>, bytes: &[usize]) -> Range<usize> {
    let at = |inner: usize| bytes.get(inner).or(bytes.last()).copied().unwrap_or(0);
    let start = at(span.start);
    // After the last byte, not before the one that follows: a line break may be between.
    let end = span.end.checked_sub(1).filter(|last| *last >= span.start).map_or(start, |last| at(last) + 1);
    start..end.max(start)
}

/// For each byte of a scalar's `text` the byte of the file that it comes from, `raw` being how the scalar is written
/// there, at `start`. Indentation, quotes and escapes are passed over; where that goes wrong, places drift by a few
/// bytes.
fn align(text: &str, raw: &str, start: usize) -> Vec<usize> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = if raw.starts_with(['|', '>']) { raw.find('\n').map_or(0, |end| end + 1) } else { 0 };
    for c in text.chars() {
        let rest = raw.get(at..).unwrap_or_default();
        let found = match c {
            '\n' => rest
                .find(['\n', '\\'])
                .map(|skip| (skip, if rest.get(skip..).is_some_and(|r| r.starts_with('\\')) { 2 } else { 1 })),
            ' ' | '\t' => rest.starts_with(c).then_some((0, 1)),
            _ => {
                let skip = rest.len() - rest.trim_start().len();
                let here = rest.get(skip..).unwrap_or_default();
                if here.starts_with(c) {
                    Some((skip, c.len_utf8()))
                } else if here.get(1..).is_some_and(|next| here.starts_with(['\\', '\'', '"']) && next.starts_with(c)) {
                    Some((skip, 1 + c.len_utf8()))
                } else {
                    None
                }
            }
        };
        let (place, next) = found.map_or((at, at), |(skip, length)| (at + skip, at + skip + length));
        bytes.extend(std::iter::repeat_n(start + place, c.len_utf8()));
        at = next;
    }
    bytes
}

/// The values of the route header that the hosts' own routes match, of all configurations together.
#[derive(Debug, Default)]
pub struct HostRoutes {
    exact: BTreeSet<String>,
    /// A route matches the header by something else than equality.
    open: bool,
    /// Whether there is any host route at all.
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
                self.any |=
                    matches!(kind, "VirtualService" | "HTTPRoute" | "GRPCRoute") || node.get("virtual_hosts").is_some();
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

    /// A condition of the Gateway API or of Envoy.
    fn condition(&mut self, condition: &Node, header: &str) {
        if !matches!(condition.get("name"), Some(Node::String(name)) if name.eq_ignore_ascii_case(header)) {
            return;
        }
        let envoy =
            condition.get("string_match").and_then(|text| text.get("exact")).or_else(|| condition.get("exact_match"));
        let regex = matches!(condition.get("type"), Some(Node::String(kind)) if kind != "Exact");
        self.value(if regex { None } else { condition.get("value").or(envoy) });
    }

    fn value(&mut self, value: Option<&Node>) {
        match value {
            Some(Node::String(value)) => drop(self.exact.insert(value.clone())),
            _ => self.open = true,
        }
    }

    /// Whether some route is there for `name`; yes when that cannot be told.
    pub fn has(&self, name: &str) -> bool {
        self.open || self.exact.contains(name)
    }

    /// The names that there are routes for.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.exact.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Vec<String> {
        let file = File::read(text.to_owned()).unwrap();
        let mut lines = Vec::new();
        for policy in &file.policies {
            let problems = penstock_policy::check(&policy.node, policy.module.unwrap_or(Module::Suite)).unwrap_err();
            for problem in &problems {
                let finding = file.finding(policy, problem);
                let resource = policy.resource.clone().unwrap_or_default();
                lines.push(format!("{resource} {}:{} {}", finding.line, finding.column, &text[finding.span.clone()]));
            }
        }
        lines
    }

    #[test]
    fn policies_of_all_hosts_are_found_and_problems_have_their_place_in_the_file() {
        for (text, expected) in [
            (
                "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n---\napiVersion: extensions.istio.io/v1alpha1\n\
                 kind: WasmPlugin\nmetadata: {name: p, namespace: ns}\nspec:\n  pluginConfig:\n    route: {}\n    routes: {}\n",
                "WasmPlugin ns/p 10:5 route",
            ),
            (
                "apiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\nmetadata: {name: p}\nspec:\n  wasm:\n    \
                 url: oci://r.test/penstock/header-routing:1\n    pluginConfig: {canaries: []}\n",
                "TrafficExtension p 7:20 canaries",
            ),
            (
                "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyExtensionPolicy\nmetadata: {name: p}\nspec:\n  wasm:\n  \
                 - config: {routes: {default: a b}}\n",
                "EnvoyExtensionPolicy p 6:32 a b",
            ),
        ] {
            assert_eq!(places(text)[0], expected);
        }
    }

    #[test]
    fn a_policy_in_a_string_has_places_however_the_string_is_written() {
        let inside = |scalar: &str| {
            format!(
                "static_resources:\n  config:\n    vm_config: {{code: {{local: {{filename: /x/suite.wasm}}}}}}\n    configuration:\n      value: {scalar}\n"
            )
        };
        for (scalar, line, text) in [
            (
                "|\n        {\n          \"routes\": {\n            \"default\": \"a b\"\n          }\n        }",
                8,
                "\"a b\"",
            ),
            ("'{\"routes\": {\"default\": \"a b\"}}'", 5, "\"a b\""),
            (r#""{\"routes\": {\"default\": \"a b\"}}""#, 5, r#"\"a b\""#),
            (">-\n        {\"routes\":\n        {\"default\": \"a b\"}}", 7, "\"a b\""),
        ] {
            let text_of_file = inside(scalar);
            let found = places(&text_of_file);
            assert!(found[0].starts_with(&format!("Envoy bootstrap {line}:")), "{found:?}");
            assert!(
                text.contains(
                    found[0].split_once(' ').unwrap().1.split_once(' ').unwrap().1.split_once(' ').unwrap().1
                ),
                "{found:?}"
            );
        }
        let file = File::read(inside("'{\"routes\": '")).unwrap();
        assert!(file.policies.is_empty() && file.broken[0].1.line == 5, "{:?}", file.broken);
    }

    #[test]
    fn the_plugins_of_others_are_left_alone() {
        let text = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: p}\nspec:\n  url: oci://r.test/waf\n  pluginConfig: {rules: 1}\n";
        assert!(File::read(text.to_owned()).unwrap().policies.is_empty());
    }

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
