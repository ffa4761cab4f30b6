"""`metrics.csv` of a run: the columns `step,name,value`, one row per number, the only reader and the only writer of it.

Rows of this long form can be appended whatever is logged when. A process that is killed may leave half a row.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from seqrl.files import write_text

COLUMNS = ("step", "name", "value")


class Metric(NamedTuple):
    """One number that was logged; the name begins with its stage's prefix, as in `critic/val/loss`."""

    step: int
    name: str
    value: float


def read_metrics(path: Path) -> list[Metric]:
    """What a run logged, in order, without half rows; empty where it logs no CSV."""
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    found = []
    for row in csv.reader(whole.splitlines()):
        try:
            step, name, value = row
            found.append(Metric(int(step), name, float(value)))
        except ValueError:
            continue  # the header, or half a row
    return found


def last_metrics(path: Path) -> dict[str, float]:
    """The newest value of everything that a run logged."""
    return {metric.name: metric.value for metric in read_metrics(path)}


def write_metrics(path: Path, metrics: Iterable[Metric]) -> None:
    """Write a file anew, with the header."""
    write_text(path, f"{','.join(COLUMNS)}\n{_rows(metrics)}")


def append_metrics(path: Path, metrics: Iterable[Metric]) -> None:
    """Add rows to a file that `write_metrics` began."""
    with path.open("a", encoding="utf-8") as file:
        file.write(_rows(metrics))


def flush_metrics(path: Path) -> None:
    """Bring the rows to the disk, where a checkpoint that follows must find them."""
    with path.open("a", encoding="utf-8") as file:
        os.fsync(file.fileno())


def _rows(metrics: Iterable[Metric]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((step, name, f"{value:.8g}") for step, name, value in metrics)
    return text.getvalue()
