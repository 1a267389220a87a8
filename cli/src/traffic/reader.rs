//! Reads recorded requests one after the other, whatever form they are in.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use penstock_policy::wire::WireRequest;
use serde_json::{Map, Value};

use super::access_log;
use super::har::Archive;
use crate::source;

/// How requests are read, for every subcommand that reads some.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The form of the recorded requests.
    #[arg(long, value_enum, default_value = "auto")]
    pub input: Input,
    /// The scheme of requests whose record does not say: access logs do not.
    #[arg(long, value_name = "SCHEME", value_parser = ["http", "https"])]
    pub scheme: Option<String>,
}

/// The forms of recorded requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Input {
    /// What the first line looks like.
    Auto,
    /// One JSON request a line.
    Jsonl,
    /// Envoy's access log as JSON: `method`, `path`, `authority`, `start_time`, …
    EnvoyJson,
    /// Envoy's access log in the default text format, or in Istio's.
    EnvoyText,
    /// An HTTP Archive.
    Har,
}

/// One record.
#[derive(Debug)]
pub enum Record<'l> {
    /// A request.
    Request(Box<WireRequest>),
    /// A line of [`Input::Jsonl`], still to be parsed.
    Line(&'l [u8]),
}

/// The longest line that is read.
const LONGEST: u64 = 16 << 20;

/// The records of one file.
pub struct Reader {
    path: PathBuf,
    input: BufReader<Box<dyn Read>>,
    form: Input,
    scheme: Option<String>,
    line: Vec<u8>,
    number: u64,
    entries: std::vec::IntoIter<WireRequest>,
    /// Lines of a log that are about no request.
    skipped: u64,
    bar: Option<ProgressBar>,
    bytes: u64,
}

impl Reader {
    /// Opens a file, or standard input for `-`. With `progress` a bar is shown on a terminal.
    ///
    /// # Errors
    /// When it cannot be read, or its form not be recognised.
    pub fn open(path: &Path, options: &Options, progress: bool) -> anyhow::Result<Reader> {
        let mut input = source::open(path)?;
        let place = || format!("cannot read {}", source::display(path));
        // Some editors begin a file with a byte order mark.
        if input.fill_buf().with_context(place)?.starts_with("\u{feff}".as_bytes()) {
            input.consume(3);
        }
        let form = match options.input {
            Input::Auto => detect(input.fill_buf().with_context(place)?),
            given => given,
        };
        let mut entries = Vec::new();
        if form == Input::Har {
            let mut text = String::new();
            input.read_to_string(&mut text).with_context(place)?;
            let archive = Archive::read(&text).with_context(|| source::display(path))?;
            let numbered = (1..).zip(archive.entries());
            let request = |(n, entry): (usize, &super::har::Entry)| {
                entry.request().with_context(|| format!("{}, entry {n}", source::display(path)))
            };
            entries = numbered.map(request).collect::<anyhow::Result<_>>()?;
        }
        Ok(Reader {
            bar: progress.then(|| bar(path)).flatten(),
            path: path.to_owned(),
            input,
            form,
            scheme: options.scheme.clone(),
            line: Vec::new(),
            number: 0,
            entries: entries.into_iter(),
            skipped: 0,
            bytes: 0,
        })
    }

    /// The next record with the number of its line or entry.
    ///
    /// # Errors
    /// When the file cannot be read any further.
    pub fn record(&mut self) -> anyhow::Result<Option<(u64, Record<'_>)>> {
        if self.form == Input::Har {
            self.number += 1;
            return Ok(self.entries.next().map(|request| (self.number, Record::Request(Box::new(request)))));
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
            let request = match self.form {
                Input::EnvoyJson => access_log::json(line),
                Input::EnvoyText => access_log::text(line),
                _ => break,
            };
            match request {
                Some(mut request) => {
                    request.scheme = request.scheme.or_else(|| self.scheme.clone());
                    return Ok(Some((self.number, Record::Request(Box::new(request)))));
                }
                None => self.skipped += 1,
            }
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
        if self.skipped > 0 {
            let lines = crate::output::count(usize::try_from(self.skipped).unwrap_or(usize::MAX), "line");
            anstream::eprintln!(
                "penstock: {}: {lines} left out: no request in them, or another format",
                source::display(&self.path)
            );
            self.skipped = 0;
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

/// The form that the first line has; what is unclear is a line of our own, whose errors say what is wrong.
fn detect(begin: &[u8]) -> Input {
    let begin = begin.trim_ascii_start();
    let first = begin.split(|&b| b == b'\n').next().unwrap_or_default().trim_ascii();
    if access_log::is_text_log(first) {
        return Input::EnvoyText;
    }
    let inside = begin.strip_prefix(b"{").unwrap_or_default().trim_ascii_start();
    if inside.starts_with(b"\"log\"") {
        return Input::Har;
    }
    let object: Map<String, Value> = serde_json::from_slice(first).unwrap_or_default();
    let is_ours = serde_json::from_slice::<WireRequest>(first).is_ok() || object.contains_key("policy");
    if !is_ours && access_log::is_json_log(&object) { Input::EnvoyJson } else { Input::Jsonl }
}

/// Calls `each` with every request of a file and the number of its line.
///
/// # Errors
/// When the file cannot be read, a line is not a request, or `each` says so.
pub fn each(
    path: &Path,
    options: &Options,
    progress: bool,
    each: &mut dyn FnMut(u64, WireRequest) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut reader = Reader::open(path, options, progress)?;
    while let Some((number, record)) = reader.record()? {
        let place = || format!("{}:{number}", source::display(path));
        let request = match record {
            Record::Request(request) => *request,
            Record::Line(line) => serde_json::from_slice(line).context("not a request").with_context(place)?,
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
            ("{\n  \"log\": {", Input::Har),
            ("{\"log\":{\"version\":", Input::Har),
            ("", Input::Jsonl),
            ("nonsense", Input::Jsonl),
        ] {
            assert_eq!(detect(text.as_bytes()), expected, "{text}");
        }
    }
}
