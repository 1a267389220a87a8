//! Problems with their place in a file, shown with the line and a caret.

use std::borrow::Cow;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use penstock_policy::document::visible;
use penstock_policy::{Problem, Problems};
use serde::Serialize;

use crate::forms;
use crate::output::count;
use crate::text::SourceText;
use crate::within::Witness;
use crate::words::thousands;
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
    /// Text that is not YAML, or not JSON.
    pub fn syntax(error: &NotYaml, text: &SourceText) -> Finding {
        let end =
            text.get(error.at..).and_then(|rest| rest.chars().next()).map_or(error.at, |c| error.at + c.len_utf8());
        Finding::at(error.at..end, format!("not {}: {}", error.language, error.message), error.help.clone(), text)
    }

    /// A problem of a document, with its place.
    pub fn of(problem: &Problem, located: &Located, text: &SourceText) -> Finding {
        let span = located.span(&problem.path, problem.value.is_none());
        Finding {
            path: problem.path.clone(),
            value: problem.value.clone(),
            ..Finding::at(span, problem.message.clone(), form_of(problem).or_else(|| problem.help.clone()), text)
        }
    }

    /// A problem at some bytes of `text`.
    pub fn at(span: Range<usize>, message: String, help: Option<String>, text: &SourceText) -> Finding {
        let (line, column) = text.position(span.start);
        Finding { path: String::new(), value: None, message, help, witness: None, line, column, span }
    }

    /// For people: the problem, its line with a caret, the remedy. With styles; `file` is how the file is named.
    pub fn render(&self, level: Level<'static>, file: &str, text: &SourceText) -> String {
        let mut title = String::new();
        for part in [Some(&self.path), self.value.as_ref()].into_iter().flatten().filter(|part| !part.is_empty()) {
            title.push_str(part);
            title.push_str(": ");
        }
        title.push_str(&self.message);
        let title = visible(&title).into_owned();
        let (excerpt, span, is_cut) = self.excerpt(text);
        let snippet = Snippet::source(excerpt).line_start(self.line).annotation(AnnotationKind::Primary.span(span));
        let group = level.primary_title(title);
        let group = match is_cut {
            // The renderer would count the columns of the excerpt.
            true => group
                .element(Origin::path(file).line(self.line).char_column(self.column.saturating_sub(1)))
                .element(snippet),
            false => group.element(snippet.path(file)),
        };
        let group = match &self.help {
            Some(help) => group.element(Level::HELP.message(visible(help).into_owned())),
            None => group,
        };
        Renderer::styled().render(&[group])
    }

    /// The line, or of a long one what is around the place; where the place is in it, and whether it is cut before it.
    /// A place of several lines is shown by its first.
    fn excerpt<'t>(&self, text: &'t SourceText) -> (&'t str, Range<usize>, bool) {
        /// More than a terminal shows, on either side.
        const AROUND: usize = 300;
        let line = text.line(self.span.start);
        let (from, to) = (self.span.start.saturating_sub(AROUND), self.span.start.saturating_add(2 * AROUND));
        let start = text.ceil_char_boundary(line.start.max(from));
        let end = text.floor_char_boundary(line.end.min(to)).max(start);
        let inside = |at: usize| at.clamp(start, end) - start;
        let excerpt = text.get(start..end).unwrap_or_default();
        (excerpt, inside(self.span.start)..inside(self.span.end), start > line.start)
    }
}

/// The form that a problem's value should have had.
pub fn form_of(problem: &Problem) -> Option<String> {
    forms::form(&problem.path, problem.value.as_deref(), &problem.message)
}

/// What is wrong with a file: the first findings, and how many more there are.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The first.
    pub shown: Vec<Finding>,
    /// How many are not shown.
    pub more: usize,
}

/// The list of those that are shown.
impl Serialize for Findings {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.shown.serialize(serializer)
    }
}

impl Findings {
    /// The problems of a document with their places.
    pub fn of(problems: &Problems, find: impl Fn(&Problem) -> Finding) -> Findings {
        let mut findings = Findings::default();
        findings.extend(problems.iter(), find);
        findings.more += problems.more();
        findings
    }

    /// One finding.
    pub fn one(finding: Finding) -> Findings {
        Findings { shown: vec![finding], more: 0 }
    }

    /// Adds what `find` makes of `things`; it is only asked for what will be shown.
    pub fn extend<T>(&mut self, things: impl IntoIterator<Item = T>, find: impl Fn(T) -> Finding) {
        for thing in things {
            match self.shown.len() < Problems::SHOWN {
                true => self.shown.push(find(thing)),
                false => self.more += 1,
            }
        }
    }

    /// How many there are, shown or not.
    pub fn len(&self) -> usize {
        self.shown.len() + self.more
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// "and 3,412 more errors"; `None` when all are shown.
    pub fn rest(&self, what: &str) -> Option<String> {
        let plural = if self.more == 1 { "" } else { "s" };
        (self.more > 0).then(|| format!("and {} more {what}{plural}", thousands(self.more as u64)))
    }

    /// The findings, and after them how many more there are.
    pub fn with_rest(&self, what: &str) -> impl Iterator<Item = Cow<'_, Finding>> {
        let last = self.shown.last();
        let rest = last.zip(self.rest(what)).map(|(last, message)| Finding {
            path: String::new(),
            value: None,
            message,
            help: None,
            ..last.clone()
        });
        self.shown.iter().map(Cow::Borrowed).chain(rest.map(Cow::Owned))
    }

    /// For people: every finding, and how many there are.
    pub fn render(&self, level: Level<'static>, what: &str, file: &str, text: &SourceText) -> String {
        let mut report = String::new();
        for finding in &self.shown {
            report += &finding.render(level.clone(), file, text);
            report += "\n\n";
        }
        if let Some(rest) = self.rest(what) {
            report += &format!("{rest}\n\n");
        }
        report
    }

    /// `3,462 errors`.
    pub fn count(&self, what: &str) -> String {
        count(self.len(), what)
    }
}
