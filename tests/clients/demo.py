"""Runs `rolegate demo` as a program and says where its doors are."""

import json
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

from gates import GENERAL, Gate
from program import Program, program


@dataclass(frozen=True)
class Doors:
    """Two ways to one sample server: through rolegate, and past it."""

    gate: str
    sample: str


class Demo:
    """A running `rolegate demo`; `stop` ends it and is an error when it does not end well."""

    def __init__(self, folder: Path) -> None:
        self.program = program()
        self._running = Program(["demo", "--format", "json"], folder, "stdout", lambda line: line if "ready" in line else None)
        doors = self._running.ready["ready"]
        self.rocketchat = Doors(**doors["rocketchat"])
        self.docusign = Doors(**doors["docusign-rooms"])
        self.admin: str = doors["admin"]
        self.audit = folder / self._running.ready["audit"]
        self._general = None
        if GENERAL:
            self._stand_before_it(folder)

    def _stand_before_it(self, folder: Path) -> None:
        """Puts a gate before the sample servers that knows the general path alone, in the place of the demo's own."""
        servers = {"rocketchat": self.rocketchat.sample, "docusign_rooms": self.docusign.sample}
        gate = self._general = Gate("general", folder, **servers)
        self.rocketchat = replace(self.rocketchat, gate=f"http://127.0.0.1:{gate.port}")
        self.docusign = replace(self.docusign, gate=f"http://localhost:{gate.port}")
        self.admin, self.audit = gate.admin, gate.audit
        with urllib.request.urlopen(f"{self.admin}/status") as status:
            assert json.load(status)["fast_path"]["enabled"] is False

    def stop(self) -> None:
        if self._general:
            self._general.stop()
        self._running.stop()
