"""`seqrl compare`: which of two trained models is better, and how sure that is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from seqrl.console import one_line, say, say_error
from seqrl.errors import SeqrlError, sentence
from seqrl.files import write_text
from seqrl.paths import find_path

if TYPE_CHECKING:
    from seqrl.evaluation.comparison import Comparison


def run(arguments: list[str]) -> int:
    """Run the command.

    Returns:
        Exit status: 0; 2 for an error of the user, told in one sentence on stderr.
    """
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
    parser.add_argument("--metric", metavar="NAME", help="return, score or success; success where there are goals")
    parser.add_argument("--output", type=find_path, metavar="FILE", help="write everything there, as JSON")
    options = parser.parse_args(arguments)
    from seqrl.evaluation.comparison import compare_runs

    try:
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
    except (SeqrlError, OSError) as error:
        say_error(sentence(error))
        return 2
    return 0


def _paths(words: str) -> list[Path]:
    return [find_path(word.strip()) for word in words.split(",") if word.strip()]


def _lines(found: Comparison) -> list[str]:
    unit = {"return": "", "score": " points", "success": " points"}[found.metric]
    lines = [
        f"A: {found.row_a}, {_seeds(found.seeds_a)}, mean {found.metric} {found.mean_a:.2f}",
        f"B: {found.row_b}, {_seeds(found.seeds_b)}, mean {found.metric} {found.mean_b:.2f}",
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


def _seeds(seeds: list[int]) -> str:
    return f"training seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
