//! Reads objects of other products and reports every field that was not read, so that none is silently ignored.

use std::cell::RefCell;

use penstock_policy::document::Node;

use super::report::ImportReport;

/// What an unread field means for requests.
const UNREAD: &str = "requests are handled without it";

/// A map whose fields are read one by one; [`FieldReader::end`] reports the rest.
pub struct FieldReader<'n> {
    entries: &'n [(String, Node)],
    path: String,
    taken: RefCell<Vec<&'n str>>,
}

impl<'n> FieldReader<'n> {
    /// Starts reading a map. Reports values that are neither a map nor absent.
    pub fn new(node: &'n Node, path: &str, report: &mut ImportReport) -> FieldReader<'n> {
        let entries = match node {
            Node::Map(entries) => entries.as_slice(),
            Node::Null => &[],
            other => {
                report.lost(path, format!("{other} is not an object"), UNREAD);
                &[]
            }
        };
        FieldReader { entries, path: path.to_owned(), taken: RefCell::default() }
    }

    /// The path of a field.
    pub fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The path of this map.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reads a field.
    pub fn take(&self, name: &str) -> Option<&'n Node> {
        let (key, value) = self.entries.iter().find(|(key, _)| key == name)?;
        self.taken.borrow_mut().push(key);
        Some(value)
    }

    /// Reads a field that is a map.
    pub fn object(&self, name: &str, report: &mut ImportReport) -> Option<FieldReader<'n>> {
        self.take(name).filter(|node| **node != Node::Null).map(|node| FieldReader::new(node, &self.at(name), report))
    }

    /// Reads a field that is a list of maps.
    pub fn objects(&self, name: &str, report: &mut ImportReport) -> Vec<FieldReader<'n>> {
        let items = self.list(name, report);
        let path = |i: usize| format!("{}[{i}]", self.at(name));
        items.iter().enumerate().map(|(i, item)| FieldReader::new(item, &path(i), report)).collect()
    }

    /// Reads a field that is a string, or a number or boolean, which is converted.
    pub fn string(&self, name: &str, report: &mut ImportReport) -> Option<String> {
        match self.take(name)? {
            Node::String(text) => Some(text.clone()),
            Node::Integer(number) => Some(number.to_string()),
            Node::Bool(value) => Some(value.to_string()),
            Node::Null => None,
            other => {
                report.lost(&self.at(name), format!("{other} is not a string"), UNREAD);
                None
            }
        }
    }

    /// Reads a field that is a list of strings; a single string counts as a list.
    pub fn strings(&self, name: &str, report: &mut ImportReport) -> Vec<String> {
        let one = |node: &Node| match node {
            Node::String(text) => Some(text.clone()),
            Node::Integer(number) => Some(number.to_string()),
            _ => None,
        };
        match self.take(name) {
            None | Some(Node::Null) => Vec::new(),
            Some(Node::List(items)) => {
                for (i, other) in items.iter().enumerate().filter(|(_, item)| one(item).is_none()) {
                    report.lost(&format!("{}[{i}]", self.at(name)), format!("{other} is not a string"), UNREAD);
                }
                items.iter().filter_map(one).collect()
            }
            Some(other) => {
                let found = one(other);
                if found.is_none() {
                    report.lost(&self.at(name), format!("{other} is not a list of strings"), UNREAD);
                }
                found.into_iter().collect()
            }
        }
    }

    /// Reads a field that is an integer.
    pub fn integer(&self, name: &str, report: &mut ImportReport) -> Option<i64> {
        match self.take(name)? {
            Node::Integer(number) => Some(*number),
            Node::String(text) if text.trim().parse::<i64>().is_ok() => text.trim().parse().ok(),
            Node::Null => None,
            other => {
                report.lost(&self.at(name), format!("{other} is not a whole number"), UNREAD);
                None
            }
        }
    }

    /// Reads a boolean field; false when absent.
    pub fn flag(&self, name: &str, report: &mut ImportReport) -> bool {
        match self.take(name) {
            None | Some(Node::Null) => false,
            Some(Node::Bool(value)) => *value,
            Some(other) => {
                report.lost(&self.at(name), format!("{other} is neither true nor false"), UNREAD);
                false
            }
        }
    }

    /// Reads a field that is a list; empty when absent.
    pub fn list(&self, name: &str, report: &mut ImportReport) -> &'n [Node] {
        match self.take(name) {
            Some(Node::List(items)) => items,
            None | Some(Node::Null) => &[],
            Some(other) => {
                report.lost(&self.at(name), format!("{other} is not a list"), UNREAD);
                &[]
            }
        }
    }

    /// Reads a field that is a map, as its entries.
    pub fn pairs(&self, name: &str, report: &mut ImportReport) -> &'n [(String, Node)] {
        match self.take(name) {
            Some(Node::Map(entries)) => entries,
            None | Some(Node::Null) => &[],
            Some(other) => {
                report.lost(&self.at(name), format!("{other} is not an object"), UNREAD);
                &[]
            }
        }
    }

    /// Ignores fields that do not affect decisions.
    pub fn ignore(&self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// Ignores fields that the platform's own resources cover.
    pub fn elsewhere(&self, names: &[&str], consequence: &str, report: &mut ImportReport) {
        for name in names {
            if let Some(value) = self.take(name) {
                report.elsewhere(&self.at(name), value.to_string(), consequence);
            }
        }
    }

    /// Whether a field exists.
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, value)| key == name && *value != Node::Null)
    }

    /// The fields that were not read.
    pub fn rest(&self) -> Vec<(&'n str, &'n Node)> {
        let taken = self.taken.borrow();
        let entries = self.entries.iter().map(|(key, value)| (key.as_str(), value));
        entries.filter(|(key, _)| !taken.contains(key)).collect()
    }

    /// Reports every field that was not read.
    pub fn end(&self, report: &mut ImportReport) {
        for (name, value) in self.rest() {
            report.lost(&self.at(name), value.to_string(), UNREAD);
        }
    }
}

/// A Kubernetes object: its metadata and its spec.
pub struct KubernetesObject<'n> {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The namespace, if the object names one.
    pub namespace: Option<String>,
    /// The creation time, for sorting: the first is the oldest. Empty when unknown, which sorts first.
    pub created: String,
    /// Its metadata.
    pub metadata: &'n Node,
    /// Its spec.
    pub spec: FieldReader<'n>,
}

impl<'n> KubernetesObject<'n> {
    /// Opens an object and names it in the report.
    pub fn open(node: &'n Node, report: &mut ImportReport) -> KubernetesObject<'n> {
        let text = |node: Option<&Node>| match node {
            Some(Node::String(text)) => Some(text.clone()),
            _ => None,
        };
        let metadata = node.get("metadata").unwrap_or(&Node::Null);
        let kind = text(node.get("kind")).unwrap_or_default();
        let name = text(metadata.get("name")).unwrap_or_else(|| kind.to_lowercase());
        let namespace = text(metadata.get("namespace"));
        let created = text(metadata.get("creationTimestamp")).unwrap_or_default();
        report.object = match &namespace {
            Some(namespace) => format!("{kind} {namespace}/{name}"),
            None => format!("{kind} {name}"),
        };
        let reader = FieldReader::new(node, "", report);
        reader.ignore(&["apiVersion", "kind", "metadata", "status"]);
        let spec = FieldReader::new(reader.take("spec").unwrap_or(&Node::Null), "spec", report);
        reader.end(report);
        KubernetesObject { kind, name, namespace, created, metadata, spec }
    }

    /// The namespace, or the default that `kubectl apply` would use.
    pub fn in_namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    /// The object's name in tags.
    pub fn tag(&self) -> String {
        format!("{} {}/{}", self.kind, self.in_namespace(), self.name)
    }

    /// Reads an annotation.
    pub fn annotations(&self, report: &mut ImportReport) -> FieldReader<'n> {
        FieldReader::new(self.metadata.get("annotations").unwrap_or(&Node::Null), "metadata.annotations", report)
    }
}
