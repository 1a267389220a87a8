//! Where routes lead: two destinations never share a name.

use std::collections::BTreeMap;

/// A destination as its source writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// A Service's name, or a host.
    pub name: String,
    /// The namespace of a Service.
    pub namespace: Option<String>,
    /// A subset of a DestinationRule.
    pub subset: Option<String>,
    /// The port: a number or a name.
    pub port: Option<String>,
}

impl std::fmt::Display for Destination {
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

impl Destination {
    /// A name for its route: the more `detail`, the more it says.
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
        let name = if name.is_empty() { "route".to_owned() } else { name };
        if detail > 2 { format!("{name}-{}", detail - 1) } else { name }
    }
}

/// A route's name for every destination: the shortest that no other has.
pub fn names(mut all: Vec<Destination>, taken: &[&str]) -> BTreeMap<Destination, String> {
    all.sort();
    all.dedup();
    let mut details: Vec<usize> = vec![0; all.len()];
    // Names grow until they differ; those that even say everything alike are counted.
    for _ in 0..all.len() + 8 {
        let names: Vec<String> =
            all.iter().zip(&details).map(|(destination, detail)| destination.route(*detail)).collect();
        let grows = |(i, detail): (usize, &usize)| {
            let name = names.get(i)?;
            let first = names.iter().position(|other| other == name)?;
            let shares = names.iter().filter(|other| *other == name).count() > 1;
            // When everything is said, the first of equals keeps its name.
            let must = taken.contains(&name.as_str()) || (shares && (*detail < 2 || first != i));
            must.then_some(i)
        };
        let grow: Vec<usize> = details.iter().enumerate().filter_map(grows).collect();
        if grow.is_empty() {
            break;
        }
        for i in grow {
            details.get_mut(i).into_iter().for_each(|detail| *detail += 1);
        }
    }
    let named = all.iter().zip(&details).map(|(destination, detail)| destination.route(*detail));
    let named: Vec<String> = named.collect();
    all.into_iter().zip(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, namespace: &str, subset: &str, port: &str) -> Destination {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Destination { name: name.to_owned(), namespace: some(namespace), subset: some(subset), port: some(port) }
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
