//! Reading other products' objects so that no field is passed over: what was not asked for is reported.

use std::cell::RefCell;
use std::collections::BTreeMap;

use penstock_policy::document::Node;

/// What could not be carried over.
#[derive(Debug, Default)]
pub struct Lost {
    /// One line each, with its place.
    pub notes: Vec<String>,
    /// Routes of the policy, with where they led.
    pub routes: BTreeMap<String, String>,
    /// The file that is read.
    pub file: String,
    /// The object that is read, such as `VirtualService shop`.
    pub object: String,
}

impl Lost {
    /// Notes where a route led: the policy names it, the host's own configuration says where it leads.
    pub fn leads_to(&mut self, route: &str, destination: &str) {
        self.routes.insert(route.to_owned(), destination.to_owned());
    }

    /// Notes that what stands at `path` of the object is lost.
    pub fn note(&mut self, path: &str, what: &str) {
        let parts = [self.file.as_str(), self.object.as_str(), path, what];
        self.notes.push(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": "));
    }
}

/// A map whose fields are taken one by one; [`Reader::end`] reports the rest.
pub struct Reader<'n> {
    entries: &'n [(String, Node)],
    path: String,
    taken: RefCell<Vec<&'n str>>,
}

impl<'n> Reader<'n> {
    /// Reads the map `node` at `path`; anything else counts as an empty one, and is reported.
    pub fn new(node: &'n Node, path: &str, lost: &mut Lost) -> Reader<'n> {
        let entries = match node {
            Node::Map(entries) => entries.as_slice(),
            other => {
                if *other != Node::Null {
                    lost.note(path, &format!("{other} is not an object"));
                }
                &[]
            }
        };
        Reader { entries, path: path.to_owned(), taken: RefCell::default() }
    }

    /// The path of the field `name`.
    pub fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Takes a field.
    pub fn take(&self, name: &str) -> Option<&'n Node> {
        let (key, value) = self.entries.iter().find(|(key, _)| key == name)?;
        self.taken.borrow_mut().push(key);
        Some(value)
    }

    /// Takes a field that is a string, or a number that stands for one.
    pub fn string(&self, name: &str, lost: &mut Lost) -> Option<String> {
        match self.take(name)? {
            Node::String(text) => Some(text.clone()),
            Node::Integer(number) => Some(number.to_string()),
            Node::Null => None,
            other => {
                lost.note(&self.at(name), &format!("{other} is not a string"));
                None
            }
        }
    }

    /// Takes a field that is a whole number.
    pub fn integer(&self, name: &str, lost: &mut Lost) -> Option<i64> {
        match self.take(name)? {
            Node::Integer(number) => Some(*number),
            Node::String(text) if text.parse::<i64>().is_ok() => text.parse().ok(),
            Node::Null => None,
            other => {
                lost.note(&self.at(name), &format!("{other} is not a whole number"));
                None
            }
        }
    }

    /// Takes a field that is a list; absent: an empty one.
    pub fn list(&self, name: &str, lost: &mut Lost) -> &'n [Node] {
        match self.take(name) {
            Some(Node::List(items)) => items,
            None | Some(Node::Null) => &[],
            Some(other) => {
                lost.note(&self.at(name), &format!("{other} is not a list"));
                &[]
            }
        }
    }

    /// Takes a field without looking: it says nothing about decisions.
    pub fn ignore(&self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// The fields that were not taken.
    pub fn rest(&self) -> Vec<&'n str> {
        let taken = self.taken.borrow();
        self.entries.iter().map(|(key, _)| key.as_str()).filter(|key| !taken.contains(key)).collect()
    }

    /// Reports every field that was not taken.
    pub fn end(self, lost: &mut Lost) {
        for name in self.rest() {
            let value = self.entries.iter().find(|(key, _)| key == name).map(|(_, value)| value);
            lost.note(&self.at(name), &value.map(ToString::to_string).unwrap_or_default());
        }
    }
}

/// The name of a Kubernetes object; takes `apiVersion`, `kind`, `metadata` and `status`.
pub fn object<'n>(node: &'n Node, lost: &mut Lost) -> (String, Reader<'n>) {
    let reader = Reader::new(node, "", lost);
    let kind = reader.string("kind", lost).unwrap_or_default();
    let name = match reader.take("metadata").and_then(|metadata| metadata.get("name")) {
        Some(Node::String(name)) => name.clone(),
        _ => kind.to_lowercase(),
    };
    reader.ignore(&["apiVersion", "status"]);
    lost.object = format!("{kind} {name}");
    (name, reader)
}
