//! Names for the destinations of routes: two destinations never share a name.

use std::collections::{BTreeMap, HashMap, HashSet};

/// The `detail` with which a name contains everything about a destination.
const MOST_DETAIL: usize = 2;

/// A destination as its source describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImportedDestination {
    /// The name of a Service, or a host.
    pub name: String,
    /// The namespace of a Service.
    pub namespace: Option<String>,
    /// A subset of a DestinationRule.
    pub subset: Option<String>,
    /// The port: a number or a name.
    pub port: Option<String>,
}

impl std::fmt::Display for ImportedDestination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        for (what, value) in [("namespace", &self.namespace), ("subset", &self.subset), ("port", &self.port)] {
            if let Some(value) = value {
                write!(f, " {what} {value}")?;
            }
        }
        Ok(())
    }
}

impl ImportedDestination {
    /// A name for its route. It contains more with a higher `detail`, up to [`MOST_DETAIL`].
    fn route(&self, detail: usize) -> String {
        let short = self.name.split('.').next().unwrap_or(&self.name);
        let long = self.name.strip_suffix(".svc.cluster.local").unwrap_or(&self.name);
        let mut parts = vec![if detail == 0 { short } else { long }];
        parts.extend(self.subset.as_deref());
        if detail > 0 {
            parts.extend(self.namespace.as_deref());
        }
        if detail > 1 {
            parts.extend(self.port.as_deref());
        }
        let clean = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' };
        let name: String = parts.join("-").chars().map(clean).collect();
        if name.is_empty() { "route".to_owned() } else { name }
    }
}

/// A route name for every destination: the shortest that no other destination has.
pub fn names(mut all: Vec<ImportedDestination>, taken: &[&str]) -> BTreeMap<ImportedDestination, String> {
    all.sort();
    all.dedup();
    let mut names: Vec<String> = all.iter().map(|destination| destination.route(0)).collect();
    let mut details: Vec<usize> = vec![0; all.len()];
    // Names get longer until they differ, or contain everything.
    for _ in 0..2 * MOST_DETAIL {
        let mut count: HashMap<String, usize> = HashMap::new();
        names.iter().for_each(|name| *count.entry(name.clone()).or_default() += 1);
        for ((name, detail), destination) in names.iter_mut().zip(&mut details).zip(&all) {
            let is_another = count.get(name).is_some_and(|count| *count > 1) || taken.contains(&name.as_str());
            if is_another && *detail < MOST_DETAIL {
                *detail += 1;
                *name = destination.route(*detail);
            }
        }
    }
    // When full names are still equal, the first keeps its name and the others get a number.
    let mut used: HashSet<String> = taken.iter().map(|name| (*name).to_owned()).collect();
    let keeps: Vec<bool> = names.iter().map(|name| used.insert(name.clone())).collect();
    let mut next: HashMap<String, usize> = HashMap::new();
    for (name, _) in names.iter_mut().zip(keeps).filter(|(_, keeps)| !keeps) {
        let number = next.entry(name.clone()).or_insert(2);
        let numbered = loop {
            let numbered = format!("{name}-{number}");
            *number += 1;
            if used.insert(numbered.clone()) {
                break numbered;
            }
        };
        *name = numbered;
    }
    all.into_iter().zip(names).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, namespace: &str, subset: &str, port: &str) -> ImportedDestination {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        ImportedDestination {
            name: name.to_owned(),
            namespace: some(namespace),
            subset: some(subset),
            port: some(port),
        }
    }

    #[test]
    fn a_route_has_the_shortest_name_that_no_other_has() {
        let all = vec![
            of("cart", "shop", "", "80"),
            of("reviews.prod.svc.cluster.local", "", "", ""),
            of("reviews.staging.svc.cluster.local", "", "", ""),
            of("web", "prod", "", "9090"),
            of("web", "prod", "", "8080"),
            of("web", "prod", "v1", ""),
            of("web-v1", "prod", "", ""),
            of("api.stripe.com", "", "", ""),
            of("api.github.com", "", "", ""),
            of("a b", "", "", ""),
            of("a-b", "", "", ""),
            of("unrouted", "x", "", ""),
        ];
        let names = names(all.clone(), &["unrouted"]);
        let found: Vec<&str> = all.iter().map(|destination| names[destination].as_str()).collect();
        assert_eq!(
            found,
            [
                "cart",
                "reviews.prod",
                "reviews.staging",
                "web-prod-9090",
                "web-prod-8080",
                "web-v1-prod",
                "web-v1-prod-2",
                "api.stripe.com",
                "api.github.com",
                "a-b",
                "a-b-2",
                "unrouted-x"
            ]
        );
        assert_eq!(of("web", "prod", "v1", "80").to_string(), "web namespace prod subset v1 port 80");
    }
}
