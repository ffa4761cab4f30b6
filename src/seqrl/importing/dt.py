"""A file with the weights of a Decision Transformer of kzl's code, or of CORL's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seqrl.errors import ConfigError
from seqrl.importing import Imported, Wishes
from seqrl.importing.decision_transformer import convert_corl, convert_gpt2
from seqrl.importing.reading import check_weights, read_tensors

_STATISTICS = ("state_mean", "state_std")


def read(source: Path, wishes: Wishes) -> Imported:
    """What a file of `torch.save` holds: a state dict, or CORL's `model_state` with the statistics of its states.

    Raises:
        seqrl.errors.SeqrlError: files that are missing or damaged, or of another model.
    """
    path = source if source.is_file() else _only_file(source)
    content = read_tensors(path)
    statistics = {}
    if isinstance(content.get("model_state"), dict):
        statistics = {name: _tensor(content[name]) for name in _STATISTICS if name in content}
        content = content["model_state"]
    weights = check_weights(content, path)
    where = repr(str(path))
    if "emb_norm.weight" in weights:
        return convert_corl(weights, statistics if len(statistics) == 2 else {}, wishes, where=where)
    if "embed_ln.weight" in weights:
        return convert_gpt2(weights, {}, wishes, where=where, prefix="transformer.")
    raise ConfigError(f"{where} holds neither the weights of kzl's Decision Transformer nor of CORL's")


def _only_file(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".pt", ".pth", ".bin", ".safetensors"))
    if len(files) != 1:
        raise ConfigError(f"{str(folder)!r} has {len(files)} files of weights; name the one to import")
    return files[0]


def _tensor(value: object) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, Tensor):
        return value
    raise ConfigError("the source's state_mean or state_std is no array of numbers; leave it out, and give --data")
