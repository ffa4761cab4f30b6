"""Contracts of scores: what `find_lost` tells, and that a score asks for what it reads."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from seqrl import Score, testing
from seqrl.registry import registry_of

pytestmark = pytest.mark.usefixtures("clean_plugins")
LOST = "lost plans are told each by itself"


class Thrift(Score):
    """Loses plans that spend more than a cap."""

    wants_transitions = True
    wants_extras = ("energy",)

    def check(self, layout: Any) -> None:
        layout.field("energy")

    def __call__(self, trace: Any) -> Tensor:
        return -trace.extras["energy"].sum((-1, -2)).double()

    def find_lost(self, trace: Any) -> Tensor | None:
        return trace.extras["energy"].sum((-1, -2)) > 0.5


class OneAnswer(Thrift):
    def find_lost(self, trace: Any) -> Tensor | None:
        return trace.extras["energy"].sum() > 0.5


class AnswerPerRow(Thrift):
    def find_lost(self, trace: Any) -> Tensor | None:
        return trace.extras["energy"].sum((-1, -2, -3)) > 0.5


class AnswerPerStep(Thrift):
    def find_lost(self, trace: Any) -> Tensor | None:
        return trace.extras["energy"].sum(-1) > 0.5


class Numbers(Thrift):
    def find_lost(self, trace: Any) -> Tensor | None:
        return super().find_lost(trace).float()


class Listed(Thrift):
    def find_lost(self, trace: Any) -> Any:
        return super().find_lost(trace).tolist()


class AgainstTheMean(Thrift):
    def find_lost(self, trace: Any) -> Tensor | None:
        energy = trace.extras["energy"].sum((-1, -2))
        return energy > energy.mean()


class AgainstItsBeams(Thrift):
    def find_lost(self, trace: Any) -> Tensor | None:
        energy = trace.extras["energy"].sum((-1, -2))
        return energy > energy.mean(-1, keepdim=True)


class Overwriting(Thrift):
    def find_lost(self, trace: Any) -> Tensor | None:
        return trace.extras["energy"].clamp_(min=0).sum((-1, -2)) > 0.5


class Counting(Thrift):
    asked = 0

    def find_lost(self, trace: Any) -> Tensor | None:
        self.asked += 1
        return trace.extras["energy"].sum((-1, -2)) > self.asked


class AmongBeams(Thrift):
    def __call__(self, trace: Any) -> Tensor:
        energy = super().__call__(trace)
        return energy - energy.mean(-1, keepdim=True) if energy.ndim > 1 else energy


def violations(cls: type[Score]) -> dict[str, str]:
    registry_of("score").register("mine")(cls)
    return {contract: violation for contract, violation in testing.check("score", "mine") if violation is not None}


def test_a_right_score_keeps_them() -> None:
    assert violations(Thrift) == {}


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (OneAnswer, "find_lost gives shape () and type bool; None, or one bool per plan, (3, 4), is needed"),
        (AnswerPerRow, "find_lost gives shape (3,) and type bool"),
        (AnswerPerStep, "find_lost gives shape (3, 4, 3) and type bool"),
        (Numbers, "find_lost gives shape (3, 4) and type float32"),
        (Listed, "find_lost gives a list"),
        (AgainstTheMean, "compare no plans with each other"),
        (AgainstItsBeams, "compare no plans with each other"),
        (Overwriting, "find_lost changes extras of the trace"),
        (Counting, "keep no state"),
    ],
)
def test_a_wrong_find_lost_is_told(cls: type[Score], words: str) -> None:
    told = violations(cls)
    assert words in told[LOST]
    assert len(told) == 1


def test_a_score_that_compares_the_plans_of_a_row_is_told() -> None:
    assert "a plan gets another score alone" in violations(AmongBeams)["score is pure"]


class Likely(Score):
    def check(self, layout: Any) -> None: ...

    def __call__(self, trace: Any) -> Tensor:
        return trace.log_probs.sum(-1)


class UnaskedExtra(Likely):
    def __call__(self, trace: Any) -> Tensor:
        return trace.extras["energy"].sum((-1, -2))


class OneMoreExtra(Thrift):
    def __call__(self, trace: Any) -> Tensor:
        return super().__call__(trace) + trace.extras.get("load").sum((-1, -2))


class UnaskedObservations(Likely):
    def __call__(self, trace: Any) -> Tensor:
        return trace.observations[..., 0].sum(-1)


class UnaskedEnd(Likely):
    def find_lost(self, trace: Any) -> Tensor | None:
        return trace.over[..., -1]


class UnaskedNext(Likely):
    wants_transitions = True

    def __call__(self, trace: Any) -> Tensor:
        return trace.next_observation.sum(-1)


class UnaskedGoal(Likely):
    def __call__(self, trace: Any) -> Tensor:
        place = trace.target
        return -(place.norm(dim=-1))


class UnaskedBeliefs(Likely):
    def __call__(self, trace: Any) -> Tensor:
        return trace.value_distributions.mean().sum(-1)


class UnaskedEvidence(Likely):
    def __call__(self, trace: Any) -> Tensor:
        return trace.goal_evidence.sum(-1)


class EarlyEvidence(Likely):
    evidence_steps = 2

    def find_lost(self, trace: Any) -> Tensor | None:
        return trace.goal_evidence.sum(-1) < -10


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (UnaskedExtra, "reads trace.extras.'energy'. and .*; name it: wants_extras = \\('energy',\\)"),
        (OneMoreExtra, "reads trace.extras.'load'. and .*; name it: wants_extras = \\('energy', 'load'\\)"),
        (UnaskedObservations, "reads trace.observations and does not ask for it; set wants_transitions = True"),
        (UnaskedEnd, "reads trace.over and does not ask for it; set wants_transitions = True"),
        (UnaskedNext, "reads trace.next_observation and does not ask for it; set wants_next_observation = True"),
        (UnaskedGoal, "reads trace.target and does not ask for it; set wants_goals = True"),
        (UnaskedBeliefs, "reads trace.value_distributions and does not ask for it; set wants_distributions = True"),
        (UnaskedEvidence, "reads trace.goal_evidence and does not ask for it; set evidence_steps = 1 or more"),
        (EarlyEvidence, "find_lost is asked before plans are whole, where trace.goal_evidence is None"),
    ],
)  # fmt: skip
def test_what_a_score_reads_without_asking_is_told(cls: type[Score], words: str) -> None:
    told = violations(cls)
    assert told
    assert all(re.search(words, violation) for violation in told.values())
    assert all("test_score_contracts.py:" in violation for violation in told.values())


class Obliging(Likely):
    """Looks whether there is something, and does without."""

    def __call__(self, trace: Any) -> Tensor:
        more = 0.0 if trace.observations is None else trace.observations.sum((-1, -2))
        return super().__call__(trace) + more + trace.extras.get("energy", torch.zeros(1)).sum()


def test_a_part_that_a_score_can_do_without_need_not_be_asked_for() -> None:
    assert violations(Obliging) == {}
