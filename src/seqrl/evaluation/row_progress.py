"""How far the rows of a results table came, for whoever watches or reads the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from seqrl.config import EvaluationConfig
from seqrl.console import one_line, say, show_duration
from seqrl.evaluation.archive import is_finished, label_of


class RowProgress:
    """The rows that are to be evaluated, one after the other; says which one it is and how long all will take.

    Rows without `progress_bar` are counted and not told.

    Args:
        rows: settings of each.
        places: folder of each, in which a row may be finished already.
        clock: seconds.
    """

    def __init__(
        self,
        rows: Sequence[EvaluationConfig],
        places: Sequence[Path],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows, self._places, self._clock = list(rows), list(places), clock
        self._present = 0

    def __iter__(self) -> Iterator[tuple[EvaluationConfig, Path]]:
        open_rows = [place for place, folder in enumerate(self._places) if not self._is_done(place, folder)]
        made, spent = 0, 0.0
        for number, (row, folder) in enumerate(zip(self._rows, self._places, strict=True)):
            if row.progress_bar and number in open_rows and len(self._rows) > 1:
                left = spent / made * (len(open_rows) - made) if made else None
                rest = "" if left is None else f", {show_duration(left)} left for all"
                say(one_line(f"row {number + 1} of {len(self._rows)}: {label_of(row)}{rest}"))
            self._present, began = number, self._clock()
            yield row, folder
            if number in open_rows:
                made, spent = made + 1, spent + self._clock() - began

    def _is_done(self, place: int, folder: Path) -> bool:
        return self._rows[place].output is None and is_finished(folder)

    def tell_left(self) -> None:
        """Say what is left of an evaluation that was interrupted in its present row."""
        labels, number = [one_line(label_of(row)) for row in self._rows], self._present
        if len(labels) == 1:
            say(f"nothing is kept of {labels[0]}; the same command evaluates it from its start")
            return
        left = ", ".join(labels[number:])
        say(f"{number} of {len(labels)} rows are finished and kept; the same command evaluates what is left: {left}")
