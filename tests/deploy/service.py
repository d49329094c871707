"""A stand-in for systemd, which is not the first process here: it holds the socket and runs the service as the units say."""

import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from program import program
from rig import DEPLOY, PATIENCE, ROOT, free_port

FOLDER = DEPLOY / "systemd"
# The default of `listen.drain`, in seconds.
DRAIN = int(re.search(r'^drain = "(\d+)s"', (ROOT / "src/config/example.toml").read_text(), re.MULTILINE).group(1))
# What systemd's own child does last: the sockets from 3 on, and whom they are for.
HAND_OVER = """
import os, sys
numbers, command = [int(number) for number in sys.argv[1].split(",") if number], sys.argv[2:]
assert not numbers or min(numbers) >= 3 + len(numbers)
for place, number in enumerate(numbers, 3):
    os.dup2(number, place)
    os.close(number)
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.execv(command[0], command)
"""


class Unit:
    """A unit file: each setting's values in their order."""

    def __init__(self, name: str) -> None:
        self._settings: dict[tuple[str, str], list[str]] = {}
        section = ""
        for line in (FOLDER / name).read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif line and not line.startswith("#"):
                key, _, value = line.partition("=")
                self._settings.setdefault((section, key), []).append(value)

    def all(self, section: str, key: str) -> list[str]:
        return self._settings.get((section, key), [])

    def the(self, section: str, key: str) -> str:
        (value,) = self.all(section, key)
        return value


def seconds(text: str) -> int:
    assert text.endswith("s"), text
    return int(text.removesuffix("s"))


class Host:
    """A machine's folders, below `folder`, laid out as the guide says; names below /etc, /run and /var lead there."""

    def __init__(self, folder: Path, upstream: str) -> None:
        self.folder = folder
        self.service, self.socket = Unit("rolegate.service"), Unit("rolegate.socket")
        self.port, self.admin = free_port(), f"127.0.0.1:{free_port()}"
        for place in ("etc/rolegate/secrets", "run/credentials/rolegate.service", "usr/local/bin", "var/lib"):
            (folder / place).mkdir(parents=True)
        (folder / "usr/local/bin/rolegate").symlink_to(program())
        self.config = folder / "etc/rolegate/rolegate.toml"
        config = self.here((FOLDER / "rolegate.toml").read_text())
        self.config.write_text(config.replace("http://127.0.0.1:3000", upstream).replace("127.0.0.1:9901", self.admin))

    def here(self, text: str) -> str:
        """`text` with this machine's folders and port in the place of a real one's."""
        for place in ("/etc/rolegate", "/run/credentials", "/usr/local/bin", "/var/lib/rolegate"):
            text = text.replace(place, f"{self.folder}{place}")
        return text.replace("0.0.0.0:80", f"127.0.0.1:{self.port}")

    @property
    def audit(self) -> Path:
        return self.folder / "var/lib/rolegate/audit.jsonl"


class Manager:
    """Holds the sockets of rolegate.socket and runs rolegate.service, one process after the other."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.sockets = [self._listen(host.here(address)) for address in host.socket.all("Socket", "ListenStream")]
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told.bind(str(host.folder / "run/notify"))
        self._told.settimeout(PATIENCE)
        self.messages: list[dict[str, str]] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.log = host.folder / "journal.txt"
        # Further confinement: what is done in the child, and a command that begins the service's.
        self.confinement: Callable[[], None] = lambda: None
        self.wrapper: list[str] = []

    def _listen(self, address: str) -> socket.socket:
        name, _, port = address.rpartition(":")
        return socket.create_server((name, int(port)), backlog=int(self.host.socket.the("Socket", "Backlog")))

    def start(self, **environment: str) -> None:
        """`systemctl start`: returns once the service is ready."""
        self.launch(self.sockets, **environment)
        self.until("READY=1")

    def launch(self, sockets: list[socket.socket], **environment: str) -> None:
        """Begins the service's process, as the unit says."""
        assert self.host.service.the("Service", "Type") == "notify"
        assert self.process is None or self.process.poll() is not None, "two at once"
        command = shlex.split(self.host.here(self.host.service.the("Service", "ExecStart")))
        self._credentials()
        # DynamicUser's folder: there before the start, and kept.
        state = self.host.folder / "var/lib" / self.host.service.the("Service", "StateDirectory")
        state.mkdir(mode=int(self.host.service.the("Service", "StateDirectoryMode"), 8), exist_ok=True)
        files, most = int(self.host.service.the("Service", "LimitNOFILE")), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if most != resource.RLIM_INFINITY:
            # As many as this machine lets anybody have.
            files = min(files, most)
        numbers = [one.fileno() for one in sockets]

        def prepare() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
            self.confinement()

        told = {"NOTIFY_SOCKET": str(self.host.folder / "run/notify"), "LISTEN_FDS": str(len(sockets))}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, sys.executable, "-c", HAND_OVER, ",".join(map(str, numbers)), *command],
                cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=numbers, env={**told, **environment},
                umask=int(self.host.service.the("Service", "UMask"), 8),
                preexec_fn=prepare,
            )

    def _credentials(self) -> None:
        """Each file of the folder that LoadCredential names, as ID_NAME, anew at each start."""
        name, _, source = self.host.here(self.host.service.the("Service", "LoadCredential")).partition(":")
        place = self.host.folder / "run/credentials/rolegate.service"
        shutil.rmtree(place)
        place.mkdir(mode=0o700)
        for file in Path(source).iterdir():
            shutil.copy(file, place / f"{name}_{file.name}")
            (place / f"{name}_{file.name}").chmod(0o400)

    def stop(self) -> None:
        """`systemctl stop`: the socket stays."""
        self.process.send_signal(signal.SIGTERM)
        self.ended()

    def ended(self) -> None:
        """Waits until the service ended well."""
        within = seconds(self.host.service.the("Service", "TimeoutStopSec"))
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end within {within} s:\n{self.journal()}") from None
        assert code == 0, f"ended with {code}:\n{self.journal()}"

    def restart(self) -> None:
        """`systemctl restart`."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """`systemctl reload`: what ExecReload says; returns once the service is ready again."""
        command = self.host.service.the("Service", "ExecReload").replace("$MAINPID", str(self.process.pid))
        subprocess.run(shlex.split(command), check=True)
        self.until("RELOADING=1")
        self.until("READY=1")

    def until(self, wanted: str, told: Callable[[dict[str, str]], bool] | None = None) -> dict[str, str]:
        """Receives what the service tells until it tells this; that message."""
        key, _, value = wanted.partition("=")
        told = told or (lambda message: message.get(key) == value)
        deadline = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < deadline, f"no {wanted}:\n{self.journal()}"
            self._told.settimeout(0.1)
            try:
                received = self._told.recv(65536).decode()
            except TimeoutError:
                code = self.process.poll()
                assert code is None or key == "STOPPING", f"ended with {code} before {wanted}:\n{self.journal()}"
                continue
            message = dict(line.split("=", 1) for line in received.splitlines())
            self.messages.append(message)
            if told(message):
                return message

    def journal(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)

    def close(self) -> None:
        """Ends what is left, and lets go of the port."""
        self.kill()
        self._told.close()
        for one in self.sockets:
            one.close()
