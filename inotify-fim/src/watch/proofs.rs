//! For each mount that the roots have part in: whether events arrive from it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;

use super::armed::Armed;
use super::event::Event;
use crate::ledger::{Mount, Polled, Proof, Unverified};
use crate::mounts::{self, Table};
use crate::raw::mask;
use crate::roots::{Roots, ancestors};
use crate::scan::Uncovered;
use crate::{beneath, canary};

/// How long an event may take that proves something.
const PATIENCE: Duration = Duration::from_secs(2);

/// How much longer it may take while other events come.
const PUT_OFF: Duration = Duration::from_secs(20);

/// In so many directories of a mount a proof is tried.
const TRIES: usize = 8;

/// Part of a root, from a mount point or the root itself on.
struct Part {
    mount: Option<mounts::Mount>,
    proof: Proof,
    probe: Option<Probe>,
}

/// A proof under way.
struct Probe {
    path: Vec<u8>,
    due: Instant,
    /// Its time is over once already: this process may have stood still all the while.
    late: bool,
    came: bool,
}

/// Paths of roots that a mount concerns, where it is, and how it changed.
type Concern = (Vec<Vec<u8>>, Vec<u8>, mounts::MountChange);

pub(super) struct Proofs {
    /// The list of mounts, and why it could not be read, or not all of it.
    unread: (Vec<u8>, Option<Uncovered>),
    table: Table,
    /// Each root, and where it really is.
    real: BTreeMap<Vec<u8>, Vec<u8>>,
    parts: BTreeMap<Vec<u8>, Part>,
    /// Something changed since [`Self::is_fresh`] was last asked.
    fresh: bool,
}

impl Default for Proofs {
    fn default() -> Self {
        let unread = (mounts::MOUNTINFO.into(), None);
        Self { unread, table: Table::new(), real: BTreeMap::new(), parts: BTreeMap::new(), fresh: false }
    }
}

impl Proofs {
    /// Looks at what is mounted. Gives what changed since the last look, each with the paths of the roots that it concerns.
    pub(super) fn look(&mut self, roots: &Roots, tell: &mut dyn FnMut(Event)) -> Vec<Concern> {
        self.take(roots, mounts::read(), tell)
    }

    /// That the list of mounts cannot be read, or not all of it, is told; what is not read has not changed.
    fn take(&mut self, roots: &Roots, read: io::Result<(Table, usize)>, tell: &mut dyn FnMut(Event)) -> Vec<Concern> {
        let error = match &read {
            Ok((_, 0)) => None,
            Ok(_) => Some(Errno::BADMSG),
            Err(error) => Some(Errno::from_io_error(error).unwrap_or(Errno::IO)),
        };
        let unread = error.map(|error| Uncovered::Unreadable(error.raw_os_error()));
        if unread != std::mem::replace(&mut self.unread.1, unread) {
            let path = self.unread.0.clone();
            tell(unread.map_or(Event::CoverageGained { path: path.clone() }, |why| Event::CoverageLost { path, why }));
        }
        let real =
            |root: &[u8]| fs::canonicalize(Path::new(OsStr::from_bytes(root))).map(|path| path.into_os_string().into_vec());
        self.real = roots.iter().map(|(root, _)| (root.to_vec(), real(root).unwrap_or_else(|_| root.to_vec()))).collect();
        let table = read.map_or_else(|_| self.table.clone(), |(table, _)| table);
        let before = std::mem::replace(&mut self.table, table);
        let changes = mounts::changes(&before, &self.table).into_iter();
        let concern =
            changes.map(|(point, change)| (self.places(&point), point, change)).filter(|(places, ..)| !places.is_empty());
        let found = concern.collect();
        self.divide(roots);
        self.fresh = true;
        found
    }

    /// Whether anything changed since this was last asked.
    pub(super) fn is_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh)
    }

    fn places(&self, point: &[u8]) -> Vec<Vec<u8>> {
        mounts::places(point, self.real.iter().map(|(root, real)| (root.as_slice(), real.as_slice())))
    }

    /// Which parts the roots have; proofs stay with the mounts that they were made of.
    fn divide(&mut self, roots: &Roots) {
        let mut starts: Vec<Vec<u8>> = self.real.keys().cloned().collect();
        let below = |path: &Vec<u8>| roots.of(path).is_some() && !roots.begins_at(path);
        starts.extend(self.table.values().flat_map(|mount| self.places(&mount.point)).filter(below));
        let mut known = std::mem::take(&mut self.parts);
        for path in starts {
            // Only what is not hidden by another mount.
            let mount = mount_of(&path).and_then(|id| self.table.get(&id)).cloned();
            let is_hidden =
                !roots.begins_at(&path) && !mount.as_ref().is_some_and(|mount| self.places(&mount.point).contains(&path));
            if is_hidden {
                continue;
            }
            let same = known.remove(&path).filter(|part| part.mount == mount);
            let fresh = || Part { mount, proof: Proof::Unverified(Unverified::Pending), probe: None };
            self.parts.insert(path, same.unwrap_or_else(fresh));
        }
    }

    /// Whether a mount begins here, and not only a root: of a file the source may be written elsewhere.
    pub(super) fn is_file(&self, path: &[u8]) -> bool {
        let points = |mount: &mounts::Mount| self.places(&mount.point).iter().any(|place| place == path);
        self.parts.get(path).and_then(|part| part.mount.as_ref()).is_some_and(points)
    }

    /// Whether `/proc` hides the processes of others.
    pub(super) fn hides_processes(&self) -> bool {
        let hides = |options: &[u8]| {
            let mut words = options.split(|byte| *byte == b',');
            words.any(|word| word.strip_prefix(b"hidepid=").is_some_and(|how| how != b"0" && how != b"off"))
        };
        self.table.values().any(|mount| mount.fs_type == "proc" && mount.point == b"/proc" && hides(&mount.options))
    }

    /// Starts a proof for each part, but where one is under way or would prove nothing.
    pub(super) fn begin(&mut self, roots: &Roots, armed: &Armed, now: Instant, tell: &mut dyn FnMut(Event)) {
        let starts: Vec<Vec<u8>> = self.parts.keys().cloned().collect();
        for path in starts {
            let owner = |at: &[u8]| ancestors(at).find(|above| self.parts.contains_key(*above)).map(<[u8]>::to_vec);
            let directories = armed.directories(&path).filter(|at| owner(at).as_ref() == Some(&path));
            let tried: Vec<Vec<u8>> = directories.take(TRIES).cloned().collect();
            self.fresh = true;
            let Some(part) = self.parts.get_mut(&path) else { continue };
            if part.probe.is_some() {
                continue;
            }
            match attempt(roots, &path, &tried, part.mount.as_ref()) {
                Ok(canary) => part.probe = Some(Probe { path: canary, due: now + PATIENCE, late: false, came: false }),
                Err(proof) => part.is_now(&path, proof, tell),
            }
        }
    }

    /// An event of a proof. Whether it is one of ours.
    pub(super) fn saw(&mut self, path: &[u8], bits: u32, tell: &mut dyn FnMut(Event)) -> bool {
        let is_it = |part: &Part| part.probe.as_ref().is_some_and(|probe| probe.path == path);
        let Some((start, part)) = self.parts.iter_mut().find(|(_, part)| is_it(part)) else { return false };
        self.fresh = true;
        if let Some(probe) = &mut part.probe {
            probe.came |= bits & mask::CREATE != 0;
            if probe.came && bits & mask::DELETE != 0 {
                part.probe = None;
                part.is_now(start, Proof::Proven, tell);
            }
        }
        true
    }

    /// Events were lost, perhaps these: they prove nothing.
    pub(super) fn lost(&mut self) {
        self.parts.values_mut().for_each(|part| part.probe = None);
    }

    /// When the first proof under way has failed.
    pub(super) fn next(&self) -> Option<Instant> {
        self.parts.values().filter_map(|part| part.probe.as_ref().map(|probe| probe.due)).min()
    }

    /// Proofs that did not come until now have failed, if they had their time twice. While the kernel holds what nobody has
    /// read yet (`more`), that may be what is waited for; but who makes events all the time does not put it off for ever.
    pub(super) fn expire(&mut self, now: Instant, more: bool, tell: &mut dyn FnMut(Event)) {
        for (path, part) in &mut self.parts {
            let over = |probe: &&mut Probe| now >= if more { probe.due + PUT_OFF } else { probe.due };
            let Some(probe) = part.probe.as_mut().filter(over) else { continue };
            if std::mem::replace(&mut probe.late, true) {
                part.probe = None;
                self.fresh = true;
                part.is_now(path, Proof::Polled(Polled::NoEvents), tell);
            } else {
                probe.due = now + PATIENCE;
            }
        }
    }

    /// What must be compared often, and why.
    pub(super) fn polled(&self) -> impl Iterator<Item = (&Vec<u8>, Uncovered)> {
        self.parts.iter().filter_map(|(path, part)| Some((path, part.proof.uncovered()?)))
    }

    /// The list of mounts, if it could not be read.
    pub(super) fn unread(&self) -> impl Iterator<Item = (&Vec<u8>, Uncovered)> {
        self.unread.1.map(|why| (&self.unread.0, why)).into_iter()
    }

    /// For the ledger.
    pub(super) fn list(&self) -> Vec<Mount> {
        let fs = |part: &Part| part.mount.as_ref().map(|mount| mount.fs_type.clone()).unwrap_or_default();
        self.parts.iter().map(|(path, part)| Mount { path: path.clone(), fs: fs(part), proof: part.proof }).collect()
    }
}

impl Part {
    fn is_now(&mut self, path: &[u8], proof: Proof, tell: &mut dyn FnMut(Event)) {
        let before = std::mem::replace(&mut self.proof, proof).uncovered();
        match proof.uncovered() {
            now if now == before => {}
            Some(why) => tell(Event::CoverageLost { path: path.to_vec(), why }),
            None => tell(Event::CoverageGained { path: path.to_vec() }),
        }
    }
}

impl Proof {
    fn uncovered(self) -> Option<Uncovered> {
        match self {
            Self::Polled(Polled::NoEvents) => Some(Uncovered::NoEvents),
            Self::Polled(Polled::Remote) => Some(Uncovered::Remote),
            Self::Proven | Self::Unverified(_) => None,
        }
    }
}

/// Makes and removes a directory in one of these; its path. Or what is known without that.
fn attempt(roots: &Roots, path: &[u8], tried: &[Vec<u8>], mount: Option<&mounts::Mount>) -> Result<Vec<u8>, Proof> {
    let Some((root, _)) = roots.of(path) else { return Err(Proof::Unverified(Unverified::Unwatched)) };
    match beneath::open(root, path) {
        Ok(directory) => {
            // Its width and sign differ between machines; the numbers all fit in 32 bits.
            let magic = rustix::fs::fstatfs(&directory).map_or(0, |stat| stat.f_type as u64 & 0xffff_ffff);
            if mounts::is_remote(magic) {
                return Err(Proof::Polled(Polled::Remote));
            }
        }
        Err(Errno::NOTDIR) => return Err(Proof::Unverified(Unverified::SingleFile)),
        Err(_) => return Err(Proof::Unverified(Unverified::Unwatched)),
    }
    if mount.is_some_and(|mount| mount.read_only) {
        return Err(Proof::Unverified(Unverified::ReadOnly));
    }
    let mut why = Unverified::Unwatched;
    for at in tried {
        let sung = beneath::open(root, at).and_then(|directory| canary::sing(std::os::fd::AsFd::as_fd(&directory)));
        match sung {
            Ok(name) => return Ok(beneath::join(at, &name)),
            Err(Errno::ROFS) => why = Unverified::ReadOnly,
            Err(_) => why = Unverified::NotWritable,
        }
    }
    Err(Proof::Unverified(why))
}

/// The number of the mount that a path is on, where the kernel tells it (from 5.8 on).
fn mount_of(path: &[u8]) -> Option<u64> {
    let stat = rustix::fs::statx(CWD, path, AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC, StatxFlags::MNT_ID).ok()?;
    (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_mounts_that_cannot_be_read_is_told_and_nothing_counts_as_unmounted() {
        let roots = Roots::from_iter([b"/".to_vec()]);
        let (mut proofs, mut told) = (Proofs::default(), Vec::new());
        proofs.look(&roots, &mut |event| told.push(event));
        let table = proofs.table.clone();
        assert!(!table.is_empty() && told.is_empty(), "{told:?}");
        let changed = proofs.take(&roots, Err(Errno::MFILE.into()), &mut |event| told.push(event));
        assert_eq!((changed, &proofs.table), (Vec::new(), &table));
        let path = || mounts::MOUNTINFO.as_bytes().to_vec();
        let why = |error: Errno| Uncovered::Unreadable(error.raw_os_error());
        assert_eq!(proofs.unread().collect::<Vec<_>>(), [(&path(), why(Errno::MFILE))]);
        assert!(proofs.take(&roots, Ok((table.clone(), 1)), &mut |event| told.push(event)).is_empty());
        assert!(proofs.take(&roots, Ok((table, 0)), &mut |event| told.push(event)).is_empty());
        let lost = |error| Event::CoverageLost { path: path(), why: why(error) };
        assert_eq!(told, [lost(Errno::MFILE), lost(Errno::BADMSG), Event::CoverageGained { path: path() }]);
    }
}
