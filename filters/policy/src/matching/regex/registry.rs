//! All expressions of a policy: those on the same field share automata, so that one pass over a value evaluates them all.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use regex_syntax::hir::Hir;
use rustc_hash::FxBuildHasher;

use super::Regex;
use super::automaton::{Automaton, AutomatonLimits, AutomatonPlace, ExpressionShape, ExpressionSource, MOST_TOGETHER};
use super::error::BadRegex;
use super::substring::Substring;

/// The maximum memory for making a shared automaton.
const SHARED_LIMITS: AutomatonLimits = AutomatonLimits { table: 1 << 20, combinations: 128 << 10 };

/// With fewer searches on one field, searching one by one is faster.
const FEW_SUBSTRINGS: usize = 4;

/// The maximum number of failed attempts to share in one policy. Each takes time, and the results are the same without sharing.
const MOST_FAILURES: u32 = 32;

/// The maximum number of automata that may have to run over the same value.
const MOST_AUTOMATA: usize = 16;

/// The expressions of one document.
#[derive(Debug)]
pub(crate) struct Expressions {
    /// Bytes that automata may still take.
    budget: usize,
    fields: HashMap<String, FieldExpressions, FxBuildHasher>,
    /// The texts that are searched for on each field.
    substrings: HashMap<String, Substrings, FxBuildHasher>,
    failures: u32,
}

/// The expressions on one field.
#[derive(Debug, Default)]
struct FieldExpressions {
    entries: Vec<ExpressionEntry>,
    /// The place of each pattern in `entries`.
    places: HashMap<Box<str>, usize, FxBuildHasher>,
}

/// The texts that are searched for on one field.
type Substrings = HashMap<Box<[u8]>, Arc<Substring>, FxBuildHasher>;

/// One expression on one field.
#[derive(Debug)]
struct ExpressionEntry {
    regex: Arc<Regex>,
    source: ExpressionSource,
    automaton: Automaton,
    /// Where it first occurs in the document.
    path: String,
}

impl Expressions {
    /// An empty registry; all automata together may take `budget` bytes.
    pub(crate) fn new(budget: usize) -> Expressions {
        Expressions { budget, fields: HashMap::default(), substrings: HashMap::default(), failures: 0 }
    }

    /// Adds the expression `pattern` on the field called `field`, which is at `path` in the document.
    pub(crate) fn add(
        &mut self,
        field: &str,
        pattern: &str,
        path: impl FnOnce() -> String,
    ) -> Result<Arc<Regex>, BadRegex> {
        let field = self.fields.entry_ref(field).or_default();
        if let Some(known) = field.places.get(pattern).and_then(|place| field.entries.get(*place)) {
            return Ok(Arc::clone(&known.regex));
        }
        let (regex, source, automaton) = Regex::compile(pattern)?;
        self.budget = self.budget.checked_sub(automaton.size()).ok_or_else(|| {
            let help = "use Exact, Prefix or In where they are enough; they do not count";
            BadRegex::limit("exceeds the memory limit for all regular expressions of a policy together", help)
        })?;
        let regex = Arc::new(regex);
        field.places.insert(pattern.into(), field.entries.len());
        field.entries.push(ExpressionEntry { regex: Arc::clone(&regex), source, automaton, path: path() });
        Ok(regex)
    }

    /// Adds the search for a text on the field called `field`.
    pub(crate) fn add_substring(&mut self, field: &str, needle: &[u8]) -> Arc<Substring> {
        let known = self.substrings.entry_ref(field).or_default();
        Arc::clone(known.entry(needle.into()).or_insert_with(|| Arc::new(Substring::new(needle))))
    }

    /// Whether the document has no expression.
    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Gives every expression its place in as few automata as they fit into. Returns the expressions that cannot be
    /// evaluated in few passes: the place of the first one beyond the limit, and how to correct it.
    pub(crate) fn share(&mut self) -> Vec<(String, String)> {
        let mut number = 0;
        let mut too_many = Vec::new();
        for (field, FieldExpressions { entries, .. }) in std::mem::take(&mut self.fields) {
            // Of expressions that begin with different literals, at most one runs on a value.
            let mut alike: BTreeMap<(ExpressionShape, Box<[u8]>), Vec<ExpressionEntry>> = BTreeMap::new();
            for entry in entries {
                let key = (entry.source.shape, entry.regex.literal_prefix.clone());
                alike.entry(key).or_default().push(entry);
            }
            for ((shape, _), mut entries) in alike {
                let mut automata = Vec::new();
                while !entries.is_empty() {
                    let rest = entries.split_off(entries.len().min(MOST_TOGETHER));
                    self.place(shape, entries, &mut number, &mut automata);
                    entries = rest;
                }
                if let Some(path) = automata.into_iter().nth(MOST_AUTOMATA) {
                    let help = format!(
                        "the expressions on {field} that begin alike take more than {MOST_AUTOMATA} passes: join those of \
                         one rule with `|`, let them begin with different literals, or use Contains, Prefix or In"
                    );
                    too_many.push((path, help));
                }
            }
        }
        for substrings in std::mem::take(&mut self.substrings).into_values() {
            self.share_substrings(substrings.into_values().collect(), &mut number);
        }
        too_many
    }

    /// Lets searches on one field share automata where they are many; what does not fit stays a search of its own.
    fn share_substrings(&mut self, mut substrings: Vec<Arc<Substring>>, number: &mut u32) {
        if substrings.len() < FEW_SUBSTRINGS {
            return;
        }
        substrings.sort_by(|a, b| a.needle().cmp(b.needle()));
        for together in substrings.chunks(MOST_TOGETHER) {
            let sources: Vec<Hir> = together.iter().map(|text| Hir::literal(text.needle())).collect();
            let sources: Vec<&Hir> = sources.iter().collect();
            let Ok(automaton) = Automaton::new(ExpressionShape::PartOfBytes, &sources, SHARED_LIMITS) else { continue };
            let Some(left) = self.budget.checked_sub(automaton.size()) else { return };
            self.budget = left;
            let automaton = Arc::new(automaton);
            for (bit, text) in (0..).zip(together) {
                let _ =
                    text.place.set(AutomatonPlace { automaton: Arc::clone(&automaton), bit, number: Some(*number) });
            }
            *number += 1;
        }
    }

    /// Places `entries` in one automaton, or in halves in two. `automata` gets the document's place of the first entry of
    /// each.
    fn place(
        &mut self,
        shape: ExpressionShape,
        mut entries: Vec<ExpressionEntry>,
        number: &mut u32,
        automata: &mut Vec<String>,
    ) {
        let shared = match entries.as_slice() {
            [] => return,
            [_] => None,
            entries if self.failures < MOST_FAILURES => {
                let sources: Vec<_> = entries.iter().map(|entry| &entry.source.hir).collect();
                let alone: usize = entries.iter().map(|entry| entry.automaton.size()).sum();
                let shared = Automaton::new(shape, &sources, SHARED_LIMITS).ok();
                // It replaces the separate automata of these expressions.
                let more = shared.as_ref().map_or(0, |shared| shared.size().saturating_sub(alone));
                let shared = shared.filter(|_| more <= self.budget);
                match &shared {
                    Some(_) => self.budget -= more,
                    None => self.failures += 1,
                }
                shared
            }
            _ => None,
        };
        match shared {
            Some(shared) => {
                automata.extend(entries.first().map(|entry| entry.path.clone()));
                let automaton = Arc::new(shared);
                for (bit, entry) in (0..).zip(entries) {
                    let place = AutomatonPlace { automaton: Arc::clone(&automaton), bit, number: Some(*number) };
                    let _ = entry.regex.place.set(place);
                }
                *number += 1;
            }
            None if entries.len() > 1 && self.failures < MOST_FAILURES => {
                let rest = entries.split_off(entries.len() / 2);
                self.place(shape, entries, number, automata);
                self.place(shape, rest, number, automata);
            }
            None => {
                for entry in entries {
                    automata.push(entry.path.clone());
                    let place = AutomatonPlace { automaton: Arc::new(entry.automaton), bit: 0, number: Some(*number) };
                    let _ = entry.regex.place.set(place);
                    *number += 1;
                }
            }
        }
    }
}
