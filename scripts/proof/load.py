"""The load of rolling-restart and reload-proof: clients and backends that cost little, in C."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
# How much of what was asked for is answered where the rate is held: some is still under way at the end.
HELD = 0.99


def compiled(name, folder):
    compiler = shutil.which("cc") or shutil.which("clang")
    if not compiler:
        raise SystemExit("a C compiler is missing: apt-get install gcc")
    binary = os.path.join(folder, name)
    subprocess.run([compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", binary,
                    os.path.join(HERE, name + ".c")], check=True)
    return binary


def free_ports(count):
    """Ports that no connection takes for its own end while a node that listened there is away."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        first = int(f.read().split()[0])
    ports = []
    while len(ports) < count:
        port = random.randrange(10_000, max(first, 20_000))
        with socket.socket() as s:
            try:
                s.bind(("", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


class Backends:
    """Ports that answer each request with what was asked for, and each WebSocket message with the message."""

    def __init__(self, folder, count=1):
        self.process = subprocess.Popen([compiled("backend", folder), str(count)], stdout=subprocess.PIPE)
        self.ports = [int(port) for port in self.process.stdout.readline().split()]


class Clients:
    """Clients of some addresses (`HOST:PORT`), from now on until `stop` says what they have seen."""

    def __init__(self, folder, addresses, **options):
        words = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), str(value))]
        # A group of its own: Ctrl-C is for the script, which then stops them.
        self.process = subprocess.Popen([compiled("clients", folder), *words, *addresses], stdout=subprocess.PIPE,
                                        start_new_session=True)
        if self.process.stdout.readline() != b"ready\n":
            raise SystemExit(f"the clients cannot start: {self.process.wait()}")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return json.loads(self.process.communicate(timeout=60)[0])

    def kill(self):
        self.process.kill()
        self.process.wait()


def is_held(seen):
    """Whether as much was asked as should have been: nothing was given up, and nearly all was answered in time."""
    return seen["skipped"] == 0 and seen["rate"] >= HELD * seen["asked"]


def described(seen):
    """What the clients saw, as lines."""
    pace = ""
    if seen["asked"]:
        pace = f" of {seen['asked']:.0f} asked for, the rate was {'held' if is_held(seen) else 'NOT held'}"
        pace += f" ({seen['skipped']} never begun)" if seen["skipped"] else ""
    yield f"{seen['rate']:.0f} requests a second{pace}; {seen['lowest']} in the worst second"
    yield (f"from when a request was due: median {seen['p50']:.1f} ms, 99 % {seen['p99']:.0f} ms, 99.9 % {seen['p999']:.0f} ms, "
           f"slowest {seen['slowest']:.0f} ms")
    for name, title in (("answered", "answered"), ("echoes", "echoes through tunnels"), ("connections", "connections"),
                        ("refused", "refused, next address tried"), ("closedIdle", "kept connections closed while idle")):
        if name != "echoes" or seen[name]:
            yield f"{seen[name]:10d}  {title}"
    for name, count in sorted(seen["failures"].items()):
        yield f"{count:10d}  FAILED: {name}"
    yield f"{seen['failed']} failed; the clients took {seen['processor']:.1f} us of processor time a request"
