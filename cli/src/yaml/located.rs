//! A document with the places of its values.

use std::collections::HashMap;
use std::ops::Range;

use penstock_policy::document::Node;

use super::scalar::{Schema, Surprise};

/// The tree of a document, and the place of each value in its text.
#[derive(Debug)]
pub struct Located {
    /// The document.
    pub node: Node,
    /// The reader of the document, as far as its text tells.
    pub schema: Schema,
    pub(super) places: HashMap<String, ValuePlace>,
    /// Plain scalars that readers interpret differently, with their paths.
    pub(super) surprises: Vec<(String, Surprise)>,
}

/// The place of a value, as byte ranges of the text.
#[derive(Clone, Debug)]
pub(super) struct ValuePlace {
    pub(super) key: Option<Range<usize>>,
    pub(super) value: Range<usize>,
}

impl Located {
    /// The start of the document's own value.
    pub(super) fn start(&self) -> usize {
        self.places.get("").map_or(0, |place| place.value.start)
    }

    /// The bytes to show for a problem at `path`: the value, or with `key` the name of the field; for something that is
    /// missing, the nearest enclosing value.
    pub fn span(&self, path: &str, key: bool) -> Range<usize> {
        let mut path = path;
        let mut exact = true;
        loop {
            if let Some(place) = self.places.get(path) {
                return match &place.key {
                    // An enclosing value would be too large; its name is enough.
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

    /// The document with its places in a text around its own.
    pub fn moved(mut self, to: impl Fn(&Range<usize>) -> Range<usize>) -> Located {
        for place in self.places.values_mut() {
            place.value = to(&place.value);
            place.key = place.key.as_ref().map(&to);
        }
        self
    }

    /// Whether there is a value at `path` that is written explicitly.
    pub fn has(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// The plain scalars below `prefix` that readers interpret differently, with their paths below it.
    pub fn surprises<'l>(&'l self, prefix: &'l str) -> impl Iterator<Item = (&'l str, &'l Surprise)> {
        self.surprises.iter().filter_map(move |(path, surprise)| {
            let rest = path.strip_prefix(prefix)?;
            let below = prefix.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']);
            below.then(|| (rest.trim_start_matches('.'), surprise))
        })
    }
}
