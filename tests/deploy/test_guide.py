"""The operator's guide is true: its commands run, or are on the short list of those that cannot be run without an engine."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest
import requests
import yaml
from demo import Demo
from program import program
from rig import DEPLOY, ROOT
from service import Unit
from test_container import SERVICES
from test_grafana import BOARD

GUIDE = (DEPLOY / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
COMMANDS = [line.removeprefix("$ ") for kind, text in BLOCKS if kind in {"sh", "console"} for line in text.splitlines()]
# They need a container engine, a cluster, or a server elsewhere; each is held against the files that it names.
NOT_RUN_HERE = [
    "export ROOT_URL=https://chat.example.org",
    "docker compose --file deploy/container/compose.yaml up --build --detach",
    "docker compose --file deploy/container/compose.yaml ps",
    "docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' container-grafana-1",
    "ssh -N -L 3000:172.20.0.3:3000 chat.example.org",
    "kubectl apply --namespace chat --kustomize deploy/kubernetes/overlays/production",
    # tests/run builds so, and the program that the other tests here use is the one that came of it.
    "cargo build --release --locked",
    "systemctl daemon-reload",
    "systemctl enable --now rolegate.socket rolegate.service",
    "curl --max-time 5 http://chat-server.internal:3000/api/info",
    "docker compose --file deploy/container/compose.yaml port rocketchat 3000",
    "kubectl run around --namespace chat --rm --stdin --image curlimages/curl:8.11.1 --restart Never"
    " -- --max-time 5 http://rocketchat:3000/api/info",
]
# They put files on the machine: here into a folder in its place.
INSTALLED = [command for command in COMMANDS if command.startswith("install ")]
RUN_HERE = [command for command in COMMANDS if command not in NOT_RUN_HERE + INSTALLED]


def test_what_is_not_run_here_is_a_closed_list() -> None:
    assert [command for command in COMMANDS if command in NOT_RUN_HERE] == NOT_RUN_HERE
    assert {shlex.split(command)[0] for command in RUN_HERE} == {"rolegate", "kubectl", "promtool"}
    for command in NOT_RUN_HERE:
        for word in shlex.split(command):
            assert not word.startswith("deploy/") or (ROOT / word).exists(), command
            assert not word.startswith("rolegate.") or (DEPLOY / "systemd" / word).exists(), command


@pytest.mark.parametrize("command", sorted(set(RUN_HERE)))
def test_a_command_of_the_guide_runs(command: str, tmp_path: Path) -> None:
    for name in ("deploy", "policies", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    if "audit/audit.jsonl" in command:
        demo = Demo(tmp_path)
        requests.get(f"{demo.rocketchat.gate}/api/v1/users.info?userId=x", timeout=30)
        (tmp_path / "audit").mkdir()
        (tmp_path / "audit/audit.jsonl").write_bytes(demo.audit.read_bytes())
        demo.stop()
    words = shlex.split(command)
    words[0] = program() if words[0] == "rolegate" else words[0]
    if "check" in words:
        # The folder of the log is the container's; what is read is the shipped file but for that.
        config = (ROOT / words[-1]).read_text().replace("/var/lib/rolegate", str(tmp_path))
        (tmp_path / "rolegate.toml").write_text(config)
        words[-1] = str(tmp_path / "rolegate.toml")
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_what_is_installed_is_what_the_units_and_the_configuration_name(tmp_path: Path) -> None:
    (tmp_path / "target/release").mkdir(parents=True)
    (tmp_path / "target/release/rolegate").symlink_to(program())
    (tmp_path / "deploy").symlink_to(DEPLOY)
    for command in INSTALLED:
        words = [f"{tmp_path}/root{word}" if word.startswith("/") else word for word in shlex.split(command)]
        subprocess.run(words, cwd=tmp_path, check=True)
    root = tmp_path / "root"
    service = Unit("rolegate.service")
    program_at, *arguments = shlex.split(service.the("Service", "ExecStart"))
    secrets = service.the("Service", "LoadCredential").partition(":")[2]
    modes = {f"/{file.relative_to(root)}": oct(file.stat().st_mode & 0o777) for file in root.rglob("*")}
    assert modes[program_at] == "0o755"
    assert modes[arguments[-1]] == "0o644", "whoever rolegate is at this start may read it"
    assert modes[secrets] == "0o700"
    assert {"/etc/systemd/system/rolegate.service", "/etc/systemd/system/rolegate.socket"} <= set(modes)


def test_every_link_leads_to_something() -> None:
    for place in re.findall(r"\]\(([^)#]+)\)", GUIDE):
        assert (DEPLOY / unquote(place)).exists(), place


def test_what_the_guide_names_is_there() -> None:
    ports = SERVICES["rolegate"]["ports"][0]
    assert "`ROLEGATE_PORT`" in GUIDE and "ROLEGATE_PORT" in ports
    titles = {panel["title"] for panel in BOARD["panels"]}
    assert {"Enforced or observed", "Refused, by reason"} <= titles & set(re.findall(r'"([^"\n]+)"', GUIDE))
    policies = list(yaml.safe_load_all((DEPLOY / "kubernetes/base/networkpolicy.yaml").read_text()))
    labels = policies[0]["spec"]["podSelector"]["matchLabels"]
    assert all(f"`{key}: {value}`" in GUIDE for key, value in labels.items())


def test_each_setting_that_the_guide_names_is_one_of_rolegates() -> None:
    example = (ROOT / "src/config/example.toml").read_text()
    known = set(re.findall(r"^#? ?(\w+) = ", example, re.MULTILINE)) | set(tomllib.loads(example))
    named = {name for name in re.findall(r"`(?:[a-z]+\.)?([a-z]+_[a-z_]+)(?: = [^`]*)?`", GUIDE)}
    reasons = set(re.findall(r'"([a-z_]+)"', (ROOT / "src/model/verdict.rs").read_text()))
    sources = [ROOT / "src/metrics.rs", *(ROOT / "src/metrics").glob("*.rs")]
    quoted = set(re.findall(r'"(?:rolegate_)?([a-z_]+)"', "".join(source.read_text() for source in sources)))
    metrics = {f"rolegate_{name}" for name in quoted}
    assert named - known - reasons - metrics == set()
    assert len(named & known) >= 5
