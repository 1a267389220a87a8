//! From the host's configuration buffer to a policy, or to log lines that say what is wrong with it.

use std::cell::RefCell;
use std::fmt::Display;

use penstock_policy::{Policy, Runs, text_hash};

use crate::abi::LogLevel;
use crate::gauges::Board;
use crate::host::{self, HostEnvironment, Kept};
use crate::shared::SharedState;

/// So many problems are printed; a document with more was not written by hand.
const MOST_LINES: usize = 50;

/// A policy, its gauges, and what this worker keeps beside it.
pub(crate) struct Loaded<M: Runs> {
    pub(crate) policy: Policy<M>,
    pub(crate) board: Board,
    pub(crate) kept: RefCell<Kept>,
}

/// Reads and compiles the configuration of the plugin that is being configured, whose name is `plugin`; its gauges come
/// with it. `None`: refused, which `penstock.host.configuration.refused` counts, and the log says why.
pub(crate) fn load<M: Runs>(plugin: &str, size: usize) -> Option<Loaded<M>> {
    let loaded = read(plugin, size);
    if loaded.is_none() {
        host::count_rare("penstock.host.configuration.refused");
    }
    loaded
}

fn read<M: Runs>(plugin: &str, size: usize) -> Option<Loaded<M>> {
    let refuse = |why: &dyn Display| {
        host::log(LogLevel::Error, &format!("penstock {}: configuration refused: {why}", M::MODULE.name()));
    };
    let configuration = host::plugin_configuration(size)
        .map_err(|status| refuse(&format_args!("the host does not hand it over ({status})")))
        .ok()?;
    if configuration.len() != size {
        refuse(&format_args!("the host announced {size} bytes and hands over {}", configuration.len()));
        return None;
    }
    match Policy::from_json(&configuration) {
        Ok(policy) => {
            let mut policy: Policy<M> = policy;
            let mut shared = SharedState::new(&host::instance());
            shared.set_tables(policy.tables());
            let kept = RefCell::new(Kept::new(shared));
            let mut environment = HostEnvironment::new(&kept);
            if policy.start(&mut environment).is_err() || environment.failure().is_some() {
                let status = environment.failure().map_or("no answer".to_owned(), |status| status.to_string());
                refuse(&format_args!("the host does not keep the limits' state ({status})"));
                return None;
            }
            let board = Board::new(&policy, plugin, text_hash(&configuration), &mut environment);
            drop(environment);
            if !policy.tables().is_empty() && host::is_nameless() {
                host::log(
                    LogLevel::Warn,
                    "penstock: this plugin has neither `name` nor `root_id`: limits and breakers of the same name in other \
                     plugins without a name share its state; give each plugin a name",
                );
            }
            Some(Loaded { policy, board, kept })
        }
        Err(problems) => {
            for problem in problems.iter().take(MOST_LINES) {
                refuse(problem);
            }
            let more = problems.iter().len().saturating_sub(MOST_LINES);
            if more > 0 {
                refuse(&format_args!("{more} more problems; `penstock check` lists them all"));
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::{self, with};
    use penstock_policy::module::HeaderRouting;

    /// Whether the configuration is taken, and what the log says.
    fn configure(configuration: &str) -> (bool, Vec<String>) {
        fake_host::reset();
        with(|host| host.configuration = configuration.into());
        let loaded = load::<HeaderRouting>("p", configuration.len()).is_some();
        (loaded, with(|host| host.log.drain(..).map(|(level, line)| format!("{level} {line}")).collect()))
    }

    #[test]
    fn a_good_policy_is_taken_in_silence() {
        assert_eq!(configure(r#"{"routes":{"default":"stable"}}"#), (true, vec![]));
    }

    #[test]
    fn each_problem_is_a_line_at_error_level() {
        let (loaded, log) =
            configure(r#"{"routes":{"rules":[{"name":"a","route":"b","timeout":"2x"}],"defualt":"c"}}"#);
        assert!(!loaded);
        assert_eq!(log.len(), 2, "{log:?}");
        assert!(
            log.iter().all(|line| line.starts_with("4 penstock header-routing: configuration refused: routes.")),
            "{log:?}"
        );
    }

    #[test]
    fn what_is_no_policy_is_refused_in_a_line() {
        for (configuration, why) in [
            ("", "the configuration is empty"),
            ("routes: {}", "not JSON"),
            (r#"{"egress":{}}"#, "egress: is not run by"),
        ] {
            let (loaded, log) = configure(configuration);
            assert!(!loaded);
            assert!(log[0].contains(&format!("configuration refused: {why}")), "{log:?}");
        }
    }

    #[test]
    fn thousands_of_problems_are_not_thousands_of_lines() {
        let rules = vec![r#"{"name":1,"route":2}"#; 2000].join(",");
        let (loaded, log) = configure(&format!(r#"{{"routes":{{"rules":[{rules}]}}}}"#));
        assert!(!loaded);
        assert_eq!(log.len(), MOST_LINES + 1);
        assert!(log[MOST_LINES].contains("more problems; `penstock check` lists them all"), "{}", log[MOST_LINES]);
    }

    #[test]
    fn limits_are_refused_where_their_state_cannot_be_kept() {
        const LIMITS: &str = r#"{"rateLimits":[{"name":"l","key":[],"limit":{"requests":1,"per":"1s"}}]}"#;
        for function in ["proxy_set_shared_data", "proxy_get_shared_data", "random_get"] {
            fake_host::reset();
            with(|host| {
                host.configuration = LIMITS.into();
                host.broken.push((function, 10));
            });
            assert!(load::<penstock_policy::module::RateLimit>("p", LIMITS.len()).is_none(), "{function}");
            with(|host| assert!(host.log[0].1.contains("state (INTERNAL_FAILURE)"), "{:?}", host.log));
        }
    }

    #[test]
    fn a_configuration_that_arrives_short_is_refused() {
        fake_host::reset();
        with(|host| host.configuration = b"{}".to_vec());
        assert!(load::<HeaderRouting>("p", 3).is_none());
        with(|host| assert!(host.log[0].1.ends_with("the host announced 3 bytes and hands over 2")));
    }
}
