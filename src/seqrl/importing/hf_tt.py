"""A folder that transformers' `TrajectoryTransformerModel.save_pretrained` wrote."""

from __future__ import annotations

from pathlib import Path

from seqrl.importing import Imported, Wishes
from seqrl.importing.reading import find_pretrained, read_weights
from seqrl.importing.trajectory_transformer import convert_transformer


def read(source: Path, wishes: Wishes) -> Imported:
    """What `config.json` and the weights beside it say.

    Raises:
        seqrl.errors.SeqrlError: files that are missing or damaged, or do not fit each other.
    """
    weights, said = find_pretrained(source, "trajectory_transformer")
    prefix = "trajectory_transformer."  # of a model inside another
    named = {name.removeprefix(prefix): value for name, value in read_weights(weights).items()}
    return convert_transformer(named, said, {}, wishes, where=repr(str(weights)), feed_forward=("l1", "l2"))
