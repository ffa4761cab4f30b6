"""Every registered component keeps its slot's contracts, and a broken one is told what it breaks."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seqrl import testing
from seqrl.attention.full import FullAttention
from seqrl.backbones.gpt import GptBackbone
from seqrl.backbones.llama import LlamaBackbone
from seqrl.backbones.mingru import MinGruBackbone
from seqrl.conditions.goal import GoalCondition
from seqrl.critics.iql import IqlCritic
from seqrl.errors import ConfigError, DataError
from seqrl.formats.flat import FlatEpisodes
from seqrl.formats.writers import write_episodes
from seqrl.objectives import Outcome
from seqrl.objectives.next_token import NextTokenObjective
from seqrl.optimizers.adamw import AdamW, split_decay
from seqrl.planners.sample import SamplePlanner
from seqrl.planners.zero import ZeroPlanner
from seqrl.registry import all_registries, registry_of
from seqrl.schedulers import Scheduler
from seqrl.scores.likelihood import LikelihoodScore
from seqrl.scores.reward import RewardScore
from seqrl.sources import DataSource, find_source
from seqrl.testing import samples, tokenizers
from seqrl.tokenizers.uniform import UniformTokenizer
from seqrl.types import Plan

NAMES = [(registry.slot, name) for registry in all_registries() for name in registry.builtin_names()]
SMALL: dict[tuple[str, str], dict[str, Any]] = {  # options that make a component quick to check
    ("planner", "beam"): {"beam_width": 4, "horizon": 3},
    ("planner", "rollouts"): {"candidates": 4, "horizon": 3},
    ("planner", "latent_beam"): {"beam_width": 4, "horizon": 6},
    ("critic", "iql"): {"dim": 64},
    ("critic", "fqe"): {"dim": 64},
    ("planner", "cem"): {"candidates": 8, "elites": 2, "iterations": 2, "horizon": 3},
    ("critic", "ensemble"): {"members": 2, "of": {"name": "iql", "dim": 64}},
    ("condition", "target_return"): {"target": 10.0},
    ("tokenizer", "vq"): {
        "steps_per_code": 5,
        "num_codes": 16,
        "code_dim": 8,
        "backbone": {"name": "gpt", "num_layers": 1, "num_heads": 2, "dim": 16},
    },
}
SMALL_BACKBONE = {"num_layers": 2, "num_heads": 2, "dim": 16}


def small_options(slot: str, name: str, folder: Path) -> dict[str, Any]:
    if slot == "data" and name in ("maze2d", "four_rooms", "pointmaze"):
        return {"num_transitions": 400, "cache_dir": str(folder)}
    if slot == "data" and name in ("arrays", "d4rl"):
        return {"path": str(recording(folder))}
    if (slot, name) == ("data", "ogbench"):
        with h5py.File(recording(folder)) as file:
            arrays = {key: np.asarray(file[key]) for key in ("observations", "actions", "terminals")}
        np.savez(folder / "antmaze-large-navigate-v0.npz", **arrays)
        return {"id": "antmaze-large-navigate-v0", "folder": str(folder)}
    if (slot, name) == ("data", "minari"):
        pytest.importorskip("minari", reason="the optional package minari is not installed")
        write_episodes(find_source(str(recording(folder))).read(), "minari:mine/tiny-v0")
        return {"id": "mine/tiny-v0"}
    if (slot, name) == ("data", "mix"):
        path = str(recording(folder))
        return {"parts": [path, {"name": "d4rl", "path": path, "max_transitions": 6}]}
    if (slot, name) == ("data", "store"):
        samples.store().save(folder / "store")
        return {"path": str(folder / "store")}
    if slot == "logger":
        package = registry_of(slot).get(name).needs
        if package is not None:
            pytest.importorskip(package, reason=f"the optional package {package} is not installed")
        return {"mode": "offline"} if name == "wandb" else {}
    if slot == "backbone":
        if name == "hf":
            pytest.importorskip("transformers", reason="the optional package transformers is not installed")
        known = {option.name for option in registry_of(slot).options(name)}
        return {key: value for key, value in SMALL_BACKBONE.items() if key in known}
    return SMALL.get((slot, name), {})


def recording(folder: Path) -> Path:
    """A file of two episodes, in D4RL's layout."""
    rng = np.random.default_rng(0)
    path = folder / "hopper-tiny.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = rng.normal(size=(12, 3))
        file["actions"] = rng.uniform(-1, 1, size=(12, 2))
        file["rewards"] = rng.normal(size=12)
        file["terminals"] = np.arange(12) == 5
        file["timeouts"] = np.arange(12) == 11
    return path


@pytest.mark.parametrize(("slot", "name"), NAMES, ids=["-".join(pair) for pair in NAMES])
def test_a_registered_component_keeps_its_contracts(
    slot: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    violations = {c: v for c, v in testing.check(slot, name, **small_options(slot, name, tmp_path)) if v is not None}
    assert not violations


def test_every_component_has_contracts() -> None:
    for slot, name in NAMES:
        assert len(testing.contracts(slot, name)) >= 2


def test_an_unknown_slot_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no slot named 'tokeniser'\. Did you mean 'tokenizer'\? Slots: data"):
        testing.check("tokeniser", "uniform")


class SwappedBins(UniformTokenizer):
    def decode(self, tokens: Tensor) -> Tensor:
        return super().decode((tokens + 1) % self.vocab_size)


class ForgetfulTokenizer(UniformTokenizer):
    """Keeps what it learnt in attributes."""

    def fit(self, values: Tensor) -> None:
        self.span = values.amax(0) - values.amin(0)
        super().fit(values)


class UnboundedTokenizer(UniformTokenizer):
    def encode(self, values: Tensor) -> Tensor:
        span = (self.high - self.low).clamp(min=1e-9)
        return ((values - self.low) / span * self.vocab_size).floor().long()


class WholeBatchTokenizer(UniformTokenizer):
    """Centres by whatever stands in the same call."""

    def encode(self, values: Tensor) -> Tensor:
        return super().encode(values - values.mean(0))


class NarrowTokenizer(UniformTokenizer):
    """Has no place for the termination token."""

    def decode(self, tokens: Tensor) -> Tensor:
        return torch.arange(self.vocab_size, dtype=torch.float32)[tokens]


class DatalessTokenizer(UniformTokenizer):
    """Has the same bins for all data."""

    def fit(self, values: Tensor) -> None:
        self.low.fill_(-2.0)
        self.high.fill_(2.0)


class LookAheadBackbone(GptBackbone):
    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return super().forward(x + x.mean(1, keepdim=True), positions, attention)


class DeafBackbone(GptBackbone):
    """Attends as it likes."""

    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return super().forward(x, positions, FullAttention() if isinstance(attention, FullAttention) else attention)


class CountingBackbone(GptBackbone):
    """Ignores the positions that it is given."""

    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return super().forward(x, torch.arange(x.shape[1])[None], attention)


class ShiftingBackbone(GptBackbone):
    """Lets a token see the one before it outside attention."""

    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return super().forward(x + torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1], positions, attention)


class BoastingBackbone(LlamaBackbone):
    """Calls itself relative, and looks at where it stands."""

    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return super().forward(x + 0.01 * positions[..., None], positions, attention)


class MixingBackbone(GptBackbone):
    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return super().forward(x + 0.1 * x.mean(0, keepdim=True), positions, attention)


class FrozenBackbone(GptBackbone):
    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return super().forward(x, positions, attention).detach()


class RandomisedPlanner(ZeroPlanner):
    def plan(self, *arguments: Any) -> Plan:
        plan = super().plan(*arguments)
        return Plan(torch.rand_like(plan.actions) * 0.1, plan.value)


class WildPlanner(ZeroPlanner):
    def plan(self, *arguments: Any) -> Plan:
        plan = super().plan(*arguments)
        return Plan(plan.actions + 2.0, plan.value)


class FlatPlanner(ZeroPlanner):
    def plan(self, *arguments: Any) -> Plan:
        plan = super().plan(*arguments)
        return Plan(plan.actions[:, 0], plan.value)


class MeanPlanner(SamplePlanner):
    """Gives every environment the same action."""

    def __init__(self) -> None:
        super().__init__()

    def plan(self, *arguments: Any) -> Plan:
        plan = super().plan(*arguments)
        return Plan(plan.actions.mean(0, keepdim=True).expand_as(plan.actions), plan.value)


class RashPlanner(ZeroPlanner):
    """Accepts whatever comes, and needs rewards."""

    def plan(self, model: Any, *rest: Any) -> Plan:
        model.layout.field("reward")
        return super().plan(model, *rest)


class SurlyPlanner(ZeroPlanner):
    def check(self, model: Any, score: Any) -> None:
        raise ConfigError("it is not in the mood")


class SecondGuessPlanner(SamplePlanner):
    """Its cached search is another search."""

    def __init__(self, *, cache: str = "exact") -> None:
        super().__init__(temperature=0.0 if cache == "exact" else 5.0)


class ShortSightedCritic(IqlCritic):
    """Takes every step for the last one."""

    def loss(self, batch: Any) -> dict[str, Tensor]:
        return super().loss(dataclasses.replace(batch, terminated=torch.ones_like(batch.terminated)))


class BoldCritic(IqlCritic):
    def act(self, observations: Tensor) -> Tensor:
        return 2 * super().act(observations)


class ScaledCritic(IqlCritic):
    """Keeps the scale that its rewards were learnt in."""

    def __init__(self, observation_size: int, action_size: int, discount: float) -> None:
        super().__init__(observation_size, action_size, discount, dim=64, reward_scale=0.1)

    def q(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.reward_scale * super().q(observations, actions)


class RestlessCritic(IqlCritic):
    """Moves its slow copy whenever the loss is looked at."""

    def loss(self, batch: Any) -> dict[str, Tensor]:
        with torch.no_grad():
            next(self.target.parameters()).mul_(0.9)
        return super().loss(batch)


class CuriousCondition(GoalCondition):
    wants_goals = False


class BatchScore(LikelihoodScore):
    def __call__(self, trace: Any) -> Tensor:
        score = super().__call__(trace)
        return score - score.mean()


class LastStepScore(LikelihoodScore):
    def __call__(self, trace: Any) -> Tensor:
        return trace.log_probs


class TrustingScore(RewardScore):
    def check(self, layout: Any) -> None:
        """Fits everything, it says."""


class UnmaskedObjective(NextTokenObjective):
    def __call__(self, model: Any, batch: Any) -> Outcome:
        return super().__call__(model, type(batch)(batch.tokens, torch.ones_like(batch.mask), batch.goal))


class MeanObjective(NextTokenObjective):
    def __call__(self, model: Any, batch: Any) -> Outcome:
        outcome = super().__call__(model, batch)
        return Outcome(outcome.total / outcome.count.clamp(min=1), outcome.count, outcome.fields)


class DetachedObjective(NextTokenObjective):
    def __call__(self, model: Any, batch: Any) -> Outcome:
        outcome = super().__call__(model, batch)
        return Outcome(outcome.total.detach(), outcome.count, outcome.fields)


class UnseededSource(DataSource):
    def load(self) -> Any:
        store = samples.store()
        store.rewards[:] = np.random.default_rng().normal(size=len(store))
        return store


class FullOfHolesSource(DataSource):
    def load(self) -> Any:
        store = samples.store()
        store.rewards[3] = np.nan
        return store


class HalfOptimizer(AdamW):
    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(split_decay(module)[0])


class ClimbingOptimizer(AdamW):
    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(module.parameters(), lr=0.05, maximize=True)


class DriftingOptimizer(AdamW):
    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        class Drift(torch.optim.SGD):
            def step(self, closure: Any = None) -> Any:
                for group in self.param_groups:
                    for parameter in group["params"]:
                        parameter.data.mul_(0.99)
                return super().step(closure)

        return Drift(module.parameters(), lr=0.05)


class ForgetfulOptimizer(AdamW):
    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        class Slowing(torch.optim.SGD):
            steps = 0

            def step(self, closure: Any = None) -> Any:
                self.steps += 1
                for group in self.param_groups:
                    group["lr"] = 0.05 / self.steps
                return super().step(closure)

        return Slowing(module.parameters(), lr=0.05)


class NegativeScheduler(Scheduler):
    def factor(self, step: int) -> float:
        return 1.0 - step / 50


class CountingScheduler(Scheduler):
    def __init__(self) -> None:
        self.calls = 0

    def factor(self, step: int) -> float:
        self.calls += 1
        return 1 / self.calls


class TinyScheduler(Scheduler):
    def factor(self, step: int) -> float:
        return 1e-4


class TwoFacedSource(DataSource):
    def load(self) -> Any:
        return samples.store()

    def read(self) -> Any:
        return FlatEpisodes.of(self.load().subset([0]), "a part")


class OwnGruBackbone(GptBackbone):
    """Lets tokens meet in a recurrence of its own."""

    def __init__(self, max_length: int, *, num_layers: int = 2, num_heads: int = 2, dim: int = 16) -> None:
        super().__init__(max_length, num_layers=num_layers, num_heads=num_heads, dim=dim)
        self.gru = nn.GRU(dim, dim, batch_first=True)

    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return super().forward(self.gru(x)[0], positions, attention)


class HoardingBackbone(MinGruBackbone):
    """Keeps its state itself, and goes on with it whatever rows come next."""

    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        before = getattr(self, "state", 0.0) if x.shape[1] == 1 else 0.0
        total = before + x.cumsum(1)
        self.state = total[:1, -1:]
        return super().forward(total, positions, attention)


class BackwardBackbone(MinGruBackbone):
    """Its recurrence runs from the last token to the first."""

    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return super().forward(x.flip(1), positions, attention).flip(1)


class PieceBackbone(MinGruBackbone):
    """Averages over the tokens of a call, as if they were all there are."""

    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
        state = attention.recur(99, torch.ones_like(count), x)
        return super().forward(x + state / count, positions, attention)


class SummingBackbone(MinGruBackbone):
    """A sum of all tokens, in whatever order: its recurrence forgets nothing and nothing tells places apart."""

    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return attention.recur(0, torch.ones_like(x[0, 0]), x)


class ClosedBackbone(GptBackbone):
    def __init__(self, max_length: int) -> None:
        raise RuntimeError("no")


BROKEN = [
    ("tokenizer", SwappedBins, "round trip", "decode and encode again changes 1"),
    ("tokenizer", ForgetfulTokenizer, "moves and double precision", "the tensor 'span' is no buffer"),
    ("tokenizer", UnboundedTokenizer, "shapes and ranges", r"encode gives tokens from .* they must lie in \[0, 100\)"),
    ("tokenizer", WholeBatchTokenizer, "shapes and ranges", "rows must be encoded one by one"),
    ("tokenizer", NarrowTokenizer, "termination token", "decode of the termination token 100 fails"),
    ("tokenizer", NarrowTokenizer, "constant columns", "a constant column of 3.7 decodes to 0"),
    (
        "tokenizer",
        DatalessTokenizer,
        "error within range",
        "moves a value by 999 in a dimension whose values span 0.98",
    ),
    ("tokenizer", DatalessTokenizer, "fewer rows than bins", "fitted to 1 rows, it decodes to values outside"),
    ("backbone", LookAheadBackbone, "causality", "a change of token 1 changes features of tokens before it"),
    ("backbone", DeafBackbone, "mask is obeyed", "let tokens meet nowhere but in attention.attend"),
    ("backbone", CountingBackbone, "positions matter", "the first two tokens may change places"),
    ("backbone", BoastingBackbone, "positions matter", "the backbone calls itself relative"),
    ("backbone", ShiftingBackbone, "cache token by token", "one token at a time with a cache differ from"),
    ("backbone", ShiftingBackbone, "cache without a hidden token", "with a token hidden as a key"),
    ("backbone", ShiftingBackbone, "rows that branch", "keep nothing of a sequence outside"),
    ("backbone", CountingBackbone, "pieces with padding", "a row with 2 tokens of padding on its left differs"),
    ("backbone", MixingBackbone, "batch invariance", "row 0 has other features alone than in a batch"),
    ("backbone", FrozenBackbone, "overfits one batch", "it must fall under a fifth"),
    ("backbone", FrozenBackbone, "gradients arrive", "carry no gradient to the tokens before it and to the weights"),
    ("backbone", OwnGruBackbone, "mask is obeyed", "meet nowhere but in attention.attend and attention.recur"),
    ("backbone", OwnGruBackbone, "cache token by token", "let tokens meet nowhere but"),
    ("backbone", HoardingBackbone, "rows that branch", "keep nothing of a sequence outside"),
    ("backbone", HoardingBackbone, "cache modes agree", "gives other logits than cache=none; keep nothing of a seq"),
    ("backbone", BackwardBackbone, "causality", "a change of token 1 changes features of tokens before it"),
    ("backbone", PieceBackbone, "cache modes agree", "after 1 tokens, cache=exact gives other logits than cache=none"),
    ("backbone", SummingBackbone, "positions matter", "the first two tokens may change places without a trace"),
    ("backbone", ClosedBackbone, "builds", "the constructor raises RuntimeError: no"),
    ("planner", RandomisedPlanner, "same seed same plan", "draw from `noise` only"),
    ("planner", WildPlanner, "shapes and bounds", "actions reach from 2 to 2, beyond those of the data"),
    ("planner", FlatPlanner, "shapes and bounds", r"actions have shape \(3, 2\) and type float32; \(B, horizon, A\)"),
    ("planner", MeanPlanner, "batch invariance", "row 0 gets another plan alone than in a batch"),
    ("planner", RashPlanner, "refuses or serves", "check accepts a layout without reward and value fields and score"),
    ("planner", SurlyPlanner, "shapes and bounds", "check refuses every built-in score.*not in the mood"),
    ("planner", SecondGuessPlanner, "cache modes agree", "cache=exact gives another plan than cache=none"),
    ("critic", ShortSightedCritic, "only true ends cut", "the next state does not change the loss"),
    ("critic", BoldCritic, "shapes and bounds", "beyond those of the data"),
    ("critic", ScaledCritic, "learns rewards in their units", "Q misses .* of their variance"),
    ("critic", RestlessCritic, "loss is differentiable", "in eval mode the loss changes the critic"),
    ("condition", CuriousCondition, "goals are asked for", "although wants_goals is False"),
    ("score", BatchScore, "score is pure", "a row gets another score alone than in a batch"),
    ("score", LastStepScore, "score has a number per plan", r"one finite number per plan, \(3, 4\), is needed"),
    (
        "score",
        TrustingScore,
        "score refuses or serves",
        "check accepts a layout without a value field, and scoring fai",
    ),
    ("objective", UnmaskedObjective, "masked tokens do not count", "other tokens at masked places change the loss"),
    ("objective", MeanObjective, "rows add up", "give sums, not means"),
    ("objective", DetachedObjective, "loss is differentiable", "total carries no gradient"),
    ("optimizer", HalfOptimizer, "every parameter once", r"the parameter '.*' stands in 0 groups"),
    ("optimizer", ClimbingOptimizer, "loss falls", "30 steps on one batch change its loss from"),
    ("optimizer", DriftingOptimizer, "learning rate is obeyed", "with a learning rate of 0 a step moves"),
    ("optimizer", ForgetfulOptimizer, "state goes on", "resumed from its state"),
    ("scheduler", NegativeScheduler, "factors are numbers", r"factor\(51\) is -0\.02"),
    ("scheduler", CountingScheduler, "step alone decides", "a step has another factor"),
    ("scheduler", TinyScheduler, "training gets somewhere", "the largest factor is 0.0001"),
    ("data", UnseededSource, "loads the same twice", "seed what is random"),
    ("data", FullOfHolesSource, "store is sound", "rewards holds NaN or infinity"),
    ("data", TwoFacedSource, "reads what it loads", "read gives other episodes than load"),
]


@pytest.mark.usefixtures("clean_plugins")
@pytest.mark.parametrize(
    ("slot", "broken", "contract", "message"), BROKEN, ids=[f"{case[1].__name__}-{case[2]}" for case in BROKEN]
)
def test_a_violation_is_told_in_words(slot: str, broken: type, contract: str, message: str) -> None:
    registry_of(slot).register("broken")(broken)
    options = SMALL_BACKBONE if slot == "backbone" and broken is not ClosedBackbone else {}
    violation = dict(testing.check(slot, "broken", **options))[contract]
    assert violation is not None
    assert re.search(message, violation), violation


def test_a_single_contract_can_be_called() -> None:
    tokenizers.round_trip(testing.Component("tokenizer", "uniform", {"num_bins": 7}))


def test_missing_data_are_no_violation() -> None:
    with pytest.raises(DataError, match="there is no file"):
        testing.check("data", "d4rl", path="/nowhere.hdf5")
