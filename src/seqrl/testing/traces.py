"""Traces that hold what a score asks for and nothing else, as those of a search do, and tell what it read besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from seqrl.errors import SeqrlError
from seqrl.layout import Layout
from seqrl.scores import Distribution, Score, Trace
from seqrl.testing import samples
from seqrl.testing.contract import ContractViolation

_TRANSITIONS = {"wants_transitions": "True"}
_WANTS: dict[str, dict[str, str]] = {
    "observations": _TRANSITIONS,
    "actions": _TRANSITIONS,
    "over": _TRANSITIONS,
    "next_observation": {"wants_transitions": "True", "wants_next_observation": "True"},
    "target": {"wants_goals": "True"},
    "reward_distributions": {"wants_distributions": "True"},
    "value_distributions": {"wants_distributions": "True"},
    "goal_evidence": {"evidence_steps": "1 or more"},
}
"""The attributes of a score without which a trace does not hold a part, and what they have to be."""

_EXTRA = "extras "


class _Watched(Trace):
    """Notes which parts were asked for that it does not hold."""

    missed: ClassVar[list[str]] = []  # of an instance that `ask` made, its own

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if found is None and name in _WANTS:
            self.missed.append(name)
        return found


class _WatchedExtras(dict[str, Tensor]):
    """Notes which extras were asked for that it does not hold."""

    def __init__(self, held: Mapping[str, Tensor], missed: list[str]) -> None:
        super().__init__(held)
        self._missed = missed

    def __missing__(self, name: str) -> Tensor:
        self._missed.append(f"{_EXTRA}{name}")
        raise KeyError(name)

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self._missed.append(f"{_EXTRA}{name}")
        return super().get(name, default)


def ask(score: Score, trace: Trace, *, lost: bool = False) -> Any:
    """What a score says of a trace, by `find_lost` or as a number.

    Raises:
        ContractViolation: it fails for want of a part that it does not ask for; says by which attribute it would.
    """
    missed: list[str] = []
    parts = {each.name: getattr(trace, each.name) for each in fields(trace)}
    watched = _Watched(**{**parts, "extras": _WatchedExtras(trace.extras, missed)})
    object.__setattr__(watched, "missed", missed)
    try:
        return score.find_lost(watched) if lost else score(watched)
    except (ContractViolation, SeqrlError):
        raise
    except (KeyError, TypeError, AttributeError, AssertionError) as error:
        blamed = [part for part in missed if _causes(part, error)]
        remedies = (_find_remedy(score, part, lost=lost) for part in reversed(blamed))
        remedy = next((each for each in remedies if each is not None), None)
        if remedy is None:
            raise
        raise ContractViolation(remedy) from error


def _causes(part: str, error: Exception) -> bool:
    """Whether a part that is not there may be what an error is about, and not a number further on."""
    if isinstance(error, KeyError):
        return part == f"{_EXTRA}{error.args[0]}"
    return isinstance(error, AssertionError) or "None" in str(error)


def _find_remedy(score: Score, part: str, *, lost: bool) -> str | None:
    """What to do for a part that a trace did not hold; None where the score asks for it."""
    if part.startswith(_EXTRA):
        name = part.removeprefix(_EXTRA)
        if name in score.wants_extras:
            return None
        names = ", ".join(map(repr, [*score.wants_extras, name]))
        names = f"{names}," if not score.wants_extras else names
        return f"it reads trace.extras[{name!r}] and does not ask for it; name it: wants_extras = ({names})"
    lacking = {name: value for name, value in _WANTS[part].items() if not getattr(score, name)}
    if lacking:
        wanted = " and ".join(f"{name} = {value}" for name, value in lacking.items())
        return f"it reads trace.{part} and does not ask for it; set {wanted} in the class"
    if lost and part == "goal_evidence":
        return "find_lost is asked before plans are whole, where trace.goal_evidence is None; do without it there"
    return None


def layout_for(score: Score) -> Layout:
    """One with the extras that a score wants, whatever they are called."""
    return samples.layout(extras=score.wants_extras)


def trace_of(score: Score, layout: Layout, *, partial: bool = False) -> Trace:
    """Three environments, four beams, three transitions; no more than the score wants.

    Args:
        partial: of plans that are not whole, which `find_lost` sees.
    """
    trace = _full_trace(layout)
    kept: dict[str, Any] = {}
    for part, wants in _WANTS.items():
        asked = all(getattr(score, name) for name in wants) or (wants is _TRANSITIONS and score.wants_extras)
        if not asked or (partial and part == "goal_evidence"):
            kept[part] = None
    return replace(trace, **kept, extras={name: x for name, x in trace.extras.items() if name in score.wants_extras})


def _full_trace(layout: Layout) -> Trace:
    generator = torch.Generator().manual_seed(7)
    numbers = [torch.randn(3, 4, 3, dtype=torch.float64, generator=generator) for _ in range(4)]
    sizes = [layout.field(name).size for name in ("observation", "action")]
    return Trace(
        -numbers[0].abs(),
        -numbers[0].abs() - numbers[1].abs(),
        numbers[2] if layout.has("reward") else None,
        numbers[3] if layout.has("value") else None,
        observations=torch.randn(3, 4, 3, sizes[0], generator=generator),
        actions=torch.randn(3, 4, 3, sizes[1], generator=generator),
        next_observation=torch.randn(3, 4, sizes[0], generator=generator),
        target=torch.randn(3, 4, 2 if layout.goal is None else len(layout.goal.dims), generator=generator),
        goal_evidence=torch.randn(3, 4, 3, generator=generator),
        over=torch.arange(4) > torch.arange(4)[:, None].expand(3, 4, 1),
        reward_distributions=_beliefs(generator) if layout.has("reward") else None,
        value_distributions=_beliefs(generator) if layout.has("value") else None,
        extras={
            each.name: torch.randn(3, 4, 3, each.size, generator=generator)
            for each in (*layout.contexts, *layout.outcomes)
        },
    )


def _beliefs(generator: torch.Generator) -> Distribution:
    """Of every transition, over five values."""
    weights = torch.randn(3, 4, 3, 5, dtype=torch.float64, generator=generator)
    return Distribution(weights.softmax(-1), torch.randn(5, dtype=torch.float64, generator=generator))


def take_plans(trace: Trace, index: Any) -> Trace:
    """Some rows, or some plans of them: `trace[index]` of every part."""
    chosen: Any = {
        each.name: _take(part, index) for each in fields(trace) if (part := getattr(trace, each.name)) is not None
    }
    return replace(trace, **chosen)


def _take(part: Any, index: Any) -> Any:
    if isinstance(part, Mapping):
        return {name: each[index] for name, each in part.items()}
    if isinstance(part, Distribution):
        return replace(part, probabilities=part.probabilities[index])
    return part[index]


def find_difference(one: Trace, other: Trace) -> str | None:
    """The name of a part in which two traces differ; None where they are the same."""
    pairs = ((each.name, getattr(one, each.name), getattr(other, each.name)) for each in fields(one))
    return next((name for name, first, second in pairs if not _same(first, second)), None)


def _same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    if isinstance(one, Distribution) and isinstance(other, Distribution):
        return torch.equal(one.probabilities, other.probabilities) and torch.equal(one.values, other.values)
    return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
