"""Checkpoints: a plain config and weights, loaded without running anything that the file could name."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seqrl.errors import CheckpointError, ConfigError
from seqrl.layout import Layout
from seqrl.model import SequenceModel

FORMAT = 1
_PREFIX = "model."
# What is known of the data of a checkpoint that somebody else's script wrote.
_UNKNOWN_DATA = {
    "name": "arrays",
    "env_id": None,
    "num_transitions": 0,
    "num_episodes": 0,
    "behaviour_return_mean": None,
    "behaviour_score": None,
}


@dataclass(frozen=True)
class Loaded:
    """A trained model and how it came about.

    Attributes:
        model: in eval mode, on the CPU.
        config: the resolved config of its run.
        versions: packages it was trained with.
        step: optimiser steps it has seen.
    """

    model: SequenceModel
    config: dict[str, Any]
    versions: dict[str, str]
    step: int


def load(path: str | Path) -> Loaded:
    """Load a checkpoint that `seqrl train` (or a `SequenceModule` in a trainer of yours) wrote.

    Only tensors and plain values are unpickled (`weights_only=True`), and components are looked up by name in the
    registries, so that a file can build what is registered and nothing else.

    Raises:
        CheckpointError: the file is missing, damaged, from another program, or from a newer seqrl.
    """
    path = Path(path)
    content = _read(path)
    note, config = content.get("seqrl"), content.get("hyper_parameters")
    config = config.get("config") if isinstance(config, Mapping) else None
    if not isinstance(note, Mapping) or not isinstance(config, Mapping):
        raise CheckpointError(f"{str(path)!r} was not written by seqrl; give the last.ckpt of a run's model folder")
    if note.get("format") != FORMAT:
        raise CheckpointError(
            f"{str(path)!r} has checkpoint format {note.get('format')!r}; this seqrl reads format {FORMAT}; "
            "install the version of seqrl that wrote it"
        )
    try:
        layout = Layout.from_config(config["layout"], config["observation_size"], config["action_size"])
        model = SequenceModel(layout, config["tokenizer"], config["backbone"], context=config["window"]["length"])
    except ConfigError as error:
        raise CheckpointError(f"{str(path)!r} cannot be rebuilt: {error}{_needed(note)}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{str(path)!r} has an incomplete config ({type(error).__name__}: {error})") from error
    state = content.get("state_dict", {})
    weights = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{str(path)!r} holds weights that do not fit its own config: {error}") from error
    config = {"dataset": _UNKNOWN_DATA, "seed": 0, **config}
    return Loaded(model.eval(), config, dict(note.get("versions", {})), int(content.get("global_step", 0)))


def _needed(note: Mapping[str, Any]) -> str:
    """Which plugins a checkpoint was trained with, to be appended to an error; empty where it needed none."""
    if note.get("plugins"):
        return f" (trained with plugins={note['plugins']}; give the same)"
    origins = note.get("origins")
    if not isinstance(origins, Mapping) or not origins:
        return ""
    listed = ", ".join(f"{slot} of {origin}" for slot, origin in origins.items())
    return f" (trained with {listed}; install or load the same)"


def checkpoint_step(path: Path) -> int:
    """Optimiser steps that a checkpoint has seen.

    Raises:
        CheckpointError: as `load`.
    """
    return int(_read(path).get("global_step", 0))


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
