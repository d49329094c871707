"""Draws the dashboard as Grafana would, from real data, as one SVG: what the README shows."""

import math
import re
import time
from collections.abc import Callable
from html import escape

Series = tuple[dict[str, str], list[tuple[float, float]]]

COLUMN, ROW, GAP, TITLE, LEGEND, AXIS = 50, 25, 6, 26, 16, 58
COLOURS = {"green": "#73bf69", "red": "#f2495c", "orange": "#ff9830", "blue": "#5794f2", "purple": "#b877d9", "yellow": "#fade2a"}
PALETTE = ["#73bf69", "#fade2a", "#5794f2", "#ff9830", "#f2495c", "#b877d9"]
PALETTE += ["#8ab8ff", "#37872d", "#e0b400", "#1f60c4", "#fa6400", "#8f3bb8"]
SECONDS = [(86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")]
STYLE = """
text{font:12px Inter,system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:#ccccdc}
.r{font-size:14px;font-weight:600}.t{font-weight:600}.a{font-size:10px;fill:#8e8e99}.l{font-size:10.5px}
.n{font-size:25px;font-weight:600;text-anchor:middle}.p{fill:#181b1f;stroke:#2c3035}.g{stroke:#2c3035;stroke-width:1}.s{fill:none}.s,.f{stroke-width:1.2;stroke-linejoin:round}.f{fill-opacity:.3}
"""


def told(value: float, unit: str) -> str:
    """A value as people read it."""
    if unit == "s":
        size, name = next(((size, name) for size, name in SECONDS if abs(value) >= size), (1e-6, "µs"))
        return f"{value / size:.3g} {name}" if value else "0 s"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "bytes":
        return f"{value / 2**20:.3g} MiB"
    return f"{value:.3g}" + (" /s" if unit == "reqps" else "")


def draw(board: dict, ask: Callable[[str], list[Series]], start: float, end: float, rows: int | None = None) -> str:
    """The dashboard's first `rows` rows of panels (all without), each query asked by `ask`, between two times."""
    parts, bottom, seen = [], 0, 0
    for panel in board["panels"]:
        seen += panel["type"] == "row"
        if rows is not None and seen > rows:
            break
        at = panel["gridPos"]
        x, y = at["x"] * COLUMN + GAP, at["y"] * ROW + GAP
        width, height = at["w"] * COLUMN - GAP, at["h"] * ROW - GAP
        bottom = max(bottom, y + height)
        if panel["type"] == "row":
            parts.append(f'<text class="r" x="{x + 4}" y="{y + 15}">{escape(panel["title"])}</text>')
            continue
        parts.append(f'<g transform="translate({x} {y})"><rect class="p" width="{width}" height="{height}" rx="3"/>'
                     f'<text class="t" x="9" y="18">{escape(shortened(panel["title"], width - 14, 6.9))}</text>')
        series = [(legend(target, labels), samples) for target in panel["targets"] for labels, samples in ask(target["expr"]) if samples]
        parts.append({"stat": stat, "timeseries": lines, "state-timeline": states}[panel["type"]](panel, series, width, height, start, end))
        parts.append("</g>")
    size = f'{24 * COLUMN + GAP} {bottom + GAP}'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img" aria-label="The dashboard of rolegate">'
            f'<style>{STYLE.strip()}</style><rect width="100%" height="100%" rx="6" fill="#111217"/>' + "\n".join(parts) + "</svg>\n")


def legend(target: dict, labels: dict[str, str]) -> str:
    form = target["legendFormat"]
    return "" if form == "__auto" else re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), form)


def colour_of(panel: dict, name: str, index: int) -> str:
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == name:
            return COLOURS[override["properties"][0]["value"]["fixedColor"]]
    return PALETTE[index % len(PALETTE)]


def mapped(panel: dict, value: float) -> tuple[str, str] | None:
    for mapping in panel["fieldConfig"]["defaults"]["mappings"]:
        if found := mapping["options"].get(f"{value:g}"):
            return found["text"], COLOURS[found["color"]]
    return None


def stat(panel: dict, series: list, width: int, height: int, start: float, end: float) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    if not series:
        return f'<text class="n" x="{width / 2}" y="{height - 22}">{defaults["noValue"]}</text>'
    samples = series[0][1]
    value = samples[-1][1]
    step = [step for step in defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]][-1]
    text, colour = mapped(panel, value) or (told(value, defaults["unit"]), COLOURS[step["color"]])
    low, high = min(v for _, v in samples), max(v for _, v in samples)
    place = across(start, end, 0, width)
    points = " ".join(f"{place(at):.0f},{height - 2 - 22 * (v - low) / ((high - low) or 1):.1f}" for at, v in samples)
    size = "" if len(text) < 9 else ' style="font-size:18px"'
    return (f'<polyline class="s" stroke="{colour}" opacity=".35" points="{points}"/>'
            f'<text class="n" x="{width / 2}" y="{height - 30}"{size}><tspan fill="{colour}">{escape(text)}</tspan></text>')


def lines(panel: dict, series: list, width: int, height: int, start: float, end: float) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    names, rows = keys([(name, colour_of(panel, name, index)) for index, (name, _) in enumerate(series) if name], width, height)
    left, right, top, bottom = AXIS, width - 10, TITLE + 6, height - LEGEND * rows - 22
    times = sorted({at for _, samples in series for at, _ in samples})
    layers, floor = [], dict.fromkeys(times, 0.0)
    for index, (name, samples) in enumerate(series):
        values = dict(samples)
        if stacked:
            ceiling = {at: floor[at] + values.get(at, 0.0) for at in times}
            layers.append((name, colour_of(panel, name, index), ceiling, floor))
            floor = ceiling
        else:
            layers.append((name, colour_of(panel, name, index), values, None))
    highest = max((v for _, _, ceiling, _ in layers for v in ceiling.values()), default=1) or 1
    highest = nice(highest / 2**20) * 2**20 if defaults["unit"] == "bytes" else nice(highest)
    place, rise = across(start, end, left, right), lambda v: bottom - (bottom - top) * v / highest
    parts = []
    for quarter in range(5):
        y = rise(highest * quarter / 4)
        parts.append(f'<path class="g" d="M{left} {y:.1f}H{right}"/>')
        if quarter % 2 == 0:
            parts.append(f'<text class="a" x="{left - 6}" y="{y + 3.5:.1f}" text-anchor="end">{told(highest * quarter / 4, defaults["unit"])}</text>')
    ticks = 3 if width > 300 else 1
    for tick in range(ticks + 1):
        at, anchor = start + (end - start) * tick / ticks, "start" if tick == 0 else "end" if tick == ticks else "middle"
        clock = time.strftime("%H:%M:%S", time.gmtime(at))
        parts.append(f'<text class="a" x="{place(at):.0f}" y="{bottom + 14}" text-anchor="{anchor}">{clock}</text>')
    if not series:
        parts.append(f'<text class="a" x="{(left + right) / 2}" y="{(top + bottom) / 2}" text-anchor="middle">{defaults["noValue"]}</text>')
    for _, colour, ceiling, floor in layers:
        for run in runs(times, ceiling, floor):
            path = " ".join(f"{place(at):.0f},{rise(ceiling[at]):.0f}" for at in run)
            if floor is None:
                parts.append(f'<polyline class="s" stroke="{colour}" points="{path}"/>')
            else:
                back = " ".join(f"{place(at):.0f},{rise(floor[at]):.0f}" for at in reversed(run))
                parts.append(f'<polygon class="f" stroke="{colour}" fill="{colour}" points="{path} {back}"/>')
    parts.append(names)
    return "".join(parts)


def runs(times: list[float], ceiling: dict[float, float], floor: dict[float, float] | None) -> list[list[float]]:
    """The stretches of time to draw: where a line has samples, or where a layer is thicker than nothing."""
    found: list[list[float]] = [[]]
    for index, at in enumerate(times):
        near = [each for each in times[max(0, index - 1) : index + 2] if each in ceiling]
        if at in ceiling and (floor is None or any(ceiling[each] > floor[each] for each in near)):
            found[-1].append(at)
        elif found[-1]:
            found.append([])
    return [run for run in found if run]


def keys(names: list[tuple[str, str]], width: int, height: int) -> tuple[str, int]:
    """The legend, in two lines at most, and how many it took."""
    lines: list[list[tuple[int, str, str]]] = [[]]
    x = 12
    for name, colour in names:
        long = 24 + round(6 * len(name))
        if x + long > width - 12 and lines[-1]:
            if len(lines) == 2:
                lines[-1].append((x, "…", "none"))
                break
            lines.append([])
            x = 12
        lines[-1].append((x, name, colour))
        x += long
    parts = []
    for index, line in enumerate(reversed(lines)):
        y = height - 9 - 15 * index
        for x, name, colour in line:
            parts.append(f'<rect x="{x}" y="{y - 5}" width="10" height="3" rx="1" fill="{colour}"/>'
                         f'<text class="l" x="{x + 14}" y="{y}">{escape(name)}</text>')
    return "".join(parts), len(lines)


def states(panel: dict, series: list, width: int, height: int, start: float, end: float) -> str:
    left, place = 150, across(start, end, 150, width - 10)
    tall = min(34, (height - TITLE - 12) / max(1, len(series)))
    parts = []
    for index, (name, samples) in enumerate(series):
        y = TITLE + 8 + index * tall
        parts.append(f'<text class="a" x="9" y="{y + tall / 2 + 1:.0f}">{escape(shortened(name, left - 14, 5.2))}</text>')
        wide = (samples[1][0] - samples[0][0]) if len(samples) > 1 else 1
        spans: list[list[float]] = []
        for at, value in samples:
            if spans and spans[-1][2] == value and at - spans[-1][1] < wide * 1.5:
                spans[-1][1] = at
            else:
                spans.append([at, at, value])
        for begins, ends, value in spans:
            _, colour = mapped(panel, value) or ("", PALETTE[index])
            x, to = place(begins), min(place(ends + wide), width - 10)
            parts.append(f'<rect x="{x:.0f}" y="{y:.0f}" width="{to - x:.0f}" height="{tall - 8:.0f}" rx="2" fill="{colour}" opacity=".7"/>')
    return "".join(parts)


def across(start: float, end: float, left: float, right: float) -> Callable[[float], float]:
    return lambda at: left + (right - left) * (at - start) / (end - start)


def nice(value: float) -> float:
    """The next round number."""
    size = 10 ** math.floor(math.log10(value))
    return next(step * size for step in (1, 2, 2.5, 5, 10) if step * size >= value * 0.999)


def shortened(text: str, room: float, letter: float) -> str:
    most = int(room / letter)
    return text if len(text) <= most else text[: most - 1] + "…"
