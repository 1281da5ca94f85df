//! What is mounted where, as `/proc/self/mountinfo` tells (proc_pid_mountinfo(5)), and what changed between two looks.
//! Pure but for [`read`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use crate::fingerprint::Device;
use crate::view::below;

/// Where the kernel tells of the mounts of this process.
pub(crate) const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Octets that are read of it: some 300,000 mounts, three times what a mount namespace may have by default.
const LARGEST: u64 = 64 << 20;

/// How a mount changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountChange {
    /// It came, perhaps over another or over files that are hidden now.
    Mounted {
        /// The type of its file system, as the kernel names it.
        fs_type: String,
        /// What is mounted, if that has a name: a device, a share; most often a word of no meaning.
        source: Option<Vec<u8>>,
        /// Nothing can be written there.
        read_only: bool,
    },
    /// It is gone.
    Unmounted,
    /// It can be written now, or cannot any more.
    Remounted {
        /// Nothing can be written there.
        read_only: bool,
    },
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its number, given anew once it is gone.
    pub(crate) id: u64,
    pub(crate) device: Device,
    /// What of its file system is mounted.
    pub(crate) root: Vec<u8>,
    /// Where.
    pub(crate) point: Vec<u8>,
    pub(crate) fs_type: String,
    pub(crate) source: Option<Vec<u8>>,
    pub(crate) read_only: bool,
    /// Words of the file system itself, such as `hidepid=2`.
    pub(crate) options: Vec<u8>,
}

/// All mounts, by their number.
pub(crate) type Table = BTreeMap<u64, Mount>;

/// All mounts of this process, and how many lines could not be understood.
pub(crate) fn read() -> io::Result<(Table, usize)> {
    let mut text = Vec::new();
    File::open(MOUNTINFO)?.take(LARGEST).read_to_end(&mut text)?;
    Ok(parse(&text))
}

/// The mounts of a text, and how many lines are none.
pub(crate) fn parse(text: &[u8]) -> (Table, usize) {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let lines = || text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let table: Table = lines().filter_map(line).map(|mount| (mount.id, mount)).collect();
    let bad = lines().count() - lines().filter_map(line).count();
    (table, bad)
}

/// `36 35 98:0 /inside /where rw,noatime master:1 - ext4 /dev/sda rw,errors=continue`, with any number of words before the
/// lone dash.
fn line(text: &[u8]) -> Option<Mount> {
    let mut words = text.split(|byte| *byte == b' ');
    let id = number(words.next()?)?;
    let _parent: u64 = number(words.next()?)?;
    let mut device = words.next()?.splitn(2, |byte| *byte == b':');
    let device = Device { major: number(device.next()?)?, minor: number(device.next()?)? };
    let (root, point, options) = (unescape(words.next()?), unescape(words.next()?), words.next()?);
    words.find(|word| *word == b"-")?;
    let (fs_type, source, super_options) = (unescape(words.next()?), unescape(words.next()?), words.next()?);
    let is_read_only = |options: &[u8]| options.split(|byte| *byte == b',').any(|word| word == b"ro");
    (point.first() == Some(&b'/') && words.next().is_none()).then(|| Mount {
        id,
        device,
        root,
        point,
        fs_type: String::from_utf8_lossy(&fs_type).into_owned(),
        source: Some(source).filter(|source| !source.is_empty() && source != b"none"),
        read_only: is_read_only(options) || is_read_only(super_options),
        options: super_options.to_vec(),
    })
}

fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Space, tab, line end and backslash are written as a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let octal = |digit: &u8| digit.is_ascii_digit().then(|| u32::from(digit - b'0')).filter(|value| *value < 8);
        let code = match after {
            [a, b, c, ..] if *first == b'\\' => octal(a).zip(octal(b)).zip(octal(c)).map(|((a, b), c)| a * 64 + b * 8 + c),
            _ => None,
        };
        match code.and_then(|code| u8::try_from(code).ok()) {
            Some(byte) => (out.push(byte), rest = &after[3..]),
            None => (out.push(*first), rest = after),
        };
    }
    out
}

/// What changed, by mount point. A number that stands for another mount now is one that went and one that came.
pub(crate) fn changes(before: &Table, now: &Table) -> Vec<(Vec<u8>, MountChange)> {
    let same = |one: &Mount, other: &Mount| {
        (&one.point, one.device, &one.root, &one.fs_type) == (&other.point, other.device, &other.root, &other.fs_type)
    };
    let stays = |mount: &Mount, table: &Table| table.get(&mount.id).is_some_and(|other| same(mount, other));
    let gone = before.values().filter(|mount| !stays(mount, now));
    let mut found: Vec<_> = gone.map(|mount| (mount.point.clone(), MountChange::Unmounted)).collect();
    for mount in now.values() {
        let (point, read_only) = (mount.point.clone(), mount.read_only);
        match before.get(&mount.id).filter(|other| same(mount, other)) {
            Some(other) if other.read_only == read_only => {}
            Some(_) => found.push((point, MountChange::Remounted { read_only })),
            None => {
                let (fs_type, source) = (mount.fs_type.clone(), mount.source.clone());
                found.push((point, MountChange::Mounted { fs_type, source, read_only }));
            }
        }
    }
    found
}

/// Where a mount point is among trees that are given as their own path and the one that it leads to: a path at or below a
/// tree's, and that tree; or the tree's own path, if the mount is over a directory that it is in.
pub(crate) fn places<'a>(point: &[u8], trees: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<Vec<u8>> {
    let place = |(tree, real): (&[u8], &[u8])| match point.strip_prefix(real) {
        Some([]) => Some(tree.to_vec()),
        Some(rest) if real.last() == Some(&b'/') || rest.first() == Some(&b'/') => {
            let mut path = below(tree);
            path.extend_from_slice(rest.strip_prefix(b"/").unwrap_or(rest));
            Some(path)
        }
        _ => real.starts_with(&below(point)).then(|| tree.to_vec()),
    };
    trees.filter_map(place).collect()
}

/// File systems whose files others change without an event here, by their numbers (statfs(2), linux/magic.h): NFS, SMB
/// (three), 9P, FUSE and virtiofs, Ceph, AFS, VirtualBox's folders, Coda, OCFS2, GFS2, Lustre.
const REMOTE: [u64; 13] = [
    0x6969,
    0x517b,
    0xfe53_4d42,
    0xff53_4d42,
    0x0102_1997,
    0x6573_5546,
    0x00c3_6400,
    0x5346_414f,
    0x786f_4256,
    0x7375_7245,
    0x7461_636f,
    0x0116_1970,
    0x0bd0_0bd0,
];

/// Whether other machines or processes can change files of this type without an event here.
pub(crate) fn is_remote(magic: u64) -> bool {
    REMOTE.contains(&magic)
}

#[cfg(test)]
mod tests;
