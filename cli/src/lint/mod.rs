//! Warnings for policies that are valid but probably not intended. They need the clock or the Public Suffix List, which
//! the modules do not contain.

mod earlier;
mod effort;
mod names;
mod routes;
mod shadow;

use penstock_policy::document::{At, Context, Decode, Node};
use penstock_policy::egress::{Destination, DestinationTarget, EgressDocument, EgressHost, EgressRuleDocument};
use penstock_policy::{Problem, Timestamp};

use crate::cover::destination_covers;
use effort::Effort;
use shadow::{ByDestination, Wider};

pub use names::metrics;
pub use routes::{missing, routing};

/// Notes on a policy with sections for two places.
pub fn two_places(document: &Node) -> Vec<Problem> {
    let inbound: Vec<String> = ["rateLimits", "routes", "canaries"]
        .into_iter()
        .filter(|section| document.get(section).is_some())
        .map(|section| format!("`{section}`"))
        .collect();
    if document.get("egress").is_none() || inbound.is_empty() {
        return Vec::new();
    }
    vec![Problem {
        path: "egress".to_owned(),
        value: None,
        message: format!("runs where requests leave, {} where they come in", words(&inbound)),
        help: Some(
            "`penstock render` makes a plugin for each place, and `penstock explain` shows each; a plugin with all sections \
             refuses every incoming request for a host that no egress rule allows"
                .to_owned(),
        ),
    }]
}

/// Returns `a, b and c`.
fn words(list: &[String]) -> String {
    match list.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => list.concat(),
    }
}

/// The warnings for the document's `egress`, in document order.
pub fn egress(document: &Node, now: Timestamp) -> Vec<Problem> {
    let mut cx = Context::new(String::new(), usize::MAX);
    let root = At::Root;
    let at = root.field("egress");
    let Some(egress) = document.get("egress").and_then(|node| EgressDocument::decode(node, &at, &mut cx)) else {
        return Vec::new();
    };
    let rules = &egress.rules.0;
    let rules_at = at.field("rules");
    let wider = Wider::new(rules);
    let denied = ByDestination::new(egress.deny.iter());
    let mut effort = Effort::default();
    let mut warnings = Warnings(Vec::new());
    for (i, rule) in rules.iter().enumerate() {
        let here = rules_at.index(i);
        about_time(rule, &here, now, &mut warnings);
        about_tunnels(rule, &here, &mut warnings);
        let to_at = here.field("to");
        for (k, to) in rule.to.0.iter().enumerate() {
            let place = to_at.index(k);
            about_destination(to, &place, &mut warnings);
            let mut denies = denied.candidates(to).into_iter().flatten().filter_map(|at| egress.deny.get(*at));
            if denies.any(|deny| effort.spend(1) && destination_covers(deny, to)) {
                let help = "remove it from one of the two lists: `deny` takes precedence".to_owned();
                warnings.push(&place, "is allowed here and denied in `deny`", help);
            }
        }
        if let Some(by) = wider.of(i, &mut effort) {
            let help = "the other rule allows everything that this one allows: remove this one, or narrow the other"
                .to_owned();
            warnings.push(&here, format!("is shadowed by the wider rule `{}`", by.name.0), help);
        }
    }
    if effort.is_spent() {
        warnings.push(&rules_at, effort::SPENT, effort::HELP.to_owned());
    }
    warnings.0
}

struct Warnings(Vec<Problem>);

impl Warnings {
    fn push(&mut self, at: &At<'_>, message: impl Into<String>, help: String) {
        let (path, message) = (at.to_string(), message.into());
        self.0.push(Problem { path, value: None, message, help: Some(help) });
    }
}

fn about_time(rule: &EgressRuleDocument, at: &At<'_>, now: Timestamp, warnings: &mut Warnings) {
    let Some(end) = rule.expires else { return };
    if end <= now {
        let help = "renew it, or remove it".to_owned();
        warnings.push(&at.field("expires"), "has passed: the rule no longer allows anything", help);
    }
    if rule.owner.is_none() || rule.reason.is_none() {
        let missing = match (&rule.owner, &rule.reason) {
            (None, None) => "owner or reason",
            (None, _) => "owner",
            _ => "reason",
        };
        let help =
            "give the owner and the reason of the rule, so that somebody can decide whether to renew it".to_owned();
        warnings.push(&at.field("expires"), format!("is set, but the rule has no {missing}"), help);
    }
}

fn about_tunnels(rule: &EgressRuleDocument, at: &At<'_>, warnings: &mut Warnings) {
    let lists_connect = rule.methods.as_ref().map(|methods| methods.0.iter().any(|method| &*method.0 == "CONNECT"));
    if rule.connect && lists_connect == Some(false) {
        let help = "add CONNECT to `methods`, or leave `connect` out".to_owned();
        warnings.push(&at.field("connect"), "has no effect: `methods` does not list CONNECT", help);
    }
    if !rule.connect && lists_connect == Some(true) {
        let help = "add connect: true, or leave CONNECT out".to_owned();
        warnings.push(&at.field("methods"), "lists CONNECT, which needs `connect: true` as well", help);
    }
    if rule.connect && rule.paths.is_some() {
        let help = "give tunnels a rule of their own".to_owned();
        warnings.push(&at.field("connect"), "has no effect: a tunnel has no path, and the rule has `paths`", help);
    }
}

fn about_destination(to: &Destination, at: &At<'_>, warnings: &mut Warnings) {
    match &to.target {
        DestinationTarget::Host(EgressHost(host)) if host.wildcard => {
            let name = host.name.as_bytes();
            let Some(suffix) = psl::suffix(name).filter(|suffix| suffix.as_bytes() == name && suffix.is_known()) else {
                return;
            };
            let message = match suffix.typ() {
                Some(psl::Type::Private) => "is a wildcard over a suffix that many tenants share",
                _ => "is a wildcard over a public suffix",
            };
            let help = format!("anybody can register a name below {}: list the ones that you mean", host.name);
            warnings.push(&at.field("host"), message, help);
        }
        DestinationTarget::Cidr(range) if range.length == 0 => {
            let help = "list the ranges that you mean".to_owned();
            warnings.push(&at.field("cidr"), "covers every address", help);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lint(rules: &str) -> Vec<String> {
        lint_all(&format!(r#"{{"egress":{{"rules":[{rules}]}}}}"#))
    }

    fn lint_all(json: &str) -> Vec<String> {
        let now = Timestamp::parse("2026-06-01T00:00:00Z").unwrap();
        let node = Node::from_json(json.as_bytes()).unwrap();
        egress(&node, now).iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn a_sound_policy_has_no_warnings() {
        assert_eq!(
            lint(
                r#"{"name":"a","owner":"o","reason":"r","to":[{"host":"*.example.com"}],"expires":"2027-01-01T00:00:00Z"},
                {"name":"b","to":[{"host":"example.com"},{"cidr":"203.0.113.0/24"}],"methods":["CONNECT"],"connect":true}"#
            ),
            [] as [&str; 0]
        );
    }

    #[test]
    fn the_contracts_load_cases_warn_as_they_say() {
        for line in include_str!("../../../filters/policy/tests/contract/load-cases.jsonl").lines() {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            if case["expect"]["valid"] == true {
                assert_eq!(!lint_all(&case["policy"].to_string()).is_empty(), case["expect"]["warns"], "{line}");
            }
        }
    }

    #[test]
    fn expiry_wants_an_owner_and_a_future() {
        assert_eq!(
            lint(r#"{"name":"a","owner":"o","to":[{"host":"a.test"}],"expires":"2026-06-01T00:00:00Z"}"#),
            [
                "egress.rules[0].expires: has passed: the rule no longer allows anything",
                "egress.rules[0].expires: is set, but the rule has no reason",
            ]
        );
    }

    #[test]
    fn a_wildcard_over_a_public_suffix_is_a_warning() {
        for (host, expected) in [
            ("*.co.uk", "is a wildcard over a public suffix"),
            ("*.github.io", "is a wildcard over a suffix that many tenants share"),
            ("*.s3.amazonaws.com", "is a wildcard over a suffix that many tenants share"),
        ] {
            assert_eq!(
                lint(&format!(r#"{{"name":"a","to":[{{"host":"{host}"}}]}}"#)),
                [format!("egress.rules[0].to[0].host: {expected}")]
            );
        }
        for host in ["*.example.co.uk", "me.github.io", "*.svc.cluster.local"] {
            assert_eq!(lint(&format!(r#"{{"name":"a","to":[{{"host":"{host}"}}]}}"#)), [] as [&str; 0], "{host}");
        }
        assert_eq!(
            lint(r#"{"name":"a","to":[{"cidr":"0.0.0.0/0"}]}"#),
            ["egress.rules[0].to[0].cidr: covers every address"]
        );
    }

    #[test]
    fn a_rule_is_shadowed_when_another_allows_all_that_it_does() {
        let wide = r#"{"name":"wide","to":[{"host":"*.example.com"},{"cidr":"10.0.0.0/8","ports":[443]}]}"#;
        for (narrow, shadowed) in [
            (r#""to":[{"host":"a.example.com"}]"#, true),
            (r#""to":[{"host":"*.a.example.com","ports":[443]}],"methods":["GET"],"from":["spiffe://c/ns/a"]"#, true),
            (r#""to":[{"cidr":"10.1.0.0/16","ports":[443]}]"#, true),
            (r#""to":[{"host":"example.com"}]"#, false),
            (r#""to":[{"host":"a.example.com"},{"host":"a.test"}]"#, false),
            (r#""to":[{"cidr":"10.1.0.0/16"}]"#, false),
            (r#""to":[{"cidr":"11.1.0.0/16","ports":[443]}]"#, false),
            (r#""to":[{"host":"a.example.com"}],"connect":true"#, false),
            (r#""to":[{"host":"a.example.com"}],"upgrades":["websocket"]"#, false),
        ] {
            for rules in [format!(r#"{wide},{{"name":"n",{narrow}}}"#), format!(r#"{{"name":"n",{narrow}}},{wide}"#)] {
                let found =
                    lint(&rules).iter().any(|warning| warning.ends_with("is shadowed by the wider rule `wide`"));
                assert_eq!(found, shadowed, "{rules}");
            }
        }
        let twice = r#"{"name":"one","to":[{"host":"a.test"}]},{"name":"two","to":[{"host":"a.test"}]}"#;
        assert_eq!(lint(twice), ["egress.rules[1]: is shadowed by the wider rule `one`"]);
        let timed = r#"{"name":"one","to":[{"host":"a.test"}],"notBefore":"2026-01-01T00:00:00Z"},{"name":"two","to":[{"host":"a.test"}]}"#;
        assert_eq!(lint(timed), ["egress.rules[0]: is shadowed by the wider rule `two`"]);
    }

    #[test]
    fn allowed_and_denied_at_once_is_a_warning() {
        assert_eq!(
            lint_all(
                r#"{"egress":{"deny":[{"host":"*.ads.test"}],"rules":[{"name":"a","to":[{"host":"x.ads.test"},{"host":"*.test.test"}]}]}}"#
            ),
            ["egress.rules[0].to[0]: is allowed here and denied in `deny`"]
        );
    }

    #[test]
    fn tunnels_that_never_open_are_a_warning() {
        assert_eq!(
            lint(r#"{"name":"a","to":[{"host":"a.test"}],"methods":["GET"],"connect":true,"paths":[{"value":"/"}]}"#)
                .len(),
            2
        );
        assert_eq!(lint(r#"{"name":"a","to":[{"host":"a.test"}],"methods":["CONNECT"]}"#).len(), 1);
    }
}
