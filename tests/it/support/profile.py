"""A profile of a container in which seccomp(2) gives nobody a listener, or socket(2) nobody netlink, and then the command.

usage: profile.py listener|netlink COMMAND...
"""
import ctypes
import errno
import os
import platform
import struct
import sys

ALLOW, FAIL = 0x7FFF0000, 0x00050000
HAS, IS = 0x45, 0x15
# Of a call: its number, and what the low half of an argument at this place has or is (seccomp_data, seccomp(2)): the flag
# NEW_LISTENER, or the family AF_NETLINK.
REFUSED = {
    "listener": ({"x86_64": 317, "aarch64": 277}, 24, HAS, 8),
    "netlink": ({"x86_64": 41, "aarch64": 198}, 16, IS, 16),
}
numbers, place, compare, value = REFUSED[sys.argv[1]]
CODE = [
    (0x20, 0, 0, 0), (0x15, 0, 3, numbers[platform.machine()]), (0x20, 0, 0, place), (compare, 0, 1, value),
    (0x06, 0, 0, FAIL | errno.EPERM), (0x06, 0, 0, ALLOW),
]

filter_ = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in CODE))
program = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(CODE), ctypes.addressof(filter_)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    sys.exit(f"no profile: {errno.errorcode[ctypes.get_errno()]}")
os.execv(sys.argv[2], sys.argv[2:])
