//! Determines what a label selector selects.

use penstock_policy::document::Node;

use crate::import::objects::Objects;

/// The label that every namespace has automatically.
const NAME: &str = "kubernetes.io/metadata.name";

/// Whether a namespace has the labels that a selector requires, or why that is unknown.
pub fn has_labels(objects: &Objects<'_>, namespace: &str, selector: &Node) -> Result<bool, String> {
    let is_it = |node: &&(String, Node)| {
        node.1.get("metadata").and_then(|metadata| metadata.get("name")) == Some(&Node::String(namespace.to_owned()))
    };
    let object = objects.of("Namespace", "v1").into_iter().find(is_it).map(|(_, node)| node);
    let labels = object.and_then(|node| node.get("metadata")).and_then(|metadata| metadata.get("labels"));
    let label = |key: &str| -> Result<Option<String>, String> {
        match (labels.and_then(|labels| labels.get(key)), object) {
            (Some(Node::String(value)), _) => Ok(Some(value.clone())),
            _ if key == NAME => Ok(Some(namespace.to_owned())),
            (_, Some(_)) => Ok(None),
            (_, None) => Err(format!(
                "it is unknown whether Namespace {namespace} has the label {key}: add the Namespace to the input"
            )),
        }
    };
    selects(selector, &label)
}

/// Whether an object with these labels is selected, or why that is unknown.
pub fn selects(selector: &Node, label: &dyn Fn(&str) -> Result<Option<String>, String>) -> Result<bool, String> {
    let mut all = true;
    for (field, value) in map(selector) {
        match field.as_str() {
            "matchLabels" => {
                for (key, value) in map(value) {
                    all &= label(key)?.map(Node::String).as_ref() == Some(value);
                }
            }
            "matchExpressions" => {
                let Node::List(items) = value else { return Err(format!("{value} is not a list")) };
                for item in items {
                    all &= holds(item, label)?;
                }
            }
            _ => return Err(format!("`import` does not know {field}")),
        }
    }
    Ok(all)
}

fn map(node: &Node) -> &[(String, Node)] {
    match node {
        Node::Map(entries) => entries,
        _ => &[],
    }
}

fn holds(item: &Node, label: &dyn Fn(&str) -> Result<Option<String>, String>) -> Result<bool, String> {
    let (Some(Node::String(key)), Some(Node::String(operator))) = (item.get("key"), item.get("operator")) else {
        return Err(format!("{item} has no key and operator"));
    };
    let value = label(key)?;
    let is_listed = || match item.get("values") {
        Some(Node::List(values)) => value.clone().is_some_and(|value| values.contains(&Node::String(value))),
        _ => false,
    };
    match operator.as_str() {
        "In" => Ok(is_listed()),
        "NotIn" => Ok(!is_listed()),
        "Exists" => Ok(value.is_some()),
        "DoesNotExist" => Ok(value.is_none()),
        other => Err(format!("`import` does not know the operator {other}")),
    }
}
