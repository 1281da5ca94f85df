//! As much of ELF as tells a program's loader (elf(5)): the one entry of type PT_INTERP, of 64-bit files of this machine's byte
//! order. Others don't start here. Whatever a file says, little of it is read.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const HEADER: usize = 64;
const ENTRY: usize = 56;
const PT_INTERP: u32 = 3;

/// How many entries are looked at; programs have about a dozen.
const MOST_ENTRIES: u64 = 128;

/// The longest path (PATH_MAX), which the kernel takes, too.
const LONGEST_PATH: u64 = 4096;

/// The loader that this file names.
pub(super) fn loader(file: &File) -> Option<PathBuf> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0).ok()?;
    // ELFCLASS64, and the byte order of this machine.
    let order = if cfg!(target_endian = "little") { 1 } else { 2 };
    if !header.starts_with(&[0x7f, b'E', b'L', b'F', 2, order]) {
        return None;
    }
    let (table, size, entries) = (u64_at(&header, 32)?, u16_at(&header, 54)?, u16_at(&header, 56)?);
    if usize::from(size) != ENTRY {
        return None;
    }
    (0..u64::from(entries).min(MOST_ENTRIES)).find_map(|number| {
        let mut entry = [0; ENTRY];
        file.read_exact_at(&mut entry, table.checked_add(number * ENTRY as u64)?).ok()?;
        let kind = u32::from_ne_bytes(*entry.first_chunk()?);
        (kind == PT_INTERP).then(|| path_at(file, u64_at(&entry, 8)?, u64_at(&entry, 32)?)).flatten()
    })
}

fn path_at(file: &File, offset: u64, length: u64) -> Option<PathBuf> {
    let mut path = vec![0; usize::try_from(length).ok().filter(|_| (2..=LONGEST_PATH).contains(&length))?];
    file.read_exact_at(&mut path, offset).ok()?;
    let path = path.split(|byte| *byte == 0).next()?;
    path.starts_with(b"/").then(|| PathBuf::from(OsStr::from_bytes(path)))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}
