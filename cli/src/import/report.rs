//! The result of an import: the routes with their destinations, and what was not imported; human-readable, and as JSON
//! for `--report`.

use std::collections::{BTreeSet, HashSet};

use serde::Serialize;

use crate::words::shortened;

/// The longest text of a note that is shown in full.
const LONGEST: usize = 400;

/// The report so far.
#[derive(Debug, Default)]
pub struct ImportReport {
    /// The destination of each route of the policy.
    pub routes: Vec<Lead>,
    /// What is not in the policy.
    pub notes: Vec<ImportNote>,
    /// The place and subject of each note, to skip repetitions.
    known: HashSet<(String, String)>,
    /// The number of losses, including repetitions.
    losses: usize,
    /// The current file.
    pub file: String,
    /// The current object, such as `VirtualService prod/shop`.
    pub object: String,
}

/// A route of the policy, and its destination in the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Lead {
    /// Its name.
    pub route: String,
    /// The destination: `NAME[ namespace NS][ subset S][ port P]`.
    pub to: String,
}

/// Something that is not in the policy.
#[derive(Clone, Debug, Serialize)]
pub struct ImportNote {
    /// The file, the object and the field.
    #[serde(rename = "where")]
    pub place: String,
    /// The value in the source.
    pub what: String,
    /// The consequence for requests.
    pub consequence: String,
    /// Whether it changes decisions. Otherwise the platform's own resources still cover it.
    #[serde(skip)]
    pub decides: bool,
}

impl ImportReport {
    /// Records that the field at `path` is not in the policy, which changes decisions.
    pub fn lost(&mut self, path: &str, what: impl Into<String>, consequence: impl Into<String>) {
        self.note(path, what.into(), consequence.into(), true);
    }

    /// Records that the field at `path` is not in the policy but is still covered by the platform.
    pub fn elsewhere(&mut self, path: &str, what: impl Into<String>, consequence: impl Into<String>) {
        self.note(path, what.into(), consequence.into(), false);
    }

    /// The same as [`ImportReport::lost`], for a place that is already formatted.
    pub fn lost_at(&mut self, place: &str, what: impl Into<String>, consequence: impl Into<String>) {
        let note =
            ImportNote { place: place.to_owned(), what: what.into(), consequence: consequence.into(), decides: true };
        self.add(note);
    }

    fn note(&mut self, path: &str, what: String, consequence: String, decides: bool) {
        self.add(ImportNote { place: self.place(path), what, consequence, decides });
    }

    /// Reads conditions. One condition that cannot be read makes all of them unknown, so it is an error and not a note.
    pub fn conditions<T>(&mut self, read: impl FnOnce(&mut ImportReport) -> Result<T, String>) -> Result<T, String> {
        let (losses, notes) = (self.losses, self.notes.len());
        let found = read(self);
        if self.losses == losses {
            return found;
        }
        let fresh = self.notes.split_off(notes);
        let (lost, others): (Vec<ImportNote>, Vec<ImportNote>) = fresh.into_iter().partition(|note| note.decides);
        self.notes.extend(others);
        let field = |note: ImportNote| format!("{}: {}", note.place.rsplit(": ").next().unwrap_or_default(), note.what);
        let said = found.err().into_iter().chain(lost.into_iter().map(field)).collect::<Vec<_>>().join("; ");
        Err(if said.is_empty() { "a condition of it cannot be read".to_owned() } else { said })
    }

    /// Records that the routes belong to different `what` (such as Gateways), given the names for each object: a policy does
    /// not know through which one a request comes.
    pub fn several(&mut self, what: &str, of_objects: impl IntoIterator<Item = BTreeSet<String>>) {
        let all: BTreeSet<BTreeSet<String>> = of_objects.into_iter().collect();
        if all.len() > 1 {
            let names: BTreeSet<&str> = all.iter().flatten().map(String::as_str).collect();
            let names: Vec<&str> = names.into_iter().collect();
            self.lost_at(
                "",
                format!("routes of different {what}: {}", names.join(", ")),
                "each proxy that runs the policy also takes requests for the routes of the others: import those of one at a time",
            );
        }
    }

    fn add(&mut self, note: ImportNote) {
        self.losses += usize::from(note.decides);
        let note = ImportNote { place: shortened(&note.place, LONGEST), what: shortened(&note.what, LONGEST), ..note };
        if self.known.insert((note.place.clone(), note.what.clone())) {
            self.notes.push(note);
        }
    }

    /// The name of the field at `path` in the report.
    pub fn place(&self, path: &str) -> String {
        let parts = [self.file.as_str(), self.object.as_str(), path];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
    }

    /// Whether nothing is missing that changes decisions.
    pub fn is_complete(&self) -> bool {
        self.notes.iter().all(|note| !note.decides)
    }

    /// The report as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({"routes": self.routes, "notImported": self.notes})
    }
}
