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
    /// The path in the document; empty for the whole document.
    pub path: String,
    /// The wrong value, as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The error message.
    pub message: String,
    /// The suggested correction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// One or several requests that show the problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witness: Option<Witness>,
    /// The line, starting at 1.
    pub line: usize,
    /// The column in characters, starting at 1.
    pub column: usize,
    /// The range in bytes of the text.
    #[serde(skip)]
    pub span: Range<usize>,
}

impl Finding {
    /// Makes a diagnostic for text that is not valid YAML or JSON.
    pub fn syntax(error: &NotYaml, text: &SourceText) -> Finding {
        let end =
            text.get(error.at..).and_then(|rest| rest.chars().next()).map_or(error.at, |c| error.at + c.len_utf8());
        Finding::at(error.at..end, format!("not {}: {}", error.language, error.message), error.help.clone(), text)
    }

    /// Makes a diagnostic for a problem of a document.
    pub fn of(problem: &Problem, located: &Located, text: &SourceText) -> Finding {
        let span = located.span(&problem.path, problem.value.is_none());
        Finding {
            path: problem.path.clone(),
            value: problem.value.clone(),
            ..Finding::at(span, problem.message.clone(), form_of(problem).or_else(|| problem.help.clone()), text)
        }
    }

    /// Makes a diagnostic for a range of bytes in `text`.
    pub fn at(span: Range<usize>, message: String, help: Option<String>, text: &SourceText) -> Finding {
        let (line, column) = text.position(span.start);
        Finding { path: String::new(), value: None, message, help, witness: None, line, column, span }
    }

    /// The human-readable form, with styles: the problem, its line with a caret, the correction. `file` is the name to
    /// show.
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
            // Gives line and column of the file: the renderer would count within the excerpt.
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

    /// The line to show, cut around the place when it is long, with the place in it and whether its start was cut. A
    /// place of several lines is shown by its first line.
    fn excerpt<'t>(&self, text: &'t SourceText) -> (&'t str, Range<usize>, bool) {
        /// More characters than a terminal shows, on either side.
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

/// The form that a wrong value should have had.
pub fn form_of(problem: &Problem) -> Option<String> {
    let (value, help) = (problem.value.as_deref(), problem.help.as_deref());
    forms::form(&problem.path, value, &problem.message).or_else(|| forms::meant(value, help))
}

/// The problems of a file: the first ones, and the number of the others.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The problems that are listed.
    pub shown: Vec<Finding>,
    /// The number of problems that are not listed.
    pub more: usize,
}

/// The problems that are listed.
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

    /// A single finding.
    pub fn one(finding: Finding) -> Findings {
        Findings { shown: vec![finding], more: 0 }
    }

    /// Adds what `find` returns for `things`; `find` is only called for problems that are listed.
    pub fn extend<T>(&mut self, things: impl IntoIterator<Item = T>, find: impl Fn(T) -> Finding) {
        for thing in things {
            match self.shown.len() < Problems::SHOWN {
                true => self.shown.push(find(thing)),
                false => self.more += 1,
            }
        }
    }

    /// The number of problems, listed or not.
    pub fn len(&self) -> usize {
        self.shown.len() + self.more
    }

    /// Whether there are no problems.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns "and 3,412 more errors", or `None` when all are listed.
    pub fn rest(&self, what: &str) -> Option<String> {
        let plural = if self.more == 1 { "" } else { "s" };
        (self.more > 0).then(|| format!("and {} more {what}{plural}", thousands(self.more as u64)))
    }

    /// The findings, then the number of the others.
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

    /// The human-readable form: every finding, and their number.
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

    /// Returns `3,462 errors`.
    pub fn count(&self, what: &str) -> String {
        count(self.len(), what)
    }
}
