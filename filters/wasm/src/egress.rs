//! What egress decisions leave behind: a log line and filter state; and connections, which have no other effects.

use std::cell::{Cell, RefCell};

use penstock_policy::egress::{Connection, Egress, connection_line, log_line};
use penstock_policy::{EgressOutcome, EgressVerdict, Environment, Metric, Reason, Request};

use crate::abi::{Flow, LogLevel};
use crate::host::{self, HostEnvironment, Kept};

/// Lines a second and worker, at most; an attacker must not be able to fill the disk.
const LINES_A_SECOND: u32 = 100;

thread_local! {
    static LEVEL: Cell<u32> = const { Cell::new(LogLevel::Info as u32) };
    static LIMITER: RefCell<Limiter> = const { RefCell::new(Limiter { second: 0, lines: 0, dropped: 0 }) };
}

/// How many lines went out in the current second, and how many did not.
struct Limiter {
    second: u64,
    lines: u32,
    dropped: u64,
}

impl Limiter {
    /// Whether one more line may go out now; and how many were dropped before this second.
    fn admit(&mut self, second: u64) -> (bool, u64) {
        let mut dropped = 0;
        if second != self.second {
            dropped = std::mem::take(&mut self.dropped);
            (self.second, self.lines) = (second, 0);
        }
        if self.lines < LINES_A_SECOND {
            self.lines += 1;
            return (true, dropped);
        }
        self.dropped += 1;
        (false, dropped)
    }
}

/// Asks which lines the log takes. An operator may change it at any time; to ask with each request costs a call.
pub(crate) fn look_at_log_level() {
    LEVEL.set(host::lowest_log_level());
}

/// Writes what `line` makes, when the log takes it: what was allowed at debug level, all else at info.
fn write(verdict: EgressVerdict, line: impl FnOnce() -> String) {
    let level = if verdict == EgressVerdict::Allow { LogLevel::Debug } else { LogLevel::Info };
    if (level as u32) < LEVEL.get() {
        return;
    }
    let second = host::seconds();
    let admitted = LIMITER.with(|limiter| limiter.try_borrow_mut().map(|mut limiter| limiter.admit(second)));
    let (admitted, dropped) = admitted.unwrap_or((true, 0));
    if dropped > 0 {
        host::log(LogLevel::Info, &format!("{{\"egress\":\"notLogged\",\"decisions\":{dropped}}}"));
    }
    if admitted {
        host::log(level, &line());
    }
}

/// Tells the log and the access log what the egress section decided, whatever another section decided afterwards.
pub(crate) fn report(request: &Request<'_>, outcome: &EgressOutcome<'_>) {
    if let Some(rule) = outcome.rule {
        host::set_filter_state("penstock.egress.rule", rule);
    }
    if outcome.verdict != EgressVerdict::Allow {
        host::set_filter_state("penstock.egress.outcome", outcome.verdict.as_str());
        host::set_filter_state("penstock.egress.reason", outcome.reason.map_or("", Reason::as_str));
    }
    write(outcome.verdict, || log_line(request, outcome, &mut HostEnvironment::default()));
}

/// Seconds between two looks at the rules that end.
const EXPIRY_PERIOD: u64 = 60;

/// When to look next at the rules that end: once a minute, by the clock of [`host::seconds`].
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    next: std::cell::Cell<u64>,
}

impl Expiry {
    /// Sets the gauge, and warns where it is time to.
    pub(crate) fn look(&self, egress: &Egress, kept: &RefCell<Kept>) {
        let now = host::seconds();
        if now < self.next.get() {
            return;
        }
        self.next.set(if egress.expires() { now + EXPIRY_PERIOD } else { u64::MAX });
        let mut environment = HostEnvironment::new(kept);
        if let Some(days) = egress.days_to_next_expiry(environment.now()) {
            host::set_gauge("penstock.egressExpiry.next.days", days);
        }
        if let Some(line) = egress.expiry_warning(&mut environment) {
            host::log(LogLevel::Warn, &format!("penstock: {line}"));
        }
    }
}

/// Decides the current connection, and closes it before the next filter hears of it.
pub(crate) fn connection(egress: &Egress, count: impl Fn(Metric)) -> Flow {
    let mut environment = HostEnvironment::default();
    let sni = environment.sni();
    let connection =
        Connection { sni: sni.as_deref(), destination: host::destination_address(), port: host::destination_port() };
    let mut verdict = egress.decide_connection(&connection, &mut environment);
    match environment.failure() {
        // Decided on facts that are not there: closed, and not counted as any rule's.
        Some(_) => verdict.outcome.verdict = EgressVerdict::Deny,
        None => verdict.counts.iter().flatten().for_each(|metric| count(*metric)),
    }
    write(verdict.outcome.verdict, || connection_line(&connection, &verdict.outcome));
    if verdict.is_open() {
        return Flow::Continue;
    }
    host::close_connection();
    Flow::Pause
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_host::{self, with};
    use penstock_policy::Policy;

    #[test]
    fn ends_are_looked_up_once_a_minute_and_announced_once_a_day_by_one_worker() {
        fake_host::reset();
        crate::shared::reset();
        const DAY: u64 = 24 * 3600 * 1_000_000_000;
        let rule = r#"{"name":"r","to":[{"host":"a.test"}],"expires":"1970-01-20T00:00:00Z"}"#;
        let policy: Policy = Policy::from_json(format!(r#"{{"egress":{{"rules":[{rule}]}}}}"#).as_bytes()).unwrap();
        let egress = policy.egress().unwrap();
        let (one, another) = (Expiry::default(), Expiry::default());
        let kept = RefCell::new(Kept::new(crate::shared::SharedState::new(b"i")));
        let warnings = || with(|host| host.log.iter().filter(|(level, _)| *level == LogLevel::Warn as u32).count());
        let gauge = || with(|host| host.metrics.first().cloned());
        with(|host| host.time = DAY);
        one.look(egress, &kept);
        assert_eq!((gauge(), warnings()), (Some(("penstock.egressExpiry.next.days".to_owned(), 18)), 0));
        with(|host| host.time = 17 * DAY);
        for expiry in [&one, &another, &one, &another] {
            expiry.look(egress, &kept);
        }
        assert_eq!((gauge().map(|(_, days)| days), warnings()), (Some(2), 1));
        with(|host| {
            host.time = 18 * DAY;
            host.calls.clear();
        });
        for expiry in [&one, &another] {
            expiry.look(egress, &kept);
        }
        assert_eq!((gauge().map(|(_, days)| days), warnings()), (Some(1), 2));
        with(|host| host.calls.clear());
        one.look(egress, &kept);
        with(|host| assert_eq!(host.calls, ["proxy_get_current_time_nanoseconds"]));
    }

    #[test]
    fn a_flood_of_refusals_is_a_hundred_lines_a_second_and_a_count() {
        let mut limiter = Limiter { second: 0, lines: 0, dropped: 0 };
        let admitted = (0..1000).filter(|_| limiter.admit(7).0).count();
        assert_eq!(admitted, 100);
        assert_eq!(limiter.admit(8), (true, 900));
        assert_eq!(limiter.admit(8), (true, 0));
    }
}
