//! A configuration of a filter: a loaded policy.

use std::sync::Arc;
use std::thread;

use penstock_host::{Host, Plugin};
use penstock_policy::{Module, Runs, module};

use crate::abi::{ConfigHandle, shows_all_attributes};
use crate::guard::guard;
use crate::handles::thread_number;
use crate::host::NativeHost;
use crate::refused;
use crate::sections::{NativePolicy, Sections, Ticking, WorkerSlot};

/// The minimum number of [`WorkerSlot`]s: with one for each worker thread, no two threads share memory in every
/// request.
const SLOTS: usize = 8;

/// The module's side of a filter configuration.
#[derive(Debug)]
pub(crate) struct FilterConfig {
    slots: Box<[Arc<dyn Sections>]>,
    running: Arc<dyn Ticking>,
    host: NativeHost,
}

/// The content of `filter_name`: the module, and the plugin's own name.
#[derive(Debug, PartialEq, Eq)]
struct FilterName {
    module: Module,
    name: Option<String>,
}

impl FilterName {
    /// Parses `<module>` or `<module>/<name>`.
    fn parse(text: &[u8]) -> Result<FilterName, String> {
        let text = std::str::from_utf8(text).map_err(|_| "filter_name: not UTF-8".to_owned())?;
        let (module, name) = text.split_once('/').map_or((text, None), |(module, name)| (module, Some(name)));
        let known = Module::ALL.into_iter().find(|known| known.name() == module);
        let module = known.ok_or_else(|| {
            let all = Module::ALL.map(Module::name).join(", ");
            format!(
                "filter_name: no module is called `{module}`; write `<module>` or `<module>/<name>` with one of: {all}"
            )
        })?;
        match name {
            Some("") => Err("filter_name: no name after the slash".to_owned()),
            name => Ok(FilterName { module, name: name.map(str::to_owned) }),
        }
    }
}

impl FilterConfig {
    /// Returns `None` when the configuration is refused; the log contains the reason.
    pub(crate) fn new(config: ConfigHandle, filter_name: &[u8], text: &[u8]) -> Option<FilterConfig> {
        let FilterName { module, name } = match FilterName::parse(filter_name) {
            Ok(name) => name,
            Err(why) => {
                log::error!("penstock: configuration refused: {why}");
                return None;
            }
        };
        let host = NativeHost::new(config, name);
        match module {
            Module::HeaderRouting => FilterConfig::running::<module::HeaderRouting>(host, text),
            Module::Canary => FilterConfig::running::<module::Canary>(host, text),
            Module::RateLimit => FilterConfig::running::<module::RateLimit>(host, text),
            Module::EgressAllowlist => FilterConfig::running::<module::EgressAllowlist>(host, text),
            Module::Suite => FilterConfig::running::<module::Suite>(host, text),
        }
    }

    fn running<M: Runs + Send + Sync>(host: NativeHost, text: &[u8]) -> Option<FilterConfig> {
        let Some((plugin, worker, gauges)) = Plugin::<M, _>::configure(host.clone(), Ok::<_, String>(text)) else {
            refused::note(host.instance());
            return None;
        };
        if !plugin.policy().breakers().is_empty() && !shows_all_attributes() {
            log::warn!(
                "penstock: this version of Envoy does not show dynamic modules that a response was cut off after its \
                 headers, so breakers do not count this as a failure; Envoy 1.39 and later do"
            );
        }
        for (kind, name) in plugin.metrics(&gauges) {
            if let Err(error) = host.define_metric(kind, &name) {
                log::warn!("penstock: no metric {name}: {error}");
            }
        }
        let running = Arc::new(NativePolicy::new(plugin, worker, gauges));
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let slot = || Arc::new(WorkerSlot::new(Arc::clone(&running))) as Arc<dyn Sections>;
        let slots = std::iter::repeat_with(slot).take(SLOTS.max(2 * threads).next_power_of_two()).collect();
        Some(FilterConfig { slots, running, host })
    }

    /// The slot of the current thread.
    pub(crate) fn sections(&self) -> Option<Arc<dyn Sections>> {
        self.slots.get(thread_number() % self.slots.len().max(1)).cloned()
    }

    /// Envoy's side.
    pub(crate) fn host(&self) -> &NativeHost {
        &self.host
    }

    /// Called each second on Envoy's main thread.
    pub(crate) fn tick(&self) {
        #[cfg(any(test, feature = "trap"))]
        crate::trap::on_tick(&self.host.instance());
        self.running.tick();
        let refused = refused::take(&self.host.instance());
        if refused > 0 {
            self.running.count_refusals(refused);
        }
        self.host.hand_over();
    }
}

impl Drop for FilterConfig {
    /// Exports what was counted in the last second. When this returns, Envoy's side no longer exists, but requests of
    /// this configuration may; from now on, nothing is requested from Envoy's configuration.
    fn drop(&mut self) {
        let _ = guard(|| self.tick());
        self.host.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::fake;
    use crate::error::Error;

    #[test]
    fn a_filter_name_is_a_module_and_maybe_a_name() {
        for (text, module, name) in [
            ("suite", Module::Suite, None),
            ("rate-limit/checkout", Module::RateLimit, Some("checkout")),
            ("suite/a/b", Module::Suite, Some("a/b")),
        ] {
            let name = name.map(str::to_owned);
            assert_eq!(FilterName::parse(text.as_bytes()), Ok(FilterName { module, name }), "{text}");
        }
    }

    #[test]
    fn any_other_filter_name_is_refused_with_the_names_that_there_are() {
        for text in ["", "suite.wasm", "Suite", "/x", "suites/x"] {
            let why = FilterName::parse(text.as_bytes()).unwrap_err();
            assert!(why.contains("suite, egress-allowlist, rate-limit, header-routing, canary"), "{why}");
        }
        assert!(FilterName::parse(b"suite/").unwrap_err().contains("no name after the slash"));
        assert!(FilterName::parse(b"\xff").unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn nothing_is_asked_of_envoys_configuration_that_is_gone_even_after_a_panic() {
        // No callback of this fake Envoy uses the configuration, so the pointer may be invalid.
        assert!(fake::load_without(fake::OPTIONAL));
        let config = FilterConfig::new(ConfigHandle::Http(1), b"suite/trap-tick", br#"{"routes":{"default":"r"}}"#);
        let config = config.unwrap();
        let host = config.host().clone();
        let start_timer = || host.start_timer(penstock_host::TICK_PERIOD).unwrap_err();
        assert_ne!(start_timer(), Error::Over);
        assert!(guard(|| config.tick()).is_err());
        let _ = guard(|| drop(config));
        assert_eq!(start_timer(), Error::Over);
        fake::load_without(&[]);
    }

    #[test]
    fn a_policy_at_work_is_shared_by_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<FilterConfig>();
    }
}
