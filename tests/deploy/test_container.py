"""The image and the compose file: silent linters, and the image's own files run as an engine would run them."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from compose_spec import ComposeSpecification
from dockerfile_parse import DockerfileParser
from program import Program, program
from rig import DEPLOY, ROOT, Gate, certify, until

FOLDER = DEPLOY / "container"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
RUN_AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "--preserve-env=ROLEGATE_BIN"]
LOOPBACK_UP = 'import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 1))'


class Dockerfile:
    """The stages of the Dockerfile, each a list of instructions."""

    def __init__(self) -> None:
        parser = DockerfileParser(fileobj=(FOLDER / "Dockerfile").open("rb+"))
        self.stages: list[list[tuple[str, str]]] = []
        for step in parser.structure:
            if step["instruction"] == "FROM":
                self.stages.append([])
            if step["instruction"] != "COMMENT":
                self.stages[-1].append((step["instruction"], step["value"]))

    def all(self, stage: int, instruction: str) -> list[str]:
        return [value for name, value in self.stages[stage] if name == instruction]

    def the(self, stage: int, instruction: str) -> str:
        (value,) = self.all(stage, instruction)
        return value


DOCKERFILE = Dockerfile()


def test_hadolint_is_silent() -> None:
    checked = subprocess.run(["hadolint", "--failure-threshold", "style", FOLDER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert "hadolint ignore" not in (FOLDER / "Dockerfile").read_text()


def test_yamllint_is_silent() -> None:
    checked = subprocess.run(
        ["yamllint", "--strict", "--config-file", "tests/deploy/yamllint.yaml", "deploy", "tests/deploy", "policies"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )
    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_build_sees_what_it_copies_and_nothing_else(tmp_path: Path) -> None:
    copied = [source for value in DOCKERFILE.all(0, "COPY") for source in value.split()[:-1]]
    allowed = [line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(copied) == sorted(allowed)
    assert [line for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[0] not in "#!"] == ["*"]
    for source in copied:
        assert (ROOT / source).exists(), source
        (tmp_path / source).symlink_to(ROOT / source)
    # The manifest is whole without tests/, and the lock file is up to date.
    read = subprocess.run(
        ["cargo", "metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert read.returncode == 0, read.stderr
    assert "rolegate" in {target["name"] for target in json.loads(read.stdout)["packages"][0]["targets"] if target["kind"] == ["bin"]}
    for file in (ROOT / "src").rglob("*.rs"):
        for included in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', file.read_text()):
            place = (file.parent / included).resolve().relative_to(ROOT.resolve())
            assert place.parts[0] in copied, f"{file} includes {place}, which the build does not see"


def test_the_compiler_is_one_that_the_crate_allows() -> None:
    compiler = re.match(r"rust:(\d+)\.(\d+)\.\d+-bookworm ", DOCKERFILE.the(0, "FROM"))
    needed = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["rust-version"].split(".")
    assert [int(number) for number in compiler.groups()] >= [int(number) for number in needed]
    assert "cargo build --release --locked --bin rolegate" in DOCKERFILE.all(0, "RUN")


class Container:
    """What the Dockerfile lays out, run as an engine runs it: as its user, in its read-only root, in a network of its own.

    What cannot be shown without an engine is the compilation inside the build image.
    """

    def __init__(self, folder: Path) -> None:
        self.image, audit = folder / "image", folder / "audit"
        lay = next(value for value in DOCKERFILE.all(0, "RUN") if "/image/" in value)
        (folder / "target/release").mkdir(parents=True)
        (folder / "target/release/rolegate").symlink_to(program())
        (shell, *options) = json.loads(DOCKERFILE.the(0, "SHELL"))
        subprocess.run([*RUN_AS_ROOT, shell, *options, lay.replace("/image", str(self.image))], cwd=folder, check=True)
        self.user = DOCKERFILE.the(1, "USER")
        # What compose and the engine add: the configuration, names, a volume with the owner of the folder that it covers.
        (self.image / "etc/rolegate/rolegate.toml").write_text((FOLDER / "rolegate.toml").read_text())
        (self.image / "etc/hosts").write_text("127.0.0.1 localhost rocketchat\n")
        audit.mkdir()
        self.audit = audit / "audit.jsonl"
        subprocess.run([*RUN_AS_ROOT, "chown", "--reference", self.image / "var/lib/rolegate", audit], check=True)
        script = (
            f"{sys.executable} -c '{LOOPBACK_UP}' && mount --bind {self.image} {self.image}"
            f" && mount --bind {audit} {self.image}/var/lib/rolegate && mount -o remount,ro,bind {self.image}"
            f' && exec chroot --userspec={self.user} --groups={self.user.partition(":")[2]} {self.image} "$@"'
        )
        inside = [*RUN_AS_ROOT, "unshare", "--mount", "--net", "sh", "-c", script, "container", *json.loads(DOCKERFILE.the(1, "ENTRYPOINT"))]
        said = json.loads(DOCKERFILE.the(1, "CMD"))
        self._running = Program(said, folder, "stderr", lambda line: line if "listening" in line else None, inside)
        self.pid = self._running.pid if not RUN_AS_ROOT else int(subprocess.check_output(["pgrep", "--newest", "--exact", "rolegate"]))
        self.ready = self._running.ready

    def health(self) -> int:
        """What the engine's health check makes of it."""
        words = json.loads(DOCKERFILE.the(1, "HEALTHCHECK").rpartition("CMD ")[2])
        return self.within("chroot", f"--userspec={self.user}", str(self.image), *words).returncode

    def within(self, *command: str) -> subprocess.CompletedProcess[str]:
        entered = [*RUN_AS_ROOT, "nsenter", "--target", str(self.pid), "--net", "--mount", *command]
        return subprocess.run(entered, capture_output=True, text=True, timeout=30, check=False)

    def stop(self) -> None:
        self._running.stop()


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    running = Container(tmp_path_factory.mktemp("container"))
    yield running
    running.stop()


def test_the_image_holds_the_program_its_libraries_and_certificates_and_nothing_else(container: Container) -> None:
    held = {file.relative_to(container.image).as_posix() for file in container.image.rglob("*") if file.is_file()}
    libraries = {name for name in held if re.fullmatch(r"lib(64)?/([a-z0-9_-]+/)?(ld-linux[\w.-]*|lib(c|m|gcc_s))\.so\.\d+", name)}
    added = {"etc/hosts", "etc/rolegate/rolegate.toml", "var/lib/rolegate/audit.jsonl"}
    assert held - libraries - added == {"etc/ssl/certs/ca-certificates.crt", "usr/local/bin/rolegate"}
    assert DOCKERFILE.all(1, "RUN") == []
    assert DOCKERFILE.the(1, "FROM") == "scratch"


def test_it_starts_as_shipped_is_healthy_and_is_nobody_in_a_root_that_cannot_be_written(container: Container) -> None:
    assert (container.ready["listening"], container.ready["admin"]) == ("0.0.0.0:8080", "0.0.0.0:9901")
    until("the health check is good", lambda: container.health() == 0)
    status = Path(f"/proc/{container.pid}/status").read_text()
    user = container.user.partition(":")[0]
    assert re.search(rf"^Uid:\t{user}\t{user}\t{user}\t{user}$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    mounts = Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines()
    roots = [line for line in mounts if line.split()[4] == "/"]
    assert " ro," in roots[-1].replace(" / / ", " ") or roots[-1].split()[5].startswith("ro"), roots
    assert container.audit.read_text().startswith('{"v":1,"seq":1,')


def test_it_finds_the_chat_server_by_its_name_and_keeps_its_admin_orders_closed(container: Container) -> None:
    server = subprocess.Popen(
        [*RUN_AS_ROOT, "nsenter", "--target", str(container.pid), "--net", sys.executable, "-m", "http.server", "3000", "--bind", "127.0.0.1"],
        cwd=container.image / "etc/ssl", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    ask = lambda url, *more: container.within("curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", *more, url).stdout
    try:
        until("the chat server answers through the gate", lambda: ask("http://127.0.0.1:8080/certs/") == "200")
        assert ask("http://127.0.0.1:8080/api/v1/users.info?userId=x") == "401"
        for path, method in (("/status", "GET"), ("/reload", "POST"), ("/facts/invalidate", "POST")):
            assert ask(f"http://127.0.0.1:9901{path}", "--request", method) == "404", path
        assert ask("http://127.0.0.1:9901/metrics") == "200"
    finally:
        server.terminate()
        server.wait(30)


def test_the_health_check_is_bad_where_nothing_runs(tmp_path: Path) -> None:
    words = json.loads(DOCKERFILE.the(1, "HEALTHCHECK").rpartition("CMD ")[2])
    alone = ["unshare", "--net", program(), *words[1:]]
    assert subprocess.run([*RUN_AS_ROOT, *alone], capture_output=True, check=False).returncode == 1


def test_docker_compose_takes_the_file_and_asks_for_the_address() -> None:
    command = ["docker-compose", "--file", "deploy/container/compose.yaml", "config"]
    # The checkers' own Python packages are not Debian's docker-compose's.
    environment = {"PATH": os.environ["PATH"].partition(":")[2], "HOME": os.environ.get("HOME", "/")}
    taken = subprocess.run(command, cwd=ROOT, env={**environment, "ROOT_URL": "https://chat.example.org"}, capture_output=True, text=True, check=False)
    assert taken.returncode == 0, taken.stderr
    assert set(yaml.safe_load(taken.stdout)["services"]) == set(SERVICES)
    refused = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "ROOT_URL" in refused.stderr
    ComposeSpecification.model_validate(COMPOSE)


def test_rolegate_alone_is_published_and_stands_between_the_world_and_the_chat_server() -> None:
    assert [name for name, service in SERVICES.items() if service.get("ports")] == ["rolegate"]
    assert not any(service.get("network_mode") for service in SERVICES.values()), "nobody sits in the machine's own network"
    (published,) = SERVICES["rolegate"]["ports"]
    assert published.endswith(":8080"), "the admin listener is not published"
    outward = {name for name, network in COMPOSE["networks"].items() if not network.get("internal")}
    assert {name for name, service in SERVICES.items() if outward & set(service["networks"])} == {"rolegate"}
    neighbours = {name for name, service in SERVICES.items() if set(service["networks"]) & set(SERVICES["rocketchat"]["networks"])}
    assert neighbours == {"rocketchat", "rolegate", "mongodb"}
    assert not set(SERVICES["mongodb"]["networks"]) & set(SERVICES["rolegate"]["networks"]), "the database is the chat server's alone"


def test_the_chat_server_is_told_what_stands_before_it() -> None:
    environment = SERVICES["rocketchat"]["environment"]
    assert environment["HTTP_FORWARDED_COUNT"] == "1"
    config = tomllib.loads((FOLDER / "rolegate.toml").read_text())
    assert config["upstream"][0]["url"] == f"http://rocketchat:{environment['PORT']}"
    assert config["upstream"][0].get("mode", "enforce") == "enforce"
    assert "replicaSet=rs0" in environment["MONGO_URL"]
    assert SERVICES["mongodb"]["command"][1:3] == ["--replSet", "rs0"]


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_pinned_confined_and_mounts_what_exists(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[a-z]+(/[a-z.]+)?:v?\d+\.\d+\.\d+", service["image"]), service["image"]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    if name in {"rolegate", "prometheus", "grafana"}:
        assert service["read_only"] is True
    for mount in service.get("volumes", []):
        source = mount.split(":")[0]
        assert (FOLDER / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], mount


def test_the_image_has_the_version_of_the_crate_and_time_to_drain() -> None:
    assert SERVICES["rolegate"]["image"] == f"rolegate:{VERSION}"
    assert f"rolegate:{VERSION}" in (FOLDER / "Dockerfile").read_text()
    assert (FOLDER / SERVICES["rolegate"]["build"]["context"]).resolve() == ROOT
    assert int(SERVICES["rolegate"]["stop_grace_period"].rstrip("s")) > 30


def test_prometheus_asks_the_admin_listener_where_compose_puts_it() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["rolegate:9901"]
    assert job["job_name"] == "rolegate"
    assert set(SERVICES["rolegate"]["networks"]) & set(SERVICES["prometheus"]["networks"])
    assert set(SERVICES["grafana"]["networks"]) & set(SERVICES["prometheus"]["networks"])


def test_the_lines_for_tls_an_own_policy_and_a_token_work_once_they_are_uncommented(tmp_path: Path) -> None:
    text = re.sub(r"^# (?=tls|directory|token_file|trusted_proxies)", "", (FOLDER / "rolegate.toml").read_text(), flags=re.MULTILINE)
    for there, here in (("/etc/rolegate", str(tmp_path)), ("/var/lib/rolegate", str(tmp_path)), ("0.0.0.0:8080", "127.0.0.1:0"), ("0.0.0.0:9901", "127.0.0.1:0")):
        assert there in text
        text = text.replace(there, here)
    (tmp_path / "rolegate.toml").write_text(text)
    certify(tmp_path / "tls")
    (tmp_path / "admin.token").write_text("sixteen characters or more\n")
    subprocess.run([program(), "init", tmp_path / "set"], check=True, stdout=subprocess.DEVNULL)
    (tmp_path / "set/policies").rename(tmp_path / "policies")
    checked = subprocess.run([program(), "check", "--config", tmp_path / "rolegate.toml"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    gate = Gate(tmp_path / "rolegate.toml", tmp_path)
    try:
        assert "rolegate_certificate_expiry_timestamp_seconds" in gate.ask("/metrics").text
        answer = subprocess.run(["curl", "--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}",
                                 f"https://{gate.address}/api/v1/users.info?userId=x"], capture_output=True, text=True, check=False)
        assert answer.stdout == "401"
    finally:
        gate.stop()
