//! Manifests that somebody signed, and changes that somebody approved: nothing else is believed, and minisign agrees.

use std::fs;

use minisign::KeyPair;

use crate::files_commands::Scene;

/// Keys without a password in `k.key` and `k.pub`.
fn with_keys() -> Scene {
    let scene = Scene::new();
    for name in ["k", "other"] {
        let made = scene.run("minisign", &["-G", "-W", "-s", &format!("{name}.key"), "-p", &format!("{name}.pub")]);
        assert_eq!(made.code, 0, "{made:#?}");
    }
    scene
}

fn refused(scene: &Scene, args: &[&str], why: &str) {
    let told = scene.files(args);
    assert_eq!((told.code, told.stdout.as_str()), (2, ""), "{told:#?}");
    assert!(told.stderr.contains(why), "{why}: {told:#?}");
}

#[test]
fn minisign_believes_egret_and_egret_minisign() {
    let scene = with_keys();
    let made = scene.baseline(&["--sign", "k.key"]);
    assert!(made.stderr.ends_with("m: 5 paths, signed\n"), "{made:#?}");
    let judged = scene.run("minisign", &["-V", "-m", "m", "-p", "k.pub"]);
    assert!(judged.code == 0 && judged.stdout.contains("file:m"), "{judged:#?}");
    let key = scene.read("k.pub").lines().nth(1).expect("a key").to_owned();
    for key in ["k.pub", &key] {
        let told = scene.files(["verify", "m", "--key", key]);
        assert!(told.code == 0 && told.stdout.contains(": equal; 5 paths, signed"), "{told:#?}");
    }
    fs::remove_file(scene.path("m.minisig")).expect("a signature");
    let signed = scene.run("minisign", &["-S", "-s", "k.key", "-m", "m"]);
    assert_eq!(signed.code, 0, "{signed:#?}");
    let (code, told) = scene.json(&["verify", "m", "--key", "k.pub"]);
    assert_eq!((code, told["signed"].as_bool()), (0, Some(true)), "{told}");
    let sum = scene.run("sha256sum", &["m"]).stdout;
    assert!(sum.starts_with(told["manifest_sha256"].as_str().expect("a hash")), "{told}");
    assert_eq!(scene.json(&["verify", "m"]).1["signed"].as_bool(), Some(false));
}

#[test]
fn with_a_key_nothing_is_believed_that_it_did_not_sign() {
    let scene = with_keys();
    scene.baseline(&[]);
    let verify = ["verify", "m", "--key", "k.pub"];
    refused(&scene, &verify, "m is not signed");
    scene.baseline(&["--sign", "other.key"]);
    refused(&scene, &verify, "signed with another key");
    scene.baseline(&["--sign", "k.key"]);
    let (manifest, signature) = (scene.read("m"), scene.read("m.minisig"));
    scene.write("m", &manifest.replace(" 0755 ", " 4755 "));
    refused(&scene, &verify, "one of the two was changed");
    scene.write("m", &manifest);
    scene.write("m.minisig", &signature.replace("file:m", "file:n"));
    refused(&scene, &verify, "one of the two was changed");
    scene.write("m.minisig", "");
    refused(&scene, &verify, "no signature of minisign");
    let lines: Vec<&str> = signature.lines().collect();
    scene.write("m.minisig", &format!("{}\nAAAA\n", lines[..3].join("\n")));
    refused(&scene, &verify, "no signature of minisign");
    let old_way = scene.run("minisign", &["-S", "-l", "-s", "k.key", "-m", "m"]);
    assert_eq!(old_way.code, 0, "{old_way:#?}");
    refused(&scene, &verify, "sign again without -l");
    refused(&scene, &["verify", "m", "--key", "nowhere.pub"], "no public key \"nowhere.pub\"");
    refused(&scene, &["diff", "m", "m", "--key", "other.pub"], "is refused");
    assert_eq!(scene.files(["verify", "m"]).code, 0, "without a key nobody is asked");
}

#[test]
fn a_password_comes_from_the_variable_and_a_wrong_or_missing_one_signs_nothing() {
    let scene = Scene::new();
    // minisign(1) makes keys that take 1 GiB and seconds to open; these are the same, and cheaper.
    let pair = KeyPair::generate_encrypted_keypair(Some("open sesame".to_owned())).expect("a key");
    scene.write("p.key", &pair.sk.to_box(None).expect("its text").to_string());
    scene.write("p.pub", &pair.pk.to_box().expect("its text").to_string());
    let sign = ["baseline", "app", "-o", "m", "--sign", "p.key"];
    let missing = scene.files(sign);
    assert!(missing.code == 2 && missing.stderr.contains("set EGRET_SIGN_PASSWORD"), "{missing:#?}");
    let wrong = scene.program().args(sign).env("EGRET_SIGN_PASSWORD", "open").run();
    assert!(wrong.code == 2 && wrong.stderr.contains("Wrong password"), "{wrong:#?}");
    assert!(!scene.path("m").exists() && !scene.path("m.minisig").exists());
    let right = scene.program().args(sign).env("EGRET_SIGN_PASSWORD", "open sesame").run();
    assert_eq!(right.code, 0, "{right:#?}");
    assert_eq!(scene.run("minisign", &["-V", "-m", "m", "-p", "p.pub"]).code, 0);
    let nowhere = scene.files(["baseline", "app", "--sign", "p.key"]);
    assert!(nowhere.code == 2 && nowhere.stderr.contains("name one with -o FILE"), "{nowhere:#?}");
}

/// Two signed manifests, `old` and `new`, of a step that a deployment makes; `app` is as in `old`.
fn with_a_step() -> Scene {
    let scene = with_keys();
    scene.write("app/gone", "x");
    scene.baseline(&["--sign", "k.key"]);
    let deploy = |scene: &Scene| {
        fs::remove_file(scene.path("app/gone")).expect("a file");
        scene.write("app/etc/setting", "a = 2\n");
        scene.write("app/added", "x");
    };
    deploy(&scene);
    assert_eq!(scene.files(["baseline", "app", "-o", "new"]).code, 0);
    scene
}

#[test]
fn g10_approved_changes_are_no_findings_others_are() {
    let scene = with_a_step();
    let expect = ["expect", "m", "new", "--until", "9999-01-01", "-o", "e", "--sign", "k.key"];
    let made = scene.files(expect);
    assert!(made.code == 0 && made.stderr.ends_with("e: 4 expected changes, signed\n"), "{made:#?}");
    assert!(scene.read("e").starts_with("egret-expected 1\nuntil 9999-01-01T00:00:00Z\n"));
    assert_eq!(scene.run("minisign", &["-V", "-m", "e", "-p", "k.pub"]).code, 0);
    let verify = ["verify", "m", "--key", "k.pub", "--expected", "e"];
    let told = scene.files(verify);
    assert!(told.code == 0 && told.stdout.contains(": as expected (4 approved changes); "), "{told:#?}");
    assert_eq!(told.stdout.matches(" (approved)\n").count(), 4, "{told:#?}");
    assert_eq!(scene.files(["verify", "m", "--key", "k.pub"]).code, 1);
    scene.write("app/added", "y");
    let (code, told) = scene.json(&verify);
    let added =
        told["differences"].as_array().expect("a list").iter().filter(|found| found["expected"] == false).collect::<Vec<_>>();
    assert_eq!((code, added.len()), (1, 1), "{told}");
    assert!(added[0]["path"].as_str().is_some_and(|path| path.ends_with("/added")), "{told}");
}

#[test]
fn g10_outside_their_time_or_unsigned_approvals_are_worth_nothing() {
    let scene = with_a_step();
    let expect = ["expect", "m", "new", "--until", "9999-01-01", "--from", "9998-01-01", "-o", "e"];
    assert_eq!(scene.files(expect).code, 0);
    let verify = ["verify", "m", "--key", "k.pub", "--expected", "e"];
    refused(&scene, &verify, "e is not signed");
    let sign = || assert_eq!(scene.run("minisign", &["-S", "-s", "k.key", "-m", "e"]).code, 0);
    for (window, when) in [("from 9998", "not approved yet"), ("from 1998", "not approved any more")] {
        let over = scene.read("e").replace("from 9998", window);
        let over = if window == "from 1998" { over.replace("until 9999", "until 1999") } else { over };
        scene.write("e", &over);
        sign();
        let told = scene.files(verify);
        assert!(told.code == 1 && told.stderr.contains(when), "{told:#?}");
        assert!(!told.stdout.contains("(approved)"), "{told:#?}");
    }
    let unsigned = scene.files(["verify", "m", "--expected", "e"]);
    assert!(unsigned.code == 2 && unsigned.stderr.contains("--key"), "{unsigned:#?}");
    for (until, from, why) in [
        ("2001-01-01", "2000-01-01", "later than now"),
        ("9999-01-01", "9999-01-01", "later than now, and than --from"),
        ("tomorrow", "2000-01-01", "is no date"),
    ] {
        refused(&scene, &["expect", "m", "new", "--until", until, "--from", from], why);
    }
    let nothing = scene.files(["expect", "m", "m", "--until", "9999-01-01"]);
    assert!(nothing.code == 1 && nothing.stderr.contains("nothing to expect"), "{nothing:#?}");
}
