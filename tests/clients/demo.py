"""Runs `rolegate demo` as a program and says where its doors are."""

from dataclasses import dataclass
from pathlib import Path

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

    def stop(self) -> None:
        self._running.stop()
