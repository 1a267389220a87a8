//! The state of one policy in one worker: names and tables of the engine as keys of the shared data.

use std::hash::Hasher;

use penstock_policy::state::{Change, Key, Table};
use siphasher::sip::SipHasher13;

use super::directory::{Directory, Displacement};
use super::{RawKey, Stopped, Store};
use crate::abi::Status;

/// What distinguishes a policy's values from those of others, and the places of its tables.
#[derive(Debug, Default)]
pub(crate) struct SharedState {
    /// The hash of the plugin's identity.
    plugin: u64,
    /// The namespace, which distinguishes the tables of plugins with the same identity. They all share one directory,
    /// so that the places of former namespaces are reused.
    namespace: u64,
    /// The identity and the number of slots of each of the policy's tables, by the number of the table.
    tables: Box<[(u64, u32)]>,
    /// The first number of each table; `None` when it is not known yet.
    starts: Option<Box<[u32]>>,
    /// Whether the directory was read since the last tick because of a value of another owner.
    has_asked: bool,
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

const DIRECTORY: &str = "directory";

impl SharedState {
    /// Tables for the plugin with the unique name `instance`, at first without any.
    pub(crate) fn new(instance: &[u8], namespace: u64) -> SharedState {
        SharedState { plugin: hash(instance), namespace, ..SharedState::default() }
    }

    /// Adds the tables of the policy.
    pub(crate) fn set_tables(&mut self, tables: &[Table]) {
        self.tables = tables.iter().map(|table| (self.identity(*table), table.slots)).collect();
        self.starts = None;
    }

    /// The identity of a table in the directory, and in the values in its places.
    fn identity(&self, table: Table) -> u64 {
        table.identity ^ self.namespace
    }

    /// Finds the places of the tables in advance, so that no request has to.
    pub(crate) fn arrive(&mut self, store: &mut Store) -> Result<(), Stopped> {
        if self.tables.is_empty() { Ok(()) } else { self.claim(store, Displacement::Arrives) }
    }

    pub(super) fn named(&self, name: &str) -> (RawKey, u64) {
        let owner = hash(name.as_bytes());
        // Both hashes are compared in full: one is in the key, the other in the value.
        (RawKey::new(b'n', self.plugin, u32::try_from(owner >> 32).unwrap_or(0)), owner)
    }

    fn slot(&self, table: Table, index: u32) -> Option<RawKey> {
        let start = self.starts.as_ref()?.get(table.number as usize)?;
        Some(RawKey::new(b's', self.plugin, start.wrapping_add(index)))
    }

    /// Updates a value; see [`penstock_policy::state::State::update`].
    pub(crate) fn update<T>(
        &mut self,
        store: &mut Store,
        key: Key<'_>,
        mut change: impl FnMut(&[u8], &mut Vec<u8>) -> Change<T>,
    ) -> Result<T, Stopped> {
        let (table, index) = match key {
            Key::Named(name) => {
                let (key, owner) = self.named(name);
                return store.update(key, owner, true, &mut change);
            }
            Key::Slot(table, index) => (table, index),
        };
        if self.starts.is_none() {
            self.claim(store, Displacement::Arrives)?;
        }
        let key = self.slot(table, index).ok_or(Stopped::Contended)?;
        match store.update(key, self.identity(table), false, &mut change) {
            Err(Stopped::Others) => {}
            done => return done,
        }
        // The value belongs either to a former table, or to a newer one that has replaced this one. Reading the
        // directory once a second is enough, because replacing a table takes two reloads.
        if !std::mem::replace(&mut self.has_asked, true) {
            self.claim(store, Displacement::Returns)?;
        }
        let key = self.slot(table, index).ok_or(Stopped::Contended)?;
        store.update(key, self.identity(table), true, &mut change)
    }

    /// Reads a value; see [`penstock_policy::state::State::read`].
    pub(crate) fn read<T>(
        &mut self,
        store: &mut Store,
        key: Key<'_>,
        look: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Status> {
        match key {
            Key::Named(name) => {
                let (key, owner) = self.named(name);
                store.read(key, owner, look)
            }
            Key::Slot(table, index) => {
                if self.starts.is_none() {
                    let (key, owner) = self.named(DIRECTORY);
                    // A read does not assign places: a table that was never used is empty.
                    let starts = store.read(key, owner, |directory| Directory::read(directory).find(&self.tables))?;
                    self.starts = starts.map(Vec::into);
                }
                match self.slot(table, index) {
                    Some(key) => store.read(key, self.identity(table), look),
                    None => Ok(look(&[])),
                }
            }
        }
    }

    /// Called each second: marks the policy as alive.
    pub(crate) fn keep(&mut self, store: &mut Store) -> Result<(), Stopped> {
        self.has_asked = false;
        if self.starts.is_some() { self.claim(store, Displacement::Returns) } else { Ok(()) }
    }

    /// Finds the places of the tables, and assigns them if there are none yet.
    #[cold]
    fn claim(&mut self, store: &mut Store, claim: Displacement) -> Result<(), Stopped> {
        let (key, owner) = self.named(DIRECTORY);
        let starts = store.update(key, owner, true, &mut |old, new| {
            let mut directory = Directory::read(old);
            let has_changed = directory.claim(&self.tables, claim);
            let starts = directory.find(&self.tables);
            if has_changed {
                directory.write(new);
                Change::Replace(starts)
            } else {
                Change::Refuse(starts)
            }
        })?;
        self.starts = starts.map(Vec::into);
        Ok(())
    }
}
