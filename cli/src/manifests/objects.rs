//! Reports on whole objects, with or without a policy: our plugins without one, modules that the infrastructure
//! registers, documents that are never read.

use penstock_policy::Module;
use penstock_policy::document::Node;

use super::path::join;
use super::plugin::{self, ANNOTATION, PluginOwner};

/// A report on an object: the field below it, the consequence, the suggestion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The path below the object.
    pub path: String,
    /// Whether the place is the value and not the field's name.
    pub is_value: bool,
    /// The consequence.
    pub message: String,
    /// The suggestion.
    pub help: String,
}

/// The plugins in a Kubernetes object: their paths, and the field that contains the policy.
fn plugins<'n>(kind: &str, object: &'n Node) -> Vec<(String, &'n Node, &'static str)> {
    let Some(spec) = object.get("spec") else { return Vec::new() };
    let items = |field: &str| match spec.get(field) {
        Some(Node::List(items)) => {
            (0..).zip(items).map(|(i, item)| (format!("spec.{field}[{i}]"), item, "config")).collect()
        }
        _ => Vec::new(),
    };
    match kind {
        "WasmPlugin" => vec![("spec".to_owned(), spec, "pluginConfig")],
        "TrafficExtension" => {
            spec.get("wasm").map(|wasm| ("spec.wasm".to_owned(), wasm, "pluginConfig")).into_iter().collect()
        }
        "EnvoyExtensionPolicy" => [items("wasm"), items("dynamicModule")].concat(),
        _ => Vec::new(),
    }
}

/// Plugins of ours without a policy, or with one that the module cannot parse: it refuses both.
pub fn without_policy(object: &Node, annotated: Option<&PluginOwner>) -> Vec<Remark> {
    let Some(Node::String(kind)) = object.get("kind") else { return Vec::new() };
    let mut remarks = Vec::new();
    for (path, plugin, field) in plugins(kind, object) {
        let claim = annotated.cloned().unwrap_or_else(|| plugin::claim(plugin));
        if !matches!(claim, PluginOwner::Ours(_)) {
            continue;
        }
        match plugin.get(field) {
            None if field == "pluginConfig" && plugin.get("config").is_some() => remarks.push(Remark {
                path: join(&path, "config"),
                is_value: false,
                message: format!(
                    "{kind} has no field `config`: the module gets no configuration, and the plugin fails"
                ),
                help: "call it `pluginConfig`".to_owned(),
            }),
            None | Some(Node::Null) => remarks.push(Remark {
                path,
                is_value: false,
                message: "the plugin has no policy: the module refuses an empty configuration, and the plugin fails"
                    .to_owned(),
                help: format!("give the policy as `{field}`; {{settings: {{}}}} is the one that does nothing"),
            }),
            // Istio passes an empty object as no configuration.
            Some(Node::Map(fields)) if fields.is_empty() && field == "pluginConfig" => remarks.push(Remark {
                path: join(&path, field),
                is_value: true,
                message: "Istio passes an empty object as no configuration, which the module refuses: the plugin fails"
                    .to_owned(),
                help: "{settings: {}} is the policy that does nothing".to_owned(),
            }),
            Some(Node::Map(_)) => {}
            Some(_) => remarks.push(Remark {
                path: join(&path, field),
                is_value: true,
                message: format!("`{field}` is not an object: the module cannot read the policy, and the plugin fails"),
                help: "write the policy as YAML below it, without quotes and without `|`".to_owned(),
            }),
        }
    }
    remarks
}

/// Whether a document has a plugin like a Kubernetes object but lacks the object's kind.
pub fn is_half_an_object(node: &Node) -> bool {
    let plugin = ["pluginConfig", "wasm", "dynamicModule"];
    node.get("spec").is_some_and(|spec| plugin.iter().any(|field| spec.get(field).is_some()))
}

/// The kinds of plugins.
const KINDS: [&str; 3] = ["WasmPlugin", "TrafficExtension", "EnvoyExtensionPolicy"];

/// A kind of plugin with wrong upper or lower case.
pub fn wrong_kind(object: &Node) -> Vec<Remark> {
    let Some(Node::String(kind)) = object.get("kind") else { return Vec::new() };
    let meant = KINDS.iter().find(|known| known.eq_ignore_ascii_case(kind) && *known != kind);
    let remark = |known: &&str| Remark {
        path: "kind".to_owned(),
        is_value: true,
        message: format!("Kubernetes has no kind `{kind}`"),
        help: format!("write `{known}`"),
    };
    meant.map(remark).into_iter().collect()
}

/// What the API server refuses of the metadata of an object with a plugin: names that are no names, numbers where it takes
/// texts.
pub fn wrong_metadata(object: &Node) -> Vec<Remark> {
    let (Some(Node::String(kind)), Some(metadata)) = (object.get("kind"), object.get("metadata")) else {
        return Vec::new();
    };
    let mut remarks = Vec::new();
    if !KINDS.contains(&kind.as_str()) {
        return remarks;
    }
    let mut text = |path: &str, value: &Node| {
        if !matches!(value, Node::String(_) | Node::Null) {
            remarks.push(Remark {
                path: path.to_owned(),
                is_value: true,
                message: "must be a string: the API server refuses the object".to_owned(),
                help: format!("put it in quotes: \"{value}\""),
            });
        }
    };
    for (field, value) in ["name", "namespace"].iter().filter_map(|field| Some((field, metadata.get(field)?))) {
        text(&format!("metadata.{field}"), value);
    }
    for field in ["labels", "annotations"] {
        if let Some(Node::Map(entries)) = metadata.get(field) {
            entries.iter().for_each(|(name, value)| text(&format!("metadata.{field}.{name}"), value));
        }
    }
    if let Some(Node::String(name)) = metadata.get("name")
        && !is_object_name(name)
        // A variable that another tool fills in.
        && !name.contains('$')
    {
        remarks.push(Remark {
            path: "metadata.name".to_owned(),
            is_value: true,
            message: format!("{name:?} is not a name of an object: the API server refuses it"),
            help: "write lowercase letters, digits, `-` and `.`, with a letter or digit at both ends".to_owned(),
        });
    }
    remarks
}

/// An RFC 1123 subdomain.
fn is_object_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_label = |label: &str| {
        label.bytes().next().is_some_and(plain)
            && label.bytes().last().is_some_and(plain)
            && label.bytes().all(|b| plain(b) || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// An annotation that names none of our modules.
pub fn wrong_annotation(object: &Node) -> Vec<Remark> {
    let Some(name) = plugin::annotation(object) else { return Vec::new() };
    let names: Vec<&str> = Module::ALL.iter().map(|module| module.name()).chain(["none"]).collect();
    if names.contains(&name) {
        return Vec::new();
    }
    let near = names.iter().max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    vec![Remark {
        path: "metadata.annotations".to_owned(),
        is_value: false,
        message: format!("the annotation `{ANNOTATION}: {name}` names no module: the policy is checked for the suite"),
        help: format!("write one of {}; did you mean `{}`?", names.join(", "), near.unwrap_or(&"suite")),
    }]
}

/// Warnings about an object that registers our modules for others: Envoy Gateway's EnvoyProxy.
pub fn registered_modules(object: &Node) -> Vec<Remark> {
    let is_proxy = object.get("kind") == Some(&Node::String("EnvoyProxy".to_owned()));
    let modules = object.get("spec").and_then(|spec| spec.get("dynamicModules"));
    let (true, Some(Node::List(modules))) = (is_proxy, modules) else { return Vec::new() };
    let mut remarks = Vec::new();
    for (i, module) in modules.iter().enumerate() {
        let is_remote = module.get("source").is_some_and(|source| source.get("remote").is_some());
        if is_remote && matches!(plugin::claim(module), PluginOwner::Ours(_)) {
            remarks.push(Remark {
                path: format!("spec.dynamicModules[{i}].source.remote"),
                is_value: false,
                message: "until Envoy has fetched the module, every request passes without the filter".to_owned(),
                help: "use a `local` source: put the file into the proxy's image, or mount it from an image volume"
                    .to_owned(),
            });
        }
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Located;

    fn object(yaml: &str) -> Node {
        Located::read(yaml).unwrap().node
    }

    #[test]
    fn plugins_of_ours_without_a_policy_are_known_on_every_platform() {
        for (yaml, path) in [
            ("{kind: WasmPlugin, spec: {url: oci://r.test/penstock/suite}}", "spec"),
            ("{kind: TrafficExtension, spec: {wasm: {url: oci://r.test/penstock/suite}}}", "spec.wasm"),
            (
                "{kind: EnvoyExtensionPolicy, spec: {wasm: [{name: penstock, code: {image: {url: r.test/penstock/suite}}}]}}",
                "spec.wasm[0]",
            ),
            (
                "{kind: EnvoyExtensionPolicy, spec: {dynamicModule: [{name: a}, {name: penstock}]}}",
                "spec.dynamicModule[1]",
            ),
            (
                "{kind: EnvoyExtensionPolicy, spec: {dynamicModule: [{name: penstock, config: 'routes: {}'}]}}",
                "spec.dynamicModule[0].config",
            ),
        ] {
            let remarks = without_policy(&object(yaml), None);
            assert_eq!(remarks.iter().map(|remark| remark.path.as_str()).collect::<Vec<_>>(), [path], "{yaml}");
        }
        let empty = object("{kind: WasmPlugin, spec: {url: oci://r.test/penstock/suite, pluginConfig: {}}}");
        assert_eq!(without_policy(&empty, None)[0].path, "spec.pluginConfig");
        for yaml in [
            "{kind: WasmPlugin, spec: {url: oci://r.test/waf}}",
            "{kind: EnvoyExtensionPolicy, spec: {dynamicModule: [{name: penstock, config: {}}]}}",
            "{kind: EnvoyProxy, spec: {dynamicModules: [{name: penstock}]}}",
        ] {
            assert_eq!(without_policy(&object(yaml), None), [], "{yaml}");
        }
    }

    #[test]
    fn metadata_that_the_api_server_refuses_is_an_error() {
        let paths = |metadata: &str| -> Vec<String> {
            let object = object(&format!("{{kind: WasmPlugin, metadata: {metadata}}}"));
            wrong_metadata(&object).into_iter().map(|remark| remark.path).collect()
        };
        assert_eq!(paths("{name: 123, namespace: true}"), ["metadata.name", "metadata.namespace"]);
        assert_eq!(
            paths("{name: a, labels: {v: 1.5}, annotations: {x: 1}}"),
            ["metadata.labels.v", "metadata.annotations.x"]
        );
        for name in ["Edge", "a_b", "-a", "a..b", "a-"] {
            assert_eq!(paths(&format!("{{name: {name}}}")), ["metadata.name"], "{name}");
        }
        for name in ["a.b-c", "'0'", "'${NAME}'"] {
            assert_eq!(paths(&format!("{{name: {name}, labels: {{v: '1'}}, namespace: ~}}")), [""; 0], "{name}");
        }
        assert_eq!(wrong_metadata(&object("{kind: Service, metadata: {name: A}}")), []);
    }

    #[test]
    fn an_annotation_with_a_typo_is_a_warning() {
        let annotated = |name: &str| object(&format!("{{metadata: {{annotations: {{penstock.io/module: {name}}}}}}}"));
        assert!(wrong_annotation(&annotated("sute"))[0].help.ends_with("did you mean `suite`?"));
        for name in ["suite", "none", "egress-allowlist"] {
            assert_eq!(wrong_annotation(&annotated(name)), [], "{name}");
        }
    }

    #[test]
    fn a_module_of_ours_that_is_fetched_fails_open() {
        let proxy = |module: &str| object(&format!("{{kind: EnvoyProxy, spec: {{dynamicModules: [{module}]}}}}"));
        let remote = "{name: penstock, source: {type: Remote, remote: {url: 'https://r.test/x.so'}}}";
        assert_eq!(registered_modules(&proxy(remote))[0].path, "spec.dynamicModules[0].source.remote");
        let by_file = "{name: edge, source: {type: Remote, remote: {url: 'https://r.test/libpenstock.so'}}}";
        assert_eq!(registered_modules(&proxy(by_file)).len(), 1);
        for other in [
            "{name: penstock, source: {type: Local, local: {path: /x/libpenstock.so}}}",
            "{name: waf, source: {type: Remote, remote: {url: 'https://r.test/waf.so'}}}",
        ] {
            assert_eq!(registered_modules(&proxy(other)), [], "{other}");
        }
    }
}
