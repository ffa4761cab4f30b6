"""The rows of one table beside their baseline: differences over the same starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seqrl.evaluation.archive import Evaluation
from seqrl.evaluation.statistics import paired_difference, rate_difference


@dataclass(frozen=True)
class RowDifference:
    """How much better the baseline is than another row.

    Attributes:
        baseline, other: names of the rows.
        of: `clear` (success without having been inside a region) or `success`, of 0 to 1, or `returns`.
        difference: mean of `baseline - other` over the same starts.
        ci95: its interval over starts, or None.
    """

    baseline: str
    other: str
    of: str
    difference: float
    ci95: list[float] | None


def compare_rows(evaluations: Sequence[Evaluation], baseline: str | None) -> list[RowDifference]:
    """Compare every row with the baseline: by (clear) success where both have goals, else by the return.

    Args:
        baseline: name of a row; of None, or of a row that is not there, there is nothing to compare.

    Returns:
        One entry for each row that began in the baseline's starts; returns of episodes that end with their arrival are
        compared with such alone.
    """
    ours = next((each for each in evaluations if each.row.strategy == baseline), None)
    if ours is None:
        return []
    others = [each for each in evaluations if each is not ours and each.row.starts == ours.row.starts]
    found = [_difference(ours, other) for other in others]
    return [each for each in found if each is not None]


def _difference(ours: Evaluation, other: Evaluation) -> RowDifference | None:
    rates = [each for each in ("clear", "success") if each in ours.results and each in other.results]
    if rates:
        quantity = rates[0]
        found = rate_difference(
            ours.results[quantity][None],
            other.results[quantity][None],
            ours.results.get("counted"),
            paired=True,
            drives=min(each.results["returns"].shape[1] for each in (ours, other)),
        )
        interval = found.interval and [bound / 100.0 for bound in found.interval]
        return RowDifference(ours.row.strategy, other.row.strategy, quantity, found.mean / 100.0, interval)
    if ours.row.end_at_goal != other.row.end_at_goal:
        return None
    found = paired_difference(ours.results["returns"].mean(1), other.results["returns"].mean(1))
    return RowDifference(ours.row.strategy, other.row.strategy, "returns", found.mean, found.interval)
