//! The end that another part of egret asks for. All in one test: the keeper reaps every child of its process.

use super::*;
use crate::journal::WhenFull;

/// A shell that says when it is ready by making a file, ended for a reason: what egret exits with, and the journal.
async fn ended(script: &str, grace: Duration) -> (Outcome, String) {
    let home = tempfile::TempDir::new().unwrap();
    let (file, ready) = (home.path().join("journal"), home.path().join("ready"));
    let (journal, writer) = Journal::open(file.to_str().unwrap(), WhenFull::default()).unwrap();
    let command = ["sh", "-c", script, "sh", ready.to_str().unwrap()].map(OsString::from);
    let hold = Hold::new(confinement::Confine::Off, None, None);
    let held = confinement::Told::default();
    let launch = Launch::prepare(&command, hold, &held, &journal, &Told::default()).unwrap().unwrap();
    let handle = launch.handle.clone();
    let keeper = launch.start(&[], None, Duration::ZERO).unwrap();
    let termination = Termination { signal: Signal::TERM, why: "a file changed".to_owned(), grace, exit: Some(1) };
    let asked = async {
        while !ready.exists() {
            tokio::task::yield_now().await;
        }
        handle.terminate(termination).await;
    };
    let (outcome, ()) = tokio::join!(keeper.keep(|| ()), asked);
    drop(journal);
    writer.finish();
    (outcome, std::fs::read_to_string(file).unwrap())
}

#[tokio::test]
async fn a_reason_of_egrets_own_ends_the_command_and_is_exit_1() {
    let hour = Duration::from_secs(3600);
    let (outcome, journal) = ended("trap 'kill $!; exit 0' TERM; : >\"$1\"; sleep 3600 & wait", hour).await;
    assert!(matches!(outcome, Err(Failure::Passed(1))), "{outcome:?}");
    assert!(journal.contains("\"why\":\"a file changed\",\"grace_ms\":3600000"), "{journal}");
    assert!(journal.contains("\"phase\":\"child_exited\"") && !journal.contains("child_killed"), "{journal}");

    let (outcome, journal) = ended("trap '' TERM; : >\"$1\"; exec sleep 3600", Duration::ZERO).await;
    assert!(matches!(outcome, Err(Failure::Passed(1))), "{outcome:?}");
    assert!(journal.contains("child_killed"), "{journal}");
}
