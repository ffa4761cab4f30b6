"""Whether a checkpoint was trained on the data that are there now."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from seqrl.checkpoints.reading import find_newest, read_checkpoint
from seqrl.data.summary import DataSummary, same_episodes
from seqrl.errors import CheckpointError, ConfigError
from seqrl.runs.folder import RunFolder
from seqrl.runs.stages import KINDS, StageKind


def check_trained(folder: RunFolder, dataset: DataSummary) -> None:
    """Refuse to go on with a run that trained a stage, or began to, on other data than are there now.

    Raises:
        ConfigError: names the checkpoint and the data.
    """
    for kind in KINDS:
        if kind.name not in folder.status():
            continue
        with suppress(CheckpointError):  # none can be read, which whoever trains the stage tells
            found = find_newest(folder.path / kind.name, kind.name)
            if found is not None:
                check_data(found.path, read_checkpoint(found.path, kind.name), dataset)


def check_data(path: Path, content: Mapping[str, Any], dataset: DataSummary) -> None:
    """Refuse to go on from a checkpoint of other data.

    Args:
        path: of the checkpoint.
        content: what it holds.
        dataset: the data that are there now.

    Raises:
        ConfigError: names the checkpoint and the data.
    """
    if not same_episodes(_dataset_of(content), dataset):
        raise ConfigError(
            f"{str(path)!r} was trained on other data than {dataset.name!r} holds now; put back those of "
            "then, or give name=... to begin a run of its own"
        )


def saw(path: Path, kind: StageKind, dataset: DataSummary) -> bool:
    """Whether a checkpoint can be read and was trained on these data."""
    try:
        return same_episodes(_dataset_of(read_checkpoint(path, kind.name)), dataset)
    except CheckpointError:
        return False


def _dataset_of(content: Mapping[str, Any]) -> DataSummary:
    return DataSummary.from_saved(content["hyper_parameters"]["config"])
