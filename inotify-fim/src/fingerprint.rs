//! What one file is: its type, its attributes, the hash of its content. Which files are looked at, and what a difference
//! means, is not decided here.
//!
//! A file is opened by name below a directory's descriptor, without following a link, and in a way that opens nothing yet
//! (`O_PATH`, open(2)). Only when that descriptor says that it is a regular file is the very same inode opened for reading,
//! through `/proc/self/fd`. So no name that is swapped meanwhile leads elsewhere, no FIFO blocks, no device is ever opened.
//! All that a fingerprint says is of that one inode; if it changed between the first and the last look, all is read again.

mod content;
mod linked;
mod look;
mod means;
mod partial;
mod sys;

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Statx, StatxAttributes, StatxFlags};

use crate::pace::{Pace, Share};
pub use content::HashState;
pub(crate) use content::Reader;
pub(crate) use look::{ATTEMPTS, Wanted, When, glance, kind, look, look_at, of_open, stat};
pub(crate) use means::{Budget, Content, Deadline, Known, Means};
pub(crate) use partial::{Partial, Slice};

/// What a file was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Its type.
    pub kind: Kind,
    /// Permissions with the set-user-ID, set-group-ID and sticky bits: at most 0o7777.
    pub mode: u16,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Octets of a regular file; 0 for every other type, where the number means nothing.
    pub size: u64,
    /// When the content was changed, as the file says. Zero for a directory, where it tells only that some entry came or
    /// went. Whoever owns the file can set it.
    pub mtime: Stamp,
    /// Flags that change what may be done with it (chattr(1)).
    pub flags: Flags,
    /// What a symbolic link says; never followed.
    pub target: Option<Box<[u8]>>,
    /// Those extended attributes that grant something, sorted.
    pub xattrs: Xattrs,
    /// The hash of the content, or why there is none.
    pub hash: HashState,
    /// Which inode it was. `None` in what was written for other machines.
    pub inode: Option<Inode>,
    /// The hash of the older, shorter content that this one begins with, where that was looked for
    /// ([`Content::Append`](crate::roots::Content::Append)).
    pub extends: Option<Box<[u8; 32]>>,
    /// Where there is no hash: the last that was known of what stood there.
    pub last: Option<Box<[u8; 32]>>,
    /// The regular file that a symbolic link leads to, as far as that may be looked at.
    pub leads_to: Option<Box<LeadsTo>>,
}

/// What is found at the end of a symbolic link: what whoever opens the link reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeadsTo {
    /// Which inode it was. `None` in what was written for other machines, where size and time are zero as well.
    pub inode: Option<Inode>,
    /// Octets.
    pub size: u64,
    /// When the content was changed, as the file says.
    pub mtime: Stamp,
    /// The hash of the content, or why there is none.
    pub hash: HashState,
}

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A unix socket.
    Socket,
    /// A character device.
    Character(Device),
    /// A block device.
    Block(Device),
}

/// The numbers of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// Its driver.
    pub major: u32,
    /// Which of the driver's devices.
    pub minor: u32,
}

/// A time as a file system keeps it: since 1970, UTC. It can be any number that somebody set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after that, below 1,000,000,000.
    pub nanos: u32,
}

/// Flags of an inode. Without events of their own: inotify(7) never tells of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Nothing may be changed.
    pub immutable: bool,
    /// Content may only be added at the end.
    pub append: bool,
}

/// Extended attributes and their values, sorted, each once.
pub type Xattrs = Box<[(Xattr, Box<[u8]>)]>;

/// The extended attributes that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Xattr {
    /// `security.capability`: what whoever runs the file may do (capabilities(7)).
    Capability,
    /// `system.posix_acl_access`: who else may use it (acl(5)).
    Access,
    /// `system.posix_acl_default`: what new files in a directory get.
    Default,
}

impl Xattr {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::Capability, Self::Access, Self::Default];

    /// The kernel's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.c_name().to_str().unwrap_or_default()
    }

    fn c_name(self) -> &'static CStr {
        match self {
            Self::Capability => c"security.capability",
            Self::Access => c"system.posix_acl_access",
            Self::Default => c"system.posix_acl_default",
        }
    }
}

/// Which inode it is, on one machine, while its file system is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inode {
    /// The device of its file system.
    pub device: Device,
    /// Its number, which is given anew once the inode is gone.
    pub number: u64,
    /// How many names it has; 1 for a directory.
    pub links: u32,
    /// When it was made, where the file system keeps that: it tells apart two inodes of one number.
    pub born: Option<Stamp>,
    /// When anything of it last changed: the kernel alone sets it. `None` if that was too shortly before the look for an
    /// equal time to prove later that nothing changed.
    pub changed: Option<Stamp>,
}

impl Fingerprint {
    /// Looks at `name` in `directory`, and reads the content if it is a regular file of at most `largest` octets.
    /// `name` should be one component: a link in the last one is not followed, in others it would be. It reads as fast as
    /// the file system gives, and never waits for another process.
    ///
    /// # Errors
    ///
    /// What openat(2), statx(2), readlinkat(2) or getxattr(2) say: most often that the name is gone. Content that cannot
    /// be read is no error, but a state of [`Fingerprint::hash`].
    pub fn read(directory: impl AsFd, name: &OsStr, largest: u64) -> io::Result<Self> {
        let (share, means) = (Share::new(100), Means::default());
        let mut reader = Reader::new(Pace::new(&share), &means);
        look::look(directory.as_fd(), name, Wanted::Whole { largest, beginning: None, when: When::Allowed }, &mut reader)
    }

    /// All that one statx(2) tells.
    fn of_stat(stat: &Statx, now: SystemTime) -> Self {
        let kind = kind(stat);
        let device = Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor };
        let ctime = Stamp { seconds: stat.stx_ctime.tv_sec, nanos: stat.stx_ctime.tv_nsec };
        let born = Stamp { seconds: stat.stx_btime.tv_sec, nanos: stat.stx_btime.tv_nsec };
        let mtime = Stamp { seconds: stat.stx_mtime.tv_sec, nanos: stat.stx_mtime.tv_nsec };
        Self {
            kind,
            mode: stat.stx_mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: if kind == Kind::File { stat.stx_size } else { 0 },
            mtime: if kind == Kind::Directory { Stamp::default() } else { mtime },
            flags: Flags {
                immutable: stat.stx_attributes.contains(StatxAttributes::IMMUTABLE),
                append: stat.stx_attributes.contains(StatxAttributes::APPEND),
            },
            target: None,
            xattrs: Box::default(),
            hash: HashState::NotRegular,
            extends: None,
            last: None,
            leads_to: None,
            inode: Some(Inode {
                device,
                number: stat.stx_ino,
                links: if kind == Kind::Directory { 1 } else { stat.stx_nlink },
                born: (stat.stx_mask & StatxFlags::BTIME.bits() != 0).then_some(born),
                changed: look::settled(ctime, now).then_some(ctime),
            }),
        }
    }

    /// Whether a file that gives this answer to statx(2) must still be what it was, without reading it: every number is
    /// the same, the time of its last change too, and that time is proof. What is wanted must be known of it.
    pub(crate) fn still(&self, seen: &Statx, wanted: Wanted) -> bool {
        let now = Self::long_after(seen);
        let is_known = match wanted {
            Wanted::Attributes => return self.is_asked_no_more() && self.inode == now.inode && self.plain() == now.plain(),
            Wanted::Stat => true,
            Wanted::Whole { largest, .. } => is_known(self.hash, self.size, largest),
        };
        is_known
            && self.is_proof()
            && self.inode == now.inode
            && (self.size, self.mtime) == (now.size, now.mtime)
            && self.plain() == now.plain()
    }

    /// As it is told by statx(2), its time of change for proof.
    pub(crate) fn long_after(seen: &Statx) -> Self {
        Self::of_stat(seen, UNIX_EPOCH + Duration::from_secs(u64::MAX >> 2))
    }

    fn is_proof(&self) -> bool {
        self.inode.is_some_and(|inode| inode.changed.is_some())
    }

    fn is_asked_no_more(&self) -> bool {
        self.is_proof()
            && (self.size, self.mtime) == (0, Stamp::default())
            && matches!(self.hash, HashState::NotRead | HashState::NotRegular)
    }

    fn plain(&self) -> (Kind, u16, u32, u32, Flags) {
        (self.kind, self.mode, self.uid, self.gid, self.flags)
    }

    /// The same without what belongs to one machine.
    #[must_use]
    pub fn portable(mut self) -> Self {
        self.inode = None;
        (self.extends, self.last) = (None, None);
        if let Some(end) = &mut self.leads_to {
            **end = LeadsTo { inode: None, size: 0, mtime: Stamp::default(), hash: end.hash };
        }
        self
    }
}

/// Whether nothing would be learned of the content by reading it.
fn is_known(hash: HashState, size: u64, largest: u64) -> bool {
    match hash {
        HashState::Done(_) => size <= largest,
        HashState::TooLarge => size > largest,
        HashState::NotRegular => true,
        HashState::Unstable | HashState::Unreadable(_) | HashState::NotRead => false,
    }
}

impl LeadsTo {
    /// What was found at the end of a link; `None` if that is no regular file.
    pub(crate) fn new(found: &Fingerprint) -> Option<Self> {
        let Fingerprint { inode, size, mtime, hash, .. } = *found;
        (found.kind == Kind::File).then_some(Self { inode, size, mtime, hash })
    }

    /// Whether a file that gives this answer to statx(2) must still be the same, as [`Fingerprint::still`].
    pub(crate) fn still(&self, seen: &Statx, wanted: Wanted) -> bool {
        let now = Fingerprint::long_after(seen);
        let is_known = match wanted {
            Wanted::Whole { largest, .. } => is_known(self.hash, self.size, largest),
            Wanted::Stat | Wanted::Attributes => true,
        };
        let is_proof = self.inode.is_some_and(|inode| inode.changed.is_some());
        is_known && is_proof && (self.inode, self.size, self.mtime) == (now.inode, now.size, now.mtime)
    }
}

#[cfg(test)]
mod tests;
