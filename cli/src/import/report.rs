//! What an import leads to and what it could not take over, for people and (`--report`) for programs.

use std::collections::HashSet;

use serde::Serialize;

use crate::words::shortened;

/// The longest text of a note that is shown whole.
const LONGEST: usize = 400;

/// The report so far.
#[derive(Debug, Default)]
pub struct ImportReport {
    /// Where each route of the policy leads.
    pub routes: Vec<Lead>,
    /// What is not in the policy.
    pub notes: Vec<ImportNote>,
    /// Place and subject of each note.
    known: HashSet<(String, String)>,
    /// How often something was lost, repetitions too.
    losses: usize,
    /// The file that is read.
    pub file: String,
    /// The object that is read, such as `VirtualService prod/shop`.
    pub object: String,
}

/// A route of the policy, and where the source led it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Lead {
    /// Its name.
    pub route: String,
    /// `NAME[ namespace NS][ subset S][ port P]`.
    pub to: String,
}

/// Something that is not in the policy.
#[derive(Clone, Debug, Serialize)]
pub struct ImportNote {
    /// The file, the object and the field.
    #[serde(rename = "where")]
    pub place: String,
    /// What it says.
    pub what: String,
    /// What comes of it for requests.
    pub consequence: String,
    /// Whether it changes decisions; else the platform's own resources go on saying it.
    #[serde(skip)]
    pub decides: bool,
}

impl ImportReport {
    /// What stands at `path` of the object is not in the policy, and that changes decisions.
    pub fn lost(&mut self, path: &str, what: impl Into<String>, consequence: impl Into<String>) {
        self.note(path, what.into(), consequence.into(), true);
    }

    /// What stands at `path` of the object is not in the policy, and goes on being said elsewhere.
    pub fn elsewhere(&mut self, path: &str, what: impl Into<String>, consequence: impl Into<String>) {
        self.note(path, what.into(), consequence.into(), false);
    }

    /// As [`ImportReport::lost`], for a place that is written out already.
    pub fn lost_at(&mut self, place: &str, what: impl Into<String>, consequence: impl Into<String>) {
        let note =
            ImportNote { place: place.to_owned(), what: what.into(), consequence: consequence.into(), decides: true };
        self.add(note);
    }

    fn note(&mut self, path: &str, what: String, consequence: String, decides: bool) {
        self.add(ImportNote { place: self.place(path), what, consequence, decides });
    }

    /// Reads conditions: one that cannot be read makes them all unknown, so it is an error and no note.
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

    fn add(&mut self, note: ImportNote) {
        self.losses += usize::from(note.decides);
        let note = ImportNote { place: shortened(&note.place, LONGEST), what: shortened(&note.what, LONGEST), ..note };
        if self.known.insert((note.place.clone(), note.what.clone())) {
            self.notes.push(note);
        }
    }

    /// How the report names the field at `path`.
    pub fn place(&self, path: &str) -> String {
        let parts = [self.file.as_str(), self.object.as_str(), path];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
    }

    /// Whether nothing that decides is lost.
    pub fn is_complete(&self) -> bool {
        self.notes.iter().all(|note| !note.decides)
    }

    /// The report as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({"routes": self.routes, "notImported": self.notes})
    }
}
