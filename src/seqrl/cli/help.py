"""The help of a command that Hydra writes, with the groups that the command has."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

from seqrl.console import say

OF_EVALUATIONS = ("strategy", "planner", "condition", "score")
"""The groups of `seqrl evaluate`; all others say how something is trained."""

_GROUP = re.compile(r"(\w+): .+")


@contextmanager
def only_own_groups(command: str, arguments: Sequence[str]) -> Iterator[None]:
    """Leave groups of training out of what `seqrl evaluate --help` prints meanwhile."""
    if command != "evaluate" or not {"--help", "-h"} & set(arguments):
        yield
        return
    kept = io.StringIO()
    try:
        with redirect_stdout(kept):
            yield
    finally:  # Hydra leaves by SystemExit
        if text := _without_groups_of_training(kept.getvalue()):
            say(text)


def _without_groups_of_training(text: str) -> str:
    """What Hydra prints of a command, where the groups stand above the configuration."""
    groups, heading, config = text.partition("== Config ==")
    lines = groups.splitlines(keepends=True)
    found = ((line, _GROUP.fullmatch(line.strip())) for line in lines)
    kept = [line for line, match in found if match is None or match[1] in OF_EVALUATIONS]
    return ("".join(kept) + heading + config).rstrip("\n")
