"""What a measurement runs on: programs on their cores, their CPU time from /proc, the load, and what the machine is doing besides."""

import dataclasses
import http.client
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
#: The proxy's core, and that of the upstream and the load.
PROXY_CORE, LOAD_CORE = 0, 1
START_WITHIN = 15
ALLOWED, DENIED = "A", "U"


class Broken(Exception):
    """A run whose figures would mean something else than they say."""


@dataclasses.dataclass
class Kind:
    """A kind of request: where it goes, whose it is, and what it must be answered."""

    target: str
    status: int
    token: str = ALLOWED
    #: Whether each request comes with a token that was never seen.
    fresh: bool = False
    #: Records and lookups for each request.
    records: int = 0


KINDS = {
    "open": Kind("/avatar/{n}", 200),
    "permit": Kind("/api/v1/rooms.roles?rid=GENERAL{n}", 200, records=2),
    "deny": Kind("/api/v1/rooms.roles?rid=GENERAL{n}", 403, token=DENIED, records=1),
    "invalid": Kind("/api/v1/rooms.roles?rid=GENERAL%07{n}", 400, records=1),
    "cold": Kind("/api/v1/rooms.roles?rid=GENERAL{n}", 200, fresh=True, records=2),
}


def installed(command, package, why):
    """Debian's package of a command that is missing."""
    if shutil.which(command):
        return
    print(f"== installing Debian's {package}: {why}", flush=True)
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    subprocess.run([*sudo, "apt-get", "update", "-qq"], check=True)
    quiet = ["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    subprocess.run([*sudo, "env", *quiet], check=True, stdout=subprocess.DEVNULL)


def nginx(cache):
    """The upstream's program: the machine's, or else Debian's, unpacked into `cache` because its package would start a service."""
    unpacked = cache / "nginx" / "usr" / "sbin" / "nginx"
    if found := shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin"):
        return found
    if not unpacked.exists():
        print(f"== unpacking Debian's nginx into {cache / 'nginx'}: it is the upstream", flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-qq", "nginx"], cwd=cache, check=True)
        for package in cache.glob("nginx_*.deb"):
            subprocess.run(["dpkg", "-x", package, cache / "nginx"], check=True)
            package.unlink()
    return str(unpacked)


def free_ports(count):
    """Ports that nobody listened on a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def free_row(count):
    """The first of `count` ports in a row that nobody listened on a moment ago."""
    while True:
        [first] = free_ports(1)
        sockets = []
        try:
            for port in range(first, first + count):
                sockets.append(socket.create_server(("127.0.0.1", port)))
            return first
        except (OSError, OverflowError):
            continue
        finally:
            for each in sockets:
                each.close()


def tree(pid):
    """A process and all below it."""
    children = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    pids, found = [pid], []
    while pids:
        found.append(pids.pop())
        pids += children.get(found[-1], [])
    return found


def cpu_seconds(pid):
    """User and system seconds of a process and all below it, so far."""
    user = system = 0
    for each in tree(pid):
        try:
            fields = pathlib.Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        user += int(fields[11])
        system += int(fields[12])
    return user / TICKS, system / TICKS


def memory(pid, field):
    """A line of `status` (`VmHWM`, `VmRSS`) of a process and all below it, in MiB."""
    kib = 0
    for each in tree(pid):
        try:
            status = pathlib.Path(f"/proc/{each}/status").read_text()
        except OSError:
            continue
        if line := re.search(rf"^{field}:\s+(\d+)", status, re.M):
            kib += int(line[1])
    return kib / 1024


def machine_busy():
    """Seconds that the two cores have been busy, whoever with, the hypervisor's theft included."""
    busy = 0
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in (f"cpu{PROXY_CORE}", f"cpu{LOAD_CORE}"):
            user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[:8])
            busy += user + nice + system + irq + softirq + steal
    return busy / TICKS


def machine():
    """What the figures were taken on."""
    info = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.*)$", info, re.M)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": model[1] if model else os.uname().machine,
        "cores": os.cpu_count(),
        "kernel": os.uname().release,
        "load_average": round(os.getloadavg()[0], 2),
    }


class Program:
    """A program on one core, until it is stopped."""

    def __init__(self, argv, core, port, log, env=None):
        self.log = log
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | (env or {}),
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        self.pid = self.process.pid
        deadline = time.monotonic() + START_WITHIN
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    told = pathlib.Path(log).read_text(errors="replace")[-2000:]
                    raise Broken(f"{argv[0]} does not listen on port {port}:\n{told}") from None
                time.sleep(0.02)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                for pid in reversed(tree(self.pid)):
                    os.kill(pid, signal.SIGKILL)
                self.process.wait(10)


class Rig:
    """An upstream, and proxies before it."""

    def __init__(self, cache, arrivals=None):
        """`arrivals` is the program that makes a load of a given rate, where one is wanted."""
        if not {PROXY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
            raise Broken("a measurement needs two cores of its own: one for the proxy, one for the upstream and the load")
        installed("wrk", "wrk", "it makes the load")
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="rolegate-bench-"))
        self.arrivals = arrivals
        self.running = []
        self.loads = 0
        length, chunked = free_ports(2)
        self.upstreams = {"length": length, "chunked": chunked}
        config = (HERE / "upstream.conf").read_text()
        user = "user root;" if os.geteuid() == 0 else ""
        for name, value in {"WORK": self.work, "LENGTH": length, "CHUNKED": chunked, "USER": user, "PAD": "x" * 900}.items():
            config = config.replace(f"@{name}@", str(value))
        (self.work / "upstream.conf").write_text(config)
        argv = [nginx(cache), "-p", self.work, "-e", self.work / "upstream.err", "-c", self.work / "upstream.conf"]
        self.upstream = self.start(argv, LOAD_CORE, length)

    def start(self, argv, core, port, env=None):
        program = Program([str(each) for each in argv], core, port, self.work / "output.log", env)
        self.running.append(program)
        return program

    def stop(self, program):
        program.stop()
        self.running.remove(program)

    def close(self):
        for program in reversed(self.running):
            program.stop()
        shutil.rmtree(self.work, ignore_errors=True)

    def lookups(self):
        """How many times the upstream was asked who somebody is. Only rows that need it wait for the log."""
        before = -1
        path = self.work / "me.log"
        while True:
            now = path.stat().st_size if path.exists() else 0
            if now == before:
                return path.read_bytes().count(b"\n") if now else 0
            before = now
            # The upstream writes its log once a second.
            time.sleep(1.1)

    def probe(self, port, kind, framing):
        """One request of its kind, whose answer must be the one that is to be measured."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        target = kind.target.format(n=0)
        token = kind.token + "probe"
        connection.request("GET", target, headers={"X-Auth-Token": token, "X-User-Id": "u1", "Accept": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status != kind.status:
            raise Broken(f"{target} is answered {answer.status}, not {kind.status}: {body[:300]}")
        is_chunked = answer.getheader("transfer-encoding") == "chunked"
        if kind.status == 200 and is_chunked != (framing == "chunked"):
            raise Broken(f"{target} is answered {'chunked' if is_chunked else 'with a length'}, which is not what is measured")
        return body

    def load(self, port, kind, connections, seconds, rate=0, again=False):
        """Requests of one kind, one after another on each connection or `rate` of them a second whatever becomes of them, and what
        did; by new callers, or `again` by those of the load before."""
        self.loads += 0 if again else 1
        env = os.environ | {"TARGET": kind.target, "TOKEN": kind.token, "FRESH": "1" if kind.fresh else "", "RUN": f"{self.loads:06d}"}
        if rate:
            argv = [self.arrivals]
            env |= {"PORT": str(port), "CONNECTIONS": str(connections), "RATE": str(rate), "SECONDS": str(seconds)}
        else:
            argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", HERE / "load.lua"]
            argv += [f"http://127.0.0.1:{port}"]
        ran = subprocess.run(
            argv,
            env=env,
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
        )
        told = re.search(r"^JSON (.*)$", ran.stdout, re.M)
        if not told:
            raise Broken(f"{argv[0]}: {ran.stdout[-500:]} {ran.stderr[-500:]}")
        return json.loads(told[1])

    def measure(self, program, port, kind, connections, seconds, framing="length", rate=0):
        """One row: a probe, a short run to warm up, and the run that counts."""
        probed = self.probe(port, kind, framing)
        self.load(port, kind, connections, 1)
        children = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        upstream = lambda: sum(cpu_seconds(self.upstream.pid)) if program is not self.upstream else 0.0
        before, others = cpu_seconds(program.pid), machine_busy() - upstream() - children()
        began = time.monotonic()
        told = self.load(port, kind, connections, seconds, rate, again=not kind.fresh)
        lasted = time.monotonic() - began
        after, others = cpu_seconds(program.pid), machine_busy() - upstream() - children() - others
        requests = told["requests"]
        refused = 0 if kind.status < 400 else requests
        if requests == 0 or told["failed"] or told["refused"] != refused:
            raise Broken(f"of {requests} requests {told['refused']} were refused and {told['failed']} failed, probed {probed[:200]}")
        user, system = (after[0] - before[0]) * 1e6 / requests, (after[1] - before[1]) * 1e6 / requests
        return {
            "requests": requests,
            "cpu_us": user + system,
            "user_us": user,
            "system_us": system,
            "per_second": requests / (told["microseconds"] / 1e6),
            "p50_us": told["p50"],
            "p99_us": told["p99"],
            "peak_mib": memory(program.pid, "VmHWM"),
            "core_busy": (sum(after) - sum(before)) / lasted,
            # Of the two cores: what neither the proxy nor the upstream nor the load spent.
            "others": max(0.0, (others - (sum(after) - sum(before))) / lasted / 2),
        }


def records(log):
    """How many records an audit log has, by the number in its last line."""
    size = log.stat().st_size if log.exists() else 0
    if not size:
        return 0
    with open(log, "rb") as file:
        file.seek(max(0, size - (1 << 16)))
        last = file.read().splitlines()[-1]
    return json.loads(last)["seq"]
