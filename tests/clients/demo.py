"""Runs `rolegate demo` as a program and says where its doors are."""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

READY_WITHIN = 60
ENDS_WITHIN = 30


@dataclass(frozen=True)
class Doors:
    """Two ways to one sample server: through rolegate, and past it."""

    gate: str
    sample: str


class Demo:
    """A running `rolegate demo`; `stop` ends it and is an error when it does not end well."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program = program
        self._errors = folder / "stderr.txt"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [program, "demo", "--format", "json"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Reads to the end, so that a full pipe never stops the program.
        threading.Thread(target=self._read, daemon=True).start()
        try:
            ready = self._wait_until_ready()
            doors = ready["ready"]
            self.rocketchat = Doors(**doors["rocketchat"])
            self.docusign = Doors(**doors["docusign-rooms"])
            self.admin: str = doors["admin"]
            self.audit = folder / ready["audit"]
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(self._story(f"rolegate demo did not end within {ENDS_WITHIN} s of SIGTERM")) from None
        assert code == 0, self._story(f"rolegate demo ended with {code} after SIGTERM")

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _wait_until_ready(self) -> dict:
        deadline = time.monotonic() + READY_WITHIN
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(self._story(f"rolegate demo was not ready within {READY_WITHIN} s")) from None
            if line is None:
                raise AssertionError(self._story(f"rolegate demo ended with {self._process.wait()} before it was ready"))
            message = json.loads(line)
            if "ready" in message:
                return message

    def _story(self, what: str) -> str:
        return f"{what}; its standard error ends:\n{self._errors.read_text(errors='replace')[-4000:]}"


def program() -> str:
    """The rolegate program under test; a test run without one is a failure, not a skip."""
    named = os.environ.get("ROLEGATE_BIN")
    assert named, "ROLEGATE_BIN must name the rolegate program, for example target/release/rolegate"
    found = Path(named).resolve()
    assert found.is_file() and os.access(found, os.X_OK), f"ROLEGATE_BIN={named} is not a program"
    return str(found)
