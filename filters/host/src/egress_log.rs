//! Log lines about egress decisions.

use std::sync::atomic::{AtomicBool, Ordering};

use log::{Level, LevelFilter};
use penstock_policy::egress::log_line;
use penstock_policy::{EgressOutcome, EgressVerdict, Request};

use crate::environment::HostEnvironment;
use crate::host::Host;
use crate::plugin_log::PluginLog;

/// Which log lines about one plugin's egress decisions the proxy's log accepts.
#[derive(Debug)]
pub(crate) struct EgressLog {
    /// Whether lines of the levels debug and info are enabled in the proxy's log.
    takes_debug: AtomicBool,
    takes_info: AtomicBool,
}

impl EgressLog {
    pub(crate) fn new() -> EgressLog {
        EgressLog { takes_debug: AtomicBool::new(false), takes_info: AtomicBool::new(true) }
    }

    /// Reads from the proxy which lines the log accepts. An operator may change it at any time, but reading it for each
    /// request would cost a call.
    pub(crate) fn refresh<H: Host>(&self, host: &H) {
        let level = host.log_level();
        self.takes_debug.store(level >= LevelFilter::Debug, Ordering::Relaxed);
        self.takes_info.store(level >= LevelFilter::Info, Ordering::Relaxed);
    }

    /// Writes what `line` returns, if the log accepts it: allowed requests at debug level, all others at info.
    pub(crate) fn write<H: Host>(
        &self,
        lines: &PluginLog,
        verdict: EgressVerdict,
        host: &H,
        line: impl FnOnce() -> String,
    ) {
        let (level, is_taken) = match verdict {
            EgressVerdict::Allow => (Level::Debug, &self.takes_debug),
            EgressVerdict::Audit | EgressVerdict::Deny => (Level::Info, &self.takes_info),
        };
        if !is_taken.load(Ordering::Relaxed) {
            return;
        }
        lines.decision(level, host, line);
    }

    /// Reports what the egress section decided to the log, whatever another section decided afterwards.
    pub(crate) fn report<H: Host>(
        &self,
        lines: &PluginLog,
        request: &Request<'_>,
        outcome: &EgressOutcome<'_>,
        environment: &mut HostEnvironment<'_, H>,
    ) {
        let host = environment.host();
        self.write(lines, outcome.verdict, host, || log_line(request, outcome, environment));
    }
}
