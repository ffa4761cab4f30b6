"""A model as a folder for others: weights as safetensors, all else as JSON, and a digest of every file.

    config.json             what the model is made of, by names, and what its checkpoint noted
    model.safetensors       the model's weights, float32 or float16
    tokenizer.safetensors   what the tokenizer was fitted to, as it is
    critic.safetensors      the critic's weights, where the run has one
    landmarks/graph.npz     likewise
    README.md, results.json the card, and its rows
    SHA256SUMS              what `sha256sum -c` reads

Nothing in it is run, and nothing is unpickled. Safetensors has no checksums of its own, so that a file that is not
what the digests say is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from seqrl.errors import CheckpointError, did_you_mean, explain_unread, is_damage
from seqrl.files import fingerprint_bytes, fingerprint_files, read_bytes, read_text, reason_of

CONFIG, WEIGHTS, TOKENIZER, CRITIC, DIGESTS = (
    "config.json",
    "model.safetensors",
    "tokenizer.safetensors",
    "critic.safetensors",
    "SHA256SUMS",
)
LANDMARKS = "landmarks/graph.npz"
_FORMAT = 1
_OF_TOKENIZER = "model.tokenizer."


def is_exported(path: Path) -> bool:
    """Whether a path is the weights of such a folder, of its model or its critic."""
    return path.name in (WEIGHTS, CRITIC) and path.is_file() and (path.parent / CONFIG).is_file()


def zoo_dir() -> Path:
    """The folder of the models that come with seqrl, an exported folder each."""
    return Path(__file__).resolve().parents[1] / "zoo"


def list_published() -> list[str]:
    """Names of the models that come with seqrl."""
    return sorted(path.parent.name for path in zoo_dir().glob(f"*/{CONFIG}"))


def find_published(name: str) -> Path:
    """The folder of a model that comes with seqrl.

    Raises:
        CheckpointError: there is no such model; lists those there are.
    """
    names = list_published()
    if name not in names:
        raise CheckpointError(
            f"there is no model zoo:{name}.{did_you_mean(name, names)} Models that come with seqrl: "
            f"{', '.join(names) or 'none'}"
        )
    return zoo_dir() / name


def write_exported(
    folder: Path,
    model: Mapping[str, Any],
    critic: Mapping[str, Any] | None,
    *,
    half: bool = False,
    command: str | None = None,
    use: Sequence[str] = (),
) -> None:
    """Write the files of a model, and of its critic, into a folder; the digests come last, with `write_digests`.

    Args:
        model, critic: contents of checkpoints, as `seqrl.checkpoints.reading.read_checkpoint` gives them.
        half: whether weights are kept as float16, which halves them; a tokenizer's edges stay as they are.
        command: what trained the model.
        use: words of `seqrl evaluate` that act with it.

    Raises:
        CheckpointError: the config holds what JSON does not.
    """
    parts = {"model": model} if critic is None else {"model": model, "critic": critic}
    noted = {
        name: {
            "seqrl": dict(content["seqrl"]),
            "step": content.get("global_step", 0),
            "config": content["hyper_parameters"]["config"],
        }
        for name, content in parts.items()
    }
    about = {"library_name": "seqrl", "format": _FORMAT, "command": command, "use": list(use)}
    try:
        text = json.dumps({**about, **noted}, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint's config holds what JSON does not ({error})") from error
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    weights = {name: tensor for name, tensor in model["state_dict"].items() if name.startswith("model.")}
    fitted = {name: tensor for name, tensor in weights.items() if name.startswith(_OF_TOKENIZER)}
    _save(folder / TOKENIZER, fitted, half=False)
    _save(folder / WEIGHTS, {name: each for name, each in weights.items() if name not in fitted}, half=half)
    if critic is not None:
        state = {name: tensor for name, tensor in critic["state_dict"].items() if name.startswith("critic.")}
        _save(folder / CRITIC, state, half=False)


def write_digests(folder: Path) -> None:
    """Note the digest of every file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != DIGESTS)
    lines = [f"{fingerprint_files(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / DIGESTS).write_text("".join(lines), encoding="utf-8")


def read_exported(path: Path) -> dict[str, Any]:
    """What a checkpoint of the model, or of the critic, would hold.

    Args:
        path: `model.safetensors` or `critic.safetensors` of such a folder.

    Raises:
        CheckpointError: a file is missing, is not what the digests say, or is from a newer seqrl.
    """
    folder, stage = path.parent, path.name.partition(".")[0]
    digests = _read_digests(folder)
    content = _check(folder, CONFIG, digests)
    try:
        noted = json.loads(content)
        if not isinstance(noted, dict) or noted.get("library_name") != "seqrl":
            raise ValueError("it is not of a model of seqrl")
        if noted.get("format") != _FORMAT:
            raise ValueError(f"its format is {noted.get('format')!r}, and this seqrl reads {_FORMAT}")
        told = noted[stage]
        found = {
            "stage": stage,
            "seqrl": told["seqrl"],
            "global_step": told["step"],
            "hyper_parameters": {"config": told["config"]},
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{str(folder / CONFIG)!r} cannot be used: {error}") from error
    files = (WEIGHTS, TOKENIZER) if stage == "model" else (CRITIC,)
    state: dict[str, Tensor] = {}
    for name in files:
        state |= _load(folder / name, _check(folder, name, digests))
    return {**found, "state_dict": state}


def check_listed(path: Path, name: str) -> bool:
    """Whether an exported folder has a further file, such as `landmarks/graph.npz`; it is what its digest says.

    Args:
        path: the weights of the folder.
        name: of the file, as the digests have it.

    Raises:
        CheckpointError: it is missing, or is not what the digests say.
    """
    digests = _read_digests(path.parent)
    if name not in digests and not (path.parent / name).exists():
        return False
    _check(path.parent, name, digests)
    return True


def _save(path: Path, tensors: Mapping[str, Tensor], *, half: bool) -> None:
    kept = {
        name: (tensor.half() if half and tensor.dtype == torch.float32 else tensor).contiguous()
        for name, tensor in tensors.items()
    }
    path.write_bytes(save(kept, {"format": "pt"}))


def _load(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return dict(load(content))
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged or no file of safetensors ({error})") from error


def _read_digests(folder: Path) -> dict[str, str]:
    try:
        lines = read_text(folder / DIGESTS).splitlines()
    except (OSError, ValueError) as error:
        if not is_damage(error):
            raise CheckpointError(explain_unread(folder / DIGESTS, error)) from error
        raise CheckpointError(
            f"{str(folder / DIGESTS)!r} cannot be read ({reason_of(error)}), so that nothing tells whether the weights "
            "are whole; fetch the folder again"
        ) from error
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _check(folder: Path, name: str, digests: Mapping[str, str]) -> bytes:
    """The content of a file, which is what its digest says."""
    path = folder / name
    try:
        content = read_bytes(path)
    except OSError as error:
        if not is_damage(error):
            raise CheckpointError(explain_unread(path, error)) from error
        raise CheckpointError(f"{str(path)!r} cannot be read ({reason_of(error)}); fetch the folder again") from error
    if fingerprint_bytes([content]) != digests.get(name):
        raise CheckpointError(
            f"{str(path)!r} is not the file whose digest {DIGESTS} holds, and was not loaded; fetch the folder again"
        )
    return content
