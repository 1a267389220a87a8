//! Names of Kubernetes objects for routes: a route's name may be any text, an object's is a DNS label.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};

/// The longest DNS label.
const LONGEST: usize = 63;

/// A different valid name for each route.
pub(super) struct ObjectNames(HashMap<String, String>);

impl ObjectNames {
    /// Names the routes. A name that needs no change stays; of others, those that are too long, `taken`, or like another
    /// after the change end with a hash of the route.
    pub(super) fn new<'r>(routes: impl Iterator<Item = &'r str> + Clone, taken: &[&str]) -> ObjectNames {
        let mut taken: HashSet<String> = taken.iter().map(|&name| name.to_owned()).collect();
        let mut names = HashMap::new();
        let mut likes: HashMap<String, usize> = HashMap::new();
        let mut changed = Vec::new();
        for route in routes {
            let label = label(route);
            *likes.entry(label.clone()).or_default() += 1;
            if label == route && label.len() <= LONGEST && taken.insert(label.clone()) {
                names.insert(route.to_owned(), label);
            } else {
                changed.push((route, label));
            }
        }
        for (route, label) in changed {
            let is_free = label.len() <= LONGEST && likes.get(&label) == Some(&1) && taken.insert(label.clone());
            let name = if is_free { label } else { with_hash(&label, route, &mut taken) };
            names.insert(route.to_owned(), name);
        }
        ObjectNames(names)
    }

    /// The name for a route.
    pub(super) fn of(&self, route: &str) -> String {
        self.0.get(route).cloned().unwrap_or_else(|| label(route))
    }
}

/// The start of `label` with as many digits of the route's hash as make it differ from every name that is `taken`.
fn with_hash(label: &str, route: &str, taken: &mut HashSet<String>) -> String {
    let hash: String = Sha256::digest(route).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut name = String::new();
    for digits in [8, 16, 32] {
        let start: String = label.chars().take(LONGEST - 1 - digits).collect();
        name = format!("{}-{}", start.trim_end_matches('-'), hash.get(..digits).unwrap_or(&hash));
        if taken.insert(name.clone()) {
            break;
        }
    }
    name
}

/// The route's name in lowercase letters, digits and `-`, with a letter first as the names of Services have (RFC 1035),
/// of any length.
fn label(route: &str) -> String {
    let name: String =
        route.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    match name.trim_matches('-') {
        "" => "route".to_owned(),
        name if name.starts_with(|c: char| c.is_ascii_digit()) => format!("route-{name}"),
        name => name.to_owned(),
    }
}

/// A DNS label with a maximum length (RFC 1123), which Kubernetes requires for names.
pub(super) fn dns_label(text: &str, longest: usize) -> Result<String, String> {
    if text.len() > longest {
        return Err(format!("it has {} characters; write at most {longest}", text.len()));
    }
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let has_ends = text.bytes().next().is_some_and(plain) && text.bytes().last().is_some_and(plain);
    let is_label = has_ends && text.bytes().all(|b| plain(b) || b == b'-');
    is_label.then(|| text.to_owned()).ok_or_else(|| {
        "write lowercase letters, digits and `-`, with a letter or digit at both ends, as Kubernetes does".to_owned()
    })
}

/// `name`, or with a number behind it the first that is not `taken`.
pub(super) fn free(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_label(name: &str) -> bool {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        name.len() <= LONGEST
            && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
            && name.bytes().last().is_some_and(plain)
            && name.bytes().all(|b| plain(b) || b == b'-')
    }

    #[test]
    fn a_name_changes_only_where_it_must() {
        let long = "a".repeat(70);
        let routes = ["shop", "Shop", "beta.v2", "404", "!!", "default-route", &long, &format!("{long}b")];
        let names = ObjectNames::new(routes.into_iter(), &["default-route"]);
        let name = |route: &str| names.of(route);
        assert_eq!((name("shop"), name("beta.v2"), name("404")), ("shop".into(), "beta-v2".into(), "route-404".into()));
        assert_eq!(name("!!"), "route");
        assert!(name("Shop").starts_with("shop-") && name("default-route").starts_with("default-route-"));
        assert_eq!((name(&long).len(), name(&long)[..54].to_owned()), (63, "a".repeat(54)));
        // The other routes of the policy and their order do not change a name.
        let alone = ObjectNames::new([long.as_str()].into_iter(), &[]);
        assert_eq!(alone.of(&long), name(&long));
    }

    proptest! {
        #[test]
        fn every_route_has_a_valid_name_of_its_own(
            routes in prop::collection::hash_set("([aA.-]{1,3}|[a-c]{60,70}|[!-~]{1,80}|default-route|route)", 1..30)
        ) {
            let names = ObjectNames::new(routes.iter().map(String::as_str), &["default-route"]);
            let all: HashSet<String> = routes.iter().map(|route| names.of(route)).collect();
            prop_assert_eq!(all.len(), routes.len());
            prop_assert!(all.iter().all(|name| is_label(name)), "{all:?}");
            prop_assert!(!all.contains("default-route"));
        }
    }
}
