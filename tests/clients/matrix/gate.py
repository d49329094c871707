"""Runs `rolegate run` before a homeserver and asks through it."""

import os
from pathlib import Path

from program import Program
from record import AuditFile
from town import Person
from wire import Answer, ask


#: Whether the stories are told on the general path alone.
GENERAL = os.environ.get("ROLEGATE_PATH") == "general"


def on_its_path(options: tuple[str, ...], folder: Path) -> list[str]:
    """The options of a gate for the path on which the stories are told, and with a record of each refusal: all come from one address."""
    given = list(options)
    text = ""
    if "--config" in given:
        at = given.index("--config")
        text = Path(given[at + 1]).read_text()
        del given[at : at + 2]
    assert "[listen]" not in text and "[audit]" not in text, text
    listen = "[listen]\nfast_path = false\n" if GENERAL else ""
    (folder / "path.toml").write_text(f"{listen}[audit]\nrefusals_per_address = 100000\n{text}")
    return [*given, "--config", str(folder / "path.toml")]


class Gate:
    """A running rolegate; `stop` ends it and is an error when it does not end well."""

    def __init__(self, folder: Path, *options: str) -> None:
        arguments = ["run", *on_its_path(options, folder), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self._running = Program(arguments, folder, "stderr", lambda line: line if "listening" in line else None)
        self.url = f"http://{self._running.ready['listening']}"
        self.admin = f"http://{self._running.ready['admin']}"
        self.audit = AuditFile(folder / "audit" / "audit.jsonl")

    def ask(self, method: str, target: str, person: Person | None = None, **more) -> Answer:
        return ask(self.url, method, target, token=person.token if person else None, **more)

    def forget(self, person: Person) -> None:
        """Drops what is known of somebody, as an operator does it."""
        answer = ask(self.admin, "POST", "/facts/invalidate", body={"subject": person.id})
        assert answer.status == 200, answer

    def stop(self) -> None:
        self._running.stop()
