"""A plugin that raises in its contracts by its own fault is refused, with its own line; others are left in peace."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqrl import Backbone, Planner, Score, testing
from seqrl.cli import evaluate, plugins, train
from seqrl.cli.checking import check_plugged
from seqrl.config import EvaluationConfig, RunConfig
from seqrl.errors import PluginError
from seqrl.registry import registry_of
from seqrl.testing import preflight
from seqrl.types import Plan

pytestmark = pytest.mark.usefixtures("clean_plugins")

LSTM = """
import torch
from torch import nn
from seqrl import Backbone, register_backbone


@register_backbone("bad_lstm")
class BadLstm(Backbone):
    def __init__(self, *, dim: int = 16) -> None:
        super().__init__()
        self.dim = dim
        self.cell = nn.LSTMCell(dim, dim)
        self.scale = nn.Parameter(torch.ones(dim + 1))

    def forward(self, x, positions, attention):
        return x * self.scale
"""
LINE = 1 + LSTM[: LSTM.index("return x * self.scale")].count("\n")
WORDS = [
    *("data=d4rl", "data.path=hopper-tiny.hdf5", "window.length=4", "tokenizer.num_bins=8", "evaluation=none"),
    *("training.max_steps=2", "plugins=[mine.py]", "backbone=bad_lstm"),
]


class Made(Backbone):
    def __init__(self, *, dim: int = 16) -> None:
        super().__init__()
        self.dim, self.layer = dim, nn.Linear(dim, dim)


class Broadcasting(Made):
    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return self.layer(x) + torch.zeros(17).to(x)


class Misspelt(Made):
    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return self.lear(x)


class Inward(Made):
    """The error is raised inside torch, by what this class calls."""

    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return self.layer(x[..., 1:])


class Costly(Score):
    def check(self, layout: Any) -> None: ...

    def __call__(self, trace: Any) -> Tensor:
        return trace.log_probs.summ(-1)


class Forgetful(Planner):
    horizon = 1

    def check(self, model: Any, score: Any) -> None: ...

    def plan(self, model: Any, history: Any, score: Any, noise: Any) -> Plan:
        return Plan(self.actions, torch.zeros(len(history)))


@pytest.fixture(autouse=True)
def nothing_checked_before() -> Iterator[None]:
    preflight.forget()
    yield
    preflight.forget()


def check(slot: str, cls: type, **options: Any) -> None:
    registry_of(slot).register("mine")(cls)
    part: dict[str, Any] = {slot: {"name": "mine", **options}}
    usual = {"planner": {"name": "beam"}, "condition": {"name": "none"}, "score": {"name": "likelihood"}}
    if slot in usual:
        check_plugged(RunConfig(), [EvaluationConfig(**{**usual, **part})])
    else:
        check_plugged(RunConfig(**part), [])


def last_line(cls: type, method: str = "forward") -> str:
    lines, first = inspect.getsourcelines(getattr(cls, method))
    return f"{Path(__file__).name}:{first + len(lines) - 1}"


@pytest.mark.parametrize(
    ("slot", "cls", "method", "words"),
    [
        ("backbone", Broadcasting, "forward", "'shapes' for one: RuntimeError: The size of tensor a"),
        ("backbone", Misspelt, "forward", "'shapes' for one: AttributeError: 'Misspelt' object has no attribute"),
        ("backbone", Inward, "forward", "'shapes' for one: RuntimeError: mat1 and mat2"),
        ("score", Costly, "__call__", "for one: AttributeError: 'Tensor' object has no attribute 'summ'"),
        (
            "planner",
            Forgetful,
            "plan",
            "without transitions fails: AttributeError: 'Forgetful' object has",
        ),
    ],
)
def test_what_raises_by_its_own_fault_is_refused_with_its_line(slot: str, cls: type, method: str, words: str) -> None:
    with pytest.raises(PluginError, match=f"{slot} 'mine' of .*test_failing_plugins.* (fails in|breaks) ") as caught:
        check(slot, cls)
    said = str(caught.value)
    assert words in said
    assert said.count(last_line(cls, method)) == 1
    assert "check_plugins=false" in said


class OnGpu(Made):
    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        raise RuntimeError("this kernel wants a CUDA tensor")


class InFloat(Made):
    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        return x @ torch.eye(self.dim)


class Downloading(Made):
    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        raise FileNotFoundError("weights.pt")


class OfOneWorld(Score):
    """Another size than the contracts' is no fault, by whatever word it is told."""

    wants_transitions = True

    def check(self, layout: Any) -> None: ...

    def __call__(self, trace: Any) -> Tensor:
        assert trace.observations.shape[-1] == 11
        return trace.observations[..., 10].sum(-1)


@pytest.mark.parametrize(
    ("slot", "cls"),
    [("backbone", OnGpu), ("backbone", InFloat), ("backbone", Downloading), ("score", OfOneWorld)],
)
def test_what_the_contracts_are_at_fault_for_is_told_once(
    slot: str, cls: type, capsys: pytest.CaptureFixture[str]
) -> None:
    check(slot, cls)
    said = " ".join(capsys.readouterr().out.split())
    assert "could not be run: " in said
    told = re.findall(r"\((\w+Error: .*?; \w+\.py:\d+)\)", said)
    assert told
    assert len(told) == len(set(told)), "equal errors are told once"


class Heads(Made):
    """Serves no small sizes, and says so nowhere."""

    def __init__(self, *, dim: int = 64) -> None:
        super().__init__(dim=dim)

    def forward(self, x: Tensor, positions: Tensor, attention: Any) -> Tensor:
        gates = self.layer(x).unflatten(-1, (-1, 32)).sigmoid().flatten(-2)
        return x + attention.recur(0, gates, x)


def test_sizes_that_a_contract_made_too_small_are_not_the_fault_of_the_component(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Heads.relative = True
    check("backbone", Heads)
    assert re.search(r"keeps 1\d quick contracts of its slot \([\d.]+ s\)", " ".join(capsys.readouterr().out.split()))


@pytest.mark.parametrize("words", [["--check"], []])
def test_a_command_refuses_before_anything_is_written(
    words: list[str], in_folder_with_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(LSTM)
    assert train.run([*WORDS, *words]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.count(f"mine.py:{LINE}") == 1
    assert f"`seqrl plugins check bad_lstm --slot backbone --plugins {Path('mine.py').resolve()} --verbose`" in said
    assert "Traceback" not in said
    assert not (in_folder_with_data / "runs").exists()


@pytest.mark.parametrize("words", [[], ["--verbose"]])
def test_a_check_tells_equal_errors_once_with_their_line(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(LSTM)
    assert plugins.run(["check", "bad_lstm", "--slot", "backbone", "--plugins", str(path), *words]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("The size of tensor a (16) must match") == (2 if words else 1)
    assert f"mine.py:{LINE}" in said
    assert ("Traceback" in said) == bool(words)
    assert "shapes" in said
    assert "mask is obeyed" in said
    assert "1 of 13 contracts kept" in said


@pytest.mark.parametrize(("slot", "cls", "method"), [("score", Costly, "__call__"), ("planner", Forgetful, "plan")])
def test_every_violation_by_an_exception_has_its_line(slot: str, cls: type, method: str) -> None:
    registry_of(slot).register("mine")(cls)
    told = [violation for _, violation in testing.check(slot, "mine") if violation is not None]
    assert told
    assert all(last_line(cls, method) in violation for violation in told)


SCORES = """
from seqrl import Score, register_score

class Plain(Score):
    def check(self, layout): ...
    def __call__(self, trace):
        return trace.log_probs.sum(-1)

@register_score("thrift")
class Thrift(Plain):
    def __call__(self, trace):
        return -trace.extras["energy"].sum((-1, -2))

@register_score("near")
class Near(Plain):
    def find_lost(self, trace):
        return trace.observations[..., -1, 0] > 0
"""


def test_an_evaluation_refuses_a_score_that_does_not_ask_for_what_it_reads(
    in_folder_with_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = ["backbone.num_layers=1", "backbone.num_heads=2", "backbone.dim=16", "plugins=[]", "training.batch_size=4"]
    assert train.run([*WORDS[:6], "training.progress_bar=false", *tiny]) == 0
    Path("mine.py").write_text(SCORES)
    for words, told in (
        (["score=thrift"], "trace.extras['energy'] and does not ask for it; name it: wants_extras = ('energy',)"),
        (["score=near"], "trace.observations and does not ask for it; set wants_transitions = True in the class"),
        (["score=sum", "+score.terms.a={name: near, weight: 2}"], "score 'near' of "),
    ):  # fmt: skip
        for check in ([], ["--check"]):
            capsys.readouterr()
            assert evaluate.run(["checkpoint=runs/latest", "plugins=[mine.py]", "planner=beam", *words, *check]) == 2
            said = " ".join(capsys.readouterr().err.split())
            assert told in said
            assert "Traceback" not in said
