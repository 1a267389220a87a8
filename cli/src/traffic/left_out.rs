//! Counts what could not be read, and reports it once, so that users do not mistake part of a log for all of it, or a
//! decision without the necessary inputs for the proxy's.

use penstock_policy::wire::WireRequest;

use super::input::Input;
use crate::output::count;
use crate::words;

/// The numbers of lines or entries: how many there are, and the first ones.
#[derive(Debug, Default)]
struct LineNumbers {
    count: u64,
    first: Vec<u64>,
}

impl LineNumbers {
    fn push(&mut self, number: u64) {
        const SHOWN: usize = 10;
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(number);
        }
    }

    /// Returns `3 lines (2, 5, 9)`.
    fn words(&self, what: &str) -> String {
        let shown = self.first.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let more = if self.count > self.first.len() as u64 { ", …" } else { "" };
        format!("{} left out ({shown}{more})", count(usize::try_from(self.count).unwrap_or(usize::MAX), what))
    }
}

/// What was left out, and what is missing in the rest.
#[derive(Debug, Default)]
pub struct LeftOut {
    requests: u64,
    no_request: LineNumbers,
    other_layout: LineNumbers,
    example: String,
    odd_entries: LineNumbers,
    odd: String,
    without_time: u64,
    bad_times: u64,
    without_source: u64,
    not_logged: u64,
}

impl LeftOut {
    /// A request was read; `bad_time` says that its time could not be parsed.
    pub fn read(&mut self, request: &WireRequest, bad_time: bool) {
        self.requests += 1;
        self.without_time += u64::from(request.time.is_none() && !bad_time);
        self.bad_times += u64::from(bad_time);
        self.without_source += u64::from(request.source_address.is_none());
    }

    /// A line of the log is not about a request.
    pub fn no_request(&mut self, number: u64) {
        self.no_request.push(number);
    }

    /// The module suppressed this many decision lines.
    pub fn not_logged(&mut self, decisions: u64) {
        self.not_logged = self.not_logged.saturating_add(decisions);
    }

    /// A line has a different format.
    pub fn other_layout(&mut self, number: u64, line: &[u8]) {
        if self.example.is_empty() {
            self.example = words::shortened(&String::from_utf8_lossy(line).replace(char::is_control, "\u{fffd}"), 200);
        }
        self.other_layout.push(number);
    }

    /// An entry of an archive is not a request to a proxy.
    pub fn odd_entry(&mut self, number: u64, error: &anyhow::Error) {
        if self.odd.is_empty() {
            self.odd = words::shortened(&format!("{error:#}"), 200);
        }
        self.odd_entries.push(number);
    }

    /// Whether nothing was read and nothing left out.
    pub fn is_nothing(&self) -> bool {
        let left_out = self.no_request.count + self.other_layout.count + self.odd_entries.count + self.not_logged;
        self.requests + left_out == 0
    }

    /// One sentence for each kind of loss.
    pub fn messages(self, form: Input, declared: bool) -> Vec<String> {
        let mut messages = Vec::new();
        if self.no_request.count > 0 {
            messages.push(format!("{}: no request in them", self.no_request.words("line")));
        }
        if self.other_layout.count > 0 {
            let layout = match (declared, form) {
                (true, _) => "not in the format of --log-format, or ambiguous in it",
                (false, Input::EnvoyJson) => "not a JSON object with the method, path and authority of a request",
                (false, Input::Audit) => "not a log line of the module about a decision",
                (false, _) => {
                    "not in the default text format of Envoy or Istio; give the format of this log as Envoy's \
                     configuration has it: --log-format '[%START_TIME%] \"%REQ(:METHOD)% %REQ(:PATH)% …'"
                }
            };
            messages.push(format!("{}: {layout}. The first: {}", self.other_layout.words("line"), self.example));
        }
        if self.not_logged > 0 {
            messages.push(format!(
                "the module did not log {} more decisions, because there were too many in a second: an access log has all \
                 of them",
                words::thousands(self.not_logged)
            ));
        }
        if self.odd_entries.count > 0 {
            messages.push(format!("{}: such as {}", self.odd_entries.words("HAR exchange"), self.odd));
        }
        let missing = |some: u64| format!("{some} of {} requests", self.requests);
        if self.bad_times > 0 {
            let what = "in an unsupported format";
            messages.push(format!("the time of {} is {what}: they are treated as sent now", missing(self.bad_times)));
        }
        if self.without_time > 0 {
            let what = "limits count them all at the same instant";
            messages
                .push(format!("{} have no time: they are treated as sent now, so {what}", missing(self.without_time)));
        }
        if self.without_source > 0 && !matches!(form, Input::Har | Input::Audit) {
            messages.push(format!(
                "{} have no client address: limits and canaries by source address cannot be judged; log \
                 %DOWNSTREAM_REMOTE_ADDRESS%",
                missing(self.without_source)
            ));
        }
        messages
    }
}
