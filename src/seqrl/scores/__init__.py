"""How good an imagined sequence is (slot `score`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from seqrl.errors import ConfigError
from seqrl.layout import Layout


@dataclass(frozen=True)
class Distribution:
    """What a model believes of numbers, each by its own weights over the same values.

    Attributes:
        probabilities: (..., V), each row sums to 1.
        values: (V,) in the data's units, in any order.
    """

    probabilities: Tensor
    values: Tensor

    def mean(self) -> Tensor:
        """(...) expectation."""
        return self.probabilities @ self.values

    def find_tail_mean(self, share: float) -> Tensor:
        """(...) mean over the worst `share` of the mass, in (0, 1]: the conditional value at risk of rewards.

        A value that the border of the share cuts counts with the part inside, so that share 1 gives the mean.

        Reference: Rockafellar and Uryasev 2002, "Conditional value-at-risk for general loss distributions",
        proposition 8.
        """
        values, order = self.values.sort()
        mass = self.probabilities[..., order]
        before = mass.cumsum(-1) - mass
        inside = (share - before).clamp(min=0).minimum(mass)
        return inside @ values / share


@dataclass(frozen=True)
class Trace:
    """What a search has imagined so far, h transitions deep; leading dimensions are environments and beams.

    Attributes:
        action_log_probs: (..., h) log-likelihood of each transition's action tokens, in nats, before any filter.
        log_probs: (..., h) log-likelihood of all tokens that were decoded for the transition.
        rewards: (..., h) expected reward, in the data's units; None where the layout has no reward field.
        values: (..., h) expected return-to-go after the transition; None where the layout has no value field.
        observations, actions: (..., h, O) and (..., h, A) in the data's units, as their tokens decode; None for scores
            that do not want transitions.
        next_observation: (..., O) what follows the last transition; None for scores that do not want it.
        target: (..., G) the episode's goal in the data's units; None for scores that do not want goals.
        goal_evidence: (..., n) how much likelier the actions of each of the last n transitions are on the way to the
            goal than without one: `log P(a | goal) - log P(a | no goal)`, in nats; None for scores with
            `evidence_steps` 0.
        reward_distributions, value_distributions: of each transition, (..., h) rows of weights, whose means are
            `rewards` and `values` where these are expectations; None for scores that do not want distributions, and
            where the layout has no such field.
        over: (..., h + 1) bool, whether the imagined episode had ended before each transition, and after the last; the
            last entry means something only beside `next_observation`. What stands there is no state. None for scores
            that do not want transitions, and where a search cannot tell.
        extras: (..., h, n) of each extra that the score wants, by name, in the data's units: of outcomes the
            expectation, of contexts and of choices what their tokens decode to.
    """

    action_log_probs: Tensor
    log_probs: Tensor
    rewards: Tensor | None
    values: Tensor | None
    observations: Tensor | None = None
    actions: Tensor | None = None
    next_observation: Tensor | None = None
    over: Tensor | None = None
    target: Tensor | None = None
    goal_evidence: Tensor | None = None
    reward_distributions: Distribution | None = None
    value_distributions: Distribution | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)


class Score(ABC):
    """Ranks partial plans; higher is better.

    Attributes:
        wants_transitions: whether traces must hold `observations` and `actions`.
        wants_next_observation: whether traces must hold `next_observation`, which a search decodes for every candidate
            then, and not for its survivors alone.
        wants_goals: whether episodes must have goals, which traces then hold as `target`.
        wants_distributions: whether traces must hold `reward_distributions` and `value_distributions`, as far as the
            layout has the fields.
        wants_extras: which extras traces must hold; their fields are checked by `check`.
        evidence_steps: n, of how many of the last transitions traces must hold `goal_evidence`; 0 for none.
        sizes: numbers of an observation and of an action in the environment that it was written for, if it serves no
            other; its contracts are run with them.
    """

    wants_transitions: bool = False
    wants_next_observation: bool = False
    wants_goals: bool = False
    wants_distributions: bool = False
    wants_extras: tuple[str, ...] = ()
    evidence_steps: int = 0
    sizes: tuple[int, int] | None = None

    @abstractmethod
    def check(self, layout: Layout) -> None:
        """Refuse a layout that lacks what the score needs.

        Raises:
            seqrl.errors.ConfigError: names the missing field and the override that adds it.
        """

    @abstractmethod
    def __call__(self, trace: Trace) -> Tensor:
        """(...) score of each partial plan, from all of its transitions so far."""

    def find_lost(self, trace: Trace) -> Tensor | None:
        """(...) bool, which partial plans nothing that follows can save; None where this score cannot tell.

        A planner may put others in their place before they are whole.
        """
        return None


def check_goal(layout: Layout, dims: list[int], what: str) -> None:
    """Refuse a layout whose goals are not made of the dimensions in which a score measures the distance to them.

    Raises:
        ConfigError: no goal, or another one.
    """
    if layout.goal is None or list(layout.goal.dims) != dims:
        has = "none" if layout.goal is None else f"one of dimensions {list(layout.goal.dims)}"
        raise ConfigError(
            f"{what} measures the distance to a goal in dimensions {dims} of the observation, and the checkpoint's "
            f"layout has {has}; train with layout=tt_goal layout.goal.dims={dims}"
        )
