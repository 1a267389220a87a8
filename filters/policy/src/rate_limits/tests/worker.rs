//! The workers of these tests, and what they share.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;

use super::at;
use crate::environment::{Environment, Timestamp};
use crate::identity::IdentitySource;
use crate::state::{Change, Key, State, Unavailable};
use crate::worker_memory::WorkerMemory;

/// What all workers share: values under their keys, as text.
#[derive(Default)]
pub(super) struct Shared(pub(super) HashMap<String, Vec<u8>>);

/// One worker of a store that is as forgetful, and as trusting in its memory, as the laws allow: it shows what it saw last,
/// and looks only when it must. `interfere` runs before a write, once: another worker that is faster.
pub(super) struct Worker<'s> {
    pub(super) shared: &'s RefCell<Shared>,
    pub(super) now: Timestamp,
    pub(super) peer: Option<IpAddr>,
    pub(super) remembered: HashMap<String, Vec<u8>>,
    pub(super) interfere: Vec<Box<dyn FnOnce() + 's>>,
    pub(super) memory: WorkerMemory,
    /// Counts the updates.
    pub(super) updates: usize,
    /// Whether the store fails.
    pub(super) is_broken: bool,
}

impl<'s> Worker<'s> {
    pub(super) fn new(shared: &'s RefCell<Shared>) -> Self {
        Worker {
            shared,
            now: at(1_000_000),
            peer: None,
            remembered: HashMap::new(),
            interfere: vec![],
            memory: WorkerMemory::default(),
            updates: 0,
            is_broken: false,
        }
    }

    pub(super) fn current(&self, name: &str) -> Vec<u8> {
        self.shared.borrow().0.get(name).cloned().unwrap_or_default()
    }
}

pub(super) fn text(key: Key<'_>) -> String {
    match key {
        Key::Named(name) => name.to_owned(),
        Key::Slot(table, index) => format!("{}/{index}", table.identity),
    }
}

impl State for Worker<'_> {
    fn update<T>(
        &mut self,
        key: Key<'_>,
        mut change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Unavailable> {
        let name = text(key);
        self.updates += 1;
        if self.is_broken {
            return Err(Unavailable);
        }
        let mut old = self.remembered.remove(&name).unwrap_or_else(|| self.current(&name));
        loop {
            let mut new = Vec::new();
            let answer = change(&old, &mut new);
            if let Change::Keep(answer) = answer {
                self.remembered.insert(name, old);
                return Ok(answer);
            }
            if matches!(answer, Change::Replace(_))
                && let Some(interfere) = self.interfere.pop()
            {
                interfere();
            }
            let current = self.current(&name);
            if current != old {
                old = current;
                continue;
            }
            return Ok(match answer {
                Change::Keep(answer) | Change::Refuse(answer) => answer,
                Change::Replace(answer) => {
                    self.shared.borrow_mut().0.insert(name.clone(), new.clone());
                    self.remembered.insert(name, new);
                    answer
                }
            });
        }
    }

    fn read<T>(&mut self, key: Key<'_>, read: impl FnOnce(&[u8]) -> T) -> Result<T, Unavailable> {
        if self.is_broken { Err(Unavailable) } else { Ok(read(&self.current(&text(key)))) }
    }
}

impl crate::Trace for Worker<'_> {}

impl Environment for Worker<'_> {
    fn now(&mut self) -> Timestamp {
        self.now
    }
    fn source_address(&mut self) -> Option<IpAddr> {
        self.peer
    }
    fn has_tls(&mut self) -> Option<bool> {
        None
    }
    fn sni(&mut self) -> Option<Vec<u8>> {
        None
    }
    fn peer(&mut self) -> Option<Vec<u8>> {
        None
    }
    fn identity(&mut self, source: &IdentitySource) -> Option<Vec<u8>> {
        match source {
            IdentitySource::FilterState(key) => Some(key.as_bytes().to_vec()),
            _ => None,
        }
    }
    fn random(&mut self) -> u64 {
        7
    }
    fn worker(&mut self) -> &mut WorkerMemory {
        &mut self.memory
    }
}
