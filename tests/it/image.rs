//! The program of the image, as `cargo dist` builds it, where there is nothing but it: no loader, no library, no device, no file,
//! no right. A machine without it is told so loudly, and fails where `EGRET_TEST_ALL=1` says that nothing may be left out.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::outside::untested;
use crate::support::rules::{LOCALHOST, local, policy};
use crate::support::{Ca, DnsServer, Egret, Program, Upstream, run_egret};

/// What the program may weigh, in octets.
const HEAVIEST: u64 = 12_000_000;
/// Nobody, as the Dockerfile has it.
const USER: &str = "65534:65534";

/// The static build; `None`, said loudly, where there is none.
fn program() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_egret")).ancestors().nth(2).expect("target/debug/egret");
    let built = target.join("x86_64-unknown-linux-gnu/release/egret");
    let program = std::env::var_os("EGRET_TEST_DIST").map_or(built, PathBuf::from);
    (program.is_file() || untested(&format!("no {}: `cargo dist` builds it", program.display()))).then_some(program)
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight octets"))).expect("an offset")
}

/// The kinds of an ELF file's segments with where they lie in it (elf(5), `Elf64_Phdr`).
fn segments(elf: &[u8]) -> Vec<(u32, std::ops::Range<usize>)> {
    assert_eq!(&elf[..5], b"\x7fELF\x02", "no 64-bit ELF file");
    let (table, size, count) = (u64_at(elf, 32), u16_at(elf, 54), u16_at(elf, 56));
    let segment = |index: usize| {
        let at = table + index * size;
        let (offset, length) = (u64_at(elf, at + 8), u64_at(elf, at + 32));
        (u32::from_le_bytes(elf[at..at + 4].try_into().expect("four octets")), offset..offset + length)
    };
    (0..count).map(segment).collect()
}

const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;
const DT_NEEDED: usize = 1;

/// Whether a program is started by a loader, or names a library.
fn is_dynamic(elf: &[u8]) -> bool {
    let needs = |range: &std::ops::Range<usize>| elf[range.clone()].chunks_exact(16).any(|entry| u64_at(entry, 0) == DT_NEEDED);
    segments(elf).iter().any(|(kind, range)| *kind == PT_INTERP || *kind == PT_DYNAMIC && needs(range))
}

#[test]
fn the_program_needs_no_loader_and_no_library_and_does_not_grow_unnoticed() {
    let Some(program) = program() else { return };
    let elf = fs::read(&program).expect("the program can be read");
    assert!(!is_dynamic(&elf), "{} is linked dynamically", program.display());
    assert!(segments(&elf).iter().any(|(kind, _)| *kind == PT_GNU_STACK), "the stack is not said to be without code");
    assert!((elf.len() as u64) < HEAVIEST, "{} has {} octets", program.display(), elf.len());
    let usual = fs::read(env!("CARGO_BIN_EXE_egret")).expect("the program can be read");
    assert!(is_dynamic(&usual), "a test that takes everything for static proves nothing");
    assert_eq!(Program::at(&program).arg("--version").run().stdout, run_egret(["--version"], "").stdout);
}

/// Where it was built is not in it, or another folder would give other octets. Where the dependencies' sources are is: that path is
/// the same in every image of the toolchain.
#[test]
fn no_path_of_the_build_is_in_the_program() {
    let Some(program) = program() else { return };
    let elf = fs::read(&program).expect("the program can be read");
    let holds = |text: &str| elf.windows(text.len()).any(|part| part == text.as_bytes());
    let here = env!("CARGO_MANIFEST_DIR");
    // Of a copy elsewhere that says nothing, and does no harm.
    let folder = program.parent().expect("a folder").display().to_string();
    for path in [&format!("{folder}/build/"), &format!("{here}/src/"), &format!("{here}/policy/"), &format!("{here}/target/")] {
        assert!(!holds(path), "{} holds {path}", program.display());
    }
    assert!(holds("proxy/src/"), "a test that finds nothing proves nothing");
}

/// A root with the program and nothing else, read-only; what enters it, and becomes nobody if it is root.
fn root(program: &Path) -> Option<(TempDir, Vec<String>)> {
    let root = TempDir::new().expect("a temporary directory");
    fs::copy(program, root.path().join("egret")).expect("the test's directory is writable");
    for (path, mode) in [(root.path().to_owned(), 0o555), (root.path().join("egret"), 0o555)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the test's own files");
    }
    let place = root.path().display();
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let (map, user) = if is_root { ("", format!("--userspec={USER}")) } else { ("--map-root-user", String::new()) };
    let script = format!(
        "mount --bind {place} {place} && mount -o remount,bind,ro,nosuid,nodev {place} && shift && exec chroot {user} {place} /egret \"$@\""
    );
    let words = ["unshare", map, "--mount", "sh", "-ec", &script, "sh"];
    let enter: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let tried = Program::new("unshare").args(enter[1..].iter()).args(["egret", "--version"]).run();
    (tried.code == 0 || untested(&format!("no empty root: {}", tried.stderr))).then_some((root, enter))
}

#[test]
fn it_serves_from_an_empty_root_as_nobody() {
    let Some((_root, enter)) = program().and_then(|program| root(&program)) else { return };
    let (ca, dns, home) = (Ca::new(), DnsServer::new(), TempDir::new().expect("a temporary directory"));
    dns.answers("allowed.test", &LOCALHOST);
    let server = Upstream::tls(&ca.issue(&["allowed.test"]), "hello from outside\n");
    let policy = policy(&dns, &[local("allowed.test", server.port(), "as: tls")]);
    let egret = Egret::without_policy().env("EGRET_POLICY", &policy).under(&enter).start();
    let status = fs::read_to_string(format!("/proc/{}/status", egret.pid())).expect("egret runs");
    for line in ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"] {
        assert!(status.contains(line) || enter.contains(&"--map-root-user".to_owned()), "{status}");
    }
    let health =
        Program::new("unshare").args(enter[1..].iter()).args(["egret", "health", "--admin", &egret.admin().to_string()]).run();
    assert_eq!(health.code, 0, "{health:?}");
    let curl = |host: &str| {
        let curl = Program::new("curl").args(["-sS", "--max-time", "20", "--cacert"]).arg(ca.write_pem(home.path()));
        curl.env("https_proxy", format!("http://{}", egret.proxy())).arg(format!("https://{host}:{}/", server.port())).run()
    };
    let allowed = curl("allowed.test");
    assert_eq!((allowed.code, allowed.stdout.as_str()), (0, "hello from outside\n"), "{allowed:?}");
    assert!(curl("evil.test").stderr.contains("403"));
    assert_eq!(egret.stop().code(), Some(0), "{}", egret.stderr());
}

/// Instructions of the last stage, with lines that go on joined.
fn last_stage() -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Dockerfile")).expect("the Dockerfile");
    let joined = text.replace("\\\n", " ");
    let lines: Vec<String> =
        joined.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect();
    let last = lines.iter().rposition(|line| line.starts_with("FROM ")).expect("a stage");
    lines[last..].to_vec()
}

#[test]
fn the_image_holds_the_program_alone_and_is_nobodys() {
    let stage = last_stage();
    let of = |word: &str| -> Vec<&str> {
        stage.iter().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).map(str::trim).collect()
    };
    assert_eq!(of("FROM"), ["scratch"]);
    assert_eq!(of("COPY"), ["--from=build /src/target/x86_64-unknown-linux-gnu/release/egret /egret"]);
    assert_eq!((of("USER"), of("ENTRYPOINT"), of("CMD")), (vec![USER], vec![r#"["/egret"]"#], vec![r#"["run"]"#]));
    // Exec form: there is no shell to run another.
    assert!(of("HEALTHCHECK")[0].ends_with(r#"CMD ["/egret", "health"]"#), "{stage:?}");
    assert!(of("LABEL")[0].contains("org.opencontainers.image.licenses=\"MIT OR Apache-2.0\""), "{stage:?}");
    assert!(of("RUN").is_empty() && of("ADD").is_empty(), "{stage:?}");
}
