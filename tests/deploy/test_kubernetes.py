"""The manifests: rendered, valid by the published schemas, and doing together what each of them promises."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor
from rig import DEPLOY, ROOT, Gate, until
from test_container import DOCKERFILE, VERSION
from test_grafana import lost

FOLDER = DEPLOY / "kubernetes"
SETS = ("base", "overlays/observe", "overlays/production")
# `lifecycle.preStop.sleep` is on by default from 1.30.
KUBERNETES = ("1.30", kubernetes_validate.latest_version())


@cache
def rendered(name: str) -> tuple[dict, ...]:
    made = subprocess.run(["kubectl", "kustomize", FOLDER / name], capture_output=True, text=True, check=False)
    assert (made.returncode, made.stderr) == (0, "")
    return tuple(yaml.safe_load_all(made.stdout))


def the(name: str, *kinds: str, called: str | None = None) -> dict:
    (found,) = [each for each in rendered(name) if each["kind"] in kinds and called in (None, each["metadata"]["name"])]
    return found


def workload(name: str) -> dict:
    return the(name, "Deployment", "StatefulSet")


def container(name: str) -> dict:
    (only,) = workload(name)["spec"]["template"]["spec"]["containers"]
    return only


def config(name: str) -> str:
    (found,) = [each["data"]["rolegate.toml"] for each in rendered(name) if each["kind"] == "ConfigMap" and "rolegate.toml" in each["data"]]
    return found


@pytest.mark.parametrize("name", SETS)
def test_every_object_is_valid_by_the_published_schemas(name: str) -> None:
    for each in rendered(name):
        if each["kind"] == "ServiceMonitor":
            # Its model leaves out what it does not know.
            assert lost(each, ServiceMonitor.model_validate(each).model_dump(by_alias=True, exclude_none=True, mode="json")) == []
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(each, version, strict=True)


def test_the_schemas_would_notice() -> None:
    wrong = json.loads(json.dumps(workload("base")))
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES[-1], strict=True)
    monitor = json.loads(json.dumps(the("overlays/production", "ServiceMonitor")))
    monitor["spec"]["endpoints"][0]["intervall"] = "1s"
    assert lost(monitor, ServiceMonitor.model_validate(monitor).model_dump(by_alias=True, exclude_none=True, mode="json"))


@pytest.mark.parametrize("name", SETS)
def test_the_pod_is_as_the_restricted_standard_wants_it(name: str) -> None:
    pod, only = workload(name)["spec"]["template"]["spec"], container(name)
    user, group = DOCKERFILE.the(1, "USER").split(":")
    assert pod["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": int(user), "runAsGroup": int(group), "fsGroup": int(group), "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert only["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert pod["automountServiceAccountToken"] is False
    assert only["image"] == f"rolegate:{VERSION}"
    assert only["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", SETS)
def test_a_pod_may_finish_what_it_serves_and_one_is_always_there(name: str) -> None:
    pod = workload(name)["spec"]["template"]["spec"]
    drain = int(tomllib.loads(config(name))["listen"]["drain"].rstrip("s"))
    assert pod["terminationGracePeriodSeconds"] > drain + container(name)["lifecycle"]["preStop"]["sleep"]["seconds"]
    budget = the(name, "PodDisruptionBudget")["spec"]
    assert 1 <= budget["minAvailable"] < workload(name)["spec"]["replicas"]
    assert selects(budget["selector"], workload(name)["spec"]["template"]["metadata"]["labels"])


@pytest.mark.parametrize("name", SETS)
def test_services_lead_to_ports_that_the_pod_has_and_only_metrics_to_the_admin_port(name: str) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(name)["ports"]}
    listening = tomllib.loads(config(name))
    assert ports == {kind: int(listening[table]["address"].rpartition(":")[2]) for kind, table in (("http", "listen"), ("admin", "admin"))}
    for service in (each for each in rendered(name) if each["kind"] == "Service"):
        assert selects({"matchLabels": service["spec"]["selector"]}, workload(name)["spec"]["template"]["metadata"]["labels"])
        wanted = "admin" if service["metadata"]["name"] == "rolegate-metrics" else "http"
        assert [port["targetPort"] for port in service["spec"]["ports"]] == [wanted]
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_prometheus_finds_the_metrics_service_and_calls_the_job_rolegate() -> None:
    monitor = the("overlays/production", "ServiceMonitor")["spec"]
    (found,) = [
        each for each in rendered("overlays/production") if each["kind"] == "Service" and selects(monitor["selector"], each["metadata"]["labels"])
    ]
    assert [endpoint["port"] for endpoint in monitor["endpoints"]] == [port["name"] for port in found["spec"]["ports"]]
    assert found["metadata"]["labels"][monitor["jobLabel"]] == "rolegate"


def selects(selector: dict, labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, "this evaluator knows no other selectors"
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


class Pod:
    """A pod somewhere in the cluster, as network policies see it."""

    def __init__(self, labels: dict[str, str], namespace: str = "chat") -> None:
        self.labels, self.namespace = labels, {"kubernetes.io/metadata.name": namespace}


def let(policies: list[dict], direction: str, of: Pod, other: Pod, port: int, protocol: str = "TCP") -> bool:
    """Whether policies of the namespace `chat` let `of` exchange with `other` in this direction, as Kubernetes defines it."""
    ours = {"kubernetes.io/metadata.name": "chat"}
    key, side = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    binding = [
        policy["spec"] for policy in policies
        if of.namespace == ours and selects(policy["spec"]["podSelector"], of.labels) and direction in policy["spec"]["policyTypes"]
    ]
    if not binding:
        return True

    def peer(one: dict) -> bool:
        assert set(one) <= {"podSelector", "namespaceSelector"} and one
        home = selects(one["namespaceSelector"], other.namespace) if "namespaceSelector" in one else other.namespace == ours
        return home and selects(one.get("podSelector", {}), other.labels)

    def rule(one: dict) -> bool:
        ports = one.get("ports")
        return (not ports or any(each["port"] == port and each.get("protocol", "TCP") == protocol for each in ports)) and (
            not one.get(side) or any(peer(each) for each in one[side])
        )

    return any(rule(one) for policy in binding for one in policy.get(key, []))


def reaches(policies: list[dict], source: Pod, target: Pod, port: int, protocol: str = "TCP") -> bool:
    return let(policies, "Egress", source, target, port, protocol) and let(policies, "Ingress", target, source, port, protocol)


@pytest.mark.parametrize("name", SETS)
def test_only_rolegate_reaches_the_chat_server_and_only_prometheus_the_admin_port(name: str) -> None:
    policies = [each for each in rendered(name) if each["kind"] == "NetworkPolicy"]
    gate = Pod(workload(name)["spec"]["template"]["metadata"]["labels"])
    upstream = re.fullmatch(r"http://(\w+):(\d+)", tomllib.loads(config(name))["upstream"][0]["url"])
    server, port = Pod({"app.kubernetes.io/name": upstream[1]}), int(upstream[2])
    prometheus = Pod({"app.kubernetes.io/name": "prometheus"}, "monitoring")
    dns = Pod({"k8s-app": "kube-dns"}, "kube-system")
    others = {
        "a pod beside them": Pod({"app": "curl"}),
        "an ingress controller": Pod({"app.kubernetes.io/name": "ingress-nginx"}, "ingress-nginx"),
        "one that calls itself rolegate elsewhere": Pod(gate.labels, "guests"),
        "one that calls itself prometheus here": Pod(prometheus.labels),
        "prometheus": prometheus,
    }
    assert reaches(policies, gate, server, port)
    assert not reaches(policies, gate, server, port + 1)
    assert reaches(policies, gate, dns, 53, "UDP")
    assert reaches(policies, prometheus, gate, 9901)
    for who, pod in others.items():
        assert not reaches(policies, pod, server, port), f"{who} reaches the chat server"
        assert not reaches(policies, gate, pod, 80), f"rolegate reaches {who}"
        assert reaches(policies, pod, gate, 8080), f"{who} cannot reach rolegate"
        assert pod is prometheus or not reaches(policies, pod, gate, 9901), f"{who} reaches the admin port"
    without = [each for each in policies if each["metadata"]["name"] == "rolegate"]
    assert reaches(without, others["a pod beside them"], server, port), "the evaluator would notice the policy's absence"


def test_overlays_differ_from_the_base_in_what_they_are_for() -> None:
    def settled(name: str) -> list[str]:
        return [line for line in config(name).splitlines() if not line.startswith("#")]

    def changed(name: str) -> tuple[list[str], list[str]]:
        base, here = settled("base"), settled(name)
        return [line for line in base if line not in here], [line for line in here if line not in base]

    assert changed("overlays/observe") == ([], ['mode = "observe"'])
    (gone,), (come,) = changed("overlays/production")
    assert gone.startswith('path = "-" ')
    assert come.startswith('path = "/var/lib/rolegate/audit.jsonl" ')
    spec = workload("overlays/production")
    assert spec["kind"] == "StatefulSet"
    (claim,) = spec["spec"]["volumeClaimTemplates"]
    assert {"name": claim["metadata"]["name"], "mountPath": "/var/lib/rolegate"} in container("overlays/production")["volumeMounts"]


class Kubelet:
    """Lays a ConfigMap out as the kubelet does: `..data` points to a dated folder, and is swapped in one step."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0
        folder.mkdir(parents=True)

    def lay(self, data: dict[str, str]) -> None:
        self._number += 1
        dated = self._folder / f"..2026_01_01_00_00_0{self._number}"
        dated.mkdir()
        for name, text in data.items():
            (dated / name).write_text(text)
            if not (self._folder / name).is_symlink():
                (self._folder / name).symlink_to(f"..data/{name}")
        before = os.readlink(self._folder / "..data") if (self._folder / "..data").is_symlink() else None
        (self._folder / "..data_tmp").symlink_to(dated.name)
        (self._folder / "..data_tmp").rename(self._folder / "..data")
        if before:
            shutil.rmtree(self._folder / before)


@pytest.mark.parametrize("name", SETS)
def test_the_shipped_configuration_answers_the_probes_and_reloads_an_edited_configmap(name: str, tmp_path: Path) -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in container(name)["volumeMounts"]}
    text = config(name)
    here = {"/etc/rolegate": f"{tmp_path}/etc", "/var/lib/rolegate": f"{tmp_path}/audit", "0.0.0.0:8080": "127.0.0.1:0", "0.0.0.0:9901": "127.0.0.1:0"}
    for there, instead in here.items():
        text = text.replace(there, instead)
    kubelet = Kubelet(Path(mounts["policies"].replace("/etc/rolegate", f"{tmp_path}/etc")))
    data = dict(the(name, "ConfigMap", called="rolegate-policies")["data"])
    assert data == {file: (ROOT / "policies/rocketchat" / file).read_text() for file in ("provider.toml", "policy.cedar", "cases.toml")}
    kubelet.lay(data)
    args = container(name)["args"]
    assert (args[:2], args[2]) == (["run", "--config"], mounts["config"])
    (tmp_path / "rolegate.toml").write_text(text)
    gate = Gate(tmp_path / "rolegate.toml", tmp_path)
    try:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            ask = container(name)[probe]["httpGet"]
            assert ask["port"] == "admin"
            assert gate.ask(ask["path"]).status_code == 200
        revision = lambda: gate.ask("/status").json()["policy_revision"]
        first = revision()
        kubelet.lay({**data, "policy.cedar": data["policy.cedar"] + "\n// Looked through.\n"})
        until("the edit is in force", lambda: revision() != first)
        second = revision()
        kubelet.lay({**data, "policy.cedar": data["policy.cedar"] + "\npermit (principal, action, resource\n"})
        until("the fault is told", lambda: "rolegate_config_last_reload_successful 0" in gate.ask("/metrics").text)
        assert revision() == second
        kubelet.lay(data)
        until("the old policies are back", lambda: revision() == first)
        assert gate.ask("/status").json()["mode"] == ("observe" if name == "overlays/observe" else "enforce")
    finally:
        gate.stop()
