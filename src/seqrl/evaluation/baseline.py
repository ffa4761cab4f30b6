"""The rows of one table beside their baseline: differences over the same starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from seqrl.evaluation.archive import OUTCOME, Evaluation
from seqrl.evaluation.statistics import paired_difference, rate_difference

_UNITS = {
    "clear": (100, " points of clear success"),
    "success": (100, " points of success"),
    "returns": (1, " of return"),
}


@dataclass(frozen=True)
class RowDifference:
    """How much better the baseline is than another row.

    Attributes:
        baseline, other: names of the rows.
        of: `clear` (success without having been inside a region) or `success`, of 0 to 1, or `returns`; or
            `outcome_NAME`, a sum over an episode such as a cost.
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
        One entry for each row that began in the baseline's starts, and one for each outcome that both have; returns and
        outcomes of episodes that end with their arrival are compared with such alone.
    """
    ours = next((each for each in evaluations if each.row.strategy == baseline), None)
    if ours is None:
        return []
    others = [each for each in evaluations if each is not ours and each.row.starts == ours.row.starts]
    return [difference for other in others for difference in _differences(ours, other)]


def _differences(ours: Evaluation, other: Evaluation) -> Iterator[RowDifference]:
    first = _difference(ours, other)
    if first is not None:
        yield first
    if ours.row.end_at_goal == other.row.end_at_goal:
        for name in ours.results:
            if name.startswith(OUTCOME) and name in other.results:
                yield _difference_of(name, ours, other)


def _difference_of(name: str, ours: Evaluation, other: Evaluation) -> RowDifference:
    found = paired_difference(ours.results[name].mean(1), other.results[name].mean(1))
    return RowDifference(ours.row.strategy, other.row.strategy, name, found.mean, found.interval)


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
    return _difference_of("returns", ours, other)


def tell_differences(comparisons: Sequence[RowDifference]) -> list[str]:
    """A sentence of each, in the units of what is compared."""
    lines = []
    for each in comparisons:
        factor, unit = _UNITS.get(each.of) or (1, f" of {each.of.removeprefix(OUTCOME)}")
        form = "+.1f" if each.of in _UNITS else "+.3g"
        line = f"{each.baseline} - {each.other}: {factor * each.difference:{form}}{unit}"
        if each.ci95 is not None:
            low, high = (factor * bound for bound in each.ci95)
            line += f", 95 % interval over paired starts [{low:{form}}, {high:{form}}]"
        lines.append(line)
    return lines
