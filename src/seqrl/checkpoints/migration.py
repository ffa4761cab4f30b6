"""Checkpoints of older formats, brought into the present one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from seqrl.errors import CheckpointError

FORMAT = 2
"""What this version writes. Raise it whenever an older version would misread what is written, and add a migration."""

_NOTED = {
    "format",
    "model",
    "plugins",
    "origins",
    "versions",
    "code",
    "machine",
}  # what seqrl says of a checkpoint in it


def migrate(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A checkpoint in the present format; its tensors are those of the old one.

    Args:
        content: what the file holds.
        where: how messages call it.

    Raises:
        CheckpointError: it was not written by seqrl, or says something that this version does not know.
    """
    note, config = content.get("seqrl"), content.get("hyper_parameters")
    config = config.get("config") if isinstance(config, Mapping) else None
    if not isinstance(note, Mapping) or not isinstance(config, Mapping):
        raise CheckpointError(f"{where} was not written by seqrl; give the last.ckpt of a run's model folder")
    why, known = None, [*_MIGRATIONS, FORMAT]
    if note.get("format") not in known or isinstance(note["format"], bool):
        why = f"has checkpoint format {note.get('format')!r}; this seqrl reads formats {' and '.join(map(str, known))}"
    elif unknown := sorted(set(map(str, note)) - _NOTED):
        why = f"says {', '.join(unknown)} of itself, which this seqrl does not know"
    if why is not None:
        raise CheckpointError(f"{where} {why}; install the version of seqrl that wrote it")
    found = dict(content)
    while found["seqrl"]["format"] != FORMAT:
        found = _MIGRATIONS[found["seqrl"]["format"]](found)
    return found


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    """Format 2 says what class of model it holds, and its optimizer has a name.

    Parameters keep their names and their order, so that weights and the optimizer's states stay as they are.
    """
    config = content["hyper_parameters"]["config"]
    if "optimizer" in config:
        config = {**config, "optimizer": {"name": "adamw", **config["optimizer"]}}
    note = {**content["seqrl"], "format": 2, "model": _made_of(content.get("state_dict", {}))}
    return {**content, "hyper_parameters": {**content["hyper_parameters"], "config": config}, "seqrl": note}


def _made_of(weights: Mapping[str, Any]) -> str | None:
    """What the sequences of a model of format 1 consist of, going by its weights; None of another stage's weights."""
    if not any(name.startswith("model.") for name in weights):
        return None
    if "model.head.weight" not in weights:
        return "vectors"
    return "codes" if "model.state_embedding.weight" in weights else "tokens"


_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
