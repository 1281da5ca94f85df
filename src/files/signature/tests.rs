use std::fs;

use minisign::KeyPair;
use tempfile::TempDir;

use super::*;

/// A folder with `m`, its signature, and the key that it is signed with.
fn signed() -> (TempDir, PathBuf, PublicKey, Signer) {
    let folder = TempDir::new().unwrap();
    let pair = KeyPair::generate_unencrypted_keypair().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, pair.sk.to_box(None).unwrap().to_string()).unwrap();
    let (signer, key) = (Signer::read(&secret).unwrap(), PublicKey::find(&pair.pk.to_base64()).unwrap());
    let file = folder.path().join("m");
    fs::write(&file, "text\n").unwrap();
    fs::write(beside(&file), signer.sign("text\n", "file:m").unwrap()).unwrap();
    (folder, file, key, signer)
}

fn why(key: &PublicKey, file: &Path, text: &str) -> String {
    format!("{:#}", key.verify(file, text.as_bytes()).unwrap_err())
}

#[test]
fn a_signature_holds_for_its_text_and_key_only() {
    let (_folder, file, key, _) = signed();
    key.verify(&file, b"text\n").unwrap();
    assert!(why(&key, &file, "Text\n").contains("one of the two was changed"));
    let (_other_folder, _, other, _) = signed();
    assert!(why(&other, &file, "text\n").contains("another key"));
    fs::remove_file(beside(&file)).unwrap();
    assert!(why(&key, &file, "text\n").contains("is not signed"));
}

#[test]
fn no_prefix_and_no_changed_octet_of_a_signature_holds_but_in_the_untrusted_comment() {
    let (_folder, file, key, _) = signed();
    let whole = fs::read(beside(&file)).unwrap();
    let is_taken = |text: &[u8]| {
        fs::write(beside(&file), text).unwrap();
        key.verify(&file, b"text\n").is_ok()
    };
    // Without the last line end it is still whole.
    assert!((0..whole.len() - 1).all(|end| !is_taken(&whole[..end])));
    let comment = whole.iter().position(|byte| *byte == b'\n').unwrap();
    for at in comment + 1..whole.len() - 1 {
        let mut changed = whole.clone();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert!(!is_taken(&changed), "octet {at}");
    }
    assert!(is_taken(&whole));
}

#[test]
fn a_last_line_of_any_length_is_refused_without_a_panic() {
    let (_folder, file, key, _) = signed();
    let whole = fs::read_to_string(beside(&file)).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    for last in ["", "AA==", "AAAA", &"A".repeat(84), &"A".repeat(12_000), "ä", "===="] {
        fs::write(beside(&file), format!("{}\n{last}\n", lines[..3].join("\n"))).unwrap();
        why(&key, &file, "text\n");
    }
    fs::write(beside(&file), vec![b'A'; 20_000]).unwrap();
    assert!(why(&key, &file, "text\n").contains("longer than 16384 octets"));
}

#[test]
fn what_is_no_key_is_told() {
    let (folder, file, ..) = signed();
    for key in ["", "RWQ", "/nonexistent", &file.display().to_string(), &folder.path().display().to_string()] {
        let error = format!("{:#}", PublicKey::find(key).unwrap_err());
        assert!(error.contains("give the .pub file"), "{error}");
    }
    assert!(Signer::read(&file).is_err());
}
