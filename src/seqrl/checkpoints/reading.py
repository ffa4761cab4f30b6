"""The one door to checkpoint files: their bytes are compared with checksums, and no code that they name is run."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seqrl.archives import check_archive
from seqrl.checkpoints.exported import is_exported, read_exported
from seqrl.checkpoints.migration import migrate
from seqrl.errors import CheckpointError, is_damage

LAST = "last.ckpt"
_NUMBERED = re.compile(r"step-(\d+)\.ckpt")
# What training goes on from, beside the weights.
_TRAINING = {"optimizer_states": Sequence, "lr_schedulers": Sequence, "loops": Mapping, "callbacks": Mapping}


@dataclass(frozen=True)
class Found:
    """A checkpoint of a stage.

    Attributes:
        path: of the file.
        step: optimiser steps that it has seen.
        faults: what is wrong with newer ones, a sentence each; empty where it is `last.ckpt`, or there is no such file.
    """

    path: Path
    step: int
    faults: tuple[str, ...] = ()


def read_checkpoint(path: Path, stage: str) -> dict[str, Any]:
    """What the checkpoint of a stage holds, in the present format.

    Raises:
        CheckpointError: the file is missing, damaged, from another program or stage, or from a newer seqrl.
    """
    try:
        return _read_stage(path, stage)
    except DamagedError as error:
        whole = [each.name for each in _list_checkpoints(path.parent) if each != path and _is_of(each, stage)]
        advice = f"give {' or '.join(whole)} of the same folder" if whole else "give another one, or train again"
        raise CheckpointError(f"{error}; {advice}") from error


def find_newest(folder: Path, stage: str, *, to_train: bool = False) -> Found | None:
    """`last.ckpt` of the folder of a stage or, where that is damaged, the one of the latest step that is whole.

    A newer one that may be whole, and is not given, stands for none that is older: what goes on from there would
    take its place.

    Args:
        to_train: whether it must hold what training goes on from.

    Returns:
        None where there is no checkpoint at all.

    Raises:
        DamagedError: there are checkpoints, and all are damaged; says what is wrong with the first.
        CheckpointError: the newest that is not damaged cannot be read, is of another program, stage or version, or
            lacks what training goes on from.
    """
    faults: list[str] = []
    found: list[Found] = []
    for path in _list_checkpoints(folder):
        try:
            content = _read_stage(path, stage)
            if to_train:
                _check_training_state(content, path)
        except CheckpointError as error:
            if not found and not isinstance(error, DamagedError):
                raise
            faults.append(str(error))
        else:
            found.append(Found(path, step_of(content)))
            if path.name == LAST:
                break
    if faults and not found:
        raise DamagedError(faults[0])
    newest = max(found, key=lambda each: each.step, default=None)
    return newest and Found(newest.path, newest.step, tuple(faults))


def checkpoint_step(path: Path, stage: str = "model") -> int:
    """Optimiser steps that a checkpoint of a stage has seen.

    Raises:
        CheckpointError: as `read_checkpoint`.
    """
    return step_of(read_checkpoint(path, stage))


def step_of(content: Mapping[str, Any]) -> int:
    """Optimiser steps that a checkpoint has seen; 0 where it does not say."""
    step = content.get("global_step", 0)
    return step if isinstance(step, int) and not isinstance(step, bool) else 0


def read_file(path: Path) -> dict[str, Any]:
    """What a file holds that somebody wrote with `torch.save`, whatever its format; tensors are on the CPU.

    All of its bytes are compared with the checksums in it, which torch does not do, before torch sees them.

    Raises:
        CheckpointError: the file is missing, cannot be read, is damaged or holds something else.
    """
    if not path.is_file():
        if path.exists():
            raise DamagedError(f"{str(path)!r} is no file")
        raise CheckpointError(f"no checkpoint at {str(path)!r}; give the path of a .ckpt file")
    try:
        with path.open("rb") as file:  # one and the same file, whatever takes its place meanwhile
            check_archive(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        kind = DamagedError if is_damage(error) else CheckpointError
        raise kind(f"{str(path)!r} cannot be read ({error.strerror or error})") from error
    except zipfile.BadZipFile as error:
        raise DamagedError(f"{str(path)!r} is damaged or no checkpoint, and was not loaded ({error})") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{str(path)!r} holds more than tensors and plain values, and was not loaded") from error
    except Exception as error:  # a pickle that somebody wrote by hand can lead torch anywhere
        if not is_damage(error):
            raise
        raise DamagedError(f"{str(path)!r} is damaged or no checkpoint ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{str(path)!r} holds a {type(content).__name__}, not a checkpoint")
    return content


class DamagedError(CheckpointError):
    """The bytes of a file are not those that were written; what `read_file` raises says no word of what to do."""


def _read_stage(path: Path, stage: str) -> dict[str, Any]:
    content = migrate(read_exported(path) if is_exported(path) else read_file(path), repr(str(path)))
    if content.get("stage", stage) != stage:  # checkpoints of other people's trainers do not say
        raise CheckpointError(
            f"{str(path)!r} is of the stage {content['stage']!r} of a run; give one of the folder {stage!r}"
        )
    return content


def _check_training_state(content: Mapping[str, Any], path: Path) -> None:
    missing = [key for key, kind in _TRAINING.items() if not isinstance(content.get(key), kind)]
    states = content.get("optimizer_states")
    if not missing and not (states and all(isinstance(each, Mapping) and "param_groups" in each for each in states)):
        missing = ["optimizer_states"]
    if missing:
        raise CheckpointError(
            f"{str(path)!r} lacks {missing[0]}, without which no training goes on; its weights serve evaluations and "
            f"init_from=, so copy what you need of them, then delete {str(path.parent)!r} to train this stage anew"
        )


def _list_checkpoints(folder: Path) -> list[Path]:
    """Those that a stage writes, `last.ckpt` first, then the latest steps."""
    numbered = [
        (int(match[1]), path) for path in folder.glob("step-*.ckpt") if (match := _NUMBERED.fullmatch(path.name))
    ]
    ordered = [path for _, path in sorted(numbered, reverse=True)]
    return [path for path in (folder / LAST, *ordered, folder / "best.ckpt") if path.exists()]


def _is_of(path: Path, stage: str) -> bool:
    try:
        _read_stage(path, stage)
    except CheckpointError:
        return False
    return True
