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
