//! Which system calls are asked about, which are refused, and why. What is not listed is allowed without a look.
//!
//! The idea: the app never owns an internet socket that can reach anybody unless a connection was made for it. So only the
//! calls that make, aim or open sockets matter, and those that would get at one from the side or at whoever confines.

use libc::{c_int, c_long};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on without a look.
    Allow,
    /// The supervisor is asked (`SECCOMP_RET_USER_NOTIF`).
    Ask,
    /// It fails with this errno.
    Fail(c_int),
    /// The process ends. Only for calls of a foreign architecture.
    Kill,
}

/// A test on one argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, from 0 to 5.
    pub argument: u8,
    /// What must hold.
    pub test: Test,
}

/// What must hold of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Its low 32 bits are this value; for arguments that the kernel takes as an `int`.
    Is(u32),
    /// Its low 32 bits, masked by the first, are the second.
    Masked(u32, u32),
    /// Its low 32 bits have one of these set.
    AnyOf(u32),
    /// Any of its 64 bits is set: a pointer that is not null.
    NotNull,
}

/// One line: if the call has this number and all conditions hold, this happens. The first line that holds decides.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The call's number.
    pub call: u32,
    /// All must hold; none at all holds always.
    pub when: Vec<Condition>,
    /// What happens then.
    pub then: Action,
    /// Why.
    pub why: &'static str,
}

/// What the rules depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Signals to the supervisor's process are refused here, since no Landlock scope refuses them.
    pub guarded: Option<Guarded>,
    /// New namespaces of any kind are refused.
    pub no_namespaces: bool,
    /// Unix sockets are born in the supervisor, since nothing keeps a connect that goes on by itself from leading outside.
    pub unix_is_born: bool,
    /// Executions are told.
    pub executions_are_told: bool,
    /// Files in memory can't be executed.
    pub memory_is_sealed: bool,
}

/// Whom no signal may reach. The numbers are those of the supervisor's own PID namespace, which the app shares or else does not
/// see it at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// The supervisor's process.
    pub pid: u32,
    /// Its process group, which the app is not in.
    pub group: u32,
}

const fn is(argument: u8, value: c_int) -> Condition {
    Condition { argument, test: Test::Is(value.cast_unsigned()) }
}

const fn any_of(argument: u8, bits: u32) -> Condition {
    Condition { argument, test: Test::AnyOf(bits) }
}

const fn not_null(argument: u8) -> Condition {
    Condition { argument, test: Test::NotNull }
}

/// The type of a socket without the flags beside it (`SOCK_TYPE_MASK` of linux/net.h).
const fn socket_type(kind: c_int) -> Condition {
    Condition { argument: 1, test: Test::Masked(0xf, kind.cast_unsigned()) }
}

fn rule(call: c_long, when: &[Condition], then: Action, why: &'static str) -> Rule {
    // Every number of linux/unistd.h is small and positive.
    Rule { call: u32::try_from(call).unwrap_or(u32::MAX), when: when.to_vec(), then, why }
}

/// All rules, in the order in which they are tried.
#[must_use]
pub fn rules(setting: &Setting) -> Vec<Rule> {
    let mut rules = if setting.unix_is_born { unix_sockets() } else { Vec::new() };
    rules.extend(sockets());
    rules.extend(traffic());
    rules.extend(options());
    rules.extend(refused());
    rules.extend(executions(setting));
    rules.extend(aimed_at_others());
    if let Some(guarded) = setting.guarded {
        rules.extend(guard(guarded));
    }
    if setting.no_namespaces {
        rules.extend(namespaces());
    }
    rules
}

/// Unix sockets that are made by the supervisor; pairs are connected from birth, and kinds that don't exist fail by themselves.
fn unix_sockets() -> Vec<Rule> {
    const WHY: &str = "born in the supervisor, so that it can be connected there";
    let kinds = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET];
    kinds.map(|kind| rule(libc::SYS_socket, &[is(0, libc::AF_UNIX), socket_type(kind)], Action::Ask, WHY)).into()
}

/// Which sockets there may be, and who makes them.
#[rustfmt::skip]
fn sockets() -> Vec<Rule> {
    use Action::{Allow, Ask, Fail};
    use libc::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, EAFNOSUPPORT, EPROTONOSUPPORT, IPPROTO_TCP, IPPROTO_UDP};
    use libc::{SOCK_DGRAM, SOCK_STREAM, SYS_socket, SYS_socketpair};
    let mut rules = vec![
        rule(SYS_socket, &[is(0, AF_UNIX)], Allow, "reaches nobody outside; connecting it is asked about"),
        rule(SYS_socket, &[is(0, AF_NETLINK)], Allow, "talks to the kernel, which sends nothing for the unprivileged"),
        rule(SYS_socketpair, &[is(0, AF_UNIX)], Allow, "reaches nobody outside"),
        rule(SYS_socketpair, &[], Fail(EAFNOSUPPORT), "no other family has pairs that anybody needs"),
    ];
    for family in [AF_INET, AF_INET6] {
        for (kind, protocol) in [(SOCK_STREAM, IPPROTO_TCP), (SOCK_DGRAM, IPPROTO_UDP)] {
            for protocol in [0, protocol] {
                let when = [is(0, family), socket_type(kind), is(2, protocol)];
                rules.push(rule(SYS_socket, &when, Ask, "born in the supervisor, so that it can be connected there"));
            }
        }
        rules.push(rule(SYS_socket, &[is(0, family)], Fail(EPROTONOSUPPORT),
            "MPTCP, SCTP, UDP-Lite, ping, raw: each has another way out; who tries MPTCP falls back to TCP"));
    }
    rules.push(rule(SYS_socket, &[], Fail(EAFNOSUPPORT),
        "packet, vsock, SMC, TIPC, RDS, RXRPC, KCM, ALG, XDP: other ways out, or kernel surface that nobody needs"));
    rules
}

/// What is done with sockets.
#[rustfmt::skip]
fn traffic() -> Vec<Rule> {
    use Action::{Ask, Fail};
    use libc::{EOPNOTSUPP, SYS_bind, SYS_connect, SYS_listen, SYS_sendmmsg, SYS_sendmsg, SYS_sendto, SYS_recvfrom};
    use libc::{SYS_getpeername, SYS_getsockname};
    const FAST_OPEN: u32 = libc::MSG_FASTOPEN.cast_unsigned();
    vec![
        rule(SYS_connect, &[], Ask, "the one question"),
        rule(SYS_bind, &[], Ask, "bound by the supervisor: the kernel takes a device from the address, and keeps it if it fails"),
        rule(SYS_listen, &[], Ask, "the supervisor lets go of the socket"),
        rule(SYS_sendto, &[any_of(3, FAST_OPEN)], Fail(EOPNOTSUPP), "connects without connect(2); Landlock does not see it"),
        rule(SYS_sendmsg, &[any_of(2, FAST_OPEN)], Fail(EOPNOTSUPP), "as sendto"),
        rule(SYS_sendmmsg, &[any_of(3, FAST_OPEN)], Fail(EOPNOTSUPP), "as sendto"),
        // sendmsg and sendmmsg are what connections are written to with; of datagram sockets they fail, which can't send.
        rule(SYS_sendto, &[not_null(4)], Ask, "a datagram to somebody: a DNS query, one that the egress lets pass, or refused"),
        rule(SYS_recvfrom, &[not_null(4)], Ask, "whoever resolves names compares the sender with the nameserver"),
        rule(SYS_getsockname, &[], Ask, "a socket that stands for one connected to a nameserver must look like it"),
        rule(SYS_getpeername, &[], Ask, "as getsockname; and a connection seems to be with whom it was asked for"),
    ]
}

/// Socket options that would send a connection, or a packet, elsewhere than it was aimed. All are refused by number alone.
#[rustfmt::skip]
fn options() -> Vec<Rule> {
    use libc::{EOPNOTSUPP, EPERM, IPPROTO_IP, IPPROTO_IPV6, SOL_SOCKET};
    const SOURCE_ROUTE: &str = "a source route sends what was aimed at one address to another, before and after connect";
    const DEVICE: &str = "a device sends what was aimed at this machine out of it; kernels before 5.7 refuse it, too";
    const FAST_OPEN: &str = "the first packet waits for the first write, and goes where the socket's options say by then";
    const FOREIGN: &str = "who connects to this machine from an address that is not its own is answered out of it";
    const SIGNED: &str = "a connection to the proxy that wants signatures hangs";
    const GROUP: &str = "joining a group makes the kernel announce it to the network: a packet with bits of the app's choice";
    let option = |level: c_int, name: c_int, errno: c_int, why| {
        rule(libc::SYS_setsockopt, &[is(1, level), is(2, name)], Action::Fail(errno), why)
    };
    // Numbers without a name in libc are those of linux/in.h, linux/in6.h and asm-generic/socket.h.
    let mut rules = vec![
        option(IPPROTO_IP, 4, EPERM, SOURCE_ROUTE),    // IP_OPTIONS
        option(IPPROTO_IPV6, libc::IPV6_RTHDR, EPERM, SOURCE_ROUTE),
        option(IPPROTO_IPV6, 5, EPERM, SOURCE_ROUTE),  // IPV6_2292RTHDR
        option(IPPROTO_IPV6, 6, EPERM, SOURCE_ROUTE),  // IPV6_2292PKTOPTIONS
        option(IPPROTO_IPV6, libc::IPV6_HOPOPTS, EPERM, "bytes of the app's choice on every packet"),
        option(IPPROTO_IPV6, libc::IPV6_DSTOPTS, EPERM, "bytes of the app's choice on every packet"),
        option(IPPROTO_IPV6, libc::IPV6_RTHDRDSTOPTS, EPERM, "bytes of the app's choice on every packet"),
        option(SOL_SOCKET, libc::SO_BINDTODEVICE, EPERM, DEVICE),
        option(SOL_SOCKET, 62, EPERM, DEVICE),         // SO_BINDTOIFINDEX
        option(IPPROTO_IP, 50, EPERM, DEVICE),         // IP_UNICAST_IF
        option(IPPROTO_IPV6, 76, EPERM, DEVICE),       // IPV6_UNICAST_IF
        option(libc::IPPROTO_TCP, 30, EOPNOTSUPP, FAST_OPEN), // TCP_FASTOPEN_CONNECT
        option(libc::IPPROTO_TCP, 34, EOPNOTSUPP, FAST_OPEN), // TCP_FASTOPEN_NO_COOKIE
        option(libc::IPPROTO_TCP, 31, EPERM, "another protocol in the place of TCP, with kernel surface of its own"), // TCP_ULP
        option(libc::IPPROTO_TCP, 14, EPERM, SIGNED),  // TCP_MD5SIG
        option(libc::IPPROTO_TCP, 32, EPERM, SIGNED),  // TCP_MD5SIG_EXT
        option(IPPROTO_IP, libc::IP_FREEBIND, EPERM, FOREIGN),
        option(IPPROTO_IP, libc::IP_TRANSPARENT, EPERM, FOREIGN),
        option(IPPROTO_IPV6, 75, EPERM, FOREIGN),      // IPV6_TRANSPARENT
        option(IPPROTO_IPV6, 78, EPERM, FOREIGN),      // IPV6_FREEBIND
    ];
    for name in [libc::IP_ADD_MEMBERSHIP, libc::IP_ADD_SOURCE_MEMBERSHIP, libc::IP_BLOCK_SOURCE, libc::IP_UNBLOCK_SOURCE] {
        rules.push(option(IPPROTO_IP, name, EPERM, GROUP));
    }
    // From TCP_AO_ADD_KEY to TCP_AO_REPAIR.
    for name in 38..=42 {
        rules.push(option(libc::IPPROTO_TCP, name, EPERM, SIGNED));
    }
    // IP_MSFILTER, and from MCAST_JOIN_GROUP to MCAST_MSFILTER for both versions.
    rules.push(option(IPPROTO_IP, 41, EPERM, GROUP));
    for name in [42, 43, 44, 46, 47, 48] {
        rules.push(option(IPPROTO_IP, name, EPERM, GROUP));
        rules.push(option(IPPROTO_IPV6, name, EPERM, GROUP));
    }
    for name in [libc::IPV6_ADD_MEMBERSHIP, 27] { // IPV6_JOIN_ANYCAST
        rules.push(option(IPPROTO_IPV6, name, EPERM, GROUP));
    }
    rules
}

/// Other ways to the same ends, and ways around the filter.
#[rustfmt::skip]
fn refused() -> Vec<Rule> {
    use Action::Fail;
    use libc::{EBUSY, ENOSYS, EPERM};
    const LISTENER: u32 = 1 << 3; // SECCOMP_FILTER_FLAG_NEW_LISTENER
    const TIOCLINUX: c_int = 0x541c; // asm-generic/ioctls.h
    let set_filter = is(0, libc::SECCOMP_SET_MODE_FILTER.cast_signed());
    let always = |call, errno, why| rule(call, &[], Fail(errno), why);
    vec![
        always(libc::SYS_io_uring_setup, ENOSYS, "connects and sends without a system call that a filter sees"),
        always(libc::SYS_io_uring_enter, ENOSYS, "as io_uring_setup, for a ring that was inherited"),
        always(libc::SYS_io_uring_register, ENOSYS, "as io_uring_setup"),
        rule(libc::SYS_seccomp, &[set_filter, any_of(1, LISTENER)], Fail(EBUSY),
            "with the supervisor dead, a listener of the app's own could let its calls through"),
        always(libc::SYS_pidfd_getfd, EPERM, "takes sockets from others"),
        always(libc::SYS_process_vm_writev, EPERM, "writes into others, as into the supervisor when it has the same user"),
        always(libc::SYS_userfaultfd, EPERM, "memory that never arrives stops whoever reads an address from it"),
        rule(libc::SYS_ioctl, &[is(1, 0xaa00)], Fail(EPERM), "USERFAULTFD_IOC_NEW: as userfaultfd, by its device"),
        rule(libc::SYS_ioctl, &[is(1, libc::TIOCSTI as c_int)], Fail(EPERM), "types for who reads the terminal next: the shell behind egret"),
        rule(libc::SYS_ioctl, &[is(1, TIOCLINUX)], Fail(EPERM), "pastes there, as TIOCSTI"),
        always(libc::SYS_add_key, EPERM, "keys are not of this namespace"),
        always(libc::SYS_request_key, EPERM, "makes the host resolve names"),
        always(libc::SYS_keyctl, EPERM, "as add_key"),
        always(libc::SYS_bpf, EPERM, "kernel surface that nobody unprivileged needs"),
        always(libc::SYS_perf_event_open, EPERM, "as bpf"),
        always(libc::SYS_setns, EPERM, "enters another network"),
    ]
}

/// What concerns a list of what may be executed.
fn executions(setting: &Setting) -> Vec<Rule> {
    const TOLD: &str = "it is told, and goes on";
    const SEALED: &str = "a file in memory has no path that a list could have: the supervisor makes one that can't be executed";
    let mut rules = Vec::new();
    if setting.executions_are_told {
        rules.extend([libc::SYS_execve, libc::SYS_execveat].map(|call| rule(call, &[], Action::Ask, TOLD)));
    }
    if setting.memory_is_sealed {
        rules.push(rule(libc::SYS_memfd_create, &[], Action::Ask, SEALED));
    }
    rules
}

/// What starves or ends a process that is named by its number. One's own thread is 0, which is what most programs write; where C
/// libraries write the number of another thread (`pthread_setaffinity_np`), the supervisor looks whether it is one of its own.
#[rustfmt::skip]
fn aimed_at_others() -> Vec<Rule> {
    use Action::{Allow, Ask, Fail};
    use libc::{ENOSYS, EPERM, PRIO_PROCESS};
    const OWN: &str = "its own";
    const LIMIT: &str = "a limit ends or starves the supervisor, whose user the app may have";
    const STARVE: &str = "a supervisor without a processor answers nobody";
    const IOPRIO_WHO_PROCESS: c_int = 1; // linux/ioprio.h
    let which = |which: u32| Condition { argument: 0, test: Test::Is(which) };
    let mut rules = vec![
        rule(libc::SYS_prlimit64, &[is(0, 0)], Allow, OWN),
        rule(libc::SYS_prlimit64, &[not_null(2)], Fail(EPERM), LIMIT),
        rule(libc::SYS_setpriority, &[which(PRIO_PROCESS), is(1, 0)], Allow, OWN),
        rule(libc::SYS_setpriority, &[which(PRIO_PROCESS)], Ask, STARVE),
        rule(libc::SYS_setpriority, &[], Fail(EPERM), "the supervisor may be of that user or group"),
        rule(libc::SYS_ioprio_set, &[is(0, IOPRIO_WHO_PROCESS), is(1, 0)], Allow, OWN),
        rule(libc::SYS_ioprio_set, &[is(0, IOPRIO_WHO_PROCESS)], Ask, STARVE),
        rule(libc::SYS_ioprio_set, &[], Fail(EPERM), "the supervisor may be of that user or group"),
        rule(libc::SYS_process_madvise, &[], Fail(EPERM), "memory of others is their own affair"),
        rule(448, &[], Fail(ENOSYS), "process_mrelease: as process_madvise"),
    ];
    let scheduling =
        [libc::SYS_sched_setaffinity, libc::SYS_sched_setscheduler, libc::SYS_sched_setparam, libc::SYS_sched_setattr];
    for call in scheduling {
        rules.extend([rule(call, &[is(0, 0)], Allow, OWN), rule(call, &[], Ask, STARVE)]);
    }
    for call in [libc::SYS_migrate_pages, libc::SYS_move_pages] {
        rules.extend([rule(call, &[is(0, 0)], Allow, OWN), rule(call, &[], Fail(EPERM), "memory of others is their own affair")]);
    }
    rules
}

/// Signals to the supervisor where no Landlock scope stops them. Its threads come and go, so that it looks itself whether a number
/// is one of theirs.
#[rustfmt::skip]
fn guard(guarded: Guarded) -> Vec<Rule> {
    use Action::{Allow, Ask, Fail};
    use libc::{ENOSYS, EPERM};
    let Guarded { pid, group } = guarded;
    let aimed = |call, argument, value: u32, why| rule(call, &[Condition { argument, test: Test::Is(value) }], Fail(EPERM), why);
    let positive = |argument| Condition { argument, test: Test::Masked(1 << 31, 0) };
    const F_SETOWN_EX: c_int = 15; // asm-generic/fcntl.h
    const FIOSETOWN: c_int = 0x8901; // asm-generic/sockios.h
    const SIOCSPGRP: c_int = 0x8902;
    const OWNER: &str = "whoever owns a descriptor gets signals, by default deadly ones";
    vec![
        aimed(libc::SYS_kill, 0, pid.wrapping_neg(), "the supervisor's process group, if it leads one"),
        aimed(libc::SYS_kill, 0, group.wrapping_neg(), "the supervisor's process group"),
        aimed(libc::SYS_kill, 0, u32::MAX, "everybody, and so the supervisor"),
        rule(libc::SYS_kill, &[is(0, 0)], Allow, "its own group, which is not the supervisor's"),
        rule(libc::SYS_kill, &[positive(0)], Ask, "any thread's number stands for its process"),
        aimed(libc::SYS_setpgid, 1, group, "the supervisor's group, whose signals the app may send"),
        rule(libc::SYS_tkill, &[], Ask, "a thread of the supervisor; musl signals its own so"),
        aimed(libc::SYS_tgkill, 0, pid, "the supervisor's threads"),
        rule(libc::SYS_rt_sigqueueinfo, &[], Ask, "as kill"),
        aimed(libc::SYS_rt_tgsigqueueinfo, 0, pid, "the supervisor's threads"),
        aimed(libc::SYS_pidfd_open, 0, pid, "a descriptor to signal the supervisor by"),
        rule(libc::SYS_pidfd_send_signal, &[], Fail(ENOSYS), "a directory of /proc is such a descriptor, too"),
        aimed(libc::SYS_ptrace, 1, pid, "the supervisor's memory and registers"),
        rule(libc::SYS_fcntl, &[is(1, libc::F_SETOWN), positive(2)], Ask, OWNER),
        rule(libc::SYS_fcntl, &[is(1, libc::F_SETOWN)], Fail(EPERM), OWNER),
        rule(libc::SYS_fcntl, &[is(1, F_SETOWN_EX)], Fail(EPERM), OWNER),
        rule(libc::SYS_ioctl, &[is(1, FIOSETOWN)], Fail(EPERM), OWNER),
        rule(libc::SYS_ioctl, &[is(1, SIOCSPGRP)], Fail(EPERM), OWNER),
    ]
}

/// New namespaces, for those who want none. `clone3` takes its flags from memory, which no filter can read.
#[rustfmt::skip]
fn namespaces() -> Vec<Rule> {
    const NEW: u32 = (libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNET).cast_unsigned();
    vec![
        rule(libc::SYS_unshare, &[any_of(0, NEW)], Action::Fail(libc::EPERM), "a new namespace"),
        rule(libc::SYS_clone, &[any_of(0, NEW)], Action::Fail(libc::EPERM), "a new namespace"),
        rule(libc::SYS_clone3, &[], Action::Fail(libc::ENOSYS), "flags in memory; C libraries fall back to clone"),
    ]
}

#[cfg(test)]
pub(crate) mod tests;
