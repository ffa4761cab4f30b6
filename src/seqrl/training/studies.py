"""Optuna's study of a search: one journal file, which the sweep and all of its jobs write to."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrl.console import say
from seqrl.errors import ConfigError, explain_unread, is_damage
from seqrl.files import reason_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner

JOURNAL = "study.journal"
# What a line leads Optuna to that it did not write; one of a later version ends in an AssertionError.
_WRONG_CONTENT = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
PRUNERS = ("median", "hyperband", "none")


def open_study(journal: Path, *, direction: str = "minimize", pruner: Mapping[str, Any] | None = None) -> Study:
    """Open a study or start it. Its lock is a link beside the file, which works on NFS as well.

    Args:
        direction: of a new study.
        pruner: `name`, `startup_trials` and `warmup_steps`; who only asks and tells needs none.

    Raises:
        ConfigError: the file is damaged, a link, or cannot be read.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.study import StudyDirection

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directed, pruned = StudyDirection[direction.upper()], _pruner(**pruner) if pruner else None
    try:
        if journal.is_symlink() or (journal.exists() and not journal.is_file()):
            raise OSError(errno.EINVAL, "it is no file")
        if journal.exists():
            _cut_torn_line(journal)
        storage = JournalStorage(JournalFileBackend(str(journal)))
        return optuna.create_study(
            storage=storage,
            study_name="seqrl",
            direction=directed,
            pruner=pruned,
            load_if_exists=True,
        )
    except Exception as error:  # what stands in the file was checked by nobody
        if not isinstance(error, _WRONG_CONTENT) or not is_damage(error):
            raise ConfigError(explain_unread(journal, error)) from error
        raise ConfigError(
            f"the study {str(journal)!r} is damaged ({reason_of(error)}); move it away, and the same search draws its "
            "trials anew, while runs that are there keep what they trained"
        ) from error


def _cut_torn_line(journal: Path) -> None:
    """Remove what a killed process left of a last line, to which the next one would be added."""
    from optuna.storages.journal import JournalFileSymlinkLock

    if _ends_whole(journal):
        return
    lock = JournalFileSymlinkLock(str(journal))
    lock.acquire()
    try:
        if not _ends_whole(journal):  # it was not merely being written
            whole = journal.read_bytes().rpartition(b"\n")
            os.truncate(journal, len(whole[0]) + len(whole[1]))
            say(f"the last line of {str(journal)!r} was cut off, as a kill leaves it, and is left out")
    finally:
        lock.release()


def _ends_whole(journal: Path) -> bool:
    with journal.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read(1) in (b"", b"\n")


def _pruner(name: str, startup_trials: int, warmup_steps: int) -> BasePruner:
    from optuna import pruners

    if name == "median":
        return pruners.MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=warmup_steps)
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=max(1, warmup_steps))
    return pruners.NopPruner()
