"""What the scenes of prove-limits are made of: servers, nodes, clients, and the checker that reads what was written down."""

import collections
import importlib.machinery
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
loader = importlib.machinery.SourceFileLoader("bench", os.path.join(os.path.dirname(HERE), "bench"))
bench = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench", loader))
loader.exec_module(bench)

SERVICES = ["one", "twenty", "thousand", "mixed", "large", "slow"]

DONE = """
done = function(summary, latency, requests)
  io.write("asked " .. summary.requests .. " refused " .. summary.errors.status .. "\\n")
end
"""

# By how much the nodes' clocks are wrong, in milliseconds and millionths.
SKEWS = [(0, 0), (500, 400), (-500, -400), (250, -300), (-250, 300)]


class Redis:
    """Asks one thing after the other."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.file = self.socket.makefile("rb")

    def __call__(self, *words):
        out = b"*%d\r\n" % len(words)
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode()
            out += b"$%d\r\n%s\r\n" % (len(data), data)
        self.socket.sendall(out)
        return self.reply()

    def reply(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self.file.read(size + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return int(rest) if kind == b":" else line[:-2]


def eventually(what, condition, seconds=30):
    end = time.time() + seconds
    while time.time() < end:
        try:
            if condition():
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.05)
    sys.exit(f"not within {seconds} s: {what}")


class Server:
    """A Redis server that can be stopped, killed and started again."""

    def __init__(self, stage, *more, clock=None):
        self.environment = bench_environment(**dict(LD_PRELOAD=stage.clock, SKEW_FILE=clock) if clock else {})
        self.stage, self.port = stage, bench.free_port()
        self.directory = tempfile.mkdtemp(dir=stage.folder)
        self.more = more
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir",
             self.directory, "--logfile", "redis.log", *self.more], stdout=subprocess.DEVNULL, env=self.environment)
        self.stage.processes.append(self.process)
        eventually("redis-server answers", lambda: self.client()("PING") == b"+PONG")

    def client(self):
        return Redis(self.port)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def signal(self, number):
        self.process.send_signal(number)


def cpu(pid):
    """Seconds of processor time."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) / 1000


def bench_environment(**more):
    return dict(os.environ, PATH=bench.PATH, **more)


class Slow(threading.Thread):
    """A backend that takes 20 ms for each request, and knows how many of a client it has had at once."""

    def __init__(self):
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.socket.getsockname()[1]
        self.lock, self.running, self.most, self.arrived = threading.Lock(), collections.Counter(), 0, 0
        self.start()

    def run(self):
        while True:
            connection, _ = self.socket.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b""
        with connection:
            while True:
                while b"\r\n\r\n" not in data:
                    try:
                        piece = connection.recv(65536)
                    except OSError:
                        return
                    if not piece:
                        return
                    data += piece
                head, data = data.split(b"\r\n\r\n", 1)
                client = re.search(rb"x-forwarded-for:\s*([^\s,]+)", head, re.I).group(1)
                with self.lock:
                    self.running[client] += 1
                    self.arrived += 1
                    self.most = max(self.most, self.running[client])
                time.sleep(0.02)
                # Before the answer: whoever gets it may send the next request at once.
                with self.lock:
                    self.running[client] -= 1
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                except OSError:
                    return


class Relay(threading.Thread):
    """A way to Redis that can be cut: what is sent arrives nowhere, and nothing comes back."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.target, self.is_cut = port, False
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.socket.getsockname()[1]
        self.start()

    def run(self):
        while True:
            inner, _ = self.socket.accept()
            outer = socket.create_connection(("127.0.0.1", self.target))
            # Both before anything is carried: whoever carries may close them.
            for one in (inner, outer):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for one, other in ((inner, outer), (outer, inner)):
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    def carry(self, source, target):
        while True:
            try:
                data = source.recv(65536)
                if self.is_cut and data:
                    continue
                if not data:
                    target.close()
                    return
                target.sendall(data)
            except OSError:
                return


class Node:
    def __init__(self, stage, url, policies, rule, timeout="100ms"):
        self.stage, number = stage, len(stage.nodes)
        self.id = f"n{number}"
        self.port, self.admin = bench.free_port(), bench.free_port()
        self.log = os.path.join(stage.folder, f"{stage.name}-{self.id}.decisions")
        path = os.path.join(stage.folder, f"{stage.name}-{self.id}.yaml")
        with open(path, "w") as f:
            f.write(f"gateway: {{port: '127.0.0.1:{self.port}', admin: '127.0.0.1:{self.admin}', workers: 2, "
                    "accessLog: false, trustedProxies: [127.0.0.0/8]}\nservices:\n")
            for service in SERVICES:
                urls = [stage.slow.port] if service == "slow" else stage.backends
                f.write(f"  - {{name: {service}, path: /{service}, health: {{active: false}}, instances: ["
                        + ", ".join(f"'http://127.0.0.1:{port}'" for port in urls) + "]}\n")
            f.write(f"rateLimit:\n  redisURL: '{url}'\n  timeout: {timeout}\n  onRedisLoss: {rule}\n"
                    f"  decisionLog: '{self.log}'\n  policies:{policies}")
        skew, drift = SKEWS[number % len(SKEWS)]
        self.output = open(os.path.join(stage.folder, f"{stage.name}-{self.id}.log"), "w")
        self.process = subprocess.Popen(
            [bench.BINARY, "run", "--config", path, "--node-id", self.id], stdout=self.output, stderr=self.output,
            env=bench_environment(LD_PRELOAD=stage.clock, SKEW_MS=str(skew), SKEW_PPM=str(drift)))
        stage.processes.append(self.process)
        stage.nodes.append(self)
        self.wrk, self.is_killed = None, False

    def is_reached(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=2) as answer:
            return json.load(answer).get("cluster") == "reached"

    def load(self, script, connections):
        path = os.path.join(self.stage.folder, f"{self.id}.lua")
        with open(path, "w") as f:
            f.write(script.replace("SEED", str(len(self.stage.nodes) * 37)) + DONE)
        self.connections = connections
        self.wrk = subprocess.Popen(
            ["wrk", "-t1", f"-c{connections}", "-d600s", "--timeout", "10s", "-s", path, f"http://127.0.0.1:{self.port}"],
            stdout=subprocess.PIPE, text=True, env=bench_environment())
        self.stage.processes.append(self.wrk)

    def unload(self):
        """Ends its clients, and counts what they asked."""
        if not self.wrk:
            return
        self.wrk.send_signal(signal.SIGINT)
        out = self.wrk.communicate(timeout=60)[0]
        found = re.search(r"asked (\d+) refused (\d+)", out)
        self.stage.asked += int(found.group(1))
        self.stage.passed += int(found.group(1)) - int(found.group(2))
        self.stage.abandoned += self.connections
        self.wrk = None

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.is_killed = True
        self.unload()


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text).groups()
    return int(number) * {"ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


class Checker:
    """Reads the decision logs of all nodes.

    steps: when the server's clock was set, by a clock that was not, and what it was ahead from then on (both in
    microseconds). Times are then those of the clock that was not set.
    """

    def __init__(self, paths, steps=((0, 0),)):
        # By the policy's name: its limit, its window in microseconds, and what was admitted of each subject.
        self.policies = {}
        lists = collections.defaultdict(list)
        # When each node decided without Redis.
        self.alone = collections.defaultdict(list)
        for path in filter(os.path.exists, paths):
            step, last = 0, 0
            with open(path) as f:
                for line in f:
                    # A node that was killed may have been writing.
                    if not line.endswith("\n"):
                        continue
                    at, source, count, key = line.split(" ", 3)
                    # Whether it is from behind the next step: lines are in order but for moments.
                    while step + 1 < len(steps):
                        now, then, began = int(at) - steps[step][1], int(at) - steps[step + 1][1], steps[step + 1][0]
                        if then < began - 50_000 or last - 50_000 <= now <= began + 50_000:
                            break
                        step += 1
                    last = int(at) - steps[step][1]
                    lists[key.strip()].append((last, int(count), source))
                    if source != "window":
                        self.alone[path].append(last)
        for key, entries in lists.items():
            entries.sort()
            _, name, form, _ = key.split(":", 3)
            limit, window = form.split("/")[:2]
            policy = self.policies.setdefault(name, (int(limit), round(seconds(window) * 1e6), []))
            policy[2].append(entries)

    def fullest(self, name, inside=lambda start, end: True, unsure=0, source=None):
        """The most that any window's length holds for which `inside` says so of its first and last admission.

        unsure: microseconds that a time may be wrong, where it is not Redis that said it.
        source: whose admissions count; all by default.
        """
        limit, window, subjects = self.policies[name]
        most = 0
        for entries in subjects:
            held, first = 0, 0
            entries = [entry for entry in entries if source in (None, entry[2])]
            for at, count, _ in entries:
                held += count
                while at - entries[first][0] > window - unsure:
                    held -= entries[first][1]
                    first += 1
                if inside(entries[first][0], at):
                    most = max(most, held)
        return most, limit, window

    def names(self):
        return sorted(self.policies)

    def total(self, name):
        return sum(count for entries in self.policies.get(name, (0, 0, []))[2] for _, count, _ in entries)


class Stage:
    """One scene: its servers, nodes and clients, and what was seen."""

    def __init__(self, proof, name):
        self.proof, self.name = proof, name
        self.folder, self.clock, self.slow = proof.folder, proof.clock, proof.slow
        self.backends, self.processes = proof.backends, proof.processes
        self.nodes, self.asked, self.passed, self.abandoned = [], 0, 0, 0
        self.arrived_before = proof.arrived()
        self.slow.most = 0
        self.began = time.time()
        print(f"{name} …", flush=True)

    def add(self, url, policies, rule="closed", count=1, **more):
        added = [Node(self, url, policies, rule, **more) for _ in range(count)]
        for node in added:
            if url:
                eventually(f"{node.id} has reached Redis", node.is_reached)
            else:
                bench.wait_for(node.port)
        return added

    def live(self):
        return [node for node in self.nodes if not node.is_killed]

    def end(self, excuses=(), steps=((0, 0),), counts=True):
        """Ends all, and checks.

        excuses: intervals (by Redis's clock, in seconds) of which a window may hold a part of, and then up to twice the
        limit: Redis has lost data, or was replaced by a server that lacks some.
        """
        for node in self.live():
            node.unload()
        time.sleep(0.3)
        for node in self.live():
            node.process.send_signal(signal.SIGTERM)
        for node in self.live():
            node.process.wait(30)
        checker = Checker([node.log for node in self.nodes], steps)
        excuses = [(round(a * 1e6), round(b * 1e6)) for a, b in excuses]

        def excused(start, end):
            return any(start < until and end > since for since, until in excuses)

        rows = []
        for name in checker.names():
            strict, limit, window = checker.fullest(name, lambda a, b: not excused(a, b))
            bound = limit
            self.proof.check(strict <= bound, f"{self.name}: {name} has {strict} of {bound}")
            row = dict(policy=name, limit=limit, window=window / 1e6, fullest=strict, admitted=checker.total(name))
            if excuses:
                row["straddling"] = checker.fullest(name, excused)[0]
                self.proof.check(row["straddling"] <= 2 * limit,
                                 f"{self.name}: {name} has {row['straddling']} of {limit} across a loss")
            rows.append(row)
        if self.slow.most:
            rows.append(dict(policy="at-once", limit=10, window=None, fullest=self.slow.most, admitted=None))
            self.proof.check(self.slow.most <= 10, f"{self.name}: {self.slow.most} of 10 at once")
        # Each request to a service is written down once by these.
        counted = sum(checker.total(name) for name in ("one", "twenty", "thousand", "mixed-client"))
        counted += checker.total("large") // 2 + checker.total("hot") + checker.total("everybody")
        arrived = self.proof.arrived() - self.arrived_before
        # What a client gave up, or a node that was killed had under way, may be written down and never sent.
        self.proof.check(not counts or counted - self.abandoned <= arrived <= counted + self.lost_lines(),
                         f"{self.name}: {counted} written down, {arrived} arrived")
        result = dict(stage=self.name, asked=self.asked, passed=self.passed, written=counted, arrived=arrived,
                      seconds=round(time.time() - self.began), nodes=len(self.nodes), rows=rows)
        self.proof.results.append(result)
        self.proof.asked += self.asked
        return checker, result

    def lost_lines(self):
        """What a killed node may have sent to a backend and not written down any more."""
        return sum(node.connections for node in self.nodes if node.is_killed)
