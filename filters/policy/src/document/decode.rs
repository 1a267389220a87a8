//! Decodes the tree into types, and collects all problems instead of stopping at the first.

use super::context::Context;
use super::node::Node;
use super::problem::{At, shown_key};
use super::suggest::{one_of, suggestion};

/// The kind of value that a type is read from.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A number.
    Number,
    /// Text.
    Text,
    /// One of these words.
    Words(&'static [&'static str]),
    /// A list.
    List,
    /// An object with these fields.
    Object(&'static [&'static str]),
    /// An object with exactly one of these fields.
    OneOf(&'static [&'static str]),
}

impl Kind {
    /// The kind's name with an article.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "true or false",
            Kind::Number => "a number",
            Kind::Text | Kind::Words(_) => "a string",
            Kind::List => "a list",
            Kind::Object(_) | Kind::OneOf(_) => "an object",
        }
    }
}

/// A type that can be read from the document.
///
/// `None` means that at least one problem was recorded; the caller continues with its other fields.
pub trait Decode: Sized {
    /// The kind of value that it is read from.
    const KIND: Kind;

    /// A description of the expected value, with an article: "a string: a method".
    const EXPECTED: &'static str = Self::KIND.name();

    /// Reads `node`, found at `at`.
    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self>;

    /// The value when the field is absent. The default: it is required.
    fn absent(at: &At<'_>, cx: &mut Context) -> Option<Self> {
        note_absent(at, cx, Self::KIND, Self::EXPECTED);
        None
    }
}

/// Records that a required field is missing.
#[inline(never)]
fn note_absent(at: &At<'_>, cx: &mut Context, kind: Kind, expected: &str) {
    cx.problem_at(at, format!("is required: expected {}", wanted(kind, expected)), None);
}

/// Records that `node` is of the wrong kind.
pub fn wrong_kind<T: Decode>(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<T> {
    note_wrong_kind(node, at, cx, T::KIND, T::EXPECTED);
    None
}

/// [`wrong_kind`] for all types: compiled once.
#[inline(never)]
pub(super) fn note_wrong_kind(node: &Node, at: &At<'_>, cx: &mut Context, kind: Kind, expected: &str) {
    if let (Node::Null, At::Root) = (node, at) {
        return cx.problem_at(at, "the document is empty", format!("expected {expected}"));
    }
    let help = match (node, kind) {
        (Node::Null, _) => Some("give it a value or leave the field out".to_owned()),
        // Advice to quote the value would not help: YAML has already changed it.
        (Node::Bool(false), Kind::Words(words)) if words.contains(&"Off") => {
            Some("YAML 1.1, which Kubernetes reads, takes a bare Off for false: write \"Off\" in quotes".to_owned())
        }
        (Node::Integer(_) | Node::Float(_) | Node::Bool(_), Kind::Text) => {
            Some(format!("put it in quotes: \"{node}\""))
        }
        (Node::String(text), Kind::Boolean | Kind::Number) if looks_unquoted(text) => {
            Some(format!("write it without quotes: {text}"))
        }
        (Node::String(text), Kind::OneOf(fields)) if fields.contains(&text.as_str()) => {
            Some(format!("write an object: {{{text}: …}}"))
        }
        (Node::Map(_), Kind::List) => Some("write a list: a dash before each entry, or brackets around it".to_owned()),
        _ => None,
    };
    cx.problem(at, node, format!("is {}, expected {}", node.kind(), wanted(kind, expected)), help);
}

/// What to write, with the words where there is a choice of them.
fn wanted(kind: Kind, expected: &str) -> String {
    match kind {
        Kind::Words(words) => one_of(words),
        Kind::OneOf(fields) => format!("{expected} with {}", one_of(fields)),
        _ => expected.to_owned(),
    }
}

/// Records that a word is not one of `T`'s.
pub fn unknown_word<T: Decode>(word: &str, at: &At<'_>, cx: &mut Context) -> Option<T> {
    if let Kind::Words(words) = T::KIND {
        cx.problem(at, &Node::String(word.to_owned()), "unknown value", suggestion(word, words));
    }
    None
}

/// Records a field that the object does not have, and names those that it has.
#[inline(never)]
pub(super) fn unknown_field(name: &str, at: &At<'_>, cx: &mut Context, known: &[&str]) {
    if cx.is_full() {
        return cx.problem_at(at, String::new(), None);
    }
    let help = match (name, known) {
        ("true", known) if known.contains(&"retryOn") => {
            "YAML 1.1, which Kubernetes reads, takes a bare `on` for true: write retryOn".to_owned()
        }
        (_, []) => "this object has no fields: write {}".to_owned(),
        _ => suggestion(name, known),
    };
    cx.problem_at(at, format!("unknown field `{}`", shown_key(name)), help);
}

/// Whether text in quotes was probably meant as a number or boolean.
fn looks_unquoted(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    is_number || text == "true" || text == "false"
}

impl<T: Decode> Decode for Option<T> {
    const KIND: Kind = T::KIND;
    const EXPECTED: &'static str = T::EXPECTED;

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        T::decode(node, at, cx).map(Some)
    }

    fn absent(_: &At<'_>, _: &mut Context) -> Option<Self> {
        Some(None)
    }
}

impl Decode for String {
    const KIND: Kind = Kind::Text;

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        match node {
            Node::String(text) => Some(text.clone()),
            _ => wrong_kind::<Self>(node, at, cx),
        }
    }
}

impl Decode for bool {
    const KIND: Kind = Kind::Boolean;

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
    const KIND: Kind = Kind::Number;
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
