"""Files of other programs: tensors, json and pickled records. Nothing that a file names is imported or called."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from seqrl.archives import check_archive
from seqrl.errors import ConfigError, DataError, explain_unread, is_damage
from seqrl.importing import find_file

_SMALL = 2**20  # bytes of a configuration, at most
_RECORDS = {  # what published programs pickle their configurations as, and what those are of
    f"{package}.{rest}"
    for package in ("trajectory", "latentplan")
    for rest in (
        *("utils.config.Config", "utils.training.Trainer", "utils.training.VQTrainer", "utils.training.PriorTrainer"),
        *("datasets.sequence.SequenceDataset", "datasets.sequence.DiscretizedDataset", "datasets.sequence.GoalDataset"),
        *("models.transformers.GPT", "models.vqvae.VQContinuousVAE", "models.vqvae.VQStepWiseTransformer"),
        *("models.vqvae.TransformerPrior", "models.vqvae.VQTransformer"),
    )
}


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a `.safetensors` file, or of one that `torch.save` wrote; nested dicts as they are.

    Raises:
        DataError: the file is missing, damaged, or holds more than tensors and plain values.
    """
    if path.suffix == ".safetensors":
        return dict(_read_safetensors(path))
    try:
        with path.open("rb") as file, torch.serialization.safe_globals(_numpy_arrays()):
            if file.read(4) == b"PK\x03\x04":  # the older format of torch has no checksums
                check_archive(file)
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{str(path)!r} holds more than tensors and plain values, or is no file of weights, and was not loaded"
        ) from error
    except FileNotFoundError as error:
        raise DataError(f"there is no file {str(path)!r}; give one") from error
    except Exception as error:  # a broken byte can lead the unpickler anywhere
        if not is_damage(error):
            raise DataError(explain_unread(path, error)) from error
        raise DataError(f"{str(path)!r} is damaged or no file of weights ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{str(path)!r} holds a {type(content).__name__}, not weights by name")
    return content


def read_weights(path: Path) -> dict[str, Tensor]:
    """A flat state dict; see `read_tensors`."""
    return check_weights(read_tensors(path), path)


def check_weights(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """What a file holds, if that is finite tensors by name.

    Raises:
        DataError: it is something else.
    """
    odd = [name for name, value in content.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if odd or not content:
        why = f"{odd[0]!r} is no tensor" if odd else "it is empty"
        raise DataError(f"{str(path)!r} is no state dict: {why}; give the file of the weights")
    for name, value in content.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise DataError(f"the weight {name!r} of {str(path)!r} holds NaN or infinity")
    return dict(content)


def read_json(path: Path) -> dict[str, Any]:
    """A `config.json`.

    Raises:
        DataError: the file is missing, too large, or no json object.
    """
    try:
        content = json.loads(_small(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} is no json ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{str(path)!r} holds no json object")
    return content


def find_pretrained(source: Path, model_type: str) -> tuple[Path, dict[str, Any]]:
    """The weights of a folder that transformers' `save_pretrained` wrote, and its `config.json`.

    Raises:
        ConfigError: it is of another `model_type`.
        DataError: a file is missing or damaged.
    """
    weights = find_file(source, "model.safetensors", "pytorch_model.bin")
    said = read_json(weights.parent / "config.json")
    if said.get("model_type") != model_type:
        raise ConfigError(f"{str(source)!r} is of model_type {said.get('model_type')!r}, not {model_type}")
    return weights, said


def read_record(path: Path) -> dict[str, Any]:
    """The keyword arguments in a pickled `Config` of a published program; of them, plain values only.

    The few names that such files have stand for empty classes, made for this one reading. A file that names anything
    else is refused at that name, before anything is made of it.

    Raises:
        DataError: the file is missing, damaged, or names something else.
    """
    content = _small(path)
    try:
        record = _Records(io.BytesIO(content)).load()
    except _NotAllowedError as error:
        raise DataError(f"{str(path)!r} names {error}, which no configuration needs, and was not loaded") from error
    except Exception as error:
        raise DataError(f"{str(path)!r} is no readable pickle of a configuration ({type(error).__name__})") from error
    said = getattr(record, "_dict", record)
    if not isinstance(said, Mapping):
        raise DataError(f"{str(path)!r} holds no configuration")
    return {key: value for key, value in said.items() if isinstance(key, str) and _is_plain(value)}


class _NotAllowedError(Exception):
    """A name that no record has."""


class _Records(pickle.Unpickler):
    """Makes empty objects of the few classes that published configurations name, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if "." in name or f"{module}.{name}" not in _RECORDS:
            raise _NotAllowedError(f"{module}.{name}")
        return type("Record", (), {})  # of its own: what a file does to one reaches no other

    def persistent_load(self, pid: Any) -> Any:
        raise _NotAllowedError("a persistent object")


def _is_plain(value: Any) -> bool:
    return value is None or type(value) in (bool, int, float, str)


def _small(path: Path) -> bytes:
    """The content of a small file."""
    try:
        with path.open("rb") as file:
            content = file.read(_SMALL + 1)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read ({error.strerror})") from error
    if len(content) > _SMALL:
        raise DataError(f"{str(path)!r} is larger than any configuration, and was not read")
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name.

    Raises:
        DataError: the file is missing, or its parts contradict each other.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise DataError(f"{str(path)!r} is damaged or no file of safetensors ({error})") from error


def _numpy_arrays() -> list[Any]:
    """What torch may rebuild beside its tensors: arrays of numbers, which training scripts save as statistics."""
    core = np._core if hasattr(np, "_core") else np.core
    kinds = (np.float32, np.float64, np.int64, np.int32, np.bool_)
    rebuild = core.multiarray._reconstruct
    named = [(rebuild, "numpy.core.multiarray._reconstruct"), (rebuild, "numpy._core.multiarray._reconstruct")]
    return [*named, np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]
