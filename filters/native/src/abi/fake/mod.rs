//! Envoy's side of the ABI for tests: it calls the module's hooks as Envoy does, and implements its callbacks.
//!
//! It lends memory for the shortest time that the ABI allows: what a callback returns is freed at the next callback, so
//! that a sanitizer or Miri detects every view that is kept too long. It fails on demand ([`Faults`]), and calls hooks
//! within callbacks where Envoy may. Hooks are called by their exported names.

#![allow(
    clippy::undocumented_unsafe_blocks,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "the ABI, in tests"
)]

mod allocation;
mod callbacks;
mod exchange;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::loader::Callbacks;
use super::types::EnvoyBuffer;
pub(crate) use allocation::allocated;
pub(super) use callbacks::symbol;
pub(crate) use callbacks::{OPTIONAL, REQUIRED};
pub(crate) use exchange::{FakeCallEvent, FakeExchange, FakePassage, Fate, with_faults};

type Ptr = *mut c_void;

unsafe extern "C" {
    fn envoy_dynamic_module_on_program_init() -> *const c_char;
    fn envoy_dynamic_module_on_http_filter_config_new(
        config: Ptr,
        name: EnvoyBuffer,
        text: EnvoyBuffer,
    ) -> *const c_void;
    fn envoy_dynamic_module_on_http_filter_config_destroy(config: *const c_void);
    fn envoy_dynamic_module_on_http_filter_config_scheduled(envoy: Ptr, config: *const c_void, event: u64);
    fn envoy_dynamic_module_on_network_filter_config_new(
        config: Ptr,
        name: EnvoyBuffer,
        text: EnvoyBuffer,
    ) -> *const c_void;
    fn envoy_dynamic_module_on_network_filter_config_destroy(config: *const c_void);
    fn envoy_dynamic_module_on_network_filter_config_scheduled(config: *const c_void, event: u64);
}

/// The faults of this thread.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Callbacks that return failure without doing anything.
    pub(crate) failing: BTreeSet<&'static str>,
    /// Views are null with a non-zero length.
    pub(crate) null_views: bool,
    /// Header maps and lists claim to have this length.
    pub(crate) count: Option<usize>,
    /// Whether local replies and resets are carried out within their callback.
    pub(crate) acts_at_once: bool,
    /// What a call to a cluster does within the callback that starts it.
    pub(crate) call_at_once: Vec<FakeCallEvent>,
}

thread_local! {
    static FAULTS: RefCell<Faults> = RefCell::default();
    static LOG: RefCell<Vec<(u32, String)>> = const { RefCell::new(Vec::new()) };
    static LACKING: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
    static OWN: Cell<Option<&'static Callbacks>> = const { Cell::new(None) };
}

/// Changes the faults.
pub(crate) fn faults(change: impl FnOnce(&mut Faults)) {
    FAULTS.with_borrow_mut(change);
}

/// All lines that the module has logged in this thread since the last call.
pub(crate) fn log() -> Vec<(u32, String)> {
    LOG.take()
}

/// Loads the module; returns whether it accepts this Envoy.
pub(crate) fn load() -> bool {
    let version = unsafe { envoy_dynamic_module_on_program_init() };
    // A failing test reports its panic itself, not in Envoy's log.
    drop(std::panic::take_hook());
    !version.is_null()
}

/// Loads the module into an Envoy without these callbacks, which this thread sees from now on.
pub(crate) fn load_without(lacking: &[&'static str]) -> bool {
    LACKING.set(lacking.iter().copied().collect());
    load()
}

pub(super) fn is_lacking(name: &str) -> bool {
    LACKING.with_borrow(|lacking| lacking.contains(name))
}

/// The callbacks of this thread only.
pub(super) fn own_callbacks() -> Option<&'static Callbacks> {
    OWN.get()
}

/// Callbacks that were looked up while some were missing belong to this thread (returns `None`); all others are for
/// every thread.
pub(super) fn keep(found: Callbacks) -> Option<Callbacks> {
    static KEPT: Mutex<Vec<&'static Callbacks>> = Mutex::new(Vec::new());
    if LACKING.with_borrow(BTreeSet::is_empty) {
        OWN.set(None);
        return Some(found);
    }
    let found: &'static Callbacks = Box::leak(Box::new(found));
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(found);
    OWN.set(Some(found));
    None
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Envoy's side of a filter's configuration.
#[derive(Debug, Default)]
pub(super) struct FakeConfig {
    is_network: bool,
    /// The names of metrics with their labels.
    definitions: Mutex<Vec<(String, Vec<String>)>>,
    values: Mutex<BTreeMap<String, u64>>,
    is_loading: std::sync::atomic::AtomicBool,
    asked: Arc<AtomicU64>,
}

/// A loaded configuration of a filter.
#[derive(Debug)]
pub(crate) struct LoadedFilter {
    config: Arc<FakeConfig>,
    module: *const c_void,
}

// A configuration is shared by all workers.
unsafe impl Send for LoadedFilter {}
unsafe impl Sync for LoadedFilter {}

impl LoadedFilter {
    /// Loads the configuration of an HTTP filter; `None` when it is refused.
    pub(crate) fn http(filter_name: &str, policy: &str) -> Option<LoadedFilter> {
        LoadedFilter::of(false, filter_name.as_bytes(), policy.as_bytes())
    }

    /// Loads the configuration of a network filter.
    pub(crate) fn network(filter_name: &str, policy: &str) -> Option<LoadedFilter> {
        LoadedFilter::of(true, filter_name.as_bytes(), policy.as_bytes())
    }

    /// The same for any bytes.
    pub(crate) fn of(is_network: bool, filter_name: &[u8], policy: &[u8]) -> Option<LoadedFilter> {
        assert!(OWN.get().is_some() || load(), "the module takes a whole Envoy");
        let config = Arc::new(FakeConfig { is_network, ..FakeConfig::default() });
        config.is_loading.store(true, Ordering::Relaxed);
        // The views are valid during the call only.
        let (name, text) = (filter_name.to_vec(), policy.to_vec());
        let view = |bytes: &[u8]| EnvoyBuffer { ptr: bytes.as_ptr(), length: bytes.len() };
        let new = if is_network {
            envoy_dynamic_module_on_network_filter_config_new
        } else {
            envoy_dynamic_module_on_http_filter_config_new
        };
        let module = unsafe { new(Arc::as_ptr(&config).cast_mut().cast(), view(&name), view(&text)) };
        config.is_loading.store(false, Ordering::Relaxed);
        (!module.is_null()).then_some(LoadedFilter { config, module })
    }

    /// Calls the module on Envoy's main thread, as after a second.
    pub(crate) fn tick(&self) {
        if self.config.is_network {
            unsafe { envoy_dynamic_module_on_network_filter_config_scheduled(self.module, 0) }
        } else {
            let config = Arc::as_ptr(&self.config).cast_mut().cast();
            unsafe { envoy_dynamic_module_on_http_filter_config_scheduled(config, self.module, 0) }
        }
    }

    /// A metric in Envoy: its name with the values of its labels.
    pub(crate) fn metric(&self, name: &str) -> Option<u64> {
        lock(&self.config.values).get(name).copied()
    }

    /// How often the module has asked to be called on the main thread.
    pub(crate) fn asked(&self) -> u64 {
        self.config.asked.load(Ordering::Relaxed)
    }
}

impl Drop for LoadedFilter {
    fn drop(&mut self) {
        let destroy = if self.config.is_network {
            envoy_dynamic_module_on_network_filter_config_destroy
        } else {
            envoy_dynamic_module_on_http_filter_config_destroy
        };
        unsafe { destroy(self.module) }
    }
}
