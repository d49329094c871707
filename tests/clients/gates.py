"""Further gates that `rolegate run` opens: one before servers that fail, one with a policy of the operator's own."""

import json
import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from program import Program, program

TEMPLATES = Path(__file__).parent / "gates"
AUDIT = Path("audit/audit.jsonl")
#: Whether the stories are told on the general path alone.
GENERAL = os.environ.get("ROLEGATE_PATH") == "general"


def on_its_path(configuration: str) -> str:
    """A configuration for the path on which the stories are told."""
    return configuration.replace("[listen]\n", "[listen]\nfast_path = false\n", 1) if GENERAL else configuration


class Gate:
    """A running `rolegate run` with the configuration `gates/<name>.toml` before this upstream."""

    def __init__(self, name: str, folder: Path, **upstreams: str) -> None:
        text = (TEMPLATES / f"{name}.toml").read_text()
        for provider, upstream in upstreams.items():
            text = text.replace("{" + provider.replace("_", "-") + "}", upstream)
        (folder / "rolegate.toml").write_text(on_its_path(text))
        self._running = Program(["run", "--config", "rolegate.toml"], folder, "stderr", lambda line: line if "listening" in line else None)
        self.port = int(self._running.ready["listening"].rpartition(":")[2])
        self.admin = f"http://{self._running.ready['admin']}"
        self.audit = folder / AUDIT

    def stop(self) -> None:
        self._running.stop()


def strict(upstream: str, folder: Path) -> Gate:
    """A gate whose operator added a policy to the built-in ones."""
    subprocess.run([program(), "init", "."], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    for file in ("profiles.cedar", "cases.toml"):
        shutil.copy(TEMPLATES / file, folder / "policies/rocketchat" / file)
    return Gate("strict", folder, upstream=upstream)


class FailingServer:
    """A server that logs anybody in and answers everything else with 500."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Failing)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Failing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(500, {"success": False, "error": "the database is away"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(200, {"status": "success", "data": {"userId": "somebodyXPnMktTFb", "authToken": "some-token"}})

    def _answer(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
