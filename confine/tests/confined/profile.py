"""The default seccomp profile of container runtimes, and then the command.

usage: profile.py COMMAND...

As moby's for a container without capabilities: a list of what is allowed, and EPERM for the rest; sockets of some families only,
no namespaces by clone, no clone3 at all, ENOSYS for calls that are newer than the list, and other architectures as they like. Of
what runtimes differ in it has the strictest: no ptrace and no memory of other processes, and no close_range.
"""
import ctypes
import errno
import os
import pathlib
import platform
import re
import struct
import sys

# By what they are about.
ALLOWED = """
accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg sendto setsockopt
shutdown socketpair
access chdir chmod chown close copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat
fchmodat2 fchown fchownat fcntl fdatasync flock fstat fstatat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 ioctl
lchown link linkat lseek lstat mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2
pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename renameat renameat2 rmdir sendfile splice stat statfs statx
symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat utime utimensat utimes vmsplice write writev
cachestat listmount statmount fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr lremovexattr lsetxattr
removexattr removexattrat setxattr setxattrat
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 pipe pipe2 poll
ppoll pselect6 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_settime
io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit
brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mprotect mremap mseal msync munlock
munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop shmat
shmctl shmdt shmget
execve execveat exit exit_group fork vfork wait4 waitid kill pidfd_open pidfd_send_signal tgkill tkill
alarm pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_tgsigqueueinfo sigaltstack
futex futex_requeue futex_wait futex_waitv futex_wake get_robust_list rseq set_robust_list set_tid_address get_thread_area
set_thread_area arch_prctl modify_ldt uretprobe
capget capset getegid geteuid getgid getgroups getpgid getpgrp getpid getppid getresgid getresuid getsid gettid getuid setfsgid setfsuid
setgid setgroups setpgid setregid setresgid setresuid setreuid setsid setuid
getcpu getpriority getrandom getrlimit getrusage ioprio_get ioprio_set prctl prlimit64 sched_get_priority_max sched_get_priority_min
sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield setpriority setrlimit sysinfo times uname
adjtimex clock_adjtime clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time timer_create
timer_delete timer_getoverrun timer_gettime timer_settime
landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp
"""
# Up to appletalk and so on; not the sockets of virtual machines (40), the kernel's ciphers (38), and a few that nobody has.
FAMILIES = [*range(12), *range(13, 19), 21, 22, 24, *range(26, 34), 35, 36, 39, *range(41, 46)]
PERSONALITIES = [0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF]
NAMESPACES = 0x7E020000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000

ALLOW, FAIL = 0x7FFF0000, 0x00050000
LOAD, EQUAL, GREATER, ANY_BIT, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16


def numbers():
    """The number of each call, as the C library's headers have them."""
    places = [f"/usr/include/{platform.machine()}-linux-gnu/asm", "/usr/include/asm", "/usr/include/asm-generic"]
    headers = [pathlib.Path(place) / name for place in places for name in ("unistd_64.h", "unistd.h")]
    for text in (header.read_text() for header in headers if header.exists()):
        found = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)\s*$", text, re.M)
        if len(found) > 200:
            return {name: int(number) for name, number in found}
    sys.exit("no profile: nothing tells the numbers of calls")


def either(values):
    """Allowed if what is loaded is one of these."""
    return [step for value in values for step in ((EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW))]


def judged(number, steps):
    """What is to be done with this call, by its first argument."""
    return [(EQUAL, 0, len(steps) + 1, number), (LOAD, 0, 0, FIRST_ARGUMENT), *steps]


def program():
    known = numbers()
    allowed = [known[name] for name in ALLOWED.split() if name in known]
    refuse = (RETURN, 0, 0, FAIL | errno.EPERM)
    return [
        (LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, ARCHITECTURES[platform.machine()]), (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, NUMBER), (ANY_BIT, 0, 1, X32), (RETURN, 0, 0, ALLOW),
        (EQUAL, 0, 1, known["clone3"]), (RETURN, 0, 0, FAIL | errno.ENOSYS),
        *either(allowed),
        *judged(known["socket"], [*either(FAMILIES), refuse]),
        *judged(known["personality"], [*either(PERSONALITIES), refuse]),
        *judged(known["clone"], [(ANY_BIT, 0, 1, NAMESPACES), refuse, (RETURN, 0, 0, ALLOW)]),
        (GREATER, 0, 1, max(allowed)), (RETURN, 0, 0, FAIL | errno.ENOSYS), refuse,
    ]


def main():
    code = b"".join(struct.pack("=HBBI", *step) for step in program())
    filter_ = ctypes.create_string_buffer(code)
    filled = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(filter_)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filled, 0, 0):
        sys.exit(f"no profile: {errno.errorcode[ctypes.get_errno()]}")
    os.execv(sys.argv[1], sys.argv[1:])


main()
