use super::*;

#[test]
fn what_a_killed_child_did_not_say_was_not_tried() {
    let probe = read_report("receive_only 0\ndescriptors 13\nmem", Some(31));
    assert_eq!(probe.receive_only, Ok(()));
    assert_eq!(probe.descriptors, Err(Errno::ACCESS));
    assert_eq!((probe.memory, probe.listener, probe.landlock), (Err(NOT_TRIED), Err(NOT_TRIED), Err(NOT_TRIED)));
    assert_eq!(probe.killed, Some(31));
}

#[test]
fn the_version_of_landlock_is_no_errno() {
    assert_eq!(read_report("landlock -7\n", None).landlock, Ok(7));
    assert_eq!(read_report("landlock 38\n", None).landlock, Err(Errno::NOSYS));
}

#[test]
fn this_machine_answers_and_is_not_restricted_by_the_question() {
    let probe = probe().unwrap();
    assert_eq!(probe.killed, None);
    assert_eq!(probe.descriptors, Ok(()));
    assert_eq!(probe.memory, Ok(()));
    assert_eq!(probe.receive_only, Ok(()));
    if let Err(errno) = probe.listener {
        return eprintln!("SKIPPED: no listener here: {errno}");
    }
    assert_eq!(probe.give, Ok(()));
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let again = super::probe().unwrap();
    assert_eq!(probe, again, "a second question gets the same answer");
    let filters = |status: &str| status.lines().find(|line| line.starts_with("Seccomp")).map(str::to_owned);
    assert_eq!(filters(&std::fs::read_to_string("/proc/thread-self/status").unwrap()), filters(&status));
}

/// A profile that knows some calls of Landlock and not others.
#[test]
fn a_landlock_that_is_there_and_can_not_be_used_is_none() {
    if probe().unwrap().landlock.is_err() {
        return eprintln!("SKIPPED: no Landlock here");
    }
    let call = u32::try_from(libc::SYS_landlock_restrict_self).unwrap();
    let (found, _) = sys::in_child(|report| {
        rustix::thread::set_no_new_privs(true).unwrap();
        let rule = Rule { call, when: Vec::new(), then: Action::Fail(libc::EPERM), why: "to try it" };
        sys::install(&bpf::compile(&[rule]), Listening::No).unwrap();
        write!(report, "{:?}", probe().unwrap().landlock).unwrap();
    })
    .unwrap();
    assert_eq!(String::from_utf8(found).unwrap(), format!("{:?}", Err::<u32, _>(Errno::PERM)));
}
