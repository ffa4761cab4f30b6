"""A folder that transformers' `DecisionTransformerModel.save_pretrained` wrote."""

from __future__ import annotations

from pathlib import Path

from seqrl.errors import ConfigError
from seqrl.importing import Imported, Wishes, find_file
from seqrl.importing.decision_transformer import convert_gpt2
from seqrl.importing.reading import read_json, read_weights


def read(source: Path, wishes: Wishes) -> Imported:
    """What `config.json` and the weights beside it say.

    Raises:
        seqrl.errors.SeqrlError: files that are missing or damaged, or do not fit each other.
    """
    weights = find_file(source, "model.safetensors", "pytorch_model.bin")
    said = read_json(weights.parent / "config.json")
    if said.get("model_type") != "decision_transformer":
        raise ConfigError(f"{str(source)!r} is of model_type {said.get('model_type')!r}, not decision_transformer")
    return convert_gpt2(read_weights(weights), said, wishes, where=repr(str(weights)), prefix="encoder.")
