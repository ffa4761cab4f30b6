"""Which part of a search fails: the same search with learnt and true parts, one after the other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Literal, get_args

import numpy as np

from seqrl.evaluation.candidate_ranking import Ranking
from seqrl.evaluation.statistics import bootstrap, paired_difference, success_rate
from seqrl.evaluation.transition_errors import TransitionErrors

DynamicsName = Literal["model", "simulator"]
ValueName = Literal["learnt", "true"]
CandidatesName = Literal["model", "data", "uniform"]
PartName = Literal["dynamics", "value", "candidates"]


@dataclass(frozen=True)
class Swap:
    """The parts that one rung is made of.

    Attributes:
        dynamics: what follows an action: as the model imagines it, or as the simulator has it.
        value: what a state is worth: as it was learnt, or as it is.
        candidates: which actions are tried: the model's (or those near the policy, see `LadderSettings.actor_noise`),
            those that the data took nearby, or any.
    """

    dynamics: DynamicsName = "model"
    value: ValueName = "learnt"
    candidates: CandidatesName = "model"

    @property
    def name(self) -> str:
        return f"{self.dynamics}, {self.value} value, {self.candidates} candidates"


LEARNT = Swap()
ALL_SWAPS = [Swap(*parts) for parts in product(*map(get_args, (DynamicsName, ValueName, CandidatesName)))]
SHORT_SWAPS = [
    LEARNT,
    Swap(dynamics="simulator"),
    Swap(value="true"),
    Swap(candidates="data"),
    Swap(candidates="uniform"),
    Swap("model", "true", "data"),
    Swap("simulator", "learnt", "data"),
    Swap("simulator", "true", "model"),
    Swap("simulator", "true", "data"),
]
"""Each part alone, all parts, and all but one."""


@dataclass(frozen=True)
class Rung:
    """The episodes of one search, all rungs from the same starts.

    Attributes:
        name: of the parts, or of a strategy that stands beside the ladder.
        swap: its parts; None for a strategy that stands beside it.
        returns: of each start, undiscounted.
        success: of each start, whether the goal was reached; None where there is no goal.
        return_mean, return_ci95: over starts; no interval of a single start.
        cpu_seconds: of the process.
        success_rate, success_ci95: in percent, with Wilson's interval; None where there is no goal.
    """

    name: str
    swap: Swap | None
    returns: list[float]
    success: list[bool] | None
    return_mean: float
    return_ci95: list[float] | None
    cpu_seconds: float
    success_rate: float | None = None
    success_ci95: list[float] | None = None

    @classmethod
    def of(
        cls, name: str, swap: Swap | None, returns: np.ndarray, success: np.ndarray | None, cpu_seconds: float
    ) -> Rung:
        """The rung with its mean and interval."""
        estimate = bootstrap(returns)
        reached = None if success is None else [bool(each) for each in success]
        rate = None if success is None else success_rate(success)
        return cls(
            name,
            swap,
            returns.tolist(),
            reached,
            estimate.mean,
            estimate.interval,
            cpu_seconds,
            None if rate is None else rate.mean,
            None if rate is None else rate.interval,
        )


@dataclass(frozen=True)
class Gain:
    """What a true part changes.

    Attributes:
        part: which.
        replaced_by: what stood in its place, such as `simulator`.
        beside: `learnt`, where all other parts stayed learnt; `true`, where all others were true as well.
        difference, ci95: of the mean return, paired over starts.
    """

    part: PartName
    replaced_by: str
    beside: ValueName
    difference: float
    ci95: list[float] | None

    @property
    def is_sure(self) -> bool:
        """Whether it is better beyond the starts that were drawn."""
        return self.ci95 is not None and self.ci95[0] > 0


@dataclass(frozen=True)
class Verdict:
    """What a ladder says.

    Attributes:
        weakest: the part whose true version gains most, or None where none surely gains anything.
        gains: of each part, alone and beside true others.
        sentence: the same in words.
    """

    weakest: PartName | None
    gains: list[Gain]
    sentence: str


@dataclass(frozen=True)
class LadderSettings:
    """How a ladder is climbed.

    Attributes:
        episodes: starts of each rung, paired.
        max_steps: of an episode; None for the environment's own limit.
        seed: of starts and draws.
        start_cells: maze cells that episodes start in, `episodes` in each; None for the environment's own starts.
        beam_width, n_expand, horizon: of the search, as in `planner=beam`.
        use: how a critic rates, `q` or `v`, as in `score=critic`.
        tail_mass: of the model's candidates, as `planner.cdf_act`.
        search: `beam`, or `rollouts` of the critic's policy (without a critic, of greedy imitation): `beam_width *
            n_expand` candidates for the first transition, then the policy.
        actor_noise: the learnt candidates are actions of the critic's policy with so much noise, as
            `planner.actor_noise` of a search with `planner.actor_share=1`; None for the model's own.
        outside_cost: of states that the model imagines outside of the range of the data, as `planner.outside_cost`; 0
            costs nothing, nor does anything with the simulator's dynamics.
        plan_every: environment steps between two plans; more than one transition holds are left to searches alone.
        value_transitions: how far the true value is followed where it is a policy's.
        short: leave out what the verdict does not need.
    """

    episodes: int = 10
    max_steps: int | None = None
    seed: int = 0
    start_cells: tuple[tuple[int, int], ...] | None = None
    beam_width: int = 8
    n_expand: int = 2
    horizon: int = 5
    use: Literal["q", "v"] = "v"
    tail_mass: float | None = None
    search: Literal["beam", "rollouts"] = "beam"
    actor_noise: float | None = None
    outside_cost: float = 0.0
    plan_every: int = 1
    value_transitions: int = 25
    short: bool = False


@dataclass(frozen=True)
class Ladder:
    """A whole diagnosis.

    Attributes:
        checkpoint: what was diagnosed.
        env_id: where.
        training_seed: of the run.
        learnt_value, true_value: what these were, in words.
        settings: see there.
        rungs: the swapped searches.
        beside: the run's own search and the policy of its critic, or its likeliest action.
        verdict: what follows.
        ranking: how the model orders the first actions of the search with all parts learnt.
        errors: of what it imagines those actions to lead to; None where there is no observation to compare.
    """

    checkpoint: str
    env_id: str
    training_seed: int
    learnt_value: str
    true_value: str
    settings: LadderSettings
    rungs: list[Rung]
    beside: list[Rung]
    verdict: Verdict
    ranking: Ranking
    errors: TransitionErrors | None

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


_TRUE: dict[PartName, tuple[str, ...]] = {
    "dynamics": ("simulator",),
    "value": ("true",),
    "candidates": ("data", "uniform"),
}
_WORDS: dict[PartName, str] = {
    "dynamics": "what the model imagines to follow",
    "value": "the learnt value",
    "candidates": "the choice of candidates",
}


def judge_rungs(rungs: Sequence[Rung]) -> Verdict:
    """Name the weakest part: the one whose true version gains most alone, else beside true others.

    Args:
        rungs: `SHORT_SWAPS` at least, from the same starts.
    """
    found = {rung.swap: rung for rung in rungs if rung.swap is not None}
    base, best = found[LEARNT], found[Swap("simulator", "true", "data")]
    gains = [_gain(found, part, "learnt") for part in _TRUE] + [_gain(found, part, "true") for part in _TRUE]
    for beside in get_args(ValueName):
        sure = [gain for gain in gains if gain.beside == beside and gain.is_sure]
        if sure:
            winner = max(sure, key=lambda gain: gain.difference)
            return Verdict(winner.part, gains, _sentence(winner, gains, base, best))
    told = ", ".join(f"{gain.replaced_by} {gain.difference:+.1f}" for gain in gains if gain.beside == "learnt")
    sentence = (
        f"No part is surely the weakest: from a return of {base.return_mean:.1f}, no true part gains more than the "
        f"starts differ ({told}; all true {best.return_mean - base.return_mean:+.1f})."
    )
    return Verdict(None, gains, sentence)


def _gain(found: Mapping[Swap, Rung], part: PartName, beside: ValueName) -> Gain:
    """What the true version of a part changes; of the candidates, the better of the two others."""
    others = LEARNT if beside == "learnt" else Swap("simulator", "true", "data")
    present = LEARNT.__dict__ | {name: getattr(others, name) for name in _TRUE if name != part}
    without = found[Swap(**present)]
    choices = [Swap(**{**present, part: name}) for name in _TRUE[part]]
    swap = max((each for each in choices if each in found), key=lambda each: found[each].return_mean)
    difference = paired_difference(np.array(found[swap].returns), np.array(without.returns))
    return Gain(part, getattr(swap, part), beside, difference.mean, difference.interval)


def _sentence(winner: Gain, gains: Sequence[Gain], base: Rung, best: Rung) -> str:
    assert winner.ci95 is not None
    others = [gain for gain in gains if gain.beside == winner.beside and gain.part != winner.part]
    told = " and ".join(f"{gain.replaced_by} {gain.part} {gain.difference:+.1f}" for gain in others)
    where = "" if winner.beside == "learnt" else ", once the other parts are true"
    return (
        f"The weakest part is {_WORDS[winner.part]}: {winner.replaced_by} {winner.part} in its place gains "
        f"{winner.difference:.1f} [{winner.ci95[0]:.1f}, {winner.ci95[1]:.1f}] of return{where}, against {told}; all "
        f"learnt earns {base.return_mean:.1f}, all true {best.return_mean:.1f}."
    )
