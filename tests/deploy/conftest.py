"""What several tests share: one town with one Prometheus for those that look at metrics, and a sample chat server."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from demo import Demo
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


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A sample chat server."""
    demo = Demo(tmp_path_factory.mktemp("demo"))
    yield demo.rocketchat.sample
    demo.stop()
