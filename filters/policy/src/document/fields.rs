//! The fields of objects.

use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;

use super::context::Context;
use super::decode::{Decode, Kind, note_wrong_kind, unknown_field};
use super::node::Node;
use super::problem::At;
use super::suggest::one_of;
use crate::bytes::same;

/// The fields of an object. Each is returned at most once, and it is known which were not read.
#[derive(Debug)]
pub struct Fields<'n> {
    entries: &'n [(String, Node)],
}

/// The fields of an object that have been read: a set, for objects with many fields.
struct SeenFields<'n> {
    entries: &'n [(String, Node)],
    names: HashSet<&'n str, FxBuildHasher>,
}

impl<'n> SeenFields<'n> {
    /// Up to this number of fields, a linear search is faster.
    const FEW: usize = 16;

    fn of(entries: &'n [(String, Node)]) -> SeenFields<'n> {
        let capacity = if entries.len() > SeenFields::FEW { entries.len() } else { 0 };
        SeenFields { entries, names: HashSet::with_capacity_and_hasher(capacity, FxBuildHasher) }
    }

    /// Whether an earlier field has the same name as field number `i`.
    fn has_before(&mut self, i: usize, name: &'n str) -> bool {
        if self.entries.len() > SeenFields::FEW {
            return !self.names.insert(name);
        }
        self.entries.iter().take(i).any(|(earlier, _)| same(earlier.as_bytes(), name.as_bytes()))
    }
}

impl<'n> Fields<'n> {
    /// Checks that `node` is an object that has only fields of `T`'s kind, each at most once.
    pub fn open<T: Decode>(node: &'n Node, at: &At<'_>, cx: &mut Context) -> Option<Fields<'n>> {
        Fields::check(node, at, cx, T::KIND, T::EXPECTED)
    }

    /// The part of [`Fields::open`] that is the same for every type: compiled once.
    fn check(node: &'n Node, at: &At<'_>, cx: &mut Context, kind: Kind, expected: &'static str) -> Option<Fields<'n>> {
        let (Node::Map(entries), Kind::Object(known) | Kind::OneOf(known)) = (node, kind) else {
            note_wrong_kind(node, at, cx, kind, expected);
            return None;
        };
        // A problem with a repeated field is reported at its second occurrence.
        let mut seen = SeenFields::of(entries);
        for (i, (key, value)) in entries.iter().enumerate() {
            if seen.has_before(i, key) {
                cx.problem(&at.field(key), value, "is given twice", "keep one".to_owned());
            } else if !known.contains(&key.as_str()) {
                unknown_field(key, &at.field(key), cx, known);
            }
        }
        Some(Fields { entries })
    }

    /// The only field of an object that has exactly one of `T`'s.
    pub fn one<T: Decode>(node: &'n Node, at: &At<'_>, cx: &mut Context) -> Option<(&'n str, &'n Node)> {
        Fields::open::<T>(node, at, cx)?.only(node, at, cx, T::KIND)
    }

    /// The part of [`Fields::one`] that is the same for every type.
    fn only(&self, node: &Node, at: &At<'_>, cx: &mut Context, kind: Kind) -> Option<(&'n str, &'n Node)> {
        let (Kind::Object(known) | Kind::OneOf(known)) = kind else { return None };
        let mut given = self.entries.iter().filter(|(name, _)| known.contains(&name.as_str()));
        match (given.next(), given.next()) {
            (Some((name, value)), None) => Some((name, value)),
            (Some((first, _)), Some((second, _))) if first != second => {
                let help = match at {
                    At::Index(..) => "keep one, or make each an entry of its own",
                    _ => "keep one",
                };
                cx.problem_at(at, format!("has both `{first}` and `{second}`"), help.to_owned());
                None
            }
            // An unknown or repeated field has already been reported.
            (None, _) if self.entries.is_empty() => {
                cx.problem(at, node, "is empty", format!("give {}", one_of(known)));
                None
            }
            _ => None,
        }
    }

    /// Whether exactly one of the fields `names` is given.
    pub fn has_one_of(&self, names: &[&str], at: &At<'_>, cx: &mut Context) -> bool {
        let mut given = names.iter().filter(|name| self.has(name));
        match (given.next(), given.next()) {
            (Some(_), None) => return true,
            (None, _) => cx.problem_at(at, format!("needs {}", one_of(names)), None),
            (Some(first), Some(second)) => {
                cx.problem_at(at, format!("has both `{first}` and `{second}`"), "keep one".to_owned());
            }
        }
        false
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

/// An object without fields, `{}`, to which fields can be added later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Empty;

impl Decode for Empty {
    const KIND: Kind = Kind::Object(&[]);
    const EXPECTED: &'static str = "an empty object: {}";

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        Fields::open::<Self>(node, at, cx).map(|_| Empty)
    }
}
