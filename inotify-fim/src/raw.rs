//! The bytes that read(2) gives for an inotify descriptor, as records (inotify(7)). Pure: no descriptor is touched.

/// Bits of [`Record::mask`], with the kernel's names (`linux/inotify.h`).
pub mod mask {
    /// Content was written, or cut off.
    pub const MODIFY: u32 = 0x2;
    /// Attributes changed: permissions, owner, times, extended attributes, link count.
    pub const ATTRIB: u32 = 0x4;
    /// A file that was open for writing was closed.
    pub const CLOSE_WRITE: u32 = 0x8;
    /// An entry was moved out of the directory, or to another name in it.
    pub const MOVED_FROM: u32 = 0x40;
    /// An entry was moved into the directory, or from another name in it.
    pub const MOVED_TO: u32 = 0x80;
    /// An entry was made.
    pub const CREATE: u32 = 0x100;
    /// An entry was removed.
    pub const DELETE: u32 = 0x200;
    /// The subject itself was removed.
    pub const DELETE_SELF: u32 = 0x400;
    /// The subject itself was moved.
    pub const MOVE_SELF: u32 = 0x800;
    /// The file system was unmounted.
    pub const UNMOUNT: u32 = 0x2000;
    /// The queue overflowed and events were lost; the record has no watch.
    pub const Q_OVERFLOW: u32 = 0x4000;
    /// The watch is gone: removed, or its file or file system is.
    pub const IGNORED: u32 = 0x8000;
    /// The subject is a directory.
    pub const ISDIR: u32 = 0x4000_0000;
}

/// The fixed part of a record in octets: watch, mask, cookie and length, in the machine's byte order.
const HEADER: usize = 16;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The watch it belongs to; -1 for an overflow.
    pub watch: i32,
    /// What happened.
    pub mask: u32,
    /// Joins the two halves of a rename; else 0.
    pub cookie: u32,
    /// The name inside the watched directory, any bytes but `/` and NUL; `None` for the directory itself.
    pub name: Option<&'a [u8]>,
}

impl Record<'_> {
    /// Whether events were lost before this one: everything watched must be compared anew.
    #[must_use]
    pub fn is_overflow(&self) -> bool {
        self.mask & mask::Q_OVERFLOW != 0
    }
}

/// A buffer that does not hold whole records, which the kernel never writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn;

/// The records of one buffer, in order. After a [`Torn`] there are no more.
pub fn records(buffer: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Torn>> {
    let mut rest = buffer;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match split(rest) {
            Some((record, after)) => {
                rest = after;
                Some(Ok(record))
            }
            None => {
                rest = &[];
                Some(Err(Torn))
            }
        }
    })
}

fn split(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
    let length = usize::try_from(u32::from_ne_bytes(word(12))).ok()?;
    let (padded, after) = rest.split_at_checked(length)?;
    let name = padded.split(|byte| *byte == 0).next().filter(|name| !name.is_empty());
    let record = Record {
        watch: i32::from_ne_bytes(word(0)),
        mask: u32::from_ne_bytes(word(4)),
        cookie: u32::from_ne_bytes(word(8)),
        name,
    };
    Some((record, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(watch: i32, mask: u32, cookie: u32, name: &[u8]) -> Vec<u8> {
        let padded = name.len().next_multiple_of(16);
        let mut out =
            [watch.to_ne_bytes(), mask.to_ne_bytes(), cookie.to_ne_bytes(), u32::try_from(padded).unwrap().to_ne_bytes()]
                .concat();
        out.extend_from_slice(name);
        out.resize(HEADER + padded, 0);
        out
    }

    #[test]
    fn records_follow_one_another_with_names_of_any_bytes() {
        let odd = b"a\n\"\xff\x1b";
        let buffer = [bytes(1, 2, 0, b""), bytes(3, 4, 5, odd), bytes(-1, mask::Q_OVERFLOW, 0, b"")].concat();
        let read: Vec<Record<'_>> = records(&buffer).map(Result::unwrap).collect();
        assert_eq!(read[0], Record { watch: 1, mask: 2, cookie: 0, name: None });
        assert_eq!(read[1], Record { watch: 3, mask: 4, cookie: 5, name: Some(odd) });
        assert!(read[2].is_overflow() && !read[1].is_overflow());
    }

    #[test]
    fn a_buffer_cut_anywhere_is_torn_and_ends() {
        let buffer = bytes(3, 4, 5, b"name");
        for end in 1..buffer.len() {
            assert_eq!(records(&buffer[..end]).collect::<Vec<_>>(), [Err(Torn)], "{end}");
        }
        let lying = [&buffer[..12], &u32::MAX.to_ne_bytes(), &buffer[16..]].concat();
        assert_eq!(records(&lying).collect::<Vec<_>>(), [Err(Torn)]);
        assert_eq!(records(&[]).count(), 0);
    }
}
