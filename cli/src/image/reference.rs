//! The name of an image: `registry/repository:tag`.

use std::fmt;
use std::str::FromStr;

/// A reference to an image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The host, with the port if it is given.
    pub registry: String,
    /// The repository's path, such as `team/penstock`.
    pub repository: String,
    /// The tag.
    pub tag: String,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix("oci://").unwrap_or(text);
        let (registry, rest) = text.split_once('/').unwrap_or(("", text));
        // Docker's rule: without a dot, a port or `localhost`, the first part is a path on Docker Hub. Pushing there by
        // accident would be worse than having to write `docker.io`.
        if !(registry.contains(['.', ':']) || registry == "localhost") {
            return Err(format!(
                "{text:?} does not begin with a registry; write it as `registry.example.com/team/name:1.0.0` \
                 (Docker Hub: `docker.io/team/name:1.0.0`)"
            ));
        }
        if rest.contains('@') {
            return Err(format!("{text:?} has a digest; what is pushed gets its digest from its content"));
        }
        let Some((repository, tag)) = rest.split_once(':') else {
            return Err(format!("{text:?} has no tag; add one, such as `:1.0.0`"));
        };
        let part = |part: &str| {
            let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
            let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
            edge(part.chars().next()) && edge(part.chars().next_back()) && part.chars().all(inside)
        };
        if !repository.split('/').all(part) {
            return Err(format!(
                "{repository:?} is not a repository: parts of a-z, 0-9 and `.`, `_`, `-` inside, with `/` between them"
            ));
        }
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        // A form appends up to 9 characters.
        if !(1..=100).contains(&tag.len())
            || !tag.starts_with(word)
            || !tag.chars().all(|c| word(c) || ".-".contains(c))
        {
            return Err(format!(
                "{tag:?} is not a tag: up to 100 of a-z, A-Z, 0-9, `_`, `.`, `-`, not beginning with `.` or `-`"
            ));
        }
        Ok(Reference { registry: registry.to_owned(), repository: repository.to_owned(), tag: tag.to_owned() })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.registry, self.repository, self.tag)
    }
}

impl Reference {
    /// The same reference with a suffix on its tag.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        Reference { tag: format!("{}{suffix}", self.tag), ..self.clone() }
    }

    /// Whether the registry is on this machine, where plain HTTP is the default.
    pub fn is_local(&self) -> bool {
        let host = self.registry.rsplit_once(':').map_or(self.registry.as_str(), |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_registry_repository_and_tag() {
        let name: Reference = "oci://localhost:5000/team/pen_stock-x:1.0.0".parse().unwrap();
        assert_eq!(name.to_string(), "localhost:5000/team/pen_stock-x:1.0.0");
        assert!(name.is_local());
        assert!(!"127.example.com/a:1".parse::<Reference>().unwrap().is_local());
    }

    #[test]
    fn an_incomplete_name_is_refused_with_the_missing_part() {
        for (text, why) in [
            ("penstock/suite:1", "does not begin with a registry"),
            ("suite:1", "does not begin with a registry"),
            ("ghcr.io/penstock/suite", "has no tag"),
            ("ghcr.io/penstock/suite@sha256:00", "has a digest"),
            ("ghcr.io/Penstock/suite:1", "is not a repository"),
            ("ghcr.io/penstock//suite:1", "is not a repository"),
            ("ghcr.io/penstock/suite:.1", "is not a tag"),
            ("ghcr.io/penstock/suite:", "is not a tag"),
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
