"""Several scores at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from seqrl.critics import Critic
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.registry import SCORE, register_score
from seqrl.schema import check_value
from seqrl.scores import Score, Trace


@register_score("sum")
class SumScore(Score):
    """A weighted sum of other scores: what an objective is composed of when acting.

    Args:
        discount: gamma between two transitions, in [0, 1].
        critic: of the same run.
        terms: by a word of the user's, a score's config each, `{name: avoid, weight: 1.0, **options}`; null leaves a
            term out. Weights are finite, 1 where none is given, and may be negative.

    Raises:
        ConfigError: a sum inside the sum, or whatever a term refuses.
    """

    def __init__(
        self,
        discount: float,
        critic: Critic | None = None,
        *,
        terms: Mapping[str, Mapping[str, Any] | None] | None = None,
    ) -> None:
        self.terms: list[tuple[float, Score]] = []
        for label, term in (terms or {}).items():
            if term is None:
                continue
            options = {key: value for key, value in term.items() if key != "weight"}
            if options.get("name") == "sum":
                raise ConfigError(f"score.terms.{label} is a sum itself; give its terms to this one")
            weight = check_value(f"score.terms.{label}.weight", term.get("weight", 1.0), float)
            self.terms.append((weight, SCORE.build(options, discount=discount, critic=critic)))
        parts = [part for _, part in self.terms]
        self.wants_transitions = any(part.wants_transitions for part in parts)
        self.wants_next_observation = any(part.wants_next_observation for part in parts)
        self.wants_goals = any(part.wants_goals for part in parts)
        self.wants_distributions = any(part.wants_distributions for part in parts)
        self.wants_extras = tuple({name: None for part in parts for name in part.wants_extras})
        self.evidence_steps = max((part.evidence_steps for part in parts), default=0)

    def check(self, layout: Layout) -> None:
        if not self.terms:
            raise ConfigError("score=sum has no terms; give one, as in '+score.terms.likely={name: likelihood}'")
        for _, part in self.terms:
            part.check(layout)

    def __call__(self, trace: Trace) -> Tensor:
        total = torch.zeros_like(trace.log_probs[..., 0])
        for weight, part in self.terms:
            total = total + weight * part(trace)
        return total

    def find_lost(self, trace: Trace) -> Tensor | None:
        found = [part.find_lost(trace) for _, part in self.terms]
        told = [lost for lost in found if lost is not None]
        return torch.stack(told).any(0) if told else None
