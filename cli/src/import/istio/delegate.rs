//! Delegate VirtualServices: a route of the root is replaced by the routes of another object, restricted to requests
//! that both match.

use penstock_policy::document::Node;

/// The routes that replace `root`, which delegates to `others`. Matches that contradict those of the root are dropped,
/// as in Istio.
pub fn merged(root: &Node, others: &[Node]) -> Vec<Node> {
    others.iter().filter_map(|other| merge(root, other)).collect()
}

fn entries(node: &Node) -> &[(String, Node)] {
    match node {
        Node::Map(entries) => entries,
        _ => &[],
    }
}

fn list(node: Option<&Node>) -> &[Node] {
    match node {
        Some(Node::List(items)) => items,
        _ => &[],
    }
}

/// Whether a condition has a form that Istio does not know. It is kept, so that its route is left out later.
fn is_unknown(node: &Node, is_known: impl Fn(&Node) -> bool) -> bool {
    *node != Node::Null && !is_known(node)
}

fn merge(root: &Node, other: &Node) -> Option<Node> {
    let unknown = |node: &&Node| is_unknown(node, |node| matches!(node, Node::List(_)));
    if let Some(unknown) = [root, other].iter().filter_map(|node| node.get("match")).find(unknown) {
        let own = entries(other).iter().filter(|(key, _)| key != "match").cloned();
        return Some(Node::Map(own.chain([("match".to_owned(), unknown.clone())]).collect()));
    }
    let (of_root, of_other) = (list(root.get("match")), list(other.get("match")));
    let nothing = [Node::Map(Vec::new())];
    let of_root = if of_root.is_empty() { &nothing[..] } else { of_root };
    let of_other = if of_other.is_empty() { &nothing[..] } else { of_other };
    let pairs = of_other.iter().flat_map(|leaf| of_root.iter().map(move |root| (root, leaf)));
    let matches: Vec<Node> = pairs.filter_map(|(root, leaf)| both(root, leaf)).collect();
    if matches.is_empty() {
        return None;
    }
    let mut merged: Vec<(String, Node)> =
        entries(other).iter().filter(|(key, _)| key != "match" && key != "name").cloned().collect();
    // Fields that the delegate lacks come from its root.
    for (key, value) in entries(root).iter().filter(|(key, _)| !["match", "delegate", "name"].contains(&key.as_str())) {
        if !merged.iter().any(|(known, _)| known == key) {
            merged.push((key.clone(), value.clone()));
        }
    }
    let name = |node: &Node| match node.get("name") {
        Some(Node::String(name)) => Some(name.clone()),
        _ => None,
    };
    let names: Vec<String> = [name(root), name(other)].into_iter().flatten().collect();
    if !names.is_empty() {
        merged.push(("name".to_owned(), Node::String(names.join("-"))));
    }
    let is_all = |entry: &Node| *entry == Node::Null || matches!(entry, Node::Map(entries) if entries.is_empty());
    if !matches.iter().all(is_all) {
        merged.push(("match".to_owned(), Node::List(matches)));
    }
    Some(Node::Map(merged))
}

/// The conjunction of two matches; `None` when they contradict each other.
fn both(root: &Node, leaf: &Node) -> Option<Node> {
    let unknown = |node: &&&Node| is_unknown(node, |node| matches!(node, Node::Map(_)));
    if let Some(unknown) = [root, leaf].iter().find(unknown) {
        return Some((*unknown).clone());
    }
    let mut merged: Vec<(String, Node)> = entries(leaf).to_vec();
    for (key, value) in entries(root) {
        match merged.iter_mut().find(|(known, _)| known == key) {
            None => merged.push((key.clone(), value.clone())),
            Some((_, own)) => match key.as_str() {
                "headers" | "withoutHeaders" | "queryParams" | "sourceLabels"
                    if [&*own, value].iter().any(|node| is_unknown(node, |node| matches!(node, Node::Map(_)))) =>
                {
                    *own = Node::String(format!("{own} with {value}"));
                }
                "headers" | "withoutHeaders" | "queryParams" | "sourceLabels" => {
                    let mut all = entries(own).to_vec();
                    for (name, value) in entries(value) {
                        match all.iter().find(|(known, _)| known == name) {
                            None => all.push((name.clone(), value.clone())),
                            Some((_, own)) if contains(value, own) => {}
                            Some(_) => return None,
                        }
                    }
                    *own = Node::Map(all);
                }
                "uri" | "scheme" | "method" | "authority" if contains(value, own) => {}
                _ if own == value => {}
                _ => return None,
            },
        }
    }
    Some(Node::Map(merged))
}

/// Whether the leaf's condition implies the root's, by Istio's rules.
fn contains(root: &Node, leaf: &Node) -> bool {
    let of = |node: &Node, kind: &str| match node.get(kind) {
        Some(Node::String(value)) => Some(value.clone()),
        _ => None,
    };
    if root.get("regex").is_some() || leaf.get("regex").is_some() {
        return root == leaf;
    }
    match (of(root, "exact"), of(root, "prefix"), of(leaf, "exact"), of(leaf, "prefix")) {
        (Some(root), _, Some(leaf), _) => root == leaf,
        (_, Some(root), Some(leaf), _) | (_, Some(root), _, Some(leaf)) => leaf.starts_with(&root),
        _ => false,
    }
}
