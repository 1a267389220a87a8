//! Explains syntax errors of YAML and JSON, and how to correct them.

use libyaml_safer::{Error, Mark};
use penstock_policy::document::NotJson;

use super::error::NotYaml;

/// Explains an error of the YAML parser. `byte` converts a position to an offset.
pub fn yaml(error: &Error, text: &str, byte: &impl Fn(Mark) -> usize) -> NotYaml {
    let Some(mark) = error.problem_mark() else {
        let what = error.to_string();
        let at = text.find(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t')).unwrap_or(0);
        return match text.get(at..).and_then(|rest| rest.chars().next()) {
            Some(c) if c.is_control() => {
                NotYaml::at(at, format!("the control character U+{:04X} is not allowed", u32::from(c)))
                    .help("remove it, or write it as an escape in double quotes")
            }
            _ => NotYaml::at(0, what),
        };
    };
    let at = byte(mark);
    let begun = error.context_mark().map(byte).filter(|begun| *begun < text.len());
    let here = TextPlace { text, at };
    match error.problem() {
        "found character that cannot start any token" => here.bad_start(),
        "mapping values are not allowed in this context" => here.unexpected_field(),
        "did not find expected key" => here.no_key(begun),
        "did not find expected '-' indicator" => {
            let word = here.word();
            NotYaml::at(at, format!("expected a list item (`- …`) at this indentation, found `{word}`"))
                .help(format!("indent `{word}` like the fields above that it belongs to"))
        }
        "did not find expected ',' or ']'" => here.open('[', ']', begun),
        "did not find expected ',' or '}'" => here.open('{', '}', begun),
        "did not find expected alphabetic or numeric character" => here.alias(begun),
        "did not find expected node content" => NotYaml::at(at, format!("expected a value, found `{}`", here.word())),
        "found unexpected end of stream" | "found unexpected document indicator" => {
            NotYaml::at(begun.unwrap_or(at), "the quote is never closed")
                .help("close it, or write the value without quotes")
        }
        "could not find expected ':'" => NotYaml::at(
            begun.unwrap_or(at),
            format!("expected `:` after `{}`", TextPlace { text, at: begun.unwrap_or(at) }.word()),
        )
        .help("write `name: value`; a text of several lines needs quotes, or `|` before it"),
        "block sequence entries are not allowed in this context" => NotYaml::at(at, "a list item cannot begin here")
            .help("begin the list on a line of its own, or write it as `[a, b]`"),
        "found unknown escape character" => {
            let character = text.get(at..).and_then(|rest| rest.chars().find(|c| *c != '\\')).unwrap_or('\\');
            NotYaml::at(at, format!("`\\{character}` is not an escape in double quotes"))
                .help("use single quotes, in which a backslash is a backslash, or double it")
        }
        "found invalid Unicode character escape code" => {
            NotYaml::at(at, "the escape is not a character").help("write the character itself")
        }
        "found incompatible YAML document" => {
            NotYaml::at(at, "this version of YAML is not supported").help("remove the line `%YAML …`")
        }
        problem => NotYaml::at(at, problem),
    }
}

/// Explains an error of the JSON parser, with its place.
pub fn json(error: &NotJson, text: &str) -> NotYaml {
    let said = error.to_string();
    let said = said.strip_prefix("not JSON: ").unwrap_or(&said);
    let Some((message, place)) = said.rsplit_once(" at line ") else {
        return NotYaml { language: "JSON", ..NotYaml::at(0, said) };
    };
    let mut numbers = place.split(" column ").filter_map(|number| number.parse::<usize>().ok());
    let (line, column) = (numbers.next().unwrap_or(1), numbers.next().unwrap_or(1));
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let mut at = (start + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let message = match message {
        "trailing characters" => "there is more text after the end of the value",
        "EOF while parsing an object" => "the text ends inside an object",
        "EOF while parsing a list" => "the text ends inside a list",
        "EOF while parsing a string" => "the text ends inside a string",
        "EOF while parsing a value" => "the text ends where a value should begin",
        other => other,
    };
    if message.starts_with("the text ends") {
        at = text.trim_end().char_indices().next_back().map_or(0, |(last, _)| last);
    }
    let help = match message {
        "the text ends inside an object" => Some("close it with `}`"),
        "the text ends inside a list" => Some("close it with `]`"),
        "trailing comma" => Some("remove the comma before the closing bracket"),
        _ if text.get(at..).is_some_and(|rest| rest.starts_with(['#', '/'])) => Some("JSON has no comments"),
        "key must be a string" | "expected value" => Some("JSON needs double quotes around names and text"),
        "invalid number" => Some("JSON numbers have no leading zero and no other base than ten"),
        _ => None,
    };
    NotYaml { language: "JSON", message: message.to_owned(), help: help.map(str::to_owned), at }
}

/// A place in a text.
struct TextPlace<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> TextPlace<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The line of the place, up to it.
    fn before(&self) -> &'t str {
        let before = self.text.get(..self.at).unwrap_or_default();
        before.rsplit('\n').next().unwrap_or_default()
    }

    /// The word that starts here, for a message.
    fn word(&self) -> &'t str {
        let rest = self.rest().trim_start();
        let end = rest.find([' ', '\n', '\r', ':', ',', '\t']).unwrap_or(rest.len());
        match rest.get(..end).unwrap_or_default() {
            "" => rest.lines().next().unwrap_or_default(),
            word => word,
        }
    }

    fn line(&self) -> usize {
        self.text.get(..self.at).unwrap_or_default().matches('\n').count() + 1
    }

    fn bad_start(&self) -> NotYaml {
        match self.rest().chars().next() {
            Some('\t') => NotYaml::at(self.at, "a tab where only spaces are allowed").help("indent with spaces"),
            Some(c) => {
                NotYaml::at(self.at, format!("`{c}` cannot begin a plain value")).help("put the value in quotes")
            }
            None => NotYaml::at(self.at, "the text ends too early"),
        }
    }

    /// A `*` or `&` that no name follows: a text, as a rule.
    fn alias(&self, begun: Option<usize>) -> NotYaml {
        let sign = |at: usize| self.text.get(at..).and_then(|rest| rest.chars().next()).filter(|c| "*&".contains(*c));
        let before = self.text.get(..self.at).and_then(|before| before.rfind(['*', '&']));
        let at = begun.filter(|at| sign(*at).is_some()).or(before).unwrap_or(self.at);
        let word = TextPlace { text: self.text, at }.rest();
        let end = word.find([' ', '\n', '\r', ',', ']', '}']).unwrap_or(word.len());
        let word = word.get(..end).unwrap_or_default();
        let sign = sign(at).map_or(String::new(), String::from);
        NotYaml::at(at, format!("`{sign}` at the start of a plain value has a meaning of its own in YAML"))
            .help(format!("put the value in quotes: \"{word}\""))
    }

    /// A `:` where no field is possible.
    fn unexpected_field(&self) -> NotYaml {
        let before = self.before();
        let field = before.trim_start().trim_start_matches("- ").trim();
        let indent = before.len() - before.trim_start().len();
        if field.contains(": ") || field.contains(":\t") {
            return NotYaml::at(self.at, "`: ` inside a value").help("put the value in quotes");
        }
        let above =
            self.text.get(..self.at).unwrap_or_default().lines().rev().skip(1).find(|line| !line.trim().is_empty());
        if let Some(above) = above {
            let content = above.trim_start();
            let items = content.len() - content.trim_start_matches("- ").len();
            let column = above.len() - content.len() + items;
            let name = content.trim_start_matches("- ").split(':').next().unwrap_or_default();
            if indent > column {
                return NotYaml::at(
                    self.at,
                    format!("wrong indentation: `{field}` is indented deeper than `{name}` above it"),
                )
                .help(format!(
                    "begin `{field}` in column {}, or leave `{name}` without a value of its own",
                    column + 1
                ));
            }
        }
        NotYaml::at(self.at, format!("`{field}` cannot be a field here"))
            .help("check its indentation, or put the value in quotes")
    }

    /// Text that is not a field in a place for fields, or a field with wrong indentation.
    fn no_key(&self, begun: Option<usize>) -> NotYaml {
        let word = self.word();
        let whole = self.rest().lines().next().unwrap_or_default();
        let since = begun.map(|at| TextPlace { text: self.text, at }.line());
        let since = since.map(|line| format!(", as the fields from line {line} on")).unwrap_or_default();
        match whole.contains(':') || whole.starts_with("- ") {
            true => {
                NotYaml::at(self.at, format!("wrong indentation: `{word}` is in line with none of the fields above it"))
                    .help(format!("indent it with spaces{since}"))
            }
            false => NotYaml::at(self.at, format!("expected a field (`name: value`), found `{word}`"))
                .help("put a value with special characters in quotes, and close every bracket"),
        }
    }

    /// A bracket that is not closed where it should be.
    fn open(&self, open: char, close: char, begun: Option<usize>) -> NotYaml {
        let what = if open == '[' { "list" } else { "map" };
        let Some(begun) = begun else { return NotYaml::at(self.at, format!("expected `,` or `{close}`")) };
        if self.text.get(begun..).is_some_and(|rest| rest.starts_with("{{")) {
            return template(begun);
        }
        let line = TextPlace { text: self.text, at: begun }.line();
        match self.rest().chars().next() {
            Some(c @ (']' | '}')) => {
                NotYaml::at(self.at, format!("`{c}` does not close the {what} that begins in line {line}"))
                    .help(format!("expected `,` or `{close}`"))
            }
            _ => NotYaml::at(
                begun,
                format!("the {what} is never closed: expected `,` or `{close}` before line {}", self.line()),
            )
            .help(format!("close it with `{close}`")),
        }
    }
}

/// A template such as `{{ … }}`.
fn template(at: usize) -> NotYaml {
    NotYaml::at(at, "this is a template, not YAML")
        .help("render it first: `helm template … | penstock check -`, or put the value in quotes")
}
