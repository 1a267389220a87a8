//! Problems with their place in a file, shown with the line and a caret.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use penstock_policy::Problem;
use serde::Serialize;

use crate::within::Witness;
use crate::yaml::{Located, NotYaml};

/// One problem with its place in the file.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Path in the document; empty: the whole.
    pub path: String,
    /// The value that is wrong, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// A request, or several, that shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witness: Option<Witness>,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In bytes of the text.
    #[serde(skip)]
    pub span: Range<usize>,
}

impl Finding {
    /// Text that is not YAML.
    pub fn syntax(error: &NotYaml, text: &str) -> Finding {
        let end =
            text.get(error.at..).and_then(|rest| rest.chars().next()).map_or(error.at, |c| error.at + c.len_utf8());
        Finding::at(error.at..end, format!("not YAML: {}", error.message), error.help.clone(), text)
    }

    /// A problem of a document, with its place.
    pub fn of(problem: &Problem, located: &Located, text: &str) -> Finding {
        let span = located.span(&problem.path, problem.value.is_none());
        Finding {
            path: problem.path.clone(),
            value: problem.value.clone(),
            ..Finding::at(span, problem.message.clone(), problem.help.clone(), text)
        }
    }

    /// A problem at some bytes of `text`.
    pub fn at(span: Range<usize>, message: String, help: Option<String>, text: &str) -> Finding {
        let (line, column) = position(text, span.start);
        Finding { path: String::new(), value: None, message, help, witness: None, line, column, span }
    }

    /// For people: the problem, its line with a caret, the remedy. With styles; `file` is how the file is named.
    pub fn render(&self, level: Level<'static>, file: &str, text: &str) -> String {
        Renderer::styled().render(&[self.group(level, file, text)])
    }

    fn group<'a>(&'a self, level: Level<'a>, file: &'a str, text: &'a str) -> Group<'a> {
        let mut title = String::new();
        for part in [Some(&self.path), self.value.as_ref()].into_iter().flatten().filter(|part| !part.is_empty()) {
            title.push_str(part);
            title.push_str(": ");
        }
        title.push_str(&self.message);
        // A place of several lines is shown by its first.
        let first_line = text.get(self.span.clone()).unwrap_or_default().lines().next().unwrap_or_default().len();
        let span = self.span.start..self.span.start + first_line;
        let snippet = Snippet::source(text).path(file).annotation(AnnotationKind::Primary.span(span));
        let group = level.primary_title(title).element(snippet);
        match &self.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }
}

/// Line and column of a byte offset, both from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before.get(line_start..).unwrap_or_default().chars().count() + 1)
}
