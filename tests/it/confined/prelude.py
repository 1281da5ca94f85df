import asyncio, errno, http.client, os, select, signal, socket, ssl, struct, subprocess, sys, threading, time, urllib.error, urllib.request

# The journal has stdout.
sys.stdout = sys.stderr
GOOD, EVIL, EVIL6 = "44.0.0.7", "45.0.0.66", "2a00:bad::66"
# Two of the kernel's numbers have two names.
errno.errorcode[errno.EOPNOTSUPP], errno.errorcode[errno.EAGAIN] = "EOPNOTSUPP", "EAGAIN"


def outcome(do, *arguments):
    """What comes of it: "ok", or the name of the error."""
    try:
        do(*arguments)
        return "ok"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


def tcp(family=socket.AF_INET):
    made = socket.socket(family, socket.SOCK_STREAM)
    made.settimeout(None)
    return made


def connected(*address):
    made = tcp(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    made.connect(address)
    return made


def addresses(name):
    """What the C library says: addresses, or the name of its error."""
    try:
        return ",".join(sorted({found[4][0] for found in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}))
    except socket.gaierror as error:
        return {socket.EAI_NONAME: "NONAME", socket.EAI_NODATA: "NODATA", socket.EAI_AGAIN: "AGAIN"}.get(error.errno, str(error))


def get(url):
    """The body, or what went wrong."""
    try:
        return urllib.request.urlopen(url).read().decode().strip()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        number = getattr(reason, "errno", None)
        return errno.errorcode.get(number, f"{type(reason).__name__} {reason}")


def request(stream, host):
    """What comes back for one request in the clear, until the end."""
    stream.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    return rest(stream)


def rest(stream):
    parts = []
    try:
        while data := stream.recv(65536):
            parts.append(data)
    except OSError as error:
        parts.append(errno.errorcode[error.errno].encode())
    return b"".join(parts).decode("latin-1").rpartition("\r\n\r\n")[2].strip()


def tls(address, sni):
    """What a TLS server at this address says to one request after a hello with this name; or how that was ended."""
    context = ssl.create_default_context()
    context.check_hostname = False
    try:
        with context.wrap_socket(connected(address, 443), server_hostname=sni) as stream:
            return request(stream, sni)
    except ssl.SSLError as error:
        return error.reason or type(error).__name__
    except OSError as error:
        return errno.errorcode[error.errno]


def wait():
    """Until the test ends it."""
    while True:
        signal.pause()
