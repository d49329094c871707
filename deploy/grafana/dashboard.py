#!/usr/bin/env python3
"""The dashboard: its rows and panels as people read them. Run it to write dashboard.json beside it.

In an expression `{@}` stands for the chosen instances, `{@provider}` for the chosen instances and providers.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

WIDTH = 24
RATE = "[$__rate_interval]"
REFUSED = '{@provider,decision="deny"}'
CHOSEN = {"@provider": 'instance=~"$instance",provider=~"$provider"', "@": 'instance=~"$instance"'}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GOOD, BAD, DOUBTFUL = "green", "red", "orange"


@dataclass(frozen=True)
class Panel:
    title: str
    description: str
    unit: str
    """One of Grafana's: reqps, percentunit (0–1), s, bytes, short, …"""
    queries: dict[str, str]
    """What the legend says, and the expression."""
    width: int = 8
    kind: str = "timeseries"
    stacked: bool = False
    steps: tuple[tuple[float | None, str], ...] = ((None, GOOD),)
    """From which value on which colour."""
    colours: dict[str, str] = field(default_factory=dict)
    """Colours of series that have a meaning."""
    values: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The words and colours of single values."""
    smallest: int | None = 0


def quantile(q: float, metric: str, by: str, where: str = "{@provider}") -> str:
    return f"histogram_quantile({q}, sum by ({by}, le) (rate({metric}_bucket{where}{RATE})))".replace("(, le)", "(le)")


def share(metric: str, of: str) -> str:
    return f"sum(rate({metric}{{@provider,{of}}}{RATE})) / sum(rate({metric}{{@provider}}{RATE}))"


def per_second(metric: str, by: str, where: str = "{@provider}") -> str:
    return f"sum by ({by}) (rate({metric}{where}{RATE}))"


ROWS = {
    "At a glance": [
        Panel("Requests", "Requests answered a second, guarded or not.", "reqps",
              {"": f"sum(rate(rolegate_requests_total{{@provider}}{RATE}))"}, 3, "stat"),
        Panel("Refused", "The share of the guarded requests that was refused. Compare with yesterday, not with zero.", "percentunit",
              {"": share("rolegate_decisions_total", 'decision="deny"')}, 3, "stat",
              steps=((None, GOOD), (0.25, DOUBTFUL), (0.75, BAD))),
        Panel("Latency, p99", "99 of 100 requests are answered within this time. The chat server's own time is in it.", "s",
              {"": quantile(0.99, "rolegate_request_duration_seconds", "")}, 3, "stat", steps=((None, GOOD), (1, DOUBTFUL), (2, BAD))),
        Panel("Cache hits", "The share of needs for a fact that the cache met without asking the chat server.", "percentunit",
              {"": share("rolegate_fact_lookups_total", 'outcome="hit"')}, 3, "stat", steps=((None, BAD), (0.3, DOUBTFUL), (0.6, GOOD))),
        Panel("Lost records", "Audit records that could not be written in the chosen time. Anything but 0 is an incident.", "short",
              {"": "sum(increase(rolegate_audit_failures_total{@}[$__range]))"}, 3, "stat", steps=((None, GOOD), (1, BAD))),
        Panel("Policies", "Whether all chosen rolegates decide by the policies that lie on their disks.", "short",
              {"": "min(rolegate_policy_matches_disk{@})"}, 3, "stat", steps=((None, BAD), (1, GOOD)),
              values={"0": ("differ from disk", BAD), "1": ("as on disk", GOOD)}),
        Panel("Certificate ends", "The earliest end of a certificate; rolegate reads a renewed one without a restart.", "s",
              {"": "min(rolegate_certificate_expiry_timestamp_seconds{@}) - time()"}, 3, "stat",
              steps=((None, BAD), (2 * 86400, DOUBTFUL), (14 * 86400, GOOD)), smallest=None),
        Panel("Instances", "How many rolegates answer Prometheus.", "short", {"": "count(rolegate_build_info{@})"}, 3, "stat"),
    ],
    "Traffic and verdicts": [
        Panel("Requests, by action", "Requests answered a second. `none` is what no action guards.", "reqps",
              {"{{action}}": per_second("rolegate_requests_total", "action")}, stacked=True),
        Panel("Verdicts", "Guarded requests, permitted and refused.", "reqps",
              {"{{decision}}": per_second("rolegate_decisions_total", "decision")}, stacked=True, colours={"permit": GOOD, "deny": BAD}),
        Panel("Answers, by status", "What clients were told, by rolegate or by the chat server.", "reqps",
              {"{{code}}": per_second("rolegate_requests_total", "code")}, stacked=True),
    ],
    "Who is refused, and why": [
        Panel("Refused, by reason", "The reasons of refusals. Whose they were stands in the audit log: no name is ever a label.", "reqps",
              {"{{reason}}": per_second("rolegate_decisions_total", "reason", REFUSED)}, 7, stacked=True),
        Panel("Refused, by action", "Which actions are refused, through which door.", "reqps",
              {"{{action}} ({{door}})": per_second("rolegate_decisions_total", "action, door", REFUSED)}, 7, stacked=True),
        Panel("Enforced or observed", "With `mode = \"observe\"` a refusal is recorded and the request goes on.", "reqps",
              {"{{mode}}": per_second("rolegate_decisions_total", "mode", REFUSED)}, 5, stacked=True,
              colours={"enforce": GOOD, "observe": DOUBTFUL}),
        Panel("Turned away unread", "Connections and requests that were ended unread: limits, deadlines, malformed heads, TLS.",
              "reqps",
              {"{{cause}}": per_second("rolegate_rejected_total", "cause", "{@}")}, 5, stacked=True),
    ],
    "Facts": [
        Panel("Needs for a fact, by outcome", "hit: from the cache. miss: looked up. coalesced: waited for another's lookup. "
              "refused: bad credential. stale: the lookup failed, an older fact stood in. error: it failed.", "reqps",
              {"{{outcome}}": per_second("rolegate_fact_lookups_total", "outcome")}, 7, stacked=True,
              colours={"hit": GOOD, "miss": "blue", "coalesced": "purple", "refused": "yellow", "stale": DOUBTFUL, "error": BAD}),
        Panel("Time of a lookup", "What the chat server takes for a lookup, all its steps together.", "s",
              {"{{fact}} p50": quantile(0.5, "rolegate_fact_lookup_duration_seconds", "fact"),
               "{{fact}} p99": quantile(0.99, "rolegate_fact_lookup_duration_seconds", "fact")}, 7),
        Panel("Facts in the cache", "Against `facts.capacity`.", "short",
              {"{{fact}}": "sum by (fact) (rolegate_fact_entries{@})"}, 5, stacked=True),
        Panel("Dropped before their time", "Evictions for want of room, and invalidations: by an administrator, or because the chat server "
              "answered 401.", "reqps",
              {"evicted {{fact}}": per_second("rolegate_fact_evictions_total", "fact", "{@}"),
               "invalidated: {{cause}}": per_second("rolegate_fact_invalidations_total", "cause", "{@}")}, 5),
    ],
    "Latency": [
        Panel("Time of a request", "From its head to the end of its answer.", "s",
              {"p50": quantile(0.5, "rolegate_request_duration_seconds", ""), "p90": quantile(0.9, "rolegate_request_duration_seconds", ""),
               "p99": quantile(0.99, "rolegate_request_duration_seconds", "")},
              colours={"p50": GOOD, "p90": DOUBTFUL, "p99": BAD}),
        Panel("Latency by stage, p99", "match, facts, decide, record: rolegate's. upstream: the chat server's answer.",
              "s", {"{{stage}}": quantile(0.99, "rolegate_stage_duration_seconds", "stage", "{@}")}),
        Panel("Latency by stage, mean", "Where the time of a guarded request goes.", "s",
              {"{{stage}}": f"sum by (stage) (rate(rolegate_stage_duration_seconds_sum{{@}}{RATE})) / "
                            f"sum by (stage) (rate(rolegate_stage_duration_seconds_count{{@}}{RATE}))"}, stacked=True),
    ],
    "Audit": [
        Panel("Records, by kind", "Lines of the audit log a second: a decision for each guarded request, an outcome for each forwarded.",
              "reqps",
              {"{{kind}}": per_second("rolegate_audit_records_total", "kind", "{@}")}, stacked=True),
        Panel("Time to write a record", "A guarded request is forwarded only after that.", "s",
              {"p50": quantile(0.5, "rolegate_audit_write_duration_seconds", "", "{@}"),
               "p99": quantile(0.99, "rolegate_audit_write_duration_seconds", "", "{@}")},
              colours={"p50": GOOD, "p99": BAD}),
        Panel("Records not written", "Those that wait, and those that failed within the rate window. Both are 0 on a good day.", "short",
              {"waiting": "sum(rolegate_audit_pending_records{@})", "failed": f"sum(increase(rolegate_audit_failures_total{{@}}{RATE}))"},
              colours={"waiting": DOUBTFUL, "failed": BAD}),
    ],
    "Policies": [
        Panel("Policy revision", "Which set of policies each rolegate decides by. Two at once are a rollout, or a replica that lags.",
              "short",
              {"{{instance}} {{revision}}": "rolegate_policy_info{@}"}, 12, "state-timeline", values={"1": ("in force", GOOD)}),
        Panel("Last reload", "Whether the last change of policies was taken over, and whether what runs is what lies on disk.", "short",
              {"{{instance}} reload": "rolegate_config_last_reload_successful{@}",
               "{{instance}} as on disk": "rolegate_policy_matches_disk{@}"},
              8, "state-timeline", values={"0": ("no", BAD), "1": ("yes", GOOD)}),
        Panel("Since the last good reload", "The time since policies were last taken over, by the rolegate where it is longest.", "s",
              {"": "max(time() - rolegate_config_last_reload_success_timestamp_seconds{@})"}, 4, "stat"),
    ],
    "Upstream": [
        Panel("Failed exchanges, by kind", "resolve: DNS. connect: no connection, or none that TLS accepts. timeout: no answer in time. "
              "broken: it broke off.", "reqps",
              {"{{provider}} {{kind}}": per_second("rolegate_upstream_errors_total", "provider, kind")}),
        Panel("Waiting for the chat server", "Until the head of its answer, for what is guarded.", "s",
              {"p50": quantile(0.5, "rolegate_stage_duration_seconds", "", '{@,stage="upstream"}'),
               "p99": quantile(0.99, "rolegate_stage_duration_seconds", "", '{@,stage="upstream"}')}, colours={"p50": GOOD, "p99": BAD}),
        Panel("Open connections", "Of clients; those that became WebSockets are in both lines.", "short",
              {"all": "sum(rolegate_connections{@})", "WebSocket": "sum(rolegate_websocket_connections{@})"}),
    ],
    "Process": [
        Panel("Processor", "Cores in use.", "short", {"{{instance}}": f"rate(process_cpu_seconds_total{{@,job=\"rolegate\"}}{RATE})"}),
        Panel("Memory", "Resident memory.", "bytes", {"{{instance}}": 'process_resident_memory_bytes{@,job="rolegate"}'}),
        Panel("File descriptors", "Open, against the limit of the process.", "percentunit",
              {"{{instance}}": 'process_open_fds{@,job="rolegate"} / process_max_fds{@,job="rolegate"}'}),
    ],
}


def expression(text: str) -> str:
    for short, long in CHOSEN.items():
        text = text.replace("{" + short + "}", "{" + long + "}").replace("{" + short + ",", "{" + long + ",")
    return text


def panel(number: int, this: Panel, at: dict) -> dict:
    defaults = {
        "unit": this.unit,
        "noValue": "none",
        "color": {"mode": "thresholds" if this.kind == "stat" else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in this.steps]},
        "mappings": [
            {"type": "value", "options": {value: {"text": text, "color": colour, "index": index}
                                          for index, (value, (text, colour)) in enumerate(this.values.items())}}
        ] if this.values else [],
    }
    if this.smallest is not None and this.kind == "timeseries":
        defaults["min"] = this.smallest
    if this.kind == "timeseries":
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": 25 if this.stacked else 0, "showPoints": "never",
                              "stacking": {"mode": "normal" if this.stacked else "none", "group": "A"}}
        options = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
                   "tooltip": {"mode": "multi", "sort": "desc"}}
    elif this.kind == "stat":
        options = {"reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""}, "graphMode": "area", "colorMode": "value",
                   "justifyMode": "auto", "textMode": "auto", "orientation": "auto", "wideLayout": True,
                   "showPercentChange": False, "percentChangeColorMode": "standard"}
    else:
        defaults["custom"] = {"lineWidth": 0, "fillOpacity": 70}
        options = {"showValue": "auto", "rowHeight": 0.8, "mergeValues": True, "alignValue": "left",
                   "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
                   "tooltip": {"mode": "single", "sort": "none"}}
    overrides = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]}
        for name, colour in this.colours.items()
    ]
    targets = [
        {"refId": chr(ord("A") + index), "expr": expression(text), "legendFormat": legend or "__auto", "datasource": DATASOURCE,
         "range": True, "instant": False, "editorMode": "code"}
        for index, (legend, text) in enumerate(this.queries.items())
    ]
    return {"id": number, "type": this.kind, "title": this.title, "description": this.description, "datasource": DATASOURCE,
            "gridPos": at, "fieldConfig": {"defaults": defaults, "overrides": overrides}, "options": options, "targets": targets}


def panels() -> list[dict]:
    made, y = [], 0
    for title, row in ROWS.items():
        made.append({"id": len(made) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
                     "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})
        y, x = y + 1, 0
        height = 4 if all(each.kind == "stat" for each in row) else 8
        for each in row:
            made.append(panel(len(made) + 1, each, {"x": x, "y": y, "w": each.width, "h": height}))
            x += each.width
        assert x == WIDTH, f"the row {title!r} is {x} wide, not {WIDTH}"
        y += height
    return made


def variable(name: str, label: str, metric: str) -> dict:
    query = f"label_values({metric}, {name})"
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "query": {"query": query, "refId": name},
            "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".*",
            "current": {"text": "All", "value": "$__all"}}


def dashboard() -> dict:
    return {
        "uid": "rolegate",
        "title": "rolegate",
        "description": "Who asks through the gate, what it decides and why, and whether all that it needs is well.",
        "tags": ["rolegate"],
        "schemaVersion": 41,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "multi": False, "includeAll": False,
             "current": {"text": "Prometheus", "value": "prometheus"}},
            variable("instance", "Instance", "rolegate_build_info"),
            variable("provider", "Provider", "rolegate_requests_total"),
        ]},
        "annotations": {"list": [
            {"name": "Policies were taken over", "datasource": DATASOURCE, "enable": True, "iconColor": "blue",
             "expr": expression("changes(rolegate_config_last_reload_success_timestamp_seconds{@}[$__interval]) > 0")},
        ]},
        "panels": panels(),
    }


if __name__ == "__main__":
    text = json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
    Path(__file__).with_name("dashboard.json").write_text(text, encoding="utf-8")
