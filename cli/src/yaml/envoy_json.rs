//! JSON as Envoy parses its own configuration files. Protobuf's parser accepts what strict JSON forbids: a trailing
//! comma, names without quotes, strings in single quotes, and line breaks and tabs inside strings.

use std::collections::HashMap;
use std::ops::Range;

use penstock_policy::document::Node;

use super::error::NotYaml;
use super::located::{Located, ValuePlace};
use super::scalar::Schema;

/// The maximum depth of protobuf's parser.
const DEEPEST: usize = 100;

/// Parses one value, with nothing after it.
///
/// # Errors
/// Returns an error for text that protobuf's parser refuses, too.
pub fn read(text: &str) -> Result<Located, NotYaml> {
    let mut reader = EnvoyJsonReader { text, at: 0, places: HashMap::new() };
    let node = reader.value("", None, 0)?;
    reader.space();
    match reader.peek() {
        None => Ok(Located { node, schema: Schema::Json, places: reader.places, surprises: Vec::new() }),
        Some(_) => Err(wrong(reader.at, "there is more text after the end of the value")),
    }
}

fn wrong(at: usize, message: impl Into<String>) -> NotYaml {
    NotYaml { language: "JSON", ..NotYaml::at(at, message) }
}

struct EnvoyJsonReader<'t> {
    text: &'t str,
    at: usize,
    places: HashMap<String, ValuePlace>,
}

impl EnvoyJsonReader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Skips this text if it comes next.
    fn passes(&mut self, wanted: char) -> bool {
        self.space();
        let comes = self.peek() == Some(wanted);
        self.at += usize::from(comes);
        comes
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn value(&mut self, path: &str, key: Option<Range<usize>>, depth: usize) -> Result<Node, NotYaml> {
        self.space();
        let start = self.at;
        if depth > DEEPEST {
            return Err(wrong(start, format!("values are nested deeper than {DEEPEST} levels")));
        }
        let node = match self.peek() {
            Some('{') => self.map(path, depth)?,
            Some('[') => self.list(path, depth)?,
            Some('"' | '\'') => Node::String(self.string()?),
            Some(_) => self.word()?,
            None => return Err(wrong(start, "the text ends where a value should begin")),
        };
        self.places.insert(path.to_owned(), ValuePlace { key, value: start..self.at });
        Ok(node)
    }

    fn map(&mut self, path: &str, depth: usize) -> Result<Node, NotYaml> {
        self.at += 1;
        let mut entries = Vec::new();
        if self.passes('}') {
            return Ok(Node::Map(entries));
        }
        loop {
            self.space();
            let start = self.at;
            let name = match self.peek() {
                Some('"' | '\'') => self.string()?,
                _ => self.name()?,
            };
            let key = start..self.at;
            if !self.passes(':') {
                return Err(wrong(self.at, "expected `:`"));
            }
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let node = self.value(&below, Some(key), depth + 1)?;
            entries.push((name, node));
            if self.ends('}')? {
                return Ok(Node::Map(entries));
            }
        }
    }

    fn list(&mut self, path: &str, depth: usize) -> Result<Node, NotYaml> {
        self.at += 1;
        let mut items = Vec::new();
        if self.passes(']') {
            return Ok(Node::List(items));
        }
        loop {
            let node = self.value(&format!("{path}[{}]", items.len()), None, depth + 1)?;
            items.push(node);
            if self.ends(']')? {
                return Ok(Node::List(items));
            }
        }
    }

    /// Whether a list or map ends here; otherwise skips a comma. One comma is allowed before the end.
    fn ends(&mut self, close: char) -> Result<bool, NotYaml> {
        let has_comma = self.passes(',');
        match self.passes(close) {
            true => Ok(true),
            false if has_comma => Ok(false),
            false if self.peek().is_none() => Err(wrong(self.at, format!("the text ends before a `{close}`"))),
            false => Err(wrong(self.at, format!("expected `,` or `{close}`"))),
        }
    }

    /// A name without quotes.
    fn name(&mut self) -> Result<String, NotYaml> {
        let start = self.at;
        let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
        while self.peek().is_some_and(|c| is_first(c) || (self.at > start && c.is_ascii_digit())) {
            self.at += 1;
        }
        match self.text.get(start..self.at).unwrap_or_default() {
            "" => Err(wrong(start, "expected the name of a field")),
            word @ ("true" | "false" | "null") => Err(wrong(start, format!("a field cannot be called {word}"))),
            name => Ok(name.to_owned()),
        }
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> Result<Node, NotYaml> {
        let start = self.at;
        let rest = self.rest();
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c))).unwrap_or(rest.len());
        self.at += length;
        let word = self.text.get(start..self.at).unwrap_or_default();
        Node::from_json(word.as_bytes())
            .map_err(|_| wrong(start, "expected a value: put strings in quotes, and write numbers as in JSON"))
    }

    /// A string in double or single quotes.
    fn string(&mut self) -> Result<String, NotYaml> {
        let start = self.at;
        let quote = self.next();
        let mut out = String::new();
        loop {
            let at = self.at;
            match self.next() {
                None => return Err(wrong(start, "the quote is never closed")),
                c if c == quote => return Ok(out),
                Some('\\') => match self.next() {
                    Some('\'') => out.push('\''),
                    Some('u') => {
                        // Two escapes may form one character.
                        let mut end = at + 6;
                        if self.text.get(end..end + 2) == Some("\\u") && !self.is_character(at..end) {
                            end += 6;
                        }
                        let escape = format!("\"{}\"", self.text.get(at..end).unwrap_or_default());
                        match Node::from_json(escape.as_bytes()) {
                            Ok(Node::String(text)) => out += &text,
                            _ => return Err(wrong(at, "the escape is not a character")),
                        }
                        self.at = end;
                    }
                    Some(c) => {
                        let escape = match c {
                            '"' | '\\' | '/' => c,
                            'b' => '\u{8}',
                            'f' => '\u{c}',
                            'n' => '\n',
                            'r' => '\r',
                            't' => '\t',
                            _ => return Err(wrong(at, format!("`\\{c}` is not an escape in JSON"))),
                        };
                        out.push(escape);
                    }
                    None => return Err(wrong(start, "the quote is never closed")),
                },
                Some(c) => out.push(c),
            }
        }
    }

    /// Whether a single escape is a character.
    fn is_character(&self, escape: Range<usize>) -> bool {
        let escape = format!("\"{}\"", self.text.get(escape).unwrap_or_default());
        Node::from_json(escape.as_bytes()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Envoy 1.36 to 1.40 accept and refuse in the metadata of a node; `integration/tests/corpus` verifies it with
    /// Envoy.
    #[test]
    fn what_protobuf_takes_beyond_json_is_read() {
        for (text, expected) in [
            (r#"{"a": [1, 2,], "b": {"c": 1,},}"#, r#"{"a":[1,2],"b":{"c":1}}"#),
            (r#"{a: 1, _b2: 2}"#, r#"{"a":1,"_b2":2}"#),
            (r#"{'a': 'it"s', "b": "it's", 'c': 'it\'s'}"#, r#"{"a":"it\"s","b":"it's","c":"it's"}"#),
            ("{\"a\": \"x\n\ty\"}", r#"{"a":"x\n\ty"}"#),
            (r#"{"a": "\u00E9\ud83d\ude00\n\/"}"#, "{\"a\":\"é😀\\n/\"}"),
            (r#"{"a": -0.5e1, "b": true, "c": null, "d": {}, "e": []}"#, r#"{"a":-5,"b":true,"c":null,"d":{},"e":[]}"#),
        ] {
            let read = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(read.node.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_protobuf_refuses_is_refused() {
        for inside in [
            r#""a": "\q""#,
            r#""a": "\0""#,
            "$a: 1",
            "a-b: 1",
            "1a: 1",
            "null: 1",
            "é: 1",
            r#""a": [1,,2]"#,
            r#""a": [,1]"#,
            r#""a": [,]"#,
            r#""a": {,}"#,
            r#""a": 1; "b": 2"#,
            r#""a": 1 "b": 2"#,
            r#""a"=1"#,
            r#""a": +1"#,
            r#""a": .5"#,
            r#""a": 5."#,
            r#""a": -"#,
            r#""a": NaN"#,
            r#""a": True"#,
            r#""a": 01"#,
            r#""a": 1a"#,
            r#""a": abc"#,
            r#""a": "\u12""#,
            r#""a": "\ude00\ud83d""#,
            r#""a": "\ud83d""#,
            "// x",
            "# x",
            r#""a": "x"#,
            r#""a": [1"#,
            "",
        ] {
            let text = format!("{{{inside}");
            assert!(read(&text).is_err() && (inside.is_empty() || read(&format!("{text}}}")).is_err()), "{inside}");
        }
        for text in ["", "  ", "{} {}", "{},", "\u{feff}{}", "{}\u{a0}", &"[".repeat(50_000)] {
            assert!(read(text).is_err(), "{text:.20}");
        }
    }

    #[test]
    fn every_value_has_its_place() {
        let text = "{a: {'b': [1, 'x'],},}";
        let located = read(text).unwrap();
        let at = |path: &str, key| &text[located.span(path, key)];
        assert_eq!((at("a.b", true), at("a.b[1]", false), at("a", true)), ("'b'", "'x'", "a"));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn strict_json_is_read_as_strict_json(depth in 0usize..4, text in "\\PC{0,12}", number in proptest::num::f64::NORMAL) {
            let mut value = serde_json::json!({"a": text, "b": number, "c": [true, null, "\u{1}"]});
            for _ in 0..depth {
                value = serde_json::json!({ text.clone(): [value] });
            }
            let json = value.to_string();
            proptest::prop_assert_eq!(read(&json).unwrap().node, Node::from_json(json.as_bytes()).unwrap());
        }
    }
}
