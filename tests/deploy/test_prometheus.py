"""The rules and alerts: valid, about metrics that exist, firing when they should and not otherwise."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import Watched
from rig import DEPLOY, HERE

FILES = DEPLOY / "prometheus"
STORIES = HERE / "alerts.test.yml"
ALERTS = {rule["alert"]: rule for rule in yaml.safe_load((FILES / "alerts.yml").read_text())["groups"][0]["rules"]}
COMPARISONS = {" > ": " < ", " < ": " > ", " == ": " != "}
# The same comparison, set to a threshold that nothing reaches.
THRESHOLD = re.compile(r"( > | < )([0-9.]+)")


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


def ways_to_break(expression: str) -> list[str]:
    """The expression with one comparison, one threshold, or one set operation changed."""
    broken = []
    for good, bad in COMPARISONS.items():
        for found in re.finditer(re.escape(good), expression):
            broken.append(expression[: found.start()] + bad + expression[found.end() :])
    for found in THRESHOLD.finditer(expression):
        factor = 1000 if found[1] == " > " else -1000
        number = float(found[2]) * factor or 1e9
        broken.append(expression[: found.start()] + f"{found[1]}{number:g}" + expression[found.end() :])
    broken += [expression.replace(" unless ", " and ")] if " unless " in expression else []
    return broken


def told(expression: str, name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What promtool says of the stories when the alert `name` has this expression."""
    rules = yaml.safe_load((FILES / "alerts.yml").read_text())
    next(rule for rule in rules["groups"][0]["rules"] if rule["alert"] == name)["expr"] = expression
    (folder / "alerts.yml").write_text(yaml.safe_dump(rules))
    stories = yaml.safe_load(STORIES.read_text())
    stories["rule_files"] = [str(FILES / "rules.yml"), str(folder / "alerts.yml")]
    # Only the stories that tell of this alert: the others cannot change.
    stories["tests"] = [story for story in stories["tests"] if name in {test["alertname"] for test in story["alert_rule_test"]}]
    (folder / "stories.yml").write_text(yaml.safe_dump(stories))
    return promtool("test", "rules", folder / "stories.yml")


def test_the_configuration_and_the_rules_are_valid() -> None:
    checked = promtool("check", "config", "--lint=all", "--lint-fatal", FILES / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", FILES / "rules.yml", FILES / "alerts.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_alert_fires_and_keeps_quiet_as_its_stories_tell() -> None:
    checked = promtool("test", "rules", STORIES)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_that_is_broken_on_purpose_fails_its_stories(name: str, tmp_path: Path) -> None:
    expression = ALERTS[name]["expr"]
    assert told(expression, name, tmp_path).returncode == 0, "unbroken, it passes"
    broken = ways_to_break(expression)
    assert broken, "nothing to break"
    for mutant in broken:
        checked = told(mutant, name, tmp_path)
        assert checked.returncode != 0, f"no story notices {mutant}"
        assert name in checked.stdout + checked.stderr, checked.stdout + checked.stderr


def test_each_alert_has_a_story_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    firing, quiet = set(), set()
    for story in yaml.safe_load(STORIES.read_text())["tests"]:
        for test in story["alert_rule_test"]:
            (firing if test["exp_alerts"] else quiet).add(test["alertname"])
    assert firing == quiet == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_says_what_it_means_and_what_to_do_first(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    text, _, place = alert["annotations"]["runbook"].rpartition(" ")
    assert len(text) > 40
    file, _, anchor = place.partition("#")
    headings = re.findall(r"^#+ (.+)$", (DEPLOY.parent / file).read_text(), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, f"{place} leads nowhere"
    assert f"`{name}`" in (DEPLOY / "README.md").read_text(), "the guide does not name it"


def test_prometheus_evaluates_every_rule_and_a_common_day_wakes_nobody(watched: Watched) -> None:
    rules = watched.prometheus.rules()
    assert len(rules) == len(ALERTS) + len(yaml.safe_load((FILES / "rules.yml").read_text())["groups"][0]["rules"])
    for rule in rules:
        assert rule["health"] == "ok", rule
        if rule["type"] == "recording":
            assert any(samples for _, samples in watched.prometheus.over(rule["name"], watched.start, watched.end)), f"{rule['name']} gives nothing"


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:rolegate|process)_\w+", re.sub(r"[\w]+:[\w:]+", "", expression)))


def families(page: str) -> set[str]:
    """The names that a page's families have as series."""
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE):
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names


def test_every_metric_that_is_asked_for_is_on_the_page(watched: Watched) -> None:
    rules = [rule for file in ("rules.yml", "alerts.yml") for rule in yaml.safe_load((FILES / file).read_text())["groups"][0]["rules"]]
    # A family without a series is not on the page; no audit disk fails here, but this one has no labels.
    named = set().union(*(metrics_in(rule["expr"]) for rule in rules))
    assert len(named) > 10
    assert named <= families(watched.page), named - families(watched.page)


def test_the_page_itself_is_as_prometheus_wants_it(watched: Watched) -> None:
    checked = subprocess.run(["promtool", "check", "metrics"], input=watched.page, capture_output=True, text=True, timeout=60, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
