//! Who was seen with which file, from the moment its events were taken until it is told what changed.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::beneath;
use crate::fingerprint::{self, Device, Inode, Kind};
use crate::roots::Roots;
use crate::suspects::{self, Certainty, File, Suspect};

/// At most one walk over all processes in this time, and none before four times as long as the last took.
const PAUSE: Duration = Duration::from_millis(20);

/// A walk ends after this.
const LONGEST: Duration = Duration::from_millis(20);

/// So many files of a batch are looked for.
const BATCH: usize = 64;

/// So many files are remembered until they are told.
const FILES: usize = 1_024;

/// So many processes of one file are told.
const EACH: usize = 16;

#[derive(Default)]
pub(super) struct Witness {
    next: Option<Instant>,
    seen: HashMap<File, Sighting>,
    /// Which file a path was when its events were taken: it may be gone when it is told.
    names: HashMap<Vec<u8>, File>,
    /// How many processes could not be looked into at the last walk.
    pub(super) hidden: Option<usize>,
    /// `/proc` does not list the processes of others.
    pub(super) is_partial: bool,
}

#[derive(Default)]
struct Sighting {
    suspects: Vec<Suspect>,
    hidden: bool,
}

impl Witness {
    /// Looks for who has these files open for writing now, if the last look was long enough ago.
    pub(super) fn look(&mut self, roots: &Roots, paths: &[Vec<u8>], now: Instant) {
        if paths.is_empty() || self.next.is_some_and(|next| now < next) || self.seen.len() >= FILES {
            return;
        }
        let names: Vec<(Vec<u8>, File)> =
            paths.iter().take(BATCH).filter_map(|path| Some((path.clone(), file(roots, path)?))).collect();
        if names.is_empty() {
            return;
        }
        let files: HashSet<File> = names.iter().map(|(_, file)| *file).collect();
        let walk = suspects::walk(&files, LONGEST);
        self.next = Some(Instant::now() + (now.elapsed() * 4).max(PAUSE));
        self.hidden = Some(walk.hidden);
        self.names.extend(names);
        for (file, suspects) in walk.writers {
            let known = self.seen.entry(file).or_default();
            known.hidden |= walk.hidden > 0 || self.is_partial;
            for suspect in suspects {
                if known.suspects.len() < EACH && known.suspects.iter().all(|other| other.pid != suspect.pid) {
                    known.suspects.push(suspect);
                }
            }
        }
    }

    /// Who was seen with the file at this path, or with one of these inodes.
    pub(super) fn of(&self, path: &[u8], inodes: impl IntoIterator<Item = Inode>) -> Vec<Suspect> {
        if self.seen.is_empty() {
            return Vec::new();
        }
        let inodes = inodes.into_iter().map(|inode| (inode.device, inode.number));
        let mut files: Vec<File> = self.names.get(path).copied().into_iter().chain(inodes).collect();
        files.sort_unstable_by_key(|(device, number)| (*device, *number));
        files.dedup();
        let sightings = || files.iter().filter_map(|file| self.seen.get(file));
        let mut suspects: Vec<Suspect> = Vec::new();
        for suspect in sightings().flat_map(|sighting| &sighting.suspects) {
            if suspects.iter().all(|other| other.pid != suspect.pid) {
                suspects.push(suspect.clone());
            }
        }
        let certainty = match suspects.len() {
            0 | 1 if sightings().any(|sighting| sighting.hidden) => Certainty::SoleVisible,
            0 | 1 => Certainty::Sole,
            _ => Certainty::OneOfSeveral,
        };
        suspects.iter_mut().for_each(|suspect| suspect.certainty = certainty);
        suspects
    }

    /// Forgets all but what these paths were.
    pub(super) fn forget(&mut self, keeps: impl Fn(&[u8]) -> bool) {
        self.names.retain(|path, _| keeps(path));
        let kept: HashSet<File> = self.names.values().copied().collect();
        self.seen.retain(|file, _| kept.contains(file));
    }
}

/// Which regular file stands at a path now.
fn file(roots: &Roots, path: &[u8]) -> Option<File> {
    let (root, _) = roots.of(path)?;
    let stat = fingerprint::stat(beneath::point_at(root, path).ok()?.as_fd()).ok()?;
    let device = Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor };
    (fingerprint::kind(&stat) == Kind::File).then_some((device, stat.stx_ino))
}
