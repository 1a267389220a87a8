//! Finds what a change of `settings` loosens. Other sections count and match by these values, so a change in either
//! direction is a loosening as soon as something uses it: two clients may have been one before.

use penstock_policy::document::Node;
use penstock_policy::rate_limits::LimitMode;

use super::change::{ChangeClass, Changes};
use super::sought::Sought;
use crate::documents::{Documents, named};

const UNSEEN_IDENTITY: Sought = Sought::Nothing(
    "a recorded request does not contain where the proxy found its identity: compare both identities of the same connections in the access log",
);

/// Compares `settings`, and the identity and port settings of `egress`.
pub fn compare(old: (&Node, &Documents), new: (&Node, &Documents), changes: &mut Changes) {
    let limits: Vec<&Node> = [old, new].into_iter().flat_map(|(node, documents)| enforced(node, documents)).collect();
    let keyed = |parts: &[&str]| limits.iter().any(|limit| mentions(limit.get("key"), parts));
    let matched = |fields: &[&str]| limits.iter().any(|limit| mentions(limit.get("matches"), fields));
    let from = new.1.egress.as_ref().is_some_and(|egress| egress.rules.0.iter().any(|rule| rule.from.is_some()));
    let setting = |node: &Node, field: &str| node.get("settings").and_then(|settings| settings.get(field)).cloned();

    let mut fields: Vec<String> = Vec::new();
    for (node, _) in [old, new] {
        if let Some(Node::Map(entries)) = node.get("settings") {
            fields.extend(entries.iter().map(|(field, _)| field.clone()).filter(|field| field != "identity"));
        }
    }
    fields.sort_unstable();
    fields.dedup();
    for field in fields {
        let value = |node: &Node| setting(node, &field).or_else(|| default(&field)).unwrap_or(Node::Null);
        let (was, is) = (value(old.0), value(new.0));
        if same(&field, &was, &is) {
            continue;
        }
        let (loosens, why) = match field.as_str() {
            "sourceAddress" => {
                (keyed(&["sourceAddress"]), ": limits count by other addresses, and one client may count as several")
            }
            "path" => (keyed(&["path"]) || matched(&["path"]), ": limits match and count other paths"),
            "claims" => (
                keyed(&["claim", "claims"]) || matched(&["claims"]),
                ": limits match and count by the claims of other tokens",
            ),
            "routeHeader" | "filterState" | "chained" => (false, ""),
            _ => (!limits.is_empty() || new.1.egress.is_some(), ""),
        };
        let class = if loosens { ChangeClass::Loosened } else { ChangeClass::Changed };
        let why = if loosens { why } else { "" };
        changes.push(class, format!("settings.{field}"), format!("{was} → {is}{why}"), Sought::AnyLimit);
    }

    let identity = |node: &Node| {
        let older = node.get("egress").and_then(|egress| egress.get("identity")).cloned();
        setting(node, "identity").or(older).or_else(|| default("identity"))
    };
    if identity(old.0) != identity(new.0) {
        let in_settings = [old.0, new.0].into_iter().any(|node| setting(node, "identity").is_some());
        let path = if in_settings { "settings.identity" } else { "egress.identity" };
        let message = "callers are identified in another way";
        match (from, keyed(&["peer"])) {
            (true, _) => {
                changes.loosened(
                    path,
                    format!("{message}: rules with `from` may apply to other callers"),
                    UNSEEN_IDENTITY,
                );
            }
            (_, true) => {
                changes.loosened(path, format!("{message}: limits by peer count other callers"), UNSEEN_IDENTITY)
            }
            _ if old.1.egress.is_some() || new.1.egress.is_some() || in_settings => changes.changed(path, message),
            _ => {}
        }
    }
    let port = |node: &Node| node.get("egress").and_then(|egress| egress.get("defaultPort")).cloned();
    if let (Some(_), Some(egress)) = (old.0.get("egress"), &new.1.egress)
        && port(old.0) != port(new.0)
    {
        let text = |port: Option<Node>| port.map_or("443 with TLS, else 80".to_owned(), |port| port.to_string());
        let message = format!("an authority without a port has {}, before: {}", text(port(new.0)), text(port(old.0)));
        let sections = old.1.egress.iter().chain([egress]);
        let mut destinations = sections.flat_map(|egress| &egress.rules.0).flat_map(|rule| &rule.to.0);
        match destinations.any(|to| to.ports.is_some()) {
            true => {
                let others = format!("{message}: rules with `ports` apply to other requests");
                changes.loosened("egress.defaultPort", others, Sought::WithoutPort);
                changes
                    .tightened("egress.defaultPort", format!("{message}: rules with `ports` no longer apply to some"));
            }
            false => changes.changed("egress.defaultPort", message),
        }
    }
}

/// The limits that refuse requests.
fn enforced<'n>(node: &'n Node, documents: &Documents) -> Vec<&'n Node> {
    let enforces =
        |name: &str| documents.limits.iter().any(|limit| *limit.name.0 == *name && limit.mode == LimitMode::Enforce);
    named(node, &["rateLimits"]).into_iter().filter(|(name, _)| enforces(name)).map(|(_, node)| node).collect()
}

/// Whether a part of a key, or a condition, has one of these names.
fn mentions(list: Option<&Node>, names: &[&str]) -> bool {
    let Some(Node::List(items)) = list else { return false };
    items.iter().any(|item| names.iter().any(|name| item.get(name).is_some()))
}

/// The default of a setting.
fn default(field: &str) -> Option<Node> {
    let text = match field {
        "sourceAddress" => r#"{"trustedHops":0}"#,
        "identity" => r#"{"peerCertificate":{}}"#,
        "claims" => r#"{"namespace":"envoy.filters.http.jwt_authn","path":["payload"]}"#,
        "path" => r#""Received""#,
        "filterState" | "chained" => "false",
        "routeHeader" => r#""x-penstock-route""#,
        _ => return None,
    };
    Node::from_json(text.as_bytes()).ok()
}

/// Whether two values of a setting mean the same.
fn same(field: &str, a: &Node, b: &Node) -> bool {
    let is_empty = |node: &Node| *node == Node::Map(Vec::new());
    let normal = |node: &Node| if is_empty(node) { default(field).unwrap_or(Node::Null) } else { node.clone() };
    normal(a) == normal(b)
}
