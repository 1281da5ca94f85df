"""A network of its own, with one way out that leads nowhere, and a tap on it. Run as root of the network namespace.

usage: yard.py DIRECTORY COMMAND...
Runs the command; afterwards DIRECTORY/leaks has one line for each packet that took the way out, and DIRECTORY/code how
the command ended.
"""
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import stalled

ETH_P_ALL = 3
# What the kernel sends of its own for an interface with IPv6: router and neighbour solicitations, group reports.
HOUSEKEEPING = {133, 135, 143}


def ip(line):
    subprocess.run(["ip", *line.split()], check=True)


def add_way_out():
    """Whatever the kernel has that leads nowhere."""
    for kind in ("dummy", "ifb", "veth"):
        if subprocess.run(["ip", "link", "add", "out0", "type", kind], stderr=subprocess.DEVNULL).returncode == 0:
            return
    sys.exit("no kind of device that leads nowhere")


def lay_out():
    ip("link set lo up")
    add_way_out()
    ip("link set out0 addrgenmode none")
    # No neighbour is looked for: what is sent is seen at once.
    ip("link set out0 arp off")
    ip("addr add 192.0.2.2/24 dev out0")
    ip("link set out0 up")
    ip("route add default via 192.0.2.1 dev out0 onlink")
    if os.path.exists("/proc/sys/net/ipv6"):
        ip("-6 addr add 2001:db8::2/64 dev out0 nodad")
        ip("-6 addr add fe80::1/64 dev out0 nodad")
        ip("-6 route add default dev out0")


def is_housekeeping(frame):
    if frame[12:14] != b"\x86\xdd" or len(frame) < 64:
        return False
    is_icmpv6 = frame[20] == 58 or frame[20] == 0 and frame[54] == 58
    kind = frame[62] if frame[20] == 0 else frame[54]
    # A report of groups is the kernel's own only as long as it names no group but those of the interface's own addresses.
    return is_icmpv6 and kind in HOUSEKEEPING and b"\xff\x0e" not in frame


def drain(tap):
    packets = []
    while True:
        try:
            frame, (_, _, direction, _, _) = tap.recvfrom(65536)
        except BlockingIOError:
            return packets
        if direction == socket.PACKET_OUTGOING and not is_housekeeping(frame):
            packets.append(frame[14:94].hex())


def run_a_runtime(directory):
    """What container runtimes have: a socket for their own user, one that they leave open to all, and an abstract one."""
    def attend(server):
        while True:
            server.accept()[0].sendall(b"runtime")

    for name, mode in ((f"{directory}/roots.sock", 0o660), (f"{directory}/open.sock", 0o666), ("\0runtime", None)):
        server = socket.socket(socket.AF_UNIX)
        server.bind(name)
        if mode:
            os.chmod(name, mode)
        server.listen()
        threading.Thread(target=attend, args=[server], daemon=True).start()


def count_descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def is_stopped(pid, tid):
    try:
        with open(f"/proc/{pid}/task/{tid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return True  # It has ended.


def stop(pid):
    """Stops a process, and returns when none of its threads runs any more."""
    os.kill(pid, signal.SIGSTOP)
    while not all(is_stopped(pid, tid) for tid in os.listdir(f"/proc/{pid}/task")):
        time.sleep(0.01)
    return "stopped"


def resume(pid):
    os.kill(pid, signal.SIGCONT)
    return "resumed"


def act_from_outside(directory):
    """Does on demand what only somebody outside the confinement may do to a process: one line for each, a word and a number."""
    deeds = {"count": count_descriptors, "stop": stop, "resume": resume}

    def attend(client):
        with client, client.makefile("rw") as lines:
            for line in lines:
                word, pid = line.split()
                lines.write(f"{deeds[word](int(pid))}\n")
                lines.flush()

    def listen(server):
        while True:
            threading.Thread(target=attend, args=[server.accept()[0]], daemon=True).start()

    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{directory}/outside.sock")
    os.chmod(f"{directory}/outside.sock", 0o666)
    server.listen()
    threading.Thread(target=listen, args=[server], daemon=True).start()


def main():
    directory, command = sys.argv[1], sys.argv[2:]
    lay_out()
    run_a_runtime(directory)
    act_from_outside(directory)
    if os.path.exists(f"{directory}/ports"):
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "w") as first:
            first.write("0")
    if os.path.exists(f"{directory}/stalled"):
        stalled.offer(directory)
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    tap.bind(("out0", 0))
    tap.setblocking(False)
    # With a namespace of mounts the nameserver is one that nobody runs.
    with open(f"{directory}/resolv.conf", "w") as resolver:
        resolver.write("nameserver 192.0.2.53\noptions timeout:20 attempts:1\n")
    subprocess.run(["mount", "--bind", f"{directory}/resolv.conf", "/etc/resolv.conf"], check=True)
    code = subprocess.run(command).returncode
    # Whoever outlives everybody and means to act then has said so.
    while os.path.exists(f"{directory}/outlives") and not os.path.exists(f"{directory}/orphan"):
        time.sleep(0.01)
    # A packet is in the tap's queue before the call that sent it returns.
    with open(f"{directory}/leaks", "w") as leaks:
        leaks.writelines(line + "\n" for line in drain(tap))
    with open(f"{directory}/code", "w") as end:
        end.write(str(code))


main()
