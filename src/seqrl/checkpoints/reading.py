"""Checkpoint files: tensors and plain values, read without running anything that the file could name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from seqrl.checkpoints.migration import migrate
from seqrl.errors import CheckpointError


def read_checkpoint(path: Path, stage: str) -> dict[str, Any]:
    """What the checkpoint of a stage holds, in the present format.

    Raises:
        CheckpointError: the file is missing, damaged, from another program or stage, or from a newer seqrl.
    """
    content = migrate(_read(path), repr(str(path)))
    if content.get("stage", stage) != stage:  # checkpoints of other people's trainers do not say
        raise CheckpointError(
            f"{str(path)!r} is of the stage {content['stage']!r} of a run; give one of the folder {stage!r}"
        )
    return content


def checkpoint_step(path: Path, stage: str = "model") -> int:
    """Optimiser steps that a checkpoint of a stage has seen.

    Raises:
        CheckpointError: as `read_checkpoint`.
    """
    return int(read_checkpoint(path, stage).get("global_step", 0))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {str(path)!r}; give the path of a .ckpt file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{str(path)!r} holds more than tensors and plain values, or is no checkpoint, and was not loaded"
        ) from error
    except Exception as error:  # a broken byte can lead the unpickler anywhere
        raise CheckpointError(f"{str(path)!r} is damaged or no checkpoint ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{str(path)!r} holds a {type(content).__name__}, not a checkpoint")
    return content
