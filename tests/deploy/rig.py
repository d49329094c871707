"""A gate under the load of a whole town, and a real Prometheus that watches it."""

import json
import math
import random
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import quote

import requests
import yaml
from demo import Demo
from program import Program, program
from world import ACCOUNT, ALICE, AUDREY, BOARDROOM, BOB, CAROL, CHAT_PEOPLE, EVE, GENERAL, LARGE_ROOM, SMALL_ROOM, TOWN_SQUARE, Person

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
HERE = Path(__file__).parent
PATIENCE = 30
CHAT, WATCHED, ROOMS, AWAY = "chat.test", "watched.test", "rooms.test", "away.test"
ASKERS = 4


def until(what: str, ask: Callable[[], object], within: float = PATIENCE) -> object:
    """What `ask` gives once it gives something; an error when that takes too long."""
    deadline = time.monotonic() + within
    while not (found := ask()):
        assert time.monotonic() < deadline, f"{what}: not within {within} s"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def certify(folder: Path) -> None:
    """Writes cert.pem and key.pem, good for ninety days."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "90", "-subj", "/CN=chat.test",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, stderr=subprocess.DEVNULL,
    )


class Gate:
    """A running `rolegate run` with this configuration; `stop` ends it and is an error when it does not end well."""

    def __init__(self, config: Path, folder: Path) -> None:
        self._running = Program(["run", "--config", str(config)], folder, "stderr", lambda line: line if "listening" in line else None)
        self.address: str = self._running.ready["listening"]
        self.admin: str = self._running.ready["admin"]

    def ask(self, path: str) -> requests.Response:
        return requests.get(f"http://{self.admin}{path}", timeout=PATIENCE)

    def post(self, path: str, body: dict | None = None) -> requests.Response:
        return requests.post(f"http://{self.admin}{path}", json=body, timeout=PATIENCE)

    def stop(self) -> None:
        self._running.stop()


class Town:
    """The demo's sample servers, a gate of our own before them, and people who use it and who try to abuse it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._demo = Demo(folder)
        certify(folder)
        subprocess.run([program(), "init", "set"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (folder / "set/policies").rename(folder / "policies")
        text = (HERE / "town.toml").read_text()
        text = text.replace("{rocketchat}", self._demo.rocketchat.sample).replace("{docusign}", self._demo.docusign.sample)
        text = text.replace("{nobody}", f"http://127.0.0.1:{free_port()}")
        (folder / "rolegate.toml").write_text(text)
        self.gate = Gate(folder / "rolegate.toml", folder)
        self.port = int(self.gate.address.rpartition(":")[2])
        self._tls = ssl.create_default_context(cafile=str(folder / "cert.pem"))
        self._tls.check_hostname = False
        self._stop = threading.Event()
        self._talking: list[ssl.SSLSocket] = []
        self._threads = [threading.Thread(target=self._live, args=(number,), daemon=True) for number in range(ASKERS)]
        self.seconds = math.inf
        self.began = 0.0

    def live(self, seconds: float) -> None:
        """People begin; `seconds` is how long a day of theirs takes."""
        self.seconds, self.began = seconds, time.monotonic()
        for thread in self._threads:
            thread.start()
        threading.Thread(target=self._operate, daemon=True).start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(PATIENCE)
        for talk in self._talking:
            talk.close()
        try:
            self.gate.stop()
        finally:
            self._demo.stop()

    def hour(self) -> float:
        """How much of the day has passed, from 0 to 1."""
        return (time.monotonic() - self.began) / self.seconds % 1

    def _live(self, number: int) -> None:
        dice = random.Random(number)
        connection = HTTPSConnection("127.0.0.1", self.port, context=self._tls, timeout=PATIENCE)
        while not self._stop.is_set():
            hour = self.hour()
            host, path, headers = self._wish(dice, hour)
            address = f"203.0.113.{dice.randrange(1, 250)}"
            with suppress(OSError, HTTPException):
                connection.request("GET", path, headers={"Host": host, "X-Forwarded-For": address, **headers})
                connection.getresponse().read()
            # Busy at noon, quiet at night.
            self._stop.wait(dice.expovariate(8 + 34 * math.sin(math.pi * hour) ** 2))
        connection.close()

    def _wish(self, dice: random.Random, hour: float) -> tuple[str, str, dict[str, str]]:
        """Somebody's request: most people do what they may; mallory's hour is early in the afternoon."""
        chat = lambda who: {"X-User-Id": str(who.id), "X-Auth-Token": who.token}
        if 0.55 < hour < 0.7 and dice.random() < 0.5:
            return CHAT, dice.choice(PROBES), chat(EVE) if dice.random() < 0.7 else {}
        if 0.75 < hour < 0.85 and dice.random() < 0.25:
            return AWAY, dice.choice(["/api/v1/me", ROOM[GENERAL]]), chat(CAROL)
        host, path, who = dice.choices(WISHES, [weight for weight, *_ in WISHES])[0][1:]
        if host == ROOMS:
            return host, path, {"Authorization": f"Bearer {who.bearer}"}
        return host, path, chat(who) if who else {}

    def _operate(self) -> None:
        """What happens to a gate in a day: a reload, one that fails, a fact forgotten, chatterers, slow and bad heads."""
        policies = self._folder / "policies/rocketchat/policy.cedar"
        original = policies.read_text()
        events = [
            (0.2, lambda: policies.write_text(original + "\n// Looked through in spring.\n")),
            (0.3, lambda: self.gate.post("/facts/invalidate", {"subject": BOB.id})),
            (0.35, self._chatter), (0.4, self._babble), (0.45, self._crowd),
            (0.5, lambda: policies.write_text(original + "\npermit (principal, action, resource\n")),
            (0.6, lambda: policies.write_text(original + "\n// Looked through in autumn.\n")),
            (0.65, self._babble), (0.7, self._crowd),
        ]
        for hour, event in events:
            if self._stop.wait(max(0.0, self.began + hour * self.seconds - time.monotonic())):
                return
            event()

    def _open(self) -> ssl.SSLSocket:
        return self._tls.wrap_socket(socket.create_connection(("127.0.0.1", self.port), PATIENCE))

    def _chatter(self) -> None:
        self._talking = [self._open() for _ in range(3)]
        for talk in self._talking:
            talk.sendall(f"GET /websocket HTTP/1.1\r\nHost: {CHAT}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                         "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())

    def _babble(self) -> None:
        for _ in range(20):
            with suppress(OSError), self._open() as talk:
                talk.sendall(b"GET / HTTP/1.1\nHost: a\r\nHost: b\r\n\r\n")
                talk.recv(1000)

    def _crowd(self) -> None:
        crowd = []
        for _ in range(60):
            with suppress(OSError):
                crowd.append(socket.create_connection(("127.0.0.1", self.port), PATIENCE))
        self._stop.wait(1)
        for one in crowd:
            one.close()


ROOM = {room: f"/api/v1/rooms.roles?rid={room}" for room in (GENERAL, TOWN_SQUARE, BOARDROOM)}
DOCUSIGN = f"/restapi/v2/accounts/{ACCOUNT}/rooms/{{}}/users"
WISHES: list[tuple[int, str, str, Person | None]] = [
    *((3, CHAT, path, who) for path in ROOM.values() for who in (BOB, CAROL)),
    *((1, CHAT, ROOM[room], who) for room in (GENERAL, TOWN_SQUARE) for who in CHAT_PEOPLE),
    *((2, CHAT, f"/api/v1/users.info?userId={who.id}", asker) for who in CHAT_PEOPLE for asker in (ALICE, BOB, AUDREY)),
    (6, CHAT, "/api/v1/roles.getUsersInRole?role=admin", ALICE),
    (3, CHAT, f"/api/v1/audit/rooms.members?roomId={BOARDROOM}", AUDREY),
    (60, CHAT, "/api/v1/me", CAROL),
    (20, CHAT, "/api/info", None),
    (2, CHAT, ROOM[BOARDROOM], EVE),
    (2, CHAT, "/api/v1/users.info?username=bob", None),
    (2, CHAT, "/api/v1/audit/rooms.members", AUDREY),
    (1, CHAT, ROOM[GENERAL], Person("formerly", "formerlyBobs1234x")),
    (3, WATCHED, ROOM[BOARDROOM], EVE),
    (6, ROOMS, DOCUSIGN.format(SMALL_ROOM), BOB),
    (6, ROOMS, DOCUSIGN.format(LARGE_ROOM), CAROL),
    (2, ROOMS, DOCUSIGN.format(SMALL_ROOM), EVE),
]
PROBES = [
    ROOM[BOARDROOM],
    "/api/v1/users%2einfo?userId=x",
    "/api/v1/roles.getUsersInRole?role=admin",
    "/api/v1/rooms.roles?rid[]=a",
    f"/api/v1/rooms.roles?rid={GENERAL}&rid={BOARDROOM}",
    f"/api/v1/audit/rooms.members?roomId={BOARDROOM}",
]


class Prometheus:
    """Debian's Prometheus with the shipped configuration, but for the target and how often it is asked."""

    def __init__(self, target: str, folder: Path) -> None:
        for name in ("rules.yml", "alerts.yml"):
            shutil.copy(DEPLOY / "prometheus" / name, folder / name)
        config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/series", f"--web.listen-address=127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )
        until("Prometheus has seen rolegate", lambda: self._seen())

    def _seen(self) -> bool:
        assert self._process.poll() is None, "Prometheus ended; see prometheus.log"
        with suppress(requests.ConnectionError):
            answer = requests.get(f"{self._url}/api/v1/query", params={"query": 'up{job="rolegate"} == 1'}, timeout=PATIENCE)
            return answer.ok and bool(answer.json()["data"]["result"])
        return False

    def over(self, query: str, start: float, end: float, step: float = 1) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """What the query gives between two times: each series' labels and its finite samples."""
        data = self._get("query_range", query=query, start=start, end=end, step=step)["result"]
        found = []
        for series in data:
            samples = [(float(at), float(value)) for at, value in series["values"]]
            found.append((series["metric"], [(at, value) for at, value in samples if math.isfinite(value)]))
        return found

    def values(self, metric: str, label: str) -> list[str]:
        """What Grafana's `label_values(metric, label)` gives."""
        return self._get(f"label/{quote(label)}/values", **{"match[]": metric})

    def rules(self) -> list[dict]:
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def names(self) -> set[str]:
        return set(self._get("label/__name__/values"))

    def _get(self, path: str, **parameters: object) -> dict | list:
        answer = requests.get(f"{self._url}/api/v1/{path}", params=parameters, timeout=PATIENCE)
        assert answer.ok, f"{path} {parameters}: {answer.text}"
        return answer.json()["data"]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._log.close()


def board() -> dict:
    return json.loads((DEPLOY / "grafana/dashboard.json").read_text())


def substituted(expression: str, seconds: float) -> str:
    """An expression as Grafana sends it: every variable chosen, the windows those of a scrape each second."""
    chosen = {"$__rate_interval": "5s", "$__interval": "1s", "$__range": f"{math.ceil(seconds)}s", "$instance": ".*", "$provider": ".*"}
    for name, value in chosen.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, f"an unknown variable in {expression}"
    return expression
