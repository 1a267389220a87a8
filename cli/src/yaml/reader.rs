//! Converts the parser's events to trees.

use std::collections::HashMap;
use std::ops::Range;

use libyaml_safer::{EventData, Mark, Parser, ScalarStyle};
use penstock_policy::document::Node;

use super::error::NotYaml;
use super::explain;
use super::located::{Located, ValuePlace};
use super::scalar::{Schema, Surprise, plain};

/// The maximum depth, which is that of the module's JSON parser.
const DEEPEST: usize = 128;

/// The maximum number of values after expansion; aliases multiply ("billion laughs").
const MOST_VALUES: usize = 1_000_000;

/// The number of bytes of text that count as one more value.
const BYTES_A_VALUE: usize = 64;

/// The fields that identify a document as an Envoy configuration: a bootstrap, a response of a discovery service, a
/// route configuration.
const ENVOY_FIELDS: [&str; 8] = [
    "static_resources",
    "staticResources",
    "dynamic_resources",
    "dynamicResources",
    "resources",
    "@type",
    "virtual_hosts",
    "virtualHosts",
];

/// An event with its byte range.
struct YamlEvent {
    data: EventData,
    span: Range<usize>,
}

/// Parses every document of a text.
pub fn read(text: &str) -> Result<Vec<Located>, NotYaml> {
    let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let (guarded, guards) = guarded(text.get(start..).unwrap_or_default());
    let byte = |mark: Mark| {
        let index = usize::try_from(mark.index).unwrap_or(usize::MAX);
        let before = guards.partition_point(|guard| *guard < index);
        (start + index.saturating_sub(before * GUARD.len_utf8())).min(text.len())
    };
    let mut bytes = guarded.as_bytes();
    let mut parser = Parser::<&mut &[u8]>::new();
    parser.set_input_string(&mut bytes);
    let mut documents = Vec::new();
    let mut events: Vec<YamlEvent> = Vec::new();
    let mut depth = 0usize;
    loop {
        let event = match parser.parse() {
            Ok(event) => event,
            // Envoy reads the first document and ignores the others.
            Err(_) if documents.first().is_some_and(|first: &Located| first.schema == Schema::Envoy) => break,
            Err(error) => return Err(explain::yaml(&error, text, &byte)),
        };
        let span = byte(event.start_mark)..byte(event.end_mark);
        match event.data {
            EventData::StreamEnd => break,
            EventData::StreamStart { .. } | EventData::DocumentStart { .. } => {}
            EventData::DocumentEnd { .. } => {
                documents.push(Builder::new(std::mem::take(&mut events)).document()?);
            }
            mut data => {
                if let (EventData::Scalar { value, .. }, false) = (&mut data, guards.is_empty()) {
                    value.retain(|c| c != GUARD);
                }
                match &data {
                    EventData::SequenceStart { .. } | EventData::MappingStart { .. } => depth += 1,
                    EventData::SequenceEnd | EventData::MappingEnd => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth > DEEPEST {
                    return Err(NotYaml::at(span.start, format!("values are nested deeper than {DEEPEST} levels")));
                }
                events.push(YamlEvent { data, span });
            }
        }
    }
    if documents.is_empty() {
        let empty = Located { node: Node::Null, schema: Schema::Core, places: HashMap::new(), surprises: Vec::new() };
        documents.push(empty);
    }
    Ok(documents)
}

/// A private-use character that does not occur in the text.
const GUARD: char = '\u{f8ff}';

/// Prepares the text for the parser, and returns the places of the inserted guard characters. The parser fails on a tag
/// that a comma ends (`[!a, b]`) and on a last line without a line break; a guard character makes the first an ordinary
/// error, and is removed from text that was not a tag.
fn guarded(text: &str) -> (String, Vec<usize>) {
    let mut out = String::with_capacity(text.len() + 1);
    let mut guards = Vec::new();
    let (mut in_tag, has_guard) = (false, text.contains(GUARD));
    for c in text.chars() {
        match c {
            '!' => in_tag = true,
            ',' if in_tag && !has_guard => {
                // A `'` may belong to a tag, or end a quoted text with a `!` in it: before it, the guard suits both.
                let at = out.trim_end_matches('\'').len();
                guards.push(at);
                out.insert(at, GUARD);
                in_tag = false;
            }
            // No tag has it: a quoted text with a `!` in it ends here.
            '"' => in_tag = false,
            _ if c.is_whitespace() => in_tag = false,
            _ => {}
        }
        out.push(c);
    }
    out.push('\n');
    (out, guards)
}

/// A document under construction.
struct Builder {
    events: Vec<YamlEvent>,
    schema: Schema,
    places: HashMap<String, ValuePlace>,
    surprises: Vec<(String, Surprise)>,
    /// The index of the event at which each anchor's value starts.
    anchors: HashMap<String, usize>,
    budget: usize,
}

/// A value, and the index of the first event after it.
type Built = (Node, usize);

impl Builder {
    fn new(events: Vec<YamlEvent>) -> Builder {
        let schema = schema(&events);
        Builder {
            events,
            schema,
            places: HashMap::new(),
            surprises: Vec::new(),
            anchors: HashMap::new(),
            budget: MOST_VALUES,
        }
    }

    fn document(mut self) -> Result<Located, NotYaml> {
        let (node, _) = self.value(0, "", None, None, 0)?;
        Ok(Located { node, schema: self.schema, places: self.places, surprises: self.surprises })
    }

    /// The value that starts at event `at`. Inside an alias, `alias` is the place of the alias.
    fn value(
        &mut self,
        at: usize,
        path: &str,
        key: Option<Range<usize>>,
        alias: Option<&Range<usize>>,
        depth: usize,
    ) -> Result<Built, NotYaml> {
        let Some(YamlEvent { data, span }) = self.events.get(at) else { return Ok((Node::Null, at + 1)) };
        let here = alias.cloned().unwrap_or_else(|| span.clone());
        if depth > DEEPEST {
            return Err(NotYaml::at(here.start, format!("values are nested deeper than {DEEPEST} levels")));
        }
        let anchor = match data {
            EventData::Scalar { anchor, .. }
            | EventData::SequenceStart { anchor, .. }
            | EventData::MappingStart { anchor, .. } => anchor.clone(),
            _ => None,
        };
        let mut cost = 1;
        let (node, next) = match data {
            EventData::Scalar { value, tag, style, .. } => {
                cost += value.len() / BYTES_A_VALUE;
                let is_plain = *style == ScalarStyle::Plain;
                let (node, surprise) = scalar(value, tag.as_deref(), is_plain, self.schema, &here)?;
                if let Some(surprise) = surprise {
                    self.surprises.push((path.to_owned(), surprise));
                }
                (node, at + 1)
            }
            EventData::SequenceStart { .. } => self.list(at + 1, path, alias, depth)?,
            EventData::MappingStart { .. } => self.map(at + 1, path, alias, depth)?,
            EventData::Alias { anchor } => {
                let Some(start) = self.anchors.get(anchor).copied() else {
                    let message = format!("`*{anchor}` has no anchor `&{anchor}` before it");
                    let help = format!(
                        "put a text that begins with `*` in quotes: \"*{anchor}\"; an anchor is only valid in its own document"
                    );
                    return Err(NotYaml::at(here.start, message).help(&help));
                };
                let (node, _) = self.value(start, path, key.clone(), Some(&here), depth)?;
                (node, at + 1)
            }
            _ => return Err(NotYaml::at(here.start, "a value is missing here")),
        };
        self.budget = self.budget.checked_sub(cost).ok_or_else(|| {
            NotYaml::at(here.start, format!("the document expands to more than a million values or {} MB", 64))
        })?;
        // The last event of the value closes what this one opened.
        let end = self.events.get(next.saturating_sub(1)).map_or(here.end, |event| event.span.end);
        let value = if alias.is_some() { here } else { here.start..end.max(here.start) };
        if alias.is_none() {
            self.places.insert(path.to_owned(), ValuePlace { key, value });
        }
        if let (Some(anchor), None) = (anchor, alias) {
            self.anchors.insert(anchor, at);
        }
        Ok((node, next))
    }

    fn list(
        &mut self,
        mut at: usize,
        path: &str,
        alias: Option<&Range<usize>>,
        depth: usize,
    ) -> Result<Built, NotYaml> {
        let mut items = Vec::new();
        loop {
            if let None | Some(YamlEvent { data: EventData::SequenceEnd, .. }) = self.events.get(at) {
                return Ok((Node::List(items), at + 1));
            }
            let path = format!("{path}[{}]", items.len());
            let (node, next) = self.value(at, &path, None, alias, depth + 1)?;
            items.push(node);
            at = next;
        }
    }

    fn map(&mut self, mut at: usize, path: &str, alias: Option<&Range<usize>>, depth: usize) -> Result<Built, NotYaml> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        // Values from merge keys; fields of the map itself take precedence.
        let mut merged: Vec<(String, Node)> = Vec::new();
        loop {
            let Some(YamlEvent { data, span }) = self.events.get(at) else { return Ok((Node::Map(entries), at + 1)) };
            let here = alias.cloned().unwrap_or_else(|| span.clone());
            let (name, is_plain, tag) = match data {
                EventData::MappingEnd => break,
                EventData::Scalar { value, style, tag, .. } => {
                    (value.clone(), *style == ScalarStyle::Plain, tag.clone())
                }
                EventData::Alias { anchor } => (self.alias_text(anchor, &here)?, false, None),
                _ => {
                    return Err(NotYaml::at(here.start, "a field's name must be text, not a list or a map")
                        .help("put a value that begins with `{` in quotes; render a template (`{{ … }}`) first"));
                }
            };
            // Envoy does not support merge keys.
            if is_plain && tag.is_none() && name == "<<" && self.schema != Schema::Envoy {
                let (nodes, next) = self.merge(at + 1, path, alias, depth)?;
                self.merge_into(nodes, &mut entries, &mut merged, path, &here);
                at = next;
                continue;
            }
            let (name, surprise) = self.key(name, is_plain && tag.is_none(), &here)?;
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if let Some(surprise) = surprise {
                self.surprises.push((path.clone(), surprise));
            }
            let (node, next) = self.value(at + 1, &path, Some(here), alias, depth + 1)?;
            entries.push((name, node));
            at = next;
        }
        for (name, node) in merged {
            if !entries.iter().any(|(known, _)| *known == name) {
                entries.push((name, node));
            }
        }
        Ok((Node::Map(entries), at + 1))
    }

    /// The maps that a merge key's value refers to.
    fn merge(
        &mut self,
        at: usize,
        path: &str,
        alias: Option<&Range<usize>>,
        depth: usize,
    ) -> Result<(Vec<Node>, usize), NotYaml> {
        let here = self.events.get(at).map_or(0..0, |event| event.span.clone());
        let here = alias.cloned().unwrap_or(here);
        // The place of their values is the merge key, unless the map itself has a place for them.
        let (node, next) = self.value(at, &format!("{path}.<<"), None, alias, depth + 1)?;
        let maps = match node {
            Node::List(items) => items,
            other => vec![other],
        };
        match maps.iter().all(|map| matches!(map, Node::Map(_))) {
            true => Ok((maps, next)),
            false => Err(NotYaml::at(here.start, "the value of the merge key `<<` must be a map, or a list of maps")
                .help("write `<<: *anchor`")),
        }
    }

    /// Adds the fields of merged maps: the first map takes precedence over later ones. In YAML, fields of the map
    /// itself take precedence over all; in kubectl, a merge key takes precedence over fields before it.
    fn merge_into(
        &mut self,
        maps: Vec<Node>,
        entries: &mut [(String, Node)],
        merged: &mut Vec<(String, Node)>,
        path: &str,
        here: &Range<usize>,
    ) {
        for map in maps {
            let Node::Map(fields) = map else { continue };
            for (name, node) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let whole = self.places.get(&format!("{}.<<", path.rsplit_once('.').map_or("", |(above, _)| above)));
                let value = whole.map_or_else(|| here.clone(), |place| place.value.clone());
                let place = ValuePlace { key: Some(here.clone()), value };
                if merged.iter().any(|(known, _)| *known == name) {
                    continue;
                }
                merged.push((name.clone(), node.clone()));
                if self.schema == Schema::Kubernetes
                    && let Some(entry) = entries.iter_mut().find(|(known, _)| *known == name)
                {
                    entry.1 = node;
                    self.places.insert(path, place);
                } else {
                    self.places.entry(path).or_insert(place);
                }
            }
        }
    }

    /// The name of a field as its reader interprets it.
    fn key(&self, name: String, is_plain: bool, here: &Range<usize>) -> Result<(String, Option<Surprise>), NotYaml> {
        if !is_plain {
            return Ok((name, None));
        }
        let (node, surprise) = plain(&name, self.schema);
        let surprise = surprise.filter(|surprise| matches!(surprise, Surprise::Word(_)));
        if self.schema != Schema::Kubernetes {
            return Ok((name, None));
        }
        match node {
            Node::Bool(value) => Ok((value.to_string(), surprise.map(|_| Surprise::Key(name)))),
            Node::Null if !name.is_empty() => {
                Err(NotYaml::at(here.start, format!("a field cannot be called {name}")).help("put the name in quotes"))
            }
            Node::Integer(number) => Ok((number.to_string(), None)),
            _ => Ok((name, None)),
        }
    }

    /// The text of an alias that is used as a field's name.
    fn alias_text(&self, anchor: &str, here: &Range<usize>) -> Result<String, NotYaml> {
        match self.anchors.get(anchor).and_then(|at| self.events.get(*at)) {
            Some(YamlEvent { data: EventData::Scalar { value, .. }, .. }) => Ok(value.clone()),
            _ => {
                Err(NotYaml::at(here.start, format!("`*{anchor}` does not stand for text, so it cannot name a field")))
            }
        }
    }
}

/// A scalar with a tag, or quoted, or plain.
fn scalar(
    value: &str,
    tag: Option<&str>,
    is_plain: bool,
    schema: Schema,
    here: &Range<usize>,
) -> Result<(Node, Option<Surprise>), NotYaml> {
    let text = || Ok((Node::String(value.to_owned()), None));
    if schema == Schema::Envoy {
        // Only the tag `!` makes a string, as quotes do; the meaning of other tags is ignored.
        return match tag {
            None if is_plain => Ok(plain(value, schema)),
            None | Some("!") => text(),
            Some(_) => Ok(plain(value, schema)),
        };
    }
    match tag.map(|tag| tag.strip_prefix("tag:yaml.org,2002:").unwrap_or(tag)) {
        None if is_plain && schema == Schema::Kubernetes && is_infinite(value) => {
            Err(NotYaml::at(here.start, format!("kubectl reads {value} as a number that JSON does not have"))
                .help("put it in quotes if it is text"))
        }
        None if is_plain => Ok(plain(value, schema)),
        None | Some("!" | "str") => text(),
        Some(kind @ ("int" | "float" | "bool" | "null")) => {
            // The meaning of `!!bool yes` and the like is explicit, so no reader is surprised.
            let (node, _) = plain(value, if kind == "bool" { Schema::Kubernetes } else { schema });
            match (kind, node) {
                ("int", node @ Node::Integer(_))
                | ("float", node @ (Node::Integer(_) | Node::Float(_)))
                | ("bool", node @ Node::Bool(_))
                | ("null", node @ Node::Null) => Ok((node, None)),
                _ => Err(NotYaml::at(here.start, format!("{value:?} is not a value of the tag `!!{kind}`"))),
            }
        }
        Some("binary") => Err(NotYaml::at(here.start, "a policy cannot contain binary values")),
        // An application's own tag: kubectl ignores it.
        Some(_) if is_plain => Ok(plain(value, schema)),
        Some(_) => text(),
    }
}

/// YAML's words for special numbers.
fn is_infinite(value: &str) -> bool {
    let word = value.strip_prefix(['+', '-']).unwrap_or(value);
    matches!(word, ".inf" | ".Inf" | ".INF") || matches!(value, ".nan" | ".NaN" | ".NAN")
}

/// The reader of a document: a Kubernetes object has `apiVersion` and `kind`, an Envoy configuration has one of its
/// fields.
fn schema(events: &[YamlEvent]) -> Schema {
    let mut depth = 0;
    let mut is_key = true;
    let (mut is_kubernetes, mut is_envoy) = (0, false);
    for event in events {
        match &event.data {
            EventData::Scalar { value, .. } if depth == 1 => {
                if is_key {
                    is_kubernetes += usize::from(value == "apiVersion" || value == "kind");
                    is_envoy |= ENVOY_FIELDS.contains(&value.as_str());
                }
                is_key = !is_key;
            }
            EventData::Alias { .. } if depth == 1 => is_key = !is_key,
            EventData::MappingStart { .. } | EventData::SequenceStart { .. } => depth += 1,
            EventData::MappingEnd | EventData::SequenceEnd => {
                depth -= 1;
                if depth == 1 {
                    is_key = !is_key;
                }
            }
            _ => {}
        }
    }
    let is_map = matches!(events.first(), Some(YamlEvent { data: EventData::MappingStart { .. }, .. }));
    match (is_map, is_kubernetes) {
        (true, 2..) => Schema::Kubernetes,
        (true, _) if is_envoy => Schema::Envoy,
        _ => Schema::Core,
    }
}
