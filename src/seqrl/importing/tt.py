"""The folder of a training of the published Trajectory Transformer: `state_N.pt` and pickled configurations."""

from __future__ import annotations

import re
from pathlib import Path

from seqrl.errors import ConfigError
from seqrl.importing import Imported, Wishes
from seqrl.importing.reading import read_record, read_weights
from seqrl.importing.trajectory_transformer import convert_transformer


def read(source: Path, wishes: Wishes) -> Imported:
    """What a folder of https://github.com/jannerm/trajectory-transformer holds, or one of its state files.

    Raises:
        seqrl.errors.SeqrlError: files that are missing or damaged, name code, or do not fit each other.
    """
    state = _state_file(source, wishes.epoch)
    configs = (state.parent / f"{name}_config.pkl" for name in ("model", "data"))
    said, data_said = (read_record(path) if path.is_file() else {} for path in configs)
    found = convert_transformer(read_weights(state), said, data_said, wishes, where=repr(str(state)))
    found.dropped["trainer_config.pkl"] = "the state of the optimizer is not published, so no training can go on"
    return found


def _state_file(source: Path, epoch: int | None) -> Path:
    """The file of an epoch, by default the last."""
    if source.is_file():
        return source
    epochs = {int(m[1]): p for p in source.glob("state_*.pt") if (m := re.fullmatch(r"state_(\d+)\.pt", p.name))}
    if not epochs:
        raise ConfigError(f"{str(source)!r} has no state_N.pt; give the folder of a training, or the file itself")
    chosen = max(epochs) if epoch is None else epoch
    if chosen not in epochs:
        known = ", ".join(map(str, sorted(epochs)))
        raise ConfigError(f"{str(source)!r} has no state_{epoch}.pt; it has epochs {known}")
    return epochs[chosen]
