//! Manifests of real files: made, verified, compared. What names may be, what counts as a difference, exit codes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::egret::egret_program;
use crate::support::programs::{Output, Program};

/// Trees of files, and a place beside them for manifests.
pub(crate) struct Scene {
    folder: TempDir,
}

impl Scene {
    /// `app/` with a program, a setting and a link.
    pub(crate) fn new() -> Self {
        let scene = Self { folder: TempDir::new().expect("a temporary directory") };
        fs::create_dir_all(scene.path("app/etc")).expect("directories");
        scene.write("app/run", "#!/bin/sh\n");
        scene.mode("app/run", 0o755);
        scene.write("app/etc/setting", "a = 1\n");
        symlink("etc/setting", scene.path("app/link")).expect("a link");
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("a file");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("own files");
    }

    /// `egret files …` beside the trees.
    pub(crate) fn files<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        self.program().args(args).run()
    }

    pub(crate) fn program(&self) -> Program {
        egret_program().dir(self.folder.path()).arg("files")
    }

    /// Any program, beside the trees.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Output {
        Program::new(program).dir(self.folder.path()).args(args).run()
    }

    /// Writes the manifest of `app` into `m`.
    pub(crate) fn baseline(&self, more: &[&str]) -> Output {
        let made = self.files([&["baseline", "app", "-o", "m"], more].concat());
        assert_eq!(made.code, 0, "{made:#?}");
        made
    }

    /// The lines of what differs, without the last one, which is the verdict.
    pub(crate) fn differences(&self, more: &[&str]) -> Vec<String> {
        let told = self.files([&["verify", "m"], more].concat());
        let mut lines: Vec<String> = told.stdout.lines().map(str::to_owned).collect();
        let verdict = lines.pop().unwrap_or_else(|| panic!("no verdict: {told:#?}"));
        assert_eq!(told.code == 0, verdict.contains(": equal;") || verdict.contains(": as expected"), "{told:#?}");
        assert!(told.code == 0 || told.code == 1, "{told:#?}");
        lines.iter().map(|line| line.replace(&self.path("").display().to_string(), "")).collect()
    }

    pub(crate) fn json(&self, args: &[&str]) -> (i32, Value) {
        let told = self.files([args, &["--output", "json"]].concat());
        assert_eq!(told.stdout.lines().count(), 1, "{told:#?}");
        (told.code, serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:#?}")))
    }
}

#[test]
fn a_baseline_says_what_sha256sum_says_and_two_of_the_same_files_are_one_text() {
    let scene = Scene::new();
    let made = scene.baseline(&[]);
    assert!(made.stdout.is_empty() && made.stderr.ends_with("m: 5 paths\n"), "{made:#?}");
    let manifest = scene.read("m");
    for file in ["app/run", "app/etc/setting"] {
        let sum = scene.run("sha256sum", &[file]).stdout;
        let hash = sum.split(' ').next().expect("a hash");
        let line = format!("{} file", scene.path(file).display());
        let written = manifest.lines().find(|found| found.starts_with(&line)).expect("its line");
        assert!(written.contains(&format!(" sha256:{hash}")), "{written}");
    }
    assert!(!manifest.contains("inode="), "{manifest}");
    let absolute = scene.files(["baseline", &scene.path("app").display().to_string()]);
    let roundabout = scene.files(["baseline", "./app/../app/", "app//etc"]);
    assert_eq!((absolute.stdout.as_str(), roundabout.stdout.as_str()), (manifest.as_str(), manifest.as_str()));
    assert!(scene.baseline(&["--local"]).code == 0 && scene.read("m").contains(" inode="));
}

#[test]
fn every_kind_of_difference_is_one_line_and_exit_1() {
    let scene = Scene::new();
    scene.write("app/gone", "x");
    scene.write("app/kind", "x");
    scene.baseline(&[]);
    assert_eq!(scene.differences(&[]), [""; 0]);
    fs::remove_file(scene.path("app/gone")).expect("a file");
    fs::remove_file(scene.path("app/kind")).expect("a file");
    fs::remove_file(scene.path("app/link")).expect("a link");
    fs::create_dir(scene.path("app/kind")).expect("a directory");
    symlink("run", scene.path("app/link")).expect("a link");
    scene.write("app/etc/setting", "a = 2\n");
    scene.write("app/new", "new");
    scene.mode("app/run", 0o4755);
    let lines = scene.differences(&[]);
    let begins = [
        "modified    app/etc/setting: sha256 ",
        "deleted     app/gone: file 0644 ",
        "type        app/kind: type file → directory",
        "modified    app/link: target etc/setting → run",
        "created     app/new: file 0644 ",
        "attributes  app/run: mode 0755 → 4755",
    ];
    assert_eq!(lines.len(), begins.len(), "{lines:#?}");
    assert!(lines.iter().zip(begins).all(|(line, begin)| line.starts_with(begin)), "{lines:#?}");
    let (code, told) = scene.json(&["verify", "m"]);
    assert_eq!((code, &told["equal"], &told["v"], &told["read"]), (1, &Value::from(false), &1.into(), &"all".into()));
    assert_eq!(told["counts"], serde_json::json!({ "attributes": 1, "created": 1, "deleted": 1, "modified": 2, "type": 1 }));
    let setting = &told["differences"][0];
    assert_eq!((setting["change"].as_str(), setting["attributes"][0].as_str()), (Some("modified"), Some("hash")), "{setting}");
    let sum = scene.run("sha256sum", &["app/etc/setting"]).stdout;
    assert!(sum.starts_with(setting["new_hash"].as_str().expect("a hash")) && setting["old_hash"].is_string(), "{setting}");
    assert_eq!(told["differences"][5]["new_mode"], "4755");
}

#[test]
fn a_touched_file_and_another_inode_are_no_difference_for_other_machines() {
    let scene = Scene::new();
    scene.baseline(&[]);
    fs::copy(scene.path("app/run"), scene.path("copy")).expect("a copy");
    fs::rename(scene.path("copy"), scene.path("app/run")).expect("a file in the place of another");
    assert_eq!(scene.run("touch", &["-d", "2001-01-01", "app/etc/setting"]).code, 0);
    assert_eq!(scene.differences(&[]), [""; 0]);
    assert!(scene.differences(&["--stat-only"])[0].starts_with("modified    app/etc/setting: mtime "));
}

#[test]
fn c13_content_with_its_old_size_and_time_is_found_by_content_and_on_one_machine_without_reading_the_rest() {
    let scene = Scene::new();
    // Older than the file system's clock can confuse with now.
    let settle = || assert_eq!(scene.run("sleep", &["0.1"]).code, 0);
    settle();
    for local in [&[][..], &["--local"]] {
        scene.write("app/plain", "a = 1\n");
        settle();
        scene.baseline(local);
        scene.write("app/plain", "a = 2\n");
        let manifest = scene.read("m");
        let line = manifest.lines().find(|line| line.contains("/plain file ")).expect("its line");
        let time = format!("@{}", line.split(' ').nth(5).expect("a time"));
        assert_eq!(scene.run("touch", &["-d", &time, "app/plain"]).code, 0);
        assert_eq!(scene.differences(&[]).len(), 1, "{local:?}");
        let by_stat = scene.differences(&["--stat-only"]);
        assert_eq!(by_stat.len(), usize::from(!local.is_empty()), "{local:?}: {by_stat:?}");
    }
    assert_eq!(scene.json(&["verify", "m", "--stat-only"]).1["read"], "changed");
}

/// Names that break line formats, terminals, shells and decoders.
fn odd_names() -> Vec<Vec<u8>> {
    let long = vec![b'l'; 255];
    let odd: [&[u8]; 10] = [
        b"new\nline",
        b"\x1b[31mred\x1b[0m",
        b"quote\"'`",
        b"back\\slash\\x41",
        b"-rf",
        b" ",
        b"caf\xc3\xa9",
        b"caf\xe9",
        b"\xff\xfe",
        "\u{202e}gnp.exe\u{2028}\u{85}".as_bytes(),
    ];
    odd.iter().map(|name| name.to_vec()).chain([long]).collect()
}

#[test]
fn f1_names_of_any_octets_come_back_from_manifest_text_and_json() {
    let scene = Scene::new();
    let names = odd_names();
    let file = |name: &[u8]| scene.path("app").join(OsStr::from_bytes(name));
    names.iter().for_each(|name| fs::write(file(name), "1").expect("a file"));
    scene.baseline(&[]);
    assert!(scene.read("m").bytes().all(|byte| matches!(byte, b'\n' | b' '..=b'~')));
    assert_eq!(scene.differences(&[]), [""; 0]);
    names.iter().for_each(|name| fs::write(file(name), "2").expect("a file"));
    let lines = scene.differences(&[]);
    assert_eq!(lines.len(), names.len(), "{lines:#?}");
    assert!(
        lines.iter().all(
            |line| line.starts_with("modified    app/") && line.chars().all(|c| c == '→' || c.is_ascii_graphic() || c == ' ')
        )
    );
    let told = scene.files(["verify", "m", "--output", "json"]);
    assert!(!told.stdout.contains(['\u{202e}', '\u{2028}', '\u{85}', '\x1b']), "{}", told.stdout);
    let told: Value = serde_json::from_str(&told.stdout).expect("JSON");
    let mut found: Vec<Vec<u8>> = told["differences"].as_array().expect("a list").iter().map(path_of).collect();
    let mut all: Vec<Vec<u8>> = names.iter().map(|name| file(name).as_os_str().as_bytes().to_vec()).collect();
    found.sort();
    all.sort();
    assert_eq!(found, all);
}

/// The octets of a path in JSON.
fn path_of(difference: &Value) -> Vec<u8> {
    let path = difference["path"].as_str().expect("a path");
    match difference["path_raw"].as_str() {
        Some(raw) => STANDARD.decode(raw).expect("base64"),
        None => path.as_bytes().to_vec(),
    }
}

#[test]
fn pipes_and_sockets_are_written_down_and_never_opened() {
    let scene = Scene::new();
    assert_eq!(scene.run("mkfifo", &["app/pipe"]).code, 0);
    let _socket = std::os::unix::net::UnixListener::bind(scene.path("app/socket")).expect("a socket");
    scene.baseline(&[]);
    let manifest = scene.read("m");
    assert!(manifest.contains("/app/pipe fifo ") && manifest.contains("/app/socket socket "), "{manifest}");
    assert_eq!(scene.differences(&[]), [""; 0]);
    let refused = scene.files(["verify", "app/pipe"]);
    assert!(refused.code == 2 && refused.stderr.contains("not a regular file"), "{refused:#?}");
}

#[test]
fn what_grants_something_is_told_capabilities_and_access_lists() {
    let scene = Scene::new();
    scene.baseline(&[]);
    let listed = scene.run("setfacl", &["-m", "u:65534:rwx", "app/etc/setting"]);
    assert_eq!(listed.code, 0, "{listed:#?}");
    let lines = scene.differences(&[]);
    let named = "attributes  app/etc/setting: mode 0644 → 0674, system.posix_acl_access none → 02000000";
    assert!(lines[0].starts_with(named), "{lines:#?}");
    let granted = scene.run("setcap", &["cap_net_raw+ep", "app/run"]);
    if granted.code != 0 {
        // Only root may grant capabilities that hold on the whole machine.
        assert!(!is_root(), "{granted:#?}");
        eprintln!("not tested, as this is not root: setcap");
        return;
    }
    let lines = scene.differences(&[]);
    assert!(lines[1].starts_with("attributes  app/run: security.capability none → 0100000200200000"), "{lines:#?}");
}

fn is_root() -> bool {
    Program::new("id").arg("-u").run().stdout.trim() == "0"
}

/// `egret files …` that may read only what permissions let its user read, root or not.
fn unprivileged(scene: &Scene, args: &[&str]) -> Output {
    if !is_root() {
        return scene.files(args);
    }
    let words = ["--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-dac_override,-dac_read_search"];
    let egret = env!("CARGO_BIN_EXE_egret");
    scene.run("setpriv", &[&words[..], &[egret, "files"], args].concat())
}

#[test]
fn an_image_with_holes_gets_no_manifest_unless_somebody_says_so() {
    let scene = Scene::new();
    fs::create_dir(scene.path("app/closed")).expect("a directory");
    scene.write("app/secret", "x");
    scene.write("m", "what was there\n");
    scene.mode("app/secret", 0);
    scene.mode("app/closed", 0);
    let made = unprivileged(&scene, &["baseline", "app", "-o", "m"]);
    assert_eq!(made.code, 1, "{made:#?}");
    for told in
        ["app/closed: cannot be read: Permission denied", "app/secret: cannot be read: Permission denied", "--allow-unreadable"]
    {
        assert!(made.stderr.contains(told), "{made:#?}");
    }
    assert_eq!(scene.read("m"), "what was there\n");
    let allowed = unprivileged(&scene, &["baseline", "app", "-o", "m", "--allow-unreadable"]);
    assert!(
        allowed.code == 0 && scene.read("m").contains("/app/secret file 0000 ") && scene.read("m").contains(" unreadable:13\n")
    );
    let seen = unprivileged(&scene, &["verify", "m"]);
    assert!(seen.code == 1 && seen.stdout.contains("not seen    ") && seen.stdout.contains("1 path not seen"), "{seen:#?}");
    for root in ["nowhere", "app/nowhere"] {
        let missing = scene.files(["baseline", "app", root, "--allow-unreadable"]);
        assert!(missing.code == 1 && missing.stdout.is_empty() && missing.stderr.contains("No such file"), "{missing:#?}");
    }
    scene.mode("app/closed", 0o755);
}

#[test]
fn d21_what_can_no_longer_be_read_is_a_difference() {
    let scene = Scene::new();
    scene.baseline(&[]);
    scene.mode("app/etc/setting", 0);
    let told = unprivileged(&scene, &["verify", "m"]);
    assert!(told.code == 1 && told.stdout.contains("mode 0644 → 0000") && told.stdout.contains("Permission denied"), "{told:#?}");
    scene.mode("app/etc/setting", 0o644);
    scene.mode("app/etc", 0);
    let told = unprivileged(&scene, &["verify", "m"]);
    assert!(told.code == 1 && told.stdout.contains("not seen    ") && !told.stdout.contains("deleted"), "{told:#?}");
    scene.mode("app/etc", 0o755);
}

#[test]
fn the_manifest_may_lie_among_the_files_and_nothing_is_left_beside_it() {
    let scene = Scene::new();
    let into = ["baseline", "app", "-o", "app/manifest"];
    assert_eq!(scene.files(into).code, 0);
    let again = scene.files(into);
    assert!(again.code == 0 && again.stderr.contains("app/manifest is left out"), "{again:#?}");
    assert!(!scene.read("app/manifest").contains("app/manifest"));
    let told = scene.files(["verify", "app/manifest"]);
    assert!(told.code == 0 && told.stderr.contains("app/manifest is left out"), "{told:#?}");
    let names: Vec<_> =
        fs::read_dir(scene.path("app")).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    let nowhere = scene.files(["baseline", "app", "-o", "nowhere/m"]);
    assert!(nowhere.code == 3 && nowhere.stderr.contains("nowhere/m"), "{nowhere:#?}");
    let stopped = scene.files(["baseline", "app", "-o", "app"]);
    assert_eq!((stopped.code, scene.path("app").is_dir()), (3, true), "{stopped:#?}");
    assert!(
        !fs::read_dir(scene.path("")).expect("a directory").any(|entry| entry
            .expect("an entry")
            .file_name()
            .as_bytes()
            .starts_with(b"."))
    );
}

#[test]
fn what_is_left_out_is_left_out_on_both_sides_but_never_what_can_be_run() {
    let scene = Scene::new();
    fs::create_dir_all(scene.path("app/cache/deep")).expect("directories");
    scene.write("app/cache/deep/x", "x");
    scene.write("app/a.log", "x");
    scene.baseline(&[]);
    fs::remove_dir_all(scene.path("app/cache/deep")).expect("a directory");
    fs::remove_file(scene.path("app/a.log")).expect("a file");
    scene.write("app/b.log", "x");
    scene.write("app/run.log", "x");
    scene.mode("app/run.log", 0o755);
    assert_eq!(scene.differences(&[]).len(), 5);
    let left = scene.differences(&["--ignore", "*.log", "--ignore", "cache/**"]);
    assert!(left.len() == 1 && left[0].starts_with("created     app/run.log"), "{left:#?}");
    scene.baseline(&["--ignore", "*.log", "--ignore", &format!("{}/cache/**", scene.path("app").display())]);
    let manifest = scene.read("m");
    assert!(
        manifest.contains("run.log") && !manifest.contains("b.log") && manifest.contains("/app/cache directory"),
        "{manifest}"
    );
    let bad = scene.files(["baseline", "app", "--ignore", "[z-a]"]);
    assert!(bad.code == 2 && bad.stderr.contains("no pattern of paths"), "{bad:#?}");
}

#[test]
fn two_manifests_are_compared_with_moves_where_inodes_tell_of_them() {
    let scene = Scene::new();
    scene.baseline(&["--local"]);
    fs::rename(scene.path("m"), scene.path("old")).expect("a manifest");
    fs::rename(scene.path("app/run"), scene.path("app/start")).expect("a file");
    scene.baseline(&["--local"]);
    let told = scene.files(["diff", "old", "m"]);
    assert!(told.code == 1 && told.stdout.starts_with("moved "), "{told:#?}");
    let (code, told) = scene.json(&["diff", "old", "m"]);
    let moved = &told["differences"][0];
    assert_eq!((code, moved["change"].as_str()), (1, Some("moved")), "{told}");
    assert!(moved["from"].as_str().is_some_and(|from| from.ends_with("/app/run")), "{moved}");
    let same = scene.files(["diff", "m", "m"]);
    assert!(same.code == 0 && same.stdout.contains(": equal; 5 paths"), "{same:#?}");
}

#[test]
fn f4_a_text_that_is_no_whole_manifest_is_refused_with_line_and_reason() {
    let scene = Scene::new();
    scene.baseline(&[]);
    let good = scene.read("m");
    let lines: Vec<&str> = good.lines().collect();
    let swapped = [lines[0], lines[2], lines[1]].iter().chain(&lines[3..]).map(|line| format!("{line}\n")).collect::<String>();
    for (text, reason) in [
        (good.replace("egret-manifest 1", "egret-manifest 9"), "of another version"),
        (good.replace('\n', "\r\n"), "ends with CR LF"),
        (good[..good.len() / 2].to_owned(), "it was cut"),
        (good.replace("end 5", "end 4"), "another number of lines"),
        (swapped, "sorted by octet"),
        (good.replace(lines[1], &format!("{}\n{}", lines[1], lines[1])), "no path twice"),
        (good.replace(lines[1], &"a".repeat(600_000)), "longer than"),
        ("egret-manifest 1\nend 0\n".to_owned(), "names no file"),
        (String::new(), "it should be \"egret-manifest 1\""),
    ] {
        scene.write("bad", &text);
        for command in [&["verify", "bad"][..], &["diff", "m", "bad"], &["expect", "m", "bad", "--until", "9999-01-01"]] {
            let refused = scene.files(command);
            assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{reason}: {refused:#?}");
            assert!(refused.stderr.contains("bad is refused") && refused.stderr.contains(reason), "{reason}: {refused:#?}");
        }
    }
    assert!(Path::new(&scene.path("m")).exists());
    assert_eq!(scene.files(["verify", "nowhere"]).code, 2);
    assert_eq!(scene.files(["verify"]).code, 2);
}
