"""The dashboard: what Grafana reads, about data that is there, and a picture of it."""

import json
import re
import xml.etree.ElementTree as ElementTree
from importlib.metadata import version
from itertools import combinations

import dashboard
import picture
import pytest
import yaml
from conftest import DAY, Watched
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from rig import DEPLOY, ROOT, board, substituted
from test_prometheus import families, metrics_in

BOARD = board()
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
REASONS = set(re.findall(r'"([a-z_]+)"', (ROOT / "src/model/verdict.rs").read_text()))
# Those of Grafana's own list that we use.
UNITS = {"reqps", "percentunit", "s", "bytes", "short"}


def test_the_file_is_what_its_source_makes() -> None:
    assert BOARD == dashboard.dashboard(), "run deploy/grafana/dashboard.py"


def lost(given: object, kept: object, at: str = "") -> list[str]:
    """The places whose values are not kept; what was added as a default is none."""
    if isinstance(given, dict) and isinstance(kept, dict):
        gone = [f"{at}/{key}" for key in given if key not in kept]
        return gone + [place for key, value in given.items() if key in kept for place in lost(value, kept[key], f"{at}/{key}")]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [place for index, pair in enumerate(zip(given, kept, strict=True)) for place in lost(*pair, f"{at}/{index}")]
    return [] if given == kept else [at]


def read_by_grafana(given: dict) -> dict:
    """The dashboard as Grafana's own model of it has it."""
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(given)))


def test_grafanas_own_model_reads_all_of_it() -> None:
    assert lost(BOARD, read_by_grafana(BOARD)) == []


def test_grafanas_own_model_would_notice_what_it_does_not_know() -> None:
    wrong = json.loads(json.dumps(BOARD))
    wrong["panels"][1]["options"]["graphMod"] = "area"
    wrong["panels"][1]["fieldConfig"]["defaults"]["units"] = "s"
    assert sorted(lost(wrong, read_by_grafana(wrong))) == ["/panels/1/fieldConfig/defaults/units", "/panels/1/options/graphMod"]


def test_panels_have_numbers_and_places_of_their_own() -> None:
    numbers = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    for one, other in combinations([panel["gridPos"] for panel in BOARD["panels"]], 2):
        apart = (one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
                 or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"])
        assert apart, (one, other)
    assert all(0 <= panel["gridPos"]["x"] and panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in BOARD["panels"])


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_each_panel_says_what_it_shows_in_which_unit_and_from_the_chosen_source(panel: dict) -> None:
    assert len(panel["description"]) > 10
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert 'instance=~"$instance"' in target["expr"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_each_query_returns_data_of_a_gate_under_load(panel: dict, watched: Watched) -> None:
    for target in panel["targets"]:
        series = watched.prometheus.over(substituted(target["expr"], DAY), watched.start, watched.end)
        assert any(samples for _, samples in series), f"{target['expr']} gives nothing"
        assert metrics_in(target["expr"]) <= families(watched.page)
        for labels, _ in series:
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= set(labels), "the legend names a label that is not there"


def test_the_variables_offer_what_can_be_chosen_and_the_annotation_marks_reloads(watched: Watched) -> None:
    offered = {}
    for variable in BOARD["templating"]["list"][1:]:
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
        offered[variable["name"]] = watched.prometheus.values(metric, label)
    assert offered["provider"] == ["docusign-rooms", "rocketchat"]
    assert len(offered["instance"]) == 1
    query = substituted(BOARD["annotations"]["list"][0]["expr"].replace("$__interval", "5s"), DAY)
    assert any(samples for _, samples in watched.prometheus.over(query, watched.start, watched.end))


def test_it_is_provisioned_where_compose_mounts_it() -> None:
    compose = yaml.safe_load((DEPLOY / "container/compose.yaml").read_text())["services"]["grafana"]
    mounts = dict(mount.split(":")[:2] for mount in compose["volumes"])
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/rolegate.yaml").read_text())["providers"][0]
    assert mounts["../grafana/dashboard.json"] == provider["options"]["path"] + "/dashboard.json"
    assert compose["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == mounts["../grafana/dashboard.json"]
    assert mounts["../grafana/provisioning"] == "/etc/grafana/provisioning"
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    assert BOARD["templating"]["list"][0]["current"]["value"] == source["uid"]
    interval = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval
    assert compose["image"] == f"grafana/grafana:{version('grafana-foundation-sdk').split('!')[1]}", "the model that checks is another one's"


def test_the_picture_is_drawn_from_what_prometheus_has(watched: Watched) -> None:
    drawn = picture.draw(
        BOARD, lambda query: watched.prometheus.over(substituted(query, DAY), watched.start, watched.end), watched.start, watched.end
    )
    texts = texts_of(drawn)
    assert {panel["title"] for panel in PANELS} <= texts
    assert {"hit", "miss", "p99", "rooms.roles"} <= texts
    # There is no room for the names of all reasons.
    assert len(texts & REASONS) >= 4
    assert "none" in texts, "what nothing guards has that for a name"
    assert drawn.count("<polyline") + drawn.count("<polygon") > 60


def test_the_picture_that_is_shipped_shows_the_panels_of_today_and_is_small() -> None:
    shipped = DEPLOY / "grafana/dashboard.svg"
    assert shipped.stat().st_size < 150_000
    shown = texts_of(shipped.read_text(encoding="utf-8"))
    titles = {panel["title"] for panel in PANELS}
    assert len(shown & titles) >= 15
    rows = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"]
    # A panel has the name of a row that is not shown.
    drawn = [text.text for text in text_of(shipped.read_text(encoding="utf-8")) if text.get("class") == "r"]
    assert drawn == rows[:5], "draw it anew: tests/deploy/run picture"


def text_of(drawn: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text"))


def texts_of(drawn: str) -> set[str]:
    return {"".join(text.itertext()) for text in text_of(drawn)}
