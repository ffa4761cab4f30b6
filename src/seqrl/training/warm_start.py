"""Trainings that begin with the weights of another: longer ones, and those on other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from seqrl.checkpoints.loaded import Loaded
from seqrl.checkpoints.loading import load
from seqrl.errors import ConfigError, did_you_mean
from seqrl.models import Model
from seqrl.registry import TOKENIZER
from seqrl.training.module import SequenceModule

_TOKENIZER = "tokenizer"


def start_from(
    module: SequenceModule,
    checkpoint: str | Path,
    *,
    parts: Sequence[str] | None = None,
    tokenizer: Literal["keep", "refit"] = "keep",
) -> None:
    """Give an untrained module the weights of a trained model; optimizer and schedule begin anew.

    Before the data module encodes: `start_from(module, "runs/mine")`, then `EpisodeDataModule.for_module(module, ...)`.

    Args:
        checkpoint: whatever `checkpoint=` takes.
        parts: of the model, such as `backbone`, `embedding`, `head` or `backbone.blocks.0`; None for all. The others
            begin as they are.
        tokenizer: `keep` takes the trained tokenizer with its statistics, which is fitted no more; `refit` leaves it to
            the new data, so that tokens may mean something else.

    Raises:
        ConfigError: a part that there is not, or one that does not fit this model.
        CheckpointError: it cannot be loaded.
    """
    with torch.random.fork_rng(devices=[]):  # what is drawn next does not depend on the checkpoint
        source = load(checkpoint)
    theirs, ours = source.model.state_dict(), module.model.state_dict()
    taken = _keys_of(parts, module.model)
    _check_meaning(source, module, taken)
    for key in taken:
        found = theirs.get(key)
        if found is None or found.shape != ours[key].shape:
            raise ConfigError(
                f"{key} is {_size(found)} in init_from and {_size(ours[key])} in this model; give the same settings of "
                "backbone, window and layout, or name the parts that fit: warm_start.parts=[backbone.blocks]"
            )
    if tokenizer == "keep":
        _check_tokenizer(source.config[_TOKENIZER], module.config.tokenizer)
    module.model.load_state_dict({**ours, **{key: theirs[key] for key in taken}})
    if tokenizer == "keep":
        module.model.tokenizer.load_state_dict(source.model.tokenizer.state_dict())
        module.tokenizer_fitted = True


def _keys_of(parts: Sequence[str] | None, model: Model) -> list[str]:
    """The names of the weights of some parts of a model, of all but the tokenizer by default.

    Raises:
        ConfigError: there is no such part.
    """
    keys = [key for key in model.state_dict() if key.partition(".")[0] != _TOKENIZER]
    if parts is None:
        return keys
    known = sorted({".".join(key.split(".")[:depth]) for key in keys for depth in range(1, key.count(".") + 2)})
    for part in parts:
        if part == _TOKENIZER:
            raise ConfigError("warm_start.parts names the tokenizer, which warm_start.tokenizer=keep or refit decides")
        if part not in known:
            children = ", ".join(sorted({key.partition(".")[0] for key in keys}))
            raise ConfigError(
                f"warm_start.parts={part!r} is no part of this model.{did_you_mean(part, known)} Parts: {children}, "
                "and what is in them, such as backbone.blocks"
            )
    return [key for key in keys if any(key == part or key.startswith(f"{part}.") for part in parts)]


def _check_meaning(source: Loaded, module: SequenceModule, taken: Sequence[str]) -> None:
    """Refuse embeddings and heads of other fields, whatever their size.

    Raises:
        ConfigError: says both layouts.
    """
    if all(key.startswith("backbone.") for key in taken):
        return
    theirs, ours = source.model, module.model
    if theirs.made_of != ours.made_of:
        raise ConfigError(
            f"init_from holds a model of {theirs.made_of}, and this one is of {ours.made_of}; name the parts that both "
            "have: warm_start.parts=[backbone]"
        )
    fields = [[(field.name, field.size) for field in model.layout.fields] for model in (theirs, ours)]
    goals = [None if model.layout.goal is None else model.layout.goal.dims for model in (theirs, ours)]
    if fields[0] != fields[1] or goals[0] != goals[1]:
        raise ConfigError(
            f"init_from was trained on {_words(fields[0], goals[0])}, and these data and layout have "
            f"{_words(fields[1], goals[1])}; name the parts that do not depend on it: warm_start.parts=[backbone]"
        )


def _words(fields: Sequence[tuple[str, int]], goal: Sequence[int] | None) -> str:
    listed = ", ".join(f"{name} ({size})" for name, size in fields)
    return listed if goal is None else f"{listed} and a goal of dimensions {', '.join(map(str, goal))}"


def _check_tokenizer(theirs: Mapping[str, object], ours: Mapping[str, object]) -> None:
    """Refuse to keep a tokenizer that this run does not ask for.

    Raises:
        ConfigError: says what differs.
    """
    whole = [
        {**{option.name: option.default for option in TOKENIZER.options(str(given["name"]))}, **given}
        for given in (theirs, ours)
    ]
    for key in ["name", *whole[1]]:
        if whole[0].get(key) != whole[1].get(key):
            raise ConfigError(
                f"tokenizer.{key} is {whole[0].get(key)} in init_from and {whole[1].get(key)} here, and its tokens are "
                "kept; give the same, or warm_start.tokenizer=refit"
            )


def _size(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
