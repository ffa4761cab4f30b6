"""`seqrl zoo`: models that come with seqrl."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from seqrl.cli.telling import tell_errors
from seqrl.console import print_table, say

if TYPE_CHECKING:
    from seqrl.publishing.zoo import Published


@tell_errors()
def run(arguments: list[str]) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "seqrl zoo",
        description="Models that come with seqrl; seqrl evaluate checkpoint=zoo:NAME acts with one. Weights are "
        "float16, and the results were measured with them.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="print the card of this one")
    options = parser.parse_args(arguments)
    from seqrl.publishing.zoo import read_card, read_published

    if options.name is not None:
        say(read_card(options.name.removeprefix("zoo:")))
        return
    listed = read_published()
    print_table(
        ["name", "data", "environment", "first row of its results", "kB"],
        [
            [each.name, each.dataset, each.environment or "", _first_row(each), f"{each.size / 1e3:.0f}"]
            for each in listed
        ],
        words=4,
    )
    for each in listed:
        say(" ".join([f"seqrl evaluate checkpoint=zoo:{each.name}", *map(shlex.quote, each.use)]))


def _first_row(model: Published) -> str:
    if not model.rows:
        return ""
    row = model.rows[0]
    if row.goals is not None:
        return f"{row.strategy}: success {row.goals.success_rate:.0f} %"
    score = f"score {row.score_mean:.0f}" if row.score_mean is not None else f"return {row.return_mean:.1f}"
    return f"{row.strategy}: {score}"
