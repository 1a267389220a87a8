//! Coverage: decides whether one part of a policy includes everything that another part does. When unsure, the answer
//! is no.

use penstock_policy::document::NonEmpty;
use penstock_policy::egress::{CallerPattern, Destination, DestinationTarget, EgressHost, EgressRuleDocument};
use penstock_policy::matching::{Condition, HostSet, PathMatch, RequestMatch, TextMatch};

use crate::automata;

/// Whether `wide` includes every host of `narrow`.
pub fn host_covers(wide: &EgressHost, narrow: &EgressHost) -> bool {
    let (wide, narrow) = (&wide.0, &narrow.0);
    wide == narrow
        || (wide.wildcard && (wide.matches(narrow.name.as_bytes()) || (narrow.wildcard && wide.name == narrow.name)))
}

/// Whether `wide` includes every destination of `narrow`.
pub fn target_covers(wide: &DestinationTarget, narrow: &DestinationTarget) -> bool {
    match (wide, narrow) {
        (DestinationTarget::Host(wide), DestinationTarget::Host(narrow)) => host_covers(wide, narrow),
        (DestinationTarget::Cidr(wide), DestinationTarget::Cidr(narrow)) => wide.covers(narrow),
        _ => false,
    }
}

/// Whether the wide list covers every item of the narrow one. An absent list includes everything.
pub fn list_covers<T, U>(wide: Option<&[T]>, narrow: Option<&[U]>, covers: impl Fn(&T, &U) -> bool) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => uncovered(wide, narrow, covers).next().is_none(),
    }
}

/// The items of `narrow` that no item of `wide` covers. Lists of two versions of a policy are mostly in the same order,
/// so each search starts where the last one ended.
pub fn uncovered<'n, T, U>(
    wide: &[T],
    narrow: &'n [U],
    covers: impl Fn(&T, &U) -> bool,
) -> impl Iterator<Item = &'n U> {
    let mut start = 0;
    narrow.iter().filter(move |n| {
        let (before, from_here) = wide.split_at_checked(start).unwrap_or((&[], wide));
        let found = from_here.iter().chain(before).position(|w| covers(w, n));
        if let Some(at) = found {
            start = (start + at + 1) % wide.len().max(1);
        }
        found.is_none()
    })
}

/// Whether `wide` includes every host or address and port of `narrow`.
pub fn destination_covers(wide: &Destination, narrow: &Destination) -> bool {
    target_covers(&wide.target, &narrow.target) && list_covers(items(&wide.ports), items(&narrow.ports), |a, b| a == b)
}

/// Whether `wide` includes every path of `narrow`, in any form. The answer may be a false no when an expression is too
/// large to compare.
pub fn path_covers(wide: &PathMatch, narrow: &PathMatch) -> bool {
    match (wide, narrow) {
        (PathMatch::Exact(a), PathMatch::Exact(b)) => a == b,
        (PathMatch::Prefix(_), PathMatch::Exact(path)) => wide.matches(path),
        (PathMatch::Prefix(a), PathMatch::Prefix(b)) => a == b || wide.matches(b),
        (PathMatch::Regex(a), PathMatch::Regex(b)) if a.pattern() == b.pattern() => true,
        (PathMatch::Regex(_), PathMatch::Exact(path)) => wide.matches(path),
        (_, PathMatch::Regex(_)) => automata::path_covers(wide, narrow),
        _ => false,
    }
}

/// Whether `wide` includes every caller of `narrow`.
pub fn caller_covers(wide: &CallerPattern, narrow: &CallerPattern) -> bool {
    wide == narrow || wide.covers(narrow.as_str().as_bytes())
}

/// The items of a list that may be absent.
pub fn items<T>(list: &Option<NonEmpty<T>>) -> Option<&[T]> {
    list.as_ref().map(|list| list.0.as_slice())
}

/// Whether `wide` selects every request that `narrow` selects: by destination, caller, time and method. A rule with
/// `paths` makes the requests that it selects path-scoped.
pub fn selection_covers(wide: &EgressRuleDocument, narrow: &EgressRuleDocument) -> bool {
    list_covers(Some(&wide.to.0), Some(&narrow.to.0), destination_covers)
        && list_covers(items(&wide.from), items(&narrow.from), caller_covers)
        && list_covers(items(&wide.methods), items(&narrow.methods), |a, b| a == b)
        && wide.not_before.is_none_or(|start| narrow.not_before.is_some_and(|n| start <= n))
        && wide.expires.is_none_or(|end| narrow.expires.is_some_and(|n| n <= end))
}

/// Whether `wide` allows every request that `narrow` allows. Several rules together never cover another rule: a request
/// may name a second method in a header, or several protocols in `upgrade`, and one rule must list all of them.
pub fn rule_covers(wide: &EgressRuleDocument, narrow: &EgressRuleDocument) -> bool {
    selection_covers(wide, narrow)
        && list_covers(items(&wide.paths), items(&narrow.paths), |a, b| path_covers(&a.0, &b.0))
        && (wide.connect || !narrow.connect)
        && list_covers(Some(&wide.upgrades), Some(&narrow.upgrades), |a, b| a == b)
}

/// Whether `wide` is true for every request for which `narrow` is; an absent match is always true.
pub fn matches_cover(wide: Option<&[RequestMatch]>, narrow: Option<&[RequestMatch]>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(wide), None) => wide.iter().any(RequestMatch::is_unconditional),
        (Some(wide), Some(narrow)) => list_covers(Some(wide), Some(narrow), entry_covers),
    }
}

/// Whether each condition of `wide` follows from a condition of `narrow`.
pub fn entry_covers(wide: &RequestMatch, narrow: &RequestMatch) -> bool {
    // Destructured without `..`, so that a new kind of condition cannot be forgotten.
    let RequestMatch { method, hostnames: _, path, headers, query_params, cookies, facts } = wide;
    let patterns = |entry: &'_ RequestMatch| entry.hostnames.as_ref().map(HostSet::patterns).map(<[_]>::to_vec);
    let conditions = |wide: &[Condition], narrow: &[Condition]| {
        wide.iter().all(|wide| narrow.iter().any(|narrow| condition_follows(wide, narrow)))
    };
    (method.is_none() || *method == narrow.method)
        && list_covers(patterns(wide).as_deref(), patterns(narrow).as_deref(), |a, b| {
            host_covers(&EgressHost(a.clone()), &EgressHost(b.clone()))
        })
        && match (path, &narrow.path) {
            (None, _) => true,
            (Some(wide), Some(narrow)) => path_covers(wide, narrow),
            (Some(_), None) => false,
        }
        && conditions(headers, &narrow.headers)
        && conditions(query_params, &narrow.query_params)
        && conditions(cookies, &narrow.cookies)
        && conditions(facts, &narrow.facts)
}

/// Whether `wide` is true wherever `narrow` is.
fn condition_follows(wide: &Condition, narrow: &Condition) -> bool {
    if wide.name != narrow.name || wide.invert != narrow.invert {
        return false;
    }
    if wide.invert { text_covers(&narrow.text, &wide.text) } else { text_covers(&wide.text, &narrow.text) }
}

fn text_covers(wide: &TextMatch, narrow: &TextMatch) -> bool {
    match (wide, narrow) {
        (TextMatch::Present, _) => true,
        (TextMatch::In(wide), TextMatch::In(narrow)) => narrow.is_subset(wide),
        (wide, TextMatch::In(values)) => values.iter().all(|value| wide.matches(value)),
        (wide, TextMatch::Exact(value)) => wide.matches(value),
        (TextMatch::Prefix(wide), TextMatch::Prefix(narrow)) => narrow.starts_with(wide),
        (TextMatch::Suffix(wide), TextMatch::Suffix(narrow)) => narrow.ends_with(wide),
        (TextMatch::Contains(wide), TextMatch::Contains(narrow)) => wide.is_in(narrow.needle()),
        (TextMatch::Contains(wide), TextMatch::Prefix(narrow) | TextMatch::Suffix(narrow)) => wide.is_in(narrow),
        (TextMatch::Regex(a), TextMatch::Regex(b)) if a.pattern() == b.pattern() => true,
        (wide, narrow @ TextMatch::Regex(_)) => automata::text_covers(wide, narrow),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_policy::document::{At, Context, Decode, Node};

    #[test]
    fn what_is_not_covered_is_found_in_whatever_order_the_lists_are() {
        let equal = |a: &u32, b: &u32| a == b;
        for (wide, narrow, expected) in [
            (&[1, 2, 3][..], &[1, 2, 3][..], &[][..]),
            (&[3, 1, 2], &[1, 2, 3], &[]),
            (&[3, 1, 2], &[2, 2, 4, 1, 1, 5], &[4, 5]),
            (&[], &[1, 2], &[1, 2]),
            (&[1], &[], &[]),
        ] {
            assert_eq!(uncovered(wide, narrow, equal).copied().collect::<Vec<_>>(), expected, "{wide:?} {narrow:?}");
        }
    }

    fn entries(json: &str) -> Vec<RequestMatch> {
        let node = Node::from_json(json.as_bytes()).unwrap();
        NonEmpty::<RequestMatch>::decode(&node, &At::Root, &mut Context::new(String::new(), 1 << 20)).unwrap().0
    }

    #[test]
    fn a_match_covers_what_has_more_conditions_or_fewer_values() {
        for (wide, narrow, forth, back) in [
            (r#"[{"method":"GET"}]"#, r#"[{"method":"GET","path":{"value":"/a"}}]"#, true, false),
            (r#"[{"path":{"value":"/a"}}]"#, r#"[{"path":{"value":"/a/b"}}]"#, true, false),
            (r#"[{"hostnames":["*.a.test"]}]"#, r#"[{"hostnames":["b.a.test"]}]"#, true, false),
            (
                r#"[{"headers":[{"name":"x","type":"Present"}]}]"#,
                r#"[{"headers":[{"name":"x","value":"1"}]}]"#,
                true,
                false,
            ),
            (
                r#"[{"headers":[{"name":"x","type":"In","values":["1","2"]}]}]"#,
                r#"[{"headers":[{"name":"x","value":"1"}]}]"#,
                true,
                false,
            ),
            // `invert` reverses the direction.
            (
                r#"[{"headers":[{"name":"x","type":"In","values":["1","2"],"invert":true}]}]"#,
                r#"[{"headers":[{"name":"x","value":"1","invert":true}]}]"#,
                false,
                true,
            ),
            (r#"[{"method":"GET"},{"method":"PUT"}]"#, r#"[{"method":"PUT"}]"#, true, false),
            (r#"[{"method":"GET"}]"#, r#"[{"method":"PUT"}]"#, false, false),
            (
                r#"[{"path":{"type":"RegularExpression","value":"/a.*"}}]"#,
                r#"[{"path":{"type":"RegularExpression","value":"/a.*"},"method":"GET"}]"#,
                true,
                false,
            ),
        ] {
            let (wide, narrow) = (entries(wide), entries(narrow));
            assert_eq!(
                (matches_cover(Some(&wide), Some(&narrow)), matches_cover(Some(&narrow), Some(&wide))),
                (forth, back)
            );
            assert!(matches_cover(None, Some(&wide)) && !matches_cover(Some(&wide), None));
        }
    }
}
