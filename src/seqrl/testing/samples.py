"""Tiny episodes, layouts, models and histories for the checks; the same every time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from seqrl.config import CriticConfig
from seqrl.critics import Critic, build_critic
from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import transitions
from seqrl.data.summary import DataSizes
from seqrl.layout import Layout
from seqrl.layout_config import FIELDS
from seqrl.models.code import CodeModel
from seqrl.models.token import TokenModel
from seqrl.models.vector import VectorModel
from seqrl.registry import registry_of
from seqrl.testing.contract import Component
from seqrl.tokenizers.vq import VqTokenizer
from seqrl.types import CodeHistory, TokenBatch, TokenHistory, VectorBatch

OBSERVATION_SIZE, ACTION_SIZE = 3, 2  # of samples for a component that serves all sizes
EXTRA_SIZE, CONTEXT = 2, "price"
WINDOW = 6  # transitions; one more than the longest default context of a planner
_sizes: ContextVar[tuple[int, int]] = ContextVar("sizes", default=(OBSERVATION_SIZE, ACTION_SIZE))


@contextmanager
def sized_for(component: Component) -> Iterator[None]:
    """Samples of the sizes that a component was written for, see `Planner.sizes`; of ours where it says none."""
    sizes = getattr(registry_of(component.slot).get(component.name), "sizes", None)
    before = _sizes.set(sizes or _sizes.get())
    try:
        yield
    finally:
        _sizes.reset(before)


def sizes() -> tuple[int, int]:
    """O and A of the samples."""
    return _sizes.get()


def store() -> EpisodeStore:
    """Six episodes of 4 to 9 steps, some terminated, actions in [-1, 1]."""
    rng, (observation_size, action_size) = np.random.default_rng(0), sizes()
    episodes: list[dict[str, Any]] = [
        {
            "observations": rng.normal(size=(length, observation_size)),
            "actions": rng.uniform(-1, 1, size=(length, action_size)),
            "rewards": rng.normal(size=length),
            "terminated": number % 2 == 0,
        }
        for number, length in enumerate([4, 9, 6, 8, 5, 7])
    ]
    more = np.random.default_rng(1)
    for episode in episodes:
        episode |= {name: more.normal(size=(len(episode["rewards"]), EXTRA_SIZE)) for name in (CONTEXT, "cost")}
    return EpisodeStore.from_episodes(episodes, extras=(CONTEXT, "cost"), attributes={"name": "samples"})


def layout(
    *,
    goal: bool = False,
    with_return: bool = False,
    without: Iterable[str] = (),
    extras: Sequence[str] = (),
    differences: bool = False,
) -> Layout:
    """The Trajectory Transformer's layout, with a goal, a desired return, extras, or without some of its fields.

    Args:
        extras: of `EXTRA_SIZE` numbers each; `price` is known before the action, all others after it.
        differences: whether observations are told by their differences.
    """
    left_out = {*without, "return"} | (set() if differences else {"difference"})
    fields: dict[str, Any] = {"return": {}} if with_return else {}
    fields |= {"observation": {}} | ({CONTEXT: {}} if CONTEXT in extras else {})
    fields |= {name: {"hidden": name == "value"} for name in FIELDS[1:] if name not in left_out}
    fields |= {name: {} for name in extras if name != CONTEXT}
    config = {"fields": fields, "goal": {"dims": list(range(min(2, sizes()[0])))} if goal else None, "discount": 0.9}
    return Layout.from_config(config, *sizes(), extras=dict.fromkeys(extras, EXTRA_SIZE))


def layouts() -> dict[str, Layout]:
    """Layouts of every kind that a component may meet, by what is special about them."""
    return {
        "with reward and value": layout(),
        "without a value field": layout(without=["value"]),
        "without reward and value fields": layout(without=["reward", "value"]),
        "with a goal": layout(goal=True),
        "with a return": layout(with_return=True),
        "with extras": layout(extras=("price", "cost")),
        "with differences": layout(differences=True),
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


def model(fields: Layout, *, window: int = WINDOW, backbone: Mapping[str, Any] | None = None) -> TokenModel:
    """A model of one layer in float64, with a tokenizer fitted to `store()` and confident predictions."""
    tokenizer = {"name": "uniform", "num_bins": 8}
    backbone = backbone or {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 16}
    made = TokenModel(fields, tokenizer, backbone, context=window).double().eval()
    made.tokenizer.fit(torch.from_numpy(transitions(store(), fields)))
    scramble(made)
    return made


def code_model(fields: Layout, *, window: int = WINDOW) -> CodeModel:
    """A prior over codes of 3 transitions, as `model`; `window` is a multiple of 3."""
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 16}
    tokenizer = {"name": "vq", "num_codes": 8, "code_dim": 4}
    made = CodeModel(fields, tokenizer, backbone, context=window).double().eval()
    made.tokenizer.fit(torch.from_numpy(transitions(store(), fields)))
    scramble(made)
    assert isinstance(made.tokenizer, VqTokenizer)
    made.tokenizer.codebook.vectors.normal_(generator=torch.Generator().manual_seed(3))
    return made


def critic() -> Critic:
    """A small critic in float64, fitted to `store()`, with values that differ."""
    layout = {"fields": {"observation": {}, "action": {}}, "discount": 0.9}
    config = CriticConfig.from_dict({"layout": layout, "critic": {"name": "iql", "dim": 8}})
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of the biases, which `scramble` adds to
        made = build_critic(config, DataSizes(*sizes()))
    assert made is not None
    episodes = store()
    made.fit(torch.from_numpy(episodes.observations), torch.from_numpy(episodes.actions))
    scramble(made)
    return made.double().eval()


def history(model: TokenModel | CodeModel, lengths: Iterable[int]) -> TokenHistory | CodeHistory:
    """What environments with different numbers of past transitions showed, the padding filled with nonsense."""
    counts = torch.tensor(list(lengths))
    if isinstance(model, CodeModel):  # which know nothing of the past
        present = torch.randn(len(counts), model.layout.size, generator=torch.Generator().manual_seed(1))
        return model.history(torch.zeros(len(counts), 0, model.layout.size), present.double())
    past = int(counts.max())
    known = model.places("action").start
    size = past * model.tokens_per_step + known
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(model.termination_token, (len(counts), size), generator=generator)
    goals = torch.randint(model.num_classes, (len(counts), model.prefix_size), generator=generator)
    present = model.tokenizer.decode(functional.pad(tokens[:, -known:], (0, model.tokens_per_step - known)))
    observation = present[:, model.layout.field("observation").slice]
    target = None if model.layout.goal is None else observation[:, list(model.layout.goal.dims)] + 0.1
    return TokenHistory(tokens, counts, goals if model.prefix_size else None, observation=observation, target=target)


def batch(model: TokenModel, *, windows: int = 4) -> TokenBatch:
    """Training windows of which every other one ends early: the tokens past its end carry no loss."""
    generator = torch.Generator().manual_seed(2)
    shape = (windows, model.context, model.tokens_per_step)
    tokens = torch.randint(model.termination_token, shape, generator=generator)
    mask = torch.ones(shape, dtype=torch.bool)
    mask[::2, model.context // 2 :] = False
    goals = torch.randint(model.num_classes, (windows, model.prefix_size), generator=generator)
    return TokenBatch(tokens, mask, goals if model.prefix_size else None)


def vector_model(fields: Layout, *, window: int = WINDOW) -> VectorModel:
    """A model of vectors of one layer, with statistics of `store()` and weights that matter."""
    backbone = {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 16}
    made = VectorModel(fields, {"name": "continuous"}, backbone, context=window, longest_episode=9).double().eval()
    made.tokenizer.fit(torch.from_numpy(transitions(store(), fields)))
    scramble(made)
    return made


def vector_batch(model: VectorModel, *, windows: int = 4) -> VectorBatch:
    """Windows of `store()`'s kind, every other one of which ends early."""
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(windows, model.context, model.layout.size, dtype=torch.float64, generator=generator).tanh()
    mask = torch.ones(values.shape[:2], dtype=torch.bool)
    mask[::2, model.context // 2 :] = False
    goals = torch.randn(windows, model.goal_size, dtype=torch.float64, generator=generator)
    return VectorBatch(values, mask, goals if model.goal_size else None, torch.arange(windows))


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
