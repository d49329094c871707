"""Restarts, upgrades and the way back under load: nobody notices, and the record is whole."""

import json
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from callers import Callers
from program import program
from service import DRAIN, Host, Manager

REQUESTS = 50_000
KEEPING, OPENING, TUNNELS = 8, 4, 10


@pytest.fixture
def manager(upstream: str, tmp_path: Path) -> Iterator[Manager]:
    running = Manager(Host(tmp_path, upstream))
    yield running
    running.close()


def websocket(port: int) -> socket.socket:
    """An open one."""
    tunnel = socket.create_connection(("127.0.0.1", port), 30)
    tunnel.sendall(b"GET /websocket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                   b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += tunnel.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ")
    return tunnel


def upgrade(host: Host) -> None:
    """Another program in the place of the old one, with another configuration."""
    place = host.folder / "usr/local/bin/rolegate"
    new = place.with_name("rolegate.new")
    shutil.copy(program(), new)
    new.rename(place)
    host.config.write_text(host.config.read_text().replace("[listen]\n", "[listen]\nfast_path = false\n"))


def rollback(host: Host) -> None:
    place = host.folder / "usr/local/bin/rolegate"
    place.unlink()
    place.symlink_to(program())
    host.config.write_text(host.config.read_text().replace("fast_path = false\n", ""))


def test_of_fifty_thousand_requests_over_six_restarts_none_fails_and_each_guarded_one_is_recorded_once(manager: Manager) -> None:
    host = manager.host
    manager.start()
    first = manager.process.pid
    began = time.monotonic()
    callers = Callers(host.port, KEEPING, OPENING, REQUESTS)
    steps = [lambda: None, lambda: None, lambda: upgrade(host), lambda: None, lambda: rollback(host), lambda: None]
    pauses = []
    for number, step in enumerate(steps, 1):
        callers.until_asked(REQUESTS * number // (len(steps) + 1), 120)
        step()
        tunnels = [websocket(host.port) for _ in range(TUNNELS)]
        stopping = time.monotonic()
        manager.restart()
        pauses.append(time.monotonic() - stopping)
        for tunnel in tunnels:
            assert tunnel.recv(1) == b"", "it ended with the old process"
            tunnel.close()
    callers.until_asked(REQUESTS, 120)
    callers.join()
    seconds = time.monotonic() - began
    print(f"{callers.asked} requests, {sum(counts.guarded for counts in callers.all)} of them guarded, on "
          f"{sum(counts.connections for counts in callers.all)} connections in {seconds:.1f} s; {len(steps)} restarts of "
          f"{min(pauses):.2f} to {max(pauses):.2f} s; the slowest answer after {max(counts.slowest for counts in callers.all):.2f} s")
    manager.stop()
    assert manager.process.pid != first

    assert max(pauses) < DRAIN / 2, "neither a WebSocket nor anybody else holds a restart up"
    assert callers.failures == []
    assert callers.asked >= REQUESTS
    for counts in callers.keeping:
        assert counts.farewells == counts.connections - 1 >= len(steps), "each connection lasts until it is told of its end"
    verified = subprocess.run([program(), "audit", "verify", host.audit], capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    records = [json.loads(line) for line in host.audit.read_text().splitlines()]
    kinds = Counter(record["kind"] for record in records)
    guarded = sum(counts.guarded for counts in callers.all)
    assert kinds == {"start": len(steps) + 1, "stop": len(steps) + 1, "decision": guarded, "outcome": guarded}
    of = {kind: {record["id"] for record in records if record["kind"] == kind} for kind in ("decision", "outcome")}
    assert of["decision"] == of["outcome"] and len(of["decision"]) == guarded
    assert all(record["decision"] == "permit" for record in records if record["kind"] == "decision")
    assert all(record["status"] == 200 for record in records if record["kind"] == "outcome")
    assert all(record["cut_connections"] == 0 for record in records if record["kind"] == "stop")


def test_the_clients_would_notice_a_socket_that_is_closed_meanwhile(upstream: str, tmp_path: Path) -> None:
    manager = Manager(Host(tmp_path, upstream))
    try:
        # Without the socket it binds its port itself, and the port goes with it.
        for one in manager.sockets:
            one.close()
        manager.sockets = []
        manager.start()
        callers = Callers(manager.host.port, KEEPING, OPENING, 1_000_000)
        callers.until_asked(1_000, 60)
        manager.restart()
        callers.until_asked(callers.asked + 500, 60)
        callers.stop()
        manager.stop()
        assert any("ConnectionRefusedError" in failure for failure in callers.failures)
    finally:
        manager.close()
