//! Reads the header of ELF files: executables and libraries of Linux.

use anyhow::{Result, bail, ensure};

/// Whether these bytes are an executable or a library for Linux.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

/// Whether these bytes are a library: a shared object that is not a (static or dynamic) executable.
pub fn is_library(bytes: &[u8]) -> bool {
    const SHARED: usize = 3;
    const FLAGS_1: usize = 0x6fff_fffb;
    const PIE: usize = 0x0800_0000;
    is_elf(bytes)
        && number(bytes, 16, 2) == Some(SHARED)
        && loader(bytes).is_none()
        && !dynamic(bytes).any(|(tag, value)| tag == FLAGS_1 && value & PIE != 0)
}

/// The entries of the segment `PT_DYNAMIC`: tags with their values.
fn dynamic(bytes: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let (at, length) = segment(bytes, 2).unwrap_or((0, 0));
    (0..length / 16).map_while(move |entry| {
        let at = at.checked_add(entry * 16)?;
        Some((number(bytes, at, 8)?, number(bytes, at.checked_add(8)?, 8)?))
    })
}

/// A file's architecture, by its name in OCI images.
pub fn architecture(file: &[u8]) -> Result<&'static str> {
    ensure!(is_elf(file) && file.get(4..6) == Some(&[2, 1]), "not a 64-bit executable or library for Linux (ELF)");
    match number(file, 18, 2) {
        Some(62) => Ok("amd64"),
        Some(183) => Ok("arm64"),
        machine => bail!("it is for an unknown machine (ELF {machine:?}): expected x86-64 or aarch64"),
    }
}

/// The loader that a dynamically linked executable names (the segment `PT_INTERP`); `None` for a static executable.
pub fn loader(executable: &[u8]) -> Option<String> {
    let (offset, length) = segment(executable, 3)?;
    let bytes = executable.get(offset..offset.checked_add(length)?)?;
    Some(String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned())
}

/// The offset and length of the first segment of this kind.
fn segment(file: &[u8], kind: usize) -> Option<(usize, usize)> {
    let table = number(file, 32, 8)?;
    let (size, count) = (number(file, 54, 2)?, number(file, 56, 2)?);
    (0..count).find_map(|segment| {
        let at = table.checked_add(segment.checked_mul(size)?)?;
        if number(file, at, 4)? != kind {
            return None;
        }
        Some((number(file, at.checked_add(8)?, 8)?, number(file, at.checked_add(32)?, 8)?))
    })
}

/// A little-endian number of `length` bytes, at most eight.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(length)?)?;
    let value = field.iter().rev().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
    usize::try_from(value).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
pub mod tests {
    use super::*;

    /// A minimal executable: one segment, which names a loader or is of another kind.
    pub fn elf(machine: u16, loader: Option<&str>) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64] = if loader.is_some() { 3 } else { 1 };
        let name = loader.unwrap_or_default();
        bytes[64 + 8] = 120;
        bytes[64 + 32] = u8::try_from(name.len()).unwrap();
        bytes.extend_from_slice(name.as_bytes());
        bytes
    }

    /// The same as a shared object.
    pub fn library(machine: u16) -> Vec<u8> {
        let mut bytes = elf(machine, None);
        bytes[16] = 3;
        bytes
    }

    #[test]
    fn a_library_is_distinguished_from_every_kind_of_executable() {
        assert!(is_library(&library(62)) && is_library(&library(183)));
        // Position-independent executables, with a loader and static.
        let mut dynamic = elf(62, Some("/lib64/ld.so"));
        dynamic[16] = 3;
        let mut standalone = library(62);
        standalone[64] = 2;
        standalone[64 + 8] = 120;
        standalone[64 + 32] = 16;
        for word in [0x6fff_fffb_u64, 0x0800_0001] {
            standalone.extend(word.to_le_bytes());
        }
        for executable in [elf(62, None), dynamic, standalone, b"\x7fELF".to_vec(), b"\0asm".to_vec()] {
            assert!(!is_library(&executable));
        }
        // The test binary is itself an executable.
        assert!(!is_library(&std::fs::read(std::env::current_exe().unwrap()).unwrap()));
    }
}
