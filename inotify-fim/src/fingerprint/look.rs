//! Looking at one file: which calls, in which order, so that no name that is swapped meanwhile leads elsewhere.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::content::Reader;
use super::means::Means;
use super::sys;
use super::{Device, Fingerprint, HashState, Kind, Stamp, Xattr, Xattrs};

/// How often a file that changes while it is read is read anew before it is said to be [`HashState::Unstable`].
pub(crate) const ATTEMPTS: usize = 3;

/// A change less than this before the look may share its time with a later one: a kernel's file times advance by its
/// tick, 10 ms at most (older than 6.13; later ones tell any two changes apart).
pub(super) const TICK: Duration = Duration::from_millis(20);

/// The same for a file system that keeps whole seconds, or every other one (FAT), which a time without a fraction may be of.
pub(super) const COARSE: Duration = Duration::from_secs(2);

/// Octets that a list of the names of extended attributes may take; a longer one is not read, each name is asked for.
const LONGEST_XATTR_LIST: usize = 4096;

/// What is asked of a file's content.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// All, of files up to so many octets; with the hash of a beginning, by its length and what it should be.
    Whole {
        /// The limit.
        largest: u64,
        /// The beginning.
        beginning: Option<(u64, [u8; 32])>,
        /// When to read it.
        when: When,
    },
    /// Nothing: size and time will do.
    Stat,
    /// Neither content nor size nor time.
    Attributes,
}

/// When a content is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// However much was read already.
    Now,
    /// If it has so many octets, or the budget allows it.
    OfSize(u64),
    /// If the budget allows it.
    Allowed,
    /// Not by this look.
    Later,
}

/// Looks at a name, until it stays the same meanwhile. See [`Fingerprint::read`].
pub(crate) fn look(directory: BorrowedFd<'_>, name: &OsStr, wanted: Wanted, reader: &mut Reader<'_>) -> io::Result<Fingerprint> {
    if !matches!(wanted, Wanted::Whole { .. }) {
        return at_a_glance(directory, name, wanted);
    }
    let open = || rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let mut attempt = 1;
    loop {
        let (mut found, steady) = look_at(&open()?, wanted, reader)?;
        if steady || attempt == ATTEMPTS {
            if !steady && found.kind == Kind::File {
                found.hash = HashState::Unstable;
            }
            return Ok(found);
        }
        attempt += 1;
    }
}

/// The fingerprint of what was opened with `O_PATH`, and whether it stayed the same while it was taken.
pub(crate) fn look_at(file: &OwnedFd, wanted: Wanted, reader: &mut Reader<'_>) -> io::Result<(Fingerprint, bool)> {
    // Whoever takes the time after the look may have stood still in between, and a change since then pass for proven old.
    let now = SystemTime::now();
    let before = stat(file.as_fd())?;
    let mut found = Fingerprint::of_stat(&before, now);
    let through = Through::new(file);
    let opened = match (found.kind, wanted) {
        (Kind::File, Wanted::Whole { largest, beginning, when }) => {
            let opened = if found.size > largest {
                Err(HashState::TooLarge)
            } else if let Some(error) = reader.means.known.error(found.inode) {
                Err(unreadable(error))
            } else if may_read(&found, when, reader.means) {
                through.open().map_err(unreadable)
            } else {
                Err(HashState::NotRead)
            };
            found.hash = match &opened {
                Ok(opened) => hash(&mut found, opened, beginning, reader),
                Err(state) => *state,
            };
            opened.ok()
        }
        (Kind::Symlink, _) => {
            found.target = Some(rustix::fs::readlinkat(file, "", Vec::new())?.into_bytes().into());
            None
        }
        _ => None,
    };
    found.ask(wanted);
    match (&opened, found.kind) {
        (Some(opened), _) => found.xattrs = xattrs(opened)?,
        (None, Kind::Symlink) => {}
        (None, _) => found.xattrs = xattrs(&through).map_err(not_gone)?,
    }
    let after = stat(file.as_fd())?;
    Ok((found, same(&before, &after)))
}

/// The fingerprint of a directory that is open for listing, as it was seen at a time no sooner than `now`; `None` if it does
/// not say all. An attribute that is set after it was seen gives it a later time of change than the one here, so that the
/// next look does not take it for known.
pub(crate) fn of_open(directory: &OwnedFd, seen: &Statx, now: SystemTime) -> Option<Fingerprint> {
    let xattrs = xattrs(directory).ok()?;
    Some(Fingerprint { xattrs, ..Fingerprint::of_stat(seen, now) })
}

/// Whether a file is known, or may be read now.
fn may_read(found: &Fingerprint, when: When, means: &Means) -> bool {
    let is_known = || means.known.get(found.inode, found.size).is_some();
    match when {
        When::Now => true,
        When::OfSize(size) if found.size == size => true,
        When::Allowed | When::OfSize(_) => is_known() || means.budget.allows(found.size),
        When::Later => is_known(),
    }
}

/// The hash of a file that is open for reading. One with several names is read once.
fn hash(found: &mut Fingerprint, file: &OwnedFd, beginning: Option<(u64, [u8; 32])>, reader: &mut Reader<'_>) -> HashState {
    if let Some(known) = reader.means.known.get(found.inode, found.size) {
        let old = beginning.filter(|(length, hash)| known.beginning == Some((*length, *hash)));
        found.extends = old.map(|(_, hash)| Box::new(hash));
        return HashState::Done(known.hash);
    }
    let linked = &reader.means.linked;
    match found.inode.filter(|inode| inode.links > 1 && beginning.is_none()) {
        Some(inode) => linked.hash(inode, found.size, || read(found, file, beginning, reader)),
        None => read(found, file, beginning, reader),
    }
}

fn read(found: &mut Fingerprint, file: &OwnedFd, beginning: Option<(u64, [u8; 32])>, reader: &mut Reader<'_>) -> HashState {
    let beginning = beginning.filter(|(length, _)| *length < found.size);
    match reader.content(file, found.size, beginning.map(|(length, _)| length)) {
        Ok(Some(content)) => {
            let old = beginning.map(|(_, hash)| hash);
            found.extends = old.filter(|_| content.beginning == old).map(Box::new);
            HashState::Done(content.hash)
        }
        Ok(None) => HashState::Unstable,
        Err(Errno::CANCELED) => HashState::NotRead,
        Err(error) => unreadable(error),
    }
}

/// That there is no way through `/proc` to what is open does not mean that the file is gone.
fn not_gone(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound { Errno::NOSYS.into() } else { error }
}

fn unreadable(error: Errno) -> HashState {
    HashState::Unreadable(error.raw_os_error())
}

/// A fingerprint without opening the file. If it is swapped between the calls, what they say is of two files; the time of
/// its last change, that of the first, keeps that from being taken for known at the next look.
fn at_a_glance(directory: BorrowedFd<'_>, name: &OsStr, wanted: Wanted) -> io::Result<Fingerprint> {
    let now = SystemTime::now();
    let mut found = Fingerprint::of_stat(&glance(directory, name)?, now);
    if found.kind == Kind::Symlink {
        found.target = Some(rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes().into());
    } else {
        // A name may be gone by now; where proc is not mounted, none can be asked.
        let has_proc = || rustix::fs::access("/proc/self/fd", rustix::fs::Access::EXISTS).is_ok();
        let gone = |error| if has_proc() { error } else { not_gone(error) };
        found.xattrs = xattrs(&Named::new(directory, name)?).map_err(gone)?;
    }
    found.ask(wanted);
    Ok(found)
}

impl Fingerprint {
    /// Leaves out what nobody asked for.
    fn ask(&mut self, wanted: Wanted) {
        if self.kind == Kind::File && !matches!(wanted, Wanted::Whole { .. }) {
            self.hash = HashState::NotRead;
        }
        if matches!(wanted, Wanted::Attributes) {
            (self.size, self.mtime) = (0, Stamp::default());
        }
    }
}

/// One look at a name below a directory, without following a link (statx(2)).
pub(crate) fn glance(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    Ok(rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?)
}

/// One look at what is open.
pub(crate) fn stat(file: BorrowedFd<'_>) -> io::Result<Statx> {
    Ok(rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?)
}

/// The type that statx(2) tells.
pub(crate) fn kind(stat: &Statx) -> Kind {
    let device = Device { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor };
    match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::Character(device),
        FileType::BlockDevice => Kind::Block(device),
        _ => Kind::File,
    }
}

pub(super) fn same(before: &Statx, after: &Statx) -> bool {
    let facts = |s: &Statx| {
        let (changed, written) = (s.stx_ctime, s.stx_mtime);
        (s.stx_size, s.stx_mode, changed.tv_sec, changed.tv_nsec, written.tv_sec, written.tv_nsec)
    };
    facts(before) == facts(after)
}

/// Whether a change now would get a later time than `ctime`. A time in the future proves nothing.
pub(super) fn settled(ctime: Stamp, now: SystemTime) -> bool {
    let step = if ctime.nanos == 0 { COARSE } else { TICK };
    let limit = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(step);
    let limit = Stamp { seconds: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), nanos: limit.subsec_nanos() };
    ctime < limit
}

/// What extended attributes can be read of.
pub(super) trait Holder {
    fn list(&self, names: &mut [u8]) -> Result<usize, Errno>;
    fn get(&self, which: Xattr, value: &mut [u8]) -> Result<usize, Errno>;
}

/// An inode by its `O_PATH` descriptor, through `/proc/self/fd`: the way to what such a descriptor itself refuses.
pub(super) struct Through(String);

impl Through {
    pub(super) fn new(file: &OwnedFd) -> Self {
        Self(format!("/proc/self/fd/{}", file.as_raw_fd()))
    }

    /// Opens it for reading. Only for a regular file. Not blocking: whoever holds a lease on the file (fcntl(2)) could make
    /// an open wait.
    pub(super) fn open(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::open(&self.0, flags, Mode::empty())
    }
}

impl Holder for Through {
    fn list(&self, names: &mut [u8]) -> Result<usize, Errno> {
        rustix::fs::listxattr(&self.0, names)
    }

    fn get(&self, which: Xattr, value: &mut [u8]) -> Result<usize, Errno> {
        rustix::fs::getxattr(&self.0, which.name(), value)
    }
}

/// A file that is open for reading.
impl Holder for OwnedFd {
    fn list(&self, names: &mut [u8]) -> Result<usize, Errno> {
        rustix::fs::flistxattr(self, names)
    }

    fn get(&self, which: Xattr, value: &mut [u8]) -> Result<usize, Errno> {
        rustix::fs::fgetxattr(self, which.name(), value)
    }
}

/// A name in a directory; a link is not followed.
pub(super) struct Named<'a> {
    directory: BorrowedFd<'a>,
    name: CString,
}

impl<'a> Named<'a> {
    pub(super) fn new(directory: BorrowedFd<'a>, name: &OsStr) -> io::Result<Self> {
        Ok(Self { directory, name: CString::new(name.as_bytes())? })
    }

    /// The same through `/proc`, for kernels that know no other way.
    pub(super) fn by_path(&self) -> Path {
        let mut path = format!("/proc/self/fd/{}/", self.directory.as_raw_fd()).into_bytes();
        path.extend_from_slice(self.name.as_bytes());
        Path(path)
    }
}

impl Holder for Named<'_> {
    fn list(&self, names: &mut [u8]) -> Result<usize, Errno> {
        sys::list(self.directory, &self.name, names).unwrap_or_else(|| self.by_path().list(names))
    }

    fn get(&self, which: Xattr, value: &mut [u8]) -> Result<usize, Errno> {
        let answer = sys::get(self.directory, &self.name, which.c_name(), value);
        answer.unwrap_or_else(|| self.by_path().get(which, value))
    }
}

/// A path; a link at its end is not followed.
pub(super) struct Path(Vec<u8>);

impl Holder for Path {
    fn list(&self, names: &mut [u8]) -> Result<usize, Errno> {
        rustix::fs::llistxattr(&*self.0, names)
    }

    fn get(&self, which: Xattr, value: &mut [u8]) -> Result<usize, Errno> {
        rustix::fs::lgetxattr(&*self.0, which.name(), value)
    }
}

pub(super) fn xattrs(file: &impl Holder) -> io::Result<Xattrs> {
    let mut names = [0_u8; LONGEST_XATTR_LIST];
    let listed = match file.list(&mut names) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Box::default()),
        Ok(length) => Some(&names[..length]),
        Err(Errno::RANGE) => None,
        Err(error) => return Err(error.into()),
    };
    let is_listed =
        |which: &Xattr| listed.is_none_or(|names| names.split(|byte| *byte == 0).any(|name| name == which.name().as_bytes()));
    let mut found = Vec::new();
    for which in Xattr::ALL.into_iter().filter(is_listed) {
        found.extend(xattr(file, which)?.map(|value| (which, value)));
    }
    Ok(found.into())
}

fn xattr(file: &impl Holder, which: Xattr) -> io::Result<Option<Box<[u8]>>> {
    // The kernel's own limit for one value (XATTR_SIZE_MAX, xattr(7)).
    let mut value = vec![0; 65_536];
    match file.get(which, value.as_mut_slice()) {
        Ok(length) => Ok(Some(value[..length].into())),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
