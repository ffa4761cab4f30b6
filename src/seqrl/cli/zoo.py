"""`seqrl zoo`: models that come with seqrl."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from seqrl.console import print_table, say, say_error
from seqrl.errors import SeqrlError, sentence

if TYPE_CHECKING:
    from seqrl.publishing.zoo import Published


def run(arguments: list[str]) -> int:
    """Run the command.

    Returns:
        Exit status: 0; 2 for an error of the user, told in one sentence on stderr.
    """
    parser = argparse.ArgumentParser(
        "seqrl zoo",
        description="Models that come with seqrl; seqrl evaluate checkpoint=zoo:NAME acts with one. Weights are "
        "float16, and the results were measured with them.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="print the card of this one")
    options = parser.parse_args(arguments)
    from seqrl.publishing.zoo import read_card, read_published

    try:
        if options.name is not None:
            say(read_card(options.name.removeprefix("zoo:")))
            return 0
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
    except (SeqrlError, OSError) as error:
        say_error(sentence(error))
        return 2
    return 0


def _first_row(model: Published) -> str:
    if not model.rows:
        return ""
    row = model.rows[0]
    if row.goals is not None:
        return f"{row.strategy}: success {row.goals.success_rate:.0f} %"
    score = f"score {row.score_mean:.0f}" if row.score_mean is not None else f"return {row.return_mean:.1f}"
    return f"{row.strategy}: {score}"
