//! Input files, and output files.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::anyhow;

/// The name that means standard input.
pub const STDIN: &str = "-";

/// Reads a whole text file, or standard input for `-`.
///
/// # Errors
/// Returns an error when it cannot be read or is not UTF-8.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(|error| unreadable("cannot read", path, &error))?;
    match String::from_utf8(bytes) {
        Ok(text) if text.starts_with("\0asm") => Err(not_text(path, text.as_bytes(), 0)),
        Ok(text) => Ok(text),
        Err(error) => Err(not_text(path, error.as_bytes(), error.utf8_error().valid_up_to())),
    }
}

/// Opens a file for reading line by line, or standard input for `-`.
///
/// # Errors
/// Returns an error when it cannot be opened.
pub fn open(path: &Path) -> anyhow::Result<BufReader<Box<dyn Read>>> {
    const BUFFER: usize = 1 << 16;
    if path == Path::new(STDIN) {
        return Ok(BufReader::with_capacity(BUFFER, Box::new(io::stdin())));
    }
    let file = File::open(path).map_err(|error| unreadable("cannot open", path, &error))?;
    Ok(BufReader::with_capacity(BUFFER, Box::new(file)))
}

/// The name of a file in messages.
pub fn display(path: &Path) -> String {
    if path == Path::new(STDIN) { "standard input".to_owned() } else { path.display().to_string() }
}

/// The reason of an I/O error, without the operating system's error number.
pub fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder, not a file".to_owned(),
        io::ErrorKind::NotADirectory => "a part of the path is a file, not a folder".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused: nothing listens there".to_owned(),
        _ => {
            let text = error.to_string();
            if text.starts_with("failed to lookup address") {
                return "there is no host of this name".to_owned();
            }
            text.split(" (os error").next().unwrap_or_default().to_owned()
        }
    }
}

/// The message that an operation on a file failed, and why.
pub fn unreadable(what: &str, path: &Path, error: &io::Error) -> anyhow::Error {
    anyhow!("{what} {}: {}", display(path), why(error))
}

/// Writes a whole file.
///
/// # Errors
/// Returns an error when it cannot be written.
pub fn write(path: &Path, text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    std::fs::write(path, text).map_err(|error| unreadable("cannot write", path, &error))
}

/// Describes bytes that are not UTF-8.
pub fn not_text(path: &Path, bytes: &[u8], at: usize) -> anyhow::Error {
    let what = match bytes {
        [0, b'a', b's', b'm', ..] => {
            "is a WebAssembly module, not a policy: give the policy that the module runs".to_owned()
        }
        [0x1f, 0x8b, ..] => "is compressed (gzip): unpack it first".to_owned(),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "is compressed (zstd): unpack it first".to_owned(),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "is UTF-16 text: save it as UTF-8".to_owned(),
        _ => format!("is not UTF-8 text (from byte {at} on)"),
    };
    anyhow!("{} {what}", display(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_are_reported_without_the_systems_error_number() {
        let folder = tempfile::tempdir().unwrap();
        let missing = read_text(&folder.path().join("a.yaml")).unwrap_err().to_string();
        assert!(missing.ends_with("a.yaml: there is no such file or folder"), "{missing}");
        let directory = read_text(folder.path()).unwrap_err().to_string();
        assert!(directory.ends_with("it is a folder, not a file"), "{directory}");
        let module = folder.path().join("suite.wasm");
        for bytes in [&b"\0asm\x01\0\0\0\xff"[..], b"\0asm\x01\0\0\0"] {
            std::fs::write(&module, bytes).unwrap();
            assert!(read_text(&module).unwrap_err().to_string().contains("is a WebAssembly module"));
        }
    }
}
