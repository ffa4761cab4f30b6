"""What the jobs of a sweep print, where several run at once."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from seqrl.files import hold_lock

_LOCK = ".output.lock"


@contextmanager
def whole_output(folder: Path, *, alone: bool) -> Iterator[None]:
    """Keep what a job prints until it ends, and print it as a whole, so that no other job's lines stand between.

    The run's `console.log` has every line at once. Output that goes to a file of the job's own is left alone.

    Args:
        folder: that the jobs of a sweep share.
        alone: whether jobs run one after the other, in the process that began the sweep.
    """
    if alone or "SUBMITIT_EXECUTOR" in os.environ:
        yield
        return
    kept, target = io.StringIO(), sys.stdout
    try:
        with redirect_stdout(kept), redirect_stderr(kept):
            yield
    finally:
        with suppress(OSError), hold_lock(folder / _LOCK, None):
            target.write(kept.getvalue())
            target.flush()
