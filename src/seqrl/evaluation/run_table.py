"""The table of a run: all evaluations that lie in its folder, whichever command made them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from seqrl.console import say_error
from seqrl.data.summary import DataSummary
from seqrl.errors import SeqrlError, sentence
from seqrl.evaluation.archive import ROW, Evaluation, list_evaluations, read_evaluation
from seqrl.evaluation.baseline import compare_rows
from seqrl.evaluation.tables import write_tables
from seqrl.files import hold_lock, read_json

_LOCK = ".results.lock"


def update_run_table(run: Path, dataset: DataSummary, baseline: str | None) -> list[Path]:
    """Write `results.md` and `results.json` of all finished evaluations of a run, in the order in which they were made.

    Evaluations that are written at the same time, such as those of a sweep, wait for each other, so that none is left
    out. One that is damaged is told and left out.

    Args:
        dataset: what the model was trained on.
        baseline: label of the row that the others are compared with; None: the one of the table that is there.

    Returns:
        The files; none where the run has no evaluation.
    """
    with hold_lock(run / _LOCK, None):
        found = _label_apart(_read_all(run))
        if not found:
            return []
        comparisons = compare_rows(found, baseline or _find_baseline(run))
        return write_tables(run, [each.row for each in found], comparisons, dataset)


def _read_all(run: Path) -> list[Evaluation]:
    found = []
    for folder in sorted(list_evaluations(run), key=lambda each: (each / ROW).stat().st_mtime_ns):
        try:
            found.append(read_evaluation(folder))
        except SeqrlError as error:
            say_error(sentence(error))
    return found


def _label_apart(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Labels that occur again get the hash of their folder: `goal (1ab917c8)`."""
    seen: set[str] = set()
    apart = []
    for each in evaluations:
        label = each.row.strategy
        if label in seen:
            label = f"{label} ({each.folder.name.rpartition('-')[2]})"
        seen.add(label)
        apart.append(replace(each, row=replace(each.row, strategy=label)))
    return apart


def _find_baseline(run: Path) -> str | None:
    """The row that others are compared with in the table that is there."""
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # none, or damaged: written anew
        return str(read_json(run / "results.json")["comparisons"][0]["baseline"])
    return None
