"""One town and one Prometheus for all tests that look at metrics."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from rig import Prometheus, Town

DAY = 30


@dataclass(frozen=True)
class Watched:
    """A day of the town, as Prometheus saw it."""

    prometheus: Prometheus
    start: float
    end: float
    page: str
    """The page that Prometheus reads."""


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    town = Town(tmp_path_factory.mktemp("town"))
    try:
        prometheus = Prometheus(town.gate.admin, tmp_path_factory.mktemp("prometheus"))
        try:
            start = time.time()
            town.live(DAY)
            # Not a wait for a condition: the day itself, from which rates are computed.
            time.sleep(DAY)
            yield Watched(prometheus, start, time.time(), town.gate.ask("/metrics").text)
        finally:
            prometheus.stop()
    finally:
        town.stop()
