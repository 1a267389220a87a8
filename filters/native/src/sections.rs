//! The sections that a plugin runs, and the state that each worker thread keeps for them.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use penstock_host::{Flow, GaugeWriter, Handled, PendingRequest, Plugin, Rest, Worker};
use penstock_policy::Runs;

use crate::headers::HeaderCopy;
use crate::host::NativeHost;
use crate::request::NativeRequest;

/// One worker thread's access to a loaded policy. See [`Plugin`] for the functions.
pub(crate) trait Sections: Debug + Send + Sync {
    fn request_headers(&self, request: &mut NativeRequest, has_ended: bool) -> Handled<HeaderCopy>;
    fn request_body(&self, rest: &mut Rest<HeaderCopy>, has_ended: bool) -> Flow;
    fn reply(
        &self,
        request: &mut NativeRequest,
        waiting: PendingRequest<HeaderCopy>,
        message: Option<&[u8]>,
    ) -> Rest<HeaderCopy>;
    fn response_headers(
        &self,
        request: &mut NativeRequest,
        rest: Rest<HeaderCopy>,
        has_ended: bool,
    ) -> Rest<HeaderCopy>;
    fn response_trailers(&self, request: &mut NativeRequest, rest: &mut Rest<HeaderCopy>);
    fn end(&self, request: &mut NativeRequest, rest: Rest<HeaderCopy>);
    fn connection(&self, request: &mut NativeRequest) -> Flow;
}

/// A loaded policy, as used on Envoy's main thread.
pub(crate) trait Ticking: Debug + Send + Sync {
    /// Called once a second.
    fn tick(&self);

    /// Records that later policies of this plugin were refused.
    fn count_refusals(&self, times: u32);
}

/// A loaded policy.
#[derive(Debug)]
pub(crate) struct NativePolicy<M: Runs> {
    plugin: Plugin<M, NativeHost>,
    /// The state of the main thread.
    main: Mutex<(Worker<NativeHost>, GaugeWriter)>,
}

impl<M: Runs + Send + Sync> NativePolicy<M> {
    pub(crate) fn new(
        plugin: Plugin<M, NativeHost>,
        worker: Worker<NativeHost>,
        gauges: GaugeWriter,
    ) -> NativePolicy<M> {
        NativePolicy { plugin, main: Mutex::new((worker, gauges)) }
    }
}

impl<M: Runs + Send + Sync> Ticking for NativePolicy<M> {
    fn tick(&self) {
        let mut main = self.main.lock().unwrap_or_else(PoisonError::into_inner);
        let (worker, gauges) = &mut *main;
        self.plugin.tick(worker, gauges);
    }

    fn count_refusals(&self, times: u32) {
        self.plugin.count_refusals(times);
    }
}

/// One worker thread's part of a loaded policy: no two threads use the same memory here in every request.
#[derive(Debug)]
pub(crate) struct WorkerSlot<M: Runs> {
    running: Arc<NativePolicy<M>>,
    /// Taken out while in use. Envoy may call a hook within a hook, and threads beyond the number of slots share some,
    /// so more than one may be needed.
    idle: Mutex<Vec<Worker<NativeHost>>>,
}

impl<M: Runs + Send + Sync> WorkerSlot<M> {
    pub(crate) fn new(running: Arc<NativePolicy<M>>) -> WorkerSlot<M> {
        WorkerSlot { running, idle: Mutex::default() }
    }

    fn with<T>(&self, act: impl FnOnce(&Plugin<M, NativeHost>, &mut Worker<NativeHost>) -> T) -> T {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let plugin = &self.running.plugin;
        let worker = idle().pop();
        let mut worker = worker.unwrap_or_else(|| plugin.worker());
        let done = act(plugin, &mut worker);
        idle().push(worker);
        done
    }
}

impl<M: Runs + Send + Sync> Sections for WorkerSlot<M> {
    fn request_headers(&self, request: &mut NativeRequest, has_ended: bool) -> Handled<HeaderCopy> {
        self.with(|plugin, worker| plugin.request_headers(worker, request, has_ended))
    }

    fn request_body(&self, rest: &mut Rest<HeaderCopy>, has_ended: bool) -> Flow {
        self.running.plugin.request_body(rest, has_ended)
    }

    fn reply(
        &self,
        request: &mut NativeRequest,
        waiting: PendingRequest<HeaderCopy>,
        message: Option<&[u8]>,
    ) -> Rest<HeaderCopy> {
        self.with(|plugin, worker| plugin.reply(worker, request, waiting, message))
    }

    fn response_headers(
        &self,
        request: &mut NativeRequest,
        rest: Rest<HeaderCopy>,
        has_ended: bool,
    ) -> Rest<HeaderCopy> {
        self.with(|plugin, worker| plugin.response_headers(worker, request, rest, has_ended))
    }

    fn response_trailers(&self, request: &mut NativeRequest, rest: &mut Rest<HeaderCopy>) {
        self.running.plugin.response_trailers(request, rest);
    }

    fn end(&self, request: &mut NativeRequest, rest: Rest<HeaderCopy>) {
        self.with(|plugin, worker| plugin.end(worker, request, rest));
    }

    fn connection(&self, request: &mut NativeRequest) -> Flow {
        self.with(|plugin, worker| plugin.connection(worker, request))
    }
}
