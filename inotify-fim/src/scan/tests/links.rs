//! What symbolic links lead to.

use super::*;
use crate::fingerprint::LeadsTo;
use crate::roots::Content;
use crate::view::{Attribute, Change};

fn end<'a>(view: &'a View, path: &Path) -> Option<&'a LeadsTo> {
    view.entries[bytes(path).as_slice()].leads_to.as_deref()
}

/// As Kubernetes mounts a ConfigMap: visible links lead through `..data`, which is swapped as a whole.
#[test]
fn d14_a_swap_of_data_changes_what_each_visible_link_leads_to() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, config) in [("..1", "old"), ("..2", "new")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("config"), config).unwrap();
        fs::write(at(version).join("same"), "the same in both").unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    for name in ["config", "same"] {
        symlink(Path::new("..data").join(name), at(name)).unwrap();
    }
    thread::sleep(Duration::from_millis(50));
    let before = look(folder.path(), &Options::default()).view;
    symlink("..2", at("..tmp")).unwrap();
    fs::rename(at("..tmp"), at("..data")).unwrap();
    let after = scan(&only(folder.path()), &before, &Options::default()).view;
    let found = compare(&before, &after);
    let told: Vec<(Vec<u8>, Change)> = found.iter().map(|found| (found.path.to_vec(), found.change.clone())).collect();
    assert_eq!(told, [(bytes(&at("..data")), Change::Modified), (bytes(&at("config")), Change::Effective)]);
    assert_eq!(found[1].attributes(), [Attribute::LeadsTo]);
    let hash = |version: &str| after.entries[bytes(&at(version).join("config")).as_slice()].hash;
    assert_eq!((end(&before, &at("config")).unwrap().hash, end(&after, &at("config")).unwrap().hash), (hash("..1"), hash("..2")));
    // Written for others, only the hash stays, and still tells.
    assert_eq!(compare(&before.clone().portable(), &before), []);
    assert_eq!(compare(&before.portable(), &after).len(), 2);
}

#[test]
fn d15_a_link_out_of_the_root_has_no_content_unless_it_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["root/dir", "outside"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("outside/secret"), "old").unwrap();
    symlink("../outside/secret", at("root/link")).unwrap();
    symlink(at("outside/secret"), at("root/absolute")).unwrap();
    symlink("../outside", at("root/way")).unwrap();
    symlink("way/secret", at("root/by-the-way")).unwrap();
    symlink(at("root/dir/../way/secret"), at("root/there-and-out")).unwrap();
    symlink("/proc/self/exe", at("root/magic")).unwrap();
    let followed = ["link", "absolute", "by-the-way", "there-and-out"];
    let inside = look(&at("root"), &Options::default()).view;
    assert!(inside.entries.values().all(|print| print.leads_to.is_none()));
    let how = How { follow: true, ..How::default() };
    let roots = Roots::new([(bytes(&at("root")), how)]);
    let before = scan(&roots, &View::default(), &Options::default()).view;
    assert!(followed.iter().all(|name| end(&before, &at("root").join(name)).is_some_and(|end| end.size == 3)));
    assert_eq!(end(&before, &at("root/magic")), None);
    fs::write(at("outside/secret"), "new").unwrap();
    let after = scan(&roots, &before, &Options::default()).view;
    let found = compare(&before, &after);
    assert!(found.len() == followed.len() && found.iter().all(|found| found.change == Change::Effective), "{}", found.len());
}

#[test]
fn d15_links_inside_the_root_have_content_however_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::write(at("a/file"), "x").unwrap();
    symlink("../file", at("a/b/up")).unwrap();
    symlink(at("a/b/up"), at("absolute")).unwrap();
    symlink("absolute", at("chain")).unwrap();
    let view = look(folder.path(), &Options::default()).view;
    let file = view.entries[bytes(&at("a/file")).as_slice()].clone();
    for name in ["a/b/up", "absolute", "chain"] {
        let end = end(&view, &at(name)).unwrap();
        assert_eq!((end.hash, end.inode.unwrap().number), (file.hash, file.inode.unwrap().number), "{name}");
    }
}

#[test]
fn d16_links_that_lead_nowhere_round_or_to_no_file_are_told_and_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("directory")).unwrap();
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let targets =
        ["nowhere", "loop", "other-loop", "directory", "fifo", "/dev/zero", "fifo/x", "..", ".", "/", "/proc/self/mounts"];
    for (number, target) in targets.into_iter().enumerate() {
        symlink(target, at(&format!("link{number}"))).unwrap();
    }
    symlink("loop", at("loop")).unwrap();
    symlink("x/../other-loop/y", at("other-loop")).unwrap();
    for follow in [false, true] {
        let found = look_so(folder.path(), How { follow, ..How::default() });
        assert_eq!((found.view.entries.len(), found.uncovered.len()), (5 + targets.len(), 0));
        assert!(found.view.entries.values().all(|print| print.leads_to.is_none()));
    }
}

#[test]
fn a_known_link_is_looked_through_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["same", "other"] {
        fs::write(at(name), name).unwrap();
        symlink(name, at(&format!("to-{name}"))).unwrap();
    }
    symlink("later", at("to-later")).unwrap();
    thread::sleep(Duration::from_millis(50));
    let before = look(folder.path(), &Options::default()).view;
    fs::write(at("other"), "OTHER").unwrap();
    fs::write(at("later"), "").unwrap();
    let after = scan(&only(folder.path()), &before, &Options::default()).view;
    let is_shared =
        |name: &str| Arc::ptr_eq(&before.entries[bytes(&at(name)).as_slice()], &after.entries[bytes(&at(name)).as_slice()]);
    assert_eq!((is_shared("to-same"), is_shared("to-other"), is_shared("to-later")), (true, false, false));
    fs::remove_file(at("other")).unwrap();
    let gone = scan(&only(folder.path()), &after, &Options::default()).view;
    let effective = |old, new| compare(old, new).iter().filter(|found| found.change == Change::Effective).count();
    assert_eq!((effective(&before, &after), effective(&after, &gone)), (2, 1), "it appeared, it changed; it is gone");
}

/// A link that stands where all content counts, to a file that is looked at in another way.
#[test]
fn d15_a_link_to_a_log_does_not_change_with_each_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join("real").join(name);
    for name in ["logs", "cache", "state"] {
        fs::create_dir_all(at(name)).unwrap();
        fs::write(at(name).join("f"), "x").unwrap();
        symlink(format!("{name}/f"), at(&format!("to-{name}"))).unwrap();
    }
    fs::write(at("whole"), "x").unwrap();
    symlink("whole", at("to-whole")).unwrap();
    // The operator's own path may lead through links.
    symlink("real", folder.path().join("root")).unwrap();
    let root = folder.path().join("root");
    let how = |content| How { content, ..excluding(&["**/cache".into()]) };
    let roots = Roots::new([
        (bytes(&root), how(Content::Whole)),
        (bytes(&root.join("logs")), how(Content::Append)),
        (bytes(&root.join("state")), how(Content::Attributes)),
    ]);
    let view = scan(&roots, &View::default(), &Options::default()).view;
    let leads = |name: &str| end(&view, &root.join(name)).is_some();
    assert_eq!(["to-logs", "to-cache", "to-state", "to-whole"].map(leads), [false, false, false, true]);
}
