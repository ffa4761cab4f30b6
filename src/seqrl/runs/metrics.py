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

from seqrl.console import say_error
from seqrl.errors import ConfigError, explain_unread, is_damage
from seqrl.files import read_text, refuse_links, write_text

COLUMNS = ("step", "name", "value")
_HEADER = ",".join(COLUMNS)


class Metric(NamedTuple):
    """One number that was logged; the name begins with its stage's prefix, as in `critic/val/loss`."""

    step: int
    name: str
    value: float


def read_metrics(path: Path) -> list[Metric]:
    """What a run logged, in order, without half rows; empty where it logs no CSV.

    Damaged rows are left out, which is said once.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        content = read_text(path, lenient=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if not is_damage(error):
            raise ConfigError(explain_unread(path, error)) from error
        raise ConfigError(
            f"{str(path)!r} cannot be read ({error.strerror}); move it away, and the run begins another one"
        ) from error
    lines = [line for line in content.rpartition("\n")[0].split("\n") if line.strip() not in ("", _HEADER)]
    found = [_parse(line) for line in lines]
    damaged = found.count(None)
    if damaged:
        say_error(f"{str(path)!r} has {damaged} damaged row{'s' if damaged > 1 else ''}, left out here")
    return [metric for metric in found if metric is not None]


def _parse(line: str) -> Metric | None:
    try:
        step, name, value = next(csv.reader([line]))
        return Metric(int(step), name, float(value))
    except (ValueError, StopIteration, csv.Error):
        return None


def last_metrics(path: Path) -> dict[str, float]:
    """The newest value of everything that a run logged."""
    return {metric.name: metric.value for metric in read_metrics(path)}


def write_metrics(path: Path, metrics: Iterable[Metric]) -> None:
    """Write a file anew, with the header."""
    write_text(path, f"{_HEADER}\n{_rows(metrics)}")


def append_metrics(path: Path, metrics: Iterable[Metric]) -> None:
    """Add rows to a file that `write_metrics` began."""
    with open(path, "a", encoding="utf-8", opener=refuse_links) as file:
        file.write(_rows(metrics))


def flush_metrics(path: Path) -> None:
    """Bring the rows to the disk, where a checkpoint that follows must find them."""
    with open(path, "a", encoding="utf-8", opener=refuse_links) as file:
        os.fsync(file.fileno())


def _rows(metrics: Iterable[Metric]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((step, name, f"{value:.8g}") for step, name, value in metrics)
    return text.getvalue()
