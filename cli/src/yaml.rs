//! YAML (and so JSON) to the document's tree, remembering where each value stands.

use std::collections::HashMap;
use std::ops::Range;

use penstock_policy::document::Node;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// The tree of a file, and the place of each value in its text.
#[derive(Debug)]
pub struct Located {
    /// The document.
    pub node: Node,
    places: HashMap<String, Place>,
}

/// Where a value stands, as byte ranges of the text.
#[derive(Clone, Debug)]
struct Place {
    key: Option<Range<usize>>,
    value: Range<usize>,
}

/// Text that is not one YAML document.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct NotYaml {
    /// What is wrong, in one line.
    pub message: String,
    /// Byte offset in the text.
    pub at: usize,
}

impl Located {
    /// Reads YAML 1.2, of which JSON is a part. Empty text is `null`.
    ///
    /// # Errors
    /// Syntax, several documents, a mapping key that is no string, or aliases that expand to more than a million
    /// values.
    pub fn read(text: &str) -> Result<Located, NotYaml> {
        let mut reader = Reader::new(text);
        let yaml = reader.document();
        // JSON that a YAML parser stumbles over (tabs, escaped surrogates) is still JSON; only the places are lost.
        match Node::from_json(text.as_bytes()) {
            Ok(node) => Ok(Located { node, places: yaml.map_or_else(|_| HashMap::new(), |_| reader.places) }),
            Err(_) => Ok(Located { node: yaml?, places: reader.places }),
        }
    }

    /// Reads any number of documents, each with its places in the whole text; at least one.
    ///
    /// # Errors
    /// As for [`Located::read`].
    pub fn read_all(text: &str) -> Result<Vec<Located>, NotYaml> {
        if Node::from_json(text.as_bytes()).is_ok() {
            return Ok(vec![Located::read(text)?]);
        }
        let mut reader = Reader::new(text);
        let mut documents = Vec::new();
        loop {
            let (event, span) = reader.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => {
                    let node = reader.value(event, &span, "", None)?;
                    documents.push(Located { node, places: std::mem::take(&mut reader.places) });
                }
            }
        }
        if documents.is_empty() {
            documents.push(Located { node: Node::Null, places: HashMap::new() });
        }
        Ok(documents)
    }

    /// The bytes to point at for a problem at `path`: the value, or with `key` the name of the field; for what is
    /// missing the nearest enclosing value.
    pub fn span(&self, path: &str, key: bool) -> Range<usize> {
        let mut path = path;
        let mut exact = true;
        loop {
            if let Some(place) = self.places.get(path) {
                return match &place.key {
                    // The whole of an enclosing value would be too much: its name will do.
                    Some(name) if key || !exact => name.clone(),
                    _ => place.value.clone(),
                };
            }
            exact = false;
            path = match path.rfind(['.', '[']) {
                Some(end) => path.get(..end).unwrap_or_default(),
                None if path.is_empty() => return 0..0,
                None => "",
            };
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    /// Byte offset of each character: the parser counts characters.
    offsets: Vec<usize>,
    places: HashMap<String, Place>,
    anchors: HashMap<usize, Node>,
    /// Values that may still be made: aliases multiply ("billion laughs").
    budget: usize,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Reader<'t> {
        Reader {
            parser: Parser::new_from_str(text),
            offsets: text.char_indices().map(|(at, _)| at).chain([text.len()]).collect(),
            places: HashMap::new(),
            anchors: HashMap::new(),
            budget: 1_000_000,
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), NotYaml> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                Err(NotYaml { message: error.info().to_owned(), at: self.byte(error.marker().index()) })
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn byte(&self, character: usize) -> usize {
        self.offsets.get(character).or(self.offsets.last()).copied().unwrap_or(0)
    }

    fn range(&self, span: &Span) -> Range<usize> {
        self.byte(span.start.index())..self.byte(span.end.index())
    }

    fn error<T>(&self, message: &str, span: &Span) -> Result<T, NotYaml> {
        Err(NotYaml { message: message.to_owned(), at: self.byte(span.start.index()) })
    }

    fn document(&mut self) -> Result<Node, NotYaml> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root.unwrap_or(Node::Null)),
                Event::DocumentStart(_) if root.is_some() => {
                    return self.error(
                        "found a second YAML document; a policy file holds one. For manifests use `penstock check`",
                        &span,
                    );
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => root = Some(self.value(event, &span, "", None)?),
            }
        }
    }

    /// The value that begins with `event`, with everything inside.
    fn value(&mut self, event: Event<'t>, span: &Span, path: &str, key: Option<Range<usize>>) -> Result<Node, NotYaml> {
        self.spend(1, span)?;
        let mut end = *span;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                if tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "binary") {
                    return self.error("binary values have no place in a policy", span);
                }
                let plain = style == ScalarStyle::Plain;
                (if plain { plain_scalar(&text) } else { Node::String(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    if matches!(event, Event::SequenceEnd) {
                        end = span;
                        break;
                    }
                    let path = format!("{path}[{}]", items.len());
                    items.push(self.value(event, &span, &path, None)?);
                }
                (Node::List(items), anchor)
            }
            Event::MappingStart(anchor, _) => {
                let mut entries: Vec<(String, Node)> = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    let name = match event {
                        Event::MappingEnd => {
                            end = span;
                            break;
                        }
                        Event::Scalar(name, ..) => name.into_owned(),
                        _ => return self.error("a field's name must be a string", &span),
                    };
                    let key = self.range(&span);
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    let (event, span) = self.next()?;
                    let node = self.value(event, &span, &path, Some(key))?;
                    entries.push((name, node));
                }
                (Node::Map(entries), anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return self.error("this alias has no anchor before it", span);
                };
                self.spend(size(&node), span)?;
                (node, 0)
            }
            _ => return self.error("a value is missing here", span),
        };
        let start = self.range(span);
        let value = start.start..self.range(&end).end.max(start.end);
        self.places.insert(path.to_owned(), Place { key, value });
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn spend(&mut self, values: usize, span: &Span) -> Result<(), NotYaml> {
        match self.budget.checked_sub(values) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => self.error("the document expands to more than a million values", span),
        }
    }
}

/// How many values a tree has.
fn size(node: &Node) -> usize {
    match node {
        Node::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Node::Map(entries) => 1 + entries.iter().map(|(_, node)| size(node)).sum::<usize>(),
        _ => 1,
    }
}

/// A plain scalar by the core schema of YAML 1.2.2 (§10.3.2): `on` and `no` are strings.
fn plain_scalar(text: &str) -> Node {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Node::Null,
        "true" | "True" | "TRUE" => return Node::Bool(true),
        "false" | "False" | "FALSE" => return Node::Bool(false),
        _ => {}
    }
    let radix = |prefix: &str, radix| text.strip_prefix(prefix).map(|digits| i64::from_str_radix(digits, radix));
    if let Some(Ok(number)) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Node::Integer(number);
    }
    if let Ok(number) = text.parse::<i64>() {
        return Node::Integer(number);
    }
    // Rust reads "inf", "nan" and "infinity" too; YAML wants a digit.
    if text.bytes().any(|b| b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
        && let Ok(number) = text.parse::<f64>()
    {
        return Node::Float(number);
    }
    Node::String(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(yaml: &str) -> String {
        Located::read(yaml).unwrap().node.to_string()
    }

    #[test]
    fn yaml_and_json_give_the_same_tree() {
        assert_eq!(
            json("a: {b: [1, x, 'y', \"z\"]}\nc:\n- d: true\n"),
            r#"{"a":{"b":[1,"x","y","z"]},"c":[{"d":true}]}"#
        );
        assert_eq!(json(r#"{"a":{"b":[1,"x\n"]}}"#), r#"{"a":{"b":[1,"x\n"]}}"#);
        assert_eq!(json(""), "null");
        assert_eq!(json("{\n\t\"a\":\t\"\\ud83d\\ude00\"}"), "{\"a\":\"😀\"}");
    }

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        assert_eq!(
            json("[on, no, ~, 0x1f, 0o17, 1e3, 1.5, .inf, 1_000, 'null']"),
            r#"["on","no",null,31,15,1000,1.5,".inf","1_000","null"]"#
        );
        assert_eq!(plain_scalar("-5"), Node::Integer(-5));
        assert_eq!(plain_scalar("5s"), Node::String("5s".into()));
        assert_eq!(plain_scalar("nan"), Node::String("nan".into()));
    }

    #[test]
    fn anchors_are_followed_but_cannot_explode() {
        assert_eq!(json("a: &x [1]\nb: *x\n"), r#"{"a":[1],"b":[1]}"#);
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            bomb += &format!("a{i}: &a{i} [{refs}]\n");
        }
        assert!(Located::read(&bomb).unwrap_err().message.contains("million"));
    }

    #[test]
    fn every_value_is_found_in_the_text() {
        let text = "é: 1\nroutes:\n  rules:\n  - name: a\n    route: 'b c'\n";
        let located = Located::read(text).unwrap();
        let at = |path: &str, key| &text[located.span(path, key)];
        assert_eq!(at("routes.rules[0].route", false), "'b c'");
        assert_eq!(at("routes.rules[0].name", true), "name");
        assert_eq!(at("routes.rules[0].timeout", false), "name: a\n    route: 'b c'\n", "what is missing: its parent");
        assert_eq!(at("routes.default", false), "routes");
    }

    #[test]
    fn syntax_errors_say_where() {
        let error = Located::read("a: [1,\nb: }").unwrap_err();
        assert!(error.at >= 6, "{error:?}");
        assert!(Located::read("a: 1\n---\nb: 2\n").unwrap_err().message.contains("second YAML document"));
        assert!(Located::read("a: *x").is_err());
    }
}
