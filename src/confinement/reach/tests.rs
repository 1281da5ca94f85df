use std::os::unix::fs::symlink;

use super::*;

#[test]
fn what_is_ones_own_can_be_changed() {
    let home = tempfile::TempDir::new().unwrap();
    let file = home.path().join("policy.yaml");
    assert!(can_change(&file), "it is not there yet");
    fs::write(&file, "").unwrap();
    assert!(can_change(&file));
}

#[test]
fn a_file_can_be_changed_by_whoever_can_write_it_or_what_leads_to_it() {
    let home = tempfile::TempDir::new().unwrap();
    let home = fs::canonicalize(home.path()).unwrap();
    for folder in ["mount", "mount/data", "other"] {
        fs::create_dir(home.join(folder)).unwrap();
    }
    // As Kubernetes mounts configuration, and a link to it from elsewhere.
    fs::write(home.join("mount/data/policy.yaml"), "").unwrap();
    symlink("data", home.join("mount/..data")).unwrap();
    symlink("..data/policy.yaml", home.join("mount/policy.yaml")).unwrap();
    symlink(home.join("mount/policy.yaml"), home.join("other/link")).unwrap();
    let by = |writes: &str| changes(&home.join("other/link"), &|path| path == home.join(writes));
    for leads in ["", "other", "mount", "mount/..data", "mount/data", "mount/data/policy.yaml"] {
        assert!(by(leads), "{leads:?}");
    }
    for beside in ["mount/other", "other/link", "mount/policy.yaml"] {
        assert!(!by(beside), "{beside:?}");
    }
}

#[test]
fn so_it_is_with_folders_that_links_lead_to_one_after_the_other() {
    let home = tempfile::TempDir::new().unwrap();
    let home = fs::canonicalize(home.path()).unwrap();
    for folder in ["mount", "between"] {
        fs::create_dir(home.join(folder)).unwrap();
    }
    fs::write(home.join("mount/policy.yaml"), "").unwrap();
    symlink("../mount", home.join("between/step")).unwrap();
    symlink("between/step", home.join("outer")).unwrap();
    let by = |writes: &str| changes(&home.join("outer/policy.yaml"), &|path| path == home.join(writes));
    assert!(by("") && by("between"));
    assert!(!by("mount/other") && !by("between/other"));
}

#[test]
fn links_that_lead_nowhere_can_be_changed() {
    let home = tempfile::TempDir::new().unwrap();
    let (one, other) = (home.path().join("one"), home.path().join("other"));
    symlink(&one, &other).unwrap();
    symlink(&other, &one).unwrap();
    assert!(changes(&one, &|_| false));
}

#[test]
fn a_sticky_folder_keeps_what_is_of_others() {
    assert_eq!(keeps(Path::new("/tmp"), Path::new("/proc")), !rustix::process::geteuid().is_root());
    assert!(!keeps(Path::new("/"), Path::new("/proc")), "it is not sticky");
}
