//! Turns the plugin's configuration into a running policy, or into log lines that say what is wrong.

use std::fmt::Display;

use penstock_policy::document::thousands;
use penstock_policy::{Policy, Runs, text_hash};

use crate::environment::{PluginEnvironment, Worker};
use crate::failure::count_refusals;
use crate::gauges::GaugeWriter;
use crate::host::{Host, PolicyNeed};
use crate::plugin::Plugin;

impl<M: Runs, H: Host> Plugin<M, H> {
    /// Loads the configuration (`Err`: it could not be read) and returns the plugin with this worker's own data.
    /// Returns `None` when the configuration is refused: the refusal is counted, the log says why, and the proxy keeps
    /// its old configuration.
    pub fn configure<E: Display>(host: H, configuration: Result<&[u8], E>) -> Option<(Self, Worker<H>, GaugeWriter)> {
        let name = host.plugin_name().unwrap_or_else(|| M::MODULE.name().to_owned());
        let hash = configuration.as_ref().map_or(0, |configuration| text_hash(configuration));
        match read(&host, &name, hash, configuration) {
            Some((policy, mut worker, gauges)) => {
                Some((Plugin::new(host, policy, &name, hash, &mut worker), worker, gauges))
            }
            None => {
                count_refusals(&host, &name, 1);
                None
            }
        }
    }
}

fn read<M: Runs, H: Host>(
    host: &H,
    name: &str,
    hash: u64,
    configuration: Result<&[u8], impl Display>,
) -> Option<(Policy<M>, Worker<H>, GaugeWriter)> {
    let refuse = |why: &dyn Display| log::error!("penstock {}: configuration refused: {why}", M::MODULE.name());
    let configuration = configuration.map_err(|error| refuse(&error)).ok()?;
    match Policy::from_json(configuration) {
        Ok(policy) => {
            let mut policy: Policy<M> = policy;
            let needs =
                [(PolicyNeed::Workload, policy.needs_workload()), (PolicyNeed::ServerName, policy.needs_server_name())];
            for (need, is_needed) in needs {
                if is_needed && let Some(why) = host.lacks(need) {
                    refuse(&why);
                    return None;
                }
            }
            let mut worker = Worker::new(host, hash, &policy);
            let mut environment = PluginEnvironment::new(host, &mut worker);
            if policy.start(&mut environment).is_err() || environment.failure().is_some() {
                let error = environment.failure().map_or_else(|| "no answer".to_owned(), |error| error.to_string());
                refuse(&format_args!("the proxy cannot store the state of the limits ({error})"));
                return None;
            }
            let gauges = GaugeWriter::new(&policy, name, hash, &mut environment);
            if !policy.tables().is_empty()
                && let Some(hint) = host.unnamed_hint()
            {
                log::warn!(
                    "penstock: this plugin has no name, so all limits and breakers start again with each change of its \
                     configuration; {hint}"
                );
            }
            Some((policy, worker, gauges))
        }
        Err(problems) => {
            for problem in problems.iter() {
                refuse(problem);
            }
            if problems.more() > 0 {
                refuse(&format_args!("and {} more problems", thousands(problems.more() as u64)));
            }
            None
        }
    }
}
