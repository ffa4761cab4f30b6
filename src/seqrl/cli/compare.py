"""`seqrl compare`: which of two trained models is better, and how sure that is."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from seqrl.cli.telling import tell_errors
from seqrl.console import one_line, say
from seqrl.errors import ConfigError
from seqrl.files import write_text
from seqrl.paths import find_path

if TYPE_CHECKING:
    from seqrl.evaluation.comparison import Comparison


@tell_errors()
def run(arguments: list[str]) -> int:
    """Run the command; returns 1 if A is worse by more than was allowed."""
    parser = argparse.ArgumentParser(
        "seqrl compare",
        description="Paired difference A - B of two models' evaluations from the same starts, with a 95 % interval.",
        epilog="RUN: a run folder, several separated by commas (one for each training seed), the folder of a sweep "
        "over seeds, or the folder of one evaluation.",
    )
    parser.add_argument("run_a", metavar="RUN_A")
    parser.add_argument("run_b", metavar="RUN_B")
    parser.add_argument("--row", metavar="NAME", help="results row of A, as in results.md (reward, goal, ...)")
    parser.add_argument("--row-b", metavar="NAME", help="results row of B; that of A by default")
    parser.add_argument("--metric", metavar="NAME", help="return, score, success or clear; with goals success")
    parser.add_argument(
        "--fail-if-worse",
        type=float,
        metavar="MARGIN",
        help="exit status 1 where the mean of A is more than MARGIN below that of B, in points or units of return",
    )
    parser.add_argument("--output", type=find_path, metavar="FILE", help="write everything there, as JSON")
    options = parser.parse_args(arguments)
    from seqrl.evaluation.comparison import compare_runs

    margin = options.fail_if_worse
    if margin is not None and not 0 <= margin < math.inf:
        raise ConfigError(f"--fail-if-worse {margin:g} is no margin; give 0 or more, in the units of the metric")
    found = compare_runs(
        _paths(options.run_a),
        _paths(options.run_b),
        row_a=options.row,
        row_b=options.row_b or options.row,
        metric=options.metric,
    )
    for line in _lines(found):
        say(one_line(line))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.output, found.to_json())
        say(f"written: {options.output}")
    return 0 if margin is None else _judge(found, margin)


def _judge(found: Comparison, margin: float) -> int:
    """Say whether A is worse than B by more than a margin; 1 if it is, else 0."""
    worse = -found.difference > margin
    say(
        f"A is {'' if worse else 'not '}worse than B by more than {margin:g}{_unit(found)} of {found.metric} "
        f"(A - B: {found.difference:+.2f})"
    )
    return int(worse)


def _paths(words: str) -> list[Path]:
    return [find_path(word.strip()) for word in words.split(",") if word.strip()]


def _unit(found: Comparison) -> str:
    return "" if found.metric == "return" else " points"


def _lines(found: Comparison) -> list[str]:
    unit = _unit(found)
    lines = [
        f"A: {found.row_a}, {_seeds(found.seeds_a)}, mean {found.metric} {found.mean_a:.2f}{_interval(found.ci95_a)}",
        f"B: {found.row_b}, {_seeds(found.seeds_b)}, mean {found.metric} {found.mean_b:.2f}{_interval(found.ci95_b)}",
    ]
    difference = f"A - B: {found.difference:+.2f}{unit} of {found.metric}"
    if found.ci95 is not None:
        low, high = found.ci95
        difference += f", 95 % interval [{low:+.2f}, {high:+.2f}]"
    pairing = "seeds paired" if found.seeds_paired else "seeds not paired: they differ"
    lines += [
        difference,
        f"A is better in {100 * found.better:.0f} % of {found.episodes} pairs of episodes and equal in "
        f"{100 * found.equal:.0f} %; {found.starts} starts, {pairing}",
    ]
    return [*lines, *([f"note: {found.note}."] if found.note else [])]


def _interval(bounds: list[float] | None) -> str:
    return "" if bounds is None else f" [{bounds[0]:.2f}, {bounds[1]:.2f}]"


def _seeds(seeds: list[int]) -> str:
    return f"training seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
