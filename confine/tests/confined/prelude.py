import ctypes, errno, os, select, signal, socket, struct, sys, threading, time

GOOD, GOOD6 = ("203.0.113.7", 443), ("2001:db8:900d::7", 443)
EVIL, EVIL6 = ("198.51.100.66", 443), ("2001:db8:bad::66", 443)
libc = ctypes.CDLL(None, use_errno=True)

errno.errorcode[errno.EOPNOTSUPP] = "EOPNOTSUPP"


def outcome(do, *arguments):
    """What comes of it: "ok", or the name of the error."""
    try:
        do(*arguments)
        return "ok"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


def tcp(family=socket.AF_INET):
    return socket.socket(family, socket.SOCK_STREAM)


def greeting(connected):
    """The destination that whoever answers was told of."""
    return connected.makefile().readline().strip()


def outside():
    """Somebody who is not confined: does what is asked of them to the supervisor."""
    s = socket.socket(socket.AF_UNIX); s.connect("outside.sock"); lines = s.makefile("rw")
    def ask(word):
        lines.write(f"{word} {os.environ['SUPERVISOR']}\n"); lines.flush(); return lines.readline().strip()
    return ask


def supervisors_threads():
    """Their names."""
    tasks, names = f"/proc/{os.environ['SUPERVISOR']}/task", []
    for tid in os.listdir(tasks):
        try:
            names.append(open(f"{tasks}/{tid}/comm").read().strip())
        except (FileNotFoundError, ProcessLookupError):
            pass
    return names
