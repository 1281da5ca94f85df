//! Lists of what may be executed.

use crate::yard::{Ground, Outcome, confined_with_list, ground, is_possible, with_prelude};

const RUN: &str = r#"
import glob, shutil, subprocess
def run(*command):
    try:
        ran = subprocess.run(command, capture_output=True, text=True)
        return (ran.stdout.strip() or "ran") if ran.returncode == 0 else "code %d" % ran.returncode
    except OSError as error: return errno.errorcode[error.errno]
def run_memory(number):
    pid = os.fork()
    if pid == 0:
        try: os.execve(number, ["true"], {})
        except OSError as error: os._exit(error.errno)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return errno.errorcode[code] if code else "ran"
loader = (glob.glob("/lib64/ld-linux*.so*") + glob.glob("/lib/ld-linux*.so*"))[0]
true = open("/usr/bin/true", "rb").read()
"#;

const PYTHON: &str = "/usr/bin/python3";

fn listed(enforce: bool, paths: &[&str], python: &str) -> Outcome {
    confined_with_list(enforce, paths, &[PYTHON, "-c", &with_prelude(&format!("{RUN}{python}"))])
}

#[test]
fn test_35_enforced_lists_deny_what_is_not_on_them() {
    if !is_possible() {
        return;
    }
    let ran = listed(
        true,
        &[PYTHON, "/bin/sh", "tools", "/nowhere/at/all"],
        r#"
print("listed", run("tools/true"), "unlisted", run("/usr/bin/env", "true"))
print("shell", run("/bin/sh", "-c", "tools/true && /usr/bin/env true"))
shutil.copy("/usr/bin/true", "copy"); os.chmod("copy", 0o755); print("copied", run("./copy"))
shutil.copy("/usr/bin/true", "tools/dropped"); os.chmod("tools/dropped", 0o755); print("into a listed directory", run("tools/dropped"))
print("moved", outcome(os.rename, "copy", "tools/moved"), outcome(os.link, "copy", "tools/linked"))
os.mkdir("a"); os.mkdir("b"); open("a/file", "w").close(); print("elsewhere", outcome(os.rename, "a/file", "b/file"))
import sqlite3, ssl; ctypes.CDLL("libm.so.6"); print("libraries load")
"#,
    );
    ran.went_well()
        .said("listed ran unlisted EACCES")
        .said("shell code 126")
        .said("copied EACCES")
        .said("into a listed directory ran")
        .said("moved EXDEV EXDEV")
        .said("elsewhere ok")
        .said("libraries load")
        .was_asked("executes unlisted /usr/bin/env /usr/bin/env")
        .was_asked("executes unlisted ./copy /");
    assert!(!ran.asked.iter().any(|asked| asked.starts_with("executes listed")), "{ran:#?}");
}

#[test]
fn test_35_enforced_scripts_need_themselves_and_their_interpreter() {
    if !is_possible() {
        return;
    }
    let python = r#"
open("script", "w").write(chr(35) + "!/bin/sh\necho dropped\n"); os.chmod("script", 0o755)
print("both", run("tools/script")); print("no interpreter", run("tools/other")); print("not itself", run("./script"))
print("told to the interpreter", run("/bin/sh", "script"))
"#;
    let ran = listed(true, &[PYTHON, "/bin/sh", "tools"], python);
    ran.went_well().said("both it ran").said("no interpreter EACCES").said("not itself EACCES");
    ran.said("told to the interpreter dropped");
}

/// The loader has to be executable. Who runs it by itself runs anything, and is told of.
#[test]
fn test_35_enforced_lists_report_the_loader_trick() {
    if !is_possible() {
        return;
    }
    let ran = listed(true, &[PYTHON], r#"print("loader", run(loader, "/usr/bin/true"), "itself", run("/usr/bin/true"))"#);
    ran.went_well().said("loader ran itself EACCES").was_asked("executes unlisted /lib");
    assert!(ran.asked.iter().any(|asked| asked.contains("/ld-linux")), "{ran:#?}");
}

#[test]
fn test_35_enforced_lists_deny_files_in_memory() {
    if !is_possible() {
        return;
    }
    let ran = listed(
        true,
        &[PYTHON],
        r#"
memory = os.memfd_create("a name", os.MFD_CLOEXEC); os.write(memory, true)
print("named", os.readlink("/proc/self/fd/%d" % memory), os.get_inheritable(memory))
print("executed", run_memory(memory), run_memory("/proc/self/fd/%d" % memory), "made so", outcome(os.fchmod, memory, 0o755))
print("wanted so", libc.memfd_create(b"x", 0x10), errno.errorcode[ctypes.get_errno()])
print("names", libc.memfd_create(b"n" * 249, 0) > 0, libc.memfd_create(b"n" * 250, 0), libc.memfd_create(ctypes.c_void_p(8), 0))
import mmap; os.ftruncate(memory, 4096); print("mapped", mmap.mmap(memory, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC) is not None)
"#,
    );
    if ran.stdout.is_empty() && ran.stderr.contains("PermissionError") {
        return eprintln!("*** NOT TESTED: this kernel can't seal files in memory ***");
    }
    ran.went_well()
        .said("named /memfd:a name (deleted) False")
        .said("executed EACCES EACCES made so EPERM")
        .said("wanted so -1 EACCES")
        .said("names True -1 -1")
        .said("mapped True")
        .was_asked("executes unlisted  /memfd:a name (deleted)");
}

#[test]
fn test_35_enforced_lists_have_the_command() {
    if !is_possible() {
        return;
    }
    for (paths, command, needs) in [
        (&["tools"][..], &[PYTHON, "-c", ""][..], "/usr/bin/python3 is not on the list"),
        (&["tools"], &["true"], "true is not on the list"),
        (&["tools"], &["tools/script"], "tools/script needs /bin/sh, which is not on the list"),
        (&["tools"], &["no-such-command"], "no-such-command is not to be found"),
    ] {
        let ran = confined_with_list(true, paths, command);
        assert!(ran.failed.contains(needs), "{ran:#?}");
    }
    assert_eq!(confined_with_list(true, &["tools", "/bin/sh"], &["tools/script"]).went_well().stdout, "it ran\n");
    assert_eq!(confined_with_list(true, &["/usr/bin"], &["true"]).went_well().stdout, "");
}

#[test]
fn test_35_audited_lists_report_and_refuse_nothing() {
    if !is_possible() {
        return;
    }
    let ran = listed(
        false,
        &[PYTHON, "tools"],
        r#"
memory = os.memfd_create("memory"); os.write(memory, true)
print("ran", run("tools/true"), run("/usr/bin/env", "true"), run("tools/other"), run_memory(memory), run(loader, "/usr/bin/true"))
print("none", run("/nowhere/at/all"), run("tools/none"))
os.chdir("tools"); number = os.open("true", os.O_PATH); print("others", run("./true"), run_memory(number), run("/proc/self/cwd/true"))
print("bad", libc.execve(ctypes.c_void_p(8), None, None), errno.errorcode[ctypes.get_errno()])
"#,
    );
    ran.went_well()
        .said("ran ran ran it ran ran ran")
        .said("none ENOENT ENOENT")
        .said("others ran ran ran")
        .said("bad -1 EFAULT")
        .was_asked("executes listed /usr/bin/python3 /usr/bin/python3")
        .was_asked("executes listed tools/true /")
        .was_asked("executes unlisted /usr/bin/env /usr/bin/env")
        .was_asked("executes listed tools/other /")
        .was_asked("executes unlisted  /memfd:memory (deleted)")
        .was_asked("executes unlisted /lib")
        .was_asked("executes listed ./true /")
        .was_asked("executes listed  /")
        .was_asked("executes unlisted /proc/self/cwd/true ?")
        .was_asked("executes unlisted ? ?");
    assert!(!ran.asked.iter().any(|asked| asked.contains("/none") || asked.contains("nowhere")), "{ran:#?}");
}

/// Whoever wants a list enforced where it can't be gets nothing started.
#[test]
fn test_35_lists_are_not_enforced_without_landlock() {
    if ground() != Ground::OldKernel || !is_possible() {
        return;
    }
    let ran = confined_with_list(true, &[PYTHON], &[PYTHON, "-c", ""]);
    assert!(ran.failed.contains("without Landlock"), "{ran:#?}");
}
