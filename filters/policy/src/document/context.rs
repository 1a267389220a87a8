//! The state of decoding: the problems found so far, and what some values depend on.

use super::node::Node;
use super::problem::{At, Problem, Problems};
use crate::matching::Expressions;

/// The state of decoding.
#[derive(Debug)]
pub struct Context<'s> {
    /// The text of the document, when the tree stores its lists as positions in it.
    pub source: &'s str,
    /// Whether a list of `source` turned out not to be JSON.
    pub is_unreadable: bool,
    /// Name of the route header, in lower case: no condition may read it and no rule may change it.
    pub route_header: String,
    /// The regular expressions of this document.
    pub(crate) expressions: Expressions,
    problems: Vec<Problem>,
    /// The number of problems that were found but not kept.
    more: usize,
}

impl Context<'_> {
    /// A context without problems; `regex_budget` in bytes.
    pub fn new(route_header: String, regex_budget: usize) -> Self {
        Context {
            source: "",
            is_unreadable: false,
            route_header,
            expressions: Expressions::new(regex_budget),
            problems: Vec::new(),
            more: 0,
        }
    }

    /// Records that the value `node` at `at` is wrong.
    #[inline(never)]
    pub fn problem(&mut self, at: &At<'_>, node: &Node, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.push(at, Some(node).filter(|node| **node != Node::Null), message.into(), help.into());
    }

    /// Records a problem that is not about one value.
    #[inline(never)]
    pub fn problem_at(&mut self, at: &At<'_>, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.push(at, None, message.into(), help.into());
    }

    fn push(&mut self, at: &At<'_>, node: Option<&Node>, message: String, help: Option<String>) {
        if self.is_full() {
            self.more += 1;
            return;
        }
        let value = node.map(Node::to_string);
        let problem = Problem { path: at.to_string(), value, message: shortened(message), help: help.map(shortened) };
        self.problems.push(problem);
    }

    /// Whether further problems are only counted, so that their help texts need not be made.
    pub(crate) fn is_full(&self) -> bool {
        self.problems.len() >= Problems::SHOWN
    }

    /// Whether something in the value at `at` has been found wrong.
    pub(crate) fn has_problem_in(&self, at: &At<'_>) -> bool {
        let path = at.to_string();
        self.is_full() || self.problems.iter().any(|problem| problem.path.starts_with(&path))
    }

    /// The first problems, in order.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// All problems; `None`: there are none.
    pub fn finish(self) -> Option<Problems> {
        Problems::new(self.problems, self.more)
    }
}

/// A text that may quote the document, cut to what fits into a line of a log.
fn shortened(mut text: String) -> String {
    const LONGEST: usize = 600;
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_first_fifty_problems_are_kept_and_the_others_counted() {
        let mut cx = Context::new(String::new(), 0);
        (0..3_462).for_each(|i| cx.problem_at(&At::Root.index(i), "is wrong", None));
        let problems = cx.finish().unwrap();
        assert_eq!((problems.as_slice().len(), problems.more()), (50, 3_412));
        assert!(problems.to_string().ends_with("[49]: is wrong\nand 3,412 more problems"), "{problems}");
    }

    #[test]
    fn a_problem_is_short_however_long_what_it_quotes_is() {
        let long = "é".repeat(1_000_000);
        let mut cx = Context::new(String::new(), 0);
        let node = Node::String(long.clone());
        cx.problem(&At::Root.field(&long), &node, long.clone(), long.clone());
        assert!(cx.finish().unwrap().to_string().len() < 4_000);
    }
}
