//! Problems of a document: where they are, what is wrong, and how to correct it.

use std::borrow::Cow;
use std::fmt;

use super::hidden::visible;

/// A place in the document, as a linked list on the stack: it allocates nothing until a problem needs its text.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    /// The document itself.
    Root,
    /// A field of an object.
    Field(&'a At<'a>, &'a str),
    /// An element of a list, from 0.
    Index(&'a At<'a>, usize),
}

impl<'a> At<'a> {
    /// The place of the field `name` here.
    pub fn field(&'a self, name: &'a str) -> At<'a> {
        At::Field(self, name)
    }

    /// The place of element `index` here.
    pub fn index(&'a self, index: usize) -> At<'a> {
        At::Index(self, index)
    }
}

/// `routes.rules[3].matches[0].path`, the form that Kubernetes uses in its own messages.
impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Root => Ok(()),
            At::Field(At::Root, name) => f.write_str(&shown_key(name)),
            At::Field(parent, name) => write!(f, "{parent}.{}", shown_key(name)),
            At::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// The name of a field as paths show it: a very long one is cut.
pub fn shown_key(name: &str) -> Cow<'_, str> {
    const LONGEST: usize = 100;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()).into(),
        None => name.into(),
    }
}

/// One thing that is wrong with a document.
///
/// ```
/// use penstock_policy::Policy;
///
/// let problems = <Policy>::from_json(br#"{"routes": {"rule": []}}"#).unwrap_err();
/// let problem = problems.iter().next().expect("one problem");
/// assert_eq!(problem.path, "routes.rule");
/// assert!(problem.message.starts_with("unknown field `rule`"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path, as in `routes.rules[3].timeout`; empty for the document as a whole.
    pub path: String,
    /// The value found there, as short JSON; `None` when the value is missing, or would not help the reader.
    pub value: Option<String>,
    /// What is wrong.
    pub message: String,
    /// How to correct it, when that is known.
    pub help: Option<String>,
}

/// One line: `routes.rules[3].timeout: "2x": not a duration; write it like 250ms, 10s or 1h30m`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.as_deref();
        let before = [Some(&*self.path).filter(|path| !path.is_empty()), value].into_iter().flatten();
        for part in before {
            write_line(part, f)?;
            f.write_str(": ")?;
        }
        write_line(&self.message, f)?;
        match &self.help {
            Some(help) => {
                f.write_str("; ")?;
                write_line(help, f)
            }
            None => Ok(()),
        }
    }
}

/// Writes text that may repeat a name of the document: a line break in it must not appear in a log.
fn write_line(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&visible(text))
}

/// Everything that is wrong with a document; never empty. The first problems are kept, the others only counted: a
/// document with a hundred thousand problems usually has one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    shown: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// The number of problems that are kept.
    pub const SHOWN: usize = 50;

    /// The problems: the first of them, and how many more there are; `None` when there are none.
    pub fn new(mut problems: Vec<Problem>, more: usize) -> Option<Problems> {
        let more = more + problems.len().saturating_sub(Self::SHOWN);
        problems.truncate(Self::SHOWN);
        (!problems.is_empty()).then_some(Problems { shown: problems, more })
    }

    /// The stored problems.
    pub fn as_slice(&self) -> &[Problem] {
        &self.shown
    }

    /// The problems that were kept, in document order.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.shown.iter()
    }

    /// How many problems there are besides those that were kept.
    pub fn more(&self) -> usize {
        self.more
    }

    /// A single problem with the document as a whole.
    pub fn whole(message: impl Into<String>, help: Option<String>) -> Problems {
        Problems { shown: vec![Problem { path: String::new(), value: None, message: message.into(), help }], more: 0 }
    }
}

/// A number with commas between thousands, as messages write it.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One problem a line.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.shown.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        match self.more {
            0 => Ok(()),
            1 => f.write_str("\nand 1 more problem"),
            more => write!(f, "\nand {} more problems", thousands(more as u64)),
        }
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_name_with_a_line_break_does_not_make_two_lines() {
        let root = At::Root;
        let path = root.field("a\nb").to_string();
        let problem = Problem { path, value: None, message: "is not\r a field".into(), help: Some("\t".into()) };
        assert_eq!(problem.to_string(), "a\\u000ab: is not\\u000d a field; \\u0009");
    }

    #[test]
    fn a_problem_is_one_line_with_path_value_and_remedy() {
        let root = At::Root;
        let routes = root.field("routes");
        let rules = routes.field("rules");
        let rule = rules.index(3);
        let problem = Problem {
            path: rule.field("timeout").to_string(),
            value: Some("\"2x\"".into()),
            message: "not a duration".into(),
            help: Some("write it like 250ms".into()),
        };
        assert_eq!(problem.to_string(), "routes.rules[3].timeout: \"2x\": not a duration; write it like 250ms");
    }
}
