"""Optuna's study of a search: one journal file, which the sweep and all of its jobs write to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner

JOURNAL = "study.journal"
PRUNERS = ("median", "hyperband", "none")


def open_study(journal: Path, *, direction: str = "minimize", pruner: Mapping[str, Any] | None = None) -> Study:
    """Open a study or start it. Its lock is a link beside the file, which works on NFS as well.

    Args:
        direction: of a new study.
        pruner: `name`, `startup_trials` and `warmup_steps`; who only asks and tells needs none.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.study import StudyDirection

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.create_study(
        storage=storage,
        study_name="seqrl",
        direction=StudyDirection[direction.upper()],
        pruner=_pruner(**pruner) if pruner else None,
        load_if_exists=True,
    )


def _pruner(name: str, startup_trials: int, warmup_steps: int) -> BasePruner:
    from optuna import pruners

    if name == "median":
        return pruners.MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=warmup_steps)
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=max(1, warmup_steps))
    return pruners.NopPruner()
