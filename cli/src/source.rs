//! Input files, and output that may end early.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::Context as _;

/// The name that means standard input.
const STDIN: &str = "-";

/// Reads a whole text file, or standard input for `-`.
///
/// # Errors
/// When it cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", display(path)))?;
    String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8 text", display(path)))
}

/// Opens a file for reading line by line, or standard input for `-`.
///
/// # Errors
/// When it cannot be opened.
pub fn open(path: &Path) -> anyhow::Result<BufReader<Box<dyn Read>>> {
    const BUFFER: usize = 1 << 16;
    if path == Path::new(STDIN) {
        return Ok(BufReader::with_capacity(BUFFER, Box::new(io::stdin())));
    }
    let file = File::open(path).with_context(|| format!("cannot open {}", display(path)))?;
    Ok(BufReader::with_capacity(BUFFER, Box::new(file)))
}

/// How messages name a file.
pub fn display(path: &Path) -> String {
    if path == Path::new(STDIN) { "standard input".to_owned() } else { path.display().to_string() }
}
