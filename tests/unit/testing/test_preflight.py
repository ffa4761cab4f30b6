"""Plugins that would train to the end and give wrong numbers are refused before, by name; others are left in peace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqrl import Backbone, Planner, Score, Tokenizer, testing
from seqrl.cli import train
from seqrl.cli.checking import check_plugged
from seqrl.config import EvaluationConfig, RunConfig
from seqrl.errors import ConfigError, PluginError
from seqrl.registry import registry_of
from seqrl.testing import preflight, samples
from seqrl.types import Plan

pytestmark = pytest.mark.usefixtures("clean_plugins")

GRU = """
import torch
from torch import nn
from seqrl import Backbone, register_backbone


@register_backbone("tiny_gru")
class TinyGru(Backbone):
    relative = True

    def __init__(self, *, dim: int = 16) -> None:
        super().__init__()
        self.dim = dim
        self.cell = nn.GRU(dim, dim, batch_first=True)

    def forward(self, x, positions, attention):
        return self.cell(x)[0]
"""
MENDED = GRU.replace("nn.GRU(dim, dim, batch_first=True)", "nn.GRUCell(dim, dim)").replace(
    "self.cell(x)[0]", "attention.recur_slowly(0, self.cell, x, x.new_zeros(self.dim))"
)
WORDS = [
    *("data=d4rl", "data.path=hopper-tiny.hdf5", "window.length=4", "tokenizer.num_bins=8", "evaluation=none"),
    *("training.max_steps=2", "training.batch_size=4", "training.progress_bar=false", "training.loggers=[csv]"),
    *("plugins=[mine.py]", "backbone=tiny_gru"),
]


class Pooled(Backbone):
    """Sees the future."""

    def __init__(self, *, dim: int = 16) -> None:
        super().__init__()
        self.dim, self.layer = dim, nn.Linear(dim, dim)

    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return self.layer(x + x.mean(1, keepdim=True))


class Detached(Backbone):
    """Learns nothing of the past."""

    relative = True

    def __init__(self, *, dim: int = 16) -> None:
        super().__init__()
        self.dim, self.layer = dim, nn.Linear(dim, dim)

    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return self.layer(x) + attention.recur(0, torch.full_like(x, 0.5), x).detach()


class Counting(Backbone):
    """One step at a time it decays otherwise than in a pass."""

    relative = True

    def __init__(self, *, dim: int = 16) -> None:
        super().__init__()
        self.dim, self.layer = dim, nn.Linear(dim, dim)

    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return self.layer(attention.recur(0, x.new_tensor(0.5 if x.shape[1] > 1 else 0.4), x))


class Rounding(Tokenizer):
    """Its tokens do not come back."""

    def __init__(self, size: int, *, num_bins: int = 8) -> None:
        super().__init__()
        self.tokens_per_step, self.vocab_size = size, num_bins

    def fit(self, values: Tensor) -> None: ...

    def encode(self, values: Tensor) -> Tensor:
        return values.clamp(0, self.vocab_size - 1).long()

    def decode(self, tokens: Tensor) -> Tensor:
        return tokens.float() + 1.5


class Restless(Planner):
    """Draws from torch's own generator."""

    horizon = 1

    def check(self, model: Any, score: Any) -> None: ...

    def plan(self, model: Any, history: Any, score: Any, noise: Any) -> Plan:
        size = model.layout.field("action").size
        return Plan(torch.rand(len(history), 1, size) * 0.1, torch.zeros(len(history)))


class Ranking(Score):
    """Compares rows with each other."""

    def check(self, layout: Any) -> None: ...

    def __call__(self, trace: Any) -> Tensor:
        return trace.log_probs.sum(-1) - trace.log_probs.mean()


@pytest.fixture(autouse=True)
def nothing_checked_before() -> Iterator[None]:
    preflight.forget()
    yield
    preflight.forget()


def row(**parts: Any) -> EvaluationConfig:
    usual = {"planner": {"name": "beam"}, "condition": {"name": "none"}, "score": {"name": "likelihood"}}
    return EvaluationConfig(**{**usual, **parts})


def check(slot: str, cls: type, **options: Any) -> None:
    registry_of(slot).register("mine")(cls)
    part = {slot: {"name": "mine", **options}}
    of_row = slot in ("planner", "condition", "score")
    check_plugged(RunConfig() if of_row else RunConfig(**part), [row(**part)] if of_row else [])


@pytest.mark.parametrize(
    ("slot", "cls", "words"),
    [
        ("backbone", Pooled, "'causality' of its slot: .* changes features of tokens before it"),
        ("backbone", Detached, "'gradients arrive' of its slot: .* let nothing be detached"),
        ("backbone", Counting, "'cache token by token' of its slot: features computed one token at a time"),
        ("tokenizer", Rounding, "'round trip' of its slot: decode and encode again changes"),
        ("planner", Restless, "'.*' of its slot: .* draw from `noise`"),
        ("score", Ranking, "'score is pure' of its slot: a row gets another score"),
    ],
)
def test_a_wrong_part_is_refused_by_name(slot: str, cls: type, words: str) -> None:
    with pytest.raises(PluginError, match=f"{slot} 'mine' of .*test_preflight breaks the contract {words}"):
        check(slot, cls)


def test_a_term_of_a_sum_is_a_score_too() -> None:
    registry_of("score").register("mine")(Ranking)
    terms = {"first": {"name": "mine", "weight": 0.5}, "other": {"name": "likelihood"}}
    with pytest.raises(PluginError, match="score 'mine'"):
        check_plugged(RunConfig(), [row(score={"name": "sum", "terms": terms})])


class Narrow(Score):
    """Looks at a dimension that the contracts' episodes do not have."""

    wants_transitions = True

    def check(self, layout: Any) -> None: ...

    def __call__(self, trace: Any) -> Tensor:
        return trace.observations[..., 10].sum(-1)


class OneRange(Tokenizer):
    """Made for data between -1 and 1."""

    def __init__(self, size: int, *, num_bins: int = 8) -> None:
        super().__init__()
        self.tokens_per_step, self.vocab_size = size, num_bins

    def fit(self, values: Tensor) -> None: ...

    def encode(self, values: Tensor) -> Tensor:
        return ((values.clamp(-1, 1) + 1) / 2 * self.vocab_size).long().clamp(0, self.vocab_size - 1)

    def decode(self, tokens: Tensor) -> Tensor:
        return ((tokens + 0.5) / self.vocab_size * 2 - 1).float()


class Choosy(Planner):
    """Wants a score of its own."""

    horizon = 1

    def check(self, model: Any, score: Any) -> None:
        raise ConfigError("give score=mine")

    def plan(self, *arguments: Any) -> Plan:
        raise NotImplementedError


@pytest.mark.parametrize(("slot", "cls"), [("score", Narrow), ("tokenizer", OneRange), ("planner", Choosy)])
def test_what_the_contracts_do_not_suit_is_not_refused(
    slot: str, cls: type, capsys: pytest.CaptureFixture[str]
) -> None:
    check(slot, cls)
    said = " ".join(capsys.readouterr().out.split())
    assert f"{slot} 'mine' keeps" in said
    assert ("could not be run" in said) == (cls is not OneRange)


class OneWorld(Planner):
    """Written for one environment: 7 numbers of an observation, 1 of an action."""

    horizon = 1
    sizes = (7, 1)

    def check(self, model: Any, score: Any) -> None:
        sizes = tuple(model.layout.field(name).size for name in ("observation", "action"))
        if sizes != self.sizes:
            raise ConfigError("acts in mine/World-v0 alone")

    def plan(self, model: Any, history: Any, score: Any, noise: Any) -> Plan:
        return Plan(torch.zeros(len(history), 1, 1), torch.zeros(len(history)))


class OneWorldRestless(OneWorld):
    """The same, and draws from torch's own generator."""

    def plan(self, model: Any, history: Any, score: Any, noise: Any) -> Plan:
        return Plan(torch.rand(len(history), 1, 1) * 0.1, torch.zeros(len(history)))


class Far(Narrow):
    """The same dimension, in episodes that have it."""

    sizes = (11, 3)


@pytest.mark.parametrize(("slot", "cls"), [("planner", OneWorld), ("score", Far)])
def test_a_part_for_one_environment_meets_episodes_of_its_sizes(
    slot: str, cls: type, capsys: pytest.CaptureFixture[str]
) -> None:
    check(slot, cls)
    assert "could not be run" not in capsys.readouterr().out
    assert {name: violation for name, violation in testing.check(slot, "mine") if violation is not None} == {}
    assert samples.store().sizes["observation_size"] == samples.OBSERVATION_SIZE, "others meet the usual ones"


def test_a_part_for_one_environment_is_held_to_its_contracts() -> None:
    with pytest.raises(PluginError, match=r"draw from `noise`"):
        check("planner", OneWorldRestless)


def test_large_sizes_are_made_small_and_the_check_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    """Seventy million weights would take minutes."""

    class Large(Backbone):
        relative = True

        def __init__(self, *, num_layers: int = 4, dim: int = 128) -> None:
            super().__init__()
            self.dim = dim
            self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(num_layers))

        def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
            for layer, linear in enumerate(self.layers):
                x = x + linear(attention.recur(layer, x.sigmoid(), x))
            return x

    started = time.process_time()
    check("backbone", Large, num_layers=70, dim=1000)
    assert time.process_time() - started < 2 * preflight.SECONDS
    assert "keeps 12 quick contracts" in " ".join(capsys.readouterr().out.split())
    check("backbone", Large, num_layers=70, dim=1000)
    assert not capsys.readouterr().out, "once a process is enough"


def test_random_numbers_stay_as_they_were() -> None:
    before = torch.get_rng_state()
    check("tokenizer", OneRange)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("words", [["--check"], []])
def test_a_command_refuses_before_anything_is_written(
    words: list[str], in_folder_with_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(GRU)
    assert train.run([*WORDS, *words]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "backbone 'tiny_gru' of " in said
    assert "mine.py breaks the contract 'mask is obeyed' of its slot" in said
    assert "check_plugins=false" in said
    assert not (in_folder_with_data / "runs").exists()


@pytest.mark.parametrize(("code", "words"), [(MENDED, []), (GRU, ["check_plugins=false"])])
def test_a_command_trains_what_is_right_and_what_it_is_told_to(
    code: str, words: list[str], in_folder_with_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(code)
    assert train.run([*WORDS, *words]) == 0
    assert list(in_folder_with_data.glob("runs/*/model/last.ckpt"))
    assert ("keeps 12 quick contracts" in capsys.readouterr().out) == (not words)


def test_built_in_parts_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Any] = []
    monkeypatch.setattr(preflight, "check_plugged", checked.append)
    check_plugged(RunConfig(), [row()])
    assert not checked
