"""Reads the audit file while the stories run: each guarded call leaves one decision record."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import ANY

WRITTEN_WITHIN = 5


@dataclass
class Calls:
    """The guarded calls of one `with` block: how many there should be, and afterwards their records."""

    times: int = 1
    records: list[dict] = field(default_factory=list)

    @property
    def record(self) -> dict:
        (only,) = self.records
        return only


class AuditFile:
    """The audit file of a running rolegate; what stood there before the stories began is left aside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: list[dict] = []
        self._position = 0
        self.before = len(self._of_kind("decision"))
        self.expected = 0

    def entries(self) -> list[dict]:
        """Every complete line; the one that is being written has no newline yet. What was read once is not read again."""
        with self.path.open("rb") as file:
            file.seek(self._position)
            *lines, unfinished = file.read().split(b"\n")
            self._position = file.tell() - len(unfinished)
        self._read += [json.loads(line) for line in lines]
        return self._read

    def decisions(self) -> list[dict]:
        """The decisions since the stories began, in their order."""
        return self._of_kind("decision")[self.before :]

    def outcomes(self) -> list[dict]:
        return self._of_kind("outcome")

    @contextmanager
    def one(self, provider: str, action: str, decision: str, *, subject=ANY, reason=None, times: int = 1) -> Iterator[Calls]:
        """Demands `times` decision records, and all alike, from the calls made inside."""
        start = len(self.decisions())
        calls = Calls(times)
        yield calls
        self.expected += calls.times
        wait_until(lambda: len(self.decisions()) >= start + calls.times)
        calls.records = self.decisions()[start:]
        assert [summary(record) for record in calls.records] == [
            {
                "provider": provider,
                "door": "rest",
                "action": action,
                "subject": subject,
                "decision": decision,
                "reason": reason,
                "enforced": True,
            }
        ] * calls.times

    @contextmanager
    def none(self) -> Iterator[None]:
        """Demands that the calls made inside leave no decision record: nobody guards them."""
        start = len(self.decisions())
        yield
        assert self.decisions()[start:] == []

    def _of_kind(self, kind: str) -> list[dict]:
        return [entry for entry in self.entries() if entry["kind"] == kind]


def summary(record: dict) -> dict:
    return {
        "provider": record["provider"],
        "door": record["door"],
        "action": record["action"]["name"] if record["action"] else None,
        "subject": record["subject"]["id"] if record["subject"] else None,
        "decision": record["decision"],
        "reason": record["reason"],
        "enforced": record["enforced"],
    }


def wait_until(condition: Callable[[], bool]) -> bool:
    """Whether the condition came true in time; the caller's own assertion tells what is missing."""
    deadline = time.monotonic() + WRITTEN_WITHIN
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
