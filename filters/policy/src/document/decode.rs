//! From the tree to types, collecting every problem on the way instead of stopping at the first.

use super::node::Node;
use super::problem::{At, Problem};
use super::unread;
use crate::trie::Trie;

/// What decoding carries along: the problems so far, and what some values depend on.
#[derive(Debug)]
pub struct Context<'s> {
    /// The text of the document, when lists of the tree are only places in it.
    pub source: &'s str,
    /// Whether a list of `source` turned out to be no JSON.
    pub is_unreadable: bool,
    /// Name of the route header, in lower case: no condition may look at it and no rule may touch it.
    pub route_header: String,
    /// Bytes that compiled regular expressions may still take in this document.
    pub regex_budget: usize,
    problems: Vec<Problem>,
}

impl Context<'_> {
    /// A context without problems; `regex_budget` in bytes.
    pub fn new(route_header: String, regex_budget: usize) -> Self {
        Context { source: "", is_unreadable: false, route_header, regex_budget, problems: Vec::new() }
    }

    /// Notes that the value `node` at `at` is wrong.
    #[inline(never)]
    pub fn problem(&mut self, at: &At<'_>, node: &Node, message: impl Into<String>, help: impl Into<Option<String>>) {
        let value = match node {
            Node::Null => None,
            node => Some(node.to_string()),
        };
        self.push(at, value, message.into(), help.into());
    }

    /// Notes a problem that is not about one value.
    #[inline(never)]
    pub fn problem_at(&mut self, at: &At<'_>, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.push(at, None, message.into(), help.into());
    }

    fn push(&mut self, at: &At<'_>, value: Option<String>, message: String, help: Option<String>) {
        self.problems.push(Problem { path: at.to_string(), value, message, help });
    }

    /// The problems noted so far, in order.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}

/// A type that can be read from the document.
///
/// `None` means that at least one problem was noted; the caller goes on with its other fields.
pub trait Decode: Sized {
    /// What a reader should write here, with an article: "a string", "a list".
    const EXPECTED: &'static str;

    /// Reads `node`, found at `at`.
    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self>;

    /// The value when the field is absent. The default: it is required.
    fn absent(at: &At<'_>, cx: &mut Context) -> Option<Self> {
        cx.problem_at(at, format!("is required: expected {}", Self::EXPECTED), None);
        None
    }
}

/// Notes that `node` is of the wrong kind.
pub fn wrong_kind<T: Decode>(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<T> {
    note_wrong_kind(node, at, cx, T::EXPECTED);
    None
}

/// [`wrong_kind`] for all types: compiled once.
#[inline(never)]
fn note_wrong_kind(node: &Node, at: &At<'_>, cx: &mut Context, expected: &str) {
    if let (Node::Null, At::Root) = (node, at) {
        return cx.problem_at(at, "the document is empty", format!("expected {expected}"));
    }
    let help = match node {
        Node::Null => Some("give it a value or leave the field out".to_owned()),
        // Quotes around what YAML made of it would not help.
        Node::Bool(false) if expected.contains(" Off") => {
            Some("YAML 1.1, which Kubernetes reads, takes a bare Off for false: write \"Off\" in quotes".to_owned())
        }
        Node::Integer(_) | Node::Float(_) | Node::Bool(_) if expected.starts_with("a string: one of") => None,
        Node::Integer(_) | Node::Float(_) | Node::Bool(_) if expected.starts_with("a string") => {
            Some(format!("put it in quotes: \"{node}\""))
        }
        Node::String(text) if looks_unquoted(text) => Some(format!("write it without quotes: {text}")),
        _ => None,
    };
    cx.problem(at, node, format!("is {}, expected {expected}", node.kind()), help);
}

/// Whether text in quotes was probably meant as a number or boolean.
fn looks_unquoted(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    is_number || text == "true" || text == "false"
}

impl<T: Decode> Decode for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        T::decode(node, at, cx).map(Some)
    }

    fn absent(_: &At<'_>, _: &mut Context) -> Option<Self> {
        Some(None)
    }
}

impl Decode for String {
    const EXPECTED: &'static str = "a string";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        match node {
            Node::String(text) => Some(text.clone()),
            _ => wrong_kind::<Self>(node, at, cx),
        }
    }
}

impl Decode for bool {
    const EXPECTED: &'static str = "true or false";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        match node {
            Node::Bool(value) => Some(*value),
            _ => wrong_kind::<Self>(node, at, cx),
        }
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Whole<const MIN: u32, const MAX: u32>(pub u32);

impl<const MIN: u32, const MAX: u32> Decode for Whole<MIN, MAX> {
    const EXPECTED: &'static str = "a whole number";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        match node {
            Node::Integer(value) => match u32::try_from(*value) {
                Ok(value) if (MIN..=MAX).contains(&value) => Some(Self(value)),
                _ => {
                    cx.problem(at, node, "is out of range", format!("write a whole number from {MIN} to {MAX}"));
                    None
                }
            },
            Node::Float(_) => {
                cx.problem(at, node, "is not a whole number", format!("write one from {MIN} to {MAX}"));
                None
            }
            _ => wrong_kind::<Self>(node, at, cx),
        }
    }
}

/// A list that may be empty.
impl<T: Decode> Decode for Vec<T> {
    const EXPECTED: &'static str = "a list";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Some(length) = entries(node, cx) else { return wrong_kind::<Self>(node, at, cx) };
        let mut items = Vec::with_capacity(length);
        let all = each_entry(node, cx, &mut |i, node, cx| items.extend(T::decode(node, &at.index(i), cx)))?;
        (items.len() == all).then_some(items)
    }
}

/// A list with at least one element: where an empty one would mean "match everything" by accident.
#[derive(Clone, Debug)]
pub struct NonEmpty<T>(pub Vec<T>);

impl<T: Decode> Decode for NonEmpty<T> {
    const EXPECTED: &'static str = "a list with at least one entry";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        match node {
            Node::List(_) | Node::Unread(_) if entries(node, cx) == Some(0) => {
                cx.problem(at, node, "is empty", "give at least one entry, or leave the field out".to_owned());
                None
            }
            Node::List(_) | Node::Unread(_) => Vec::decode(node, at, cx).map(NonEmpty),
            _ => wrong_kind::<Self>(node, at, cx),
        }
    }
}

/// A list, possibly empty, whose entries have a `name` that no two share.
#[derive(Clone, Debug)]
pub struct Named<T>(pub Vec<T>);

/// An empty list.
impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

impl<T: Decode> Decode for Named<T> {
    const EXPECTED: &'static str = "a list";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let mut seen = Names::default();
        let Some(length) = entries(node, cx) else { return wrong_kind::<Self>(node, at, cx) };
        let mut items = Vec::with_capacity(length);
        let all = each_entry(node, cx, &mut |i, node, cx| {
            let is_unique = seen.insert(node, i, at, cx);
            items.extend(T::decode(node, &at.index(i), cx).filter(|_| is_unique));
        })?;
        (items.len() == all).then_some(Named(items))
    }
}

/// The names in a list, and which entry had each first. The trie of the matchers, so that there is no hash table of one more
/// kind in each module.
#[derive(Default)]
struct Names(Trie<u32>);

impl Names {
    /// Notes a problem, and is false, when the `name` of entry `i` is that of an earlier one.
    fn insert(&mut self, node: &Node, i: usize, at: &At<'_>, cx: &mut Context) -> bool {
        let Some(name @ Node::String(text)) = node.get("name") else { return true };
        let number = u32::try_from(i).unwrap_or(u32::MAX);
        let Some(slot) = self.0.slot([text.as_bytes()].into_iter()) else { return true };
        let Some(first) = slot.exact.replace(number) else { return true };
        let first_at = at.index(first as usize);
        cx.problem(
            &at.index(i).field("name"),
            name,
            format!("is already the name of {first_at}"),
            "name one of them differently".to_owned(),
        );
        false
    }
}

/// How many entries `node` has; `None` when it is no list.
fn entries(node: &Node, cx: &Context) -> Option<usize> {
    match node {
        Node::List(nodes) => Some(nodes.len()),
        Node::Unread(range) => Some(unread::count(cx.text(range))),
        _ => None,
    }
}

/// Shows `entry` what the list `node` has, in order, and counts it; `None` when it cannot be read.
fn each_entry(node: &Node, cx: &mut Context, entry: &mut dyn FnMut(usize, &Node, &mut Context)) -> Option<usize> {
    let mut count = 0;
    match node {
        Node::List(nodes) => {
            for (i, node) in nodes.iter().enumerate() {
                entry(i, node, cx);
                count += 1;
            }
        }
        Node::Unread(range) => {
            let source = cx.source;
            let text = source.get(range.start as usize..range.end as usize).unwrap_or_default();
            let read = unread::each(text, &mut |i, node| {
                entry(i, node, cx);
                count += 1;
            });
            if read.is_none() {
                cx.is_unreadable = true;
                return None;
            }
        }
        _ => return None,
    }
    Some(count)
}

/// The fields of an object: hands each out once, and knows which were never asked for.
#[derive(Debug)]
pub struct Fields<'n> {
    entries: &'n [(String, Node)],
}

impl<'n> Fields<'n> {
    /// Checks that `node` is an object with only `known` fields, none of them twice.
    pub fn open<T: Decode>(node: &'n Node, at: &At<'_>, cx: &mut Context, known: &[&str]) -> Option<Fields<'n>> {
        Fields::check(node, at, cx, known, T::EXPECTED)
    }

    /// The part of [`Fields::open`] that is the same for every type: compiled once.
    fn check(
        node: &'n Node,
        at: &At<'_>,
        cx: &mut Context,
        known: &[&str],
        expected: &'static str,
    ) -> Option<Fields<'n>> {
        let Node::Map(entries) = node else {
            note_wrong_kind(node, at, cx, expected);
            return None;
        };
        for (i, (key, value)) in entries.iter().enumerate() {
            if entries.iter().take(i).any(|(earlier, _)| earlier == key) {
                cx.problem(&at.field(key), value, "is given twice", "keep one".to_owned());
            } else if !known.contains(&key.as_str()) {
                unknown_field(key, &at.field(key), cx, known);
            }
        }
        Some(Fields { entries })
    }

    /// Reads the field `name`.
    pub fn get<T: Decode>(&self, name: &str, at: &At<'_>, cx: &mut Context) -> Option<T> {
        let here = at.field(name);
        match self.node(name) {
            Some(node) => T::decode(node, &here, cx),
            None => T::absent(&here, cx),
        }
    }

    /// Reads the field `name`, or takes `default` when it is absent.
    pub fn get_or<T: Decode>(&self, name: &str, default: T, at: &At<'_>, cx: &mut Context) -> Option<T> {
        match self.node(name) {
            Some(node) => T::decode(node, &at.field(name), cx),
            None => Some(default),
        }
    }

    /// Whether the field `name` is given.
    pub fn has(&self, name: &str) -> bool {
        self.node(name).is_some()
    }

    fn node(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(key, _)| key == name).map(|(_, node)| node)
    }
}

/// Notes a field that the object does not have, with those that it has.
#[inline(never)]
pub fn unknown_field(name: &str, at: &At<'_>, cx: &mut Context, known: &[&str]) {
    let help = match (name, known) {
        ("true", known) if known.contains(&"on") => {
            "YAML 1.1, which Kubernetes reads, takes a bare `on` for true: write \"on\" in quotes".to_owned()
        }
        (_, []) => "this object has no fields: write {}".to_owned(),
        _ => suggestion(name, known),
    };
    cx.problem_at(at, format!("unknown field `{name}`"), help);
}

/// What is possible instead of `word`: "expected one of: …", and "did you mean …" when one of them is near.
#[inline(never)]
pub fn suggestion(word: &str, known: &[&str]) -> String {
    const SHOWN: usize = 16;
    let mut help = format!("expected one of: {}", known.get(..SHOWN.min(known.len())).unwrap_or_default().join(", "));
    if known.len() > SHOWN {
        help += &format!(" and {} more", known.len() - SHOWN);
    }
    if let Some(nearest) = nearest(word, known) {
        help += &format!("; did you mean `{nearest}`?");
    }
    help
}

/// The known word that `word` is probably a typo or a part of.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = word.to_ascii_lowercase();
    let distances = known.iter().filter_map(|candidate| {
        // A third of the letters may be wrong: enough for a typo, too little for another word.
        let most = (candidate.len().max(word.len()) / 3).max(1);
        // What differs more in length is not near, and a very long word is not compared at all.
        let distance = (candidate.len().abs_diff(word.len()) <= most)
            .then(|| strsim::osa_distance(&lower, &candidate.to_ascii_lowercase()))?;
        (distance <= most).then_some((distance, *candidate))
    });
    let typo = distances.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate);
    // `prefix` for `PathPrefix`.
    let mut longer = known
        .iter()
        .copied()
        .filter(|candidate| (4..=64).contains(&word.len()) && candidate.to_ascii_lowercase().contains(&lower));
    typo.or_else(|| longer.next().filter(|_| longer.next().is_none()))
}

/// Declares an object of the document: its fields, their JSON names and defaults, in one place; with the feature
/// `schema` also what they mean, from the doc comments.
///
/// `field as "json": Type` is required unless `Type` is an `Option`; `= expression` gives a default. With
/// `check = path` the function `fn(&Self, &At, &mut Context) -> bool` looks at the fields together.
macro_rules! object {
    (
        $(#[$($meta:tt)+])*
        $vis:vis struct $name:ident $(check = $check:path)? {
            $( $(#[$($field_meta:tt)+])* $field:ident as $json:literal : $type:ty $(= $default:expr)? ),* $(,)?
        }
    ) => {
        $(#[$($meta)+])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $( $(#[$($field_meta)+])* pub $field: $type, )*
        }

        impl $crate::document::Decode for $name {
            const EXPECTED: &'static str = "an object";

            fn decode(
                node: &$crate::document::Node,
                at: &$crate::document::At<'_>,
                cx: &mut $crate::document::Context,
            ) -> Option<Self> {
                let fields = $crate::document::Fields::open::<Self>(node, at, cx, &[$($json),*])?;
                $( let $field = object!(@get fields, $json, $type, at, cx $(, $default)?); )*
                // All at once: a `?` for each field would drop the others in as many ways.
                let ($(Some($field),)*) = ($($field,)*) else { return None };
                let object = $name { $($field,)* };
                $( if !$check(&object, at, cx) { return None; } )?
                Some(object)
            }
        }

        #[cfg(feature = "schema")]
        impl $crate::schema::Describe for $name {
            fn describe(schema: &mut $crate::schema::Definitions) -> serde_json::Value {
                let key = $crate::schema::key(module_path!(), stringify!($name));
                schema.object::<Self>(&key, &[$($crate::document::doc_text!($($meta)+)),*].concat(), |schema| vec![
                    $( schema
                        .field::<$type>($json, &[$($crate::document::doc_text!($($field_meta)+)),*].concat())
                        $(.or::<$type>(&$default))? ),*
                ])
            }

            fn written(&self) -> Option<serde_json::Value> {
                let fields = [$(($json, $crate::schema::Describe::written(&self.$field))),*];
                Some(fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
            }
        }
    };
    (@get $fields:ident, $json:literal, $type:ty, $at:ident, $cx:ident) => {
        $fields.get::<$type>($json, $at, $cx)
    };
    (@get $fields:ident, $json:literal, $type:ty, $at:ident, $cx:ident, $default:expr) => {
        $fields.get_or::<$type>($json, $default, $at, $cx)
    };
}
pub(crate) use object;

/// The text of an attribute that is a doc comment, nothing for another.
#[cfg(feature = "schema")]
macro_rules! doc_text {
    (doc = $text:expr) => {
        $text
    };
    ($($other:tt)*) => {
        ""
    };
}
#[cfg(feature = "schema")]
pub(crate) use doc_text;

/// Declares a field with a fixed set of words.
macro_rules! words {
    (
        $(#[$($meta:tt)+])*
        $vis:vis enum $name:ident { $( $(#[$($variant_meta:tt)+])* $variant:ident = $word:literal ),* $(,)? }
    ) => {
        $(#[$($meta)+])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $( $(#[$($variant_meta)+])* $variant, )* }

        impl $crate::document::Decode for $name {
            const EXPECTED: &'static str = concat!("a string: one of" $(, " ", $word)*);

            fn decode(
                node: &$crate::document::Node,
                at: &$crate::document::At<'_>,
                cx: &mut $crate::document::Context,
            ) -> Option<Self> {
                let $crate::document::Node::String(word) = node else {
                    return $crate::document::wrong_kind::<Self>(node, at, cx);
                };
                match word.as_str() {
                    $( $word => Some($name::$variant), )*
                    _ => {
                        let help = $crate::document::suggestion(word, &[$($word),*]);
                        cx.problem(at, node, "unknown value", help);
                        None
                    }
                }
            }
        }

        #[cfg(feature = "schema")]
        impl $crate::schema::Describe for $name {
            fn describe(schema: &mut $crate::schema::Definitions) -> serde_json::Value {
                let key = $crate::schema::key(module_path!(), stringify!($name));
                let words = [$(($word, [$($crate::document::doc_text!($($variant_meta)+)),*].concat())),*];
                schema.words(&key, &[$($crate::document::doc_text!($($meta)+)),*].concat(), &words)
            }

            fn written(&self) -> Option<serde_json::Value> {
                Some(match self { $( $name::$variant => $word, )* }.into())
            }
        }
    };
}
pub(crate) use words;

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    object! {
        /// An object with one field of each kind.
        struct Sample {
            /// Required.
            name as "name": String,
            /// Optional.
            note as "someNote": Option<String>,
            /// With a default.
            count as "count": Whole<1, 9> = Whole(3),
        }
    }

    fn read(json: &str) -> (Option<Sample>, Vec<String>) {
        let mut cx = Context::new(String::new(), 0);
        let sample = Sample::decode(&Node::from_json(json.as_bytes()).unwrap(), &At::Root, &mut cx);
        (sample, cx.into_problems().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn defaults_fill_what_is_absent() {
        let (sample, problems) = read(r#"{"name":"a"}"#);
        let sample = sample.unwrap();
        assert_eq!((sample.name.as_str(), sample.note, sample.count.0), ("a", None, 3));
        assert!(problems.is_empty());
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let (sample, problems) = read(r#"{"somenote":"x","count":12,"count":"2","extra":1}"#);
        assert!(sample.is_none());
        assert_eq!(
            problems,
            [
                "somenote: unknown field `somenote`; expected one of: name, someNote, count; did you mean `someNote`?",
                "count: \"2\": is given twice; keep one",
                "extra: unknown field `extra`; expected one of: name, someNote, count",
                "name: is required: expected a string",
                "count: 12: is out of range; write a whole number from 1 to 9",
            ]
        );
    }

    #[test]
    fn a_value_of_the_wrong_kind_says_how_to_write_it() {
        let (_, problems) = read(r#"{"name":5,"someNote":null,"count":"2"}"#);
        assert_eq!(
            problems,
            [
                "name: 5: is a number, expected a string; put it in quotes: \"5\"",
                "someNote: is null, expected a string; give it a value or leave the field out",
                "count: \"2\": is a string, expected a whole number; write it without quotes: 2",
            ]
        );
    }
}
