//! What a set of files was, by path, and what differs between two such views. Pure: no file is touched.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::fingerprint::{Fingerprint, HashState, Inode, Kind, LeadsTo};

/// An absolute path, its octets as the kernel has them.
pub type Path = Arc<[u8]>;

/// Files by their path, sorted by octet. What several views have in common they share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// What each path was.
    pub entries: BTreeMap<Path, Arc<Fingerprint>>,
}

impl View {
    /// What stands at this path and below it.
    pub fn tree<'a>(&'a self, path: &'a [u8]) -> impl Iterator<Item = (&'a Path, &'a Arc<Fingerprint>)> {
        let below = below(path);
        let inside = self
            .entries
            .range::<[u8], _>((Bound::Included(below.as_slice()), Bound::Unbounded))
            .take_while(move |(entry, _)| entry.starts_with(&below))
            .filter(move |(entry, _)| ***entry != *path);
        self.entries.get_key_value(path).into_iter().chain(inside)
    }

    /// Forgets this path and all below it; gives what was there.
    pub fn take_tree(&mut self, path: &[u8]) -> Self {
        let names: Vec<Path> = self.tree(path).map(|(name, _)| name.clone()).collect();
        Self { entries: names.iter().filter_map(|name| self.entries.remove_entry(name)).collect() }
    }

    /// The same without what belongs to one machine.
    #[must_use]
    pub fn portable(self) -> Self {
        Self {
            entries: self.entries.into_iter().map(|(path, print)| (path, Arc::new(print.as_ref().clone().portable()))).collect(),
        }
    }
}

/// What every path below this one starts with.
pub(crate) fn below(path: &[u8]) -> Vec<u8> {
    let mut prefix = path.to_vec();
    if prefix.last() != Some(&b'/') {
        prefix.push(b'/');
    }
    prefix
}

/// What differs at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where: of a move, where it went.
    pub path: Path,
    /// How.
    pub change: Change,
    /// What was there, or where it came from.
    pub old: Option<Arc<Fingerprint>>,
    /// What is there.
    pub new: Option<Arc<Fingerprint>>,
}

/// How something differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There was nothing.
    Created,
    /// There is nothing.
    Deleted,
    /// It has another content: another hash, another text of a link, another device; or another size or time of change
    /// where there is no hash to tell.
    Modified,
    /// The old content is still there, and more after it. Told only where that was looked for
    /// ([`Content::Append`](crate::roots::Content::Append)).
    Appended,
    /// A symbolic link says the same, and leads to other content: the hashes are those of [`Fingerprint::leads_to`].
    Effective,
    /// The content is the same, other attributes are not.
    Attributes,
    /// It is a file of another type.
    Type,
    /// The same inode stood elsewhere. It may have changed as well: [`Difference::attributes`].
    Moved {
        /// Where.
        from: Path,
    },
}

/// One thing that a fingerprint says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Type, and the numbers of a device.
    Kind,
    /// Permissions.
    Mode,
    /// Owner.
    Uid,
    /// Group.
    Gid,
    /// Size.
    Size,
    /// Time of the last change of content.
    Mtime,
    /// Immutable, append-only.
    Flags,
    /// The text of a symbolic link.
    Target,
    /// What a symbolic link leads to.
    LeadsTo,
    /// Capabilities and access control lists.
    Xattrs,
    /// The hash, if both are known.
    Hash,
    /// Whether there is a hash, and why not: a file that can no longer be read is a loss of coverage.
    HashState,
    /// The number of names, if known of both.
    Links,
}

impl Difference {
    /// In what the two differ; empty where there is only one. Inode numbers and the kernel's own times are left out, as a
    /// saved or copied file has others.
    #[must_use]
    pub fn attributes(&self) -> Vec<Attribute> {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => attributes(old, new),
            _ => Vec::new(),
        }
    }
}

/// All differences, sorted by path. A deleted and a created path with the same inode are one move.
///
/// It knows nothing of how files are looked at: [`Roots::differences`](crate::roots::Roots::differences) does.
#[must_use]
pub fn compare(old: &View, new: &View) -> Vec<Difference> {
    let (mut gone, mut fresh, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for (path, was, is) in joined(old, new) {
        match (was, is) {
            (Some(was), None) => gone.push((path, was)),
            (None, Some(is)) => fresh.push((path, is)),
            (Some(was), Some(is)) if Arc::ptr_eq(was, is) => {}
            (Some(was), Some(is)) => {
                found.extend(changed(was, is).map(|change| difference(path, change, Some(was), Some(is))));
            }
            (None, None) => {}
        }
    }
    let mut origins: HashMap<(Inode, Kind), _> = gone.iter().filter_map(|from| Some((identity(from.1)?, *from))).collect();
    let mut left = HashSet::new();
    for (path, print) in fresh {
        let from = identity(print).and_then(|identity| origins.remove(&identity));
        found.push(match from.filter(|(_, was)| is_same_file(was, print)) {
            Some((from, was)) => {
                left.insert(from);
                difference(path, Change::Moved { from: Arc::clone(from) }, Some(was), Some(print))
            }
            None => difference(path, Change::Created, None, Some(print)),
        });
    }
    let deleted = gone.into_iter().filter(|(path, _)| !left.contains(path));
    found.extend(deleted.map(|(path, was)| difference(path, Change::Deleted, Some(was), None)));
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// One path, and what two views have there: one of them at least.
type Joined<'a> = (&'a Path, Option<&'a Arc<Fingerprint>>, Option<&'a Arc<Fingerprint>>);

/// The paths of two views, sorted.
fn joined<'a>(old: &'a View, new: &'a View) -> impl Iterator<Item = Joined<'a>> {
    let (mut old, mut new) = (old.entries.iter().peekable(), new.entries.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (Some((one, _)), Some((other, _))) => one.cmp(other),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let was = old.next_if(|_| order.is_le());
        let is = new.next_if(|_| order.is_ge());
        let (path, _) = was.or(is)?;
        Some((path, was.map(|(_, print)| print), is.map(|(_, print)| print)))
    })
}

pub(crate) fn difference(
    path: &Path,
    change: Change,
    old: Option<&Arc<Fingerprint>>,
    new: Option<&Arc<Fingerprint>>,
) -> Difference {
    Difference { path: Arc::clone(path), change, old: old.cloned(), new: new.cloned() }
}

/// What of an inode stays while it is moved. Its link count need not, nor the time of its last change.
pub(crate) fn identity(print: &Fingerprint) -> Option<(Inode, Kind)> {
    print.inode.map(|inode| (Inode { links: 0, changed: None, ..inode }, print.kind))
}

/// Inode numbers are given anew: without a time of birth, only equal content makes it the same file.
pub(crate) fn is_same_file(old: &Fingerprint, new: &Fingerprint) -> bool {
    new.inode.is_some_and(|inode| inode.born.is_some()) || content_differs(old, new).is_none()
}

/// Whether nothing differs that would be told.
pub(crate) fn is_alike(old: &Fingerprint, new: &Fingerprint) -> bool {
    changed(old, new).is_none()
}

/// How two states of one path differ, if they do.
pub(crate) fn changed(old: &Fingerprint, new: &Fingerprint) -> Option<Change> {
    if std::mem::discriminant(&old.kind) != std::mem::discriminant(&new.kind) {
        return Some(Change::Type);
    }
    let differ = attributes(old, new);
    content_differs(old, new).or_else(|| (!differ.is_empty()).then_some(Change::Attributes))
}

fn content_differs(old: &Fingerprint, new: &Fingerprint) -> Option<Change> {
    let differs = match (hash(old), new.hash) {
        (HashState::Done(one), HashState::Done(other)) if one != other && new.extends.as_deref() == Some(&one) => {
            return Some(Change::Appended);
        }
        (HashState::Done(one), HashState::Done(other)) => one != other,
        (HashState::NotRegular, HashState::NotRegular) if (old.kind, &old.target) == (new.kind, &new.target) => {
            return leads_elsewhere(old, new).then_some(Change::Effective);
        }
        (HashState::NotRegular, HashState::NotRegular) => true,
        _ => old.size != new.size || written_at_another_time(old, new),
    };
    differs.then_some(Change::Modified)
}

/// Whether the times of the last change of content differ, as far as that tells anything. Archives, and so the layers of
/// images, keep whole seconds only, and some tools that make them set all times alike: what was written for other
/// machines is compared so, and not at all where the hashes tell.
fn written_at_another_time(old: &Fingerprint, new: &Fingerprint) -> bool {
    let (was, is) = (old.mtime, new.mtime);
    if old.inode.is_some() && new.inode.is_some() {
        return was != is;
    }
    let both_hashed = old.hash.done().is_some() && new.hash.done().is_some();
    let is_file = old.kind == Kind::File && new.kind == Kind::File;
    is_file && !both_hashed && was.seconds != is.seconds
}

/// The hash, or the last that was known.
fn hash(print: &Fingerprint) -> HashState {
    print.last.as_deref().map_or(print.hash, |last| HashState::Done(*last))
}

/// Whether two links lead to other content. Where there is no hash to tell, another file is other content.
fn leads_elsewhere(old: &Fingerprint, new: &Fingerprint) -> bool {
    let (Some(old), Some(new)) = (&old.leads_to, &new.leads_to) else {
        return old.leads_to.is_some() != new.leads_to.is_some();
    };
    let which = |end: &LeadsTo| end.inode.map(|inode| (inode.device, inode.number));
    match (old.hash, new.hash) {
        (HashState::Done(one), HashState::Done(other)) => one != other,
        _ if old.inode.is_none() || new.inode.is_none() => false,
        _ => (which(old), old.size, old.mtime) != (which(new), new.size, new.mtime),
    }
}

fn attributes(old: &Fingerprint, new: &Fingerprint) -> Vec<Attribute> {
    let hashes = (hash(old), new.hash);
    let both_hashed = matches!(hashes, (HashState::Done(_), HashState::Done(_)));
    let both_done = matches!((old.hash, new.hash), (HashState::Done(_), HashState::Done(_)));
    let both_asked = old.hash != HashState::NotRead && new.hash != HashState::NotRead;
    let links = |print: &Fingerprint| print.inode.map(|inode| inode.links);
    let counted = links(old).is_some() && links(new).is_some();
    [
        (Attribute::Kind, old.kind != new.kind),
        (Attribute::Mode, old.mode != new.mode),
        (Attribute::Uid, old.uid != new.uid),
        (Attribute::Gid, old.gid != new.gid),
        (Attribute::Size, old.size != new.size),
        (Attribute::Mtime, written_at_another_time(old, new)),
        (Attribute::Flags, old.flags != new.flags),
        (Attribute::Target, old.target != new.target),
        (Attribute::LeadsTo, leads_elsewhere(old, new)),
        (Attribute::Xattrs, old.xattrs != new.xattrs),
        (Attribute::Hash, both_hashed && hashes.0 != hashes.1),
        (Attribute::HashState, both_asked && !both_done && old.hash != new.hash),
        (Attribute::Links, counted && links(old) != links(new)),
    ]
    .into_iter()
    .filter_map(|(attribute, differs)| differs.then_some(attribute))
    .collect()
}

#[cfg(test)]
mod tests;
