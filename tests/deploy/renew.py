"""Draws deploy/grafana/dashboard.svg anew from a town's day of five minutes."""

import tempfile
import time
from pathlib import Path

import picture
from rig import DEPLOY, Prometheus, Town, board, substituted

DAY = 300
ROWS = 5

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        town = Town(Path(name))
        prometheus = Prometheus(town.gate.admin, Path(name))
        start = time.time()
        town.live(DAY)
        time.sleep(DAY * 0.97)
        end = time.time()
        drawn = picture.draw(board(), lambda query: prometheus.over(substituted(query, DAY), start + 5, end, 3), start + 5, end, ROWS)
        (DEPLOY / "grafana/dashboard.svg").write_text(drawn, encoding="utf-8")
        prometheus.stop()
        town.stop()
