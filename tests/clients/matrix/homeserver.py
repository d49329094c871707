"""Runs a Synapse in a folder that holds everything of it, and reads in its log which requests reached it."""

import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from wire import ask

NAME = "localhost"
READY_WITHIN = 90
ENDS_WITHIN = 30
LOGGED_WITHIN = 10
# Stories come faster than people; what they are about is not how often one may ask.
UNLIMITED = {"per_second": 10_000, "burst_count": 10_000}


class Homeserver:
    """A running Synapse; `stop` ends it."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "homeserver.log"
        self._output = folder / "output.txt"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = write_config(folder, port)
        #: The token of the application service that is registered with it.
        self.service = _service(folder)["as_token"]
        command = [sys.executable, "-m", "synapse.app.homeserver", "--config-path", str(config)]
        with self._output.open("ab") as output:
            if not (folder / "signing.key").exists():
                subprocess.run([*command, "--generate-keys"], cwd=folder, stdout=output, stderr=output, check=True)
            self._process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            self._wait_until_ready()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(self._story(f"Synapse did not end within {ENDS_WITHIN} s of SIGTERM")) from None

    def seen(self, request_id: str) -> list[str]:
        """The method and target of the requests that arrived with this id; waits until there is one."""
        deadline = time.monotonic() + LOGGED_WITHIN
        while not (requests := self.seen_so_far(request_id)) and time.monotonic() < deadline:
            time.sleep(0.01)
        return requests

    def seen_so_far(self, request_id: str) -> list[str]:
        lines = self._log.read_text(errors="replace").splitlines()
        # `… "GET /path HTTP/1.1" "user agent" …`, written when the answer is out.
        lines = [line for line in lines if request_id in line and "Processed request" in line]
        return [" ".join(line.split('"')[1].split(" ")[:2]) for line in lines]

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while True:
            assert self._process.poll() is None, self._story(f"Synapse ended with {self._process.returncode} at its start")
            try:
                if ask(self.url, "GET", "/_matrix/client/versions").status == 200:
                    return
            except OSError:
                pass
            assert time.monotonic() < deadline, self._story(f"Synapse was not ready within {READY_WITHIN} s")
            time.sleep(0.05)

    def _story(self, what: str) -> str:
        said = self._output.read_text(errors="replace")[-4000:]
        logged = self._log.read_text(errors="replace")[-4000:] if self._log.exists() else ""
        return f"{what}; it said:\n{said}\nand logged:\n{logged}"


def registration_secret(folder: Path) -> str:
    return _secrets(folder)["registration_shared_secret"]


def _secrets(folder: Path) -> dict[str, str]:
    """Made once in a folder: logins are signed with them, so a copy of the folder must have the same."""
    kept = folder / "secrets.json"
    if not kept.exists():
        names = ("registration_shared_secret", "macaroon_secret_key", "form_secret")
        kept.write_text(json.dumps({name: secrets.token_hex(16) for name in names}))
    return json.loads(kept.read_text())


def _service(folder: Path) -> dict:
    """A bridge that no program stands behind: Synapse has nowhere to send events to."""
    kept = folder / "service.json"
    if not kept.exists():
        registration = {
            "id": "bridge",
            "url": None,
            "as_token": secrets.token_hex(16),
            "hs_token": secrets.token_hex(16),
            "sender_localpart": "bridgebot",
            "namespaces": {"users": [{"regex": f"@_ghost_.*:{NAME}", "exclusive": True}]},
            "rate_limited": False,
        }
        kept.write_text(json.dumps(registration))
    return json.loads(kept.read_text())


def write_config(folder: Path, port: int) -> Path:
    """Everything that Synapse needs, with places in this folder; JSON, which is YAML too."""
    log = str(folder / "homeserver.log")
    logging = {
        "version": 1,
        # The request's id stands in `request`: rolegate's own, for what came through it.
        "formatters": {"lines": {"format": "%(asctime)s %(levelname)s %(request)s %(name)s %(message)s"}},
        "handlers": {"file": {"class": "logging.FileHandler", "formatter": "lines", "filename": log}},
        "loggers": {"synapse.access.http": {"level": "INFO"}},
        "root": {"level": "WARNING", "handlers": ["file"]},
        "disable_existing_loggers": False,
    }
    (folder / "logging.yaml").write_text(json.dumps(logging))
    config = {
        "server_name": NAME,
        "pid_file": str(folder / "homeserver.pid"),
        "listeners": [
            {
                "type": "http",
                "bind_addresses": ["127.0.0.1"],
                "port": port,
                "tls": False,
                "x_forwarded": True,
                "request_id_header": "x-request-id",
                "resources": [{"names": ["client", "federation"], "compress": False}],
            }
        ],
        "database": {"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}},
        "log_config": str(folder / "logging.yaml"),
        "media_store_path": str(folder / "media"),
        "signing_key_path": str(folder / "signing.key"),
        "report_stats": False,
        # Speaks to no other server.
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        "federation_domain_whitelist": [],
        "bcrypt_rounds": 4,
        "rc_message": UNLIMITED,
        "rc_room_creation": UNLIMITED,
        "rc_login": {"address": UNLIMITED, "account": UNLIMITED, "failed_attempts": UNLIMITED},
        "rc_joins": {"local": UNLIMITED, "remote": UNLIMITED},
        "rc_joins_per_room": UNLIMITED,
        "rc_invites": {"per_room": UNLIMITED, "per_user": UNLIMITED, "per_issuer": UNLIMITED},
        "rc_user_directory": UNLIMITED,
        "rc_profile": UNLIMITED,
        # JSON, which is YAML too.
        "app_service_config_files": [str(folder / "service.json")],
        **_secrets(folder),
    }
    _service(folder)
    path = folder / "homeserver.yaml"
    path.write_text(json.dumps(config, indent=1))
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
