"""The table of a run's metrics survives kills at any byte."""

from __future__ import annotations

import math
from pathlib import Path

from seqrl.runs.metrics import Metric, append_metrics, last_metrics, read_metrics, write_metrics

LOGGED = [
    Metric(1, "train/loss", 2.5),
    Metric(1, "critic/train/loss, both", -0.125),
    Metric(20, "val/loss", 3.0),
    Metric(20, "train/loss", math.inf),
    Metric(40, "val/loss", 1234567.8),
]


def test_what_is_written_and_added_is_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    assert read_metrics(path) == []
    write_metrics(path, LOGGED[:2])
    append_metrics(path, LOGGED[2:])
    assert read_metrics(path) == LOGGED
    assert path.read_text().splitlines()[:2] == ["step,name,value", "1,train/loss,2.5"]
    assert last_metrics(path) == {
        "train/loss": math.inf, "critic/train/loss, both": -0.125, "val/loss": 1234567.8
    }  # fmt: skip
    before = path.read_bytes()
    write_metrics(path, read_metrics(path))
    assert path.read_bytes() == before


def test_a_kill_at_any_byte_costs_the_last_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    write_metrics(path, LOGGED)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert read_metrics(path) == LOGGED[: max(0, whole[:length].count(b"\n") - 1)]


def test_rows_that_are_none_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,name,value\n77,val/loss,\n7,val/\n\nx,y,1\n8,val/loss,1.5,9\n8,val/loss,nan\n")
    (metric,) = read_metrics(path)
    assert (metric.step, metric.name, math.isnan(metric.value)) == (8, "val/loss", True)
