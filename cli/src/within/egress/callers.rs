//! Selects a few callers that represent all of them: one of each set of identities that the same patterns cover.

use penstock_policy::egress::{CallerPattern, EgressRuleDocument};

/// The maximum number of identities that are tried for one pattern.
const MOST: usize = 4096;

/// Identities that represent all that `from` covers: each covered identity is covered by the same patterns of `rules`
/// as one of these. `None` is a caller without an identity. The flag says whether there were too many to list.
pub fn representatives(from: Option<&[CallerPattern]>, rules: &[&EgressRuleDocument]) -> (Vec<Option<String>>, bool) {
    let patterns: Vec<&CallerPattern> =
        rules.iter().filter_map(|rule| rule.from.as_ref()).flat_map(|from| &from.0).collect();
    let mut found = Vec::new();
    let mut cut = false;
    let mut add = |pattern: &CallerPattern, found: &mut Vec<Option<String>>| {
        cut |= !expand(pattern, &patterns, found);
    };
    match from {
        Some(from) => from.iter().for_each(|pattern| add(pattern, &mut found)),
        None => {
            found.push(None);
            patterns.iter().for_each(|pattern| add(pattern, &mut found));
        }
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|caller| seen.insert(caller.clone()));
    (found, cut)
}

/// Adds the identities of `pattern`: replaces each wildcard by every literal that a similar pattern has in its place,
/// and by a segment that no pattern has. Returns `false` when some were left out.
fn expand(pattern: &CallerPattern, patterns: &[&CallerPattern], found: &mut Vec<Option<String>>) -> bool {
    if !pattern.has_star() {
        found.push(Some(pattern.as_str().to_owned()));
        return true;
    }
    let segments = |text: &'_ str| text.split('/').map(str::to_owned).collect::<Vec<String>>();
    let mine = segments(pattern.as_str());
    let similar: Vec<Vec<String>> = patterns
        .iter()
        .map(|other| segments(other.as_str()))
        .filter(|other| {
            other.len() == mine.len() && other.iter().zip(&mine).all(|(a, b)| a == "*" || b == "*" || a == b)
        })
        .collect();
    let mut texts = vec![String::new()];
    let mut complete = true;
    for (place, segment) in mine.iter().enumerate() {
        let mut choices: Vec<String> = Vec::new();
        if segment == "*" {
            choices = similar.iter().filter_map(|other| other.get(place)).filter(|s| *s != "*").cloned().collect();
            choices.sort_unstable();
            choices.dedup();
            let fresh = (0..).map(|n| if n == 0 { "any".to_owned() } else { format!("any{n}") });
            choices.extend(fresh.take(choices.len() + 1).find(|segment| !choices.contains(segment)));
        } else {
            choices.push(segment.clone());
        }
        if texts.len().saturating_mul(choices.len()) > MOST {
            complete = false;
            choices.truncate((MOST / texts.len()).max(1));
        }
        let slash = if place == 0 { "" } else { "/" };
        texts =
            texts.iter().flat_map(|text| choices.iter().map(move |choice| format!("{text}{slash}{choice}"))).collect();
    }
    found.extend(texts.into_iter().map(Some));
    complete
}
