"""Further gates that `rolegate run` opens: one before servers that fail, one with a policy of the operator's own."""

import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from program import Program, program

TEMPLATES = Path(__file__).parent / "gates"
AUDIT = Path("audit/audit.jsonl")


class Gate:
    """A running `rolegate run` with the configuration `gates/<name>.toml` before this upstream."""

    def __init__(self, name: str, upstream: str, folder: Path) -> None:
        text = (TEMPLATES / f"{name}.toml").read_text().replace("{upstream}", upstream)
        (folder / "rolegate.toml").write_text(text)
        self._running = Program(["run", "--config", "rolegate.toml"], folder, "stderr", lambda line: line.get("listening"))
        self.port = int(self._running.ready.rpartition(":")[2])
        self.audit = folder / AUDIT

    def stop(self) -> None:
        self._running.stop()


def strict(upstream: str, folder: Path) -> Gate:
    """A gate whose operator added a policy to the built-in ones."""
    subprocess.run([program(), "init", "."], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    for file in ("profiles.cedar", "cases.toml"):
        shutil.copy(TEMPLATES / file, folder / "policies/rocketchat" / file)
    return Gate("strict", upstream, folder)


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
