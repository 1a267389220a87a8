//! Follows the lines of an access log in a file or on standard input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::decision::AccessLogEntry;
use super::store::{LoggingProxy, SharedFeed, SourceState, lock};
use crate::scrape;

/// Parses a line of an access log; `None` when it is not a request, or has another format.
pub type ReadLine = fn(&[u8]) -> Option<AccessLogEntry>;

/// The longest line in bytes; a longer one counts as malformed.
const LONGEST: u64 = 64 << 10;

/// The number of bytes of an existing file that are read at the start.
const BACKLOG: u64 = 256 << 10;

/// The polling interval for new lines.
const PAUSE: Duration = Duration::from_millis(100);

/// A log that is followed.
#[derive(Debug)]
pub struct Tail {
    /// The name of the cluster.
    pub cluster: String,
    /// The file; `-` for standard input.
    pub path: PathBuf,
    /// Where decisions are stored.
    pub feed: SharedFeed,
    /// The state of the source.
    pub source: Arc<SourceState>,
    /// Parses a line.
    pub read_line: ReadLine,
}

impl Tail {
    /// Follows it in a new thread until the process ends.
    ///
    /// # Errors
    /// Returns an error when no thread can be started.
    pub fn start(self) -> Result<()> {
        thread::Builder::new().name("tail".to_owned()).spawn(move || {
            if self.path == Path::new("-") {
                self.opened(1);
                let end = self.lines(&mut io::stdin().lock(), |_| false);
                self.opened(0);
                self.tell(Some(end.map_or_else(|error| error.to_string(), |()| "standard input has ended".to_owned())));
            } else {
                self.follow();
            }
        })?;
        Ok(())
    }

    fn tell(&self, error: Option<String>) {
        if let Ok(mut told) = self.source.error.lock() {
            *told = error;
        }
    }

    fn opened(&self, count: usize) {
        self.source.open.store(count, Ordering::Relaxed);
    }

    /// Reads the existing lines of the file, then new ones; starts again when the file was replaced or truncated.
    fn follow(&self) {
        let mut is_first = true;
        loop {
            match self.open(is_first) {
                Ok(mut file) => {
                    self.opened(1);
                    self.tell(None);
                    let ended = self.lines(&mut file, |file| {
                        thread::sleep(PAUSE);
                        !is_replaced(&self.path, file)
                    });
                    self.opened(0);
                    if let Err(error) = ended {
                        self.tell(Some(error.to_string()));
                        thread::sleep(Duration::from_secs(1));
                    }
                }
                Err(error) => {
                    self.tell(Some(error.to_string()));
                    thread::sleep(Duration::from_secs(1));
                }
            }
            is_first = false;
        }
    }

    fn open(&self, is_first: bool) -> io::Result<BufReader<File>> {
        let mut file = BufReader::new(File::open(&self.path)?);
        let length = file.get_ref().metadata()?.len();
        if is_first && length > BACKLOG {
            file.seek(SeekFrom::Start(length - BACKLOG))?;
            // The start of an incomplete line.
            file.skip_until(b'\n')?;
        }
        Ok(file)
    }

    /// Stores each line; at the end of the input, waits for more while `waits` is true, and then reads what came in the meantime.
    fn lines<R: BufRead>(&self, reader: &mut R, waits: impl Fn(&mut R) -> bool) -> io::Result<()> {
        let mut line = Vec::new();
        let mut is_rest = false;
        let mut is_over = false;
        loop {
            let room = LONGEST - line.len() as u64;
            let read = reader.by_ref().take(room).read_until(b'\n', &mut line)?;
            if line.last() == Some(&b'\n') {
                if !std::mem::take(&mut is_rest) {
                    self.note(line.trim_ascii());
                }
                line.clear();
            } else if line.len() as u64 >= LONGEST {
                if !std::mem::replace(&mut is_rest, true) {
                    lock(&self.feed).note_unreadable(&self.cluster);
                }
                line.clear();
            } else if read == 0 && is_over {
                // Whole without its line break, or the half of a line: then it counts as unreadable.
                if !is_rest {
                    self.note(line.trim_ascii());
                }
                return Ok(());
            } else if read == 0 {
                is_over = !waits(reader);
            }
        }
    }

    fn note(&self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        match (self.read_line)(line) {
            // A line does not name its proxy.
            Some(logged) => lock(&self.feed).note(&self.cluster, &LoggingProxy::default(), logged, scrape::now()),
            None => lock(&self.feed).note_unreadable(&self.cluster),
        }
    }
}

/// Whether the log continues in a different file at the path, or the file is shorter than what was read. While the new file is
/// empty, the proxy has not reopened its log and still writes to the old one.
fn is_replaced(path: &Path, file: &mut BufReader<File>) -> bool {
    let (Ok(read), Ok(length)) = (file.stream_position(), file.get_ref().metadata().map(|data| data.len())) else {
        return true;
    };
    let continues_elsewhere = match (file.get_ref().metadata(), path.metadata()) {
        (Ok(open), Ok(named)) => !same(&open, &named) && named.len() > 0,
        // The file was deleted; a new one will follow.
        _ => false,
    };
    length < read || continues_elsewhere
}

#[cfg(unix)]
fn same(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn same(a: &std::fs::Metadata, b: &std::fs::Metadata) -> bool {
    a.created().ok() == b.created().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::io::Write;

    use super::*;

    fn read_line(line: &[u8]) -> Option<AccessLogEntry> {
        let path = std::str::from_utf8(line).ok()?.strip_prefix("GET ")?;
        Some(AccessLogEntry { path: path.to_owned(), ..AccessLogEntry::default() })
    }

    fn tail(path: &Path) -> (Tail, SharedFeed) {
        let feed = SharedFeed::default();
        let source = lock(&feed).add_source("east", "access log", "a file");
        let tail =
            Tail { cluster: "east".to_owned(), path: path.to_owned(), feed: Arc::clone(&feed), source, read_line };
        (tail, feed)
    }

    fn paths(feed: &SharedFeed) -> Vec<String> {
        let feed = lock(feed);
        let mut paths: Vec<_> = feed.cluster("east").unwrap().newest().map(|decision| decision.path.clone()).collect();
        paths.reverse();
        paths
    }

    #[test]
    fn long_lines_and_strange_ones_are_counted_and_the_next_one_is_read() {
        let (tail, feed) = tail(Path::new("-"));
        let long = "x".repeat(3 * 65_536);
        let text = format!("GET /a\n\n{long}\n[info] starting\nGET /b\nGET /unfinished");
        tail.lines(&mut text.as_bytes(), |_| false).unwrap();
        // The last one is whole, though nothing ends it.
        assert_eq!(paths(&feed), ["/a", "/b", "/unfinished"]);
        assert_eq!(lock(&feed).cluster("east").unwrap().unreadable(), 2);
        tail.lines(&mut "GET /c\n{\"half\": ".as_bytes(), |_| false).unwrap();
        assert_eq!(lock(&feed).cluster("east").unwrap().unreadable(), 3);
    }

    #[test]
    fn binary_junk_is_counted_line_by_line_and_the_next_line_is_read() {
        let (tail, feed) = tail(Path::new("-"));
        let mut junk: Vec<u8> =
            (0..200_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        junk.push(b'\n');
        let lines = junk.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
        junk.extend_from_slice(b"\0\0\0\nGET /after\n");
        tail.lines(&mut junk.as_slice(), |_| false).unwrap();
        assert_eq!(paths(&feed), ["/after"]);
        assert_eq!(lock(&feed).cluster("east").unwrap().unreadable(), lines as u64 + 1);
    }

    #[test]
    fn a_file_is_followed_when_it_is_replaced_or_cut() {
        let folder = std::env::temp_dir().join(format!("penstock-tail-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("log");
        let (tail, feed) = tail(&path);
        let source = Arc::clone(&tail.source);
        tail.start().unwrap();
        let wait = |what: &str, holds: &dyn Fn() -> bool| {
            let started = std::time::Instant::now();
            while !holds() {
                assert!(started.elapsed() < Duration::from_secs(20), "never: {what}; {:?}", paths(&feed));
                thread::sleep(Duration::from_millis(20));
            }
        };
        wait("it says that there is no file", &|| source.error.lock().unwrap().is_some());
        std::fs::write(&path, "GET /first\n").unwrap();
        wait("the first line", &|| paths(&feed) == ["/first"]);
        assert!(source.error.lock().unwrap().is_none());
        File::options().append(true).open(&path).unwrap().write_all(b"GET /sec").unwrap();
        thread::sleep(2 * PAUSE);
        File::options().append(true).open(&path).unwrap().write_all(b"ond\n").unwrap();
        wait("a line in two parts", &|| paths(&feed) == ["/first", "/second"]);
        // logrotate makes the next file before it tells the proxy, which writes to the old one until it knows.
        let mut old = File::options().append(true).open(&path).unwrap();
        std::fs::rename(&path, folder.join("log.1")).unwrap();
        File::create(&path).unwrap();
        thread::sleep(3 * PAUSE);
        old.write_all(b"GET /late\nGET /ha").unwrap();
        thread::sleep(3 * PAUSE);
        old.write_all(b"lf").unwrap();
        std::fs::write(&path, "GET /third\n").unwrap();
        wait("the next file", &|| paths(&feed).last().is_some_and(|path| path == "/third"));
        assert_eq!(paths(&feed), ["/first", "/second", "/late", "/half", "/third"]);
        File::create(&path).unwrap();
        thread::sleep(5 * PAUSE);
        File::options().append(true).open(&path).unwrap().write_all(b"GET /4\n").unwrap();
        wait("after it was cut", &|| paths(&feed).last().is_some_and(|path| path == "/4"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
