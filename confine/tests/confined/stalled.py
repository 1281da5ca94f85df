"""A file whose pages arrive when somebody says so: a file system of this process (linux/fuse.h, fuse(4)).

Its first pages are read into memory by whoever maps it, and do not arrive. The page COUNT says how many are waited for; reading
the page RELEASE lets all arrive, the first half as the address of a good destination, and the other half as errors.
"""
import ctypes
import errno
import os
import socket
import stat
import struct
import threading

PAGE = 4096
BROKEN, COUNT, RELEASE, PAGES = 32, 64, 65, 66
GETATTR, OPEN, READ, FLUSH, RELEASE_FILE, INIT, INTERRUPT = 3, 14, 15, 25, 18, 26, 36
DIRECT_IO = 1
GOOD = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(443), socket.inet_aton("203.0.113.7"))


def open_device(directory):
    try:
        return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        # A container has no such device, but may be allowed to make it.
        os.mknod(f"{directory}/fuse", stat.S_IFCHR | 0o600, os.makedev(10, 229))
        return os.open(f"{directory}/fuse", os.O_RDWR | os.O_CLOEXEC)


def offer(directory):
    """Lays the file over DIRECTORY/stalled."""
    device = open_device(directory)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=100644,user_id=0,group_id=0,allow_other"
    if libc.mount(b"stalled", f"{directory}/stalled".encode(), b"fuse", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")
    threading.Thread(target=File(device, directory).serve, daemon=True).start()


class File:
    def __init__(self, device, directory):
        self.device, self.directory = device, directory
        self.waiting, self.released = [], False

    def serve(self):
        # Whatever a test forgot, nobody waits longer than its app lives.
        threading.Thread(target=self.release_at_the_end, daemon=True).start()
        while True:
            try:
                request = os.read(self.device, 1 << 20)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):
                    continue  # the request was taken back
                return
            _, operation, number = struct.unpack_from("=IIQ", request)
            self.handle(operation, number, request[40:])

    def release_at_the_end(self):
        while not os.path.exists(f"{self.directory}/status"):
            threading.Event().wait(0.05)
        self.release()

    def handle(self, operation, number, rest):
        if operation == INIT:
            self.answer(number, struct.pack("=IIIIHHIIHHI28x", 7, 31, 0, 0, 64, 48, PAGE, 1, 1, 0, 0))
        elif operation == GETATTR:
            times, owner = (0,) * 3, (stat.S_IFREG | 0o644, 1, 0, 0, 0, PAGE, 0)
            self.answer(number, struct.pack("=QII6Q10I", 1 << 30, 0, 0, 1, PAGES * PAGE, PAGES, *times, *times, *owner))
        elif operation == OPEN:
            # What is read otherwise than by mapping comes from here each time.
            self.answer(number, struct.pack("=QII", 0, DIRECT_IO, 0))
        elif operation == READ:
            self.read(number, struct.unpack_from("=QQ", rest)[1] // PAGE)
        elif operation in (FLUSH, RELEASE_FILE):
            self.answer(number)
        elif operation != INTERRUPT:
            self.answer(number, error=errno.ENOSYS)

    def read(self, number, page):
        if page == COUNT:
            self.answer(number, str(len(self.waiting)).encode())
        elif page == RELEASE:
            self.release()
            self.answer(number, b"released")
        elif self.released:
            self.arrive(number, page)
        else:
            self.waiting.append((number, page))

    def release(self):
        self.released = True
        for number, page in self.waiting:
            self.arrive(number, page)
        self.waiting.clear()

    def arrive(self, number, page):
        if page < BROKEN:
            self.answer(number, GOOD.ljust(PAGE, b"\0"))
        else:
            self.answer(number, error=errno.EIO)

    def answer(self, number, body=b"", error=0):
        try:
            os.write(self.device, struct.pack("=IiQ", 16 + len(body), -error, number) + body)
        except OSError:
            pass  # nobody waits for it any more
