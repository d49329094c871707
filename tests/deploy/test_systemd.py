"""The units: systemd's own checkers are silent, and a stand-in for systemd runs rolegate as they say."""

import ctypes
import ctypes.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests
from program import program
from rig import certify, until
from service import DRAIN, FOLDER, Host, Manager, Unit, seconds
from world import BOARDROOM, CAROL

UNITS = ["rolegate.service", "rolegate.socket"]
SERVICE, SOCKET = map(Unit, UNITS)
CONFIG = tomllib.loads((FOLDER / "rolegate.toml").read_text())
# The most that `systemd-analyze security` may find, in tenths.
EXPOSURE = 20
RUN_AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "--preserve-env"]


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with the program under test in the place of the installed one, which need not be on this machine."""
    folder = tmp_path / "units"
    folder.mkdir()
    for name in UNITS:
        (folder / name).write_text((FOLDER / name).read_text().replace("/usr/local/bin/rolegate", program()))
    return folder


def analyze(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], cwd=folder, capture_output=True, text=True, check=False)


def test_systemds_checker_is_silent(units: Path) -> None:
    verified = analyze(units, "verify", "--man=no", *(f"./{name}" for name in UNITS))
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_systemds_checker_would_say_what_it_does_not_know(units: Path) -> None:
    service = units / "rolegate.service"
    service.write_text(service.read_text().replace("PrivateTmp=yes", "PrivateTemp=yes"))
    assert "PrivateTemp" in analyze(units, "verify", "--man=no", "./rolegate.service").stderr


def test_the_service_is_exposed_to_little(units: Path) -> None:
    words = ["security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", "./rolegate.service"]
    measured = analyze(units, *words)
    assert measured.returncode == 0, measured.stdout
    service = units / "rolegate.service"
    service.write_text(re.sub(r"^(SystemCallFilter|CapabilityBoundingSet|DynamicUser)=.*\n", "", service.read_text(), flags=re.MULTILINE))
    assert analyze(units, *words).returncode == 1, "the threshold is one"


def test_the_files_speak_of_the_same_places() -> None:
    assert SOCKET.all("Socket", "ListenStream") == [CONFIG["listen"]["address"]]
    assert CONFIG["audit"]["path"].startswith(f"/var/lib/{SERVICE.the('Service', 'StateDirectory')}/")
    name, _, folder = SERVICE.the("Service", "LoadCredential").partition(":")
    used = re.findall(r'"(/run/credentials/[^"]+)"', (FOLDER / "rolegate.toml").read_text())
    assert len(used) == 4
    assert all(place.startswith(f"/run/credentials/rolegate.service/{name}_") for place in used)
    assert folder.startswith("/etc/rolegate/")
    assert seconds(SERVICE.the("Service", "TimeoutStopSec")) > DRAIN
    assert int(SERVICE.the("Service", "LimitNOFILE")) > 2 * 10_000
    assert "rolegate.socket" in SERVICE.the("Unit", "Requires").split() and "rolegate.socket" in SERVICE.the("Unit", "After").split()


def test_what_only_later_versions_than_debian_12s_know_is_not_used() -> None:
    # Of 253 and later; the checker of an older version would not be silent, but this test may run on a newer one.
    later = ["notify-reload", "ImportCredential", "RestartSteps", "RestartMaxDelaySec", "PrivatePIDs", "ProtectControlGroups=strict"]
    text = "".join(line for name in UNITS for line in (FOLDER / name).read_text().splitlines(keepends=True) if not line.startswith("#"))
    assert [word for word in later if word in text] == []


@pytest.fixture
def host(upstream: str, tmp_path: Path) -> Host:
    return Host(tmp_path / "host", upstream)


@pytest.fixture
def manager(host: Host) -> Iterator[Manager]:
    running = Manager(host)
    yield running
    running.close()


def ask(host: Host, path: str = f"/api/v1/rooms.roles?rid={BOARDROOM}") -> requests.Response:
    headers = {"X-User-Id": str(CAROL.id), "X-Auth-Token": CAROL.token}
    return requests.get(f"http://127.0.0.1:{host.port}{path}", headers=headers, timeout=30)


def kinds(host: Host) -> list[str]:
    return [json.loads(line)["kind"] for line in host.audit.read_text().splitlines()]


def test_it_tells_systemd_of_its_readiness_its_reloads_and_its_end(manager: Manager) -> None:
    manager.start()
    revision = requests.get(f"http://{manager.host.admin}/status", timeout=30).json()["policy_revision"]
    assert manager.messages == [{"READY": "1", "STATUS": f"guarding by policy revision {revision}"}]
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.reload()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    # The status is told whenever it was looked at, too.
    reloading, ready = [message for message in manager.messages[1:] if set(message) != {"STATUS"}]
    assert set(reloading) == {"RELOADING", "MONOTONIC_USEC"}
    assert before <= int(reloading["MONOTONIC_USEC"]) <= after
    assert ready == manager.messages[0]
    assert ask(manager.host).status_code == 200
    manager.process.send_signal(signal.SIGTERM)
    stopping = manager.until("STOPPING=1")
    assert stopping["STATUS"] == "finishing requests in flight"
    manager.ended()
    assert kinds(manager.host) == ["start", "reload", "decision", "outcome", "stop"]


def by_signal(host: Host) -> Path:
    """Gives it policies of its own that are read again when it is told; the file of one of them."""
    subprocess.run([program(), "init", host.folder / "set"], check=True, stdout=subprocess.DEVNULL)
    (host.folder / "set/policies").rename(host.config.parent / "policies")
    host.config.write_text(host.config.read_text().replace("[policies]\n", '[policies]\nreload = "signal"\ndirectory = "policies"\n'))
    return host.config.parent / "policies/rocketchat/policy.cedar"


def test_a_reload_that_failed_and_one_that_brought_other_policies_are_told_apart_by_the_status(manager: Manager) -> None:
    host, policies = manager.host, by_signal(manager.host)
    manager.start()
    good = policies.read_text()
    first = manager.messages[-1]["STATUS"]
    policies.write_text(good + "\npermit (principal, action, resource\n")
    manager.reload()
    assert manager.messages[-1]["STATUS"] == f"{first}; THE LAST RELOAD FAILED, see the log"
    assert ask(host).status_code == 200, "the last good policies decide"
    policies.write_text(good + "\n// Looked through.\n")
    manager.reload()
    assert re.fullmatch(r"guarding by policy revision [0-9a-f]{12}", manager.messages[-1]["STATUS"])
    assert manager.messages[-1]["STATUS"] != first
    manager.stop()


def test_policies_that_are_replaced_unasked_show_in_the_status_too(manager: Manager) -> None:
    policies = by_signal(manager.host)
    manager.host.config.write_text(manager.host.config.read_text().replace('reload = "signal"\n', ""))
    manager.start()
    first = manager.messages[-1]["STATUS"]
    policies.write_text(policies.read_text() + "\n// Looked through.\n")
    told = manager.until("another status", lambda message: message.get("STATUS", first) != first)
    assert re.fullmatch(r"guarding by policy revision [0-9a-f]{12}", told["STATUS"])
    manager.stop()


def test_a_reload_is_over_only_when_the_files_are_in_force_that_lay_there_when_it_was_asked_for(manager: Manager) -> None:
    policies = by_signal(manager.host)
    manager.start()
    good = policies.read_text()
    for number in range(8):
        # In one piece: half a file is another story.
        new = manager.host.folder / "new.cedar"
        new.write_text(f"{good}\n// Looked through {number} times.\n")
        new.rename(policies)
        manager.process.send_signal(signal.SIGHUP)
        # At once: the one before may still be reading.
        manager.until("RELOADING=1")
    while sum("RELOADING" in message for message in manager.messages) >= sum("READY" in message for message in manager.messages):
        manager.until("READY=1")
    last = [message["STATUS"] for message in manager.messages if "READY" in message][-1]
    manager.reload()
    assert [message["STATUS"] for message in manager.messages if "READY" in message][-1] == last
    manager.stop()


def test_clients_that_connect_while_nothing_runs_are_answered_once_it_does(manager: Manager) -> None:
    host = manager.host
    manager.start()
    manager.stop()
    head = "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    waiting = [socket.create_connection(("127.0.0.1", host.port), 30) for _ in range(100)]
    for one in waiting:
        one.sendall(head)
    manager.start()
    for one in waiting:
        with closing(one):
            assert one.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
    manager.stop()


def test_the_log_lies_in_the_state_directory_and_is_one_chain_over_restarts(manager: Manager) -> None:
    host = manager.host
    manager.start()
    for _ in range(3):
        assert ask(host).status_code == 200
        manager.restart()
    manager.stop()
    assert kinds(host) == ["start", "decision", "outcome", "stop"] * 3 + ["start", "stop"]
    assert oct(host.audit.stat().st_mode & 0o777) == "0o600", "nobody else reads it"
    verified = subprocess.run([program(), "audit", "verify", host.audit], capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout


def test_token_certificate_and_service_headers_come_as_credentials(manager: Manager) -> None:
    host = manager.host
    secrets = host.config.parent / "secrets"
    host.config.write_text(re.sub(r"^# (?=tls|token_file|service)", "", host.config.read_text(), flags=re.MULTILINE))
    certify(secrets)
    (secrets / "admin.token").write_text("sixteen characters or more\n")
    (secrets / "service.toml").write_text(f'X-User-Id = "{CAROL.id}"\nX-Auth-Token = "{CAROL.token}"\n')
    for file in secrets.iterdir():
        file.chmod(0o400)
    manager.start()
    asked = subprocess.run(
        ["curl", "--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}", f"https://127.0.0.1:{host.port}/api/v1/users.info?userId=x"],
        capture_output=True, text=True, check=False,
    )
    assert asked.stdout == "401"
    checked = subprocess.run([program(), "check", "--config", host.config], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, f"while it runs, its credentials are there for root: {checked.stdout}{checked.stderr}"

    before = certificate(host.port)
    for file in ("cert.pem", "key.pem"):
        (secrets / file).unlink()
    certify(secrets)
    manager.restart()
    assert certificate(host.port) != before, "a renewed one comes with a restart"
    manager.stop()


def certificate(port: int) -> bytes:
    """What is shown at `port`."""
    shown = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}"], input=b"", capture_output=True, check=False).stdout
    return re.search(rb"-----BEGIN CERTIFICATE-----.*?-----END", shown, re.DOTALL).group()


def refused(manager: Manager, sockets: list[socket.socket]) -> str:
    """Starts with these sockets, which must end the start with 3; what it says."""
    manager.launch(sockets)
    assert manager.process.wait(30) == 3, manager.journal()
    assert not manager.host.audit.exists(), "nothing was begun"
    return manager.journal()


def test_sockets_that_the_configuration_does_not_name_end_the_start(manager: Manager) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = "{}:{}".format(*other.getsockname())
        assert f"`listen.address` names 127.0.0.1:{manager.host.port}, but no such socket was handed over (left over: {address})" in refused(manager, [other])
        assert f"a socket for {address} was handed over, but neither `listen.address` nor `admin.address` names it" in refused(
            manager, [*manager.sockets, other]
        )
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_UNIX, kind) as other:
            assert "socket 0 that was handed over is no TCP listener" in refused(manager, [other])
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        assert "socket 0 that was handed over is no TCP listener" in refused(manager, [silent])


def test_the_admin_socket_may_be_handed_over_too(manager: Manager) -> None:
    name, _, port = manager.host.admin.rpartition(":")
    with socket.create_server((name, int(port))) as admin:
        manager.launch([admin, *manager.sockets])
        manager.until("READY=1")
        assert requests.get(f"http://{manager.host.admin}/readyz", timeout=30).status_code == 200
        assert ask(manager.host).status_code == 200
        manager.stop()


def test_what_is_meant_for_another_process_is_left_alone(manager: Manager) -> None:
    manager.launch(manager.sockets, LISTEN_PID="1")
    assert manager.process.wait(30) == 1, manager.journal()
    assert f"cannot listen on 127.0.0.1:{manager.host.port}" in manager.journal()


def test_it_runs_where_nobody_listens_for_what_it_tells(manager: Manager) -> None:
    manager.launch(manager.sockets, NOTIFY_SOCKET=str(manager.host.folder / "run/nobody"))
    until("it serves", lambda: ask(manager.host, "/echo").status_code == 200)
    assert "the service manager could not be told" in manager.journal()
    manager.stop()


def test_systemds_own_tool_hands_its_socket_over(host: Host) -> None:
    command = ["systemd-socket-activate", f"--listen=127.0.0.1:{host.port}", host.folder / "usr/local/bin/rolegate", "run", "--config", host.config]
    host.audit.parent.mkdir()
    running = subprocess.Popen(command, cwd=host.folder, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        def served() -> bool:
            try:
                return ask(host).status_code == 200
            except requests.ConnectionError:
                assert running.poll() is None
                return False
        until("it is started by the first connection", served)
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
    finally:
        running.kill()
        running.wait(30)
    assert kinds(host) == ["start", "decision", "outcome", "stop"]


class Confinement:
    """The unit's system call filter, as systemd applies it, for `preexec_fn`."""

    KILL, ALLOW = 0x80000000, 0x7FFF0000
    NO_NEW_PRIVILEGES = 38

    def __init__(self) -> None:
        self._library = ctypes.CDLL(ctypes.util.find_library("seccomp"), use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        allowed: set[str] = set()
        for value in SERVICE.all("Service", "SystemCallFilter"):
            named = self._calls(value.removeprefix("~").split())
            allowed = allowed - named if value.startswith("~") else allowed | named
        # systemd lets these pass always: without them no program begins.
        self.allowed = allowed | self._calls(["@default"]) | {"execve"}

    def _calls(self, sets: list[str]) -> set[str]:
        calls: set[str] = set()
        for name in sets:
            if name.startswith("@"):
                shown = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager", name], capture_output=True, text=True, check=True).stdout
                calls |= self._calls([line.strip() for line in shown.splitlines()[1:] if line.strip() and not line.strip().startswith("#")])
            else:
                calls.add(name)
        return calls

    def __call__(self) -> None:
        ctypes.CDLL(None).prctl(self.NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        # The unit says EPERM; here a forbidden call ends the program, so that none goes by unnoticed.
        rules = ctypes.c_void_p(self._library.seccomp_init(self.KILL))
        for name in sorted(self.allowed):
            number = self._library.seccomp_syscall_resolve_name(name.encode())
            if number >= 0:
                assert self._library.seccomp_rule_add(rules, self.ALLOW, number, 0) == 0, name
        assert self._library.seccomp_load(rules) == 0


def test_it_lives_with_the_system_calls_that_the_unit_leaves_it(manager: Manager) -> None:
    confinement = Confinement()
    assert {"read", "epoll_wait", "accept4"} <= confinement.allowed
    assert not {"mount", "ptrace", "setuid", "chroot", "reboot", "sched_setaffinity"} & confinement.allowed
    manager.confinement = confinement
    manager.start()
    assert ask(manager.host).status_code == 200
    assert ask(manager.host, "/echo").status_code == 200
    assert "process_open_fds" in requests.get(f"http://{manager.host.admin}/metrics", timeout=30).text
    manager.reload()
    manager.stop()


def test_it_measures_itself_in_the_small_proc_that_the_unit_leaves_it(manager: Manager) -> None:
    assert SERVICE.the("Service", "ProcSubset") == "pid"
    manager.wrapper = [*RUN_AS_ROOT, "unshare", "--mount", "sh", "-c", 'mount -t proc -o subset=pid proc /proc && exec "$@"', "small"]
    manager.start()
    page = requests.get(f"http://{manager.host.admin}/metrics", timeout=30).text
    assert re.search(r"^process_cpu_seconds_total \d", page, re.MULTILINE)
    for name in ("process_resident_memory_bytes", "process_open_fds", "process_max_fds"):
        assert re.search(rf"^{name} [1-9]", page, re.MULTILINE), name
    manager.stop()


def test_a_call_that_the_unit_does_not_leave_it_would_end_it() -> None:
    confinement = Confinement()
    ended = subprocess.run([shutil.which("chroot"), "/", "/bin/true"], preexec_fn=confinement, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGSYS
