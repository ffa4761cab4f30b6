"""The search of a decoding strategy (slot `planner`)."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any

from seqrl.decoding.noise import Noise
from seqrl.errors import ConfigError, PluginError
from seqrl.models import Model
from seqrl.models.token import TokenModel
from seqrl.registry import PLANNER, SCORE
from seqrl.scores import Score
from seqrl.types import Plan


class Planner(ABC):
    """Proposes actions for a batch of environments; holds settings, never state.

    What its options mean is its own business: nothing but these attributes is looked at from outside.

    Attributes:
        horizon: H, transitions of a plan: how many of its actions may be carried out before the next plan.
        serves: the class of models that it can decode, or several.
        asks_model: whether it looks at the sequence model at all; baselines do not.
        shows: what its traces hold for scores that want it (see `seqrl.scores.Score`): any of `transitions`,
            `next_observation`, `goals`, `distributions`, `extras`, `evidence`; None for planners that rank nothing,
            whatever the score.
        wants_target: whether it looks at the goal in the data's units, as `history.target`.
        sizes: numbers of an observation and of an action in the environment that it was written for, if it serves no
            other; its contracts are run with them.
    """

    horizon: int
    serves: type[Model] | tuple[type[Model], ...] = TokenModel
    asks_model: bool = True
    shows: frozenset[str] | None = frozenset()
    wants_target: bool = False
    sizes: tuple[int, int] | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        kinds = cls.serves if isinstance(cls.serves, tuple) else (cls.serves,)
        if any(isinstance(kind, str) for kind in kinds) or "layout" in inspect.signature(cls.check).parameters:
            raise PluginError(
                f"planner class {cls.__qualname__} is written for an older seqrl; give it check(self, model, score), "
                "where model.layout is the layout, and, instead of words, a class of models as in serves = TokenModel"
            )

    @abstractmethod
    def check(self, model: Any, score: Score) -> None:
        """Refuse a model, a score or an option that the search cannot work with.

        Args:
            model: of a class that it serves, trained or not.
            score: what will rank its candidates.

        Raises:
            seqrl.errors.ConfigError: says what is missing and the override that adds it.
        """

    def check_score(self, score: Score) -> None:
        """Refuse a score that wants to see what this planner does not show.

        Raises:
            seqrl.errors.ConfigError: names it.
        """
        wanted = {
            "transitions": score.wants_transitions,
            "next_observation": score.wants_next_observation,
            "goals": score.wants_goals,
            "distributions": score.wants_distributions,
            "extras": bool(score.wants_extras),
            "evidence": score.evidence_steps > 0,
        }
        missing = [
            name for name, wants in wanted.items() if wants and self.shows is not None and name not in self.shows
        ]
        if missing:
            planner, name = PLANNER.name_of(self), SCORE.name_of(score)
            parts = " and ".join(each.replace("_", " ") for each in missing)
            raise ConfigError(
                f"score={name} looks at {parts} of imagined futures, "
                f"which planner={planner} does not show; use planner=beam or planner=rollouts with a model of tokens, "
                "or another score"
            )

    @abstractmethod
    def plan(self, model: Any, history: Any, score: Score, noise: Noise) -> Plan:
        """Search from a history.

        Args:
            model: of a class that it serves, in eval mode.
            history: of that class of model, B rows; it carries the condition.
            score: ranks candidates.
            noise: every random choice comes from it, addressed by beam and draw, so that a plan depends neither on
                the other rows nor on the cache mode.
        """
