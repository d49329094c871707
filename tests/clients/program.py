"""Runs the rolegate program under test until it is stopped."""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

READY_WITHIN = 60
ENDS_WITHIN = 30


class Program:
    """A running rolegate; `stop` ends it and is an error when it does not end well.

    It is ready when a line of `announces`, one of `stdout` and `stderr`, is a JSON object that `ready` makes something of.
    `command` runs it in another way than as the program under test.
    """

    def __init__(
        self, arguments: list[str], folder: Path, announces: str, ready: Callable[[dict], object], command: list[str] | None = None
    ) -> None:
        self.name = f"rolegate {arguments[0]}"
        self._other = folder / "output.txt"
        with self._other.open("wb") as other:
            streams = {"stdout": other, "stderr": other, announces: subprocess.PIPE}
            self._process = subprocess.Popen([*(command or [program()]), *arguments], cwd=folder, stdin=subprocess.DEVNULL, **streams)
        self.pid = self._process.pid
        self._output = getattr(self._process, announces)
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._read_so_far: list[bytes] = []
        # Reads to the end, so that a full pipe never stops the program.
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.ready = self._wait_until(ready)
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
            raise AssertionError(self._story(f"did not end within {ENDS_WITHIN} s of SIGTERM")) from None
        assert code == 0, self._story(f"ended with {code} after SIGTERM")

    def _read(self) -> None:
        for line in self._output:
            self._lines.put(line)
        self._lines.put(None)

    def _wait_until(self, ready: Callable[[dict], object]) -> object:
        deadline = time.monotonic() + READY_WITHIN
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(self._story(f"was not ready within {READY_WITHIN} s")) from None
            if line is None:
                raise AssertionError(self._story(f"ended with {self._process.wait()} before it was ready"))
            self._read_so_far.append(line)
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if found := ready(message):
                return found

    def _story(self, what: str) -> str:
        said = b"".join(self._read_so_far).decode(errors="replace") + self._other.read_text(errors="replace")
        return f"{self.name} {what}; it said:\n{said[-4000:]}"


def program() -> str:
    """The rolegate program under test; a test run without one is a failure, not a skip."""
    named = os.environ.get("ROLEGATE_BIN")
    assert named, "ROLEGATE_BIN must name the rolegate program, for example target/release/rolegate"
    found = Path(named).resolve()
    assert found.is_file() and os.access(found, os.X_OK), f"ROLEGATE_BIN={named} is not a program"
    return str(found)
