//! Reads from a proxy's configuration dump what it runs.

use penstock_policy::document::Node;
use serde::Serialize;

use super::plugin::ClusterPlugin;
use crate::inputs;
use crate::manifests::ManifestFile;
use crate::text::SourceText;

/// A proxy.
#[derive(Debug, Serialize)]
pub struct ProxyStatus {
    /// Its URL or Pod.
    pub name: String,
    /// The version of its Envoy.
    pub version: String,
    /// The policies that it runs.
    pub policies: Vec<ProxyPolicy>,
    /// Configuration that it refused.
    pub refused: Vec<RefusedConfiguration>,
    /// Settings of its Envoy that break a guarantee of a policy.
    pub warnings: Vec<String>,
}

/// A policy that a proxy runs.
#[derive(Debug, Serialize)]
pub struct ProxyPolicy {
    /// The name that the control plane gave it.
    pub name: String,
    /// The object of the cluster that it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Whether it is that object's current policy.
    pub state: ProxyState,
    /// The module that it loads: a file or URL, with its digest where the configuration has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// Whether a proxy runs the policy of the cluster's object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ProxyState {
    /// It does.
    Current,
    /// The object has a different policy now.
    Differs,
    /// No object has this name.
    Unknown,
}

/// Configuration that a proxy refused.
#[derive(Debug, Serialize)]
pub struct RefusedConfiguration {
    /// The name of the resource.
    pub name: String,
    /// The message of Envoy, or of the module in it.
    pub message: String,
}

impl ProxyStatus {
    /// Queries the proxy at `url`.
    ///
    /// # Errors
    /// Returns an error when it does not respond.
    pub fn read(name: &str, url: &str, plugins: &[ClusterPlugin]) -> anyhow::Result<ProxyStatus> {
        let input = inputs::envoy(url)?;
        let dump = Node::from_json(input.text.as_bytes())?;
        let mut found = Vec::new();
        let mut refused = Vec::new();
        walk(&dump, "", &mut found, &mut refused);
        let policies = found.into_iter().map(|found| running(found, plugins)).collect();
        let mut version = None;
        find_version(&dump, &mut version);
        let version = version.unwrap_or_else(|| "?".to_owned());
        Ok(ProxyStatus { name: name.to_owned(), version, policies, refused, warnings: warnings(input.text) })
    }

    /// Whether it runs what it should.
    pub fn is_fine(&self) -> bool {
        self.refused.is_empty() && self.policies.iter().all(|policy| policy.state != ProxyState::Differs)
    }
}

/// Warnings about how a proxy runs its policies, from its configuration dump.
pub fn warnings(dump: SourceText) -> Vec<String> {
    let Ok(file) = ManifestFile::read_as("config_dump.json", dump, false) else { return Vec::new() };
    let mut said: Vec<String> = Vec::new();
    for doubt in file.policies.iter().flat_map(|found| &found.doubts) {
        let help = doubt.help.as_deref().unwrap_or_default();
        let line = format!("{}; {help}", doubt.message);
        if !said.contains(&line) {
            said.push(line);
        }
    }
    said
}

/// A policy as the dump contains it.
#[derive(Debug)]
struct DumpedPolicy {
    name: String,
    policy: Node,
    code: Option<String>,
}

fn running(found: DumpedPolicy, plugins: &[ClusterPlugin]) -> ProxyPolicy {
    let DumpedPolicy { name, policy, code } = found;
    // Parses resource names. Istio: …/NAMESPACE.NAME, with ~istio-translated-wasmplugin or ~generation; Envoy Gateway:
    // …/NAMESPACE/NAME/….
    let names = |plugin: &&ClusterPlugin| {
        let (namespace, object) = &plugin.name;
        let last = name.rsplit('/').next().unwrap_or_default().split('~').next().unwrap_or_default();
        last == format!("{namespace}.{object}") || name.contains(&format!("/{namespace}/{object}/"))
    };
    let same = |plugin: &&ClusterPlugin| plugin.policies.iter().any(|other| sorted(other) == sorted(&policy));
    let of_name = plugins.iter().find(names);
    let (object, state) = match of_name {
        Some(plugin) if same(&plugin) => (Some(plugin), ProxyState::Current),
        Some(plugin) => (Some(plugin), ProxyState::Differs),
        None => match plugins.iter().find(same) {
            Some(plugin) => (Some(plugin), ProxyState::Current),
            None => (None, ProxyState::Unknown),
        },
    };
    ProxyPolicy { object: object.map(|plugin| plugin.object.clone()), name, state, code }
}

/// The same tree with sorted fields: a protobuf Struct does not keep their order.
fn sorted(node: &Node) -> Node {
    match node {
        Node::Map(fields) => {
            let mut fields: Vec<(String, Node)> =
                fields.iter().map(|(field, value)| (field.clone(), sorted(value))).collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            Node::Map(fields)
        }
        Node::List(items) => Node::List(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// Finds our policies, each with the name of the nearest enclosing resource, and refused configuration.
fn walk(node: &Node, name: &str, found: &mut Vec<DumpedPolicy>, refused: &mut Vec<RefusedConfiguration>) {
    match node {
        Node::Map(fields) => {
            let own = ["ecds_filter", "name"].iter().find_map(|field| match node.get(field) {
                Some(Node::String(text)) => Some(text.as_str()),
                Some(filter) => match filter.get("name") {
                    Some(Node::String(text)) => Some(text.as_str()),
                    _ => None,
                },
                None => None,
            });
            let name = own.unwrap_or(name);
            for (field, value) in fields {
                match (field.as_str(), value) {
                    ("error_state", state) => {
                        if let Some(Node::String(message)) = state.get("details") {
                            refused.push(RefusedConfiguration { name: name.to_owned(), message: message.clone() });
                        }
                    }
                    ("configuration", value) => {
                        if let Some(policy) = policy(value) {
                            found.push(DumpedPolicy { name: name.to_owned(), policy, code: code(node) });
                        }
                    }
                    _ => walk(value, name, found, refused),
                }
            }
        }
        Node::List(items) => items.iter().for_each(|item| walk(item, name, found, refused)),
        _ => {}
    }
}

/// The file or URL that a plugin loads.
fn code(plugin: &Node) -> Option<String> {
    let code = plugin.get("vm_config")?.get("code")?;
    let text = |node: Option<&Node>| match node {
        Some(Node::String(text)) => Some(text.clone()),
        _ => None,
    };
    let remote = code.get("remote");
    let url = text(remote.and_then(|remote| remote.get("http_uri")?.get("uri")));
    let digest = text(remote.and_then(|remote| remote.get("sha256"))).map(|digest| format!("@sha256:{digest}"));
    let file = text(code.get("local").and_then(|local| local.get("filename")));
    Some(url.or(file)? + &digest.unwrap_or_default())
}

/// The policy in a plugin's `configuration`.
fn policy(configuration: &Node) -> Option<Node> {
    let Node::String(text) = configuration.get("value")? else { return None };
    let policy = Node::from_json(text.as_bytes()).ok()?;
    crate::manifests::has_section(&policy).then_some(policy)
}

fn find_version(node: &Node, version: &mut Option<String>) {
    match node {
        Node::Map(fields) => {
            if let Some(number) = node.get("user_agent_build_version").and_then(|build| build.get("version")) {
                let part = |name: &str| match number.get(name) {
                    Some(Node::Integer(part)) => *part,
                    _ => 0,
                };
                *version = Some(format!("{}.{}.{}", part("major_number"), part("minor_number"), part("patch")));
                return;
            }
            fields.iter().for_each(|(_, value)| {
                if version.is_none() {
                    find_version(value, version);
                }
            });
        }
        Node::List(items) => items.iter().for_each(|item| {
            if version.is_none() {
                find_version(item, version);
            }
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(policy: &str) -> ClusterPlugin {
        ClusterPlugin {
            object: "WasmPlugin shop/penstock".to_owned(),
            module: Some("suite"),
            image: None,
            refused: None,
            name: ("shop".to_owned(), "penstock".to_owned()),
            policies: vec![Node::from_json(policy.as_bytes()).unwrap()],
        }
    }

    fn dump(name: &str, policy: &str) -> Node {
        let dump = serde_json::json!({"configs": [
            {"bootstrap": {"node": {"user_agent_build_version": {"version": {"major_number": 1, "minor_number": 40, "patch": 2}}}}},
            {"ecds_filters": [
                {"ecds_filter": {"name": name, "typed_config": {"config": {"vm_config": {"code": {"remote": {"http_uri": {"uri": "http://r.test/suite.wasm"}, "sha256": "ab"}}}, "configuration": {"value": policy}}}}},
                {"ecds_filter": {"name": "other/x.y"}, "error_state": {"details": "routes: is a string, expected an object"}}]}]});
        Node::from_json(dump.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_policy_of_a_proxy_is_compared_with_the_object_that_it_is_named_after() {
        let object = r#"{"routes":{"default":"a","precedence":"GatewayAPI"}}"#;
        let turned = r#"{"routes":{"precedence":"GatewayAPI","default":"a"}}"#;
        let other = r#"{"routes":{"default":"b"}}"#;
        for (name, policy, state) in [
            ("extensions.istio.io/wasmplugin/shop.penstock", turned, ProxyState::Current),
            (
                "extensions.istio.io/trafficextension/shop.penstock~istio-translated-wasmplugin",
                turned,
                ProxyState::Current,
            ),
            ("envoyextensionpolicy/shop/penstock/wasm/0", other, ProxyState::Differs),
            ("somebody-elses", other, ProxyState::Unknown),
        ] {
            let (mut found, mut refused) = (Vec::new(), Vec::new());
            walk(&dump(name, policy), "", &mut found, &mut refused);
            let [found] = <[DumpedPolicy; 1]>::try_from(found).unwrap();
            let running = running(found, &[plugin(object)]);
            assert_eq!(running.code.as_deref(), Some("http://r.test/suite.wasm@sha256:ab"));
            assert_eq!((running.name.as_str(), running.state), (name, state));
            assert_eq!(refused[0].name, "other/x.y");
            assert!(refused[0].message.contains("expected an object"));
            let mut version = None;
            find_version(&dump(name, policy), &mut version);
            assert_eq!(version.as_deref(), Some("1.40.2"));
        }
    }
}
