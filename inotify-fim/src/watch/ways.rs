//! The ways that lead to the roots: in which directories which names are looked up, links on the way followed. Whoever
//! swaps one of them swaps the root, and no event in it says so.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

use crate::beneath;
use crate::roots::ancestors;

/// Links that are followed until it is taken for a loop: the kernel's own number (path_resolution(7)).
const LINKS: usize = 40;

/// Proc's number (statfs(2)): what its links say is not where they lead.
const PROC: u64 = 0x9fa0;

/// One name that is looked up, and the directory, by a path without links.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step {
    pub(super) directory: Vec<u8>,
    name: Vec<u8>,
}

/// The ways of all roots.
#[derive(Default)]
pub(super) struct Ways {
    ways: BTreeMap<Vec<u8>, Vec<Step>>,
    /// The roots that a step leads to.
    roots: BTreeMap<Step, BTreeSet<Vec<u8>>>,
}

impl Ways {
    /// A root's way is another now. Gives the directories that no way goes through any more.
    pub(super) fn set(&mut self, root: &[u8], way: &[Step]) -> Vec<Vec<u8>> {
        let before = self.ways.insert(root.to_vec(), way.to_vec()).unwrap_or_default();
        for step in &before {
            if let Some(roots) = self.roots.get_mut(step) {
                roots.remove(root);
            }
        }
        self.roots.retain(|_, roots| !roots.is_empty());
        for step in way {
            self.roots.entry(step.clone()).or_default().insert(root.to_vec());
        }
        before.into_iter().map(|step| step.directory).filter(|directory| !self.has(directory)).collect()
    }

    /// Whether a way goes through this directory.
    pub(super) fn has(&self, directory: &[u8]) -> bool {
        self.through(directory).next().is_some()
    }

    /// The roots that may be others when this name in a directory is, or the directory itself.
    pub(super) fn roots(&self, directory: &[u8], name: Option<&[u8]>) -> BTreeSet<Vec<u8>> {
        let steps = self.through(directory).filter(|(step, _)| name.is_none_or(|name| step.name == name));
        steps.flat_map(|(_, roots)| roots).cloned().collect()
    }

    fn through<'a>(&'a self, directory: &'a [u8]) -> impl Iterator<Item = (&'a Step, &'a BTreeSet<Vec<u8>>)> {
        let first = Step { directory: directory.to_vec(), name: Vec::new() };
        self.roots.range(first..).take_while(move |(step, _)| step.directory == directory)
    }
}

/// The way to a path as it is now, as far as it leads.
pub(super) fn follow(path: &[u8]) -> Vec<Step> {
    let names = |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
    // The directory, the names to come with the next one last, and how many links there were.
    let (mut directory, mut rest, mut links) = (b"/".to_vec(), names(path), 0);
    let mut way = Vec::new();
    while let Some(name) = rest.pop() {
        match &*name {
            b"" | b"." => continue,
            b".." => {
                let above = ancestors(&directory).nth(1).unwrap_or(b"/").to_vec();
                directory = above;
                continue;
            }
            _ => way.push(Step { directory: directory.clone(), name: name.clone() }),
        }
        let next = beneath::join(&directory, &name);
        match rustix::fs::readlink(OsStr::from_bytes(&next), Vec::new()) {
            Ok(text) if !is_proc(&directory) && links < LINKS => {
                links += 1;
                if text.as_bytes().first() == Some(&b'/') {
                    directory = b"/".to_vec();
                }
                rest.extend(names(text.as_bytes()));
            }
            // No link, or one whose text says nothing.
            Ok(_) | Err(Errno::INVAL) if links < LINKS => directory = next,
            _ => break,
        }
    }
    way
}

fn is_proc(directory: &[u8]) -> bool {
    // Its width and sign differ between machines; the numbers all fit in 32 bits.
    rustix::fs::statfs(OsStr::from_bytes(directory)).is_ok_and(|stat| stat.f_type as u64 & 0xffff_ffff == PROC)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn steps(path: &[u8], below: &[u8]) -> Vec<(String, String)> {
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let inside = |step: &Step| Some((text(step.directory.strip_prefix(below)?), text(&step.name)));
        follow(path).iter().filter_map(inside).collect()
    }

    #[test]
    fn c07_a_way_goes_through_links_and_ends_where_nothing_is() {
        let folder = tempfile::tempdir().unwrap();
        let top = std::fs::canonicalize(folder.path()).unwrap();
        let at = |name: &str| top.join(name).as_os_str().as_bytes().to_vec();
        let top_bytes = at("").strip_suffix(b"/").unwrap().to_vec();
        std::fs::create_dir_all(top.join("v1/deep")).unwrap();
        std::fs::write(top.join("v1/app"), "").unwrap();
        for (text, name) in [("v1", "..data"), ("..data/deep/../app", "app"), ("loop", "loop")] {
            symlink(text, top.join(name)).unwrap();
        }
        let step = |directory: &str, name: &str| (directory.to_owned(), name.to_owned());
        let way = [("", "app"), ("", "..data"), ("", "v1"), ("/v1", "deep"), ("/v1", "app")];
        assert_eq!(steps(&at("app"), &top_bytes), way.map(|(directory, name)| step(directory, name)));
        assert_eq!(steps(&at("none/x"), &top_bytes), [step("", "none")]);
        assert_eq!(steps(&at("v1/app/x"), &top_bytes), [step("", "v1"), step("/v1", "app"), step("/v1/app", "x")]);
        assert_eq!(steps(&at("loop"), &top_bytes).len(), LINKS + 1);
        symlink("/proc/self/root/tmp", top.join("magic")).unwrap();
        let magic = follow(&at("magic"));
        assert!(magic.contains(&Step { directory: b"/proc/self/root".to_vec(), name: b"tmp".to_vec() }), "{magic:?}");
    }

    #[test]
    fn a_step_is_known_while_a_root_needs_it() {
        let step = |directory: &str, name: &str| Step { directory: directory.into(), name: name.into() };
        let mut ways = Ways::default();
        assert!(ways.set(b"/a/b", &[step("/", "a"), step("/a", "b")]).is_empty());
        assert!(ways.set(b"/a/c", &[step("/", "a"), step("/a", "c")]).is_empty());
        assert_eq!(ways.roots(b"/", Some(b"a")).len(), 2);
        assert_eq!(ways.roots(b"/a", Some(b"c")), [b"/a/c".to_vec()].into());
        assert_eq!((ways.roots(b"/a", None).len(), ways.roots(b"/a", Some(b"x")).len(), ways.has(b"/x")), (2, 0, false));
        assert!(ways.set(b"/a/c", &[step("/", "a")]).is_empty());
        assert_eq!(ways.set(b"/a/b", &[step("/", "a")]), [b"/a"]);
    }
}
