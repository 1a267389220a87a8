//! Reads recorded requests one after the other, whatever form they are in.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use penstock_policy::wire::WireRequest;
use serde_json::{Map, Value};

use super::har::Archive;
use super::input::Input;
use super::left_out::LeftOut;
use super::log::{self, Line, LogFormat};
use crate::source;

/// How requests are read, for every subcommand that reads some.
#[derive(Clone, Debug, clap::Args)]
pub struct ReadOptions {
    /// The form of the recorded requests.
    #[arg(long, value_enum, default_value = "auto")]
    pub input: Input,
    /// The scheme of requests whose record does not say: access logs do not.
    #[arg(long, value_name = "SCHEME", value_parser = ["http", "https"])]
    pub scheme: Option<String>,
    /// The format of the access log as Envoy's own configuration has it: a format string, or the object of
    /// `json_format`.
    #[arg(long, value_name = "FORMAT", conflicts_with = "input")]
    pub log_format: Option<String>,
}

/// One record.
#[derive(Debug)]
pub enum Record<'l> {
    /// A request.
    Request(Box<WireRequest>),
    /// A line of [`Input::Jsonl`], still to be parsed.
    Line(&'l [u8]),
}

/// What is wrong with a line of [`Input::Jsonl`].
pub fn not_a_request(line: &[u8]) -> &'static str {
    match line.trim_ascii_start().first() {
        Some(b'{') if line.trim_ascii_start().starts_with(b"{\"log\":\"") => {
            "a line of a container runtime's log, in which the proxy's own is a text: take that out first, such as with `jq -r .log`"
        }
        Some(b'{') => "not a request",
        _ => {
            "not a line that is known (a request as JSON, an access log of Envoy or Istio, an HTTP Archive); \
              --log-format takes the format of another log"
        }
    }
}

/// The longest line that is read.
const LONGEST: u64 = 16 << 20;

/// The records of one file.
pub struct RecordReader {
    path: PathBuf,
    input: BufReader<Box<dyn Read>>,
    form: Input,
    scheme: Option<String>,
    line: Vec<u8>,
    number: u64,
    /// The entries of an archive that are still to come.
    entries: Box<dyn Iterator<Item = anyhow::Result<WireRequest>>>,
    format: Option<LogFormat>,
    left_out: LeftOut,
    bar: Option<ProgressBar>,
    bytes: u64,
}

impl RecordReader {
    /// Opens a file, or standard input for `-`. With `progress` a bar is shown on a terminal.
    ///
    /// # Errors
    /// When it cannot be read, or its form not be recognised.
    pub fn open(path: &Path, options: &ReadOptions, progress: bool) -> anyhow::Result<RecordReader> {
        let mut input = source::open(path)?;
        let place = || format!("cannot read {}", source::display(path));
        // Some editors begin a file with a byte order mark.
        if input.fill_buf().with_context(place)?.starts_with("\u{feff}".as_bytes()) {
            input.consume(3);
        }
        let format = options.log_format.as_deref().map(LogFormat::parse).transpose()?;
        let form = match (&format, options.input) {
            (Some(LogFormat::Text(_)), _) => Input::EnvoyText,
            (Some(LogFormat::Json(_)), _) => Input::EnvoyJson,
            (None, Input::Auto) => detect(input.fill_buf().with_context(place)?),
            (None, given) => given,
        };
        let mut entries: Box<dyn Iterator<Item = _>> = Box::new(std::iter::empty());
        if form == Input::Har {
            let mut text = String::new();
            input.read_to_string(&mut text).with_context(place)?;
            entries = Box::new(Archive::read(&text).with_context(|| source::display(path))?.requests());
        }
        Ok(RecordReader {
            bar: progress.then(|| bar(path)).flatten(),
            path: path.to_owned(),
            input,
            form,
            scheme: options.scheme.clone(),
            line: Vec::new(),
            number: 0,
            entries,
            format,
            left_out: LeftOut::default(),
            bytes: 0,
        })
    }

    /// The next record with the number of its line or entry.
    ///
    /// # Errors
    /// When the file cannot be read any further.
    pub fn record(&mut self) -> anyhow::Result<Option<(u64, Record<'_>)>> {
        if self.form == Input::Har {
            for request in self.entries.by_ref() {
                self.number += 1;
                match request {
                    Ok(request) => {
                        self.left_out.read(&request, false);
                        return Ok(Some((self.number, Record::Request(Box::new(request)))));
                    }
                    Err(error) => self.left_out.odd_entry(self.number, &error),
                }
            }
            self.finish();
            return Ok(None);
        }
        loop {
            if !self.next_line()? {
                self.finish();
                return Ok(None);
            }
            let line = self.line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let read = match (&self.format, self.form) {
                (Some(format), _) => log::described(line, format),
                (None, Input::EnvoyJson) => log::json(line),
                (None, Input::EnvoyText) => log::text(line),
                (None, Input::Audit) if log::is_audit(line) => log::audit(line),
                (None, Input::Audit) => Line::NoRequest,
                _ => break,
            };
            let (mut request, bad_time) = match read {
                Line::Request(request) => (request, false),
                Line::WithoutTime(request) => (request, true),
                Line::NoRequest => {
                    self.left_out.no_request(self.number);
                    continue;
                }
                Line::NotLogged(decisions) => {
                    self.left_out.not_logged(decisions);
                    continue;
                }
                Line::OtherLayout => {
                    self.left_out.other_layout(self.number, line);
                    continue;
                }
            };
            self.left_out.read(&request, bad_time);
            request.scheme = request.scheme.or_else(|| self.scheme.clone());
            return Ok(Some((self.number, Record::Request(request))));
        }
        Ok(Some((self.number, Record::Line(self.line.trim_ascii()))))
    }

    /// Whether another line is here already: who waits for an answer has sent none.
    pub fn has_more_at_once(&self) -> bool {
        self.form == Input::Har || memchr::memchr(b'\n', self.input.buffer()).is_some()
    }

    /// Where record `number` stands.
    fn place(&self, number: u64) -> String {
        format!("{}:{number}", source::display(&self.path))
    }

    fn next_line(&mut self) -> anyhow::Result<bool> {
        self.line.clear();
        let read = self.input.by_ref().take(LONGEST).read_until(b'\n', &mut self.line);
        let read = read.with_context(|| format!("cannot read {}", source::display(&self.path)))? as u64;
        self.number += 1;
        if read == LONGEST {
            bail!("{}: the line is longer than {} MiB", self.place(self.number), LONGEST >> 20);
        }
        self.bytes += read;
        if let Some(bar) = &self.bar
            && self.number.is_multiple_of(4096)
        {
            bar.set_position(self.bytes);
        }
        Ok(read > 0)
    }

    /// Says what was left out, so that nobody takes part of a log for all of it.
    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let declared = self.format.is_some();
        for message in std::mem::take(&mut self.left_out).messages(self.form, declared) {
            anstream::eprintln!("penstock: {}: {message}", source::display(&self.path));
        }
    }
}

/// A progress bar for a long file on a terminal, on standard error.
fn bar(path: &Path) -> Option<ProgressBar> {
    const LONG: u64 = 4 << 20;
    let length = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?.len();
    if length < LONG || !std::io::stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {eta} left").ok()?;
    Some(ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr()).with_style(style))
}

/// The form that the first lines have; what is unclear is a line of our own, whose errors say what is wrong. `kubectl
/// logs` begins with lines of others, so a log may begin later.
fn detect(begin: &[u8]) -> Input {
    const LINES: usize = 100;
    let begin = begin.trim_ascii_start();
    let inside = begin.strip_prefix(b"{").unwrap_or_default().trim_ascii_start();
    // In a container runtime's log it is a text.
    let log = inside.strip_prefix(b"\"log\"").and_then(|rest| rest.trim_ascii_start().strip_prefix(b":"));
    if log.is_some_and(|value| value.trim_ascii_start().starts_with(b"{")) {
        return Input::Har;
    }
    let lines = begin.split(|&b| b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).take(LINES);
    let is_ours = lines.clone().next().is_some_and(|first| {
        let object: Map<String, Value> = serde_json::from_slice(first).unwrap_or_default();
        serde_json::from_slice::<WireRequest>(first).is_ok() || object.contains_key("policy")
    });
    let log = |line: &[u8]| {
        let object: Map<String, Value> = serde_json::from_slice(line).unwrap_or_default();
        match () {
            () if log::is_text_log(line) => Some(Input::EnvoyText),
            () if log::is_json_log(&object) && serde_json::from_slice::<WireRequest>(line).is_err() => {
                Some(Input::EnvoyJson)
            }
            () => None,
        }
    };
    // One log may have both; that of the accesses has every request.
    let audit = || log::is_audit(begin).then_some(Input::Audit);
    if is_ours { Input::Jsonl } else { lines.clone().find_map(log).or_else(audit).unwrap_or(Input::Jsonl) }
}

/// Calls `each` with every request of a file and the number of its line.
///
/// # Errors
/// When the file cannot be read, a line is not a request, or `each` says so.
pub fn each(
    path: &Path,
    options: &ReadOptions,
    progress: bool,
    each: &mut dyn FnMut(u64, WireRequest) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut reader = RecordReader::open(path, options, progress)?;
    while let Some((number, record)) = reader.record()? {
        let place = || format!("{}:{number}", source::display(path));
        let request = match record {
            Record::Request(request) => *request,
            Record::Line(line) => serde_json::from_slice(line).context(not_a_request(line)).with_context(place)?,
        };
        each(number, request)?;
    }
    Ok(())
}

/// Refuses the same standard input for two things.
///
/// # Errors
/// When more than one of the paths is `-`.
pub fn one_stdin<'p>(paths: impl IntoIterator<Item = &'p Path>) -> anyhow::Result<()> {
    let stdins = paths.into_iter().filter(|path| *path == Path::new("-")).count();
    ensure!(stdins <= 1, "standard input can be only one of policy and requests");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_which_form_it_is() {
        for (text, expected) in [
            (r#"{"method":"GET","authority":"a","path":"/"}"#, Input::Jsonl),
            (r#"{"policy":{},"request":{}}"#, Input::Jsonl),
            (r#"{"method":"GET","authority":"a","path":"/","verb":1}"#, Input::Jsonl),
            (r#"{"start_time":"x","method":"GET","authority":"a","path":"/"}"#, Input::EnvoyJson),
            ("\n [2026-01-01T00:00:00Z] \"GET / HTTP/1.1\" 200", Input::EnvoyText),
            (
                "2026-01-01T00:00:00Z\tinfo\tFLAG: --x\n{\"start_time\":\"x\",\"method\":\"GET\",\"path\":\"/\"}",
                Input::EnvoyJson,
            ),
            ("{\n  \"log\": {", Input::Har),
            ("{\"log\":{\"version\":", Input::Har),
            (
                "[2026-01-01 00:00:00.000][1][info][main] x\n[2026-01-01 00:00:00.000][1][info][wasm] {\"egress\":\"audit\"}",
                Input::Audit,
            ),
            ("{\"egress\":\"audit\",\"host\":\"a\",\"method\":\"GET\",\"path\":\"/\"}", Input::Audit),
            ("{\"log\":\"[2026-01-01T00:00:00Z] \\\"GET / HTTP/1.1\\\"\",\"stream\":\"stdout\"}", Input::Jsonl),
            ("", Input::Jsonl),
            ("nonsense", Input::Jsonl),
        ] {
            assert_eq!(detect(text.as_bytes()), expected, "{text}");
        }
    }
}
