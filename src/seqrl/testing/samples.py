"""Tiny episodes, layouts, models and histories for the checks; the same every time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import transitions
from seqrl.layout import FIELDS, Layout
from seqrl.model import SequenceModel
from seqrl.types import Batch, History

OBSERVATION_SIZE, ACTION_SIZE = 3, 2
WINDOW = 6  # transitions; one more than the longest default context of a planner


def store() -> EpisodeStore:
    """Six episodes of 4 to 9 steps, some terminated, actions in [-1, 1]."""
    rng = np.random.default_rng(0)
    episodes = [
        {
            "observations": rng.normal(size=(length, OBSERVATION_SIZE)),
            "actions": rng.uniform(-1, 1, size=(length, ACTION_SIZE)),
            "rewards": rng.normal(size=length),
            "terminated": number % 2 == 0,
        }
        for number, length in enumerate([4, 9, 6, 8, 5, 7])
    ]
    return EpisodeStore.from_episodes(episodes, attributes={"name": "samples"})


def layout(*, goal: bool = False, without: Iterable[str] = ()) -> Layout:
    """The Trajectory Transformer's layout, with a goal or without some of its fields."""
    fields: dict[str, Any] = {name: {"hidden": name == "value"} for name in FIELDS if name not in set(without)}
    config = {"fields": fields, "goal": {"dims": [0, 1]} if goal else None, "discount": 0.9}
    return Layout.from_config(config, OBSERVATION_SIZE, ACTION_SIZE)


def layouts() -> dict[str, Layout]:
    """Layouts of every kind that a component may meet, by what is special about them."""
    return {
        "with reward and value": layout(),
        "without a value field": layout(without=["value"]),
        "without reward and value fields": layout(without=["reward", "value"]),
        "with a goal": layout(goal=True),
    }


def scramble(module: nn.Module, seed: int = 0) -> None:
    """Give every parameter a size at which it matters: freshly made models predict almost uniformly."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            if parameter.ndim > 1:
                parameter.copy_(noise * (1.5 / parameter.shape[-1] ** 0.5))
            else:  # biases, and the weights of norms
                parameter.add_(0.3 * noise)


def model(fields: Layout, *, window: int = WINDOW) -> SequenceModel:
    """A model of one layer in float64, with a tokenizer fitted to `store()` and confident predictions."""
    tokenizer = {"name": "uniform", "num_bins": 8}
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 16}
    made = SequenceModel(fields, tokenizer, backbone, context=window).double().eval()
    made.tokenizer.fit(torch.from_numpy(transitions(store(), fields)))
    scramble(made)
    return made


def history(model: SequenceModel, lengths: Iterable[int]) -> History:
    """What environments with different numbers of past transitions showed, the padding filled with nonsense."""
    counts = torch.tensor(list(lengths))
    past = int(counts.max())
    size = past * model.tokens_per_step + model.layout.field("observation").size
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(model.termination_token, (len(counts), size), generator=generator)
    prefix = torch.randint(model.num_classes, (len(counts), model.layout.prefix_size), generator=generator)
    return History(tokens, counts, prefix if model.layout.prefix_size else None)


def batch(model: SequenceModel, *, windows: int = 4) -> Batch:
    """Training windows of which every other one ends early: the tokens past its end carry no loss."""
    generator = torch.Generator().manual_seed(2)
    shape = (windows, model.context, model.tokens_per_step)
    tokens = torch.randint(model.termination_token, shape, generator=generator)
    mask = torch.ones(shape, dtype=torch.bool)
    mask[::2, model.context // 2 :] = False
    prefix = torch.randint(model.num_classes, (windows, model.layout.prefix_size), generator=generator)
    return Batch(tokens, mask, prefix if model.layout.prefix_size else None)


def columns(rows: int = 200) -> Tensor:
    """(rows, 6) float32 values as data have them: normal, with heavy tails, mostly zero, constant, clipped, far off."""
    rng = np.random.default_rng(3)
    made = [
        rng.normal(size=rows),
        rng.standard_t(2, size=rows),
        (rng.random(rows) < 0.05).astype(float),
        np.full(rows, 3.7),
        np.clip(rng.normal(scale=1.5, size=rows), -1, 1),
        1000 + rng.random(rows),
    ]
    return torch.from_numpy(np.stack(made, axis=1).astype(np.float32))
