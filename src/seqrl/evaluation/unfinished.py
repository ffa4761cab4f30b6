"""What is said of models and critics whose training is not over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from seqrl.checkpoints.loaded import Loaded
from seqrl.checkpoints.reading import read_checkpoint, step_of
from seqrl.console import say
from seqrl.runs.folder import read_status
from seqrl.runs.stages import CRITIC, MODEL, StageKind


def tell_unfinished(loaded: Loaded, checkpoint: Path, critic_file: Path | None) -> None:
    """Say which of the parts that are about to act are in the midst of their training.

    Args:
        checkpoint: the file that was loaded.
        critic_file: of the critic beside it, or None.
    """
    _tell(MODEL, checkpoint, loaded.step, loaded.max_steps)
    if critic_file is not None:
        content = read_checkpoint(critic_file, CRITIC.name)
        settings = content["hyper_parameters"]["config"].get("critic_training")
        wanted = settings.get("max_steps") if isinstance(settings, Mapping) else None
        _tell(CRITIC, critic_file, step_of(content), loaded.max_steps if wanted is None else int(wanted))


def _tell(kind: StageKind, file: Path, step: int, wanted: int | None) -> None:
    if wanted is not None and step < wanted and not _is_done(kind, file):
        say(f"{file} is of step {step} of {wanted}: these are results of a {kind.name} in the midst of training")


def _is_done(kind: StageKind, file: Path) -> bool:
    """Whether a checkpoint is the last of a training that ended before `max_steps` because a callback said so."""
    run = file.parent.parent
    return file == run / kind.name / "last.ckpt" and (
        (entry := read_status(run).get(kind.name)) is not None and entry.state == "done"
    )
