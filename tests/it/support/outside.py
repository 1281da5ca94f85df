"""The outside: a network namespace that plays the Internet, and one beside it, the inside, whose only way out leads here.

usage: outside.py DIRECTORY
Run as root of a network namespace. DIRECTORY has server.pem, server.key, zone.json, resolv.conf and hosts; the last two are
laid over those of /etc in the inside, which whoever wants may enter (nsenter(1)) by the number in the first line of stdout.

What happens is told on stdout, one JSON object a line: `arrived` and `ended` of each connection, `query` of each DNS query.
Each line of stdin is an order, a JSON object, and answered by one: {"zone": …} replaces what DNS knows, {"fetch": …} connects
into the inside, {"left": 1} asks for all that ever left the inside, by a tap on its way out. At the end of stdin all ends.
"""
import json
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading

DIRECTORY = sys.argv[1]
# What is here. Whatever is sent to any of these networks arrives; all else is swallowed without an answer.
NETWORKS = ["44.0.0.0/8", "45.0.0.0/8", "10.20.0.0/16", "169.254.169.254/32"]
NETWORKS6 = ["2a00:900d::/32", "2a00:bad::/32"]
INSIDE, GATEWAY = "10.99.0.2", "10.99.0.1"
INSIDE6, GATEWAY6 = "fd00:99::2", "fd00:99::1"
MAC_IN, MAC_OUT = "02:00:00:00:00:02", "02:00:00:00:00:01"
NAMESERVERS = ["44.0.0.53", "44.0.0.54"]
KINDS = {1: "A", 28: "AAAA", 16: "TXT", 33: "SRV", 65: "HTTPS", 15: "MX"}
HAS_IPV6 = os.path.exists("/proc/sys/net/ipv6")

speaking = threading.Lock()


def tell(**event):
    with speaking:
        print(json.dumps(event), flush=True)


def ip(commands, inside=None):
    enter = ["nsenter", f"--net=/proc/{inside}/ns/net"] if inside else []
    subprocess.run([*enter, "ip", "-batch", "-"], input="\n".join(commands) + "\n", text=True, check=True)


# --- the two namespaces -------------------------------------------------------------------------------------------------

def hold():
    """The inside: exists until its stdin ends. Its tap goes to whoever started it, by the socket whose descriptor is told."""
    for name in ("resolv.conf", "hosts"):
        subprocess.run(["mount", "--bind", f"{DIRECTORY}/{name}", f"/etc/{name}"], check=True)
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    socket.send_fds(socket.socket(fileno=int(sys.argv[3])), [b"tap"], [tap.fileno()])
    sys.stdin.read()


def make_inside():
    ours, theirs = socket.socketpair()
    command = ["unshare", "--net", "--mount", "--", sys.executable, __file__, DIRECTORY, "hold", str(theirs.fileno())]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()])
    theirs.close()
    fds = socket.recv_fds(ours, 16, 1)[1]
    if not fds:
        sys.exit("there is no inside")
    join(holder.pid)
    tap = socket.socket(fileno=fds[0])
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    tap.bind(("in0", 3))
    return holder, tap


def join(inside):
    """Neighbours are known beforehand, so that nobody asks for them and every packet is somebody's."""
    ip(["link set lo up", f"link add out0 address {MAC_OUT} type veth peer name in0 address {MAC_IN} netns {inside}",
        "link set out0 addrgenmode none", f"addr add {GATEWAY}/24 dev out0", "link set out0 up",
        f"neigh add {INSIDE} lladdr {MAC_IN} dev out0 nud permanent", *(f"route add local {net} dev lo" for net in NETWORKS)])
    ip(["link set lo up", "link set in0 addrgenmode none", f"addr add {INSIDE}/24 dev in0", "link set in0 up",
        f"neigh add {GATEWAY} lladdr {MAC_OUT} dev in0 nud permanent", f"route add default via {GATEWAY}"], inside)
    if HAS_IPV6:
        ip([f"addr add {GATEWAY6}/64 dev out0 nodad", f"neigh add {INSIDE6} lladdr {MAC_IN} dev out0 nud permanent",
            *(f"route add local {net} dev lo" for net in NETWORKS6)])
        ip([f"addr add {INSIDE6}/64 dev in0 nodad", f"neigh add {GATEWAY6} lladdr {MAC_OUT} dev in0 nud permanent",
            f"route add default via {GATEWAY6}"], inside)


# --- the tap ------------------------------------------------------------------------------------------------------------

class Tap:
    """Everything that left the inside, in words: each connection once, and every other packet."""

    def __init__(self, tap):
        self.tap, self.lock = tap, threading.Lock()
        self.left, self.flows = [], set()
        tap.setblocking(False)
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        while True:
            select.select([self.tap], [], [])
            self.drain()

    def drain(self):
        """A packet is in the tap's queue before the call that sent it returns, so that after this nothing is missing."""
        with self.lock:
            while True:
                try:
                    frame, (_, _, direction, _, _) = self.tap.recvfrom(65536)
                except BlockingIOError:
                    break
                if direction == socket.PACKET_OUTGOING:
                    self.left += self.words(frame[14:])
            _, dropped = struct.unpack("II", self.tap.getsockopt(263, 6, 8))
            return self.left + ["packets that the tap lost"] * (dropped > 0)

    def words(self, packet):
        if packet[0] >> 4 == 4:
            kind, rest = packet[9], packet[(packet[0] & 15) * 4:]
            to = socket.inet_ntop(socket.AF_INET, packet[16:20])
        else:
            kind, rest = packet[6], packet[40:]
            to = f"[{socket.inet_ntop(socket.AF_INET6, packet[24:40])}]"
            if kind == 58 and rest[0] in (133, 135, 143) or kind == 0 and rest[0] == 58 and rest[8] == 143:
                return []  # the kernel's own: solicitations, and reports of its interfaces' groups
        if kind == 1 and rest[0] == 3 or kind == 58 and rest[0] == 1:
            return []  # likewise: nobody waits any more for what came
        if kind == 6:
            return self.segment(to, rest)
        if kind == 17:
            port = struct.unpack("!H", rest[2:4])[0]
            return [f"query {to} {question(rest[8:])}" if port == 53 else f"udp {to}:{port}"]
        return [f"packet {packet[:80].hex()}"]

    def segment(self, to, segment):
        source, port, _, _, offset, flags = struct.unpack("!HHIIBB", segment[:14])
        flow, data = (source, to, port), segment[(offset >> 4) * 4:]
        is_first = flow not in self.flows
        self.flows.add(flow)
        if flags & 2 and data:
            return [f"early data {to}:{port}"]
        if not is_first:
            return []
        # SYN: out; SYN and ACK: an answer to somebody who came; RST of nothing: likewise.
        return [{2: f"connect {to}:{port}", 18: f"answer from {source}", 20: f"reset from {source}"}.get(flags & 23, f"tcp {to}:{port}")]


# --- DNS ----------------------------------------------------------------------------------------------------------------

zone = json.load(open(f"{DIRECTORY}/zone.json"))
zone_lock = threading.Lock()


def name_in(message):
    labels, at = [], 12
    while message[at]:
        labels.append(message[at + 1:at + 1 + message[at]].decode("ascii", "backslashreplace"))
        at += 1 + message[at]
    return ".".join(labels).lower(), at + 1


def question(message):
    try:
        name, end = name_in(message)
        kind = struct.unpack("!H", message[end:end + 2])[0]
        return f"{name} {KINDS.get(kind, kind)}"
    except (IndexError, struct.error):
        return "of no name"


def rdata(kind, value):
    if kind in ("A", "AAAA"):
        return socket.inet_pton(socket.AF_INET if kind == "A" else socket.AF_INET6, value)
    if kind == "TXT":
        return bytes([len(value)]) + value.encode()
    labels = b"".join(bytes([len(label)]) + label.encode() for label in value.split(".")) + b"\0"
    return struct.pack("!HHH", 1, 1, 443) + labels if kind == "SRV" else b"\0\1" + labels


def take(name, kind):
    """The next answer of several; the last one stays."""
    with zone_lock:
        answers = zone.get(name, {}).get(kind, [[]])
        return answers.pop(0) if len(answers) > 1 else answers[0]


def dns_answer(message, at, by):
    name, end = name_in(message)
    number = struct.unpack("!H", message[end:end + 2])[0]
    kind = KINDS.get(number, str(number))
    tell(query=name, kind=kind, at=at, by=by)
    known = name in zone
    records = [struct.pack("!HHHIH", 0xC00C, number, 1, 0, len(data)) + data for data in (rdata(kind, v) for v in take(name, kind))]
    head = message[:2] + struct.pack("!BBHHHH", 0x81, 0x80 if known else 0x83, 1, len(records), 0, 0)
    return head + message[12:end + 4] + b"".join(records)


def serve_dns(address):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))

    def loop():
        while True:
            message, sender = server.recvfrom(65536)
            server.sendto(dns_answer(message, address, "udp"), sender)
    threading.Thread(target=loop, daemon=True).start()


def dns_by_tcp(stream, address):
    while head := stream.recv(2, socket.MSG_WAITALL):
        answer = dns_answer(stream.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL), address, "tcp")
        stream.sendall(struct.pack("!H", len(answer)) + answer)


# --- servers ------------------------------------------------------------------------------------------------------------

FILES = {"/repo.git/info/refs": "0123456789abcdef0123456789abcdef01234567\trefs/heads/main\n", "/repo.git/HEAD": "ref: refs/heads/main\n"}


class Counted:
    """A connection, and how much came in."""

    def __init__(self, stream):
        self.stream, self.said = stream, b""

    def recv(self, most):
        data = self.stream.recv(most)
        self.said = (self.said + data)[:1 << 16]
        return data


def http(counted, where):
    """Answers each request with where it came to and whom it named."""
    rest = b""
    while True:
        while b"\r\n\r\n" not in rest:
            data = counted.recv(65536)
            if not data:
                return
            rest += data
        head, rest = rest.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ", 2)
        fields = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
        path = "/" + path.split("/", 3)[-1] if path.startswith("http") else path.split("?")[0]
        body = FILES.get(path, f"hello from {where} as {fields.get('host')}\n").encode()
        close = fields.get("connection", "").lower() == "close"
        answer = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n" + "Connection: close\r\n" * close
        counted.stream.sendall(answer.encode() + b"\r\n" + (b"" if method == "HEAD" else body))
        if close:
            return


def banner(counted, where):
    counted.stream.sendall(b"SSH-2.0-outside\r\n")
    counted.recv(65536)


def echo(counted, where):
    while data := counted.recv(65536):
        counted.stream.sendall(data)


def postgres(counted, where):
    """Enough of PostgreSQL's protocol to refuse a client in its own words (message formats, section 55.7 of its manual)."""
    while True:
        data = counted.recv(65536)
        if not data:
            return
        if data[4:8] in (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30"):
            counted.stream.sendall(b"N")
            continue
        words = b"SFATAL\0C28000\0Mhello from the outside\0\0"
        return counted.stream.sendall(b"E" + struct.pack("!I", len(words) + 4) + words)


def redis(counted, where):
    """Enough of Redis's protocol to answer each command (RESP2: the number of its words, and each with its length)."""
    said = b""
    while data := counted.recv(65536):
        said += data
        if said.count(b"\r\n") == 1 + 2 * int(said[1:].split(b"\r\n")[0]):
            counted.stream.sendall(b"+hello from the outside\r\n")
            said = b""


def with_tls(stream, meta):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{DIRECTORY}/server.pem", f"{DIRECTORY}/server.key")
    context.sni_callback = lambda _, name, __: meta.update(sni=name)
    return context.wrap_socket(stream, server_side=True)


def attend(stream, serve, port):
    where = stream.getsockname()[0].removeprefix("::ffff:")
    meta = {"at": f"[{where}]:{port}" if ":" in where else f"{where}:{port}", "peer": stream.getpeername()[1]}
    tell(arrived=meta["at"], peer=meta["peer"])
    counted = Counted(stream)
    try:
        if port == 53:
            dns_by_tcp(stream, where)
        else:
            counted.stream = with_tls(stream, meta) if port == 443 else stream
            serve(counted, meta["at"])
    except (OSError, struct.error) as error:
        meta["error"] = str(error)
    finally:
        tell(ended=meta["at"], bytes=len(counted.said), said=counted.said[:200].decode("latin-1"), **meta)
        counted.stream.close()


def listen(port, serve):
    family = socket.AF_INET6 if HAS_IPV6 else socket.AF_INET
    server = socket.create_server(("", port), family=family, backlog=512, dualstack_ipv6=HAS_IPV6)

    def loop():
        while True:
            stream, _ = server.accept()
            threading.Thread(target=attend, args=(stream, serve, port), daemon=True).start()
    threading.Thread(target=loop, daemon=True).start()


def fetch(where):
    """What a server of the inside says to one request, until it closes."""
    try:
        with socket.create_connection((INSIDE, where["port"]), timeout=20) as stream:
            stream.sendall(where["say"].encode())
            parts = []
            while data := stream.recv(65536):
                parts.append(data)
            return b"".join(parts).decode("latin-1")
    except OSError as error:
        return f"({error})"


def obey(order, tap):
    global zone
    if "zone" in order:
        with zone_lock:
            zone = order["zone"]
        return True
    if "fetch" in order:
        return fetch(order["fetch"])
    return tap.drain()


def main():
    holder, socket_of_tap = make_inside()
    tap = Tap(socket_of_tap)
    for address in NAMESERVERS:
        serve_dns(address)
    servers = {53: None, 80: http, 443: http, 8443: http, 2222: banner, 5432: echo, 5433: postgres, 6379: redis}
    for port, serve in servers.items():
        listen(port, serve)
    tell(inside=holder.pid)
    for line in sys.stdin:
        tell(answer=obey(json.loads(line), tap))


hold() if sys.argv[2:3] == ["hold"] else main()
