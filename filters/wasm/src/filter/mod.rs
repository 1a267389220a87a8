//! The life of a plugin and of a request, as the host tells it: created, configured, request by request, deleted.

mod carry;

use std::cell::RefCell;
use std::rc::Rc;

use hashbrown::HashMap;
use penstock_policy::{Metric, Policy, Runs, Section};
use rustc_hash::FxBuildHasher;

use crate::abi::{Flow, LogLevel};
use crate::configuration::{self, Loaded};
use crate::counters::Counters;
use crate::failure::Failure;
use crate::gauges::Board;
use crate::host::{HostEnvironment, Kept};
use crate::latency::Latency;
use crate::later::Later;
use crate::question::Waiting;
use crate::shared::{self, Store};
use crate::{counters, egress, host};

/// Contexts by the number that the host gives them.
type Contexts<T> = HashMap<u32, T, FxBuildHasher>;

/// Everything that one VM of the module `M` knows. A host runs all plugins of one `vm_id` and code in the same VM, and
/// after a reload the old and the new configuration side by side, so a policy belongs to a context, not to the module.
#[derive(Debug)]
pub struct Vm<M: Runs>(RefCell<State<M>>);

#[derive(Debug)]
struct State<M: Runs> {
    /// Root contexts: one for each plugin and configuration, so few that looking through them is quickest.
    plugins: Vec<(u32, Rc<Plugin<M>>)>,
    /// Requests under way.
    streams: Contexts<Stream<M>>,
    /// The requests of the calls under way.
    calls: Contexts<u32>,
    /// The request whose call the host is just taking.
    beginning: Option<u32>,
}

/// A request under way.
#[derive(Debug)]
struct Stream<M: Runs> {
    /// The policy under which it began.
    plugin: Rc<Plugin<M>>,
    /// What is left to do when the response comes.
    later: Option<Box<Later>>,
    /// What is kept while a rate-limit service is asked.
    waiting: Option<Box<Waiting>>,
}

impl<M: Runs> State<M> {
    fn waiting(&mut self, stream: u32) -> Option<&mut Option<Box<Waiting>>> {
        self.streams.get_mut(&stream).map(|stream| &mut stream.waiting)
    }

    fn wait(&mut self, stream: u32, waiting: Box<Waiting>) {
        if let Some(place) = self.waiting(stream) {
            *place = Some(waiting);
        }
    }

    fn plugin(&self, context: u32) -> Option<&Rc<Plugin<M>>> {
        self.plugins.iter().find(|(plugin, _)| *plugin == context).map(|(_, plugin)| plugin)
    }

    /// Gives back what was there before.
    fn set_plugin(&mut self, context: u32, plugin: Rc<Plugin<M>>) -> Option<Rc<Plugin<M>>> {
        let before = self.remove_plugin(context);
        self.plugins.push((context, plugin));
        before
    }

    fn remove_plugin(&mut self, context: u32) -> Option<Rc<Plugin<M>>> {
        let at = self.plugins.iter().position(|(plugin, _)| *plugin == context)?;
        Some(self.plugins.swap_remove(at).1)
    }
}

/// A policy at work, and what it has counted.
#[derive(Debug)]
struct Plugin<M: Runs> {
    policy: Policy<M>,
    kept: RefCell<Kept>,
    counters: RefCell<Counters>,
    board: RefCell<Board>,
    expiry: egress::Expiry,
    latency: Latency,
}

impl<M: Runs> Plugin<M> {
    fn count(&self, counts: &[Metric]) {
        if let Ok(mut counters) = self.counters.try_borrow_mut() {
            counters.count(counts);
        }
    }

    /// What decisions by the policy may ask.
    fn environment(&self) -> HostEnvironment<'_> {
        HostEnvironment::new(&self.kept)
    }

    /// Says that the policy still lives, and what strangers have left under its keys.
    fn keep_state(&self) {
        if self.policy.tables().is_empty() {
            return;
        }
        self.environment().keep_state();
        let foreign = shared::with(Store::take_foreign).unwrap_or(0);
        if foreign > 0 {
            host::count_rare_times("penstock.host.state.foreign", foreign);
            let line = "values in the host's shared data under this plugin's keys were not its own: not used";
            host::log(LogLevel::Warn, &format!("penstock: {foreign} {line}"));
        }
    }

    /// Looks up what does not change with each request.
    fn look_up(&self) {
        if M::MODULE.runs(Section::Egress)
            && let Some(egress) = self.policy.egress()
        {
            egress::look_at_log_level();
            self.expiry.look(egress, &self.kept);
        }
    }

    fn look_at_gauges(&self) {
        if let Ok(mut board) = self.board.try_borrow_mut() {
            board.look(&self.policy, &mut self.environment());
        }
    }

    fn flush(&self) {
        if let Ok(mut counters) = self.counters.try_borrow_mut() {
            counters.flush(self.policy.metrics());
        }
    }
}

/// What was counted since the last tick.
impl<M: Runs> Drop for Plugin<M> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The module is loaded.
pub fn initialize() {
    #[cfg(target_os = "wasi")]
    crate::abi::initialize();
}

/// The VM starts: nothing can go wrong yet. From here on a panic, which would be a bug, leaves one line in the log
/// before it traps.
pub fn vm_start() -> bool {
    if cfg!(target_arch = "wasm32") {
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload_as_str().unwrap_or_default();
            let place = panic.location().map(|place| format!(" ({place})")).unwrap_or_default();
            host::log(LogLevel::Critical, &format!("penstock: bug, please report: {message}{place}"));
        }));
    }
    true
}

impl<M: Runs> Default for Vm<M> {
    fn default() -> Self {
        Vm::new()
    }
}

impl<M: Runs> Vm<M> {
    /// A VM without plugins.
    pub const fn new() -> Self {
        Vm(RefCell::new(State {
            plugins: Vec::new(),
            streams: Contexts::with_hasher(FxBuildHasher),
            calls: Contexts::with_hasher(FxBuildHasher),
            beginning: None,
        }))
    }

    /// `None` only when the host calls back in the middle of a callback, which it must not.
    fn state<T>(&self, act: impl FnOnce(&mut State<M>) -> T) -> Option<T> {
        self.0.try_borrow_mut().ok().map(|mut state| act(&mut state))
    }

    /// A context begins: a plugin's (`parent` 0), or that of a request to the plugin `parent`.
    pub fn context_create(&self, context: u32, parent: u32) {
        self.state(|state| {
            if let Some(plugin) = state.plugin(parent).cloned() {
                state.streams.insert(context, Stream { plugin, later: None, waiting: None });
            }
        });
    }

    /// A context ends: a plugin's, or a request's, however that went. The host still knows all of the request, so that
    /// no other callback is needed to learn how it went.
    pub fn delete(&self, context: u32) {
        self.stop_waiting(context);
        // Dropped outside of `state`, in case that it is the last user of a large policy.
        let Some(stream) = self.state(|state| state.streams.remove(&context)).flatten() else {
            let plugin = self.state(|state| state.remove_plugin(context)).flatten();
            // Envoy lets the timer of a plugin that is gone run on: that of every policy which this VM ever had. Where it
            // fails there was none.
            if plugin.is_some() {
                let _ = host::tick_every(0);
            }
            return;
        };
        // Only routes and canaries have breakers.
        if M::MODULE.owns_route_header()
            && let Some(later) = stream.later
            && let Some(event) = later.observe(&stream.plugin.policy, &mut stream.plugin.environment())
        {
            stream.plugin.count(&[event.metric]);
            host::log(LogLevel::Warn, &format!("penstock: {}", event.line));
        }
    }

    /// The plugin gets its configuration. `false` refuses it, and the host keeps the old one.
    pub fn configure(&self, plugin: u32, size: usize) -> bool {
        let name = host::plugin_name::<M>();
        let Some(Loaded { policy, board, kept }) = configuration::load(&name, size) else { return false };
        let counters = Counters::new(policy.metrics());
        if host::tick_every(counters::PERIOD).is_err() {
            host::log(LogLevel::Error, "penstock: the host has no timer: metrics are only written when a policy ends");
        }
        let expiry = egress::Expiry::default();
        let (counters, board) = (RefCell::new(counters), RefCell::new(board));
        let configured = Rc::new(Plugin { policy, kept, counters, board, expiry, latency: Latency::new(&name) });
        configured.look_up();
        // The old one is dropped outside of `state`.
        let replaced = self.state(|state| state.set_plugin(plugin, configured));
        replaced.is_some()
    }

    /// A second has passed.
    pub fn tick(&self, plugin: u32) {
        if let Some(plugin) = self.state(|state| state.plugin(plugin).cloned()).flatten() {
            plugin.flush();
            plugin.keep_state();
            plugin.look_at_gauges();
            plugin.look_up();
            plugin.latency.tick();
        }
    }

    /// A request's headers are there: decide, and do what was decided.
    pub fn request_headers(&self, stream: u32) -> Flow {
        #[cfg(feature = "trap")]
        crate::trap::on_request();
        self.carry(stream).unwrap_or_else(Failure::refuse)
    }

    /// A gRPC call has ended with a message.
    pub fn grpc_receive(&self, call: u32, size: usize) {
        // What cannot be read is no answer.
        let message = host::grpc_message(size).ok();
        self.called(call, message.as_deref());
    }

    /// A gRPC call has ended without a message.
    pub fn grpc_close(&self, call: u32) {
        self.called(call, None);
    }

    /// A connection begins whose bytes nobody will read: decide before any of them goes anywhere.
    pub fn new_connection(&self, stream: u32) -> Flow {
        #[cfg(feature = "trap")]
        crate::trap::on_connection();
        let plugin = self.plugin_of(stream);
        match plugin.as_ref().and_then(|plugin| Some((plugin, plugin.policy.egress()?))) {
            Some((plugin, egress)) => {
                plugin.latency.of(|| egress::connection(egress, |metric| plugin.count(&[metric])))
            }
            None => {
                host::log(LogLevel::Error, "penstock: no egress policy for a connection: closed");
                host::close_connection();
                Flow::Pause
            }
        }
    }

    /// A response's headers are there, the upstream's or the proxy's own.
    pub fn response_headers(&self, stream: u32) -> Flow {
        // The proxy has answered by itself, say after a timeout: there is nothing left to decide.
        self.stop_waiting(stream);
        // Taken out while the host is called.
        if let Some(mut later) = self.state(|state| state.streams.get_mut(&stream)?.later.take()).flatten() {
            later.response_headers::<M>();
            if later.is_watched() {
                self.state(|state| state.streams.get_mut(&stream)?.later.replace(later));
            }
        }
        Flow::Continue
    }
}

#[cfg(test)]
mod tests;
