//! The paths of one caller's requests to one destination with one method, as a tree of segments.
//!
//! Data in a path would make a branch for each value. Where a segment has the form of an id, or where a place has more
//! different segments than programmers name, the tree ends: everything below is counted together and becomes a prefix.

use super::evidence::{Evidence, EvidenceThresholds, Sighting};
use super::pattern::Pattern;
use super::segment::{is_id, is_slug};

/// More different segments than this at one place are data.
const MOST_NAMES: usize = 30;

/// More different segments of several words than this are data.
const MOST_SLUGS: usize = 12;

/// Deeper segments are counted together.
const DEEPEST: usize = 16;

/// A place in the tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Requests to exactly this path.
    here: Option<Box<Evidence>>,
    /// Requests to paths below that are not told apart.
    below: Option<Box<Evidence>>,
    /// The segments below it.
    children: Children,
}

#[derive(Clone, Debug)]
enum Children {
    /// The children in order.
    Named(Vec<(Box<str>, Tree)>),
    /// Too many children: they are counted together.
    Many,
}

impl Default for Children {
    fn default() -> Children {
        Children::Named(Vec::new())
    }
}

/// A place with requests: its paths, and their number.
#[derive(Debug)]
pub enum Visit<'t> {
    /// Requests to exactly this path.
    Here(&'t str, &'t Evidence),
    /// Requests to paths below this prefix.
    Below(&'t str, &'t Evidence),
}

impl Tree {
    /// Adds a request. `path` is canonical and starts with a slash; that of a tunnel is empty.
    pub fn add(&mut self, path: &str, sighting: &Sighting, thresholds: EvidenceThresholds) {
        match path.strip_prefix('/') {
            None => self.add_below(sighting, thresholds),
            Some("") => self.add_here(sighting, thresholds),
            Some(rest) => self.add_segments(rest.split('/'), 0, sighting, thresholds),
        }
    }

    fn add_segments<'s>(
        &mut self,
        mut segments: impl Iterator<Item = &'s str>,
        depth: usize,
        sighting: &Sighting,
        thresholds: EvidenceThresholds,
    ) {
        match segments.next() {
            None => self.add_here(sighting, thresholds),
            Some(segment) if depth >= DEEPEST || is_id(segment, depth == 0) => self.add_below(sighting, thresholds),
            Some(segment) => match self.enter(segment, thresholds) {
                Some(child) => child.add_segments(segments, depth + 1, sighting, thresholds),
                None => self.add_below(sighting, thresholds),
            },
        }
    }

    fn add_here(&mut self, sighting: &Sighting, thresholds: EvidenceThresholds) {
        self.here.get_or_insert_default().add(sighting, thresholds);
    }

    fn add_below(&mut self, sighting: &Sighting, thresholds: EvidenceThresholds) {
        self.below.get_or_insert_default().add(sighting, thresholds);
    }

    /// The child with this name; `None` when children are counted together.
    fn enter(&mut self, segment: &str, thresholds: EvidenceThresholds) -> Option<&mut Tree> {
        let Children::Named(named) = &mut self.children else { return None };
        let at = match named.binary_search_by(|(name, _)| (**name).cmp(segment)) {
            Ok(at) => at,
            Err(at) => {
                // Most places have one child.
                if named.is_empty() {
                    named.reserve_exact(1);
                }
                named.insert(at, (segment.into(), Tree::default()));
                self.close_when_many(thresholds);
                at
            }
        };
        match &mut self.children {
            Children::Named(named) => named.get_mut(at).map(|(_, child)| child),
            Children::Many => None,
        }
    }

    /// Merges the children when there are too many.
    fn close_when_many(&mut self, thresholds: EvidenceThresholds) {
        let Children::Named(named) = &self.children else { return };
        let slugs = named.iter().filter(|(name, _)| is_slug(name)).count();
        if named.len() > MOST_NAMES || slugs > MOST_SLUGS {
            self.close(thresholds);
        }
    }

    fn close(&mut self, thresholds: EvidenceThresholds) {
        let mut below = Evidence::default();
        if let Children::Named(named) = &self.children {
            named.iter().for_each(|(_, child)| child.sum_into(&mut below, thresholds));
        }
        if below.requests > 0 {
            self.below.get_or_insert_default().absorb(&below, thresholds);
        }
        self.children = Children::Many;
    }

    /// Adds all requests at this place and below.
    fn sum_into(&self, sum: &mut Evidence, thresholds: EvidenceThresholds) {
        let own = self.here.iter().chain(&self.below);
        own.for_each(|evidence| sum.absorb(evidence, thresholds));
        if let Children::Named(named) = &self.children {
            named.iter().for_each(|(_, child)| child.sum_into(sum, thresholds));
        }
    }

    /// Adds the requests of another tree.
    pub fn absorb(&mut self, other: Tree, thresholds: EvidenceThresholds) {
        for (ours, theirs) in [(&mut self.here, other.here), (&mut self.below, other.below)] {
            if let Some(theirs) = theirs {
                ours.get_or_insert_default().absorb(&theirs, thresholds);
            }
        }
        match other.children {
            Children::Many => self.close(thresholds),
            Children::Named(named) => {
                for (segment, tree) in named {
                    match self.enter(&segment, thresholds) {
                        Some(child) => child.absorb(tree, thresholds),
                        None => tree.sum_into(self.below.get_or_insert_default(), thresholds),
                    }
                }
            }
        }
    }

    /// The paths with enough evidence.
    pub fn patterns(&self, thresholds: EvidenceThresholds) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        self.collect(&mut String::new(), thresholds, &mut patterns);
        patterns
    }

    fn collect(&self, path: &mut String, thresholds: EvidenceThresholds, patterns: &mut Vec<Pattern>) {
        let enough = |evidence: &Option<Box<Evidence>>| {
            evidence.as_ref().is_some_and(|evidence| evidence.is_enough(thresholds.path(), thresholds))
        };
        if enough(&self.below) {
            patterns.push(Pattern::Prefix(path.as_str().into()));
            return;
        }
        if enough(&self.here) {
            patterns.push(Pattern::Exact(shown(path).into()));
        }
        self.each_child(path, &mut |child, path| child.collect(path, thresholds, patterns));
    }

    /// Calls `visit` for every place that has requests, in order.
    pub fn each(&self, visit: &mut dyn FnMut(Visit<'_>)) {
        self.visit(&mut String::new(), visit);
    }

    fn visit(&self, path: &mut String, visit: &mut dyn FnMut(Visit<'_>)) {
        if let Some(here) = &self.here {
            visit(Visit::Here(shown(path), here));
        }
        if let Some(below) = &self.below {
            visit(Visit::Below(path, below));
        }
        self.each_child(path, &mut |child, path| child.visit(path, visit));
    }

    /// Removes the places for which `keep` returns false.
    pub fn retain(&mut self, keep: &mut dyn FnMut(Visit<'_>) -> bool) {
        self.retain_from(&mut String::new(), keep);
    }

    fn retain_from(&mut self, path: &mut String, keep: &mut dyn FnMut(Visit<'_>) -> bool) {
        self.here.take_if(|here| !keep(Visit::Here(shown(path), here)));
        self.below.take_if(|below| !keep(Visit::Below(path, below)));
        let Children::Named(named) = &mut self.children else { return };
        for (segment, child) in named {
            let length = path.len();
            path.push('/');
            path.push_str(segment);
            child.retain_from(path, keep);
            path.truncate(length);
        }
    }

    fn each_child(&self, path: &mut String, each: &mut dyn FnMut(&Tree, &mut String)) {
        let Children::Named(named) = &self.children else { return };
        for (segment, child) in named {
            let length = path.len();
            path.push('/');
            path.push_str(segment);
            each(child, path);
            path.truncate(length);
        }
    }
}

/// The text of a path: that of the root is a slash.
fn shown(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use penstock_policy::Timestamp;

    const THRESHOLDS: EvidenceThresholds = EvidenceThresholds { requests: 20, days: 2 };

    /// Each path occurs on ten days.
    fn tree(paths: &[String]) -> Tree {
        let mut tree = Tree::default();
        for (number, path) in paths.iter().enumerate() {
            for day in 1..=10 {
                let time = Timestamp::parse(&format!("2026-11-{day:02}T10:00:00Z"));
                tree.add(path, &Sighting::new(time, number as u64, &["GET", path]), THRESHOLDS);
            }
        }
        tree
    }

    fn learned(paths: &[String]) -> Vec<String> {
        let patterns = tree(paths).patterns(THRESHOLDS).into_iter();
        let text = |pattern| match pattern {
            Pattern::Exact(path) => path.to_string(),
            Pattern::Prefix(path) => format!("{path}/*"),
            Pattern::Tunnel => "tunnel".to_owned(),
        };
        patterns.map(text).collect()
    }

    fn owned(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn names_are_kept_and_ids_end_a_path() {
        let paths =
            owned(&["/", "/v1/charges", "/v1/charges/ch_3JxK28aB/capture", "/v1/refunds/", "/2/users", "/v1/me"]);
        assert_eq!(learned(&paths), ["/", "/2/users", "/v1/charges/*", "/v1/me", "/v1/refunds/"]);
        assert_eq!(learned(&owned(&["/3f2504e0-4f89-41d3-9a0c-0305e82c3301"])), ["/*"]);
    }

    #[test]
    fn more_names_than_a_programmer_makes_are_data() {
        let names = |count: usize, form: fn(usize) -> String| (0..count).map(form).collect::<Vec<_>>();
        let word = |n: usize| {
            format!(
                "/users/{}",
                char::from(b'a' + (n / 26) as u8).to_string() + &char::from(b'a' + (n % 26) as u8).to_string()
            )
        };
        let slug = |n: usize| format!("/blog/how-to-{}", char::from(b'a' + n as u8));
        assert_eq!(learned(&names(30, word)).len(), 30);
        assert_eq!(learned(&names(31, word)), ["/users/*"]);
        assert_eq!(learned(&names(12, slug)).len(), 12);
        assert_eq!(learned(&names(13, slug)), ["/blog/*"]);
    }

    #[test]
    fn a_request_seen_once_is_not_learned() {
        let mut tree = tree(&owned(&["/v1/charges"]));
        let time = Timestamp::parse("2026-11-05T10:00:00Z");
        (0..50).for_each(|number| tree.add("/export", &Sighting::new(time, number, &["GET", "/export"]), THRESHOLDS));
        assert_eq!(tree.patterns(THRESHOLDS), [Pattern::Exact("/v1/charges".into())]);
    }

    #[test]
    fn merging_two_trees_equals_building_one() {
        let paths: Vec<String> = (0..40)
            .map(|n| format!("/a/{}", char::from(b'a' + (n % 26) as u8).to_string().repeat(1 + n / 26)))
            .collect();
        let mut first = tree(&paths[..20]);
        first.absorb(tree(&paths[20..]), THRESHOLDS);
        assert_eq!(first.patterns(THRESHOLDS), tree(&paths).patterns(THRESHOLDS));
        let long = "/x".repeat(100_000);
        assert_eq!(learned(&[long]).len(), 1);
    }
}
