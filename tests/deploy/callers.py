"""Clients that ask without a pause and take nothing amiss unnoticed: whatever is not a whole, good answer is a failure."""

import socket
import threading
import time
from dataclasses import dataclass, field

from world import BOARDROOM, CAROL, EVE

PATIENCE = 60
GUARDED = [
    (f"/api/v1/rooms.roles?rid={BOARDROOM}", CAROL),
    ("/api/v1/users.info?username=bob", EVE),
]
PASSING = ["/echo", "/api/v1/echo.headers"]


@dataclass
class Counts:
    """What came of one client's requests."""

    asked: int = 0
    guarded: int = 0
    connections: int = 0
    farewells: int = 0
    """Kept connections that ended after an answer that said `Connection: close`."""
    slowest: float = 0
    failures: list[str] = field(default_factory=list)


class Broken(Exception):
    """An answer that did not come, or not whole."""


class Line:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> tuple[int, bool]:
        """The status, and whether the connection is at its end."""
        self._socket.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more(received)
        head, _, content = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if fields.get("transfer-encoding", "").lower() == "chunked":
            rest = self._chunks(content)
        elif fields.get("content-length", "").isdigit():
            rest = self._part(content, int(fields["content-length"]))
        else:
            raise Broken(f"an answer without an end: {lines}")
        if rest:
            raise Broken(f"more than was asked for: {rest!r}")
        return int(lines[0].split(" ")[1]), fields.get("connection", "").lower() == "close"

    def _part(self, content: bytes, length: int) -> bytes:
        """Reads so many bytes; what lies behind them."""
        while len(content) < length:
            content += self._more(content)
        return content[length:]

    def _chunks(self, content: bytes) -> bytes:
        """Reads to the last chunk; what lies behind it."""
        while True:
            while b"\r\n" not in content:
                content += self._more(content)
            size, _, content = content.partition(b"\r\n")
            length = int(size, 16)
            while len(content) < length + 2:
                content += self._more(content)
            if content[length:length + 2] != b"\r\n":
                raise Broken(f"a chunk without an end: {content!r}")
            content = content[length + 2:]
            if length == 0:
                return content

    def ended(self) -> bool:
        """Whether the server closes and says nothing more."""
        return self._socket.recv(1) == b""

    def _more(self, so_far: bytes) -> bytes:
        more = self._socket.recv(65536)
        if not more:
            raise Broken(f"closed after {len(so_far)} bytes")
        return more

    def close(self) -> None:
        self._socket.close()


def requests(host: str, last: bool) -> list[tuple[bool, bytes]]:
    """Whether it is guarded, and the request."""
    close = "Connection: close\r\n" if last else ""
    text = "GET {} HTTP/1.1\r\nHost: {}\r\n{}{}\r\n"
    login = lambda who: f"X-User-Id: {who.id}\r\nX-Auth-Token: {who.token}\r\n"
    guarded = [(True, text.format(path, host, login(who), close).encode()) for path, who in GUARDED]
    return guarded + [(False, text.format(path, host, "", close).encode()) for path in PASSING]


class Callers:
    """Some clients that keep their connection, and some that open one for each request."""

    def __init__(self, port: int, keeping: int, opening: int, wanted: int) -> None:
        self._port, self._wanted = port, wanted
        self._stop = threading.Event()
        self.keeping, self.opening = [Counts() for _ in range(keeping)], [Counts() for _ in range(opening)]
        self._threads = [threading.Thread(target=self._keep, args=(counts, number), daemon=True) for number, counts in enumerate(self.keeping)]
        self._threads += [threading.Thread(target=self._open, args=(counts, number), daemon=True) for number, counts in enumerate(self.opening)]
        for thread in self._threads:
            thread.start()

    @property
    def all(self) -> list[Counts]:
        return self.keeping + self.opening

    @property
    def asked(self) -> int:
        return sum(counts.asked for counts in self.all)

    @property
    def failures(self) -> list[str]:
        return [failure for counts in self.all for failure in counts.failures]

    def until_asked(self, count: int, within: float) -> None:
        deadline = time.monotonic() + within
        while self.asked < count and not self._stop.is_set():
            assert time.monotonic() < deadline, f"{self.asked} of {count} requests; {self.failures[:5]}"
            time.sleep(0.01)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def stop(self) -> None:
        self._stop.set()
        self.join()

    def _on(self) -> bool:
        return not self._stop.is_set() and self.asked < self._wanted

    def _keep(self, counts: Counts, number: int) -> None:
        line, host = None, f"127.0.0.1:{self._port}"
        wishes = requests(host, last=False)
        while self._on():
            guarded, request = wishes[(counts.asked + number) % len(wishes)]
            try:
                began = time.monotonic()
                if line is None:
                    line = Line(self._port)
                    counts.connections += 1
                closing = self._ask(counts, line, guarded, request, began)
                if closing:
                    if not line.ended():
                        counts.failures.append("more came after the last answer")
                    counts.farewells += 1
                    line.close()
                    line = None
            except (OSError, Broken) as error:
                counts.failures.append(f"kept: {error!r} after {time.monotonic() - began:.3f} s")
                line = None
        if line:
            line.close()

    def _open(self, counts: Counts, number: int) -> None:
        wishes = requests(f"127.0.0.1:{self._port}", last=True)
        while self._on():
            guarded, request = wishes[(counts.asked + number) % len(wishes)]
            try:
                began = time.monotonic()
                line = Line(self._port)
                counts.connections += 1
                if not self._ask(counts, line, guarded, request, began):
                    counts.failures.append("the connection was to be closed and is not")
                line.close()
            except (OSError, Broken) as error:
                counts.failures.append(f"new: {error!r} after {time.monotonic() - began:.3f} s")

    def _ask(self, counts: Counts, line: Line, guarded: bool, request: bytes, began: float) -> bool:
        # Counted first: what fails was asked, too.
        counts.asked += 1
        counts.guarded += guarded
        status, closing = line.ask(request)
        counts.slowest = max(counts.slowest, time.monotonic() - began)
        if status != 200:
            counts.failures.append(f"status {status}")
        return closing
