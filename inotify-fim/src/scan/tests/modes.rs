//! What counts of a file: each way to look at a tree.

use super::*;
use crate::fingerprint::{Fingerprint, Stamp};
use crate::roots::Content;
use crate::view::{Attribute, Change};

/// A folder that is looked at again and again.
struct Tree {
    folder: tempfile::TempDir,
    roots: Roots,
    view: View,
}

impl Tree {
    fn new(content: Content) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots::new([(bytes(folder.path()), How { content, ..How::default() })]);
        Self { folder, roots, view: View::default() }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn print(&self, name: &str) -> &Fingerprint {
        &self.view.entries[bytes(&self.at(name)).as_slice()]
    }

    /// What differs since the last look, the folder itself left out.
    fn changes(&mut self) -> Vec<(String, Change)> {
        let now = scan(&self.roots, &self.view, &Options::default()).view;
        let found = self.roots.differences(&self.view, &now);
        self.view = now;
        let top = bytes(self.folder.path()).len() + 1;
        let name = |path: &[u8]| String::from_utf8_lossy(path.get(top..).unwrap_or_default()).into_owned();
        let told = found.into_iter().map(|found| match found.change {
            Change::Moved { from } => (name(&found.path), Change::Moved { from: name(&from).into_bytes().into() }),
            change => (name(&found.path), change),
        });
        told.filter(|(name, _)| !name.is_empty()).collect()
    }

    fn append(&self, name: &str, text: &str) {
        use std::io::Write;
        fs::File::options().append(true).open(self.at(name)).unwrap().write_all(text.as_bytes()).unwrap();
    }
}

fn told<const N: usize>(all: [(&str, Change); N]) -> Vec<(String, Change)> {
    all.map(|(name, change)| (name.to_owned(), change)).to_vec()
}

fn moved(from: &str) -> Change {
    Change::Moved { from: from.as_bytes().into() }
}

#[test]
fn e08_a_log_that_grows_is_appended_and_not_modified() {
    let mut tree = Tree::new(Content::Append);
    for (name, content) in [("log", "one\n".repeat(100_000)), ("empty", String::new())] {
        fs::write(tree.at(name), content).unwrap();
    }
    tree.changes();
    let old = tree.print("log").hash.done();
    for name in ["log", "empty"] {
        tree.append(name, "two\n");
    }
    assert_eq!(tree.changes(), told([("empty", Change::Appended), ("log", Change::Appended)]));
    assert_eq!(tree.print("log").extends.as_deref().copied(), old);
    tree.append("log", "three\n");
    assert_eq!(tree.changes(), told([("log", Change::Appended)]), "and again");
    assert_eq!(tree.changes(), []);
    // Against what was written for another machine too.
    let before = tree.view.clone().portable();
    tree.append("log", "four\n");
    let now = scan(&tree.roots, &before, &Options::default()).view;
    let found = tree.roots.differences(&before, &now);
    assert_eq!(found.iter().map(|found| &found.change).collect::<Vec<_>>(), [&Change::Appended]);
}

#[test]
fn e08_where_content_counts_as_a_whole_growth_is_a_modification() {
    let mut tree = Tree::new(Content::Whole);
    fs::write(tree.at("log"), "one\n").unwrap();
    tree.changes();
    tree.append("log", "two\n");
    assert_eq!(tree.changes(), told([("log", Change::Modified)]));
}

#[test]
fn e09_one_octet_of_the_past_is_a_modification_even_if_more_was_appended() {
    use std::os::unix::fs::FileExt;
    let mut tree = Tree::new(Content::Append);
    fs::write(tree.at("log"), "one\n".repeat(100_000)).unwrap();
    tree.changes();
    let overwrite = |tree: &Tree| fs::File::options().write(true).open(tree.at("log")).unwrap().write_at(b"X", 200_001).unwrap();
    overwrite(&tree);
    tree.append("log", "two\n");
    assert_eq!(tree.changes(), told([("log", Change::Modified)]));
    fs::write(tree.at("log"), "one\n".repeat(100_000)).unwrap();
    tree.changes();
    overwrite(&tree);
    assert_eq!(tree.changes(), told([("log", Change::Modified)]), "at the same length");
}

#[test]
fn e10_a_log_cut_short_is_modified() {
    let mut tree = Tree::new(Content::Append);
    fs::write(tree.at("log"), "one\ntwo\n").unwrap();
    tree.changes();
    fs::write(tree.at("log"), "one\n").unwrap();
    assert_eq!(tree.changes(), told([("log", Change::Modified)]));
    // Copied away and cut to nothing.
    fs::copy(tree.at("log"), tree.at("log.1")).unwrap();
    fs::write(tree.at("log"), "").unwrap();
    assert_eq!(tree.changes(), told([("log", Change::Modified), ("log.1", Change::Created)]));
}

#[test]
fn e10_a_log_rotated_by_rename_is_moved_and_a_new_one_made() {
    let mut tree = Tree::new(Content::Append);
    fs::write(tree.at("log"), "one\n").unwrap();
    tree.changes();
    fs::rename(tree.at("log"), tree.at("log.1")).unwrap();
    fs::write(tree.at("log"), "two\n").unwrap();
    tree.append("log.1", "a late line\n");
    let before = tree.print("log").hash.done();
    assert_eq!(tree.changes(), told([("log", Change::Created), ("log.1", moved("log"))]));
    assert_eq!(tree.print("log.1").extends.as_deref().copied(), before, "what came late was appended");
    // The next time the whole chain moves on, and at last its end is lost.
    fs::rename(tree.at("log.1"), tree.at("log.2")).unwrap();
    fs::rename(tree.at("log"), tree.at("log.1")).unwrap();
    fs::write(tree.at("log"), "three\n").unwrap();
    assert_eq!(tree.changes(), told([("log", Change::Created), ("log.1", moved("log")), ("log.2", moved("log.1"))]));
    fs::rename(tree.at("log.1"), tree.at("log.2")).unwrap();
    fs::rename(tree.at("log"), tree.at("log.1")).unwrap();
    fs::write(tree.at("log"), "four\n").unwrap();
    let expected = [("log", Change::Created), ("log.1", moved("log")), ("log.2", Change::Deleted), ("log.2", moved("log.1"))];
    assert_eq!(tree.changes(), told(expected));
    // A log that only looks rotated: the old one was written anew.
    fs::write(tree.at("log.1"), "forged\n").unwrap();
    assert_eq!(tree.changes(), told([("log.1", Change::Modified)]));
}

#[test]
fn e10_a_copy_in_the_place_of_a_log_is_a_modification_whatever_it_begins_with() {
    for grown in ["", "two\n"] {
        let mut tree = Tree::new(Content::Append);
        fs::write(tree.at("log"), "one\n").unwrap();
        tree.changes();
        let modified = fs::metadata(tree.at("log")).unwrap().modified().unwrap();
        fs::copy(tree.at("log"), tree.at("copy")).unwrap();
        fs::File::options().write(true).open(tree.at("copy")).unwrap().set_modified(modified).unwrap();
        fs::rename(tree.at("copy"), tree.at("log")).unwrap();
        tree.append("log", grown);
        assert_eq!(tree.changes(), told([("log", Change::Modified)]), "{grown:?}");
        tree.append("log", "three\n");
        assert_eq!(tree.changes(), told([("log", Change::Appended)]), "once only");
    }
}

#[test]
fn where_only_attributes_count_content_size_and_time_may_change() {
    let mut tree = Tree::new(Content::Attributes);
    fs::write(tree.at("f"), "one").unwrap();
    tree.changes();
    let seen = tree.print("f");
    assert_eq!((seen.hash, seen.size, seen.mtime), (HashState::NotRead, 0, Stamp::default()));
    fs::write(tree.at("f"), "one and two").unwrap();
    assert_eq!(tree.changes(), []);
    fs::set_permissions(tree.at("f"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(tree.changes(), told([("f", Change::Attributes)]));
    rustix::fs::setxattr(tree.at("f"), "user.any", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    assert_eq!(tree.changes(), []);
    fs::remove_file(tree.at("f")).unwrap();
    symlink("other", tree.at("f")).unwrap();
    assert_eq!(tree.changes(), told([("f", Change::Type)]));
    fs::remove_file(tree.at("f")).unwrap();
    assert_eq!(tree.changes(), told([("f", Change::Deleted)]));
}

#[test]
fn where_executables_count_other_files_are_left_out_and_counted() {
    let mut tree = Tree::new(Content::Executables);
    fs::create_dir(tree.at("d")).unwrap();
    for name in ["d/data", "d/run"] {
        fs::write(tree.at(name), "x").unwrap();
    }
    symlink("data", tree.at("d/link")).unwrap();
    rustix::fs::mknodat(CWD, tree.at("d/fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let mode = |name: &str, mode| fs::set_permissions(tree.folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    mode("d/run", 0o711);
    let found = scan(&tree.roots, &View::default(), &Options::default());
    assert_eq!((names(&found, tree.folder.path()), found.excluded), (["", "/d", "/d/run"].map(String::from).to_vec(), 3));
    mode("d/data", 0o4644);
    tree.view = found.view;
    assert_eq!(tree.changes(), told([("d/data", Change::Created)]), "with another's rights, if it could be run");
    fs::write(tree.at("d/run"), "y").unwrap();
    fs::write(tree.at("d/more"), "y").unwrap();
    assert_eq!(tree.changes(), told([("d/run", Change::Modified)]));
}

/// A manifest made of an image holds all; the policy at run time need not look at all of it, or not in the same way.
#[test]
fn what_is_left_out_or_free_to_change_differs_from_no_manifest() {
    let tree = Tree::new(Content::Whole);
    for directory in ["cache", "data", "bin", "app"] {
        fs::create_dir(tree.at(directory)).unwrap();
        fs::write(tree.at(directory).join("f"), "one").unwrap();
        fs::write(tree.at(directory).join("f.log"), "one").unwrap();
    }
    let image = scan(&tree.roots, &View::default(), &Options::default()).view.portable();
    let how = |content| How { content, ..excluding(&["**/*.log".into(), "**/cache".into()]) };
    let roots = Roots::new([
        (bytes(tree.folder.path()), how(Content::Whole)),
        (bytes(&tree.at("data")), how(Content::Attributes)),
        (bytes(&tree.at("bin")), how(Content::Executables)),
    ]);
    let differences = || {
        let now = scan(&roots, &image, &Options::default()).view;
        roots.differences(&image, &now).iter().map(|found| (found.change.clone(), found.path.to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(differences(), []);
    for name in ["cache/f", "data/f", "bin/f", "app/f", "app/f.log"] {
        fs::write(tree.at(name), "two").unwrap();
    }
    assert_eq!(differences(), [(Change::Modified, bytes(&tree.at("app/f")))]);
    fs::remove_file(tree.at("data/f")).unwrap();
    assert_eq!(differences().len(), 2);
}

#[test]
fn reading_nothing_or_all_is_told_by_the_hashes() {
    let tree = Tree::new(Content::Whole);
    for name in ["same", "longer"] {
        fs::write(tree.at(name), name).unwrap();
    }
    symlink("same", tree.at("link")).unwrap();
    thread::sleep(Duration::from_millis(50));
    let look = |previous: &View, read| scan(&tree.roots, previous, &Options { read, ..Options::default() }).view;
    let known = look(&View::default(), Read::Changed);
    let image = known.clone().portable();
    let glance = look(&image, Read::Nothing);
    let state = |view: &View, name: &str| view.entries[bytes(&tree.at(name)).as_slice()].hash;
    assert_eq!((state(&glance, "same"), glance.entries.len()), (HashState::NotRead, 4));
    assert_eq!(compare(&image, &glance), [], "size and time are the same");
    assert_eq!(look(&known, Read::Nothing), known, "what is proved to be unchanged keeps its hash");
    fs::write(tree.at("longer"), "and longer").unwrap();
    // The image knows whole seconds only, so that its time may be the same still.
    let found = compare(&image, &look(&image, Read::Nothing));
    assert_eq!((found.len(), &found[0].change), (1, &Change::Modified));
    assert!(found[0].attributes().contains(&Attribute::Size));
    // A change that the kernel does not tell of: here one that was planted in the earlier view.
    let mut forged = known.clone();
    let print = forged.entries.get_mut(bytes(&tree.at("same")).as_slice()).unwrap();
    Arc::make_mut(print).hash = HashState::Done([7; 32]);
    assert_eq!(state(&look(&forged, Read::Changed), "same"), HashState::Done([7; 32]));
    assert_eq!(state(&look(&forged, Read::All), "same"), state(&known, "same"));
}
