//! `rewrite-target`: supports the forms that replace a prefix, or a whole path.

use penstock_policy::document::Node;

use crate::import::matching::{Match, PathSet, any_case};
use crate::import::objects::{map, text};
use crate::import::report::ImportReport;
use crate::import::table::{ImportedRule, RuleAction};

/// The rules for a location whose path is rewritten.
pub fn rules(rule: ImportedRule, path: &str, target: &str, report: &mut ImportReport) -> Vec<ImportedRule> {
    let is_literal = |text: &str| text.starts_with('/') && !text.contains(|c: char| "\\.+*?()|[]{}^$".contains(c));
    let node = |kind: &str, value: &str| {
        let path = map([("type", text(kind)), ("value", text(value))]);
        let mut rewrite = vec![("path", path)];
        if let Some((_, Node::Map(own))) = rule.effects.first() {
            rewrite.extend(own.iter().filter(|(key, _)| key == "hostname").map(|(_, host)| ("hostname", host.clone())));
        }
        vec![("rewrite", map(rewrite))]
    };
    if !target.contains('$') {
        return vec![ImportedRule { effects: node("ReplaceFullPath", target), ..rule.clone() }];
    }
    let leave = |path: PathSet, why: &str| ImportedRule {
        matches: vec![Match::path(path)],
        action: RuleAction::Leave(why.to_owned()),
        effects: Vec::new(),
        ..rule.clone()
    };
    let other_case = "the source ignores the case of this path; a policy's prefix does not";
    // Recognizes `/x(/|$)(.*)` with `/y/$2`, and `/x/(.*)` with `/y/$1`.
    let both = path.strip_suffix("(/|$)(.*)").zip(target.strip_suffix("/$2"));
    let below = path.strip_suffix("/(.*)").zip(target.strip_suffix("/$1"));
    if let Some((prefix, front)) =
        both.or(below).filter(|(prefix, front)| is_literal(prefix) && (front.is_empty() || is_literal(front)))
    {
        let front = if front.is_empty() { "/" } else { front };
        let change = ImportedRule {
            matches: vec![Match::path(PathSet::segments(prefix))],
            effects: node("ReplacePrefixMatch", front),
            ..rule.clone()
        };
        report.lost(
            "metadata.annotations.nginx.ingress.kubernetes.io/rewrite-target",
            format!("{prefix} in other case, such as {}", prefix.to_uppercase()),
            "such requests are left to the platform",
        );
        let rest = leave(any_case(prefix, if both.is_some() { "(/.*)?" } else { "/.*" }), other_case);
        return match both {
            Some(_) => vec![change, rest],
            None => vec![
                leave(PathSet::Exact(prefix.to_owned()), "the source does not rewrite this path itself"),
                change,
                rest,
            ],
        };
    }
    let why = format!("rewrite-target {target} for {path}: a policy changes a prefix or a whole path");
    report.lost(
        "metadata.annotations.nginx.ingress.kubernetes.io/rewrite-target",
        why.clone(),
        "its requests are left to the platform",
    );
    vec![ImportedRule { action: RuleAction::Leave(why), effects: Vec::new(), ..rule }]
}
