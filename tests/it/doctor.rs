//! `egret doctor`: what it finds is what is there, and a client that goes around is caught.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::egret::egret_program;
use crate::support::programs::{Output, require};
use crate::support::{Program, run_egret};

fn told(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// The state of one check, and its sentence.
fn check<'v>(told: &'v Value, name: &str) -> (&'v str, &'v str) {
    let all = told["checks"].as_array().expect("checks");
    let one = all.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {told}"));
    (one["state"].as_str().expect("a state"), one["what"].as_str().expect("a sentence"))
}

#[test]
fn every_check_is_made_and_the_exit_code_is_the_confinements() {
    let output = run_egret(["doctor", "--output", "json"], "");
    let told = told(&output);
    assert_eq!(told["v"], 1);
    let names: Vec<&str> = told["checks"].as_array().expect("checks").iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["inotify", "processes", "dns", "clock", "metadata", "folders", "variables", "around"]);
    assert_eq!(output.code, i32::from(told["confinement"]["state"] == "none"), "{output:?}");
    assert!(told.get("clients").is_none());
    assert_eq!(check(&told, "clock").0, "good");
    let watches = fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").expect("Linux has inotify");
    assert!(check(&told, "inotify").1.starts_with(&format!("{} watches", watches.trim())), "{told}");
}

#[test]
fn variables_are_read_as_clients_read_them() {
    let of = |variables: &[(&str, &str)]| {
        let program = variables.iter().fold(egret_program(), |program, (name, value)| program.env(name, value));
        let told = told(&program.args(["doctor", "--output", "json"]).run());
        let (state, what) = check(&told, "variables");
        (state.to_owned(), what.to_owned())
    };
    let all = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"].map(|name| (name, "http://127.0.0.1:3128"));
    let direct = [("NO_PROXY", "localhost"), ("no_proxy", "localhost")];
    assert_eq!(of(&[&all[..], &direct].concat()).0, "good");
    assert_eq!(of(&[]).0, "note");
    for (more, why) in [
        ([("NO_PROXY", "*.corp"), ("no_proxy", "*.corp")], "\"*.corp\": curl"),
        ([("NO_PROXY", "a"), ("no_proxy", "b")], "NO_PROXY and no_proxy differ"),
        ([("NO_PROXY", "localhost"), ("http_proxy", "socks5://127.0.0.1:1")], "http_proxy has a SOCKS URL"),
        ([("NO_PROXY", "localhost"), ("UNRELATED", "")], "no_proxy not set"),
    ] {
        let (state, what) = of(&[&all[..], &more].concat());
        assert!(state == "bad" && what.contains(why), "{why}: {what}");
    }
}

/// In a network of its own, with a DNS server that nobody runs and a /tmp that nobody may write to.
#[test]
fn a_container_without_names_and_folders_is_told() {
    let home = TempDir::new().expect("a temporary directory");
    let resolv = home.path().join("resolv.conf");
    fs::write(&resolv, "search nowhere.test\nnameserver 127.0.0.1\n").expect("the test's directory is writable");
    let script = format!(
        "ip link set lo up && mount --bind {} /etc/resolv.conf && mount -t tmpfs -o ro none /var/log && exec {} doctor --output json",
        resolv.display(),
        env!("CARGO_BIN_EXE_egret")
    );
    let output = Program::new("unshare").args(["-r", "-n", "-m", "sh", "-ec", &script]).run();
    let told = told(&output);
    let (state, what) = check(&told, "dns");
    assert!(state == "bad" && what.contains("127.0.0.1 does not answer"), "{what}");
    assert!(check(&told, "metadata").1.contains("none answers"), "{told}");
    let folders = check(&told, "folders").1;
    assert!(folders.split("; not:").nth(1).is_some_and(|no| no.contains("/var/log")), "{folders}");
}

#[test]
fn a_client_that_goes_around_is_caught() {
    let home = TempDir::new().expect("a temporary directory");
    symlink(require("curl"), home.path().join("curl")).expect("the test's directory is writable");
    let tried = || {
        let output = egret_program().env("PATH", home.path()).args(["doctor", "--clients", "--output", "json"]).run();
        let clients = told(&output)["clients"].clone();
        (output.code, clients)
    };
    let (code, clients) = tried();
    assert_eq!(
        (code, &clients[0]["name"], &clients[0]["http"], &clients[0]["https"]),
        (0, &"curl".into(), &"through".into(), &"through".into())
    );
    // What calls itself wget here asks nobody.
    let around = home.path().join("wget");
    fs::write(&around, "#!/bin/sh\nexit 0\n").expect("the test's directory is writable");
    fs::set_permissions(&around, fs::Permissions::from_mode(0o755)).expect("the test's own file");
    let (code, clients) = tried();
    assert_eq!((code, &clients[1]["name"], &clients[1]["http"]), (1, &"wget".into(), &"around".into()), "{clients}");
    let text = egret_program().env("PATH", home.path()).args(["doctor", "--clients"]).run();
    assert!(text.stdout.contains("+ curl") && text.stdout.contains("- wget"), "{text:?}");
}

/// Modules, settings and programs of whoever owns the current folder are not run.
#[test]
fn clients_take_nothing_from_the_current_folder() {
    let (home, bin) = (TempDir::new().expect("a temporary directory"), TempDir::new().expect("a temporary directory"));
    let ran = bin.path().join("ran");
    for program in ["git", "python3"] {
        symlink(require(program), bin.path().join(program)).expect("the test's directory is writable");
    }
    let script = format!("#!/bin/sh\necho curl >> {}\n", ran.display());
    fs::write(home.path().join("curl"), script).expect("the test's directory is writable");
    fs::set_permissions(home.path().join("curl"), fs::Permissions::from_mode(0o755)).expect("the test's own file");
    fs::create_dir(home.path().join("urllib")).expect("the test's directory is writable");
    let module = format!("open({:?}, 'a').write('python')", ran.display().to_string());
    fs::write(home.path().join("urllib/__init__.py"), module).expect("the test's directory is writable");
    let git = |args: &[&str]| assert_eq!(Program::new("git").dir(home.path()).args(args).run().code, 0);
    git(&["init", "-q"]);
    git(&["config", "http.proxy", "http://127.0.0.1:1"]);
    for path in [format!(":{}", bin.path().display()), format!(".:{}", bin.path().display())] {
        let program = egret_program().dir(home.path()).env("PATH", path);
        let told = told(&program.args(["doctor", "--clients", "--output", "json"]).run());
        let clients = told["clients"].as_array().expect("clients");
        let way = |name: &str| clients.iter().find(|one| one["name"] == name).map(|one| one["http"].clone());
        assert_eq!((way("git"), way("python urllib")), (Some("through".into()), Some("through".into())), "{told}");
        assert_eq!(way("curl"), None, "{told}");
        assert!(!ran.exists(), "{:?}", fs::read_to_string(&ran));
    }
}
