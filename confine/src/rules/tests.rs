use super::*;

/// The first rule that holds, by the words of the rules' own documentation.
pub(crate) fn decide(rules: &[Rule], call: u32, arguments: [u64; 6]) -> Action {
    let low = |argument: u8| (arguments[usize::from(argument)] & 0xffff_ffff) as u32;
    let holds = |condition: &Condition| match condition.test {
        Test::Is(value) => low(condition.argument) == value,
        Test::Masked(mask, value) => low(condition.argument) & mask == value,
        Test::AnyOf(bits) => low(condition.argument) & bits != 0,
        Test::NotNull => arguments[usize::from(condition.argument)] != 0,
    };
    rules.iter().find(|rule| rule.call == call && rule.when.iter().all(holds)).map_or(Action::Allow, |rule| rule.then)
}

const ALL: Setting = Setting {
    guarded: Some(Guarded { pid: 4711, group: 4700 }),
    no_namespaces: true,
    unix_is_born: true,
    executions_are_told: true,
    memory_is_sealed: true,
};

const NOTHING: Setting =
    Setting { guarded: None, no_namespaces: false, unix_is_born: false, executions_are_told: false, memory_is_sealed: false };

fn decided(call: c_long, arguments: &[u64]) -> Action {
    let mut six = [0; 6];
    six[..arguments.len()].copy_from_slice(arguments);
    decide(&rules(&ALL), u32::try_from(call).unwrap(), six)
}

#[test]
fn every_rule_has_a_reason_and_a_number() {
    for rule in rules(&ALL) {
        assert!(!rule.why.is_empty() && rule.call < 1000, "{rule:?}");
        assert!(rule.when.len() <= 4 && rule.when.iter().all(|condition| condition.argument < 6), "{rule:?}");
    }
}

#[test]
fn tcp_and_udp_sockets_are_asked_about_and_no_others_exist() {
    for family in 0..64_u64 {
        for kind in 0..16_u64 {
            for flags in [0, libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC] {
                for protocol in [0, 1, 6, 17, 33, 132, 136, 255, 262_u64] {
                    let kind_and_flags = kind | u64::from(flags.cast_unsigned());
                    let expected = match (family, kind, protocol) {
                        (1, 1 | 2 | 5, _) => Action::Ask,
                        (1 | 16, _, _) => Action::Allow,
                        (2 | 10, 1, 0 | 6) | (2 | 10, 2, 0 | 17) => Action::Ask,
                        (2 | 10, _, _) => Action::Fail(libc::EPROTONOSUPPORT),
                        _ => Action::Fail(libc::EAFNOSUPPORT),
                    };
                    assert_eq!(decided(libc::SYS_socket, &[family, kind_and_flags, protocol]), expected, "{family} {kind}");
                    // The upper half of a register means nothing to the kernel.
                    let high = |value: u64| value | 0xdead_beef_0000_0000;
                    assert_eq!(decided(libc::SYS_socket, &[high(family), high(kind_and_flags), high(protocol)]), expected);
                }
            }
        }
    }
}

#[test]
fn unix_sockets_are_the_apps_own_where_they_may_be() {
    let none = rules(&NOTHING);
    assert_eq!(decide(&none, u32::try_from(libc::SYS_socket).unwrap(), [1, 1, 0, 0, 0, 0]), Action::Allow);
    assert_eq!(decided(libc::SYS_socketpair, &[1, 1, 0]), Action::Allow);
}

#[test]
fn executions_go_on_and_are_asked_about_only_with_a_list() {
    let none = Setting { executions_are_told: false, memory_is_sealed: false, ..ALL };
    for call in [libc::SYS_execve, libc::SYS_execveat, libc::SYS_memfd_create] {
        assert_eq!(decided(call, &[]), Action::Ask);
        assert_eq!(decide(&rules(&none), u32::try_from(call).unwrap(), [0; 6]), Action::Allow);
    }
}

#[test]
fn fast_open_is_refused_in_all_three_calls_with_any_other_flag() {
    for other in [0, libc::MSG_NOSIGNAL, libc::MSG_DONTWAIT | libc::MSG_ZEROCOPY] {
        let flags = u64::from((libc::MSG_FASTOPEN | other).cast_unsigned());
        let refused = Action::Fail(libc::EOPNOTSUPP);
        assert_eq!(decided(libc::SYS_sendto, &[3, 4096, 1, flags, 4096, 16]), refused);
        assert_eq!(decided(libc::SYS_sendmsg, &[3, 4096, flags]), refused);
        assert_eq!(decided(libc::SYS_sendmmsg, &[3, 4096, 1, flags]), refused);
    }
    assert_eq!(decided(libc::SYS_sendmsg, &[3, 4096, 0]), Action::Allow);
}

#[test]
fn only_addressed_datagrams_are_asked_about() {
    assert_eq!(decided(libc::SYS_sendto, &[3, 4096, 1, 0, 0, 0]), Action::Allow);
    assert_eq!(decided(libc::SYS_sendto, &[3, 4096, 1, 0, 4096, 16]), Action::Ask);
    assert_eq!(decided(libc::SYS_sendto, &[3, 4096, 1, 0, 1 << 40, 16]), Action::Ask, "the upper half of a pointer counts");
    assert_eq!(decided(libc::SYS_recvfrom, &[3, 4096, 1, 0, 0, 0]), Action::Allow);
}

#[test]
fn a_listener_is_refused_and_a_plain_filter_is_not() {
    assert_eq!(decided(libc::SYS_seccomp, &[1, 8 | 32, 4096]), Action::Fail(libc::EBUSY));
    assert_eq!(decided(libc::SYS_seccomp, &[1, 1, 4096]), Action::Allow);
}

#[test]
fn limits_and_processors_are_ones_own() {
    let refused = Action::Fail(libc::EPERM);
    assert_eq!(decided(libc::SYS_prlimit64, &[0, 7, 4096, 0]), Action::Allow);
    assert_eq!(decided(libc::SYS_prlimit64, &[9, 7, 0, 4096]), Action::Allow, "to look is no harm");
    assert_eq!(decided(libc::SYS_prlimit64, &[9, 7, 1 << 40, 0]), refused);
    for call in [libc::SYS_sched_setaffinity, libc::SYS_sched_setscheduler, libc::SYS_sched_setparam, libc::SYS_sched_setattr] {
        assert_eq!((decided(call, &[0, 8, 4096]), decided(call, &[9, 8, 4096])), (Action::Allow, Action::Ask));
    }
    assert_eq!(
        (decided(libc::SYS_setpriority, &[0, 0, 5]), decided(libc::SYS_setpriority, &[0, 9, 5])),
        (Action::Allow, Action::Ask)
    );
    for which in [1, 2] {
        assert_eq!(decided(libc::SYS_setpriority, &[which, 0, 19]), refused, "a group or a user");
    }
    assert_eq!(
        (decided(libc::SYS_ioprio_set, &[1, 0, 0]), decided(libc::SYS_ioprio_set, &[1, 9, 0])),
        (Action::Allow, Action::Ask)
    );
    assert_eq!(decided(libc::SYS_ioprio_set, &[3, 0, 0]), refused);
    assert_eq!((decided(libc::SYS_migrate_pages, &[0]), decided(libc::SYS_move_pages, &[9])), (Action::Allow, refused));
    assert_eq!(decided(libc::SYS_ioctl, &[5, 0xaa00, 0]), refused);
    assert_eq!(decided(libc::SYS_ioctl, &[5, 0x5401, 0]), Action::Allow);
}

#[test]
fn only_the_supervisor_is_guarded() {
    for group in [4711_u32, 4700, 1] {
        assert_eq!(decided(libc::SYS_kill, &[u64::from(group.wrapping_neg()), 9]), Action::Fail(libc::EPERM));
    }
    assert_eq!(decided(libc::SYS_kill, &[4712, 9]), Action::Ask);
    assert_eq!(decided(libc::SYS_kill, &[0, 9]), Action::Allow);
    assert_eq!(decided(libc::SYS_kill, &[u64::from(5000_u32.wrapping_neg()), 9]), Action::Allow);
    assert_eq!(decided(libc::SYS_setpgid, &[0, 4700]), Action::Fail(libc::EPERM));
    assert_eq!(decided(libc::SYS_setpgid, &[0, 0]), Action::Allow);
    let none = rules(&NOTHING);
    assert_eq!(decide(&none, u32::try_from(libc::SYS_kill).unwrap(), [4711, 9, 0, 0, 0, 0]), Action::Allow);
}
