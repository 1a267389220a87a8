//! The bill of materials (SBOM) of a module or of the command: a CycloneDX document made from the output of `cargo
//! metadata`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Its media type.
pub const MEDIA_TYPE: &str = "application/vnd.cyclonedx+json";

/// The components that are linked into `package` (without build and test dependencies), in a fixed order. `metadata` is
/// the output of `cargo metadata --format-version 1 --filter-platform TARGET`; `sha256` is the file's digest in
/// hexadecimal.
///
/// # Errors
/// Returns an error when the metadata does not contain the package.
pub fn bill(metadata: &Value, package: &str, sha256: &str) -> Result<Value> {
    let packages: BTreeMap<&str, &Value> =
        array(metadata, "/packages").filter_map(|package| Some((string(package, "id")?, package))).collect();
    let nodes: BTreeMap<&str, &Value> =
        array(metadata, "/resolve/nodes").filter_map(|node| Some((string(node, "id")?, node))).collect();
    let (root, described) = packages
        .iter()
        .find(|(_, found)| string(found, "name") == Some(package))
        .with_context(|| format!("cargo's metadata has no package {package:?}"))?;

    let mut seen = BTreeSet::new();
    let mut open = vec![*root];
    let mut dependencies = BTreeMap::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let linked: BTreeSet<&str> = nodes.get(id).map(|node| linked(node)).unwrap_or_default();
        dependencies.insert(id, linked.clone());
        open.extend(linked);
    }
    let reference = |id: &str| packages.get(id).map(|package| url(package)).unwrap_or_default();
    let mut components: Vec<Value> = seen
        .iter()
        .filter(|id| *id != root)
        .filter_map(|id| packages.get(id))
        .map(|package| component(package))
        .collect();
    components.sort_by_key(|component| string(component, "purl").map(str::to_owned));
    let mut graph: Vec<Value> = dependencies
        .iter()
        .map(|(id, on)| json!({"ref": reference(id), "dependsOn": on.iter().map(|id| reference(id)).collect::<BTreeSet<_>>()}))
        .collect();
    graph.sort_by_key(|entry| string(entry, "ref").map(str::to_owned));
    let mut module = component(described);
    if let Some(module) = module.as_object_mut() {
        module.insert("type".to_owned(), "application".into());
        module.insert("hashes".to_owned(), json!([{"alg": "SHA-256", "content": sha256}]));
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": module,
            "tools": {"components": [
                {"type": "application", "name": "penstock", "version": env!("CARGO_PKG_VERSION")},
            ]},
        },
        "components": components,
        "dependencies": graph,
    }))
}

fn array<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn string<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}

/// The packages that a package is linked with. Dependencies of build scripts and macros are not part of the module.
fn linked(node: &Value) -> BTreeSet<&str> {
    array(node, "/deps")
        .filter(|dependency| array(dependency, "/dep_kinds").any(|kind| kind.get("kind").is_none_or(Value::is_null)))
        .filter_map(|dependency| string(dependency, "pkg"))
        .collect()
}

fn url(package: &Value) -> String {
    format!(
        "pkg:cargo/{}@{}",
        string(package, "name").unwrap_or_default(),
        string(package, "version").unwrap_or_default()
    )
}

fn component(package: &Value) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": url(package),
        "name": package.get("name"),
        "version": package.get("version"),
        "purl": url(package),
    });
    if let (Some(component), Some(licence)) = (component.as_object_mut(), string(package, "license")) {
        // Old crates separate alternative licences with a slash.
        component.insert("licenses".to_owned(), json!([{"expression": licence.replace('/', " OR ")}]));
    }
    component
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_what_only_builds_is_not() {
        let metadata = json!({
            "packages": [
                {"id": "1", "name": "penstock-suite", "version": "0.1.0", "license": "Apache-2.0"},
                {"id": "2", "name": "b", "version": "1.0.0", "license": "MIT/Apache-2.0"},
                {"id": "3", "name": "cc", "version": "1.0.0", "license": "MIT"},
                {"id": "4", "name": "a", "version": "2.0.0", "license": "MIT"},
            ],
            "resolve": {"nodes": [
                {"id": "1", "deps": [
                    {"pkg": "2", "dep_kinds": [{"kind": null}]},
                    {"pkg": "3", "dep_kinds": [{"kind": "build"}]},
                ]},
                {"id": "2", "deps": [{"pkg": "4", "dep_kinds": [{"kind": "dev"}, {"kind": null}]}]},
            ]},
        });
        let bill = bill(&metadata, "penstock-suite", "00").unwrap();
        let names: Vec<_> = array(&bill, "/components").filter_map(|component| string(component, "purl")).collect();
        assert_eq!(names, ["pkg:cargo/a@2.0.0", "pkg:cargo/b@1.0.0"]);
        assert_eq!(bill.pointer("/components/1/licenses/0/expression").unwrap(), "MIT OR Apache-2.0");
        assert!(super::bill(&metadata, "penstock-none", "00").is_err());
    }
}
