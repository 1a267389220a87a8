//! References between sections of a document: rules of `routes` that name a canary.

use crate::canaries::CanaryDocument;
use crate::document::{At, Context, Node, suggestion};
use crate::module::Module;
use crate::routes::RoutesDocument;
use crate::section::Section;
use crate::trie::{ROOT, Trie};

/// Names with a number each. Uses the trie of the matchers, so that no further hash table is compiled into each module.
#[derive(Debug, Default)]
pub(crate) struct NameNumbers(Trie<u32>);

impl NameNumbers {
    /// Of several equal names the first keeps its number.
    fn of<'n>(names: impl Iterator<Item = (u32, &'n str)>) -> NameNumbers {
        let mut numbers = NameNumbers::default();
        for (number, name) in names {
            if let Some(slot) = numbers.0.slot([name.as_bytes()].into_iter()) {
                slot.exact.get_or_insert(number);
            }
        }
        numbers
    }

    /// The number of a name.
    pub(crate) fn get(&self, name: &str) -> Option<u32> {
        self.0.child(ROOT, name.as_bytes())?.1.exact
    }
}

/// The position of each canary in the document.
pub(crate) fn canaries(documents: &[CanaryDocument]) -> NameNumbers {
    NameNumbers::of((0..).zip(documents.iter().map(|canary| &*canary.name.0)))
}

/// The canaries that rules name, each with the first rule that does.
pub(crate) fn named_by_rules(routes: Option<&RoutesDocument>) -> NameNumbers {
    let rules = (0..).zip(routes.into_iter().flat_map(|routes| &routes.rules.0));
    NameNumbers::of(rules.filter_map(|(number, rule)| Some((number, &*rule.canary.as_ref()?.0))))
}

/// Checks that every canary that a rule names exists and can only be chosen by rules.
pub(crate) fn check(
    module: Module,
    routes: Option<&RoutesDocument>,
    canaries: &[CanaryDocument],
    cx: &mut Context,
) -> bool {
    let Some(routes) = routes else { return true };
    let (known, named) = (self::canaries(canaries), named_by_rules(Some(routes)));
    let root = At::Root;
    let (section, list) = (root.field(Section::Routes.field()), root.field(Section::Canaries.field()));
    let rules = section.field("rules");
    let mut fine = true;
    for (i, rule) in routes.rules.0.iter().enumerate() {
        let Some(name) = &rule.canary else { continue };
        let at = rules.index(i);
        if !module.runs(Section::Canaries) {
            let message = format!("names a canary, and the {} module runs none", module.name());
            cx.problem_at(&at.field("canary"), message, "load the suite, which runs both sections".to_owned());
            fine = false;
        } else if known.get(&name.0).is_none() {
            let names: Vec<&str> = canaries.iter().map(|canary| &*canary.name.0).collect();
            let help = match names.as_slice() {
                [] => "the policy has no `canaries`: add one of this name".to_owned(),
                names => suggestion(&name.0, names),
            };
            let node = Node::String(name.0.to_string());
            cx.problem(&at.field("canary"), &node, "is not the name of a canary", help);
            fine = false;
        }
    }
    for (i, canary) in canaries.iter().enumerate().filter(|(_, canary)| canary.matches.is_some()) {
        let Some(rule) = named.get(&canary.name.0).and_then(|rule| routes.rules.0.get(rule as usize)) else { continue };
        let message =
            format!("has no meaning: the rule `{}` names this canary, so only rules evaluate it", rule.name.0);
        let help = "remove it: the rule's own `matches` define for which requests the canary decides".to_owned();
        cx.problem_at(&list.index(i).field("matches"), message, help);
        fine = false;
    }
    fine
}

#[cfg(test)]
mod tests {
    use crate::module::{HeaderRouting, Suite};
    use crate::{Policy, Runs};
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn problems<M: Runs>(json: &str) -> String {
        Policy::<M>::from_json(json.as_bytes()).map(|_| ()).unwrap_err().to_string()
    }

    const CANARIES: &str = r#""canaries":[{"name":"reviews","variants":[{"name":"v1","weight":1}]}]"#;

    #[test]
    fn a_rule_may_only_name_a_canary_that_is_there() {
        let rule = r#""routes":{"rules":[{"name":"r","canary":"review"}]}"#;
        let found = problems::<Suite>(&format!("{{{rule},{CANARIES}}}"));
        assert!(found.starts_with("routes.rules[0].canary: \"review\": is not the name of a canary"), "{found}");
        assert!(found.ends_with("did you mean `reviews`?"), "{found}");
        let found = problems::<Suite>(&format!("{{{rule}}}"));
        assert!(found.ends_with("the policy has no `canaries`: add one of this name"), "{found}");
    }

    #[test]
    fn a_canary_that_a_rule_names_has_no_matches_of_its_own() {
        let rules = r#""routes":{"rules":[{"name":"a","canary":"reviews"},{"name":"b","canary":"reviews"}]}"#;
        let canaries = CANARIES.replace(r#""variants""#, r#""matches":[{"method":"GET"}],"variants""#);
        let found = problems::<Suite>(&format!("{{{rules},{canaries}}}"));
        assert!(found.starts_with("canaries[0].matches: has no meaning: the rule `a` names this canary"), "{found}");
        assert_eq!(found.lines().count(), 1, "said once: {found}");
    }

    #[test]
    fn a_module_without_canaries_refuses_a_rule_that_names_one() {
        let found = problems::<HeaderRouting>(r#"{"routes":{"rules":[{"name":"r","canary":"reviews"}]}}"#);
        assert!(found.contains("names a canary, and the header-routing module runs none"), "{found}");
    }
}
