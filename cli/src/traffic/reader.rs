//! Reads recorded requests one by one from any supported format.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail, ensure};
use flate2::read::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use penstock_policy::wire::WireRequest;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::foreign;
use super::har::Archive;
use super::input::Input;
use super::left_out::LeftOut;
use super::log::{self, Line, LogFormat};
use super::wrapped;
use crate::source;

/// How requests are read, for every subcommand that reads some.
#[derive(Clone, Debug, clap::Args)]
pub struct ReadOptions {
    /// The format of the recorded requests.
    #[arg(long, value_enum, default_value = "auto")]
    pub input: Input,
    /// The scheme of requests whose record does not contain it, as in most access logs.
    #[arg(long, value_name = "SCHEME", value_parser = ["http", "https"])]
    pub scheme: Option<String>,
    /// The format of the access log, as in Envoy's configuration: a format string, or the object of `json_format`.
    #[arg(long, value_name = "FORMAT", conflicts_with = "input")]
    pub log_format: Option<String>,
    /// Whether connections of TLS listeners are handed on, too, as requests without a method.
    #[arg(skip)]
    pub connections: bool,
}

/// One record.
#[derive(Debug)]
pub enum Record<'l> {
    /// A request.
    Request(Box<WireRequest>),
    /// An unparsed line of [`Input::Jsonl`].
    Line(&'l [u8]),
}

/// Parses a line of [`Input::Jsonl`], or a whole text.
///
/// # Errors
/// Returns an error when it is not a request.
pub fn request(line: &[u8]) -> anyhow::Result<WireRequest> {
    let line = line.trim_ascii();
    serde_json::from_slice(line).map_err(|error| {
        if let Some(advice) = foreign::advice(line) {
            return anyhow!("{advice}");
        }
        // The position in the error is relative to the line, so only the column is useful.
        let said = error.to_string();
        let (what, place) = said.rsplit_once(" at line ").unwrap_or((&said, ""));
        let column = place.split_once(" column ").map(|(_, column)| format!(" (column {column})")).unwrap_or_default();
        match line.first() {
            Some(b'{') if error.is_eof() => {
                anyhow!("the request ends in the middle: each is one line of JSON; `jq -c . FILE` writes them so")
            }
            Some(b'{') => anyhow!("not a request: {what}{column}"),
            Some(b'[') if serde_json::from_slice::<Vec<IgnoredAny>>(line).is_ok() || line == b"[" => {
                anyhow!("a list of requests: give one a line; `jq -c '.[]' FILE` writes them so")
            }
            _ if is_policy(line) => anyhow!("this is a policy or a manifest, not a recorded request"),
            _ => anyhow!(
                "not in a known format (a request as JSON, an access log of Envoy or Istio, an HTTP Archive); \
                 --log-format takes the format of another log"
            ),
        }
    })
}

/// Whether a text starts like a policy or a Kubernetes object.
fn is_policy(line: &[u8]) -> bool {
    const BEGIN: [&[u8]; 8] = [
        b"egress:",
        b"rateLimits:",
        b"routes:",
        b"canaries:",
        b"settings:",
        b"apiVersion:",
        b"kind:",
        b"static_resources:",
    ];
    BEGIN.iter().any(|begin| line.starts_with(begin))
}

/// The longest line that is read, in bytes.
const LONGEST: u64 = 16 << 20;

/// The records of one file.
pub struct RecordReader {
    path: PathBuf,
    input: BufReader<Box<dyn Read>>,
    form: Input,
    scheme: Option<String>,
    line: Vec<u8>,
    number: u64,
    /// The remaining entries of an archive.
    entries: Box<dyn Iterator<Item = anyhow::Result<WireRequest>>>,
    format: Option<LogFormat>,
    left_out: LeftOut,
    /// The parts of a line that is not complete yet.
    parts: Vec<u8>,
    has_lines: bool,
    connections: bool,
    bar: Option<ProgressBar>,
    bytes: u64,
}

impl RecordReader {
    /// Opens a file, or standard input for `-`. With `progress`, shows a progress bar on a terminal.
    ///
    /// # Errors
    /// Returns an error when it cannot be read, or when its format is not recognized.
    pub fn open(path: &Path, options: &ReadOptions, progress: bool) -> anyhow::Result<RecordReader> {
        let mut input = source::open(path)?;
        let unreadable = |error| source::unreadable("cannot read", path, &error);
        let mut is_packed = false;
        match input.fill_buf().map_err(unreadable)? {
            // Some editors write a byte order mark.
            [0xef, 0xbb, 0xbf, ..] => input.consume(3),
            [0x1f, 0x8b, ..] => {
                is_packed = true;
                input = BufReader::new(Box::new(MultiGzDecoder::new(input)));
            }
            bytes @ ([0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..]) => {
                return Err(source::not_text(path, bytes, 0));
            }
            _ => {}
        }
        let format = options.log_format.as_deref().map(LogFormat::parse).transpose()?;
        let form = match (&format, options.input) {
            (Some(LogFormat::Text(_)), _) => Input::EnvoyText,
            (Some(LogFormat::Json(_)), _) => Input::EnvoyJson,
            (None, Input::Auto) => detect(input.fill_buf().map_err(unreadable)?),
            (None, given) => given,
        };
        let mut entries: Box<dyn Iterator<Item = _>> = Box::new(std::iter::empty());
        if form == Input::Har {
            let mut text = String::new();
            input.read_to_string(&mut text).map_err(unreadable)?;
            entries = Box::new(Archive::read(&text).with_context(|| source::display(path))?.requests());
        }
        Ok(RecordReader {
            bar: (progress && !is_packed).then(|| bar(path)).flatten(),
            path: path.to_owned(),
            input,
            form,
            scheme: options.scheme.clone(),
            line: Vec::new(),
            number: 0,
            entries,
            format,
            left_out: LeftOut::default(),
            parts: Vec::new(),
            has_lines: false,
            connections: options.connections,
            bytes: 0,
        })
    }

    /// The next record with the number of its line or entry.
    ///
    /// # Errors
    /// Returns an error when reading the file fails.
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
            if self.line.trim_ascii().is_empty() {
                continue;
            }
            if self.form == Input::Jsonl && self.format.is_none() {
                break;
            }
            if let Some((line, is_whole)) = wrapped::written(self.line.trim_ascii()) {
                ensure!(self.parts.len() <= LONGEST as usize, "{}: the line is too long", self.place(self.number));
                self.parts.extend_from_slice(&line);
                if !is_whole {
                    continue;
                }
                self.line = std::mem::take(&mut self.parts);
            }
            let line = self.line.trim_ascii();
            let mut read = self.read_line(line);
            if matches!(read, Line::OtherLayout | Line::NoRequest)
                && self.form != Input::Audit
                && let Some(line) = wrapped::behind_prefix(line)
            {
                read = self.read_line(line);
            }
            let (mut request, bad_time) = match read {
                Line::Request(request) => (request, false),
                Line::WithoutTime(request) => (request, true),
                Line::Connection(connection) if self.connections => (connection, false),
                Line::NoRequest | Line::Connection(_) => {
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
        self.has_lines = true;
        Ok(Some((self.number, Record::Line(self.line.trim_ascii()))))
    }

    fn read_line(&self, line: &[u8]) -> Line {
        match (&self.format, self.form) {
            (Some(format), _) => log::described(line, format),
            (None, Input::EnvoyJson) => log::json(line),
            (None, Input::Audit) if log::is_audit(line) => log::audit(line),
            (None, Input::Audit) => Line::NoRequest,
            (None, _) => log::text(line),
        }
    }

    /// Whether another line is available already: a program that waits for a response has sent none.
    pub fn has_more_at_once(&self) -> bool {
        self.form == Input::Har || memchr::memchr(b'\n', self.input.buffer()).is_some()
    }

    /// The location of record `number`.
    fn place(&self, number: u64) -> String {
        format!("{}:{number}", source::display(&self.path))
    }

    fn next_line(&mut self) -> anyhow::Result<bool> {
        self.line.clear();
        let read = self.input.by_ref().take(LONGEST).read_until(b'\n', &mut self.line);
        let read = read.map_err(|error| source::unreadable("cannot read", &self.path, &error))? as u64;
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

    /// Reports what was left out.
    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if !self.has_lines && self.left_out.is_nothing() {
            anstream::eprintln!("penstock: {}: no request in it", source::display(&self.path));
        }
        let declared = self.format.is_some();
        for message in std::mem::take(&mut self.left_out).messages(self.form, declared) {
            anstream::eprintln!("penstock: {}: {message}", source::display(&self.path));
        }
    }
}

/// A progress bar for a long file, on standard error if that is a terminal.
fn bar(path: &Path) -> Option<ProgressBar> {
    const LONG: u64 = 4 << 20;
    let length = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?.len();
    if length < LONG || !std::io::stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {eta} left").ok()?;
    Some(ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr()).with_style(style))
}

/// Detects the format from the first lines. If unclear, assumes JSON lines, whose errors explain the format. The output
/// of `kubectl logs` may start with other lines.
fn detect(begin: &[u8]) -> Input {
    const LINES: usize = 100;
    let begin = begin.trim_ascii_start();
    let inside = begin.strip_prefix(b"{").unwrap_or_default().trim_ascii_start();
    // In a container runtime's log, it is a string.
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
        let written = wrapped::written(line);
        let line = written.as_ref().map_or(line, |(line, _)| line);
        let line = wrapped::behind_prefix(line).unwrap_or(line);
        let object: Map<String, Value> = serde_json::from_slice(line).unwrap_or_default();
        match () {
            () if log::is_text_log(line) => Some(Input::EnvoyText),
            () if log::is_json_log(&object) && serde_json::from_slice::<WireRequest>(line).is_err() => {
                Some(Input::EnvoyJson)
            }
            () => None,
        }
    };
    // A log may contain both formats; the access log has every request.
    let audit = || log::is_audit(begin).then_some(Input::Audit);
    if is_ours { Input::Jsonl } else { lines.clone().find_map(log).or_else(audit).unwrap_or(Input::Jsonl) }
}

/// Calls `each` with every request of a file and its line number.
///
/// # Errors
/// Returns an error when the file cannot be read, a line is not a request, or `each` fails.
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
            Record::Line(line) => self::request(line).with_context(place)?,
        };
        each(number, request)?;
    }
    Ok(())
}

/// Refuses standard input for two arguments.
///
/// # Errors
/// Returns an error when more than one of the paths is `-`.
pub fn one_stdin<'p>(paths: impl IntoIterator<Item = &'p Path>) -> anyhow::Result<()> {
    let stdins = paths.into_iter().filter(|path| *path == Path::new("-")).count();
    ensure!(stdins <= 1, "standard input can be only one of policy and requests");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_determines_the_format() {
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
            ("{\"log\":\"[2026-01-01T00:00:00Z] \\\"GET / HTTP/1.1\\\"\",\"stream\":\"stdout\"}", Input::EnvoyText),
            ("2026-01-01T00:00:00Z stdout F [2026-01-01T00:00:00Z] \"GET / HTTP/1.1\"", Input::EnvoyText),
            ("[pod/a/b] {\"start_time\":\"x\",\"method\":\"GET\",\"path\":\"/\"}", Input::EnvoyJson),
            ("", Input::Jsonl),
            ("nonsense", Input::Jsonl),
        ] {
            assert_eq!(detect(text.as_bytes()), expected, "{text}");
        }
    }
}
