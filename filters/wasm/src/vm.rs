//! Finds the plugin and the request of each callback of the proxy.

use std::cell::RefCell;
use std::rc::Rc;

use hashbrown::HashMap;
use penstock_host::proxy_log::CRITICAL;
use penstock_host::{Failure, Flow, GaugeWriter, Plugin, PluginLog, Rest, Worker};
use penstock_policy::Runs;
use rustc_hash::FxBuildHasher;

use crate::memory::HostBuffer;
use crate::{host, logger};
use host::{CurrentRequest, ProxyWasm};

/// Contexts by the proxy's ids.
type Contexts<T> = HashMap<u32, T, FxBuildHasher>;

/// The content of one VM of the module `M`. A proxy runs all plugins of one `vm_id` and code in the same VM, and
/// after a reload the old and the new configuration side by side, so a policy belongs to a context, not to the module.
#[derive(Debug)]
pub struct Vm<M: Runs>(RefCell<Contents<M>>);

/// A plugin, and this worker's own data for it.
#[derive(Debug)]
pub(crate) struct WasmPolicy<M: Runs> {
    plugin: Plugin<M, ProxyWasm>,
    worker: RefCell<Worker<ProxyWasm>>,
    gauges: RefCell<GaugeWriter>,
}

impl<M: Runs> WasmPolicy<M> {
    /// `None` only when the proxy makes a callback within a callback, which is not allowed.
    fn with<T>(&self, act: impl FnOnce(&Plugin<M, ProxyWasm>, &mut Worker<ProxyWasm>) -> T) -> Option<T> {
        self.worker.try_borrow_mut().ok().map(|mut worker| act(&self.plugin, &mut worker))
    }
}

#[derive(Debug)]
pub(crate) struct Contents<M: Runs> {
    /// Root contexts: one for each plugin and configuration, so few that a linear search is fastest.
    pub(crate) plugins: Vec<(u32, Rc<WasmPolicy<M>>)>,
    /// The log lines of root contexts without a policy.
    pub(crate) logs: Vec<(u32, Rc<PluginLog>)>,
    /// Requests in progress in root contexts without a policy.
    pub(crate) orphans: Contexts<Rc<PluginLog>>,
    /// Requests in progress.
    pub(crate) streams: Contexts<WasmStream<M>>,
    /// The requests of the calls in progress.
    pub(crate) calls: Contexts<u32>,
}

/// A request in progress.
#[derive(Debug)]
pub(crate) struct WasmStream<M: Runs> {
    /// The policy with which it started.
    plugin: Rc<WasmPolicy<M>>,
    /// What remains to be done in a later callback.
    rest: Rest<HostBuffer>,
}

impl<M: Runs> Contents<M> {
    fn plugin(&self, context: u32) -> Option<&Rc<WasmPolicy<M>>> {
        self.plugins.iter().find(|(plugin, _)| *plugin == context).map(|(_, plugin)| plugin)
    }

    /// Restores the previous context.
    fn set_plugin(&mut self, context: u32, plugin: Rc<WasmPolicy<M>>) -> Option<Rc<WasmPolicy<M>>> {
        let before = self.remove_plugin(context);
        self.plugins.push((context, plugin));
        before
    }

    fn remove_plugin(&mut self, context: u32) -> Option<Rc<WasmPolicy<M>>> {
        let at = self.plugins.iter().position(|(plugin, _)| *plugin == context)?;
        Some(self.plugins.swap_remove(at).1)
    }

    /// The log lines of a root context without a policy.
    fn log(&mut self, root: u32) -> Rc<PluginLog> {
        if let Some((_, log)) = self.logs.iter().find(|(known, _)| *known == root) {
            return Rc::clone(log);
        }
        let log = Rc::new(PluginLog::default());
        self.logs.push((root, Rc::clone(&log)));
        log
    }

    /// Removes and returns the remaining work of a request, and forgets the call that it waits for.
    fn take_rest(&mut self, stream: u32) -> Option<WasmStream<M>> {
        let of_stream = self.streams.get_mut(&stream)?;
        if matches!(of_stream.rest, Rest::Nothing) {
            return None;
        }
        let rest = std::mem::replace(&mut of_stream.rest, Rest::Nothing);
        if let Rest::Call(waiting) = &rest {
            self.calls.remove(&waiting.call());
        }
        Some(WasmStream { plugin: Rc::clone(&of_stream.plugin), rest })
    }

    /// Stores the remaining work of a request.
    fn keep_rest(&mut self, stream: u32, rest: Rest<HostBuffer>) {
        if let Some(of_stream) = self.streams.get_mut(&stream) {
            if let Rest::Call(waiting) = &rest {
                self.calls.insert(waiting.call(), stream);
            }
            of_stream.rest = rest;
        }
    }
}

/// Called when the module has been loaded.
pub fn initialize() {
    #[cfg(target_os = "wasi")]
    crate::abi::initialize();
}

/// Called when the VM starts. From now on, a panic, which would be a bug, writes one line to the log before it traps.
pub fn vm_start() -> bool {
    logger::LOG.install();
    if cfg!(target_arch = "wasm32") {
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload_as_str().unwrap_or_default();
            let place = panic.location().map(|place| format!(" ({place})")).unwrap_or_default();
            logger::write(CRITICAL, &format!("penstock: bug, please report: {message}{place}"));
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
    /// Makes a VM without plugins.
    pub const fn new() -> Self {
        Vm(RefCell::new(Contents {
            plugins: Vec::new(),
            logs: Vec::new(),
            orphans: Contexts::with_hasher(FxBuildHasher),
            streams: Contexts::with_hasher(FxBuildHasher),
            calls: Contexts::with_hasher(FxBuildHasher),
        }))
    }

    /// `None` only when the proxy makes a callback within a callback, which is not allowed.
    pub(crate) fn contents<T>(&self, act: impl FnOnce(&mut Contents<M>) -> T) -> Option<T> {
        self.0.try_borrow_mut().ok().map(|mut contents| act(&mut contents))
    }

    /// Called when a context is created: of a plugin (`parent` is 0), or of a request to the plugin `parent`.
    pub fn context_create(&self, context: u32, parent: u32) {
        self.contents(|contents| {
            if let Some(plugin) = contents.plugin(parent).cloned() {
                contents.streams.insert(context, WasmStream { plugin, rest: Rest::Nothing });
            } else if parent != 0 {
                let log = contents.log(parent);
                contents.orphans.insert(context, log);
            }
        });
    }

    /// Called when the context of a plugin or a request ends. The proxy still has all data of the request, so no other
    /// callback is needed to find out how it ended.
    pub fn delete(&self, context: u32) {
        let stream = self.contents(|contents| {
            let stream = contents.streams.remove(&context)?;
            if let Rest::Call(waiting) = &stream.rest {
                contents.calls.remove(&waiting.call());
            }
            Some(stream)
        });
        // Both are dropped outside of `contents`, because they may hold the last reference to a large policy.
        if let Some(stream) = stream.flatten() {
            stream.plugin.with(|plugin, worker| plugin.end(worker, &mut CurrentRequest, stream.rest));
            return;
        }
        let plugin = self.contents(|contents| {
            if contents.orphans.remove(&context).is_none() {
                contents.logs.retain(|(root, _)| *root != context);
            }
            contents.remove_plugin(context)
        });
        if let Some(plugin) = plugin.flatten() {
            // Envoy does not stop the timer of a former plugin, so the VM would keep one for every policy that it ever
            // had. An error means that there was no timer.
            let _ = host::tick_every(0);
            plugin.with(|plugin, worker| plugin.retire(worker));
            drop(plugin);
        }
    }

    /// Called with the plugin's configuration. `false` refuses it, and the proxy keeps the old one.
    pub fn configure(&self, plugin: u32, size: usize) -> bool {
        let configuration = host::plugin_configuration(size);
        let configuration =
            configuration.as_ref().map_err(|error| format!("the proxy does not hand it over ({error})"));
        let configuration = configuration.and_then(|bytes| match bytes.len() {
            length if length == size => Ok(&**bytes),
            length => Err(format!("the proxy announced {size} bytes and hands over {length}")),
        });
        let Some((configured, worker, gauges)) = Plugin::configure(ProxyWasm, configuration) else { return false };
        let running = WasmPolicy { plugin: configured, worker: RefCell::new(worker), gauges: RefCell::new(gauges) };
        // The old one, if any, is dropped outside of `contents`.
        let replaced = self.contents(|contents| contents.set_plugin(plugin, Rc::new(running)));
        replaced.is_some()
    }

    /// Called once a second.
    pub fn tick(&self, plugin: u32) {
        let running = self.contents(|contents| contents.plugin(plugin).cloned()).flatten();
        if let Some(running) = running
            && let Ok(mut gauges) = running.gauges.try_borrow_mut()
        {
            running.with(|plugin, worker| plugin.tick(worker, &mut gauges));
        }
    }

    /// Called with a request's headers; `has_ended` says that nothing follows. Decides the request and applies the
    /// decision.
    pub fn request_headers(&self, stream: u32, has_ended: bool) -> Flow {
        #[cfg(feature = "trap")]
        crate::trap::on_request();
        let running = self.plugin_of(stream);
        let handled = running
            .and_then(|r| r.with(|plugin, worker| plugin.request_headers(worker, &mut CurrentRequest, has_ended)));
        let Some(handled) = handled else {
            return Failure::NoPolicy.refuse(&self.log_of(stream), &ProxyWasm, &mut CurrentRequest);
        };
        if !matches!(handled.rest, Rest::Nothing) {
            self.contents(|contents| contents.keep_rest(stream, handled.rest));
        }
        handled.flow
    }

    /// The log lines of a request without a policy. A request that the proxy never announced belongs to no root
    /// context; its lines are counted for context 0, which does not exist.
    #[cold]
    fn log_of(&self, stream: u32) -> Rc<PluginLog> {
        let log = self.contents(|contents| match contents.orphans.get(&stream) {
            Some(log) => Rc::clone(log),
            None => contents.log(0),
        });
        log.unwrap_or_default()
    }

    fn plugin_of(&self, stream: u32) -> Option<Rc<WasmPolicy<M>>> {
        self.contents(|contents| contents.streams.get(&stream).map(|stream| Rc::clone(&stream.plugin))).flatten()
    }

    /// A gRPC call has ended with a message.
    pub fn grpc_receive(&self, call: u32, size: usize) {
        // A message that cannot be read is treated as no reply.
        let message = host::grpc_message(size).ok();
        self.reply(call, message.as_deref());
    }

    /// A gRPC call has ended without a message.
    pub fn grpc_close(&self, call: u32) {
        self.reply(call, None);
    }

    /// A call has ended. When its request has ended too, the late reply is ignored.
    #[cold]
    fn reply(&self, call: u32, message: Option<&[u8]>) {
        let waiting = self.contents(|contents| {
            let stream = *contents.calls.get(&call)?;
            Some((stream, contents.take_rest(stream)?))
        });
        let Some((stream, WasmStream { plugin, rest })) = waiting.flatten() else {
            host::note_early_reply(message);
            return;
        };
        let Rest::Call(waiting) = rest else { return };
        // The current context is the plugin's.
        if let Err(error) = host::act_for(stream) {
            // Nothing more can be done to the request; its own timeout ends it.
            plugin.plugin.note("context", &format!("cannot act for a request that waits ({error})"));
            // Until then it waits: an arriving body must not forward its headers.
            self.contents(|contents| contents.keep_rest(stream, Rest::Call(waiting)));
            return;
        }
        let rest = plugin.with(|plugin, worker| plugin.reply(worker, &mut CurrentRequest, *waiting, message));
        self.contents(|contents| contents.keep_rest(stream, rest.unwrap_or(Rest::Nothing)));
    }

    /// Called for a new connection that is not decrypted: decides it before any of its bytes is forwarded.
    pub fn new_connection(&self, stream: u32) -> Flow {
        #[cfg(feature = "trap")]
        crate::trap::on_connection();
        let running = self.plugin_of(stream);
        let flow = running.and_then(|r| r.with(|plugin, worker| plugin.connection(worker, &mut CurrentRequest)));
        flow.unwrap_or_else(|| {
            Plugin::<M, ProxyWasm>::refuse_connection(&self.log_of(stream), &ProxyWasm, &mut CurrentRequest)
        })
    }

    /// More of a request has arrived, the last of it when `has_ended`. It is passed on unless the request waits; the
    /// body of a request without a policy, which was refused, never is.
    pub fn request_body(&self, stream: u32, has_ended: bool) -> Flow {
        let flow = self.contents(|contents| {
            let stream = contents.streams.get_mut(&stream)?;
            Some(stream.plugin.plugin.request_body(&mut stream.rest, has_ended))
        });
        flow.flatten().unwrap_or(Flow::Pause)
    }

    /// A response's trailers have arrived.
    pub fn response_trailers(&self, stream: u32) -> Flow {
        self.contents(|contents| {
            if let Some(stream) = contents.streams.get_mut(&stream) {
                stream.plugin.plugin.response_trailers(&mut CurrentRequest, &mut stream.rest);
            }
        });
        Flow::Continue
    }

    /// A response's headers have arrived, from the upstream or from the proxy; nothing follows when `has_ended`.
    pub fn response_headers(&self, stream: u32, has_ended: bool) -> Flow {
        // Removed while the proxy is called.
        if let Some(WasmStream { plugin, rest }) = self.contents(|contents| contents.take_rest(stream)).flatten() {
            let rest =
                plugin.with(|plugin, worker| plugin.response_headers(worker, &mut CurrentRequest, rest, has_ended));
            if let Some(rest @ (Rest::Call(_) | Rest::AfterResponse(_))) = rest {
                self.contents(|contents| contents.keep_rest(stream, rest));
            }
        }
        Flow::Continue
    }
}
