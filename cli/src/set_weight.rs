//! `penstock set-weight`: sets the weights of a canary, as a step of a rollout does.

use std::io::Write;

use anyhow::{Context as _, bail, ensure};
use penstock_policy::document::Node;
use serde_json::{Value, json};

use crate::kubectl::Kubectl;
use crate::output::Output;

/// Set the shares of a canary's variants in a plugin of the cluster.
///
/// The other variants divide the rest in proportion to their weights.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  penstock set-weight wasmplugin istio-system/shop reviews v2=25\n  \
    penstock set-weight envoyextensionpolicy shop/penstock reviews v2=0\n  \
    penstock set-weight wasmplugin istio-system/shop reviews v2=25 --dry-run\n\n\
    The command writes the shares as weights whose sum is 100.")]
pub struct Args {
    /// The kind of the object: wasmplugin, trafficextension, envoyextensionpolicy.
    kind: String,
    /// Its namespace and name.
    #[arg(value_name = "NAMESPACE/NAME")]
    object: String,
    /// The canary.
    canary: String,
    /// The share of a variant, in percent.
    #[arg(required = true, value_name = "VARIANT=PERCENT", value_parser = share)]
    shares: Vec<(String, u32)>,
    #[command(flatten)]
    kubectl: Kubectl,
    /// Print the JSON patch and change nothing.
    #[arg(long)]
    dry_run: bool,
}

fn share(text: &str) -> Result<(String, u32), String> {
    let wrong = || "this is not VARIANT=PERCENT, such as v2=25".to_owned();
    let (variant, percent) = text.rsplit_once('=').ok_or_else(wrong)?;
    let percent = percent.trim_end_matches('%').parse().map_err(|_| wrong())?;
    if percent > 100 {
        return Err("a share is at most 100 percent".to_owned());
    }
    Ok((variant.to_owned(), percent))
}

impl Args {
    /// Patches the object.
    ///
    /// # Errors
    /// Returns an error when the object, the canary or a variant does not exist, or when `kubectl` fails.
    pub fn run(&self, out: &mut Output<'_>) -> anyhow::Result<bool> {
        let (namespace, name) =
            self.object.split_once('/').context("write the object as NAMESPACE/NAME, such as istio-system/shop")?;
        let get = ["get", &self.kind, name, "--namespace", namespace, "--output", "json"];
        let text = self.kubectl.run(&get)?;
        let text = text.with_context(|| format!("the cluster has no kind {}", self.kind))?;
        let object = Node::from_json(text.as_bytes())?;
        let patch =
            patch(&object, &self.canary, &self.shares).with_context(|| format!("{} {}", self.kind, self.object))?;
        if self.dry_run {
            writeln!(out, "{patch}")?;
            return Ok(true);
        }
        let patch = patch.to_string();
        let apply = ["patch", &self.kind, name, "--namespace", namespace, "--type", "json", "--patch", &patch];
        let said = self.kubectl.run(&apply)?.unwrap_or_default();
        out.write_all(said.as_bytes())?;
        Ok(true)
    }
}

/// The JSON patch (RFC 6902) that sets the weights. It tests first that the variants have not moved.
fn patch(object: &Node, canary: &str, shares: &[(String, u32)]) -> anyhow::Result<Value> {
    let mut found = Vec::new();
    search(object, "", canary, &mut found);
    let [(path, canary_node)] = found.as_slice() else {
        match found.len() {
            0 => bail!("no policy in it has a canary `{canary}`"),
            several => bail!("{several} policies in it have a canary `{canary}`"),
        }
    };
    if let Some(ramp) = canary_node.get("ramp") {
        bail!("canary `{canary}` has a ramp, which sets the shares itself: {ramp}");
    }
    let Some(Node::List(variants)) = canary_node.get("variants") else { bail!("canary `{canary}` has no variants") };
    let text = |node: Option<&Node>| match node {
        Some(Node::String(text)) => text.clone(),
        _ => String::new(),
    };
    let weight = |node: &Node| match node.get("weight") {
        Some(Node::Integer(weight)) => u64::try_from(*weight).unwrap_or(0),
        _ => 0,
    };
    let variants: Vec<(String, u64)> = variants.iter().map(|node| (text(node.get("name")), weight(node))).collect();
    let weights = weights(&variants, shares)?;
    let mut operations = Vec::new();
    for (number, ((name, _), weight)) in variants.iter().zip(weights).enumerate() {
        let at = format!("{path}/variants/{number}");
        operations.push(json!({"op": "test", "path": format!("{at}/name"), "value": name}));
        operations.push(json!({"op": "replace", "path": format!("{at}/weight"), "value": weight}));
    }
    Ok(Value::Array(operations))
}

/// Weights that sum to 100: the given ones, and the rest in proportion to the old weights, by largest remainder.
fn weights(variants: &[(String, u64)], shares: &[(String, u32)]) -> anyhow::Result<Vec<u64>> {
    for (name, _) in shares {
        let names: Vec<&str> = variants.iter().map(|(name, _)| name.as_str()).collect();
        ensure!(names.contains(&name.as_str()), "there is no variant `{name}`: there are {}", names.join(", "));
    }
    let given = |name: &str| shares.iter().find(|(other, _)| other == name).map(|(_, share)| u64::from(*share));
    let sum: u64 = variants.iter().filter_map(|(name, _)| given(name)).sum();
    let rest = 100u64.checked_sub(sum).with_context(|| format!("the shares sum to {sum} percent"))?;
    let others: Vec<u64> =
        variants.iter().filter(|(name, _)| given(name).is_none()).map(|(_, weight)| *weight).collect();
    ensure!(!others.is_empty() || rest == 0, "the shares sum to {sum} percent and no variant is left for the rest");
    let total: u64 = others.iter().sum();
    // If the others had no weight, they share equally.
    let of = |weight: u64| if total == 0 { (1, others.len() as u64) } else { (weight, total) };
    let mut result = Vec::new();
    let mut remainders = Vec::new();
    for (number, (name, weight)) in variants.iter().enumerate() {
        match given(name) {
            Some(share) => result.push(share),
            None => {
                let (part, whole) = of(*weight);
                result.push(rest * part / whole);
                remainders.push((rest * part % whole, number));
            }
        }
    }
    let missing = 100 - result.iter().sum::<u64>();
    remainders.sort_by_key(|(remainder, number)| (std::cmp::Reverse(*remainder), *number));
    for (_, number) in remainders.into_iter().take(usize::try_from(missing).unwrap_or(0)) {
        if let Some(weight) = result.get_mut(number) {
            *weight += 1;
        }
    }
    Ok(result)
}

/// The canaries with this name, each with its JSON pointer.
fn search<'n>(node: &'n Node, path: &str, canary: &str, found: &mut Vec<(String, &'n Node)>) {
    let named = |item: &Node| matches!(item.get("name"), Some(Node::String(name)) if name == canary);
    match node {
        Node::Map(fields) => {
            for (field, value) in fields.iter().filter(|(field, _)| field != "metadata" && field != "status") {
                let here = format!("{path}/{}", field.replace('~', "~0").replace('/', "~1"));
                match value {
                    Node::List(items) if field == "canaries" => {
                        let items = items.iter().enumerate().filter(|(_, item)| named(item));
                        found.extend(items.map(|(number, item)| (format!("{here}/{number}"), item)));
                    }
                    value => search(value, &here, canary, found),
                }
            }
        }
        Node::List(items) => {
            for (number, item) in items.iter().enumerate() {
                search(item, &format!("{path}/{number}"), canary, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(weights: &[u64], shares: &[(&str, u32)]) -> anyhow::Result<Vec<u64>> {
        let variants: Vec<(String, u64)> =
            weights.iter().enumerate().map(|(i, weight)| (format!("v{}", i + 1), *weight)).collect();
        let shares: Vec<(String, u32)> = shares.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect();
        super::weights(&variants, &shares)
    }

    #[test]
    fn the_others_share_the_rest_as_they_did() {
        assert_eq!(set(&[95, 5], &[("v2", 25)]).unwrap(), [75, 25]);
        assert_eq!(set(&[60, 30, 10], &[("v3", 50)]).unwrap(), [33, 17, 50]);
        assert_eq!(set(&[1, 0], &[("v2", 100)]).unwrap(), [0, 100]);
        assert_eq!(set(&[0, 0, 7], &[("v3", 1)]).unwrap(), [50, 49, 1]);
        assert_eq!(set(&[1, 1], &[("v1", 30), ("v2", 70)]).unwrap(), [30, 70]);
        assert!(set(&[1, 1], &[("v1", 30), ("v2", 60)]).is_err());
        assert!(set(&[1, 1], &[("v1", 60), ("v2", 60)]).is_err());
        assert!(set(&[1, 1], &[("v9", 60)]).unwrap_err().to_string().contains("there are v1, v2"));
    }

    #[test]
    fn the_patch_finds_the_canary_wherever_the_plugin_keeps_it() {
        let canaries = r#"[{"name":"a","variants":[]},{"name":"reviews","variants":[{"name":"v1","weight":95},{"name":"v2","weight":5}]}]"#;
        for (object, at) in [
            (format!(r#"{{"spec":{{"pluginConfig":{{"canaries":{canaries}}}}}}}"#), "/spec/pluginConfig/canaries/1"),
            (
                format!(r#"{{"spec":{{"wasm":[{{}},{{"config":{{"canaries":{canaries}}}}}]}}}}"#),
                "/spec/wasm/1/config/canaries/1",
            ),
        ] {
            let object = Node::from_json(object.as_bytes()).unwrap();
            let patch = patch(&object, "reviews", &[("v2".to_owned(), 25)]).unwrap();
            assert_eq!(patch[0], json!({"op": "test", "path": format!("{at}/variants/0/name"), "value": "v1"}));
            assert_eq!(patch[3], json!({"op": "replace", "path": format!("{at}/variants/1/weight"), "value": 25}));
            assert!(super::patch(&object, "other", &[]).is_err());
        }
    }
}
