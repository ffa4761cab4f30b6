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
    with redirect_stdout(kept):
        yield
    groups = True  # they stand above the configuration
    lines = []
    for line in kept.getvalue().splitlines():
        groups = groups and not line.startswith("== Config ==")
        match = _GROUP.fullmatch(line)
        if not (groups and match and match[1] not in OF_EVALUATIONS):
            lines.append(line)
    say("\n".join(lines))
