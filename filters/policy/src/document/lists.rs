//! Lists.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::context::Context;
use super::decode::{Decode, Kind, wrong_kind};
use super::json;
use super::node::Node;
use super::problem::At;

/// A list that may be empty.
impl<T: Decode> Decode for Vec<T> {
    const KIND: Kind = Kind::List;

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let Some(length) = entries(node, cx) else { return wrong_kind::<Self>(node, at, cx) };
        let mut items = Vec::with_capacity(length);
        let all = each_entry(node, cx, &mut |i, node, cx| items.extend(T::decode(node, &at.index(i), cx)))?;
        (items.len() == all).then_some(items)
    }
}

/// A list with at least one element, for fields where an empty list would mean "match everything" by accident.
#[derive(Clone, Debug)]
pub struct NonEmpty<T>(pub Vec<T>);

impl<T: Decode> Decode for NonEmpty<T> {
    const KIND: Kind = Kind::List;
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
    const KIND: Kind = Kind::List;

    fn decode(node: &Node, at: &At<'_>, cx: &mut Context) -> Option<Self> {
        let mut seen = UniqueNames::default();
        let Some(length) = entries(node, cx) else { return wrong_kind::<Self>(node, at, cx) };
        let mut items = Vec::with_capacity(length);
        let all = each_entry(node, cx, &mut |i, node, cx| {
            let is_unique = seen.insert(node, i, at, cx);
            items.extend(T::decode(node, &at.index(i), cx).filter(|_| is_unique));
        })?;
        (items.len() == all).then_some(Named(items))
    }
}

/// The names in a list, and which entry had each first.
#[derive(Default)]
struct UniqueNames(HashMap<String, usize, FxBuildHasher>);

impl UniqueNames {
    /// Records a problem and returns false when the `name` of entry `i` is that of an earlier entry.
    fn insert(&mut self, node: &Node, i: usize, at: &At<'_>, cx: &mut Context) -> bool {
        let Some(name @ Node::String(text)) = node.get("name") else { return true };
        let first = *self.0.entry_ref(text.as_str()).or_insert(i);
        if first == i {
            return true;
        }
        let first_at = at.index(first);
        cx.problem(
            &at.index(i).field("name"),
            name,
            format!("is already the name of {first_at}"),
            "name one of them differently".to_owned(),
        );
        false
    }
}

/// How many entries `node` has; `None` when it is not a list.
fn entries(node: &Node, cx: &Context) -> Option<usize> {
    match node {
        Node::List(nodes) => Some(nodes.len()),
        Node::Unread(range) => Some(json::count(json::slice(cx.source, range))),
        _ => None,
    }
}

/// Calls `entry` with each element of the list `node`, in order, and counts them; `None` when the list cannot be read.
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
            let read = json::each(json::slice(source, range), &mut |i, node| {
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
