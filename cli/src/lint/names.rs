//! Names that metrics cannot tell apart: all but ASCII letters, digits and `-` is written `_` there.

use std::collections::HashMap;

use penstock_policy::document::{At, Node};
use penstock_policy::{Problem, metric_labels, metric_name};

use super::Warnings;

/// A name that metrics have of their own, and what counts under it.
type OwnName = (&'static str, &'static str);

const DEFAULT: OwnName = ("_default", "requests that no rule matched");
const OTHERS: OwnName = ("_others", "rules beyond the first thousand");

/// The warnings for rules, limits, canaries and variants that share their counters, in document order.
pub fn metrics(document: &Node) -> Vec<Problem> {
    let mut warnings = Warnings(Vec::new());
    let root = At::Root;
    for section in ["egress", "rateLimits", "routes", "canaries"] {
        let Some(node) = document.get(section) else { continue };
        let at = root.field(section);
        let own = if section == "routes" { &[DEFAULT, OTHERS][..] } else { &[OTHERS] };
        match node {
            Node::List(entries) => {
                list(entries, &at, "rule", own, &mut warnings);
                for (i, canary) in entries.iter().enumerate() {
                    if let Some(Node::List(variants)) = canary.get("variants") {
                        list(variants, &at.index(i).field("variants"), "variant", &[], &mut warnings);
                    }
                }
            }
            _ => {
                if let Some(Node::List(rules)) = node.get("rules") {
                    list(rules, &at.field("rules"), "rule", own, &mut warnings);
                }
            }
        }
    }
    warnings.0
}

fn list(entries: &[Node], at: &At<'_>, label: &str, own: &[OwnName], warnings: &mut Warnings) {
    let mut first = HashMap::<String, &str>::new();
    for (i, entry) in entries.iter().enumerate() {
        let Some(Node::String(name)) = entry.get("name") else { continue };
        let written = written(name);
        let help = |written: &str| format!("rename one: metrics write both as `{written}`");
        let here = at.index(i);
        if let Some((own, what)) = own.iter().find(|(own, _)| *own == written) {
            let message = format!("shares its metrics with those of {what}");
            warnings.push(
                &here.field("name"),
                message,
                format!("choose another name: metrics use `{own}` for something else"),
            );
        } else if let Some(other) = first.get(&written).filter(|other| *other != name) {
            let message = format!("shares its metrics with the {label} `{other}`");
            warnings.push(&here.field("name"), message, help(&written));
        } else {
            first.insert(written, name);
        }
    }
}

/// A name as metrics have it.
fn written(name: &str) -> String {
    let metric = metric_name("x", &[("rule", name)]);
    let labels = metric_labels(&metric).and_then(|(_, mut labels)| labels.next());
    labels.map_or_else(String::new, |(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str) -> Vec<String> {
        let node = Node::from_json(json.as_bytes()).unwrap();
        metrics(&node).iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn names_that_metrics_write_alike_are_a_warning_each() {
        assert_eq!(
            found(
                r#"{"egress":{"rules":[{"name":"hr.salaries"},{"name":"hr-salaries"},{"name":"hr_salaries"},{"name":"hr salaries"}]},
                "rateLimits":[{"name":"é"},{"name":"ü"},{"name":"a"}],
                "routes":{"rules":[{"name":"hr.salaries"},{"name":"_default"},{"name":".others"}]},
                "canaries":[{"name":"c","variants":[{"name":"v.1"},{"name":"v_1"}]},{"name":"d","variants":[{"name":"v_1"}]}]}"#
            ),
            [
                "egress.rules[2].name: shares its metrics with the rule `hr.salaries`",
                "egress.rules[3].name: shares its metrics with the rule `hr.salaries`",
                "rateLimits[1].name: shares its metrics with the rule `é`",
                "routes.rules[1].name: shares its metrics with those of requests that no rule matched",
                "routes.rules[2].name: shares its metrics with those of rules beyond the first thousand",
                "canaries[0].variants[1].name: shares its metrics with the variant `v.1`",
            ]
        );
    }

    #[test]
    fn names_of_different_sections_or_of_one_that_is_there_twice_are_not() {
        // What is there twice is an error.
        let twice =
            r#"{"egress":{"rules":[{"name":"a.b"},{"name":"a.b"}]},"rateLimits":[{"name":"a_b"},{"name":"_default"}]}"#;
        assert_eq!(found(twice), [] as [&str; 0]);
    }
}
