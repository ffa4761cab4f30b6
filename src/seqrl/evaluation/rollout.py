"""Episodes of a policy in a batch of environments."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from seqrl.acting.policy import Policy
from seqrl.console import show_progress
from seqrl.envs import Environments
from seqrl.envs.mujoco_state import find_mujoco
from seqrl.envs.told import read_told
from seqrl.evaluation.archive import ImaginedPath
from seqrl.evaluation.told_goals import read_success
from seqrl.types import Plan

Watch = Callable[[int, np.ndarray, Plan], None]
"""Is shown a time step, the (b,) numbers of the environments that still run, and the new plan for them."""


Goals = Callable[[Sequence[Mapping[str, Any]]], np.ndarray]
"""Gives (B, G) goals of what B environments told at their starts."""


Ending = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Tells of (B, O) observations, and of (B,) success as it was told with them (see `read_success`), which (B,) episodes
end there."""


@dataclass(frozen=True)
class Episodes:
    """What happened, one row per environment.

    Attributes:
        observations: (B, T + 1, O) float32; after an episode's end its last observation is repeated.
        actions: (B, T, A) as they were carried out; of no meaning after the end.
        rewards: (B, T) float64; 0 after the end.
        lengths: (B,) steps until the end.
        terminated: (B,) bool.
        seconds: time spent in the policy.
        horizons: transitions of every plan that was made, in order; one plan serves all environments of the batch.
        qpos: (T + 1, nq) MuJoCo positions of the first environment, for a video; None where it has none.
        plans: imagined paths, every so many steps.
        seed: of the first environment's start, for a video.
        mujoco: whether MuJoCo simulates the environments.
        success: (B, T) of each step, whether the environment told success; NaN where it said nothing of it.
        outcomes: (B, T, n) of each extra that an action brings about, by name, as environments told it; NaN where one
            did not, and after the end.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    seconds: float
    horizons: list[int]
    qpos: np.ndarray | None = None
    plans: list[ImaginedPath] = field(default_factory=list)
    seed: int | None = None
    outcomes: Mapping[str, np.ndarray] = field(default_factory=dict)
    mujoco: bool = False
    success: np.ndarray | None = None

    @property
    def outcome_sums(self) -> dict[str, np.ndarray]:
        """(B,) of each outcome of one number, its sum over an episode; without those that were not all told."""
        steps = np.arange(self.rewards.shape[1]) < self.lengths[:, None]
        sums = {
            name: np.where(steps, each[..., 0], 0.0).sum(1)
            for name, each in self.outcomes.items()
            if each.shape[-1] == 1
        }
        return {name: each for name, each in sums.items() if np.isfinite(each).all()}

    @property
    def returns(self) -> np.ndarray:
        """(B,) undiscounted."""
        totals: np.ndarray = self.rewards.sum(1)
        return totals

    @property
    def ms_per_action(self) -> float:
        """Wall time of the policy per action, all environments of the batch counted."""
        return 1000.0 * self.seconds / max(1, int(self.lengths.sum()))

    @property
    def horizon_mean(self) -> float:
        """Mean transitions of a plan; below the planner's horizon where a time budget cut plans short."""
        return float(np.mean(self.horizons))


def rollout(
    policy: Policy,
    envs: Environments,
    *,
    seeds: Sequence[int],
    options: Sequence[Mapping[str, Any] | None] | None = None,
    goals: np.ndarray | Goals | None = None,
    keys: np.ndarray | None = None,
    max_steps: int | None = None,
    plans_every: int = 0,
    watch: Watch | None = None,
    until: Ending | None = None,
    description: str | None = None,
) -> Episodes:
    """Run one episode in every environment, to its end or for `max_steps`.

    Args:
        seeds, options: one per environment, for its start; options are handed to its reset (exact start states).
        goals, keys: (B, G) for goal conditions, or what finds them in the infos of the starts; (B,) of random choices.
        plans_every: keep a new plan's imagined path every so many steps or more; 0 keeps none.
        watch: shown every new plan.
        until: ends episodes that the environment lets go on; asked at the start and after every step.
        description: of the progress bar; None shows none.
    """
    observations, infos = envs.reset(seeds, options=options)
    policy.reset(len(envs), goals=goals(infos) if callable(goals) else goals, environments=keys)
    seen, done, rewards, qpos, plans, horizons = [observations], [], [], [_qpos(envs)], [], []
    lengths, terminated = np.zeros(len(envs), np.int64), np.zeros(len(envs), bool)
    told, earned, seconds = _Told(policy, envs, infos), None, 0.0
    _end_episodes(envs, observations, told, until)
    newest: Plan | None = None
    due = 0  # when the next imagined path is kept
    for step in _steps(envs.limit_steps(max_steps), description):
        active = envs.active.copy()
        began = time.perf_counter()
        actions = policy.act(observations, earned, active, told.newest)
        seconds += time.perf_counter() - began
        if policy.plan is not None and policy.plan is not newest:
            newest = policy.plan
            horizons.append(newest.actions.shape[1])
            if watch is not None:
                watch(step, np.flatnonzero(active), newest)
            if plans_every and step >= due:
                plans += _imagined(policy, newest, step, np.flatnonzero(active))
                due = step + plans_every
        observations, earned, ended, _, infos = envs.step(actions)
        told.add(infos)
        lengths += active
        terminated |= ended
        done.append(envs.carried_out(actions))
        seen.append(observations)
        rewards.append(earned)
        qpos.append(_qpos(envs))
        _end_episodes(envs, observations, told, until)
        if not envs.active.any():
            break
    film = _film([q for q in qpos[: lengths[0] + 1] if q is not None])
    states, actions, earnings = (np.stack(each, 1) for each in (seen, done, rewards))
    rest = (film, plans, seeds[0], told.outcomes(), find_mujoco(envs.envs[0]) is not None, told.successes())
    return Episodes(states, actions, earnings, lengths, terminated, seconds, horizons, *rest)


class _Told:
    """What environments tell of the extras of a policy's layout, step by step.

    Attributes:
        newest: (B, n) by name, NaN where one tells nothing.
        success: (B,) of the newest step, see `read_success`; NaN at the start.
    """

    def __init__(self, policy: Policy, envs: Environments, infos: Sequence[Mapping[str, Any]]) -> None:
        layout = policy.model.layout
        self.env_id, self._outcomes = envs.env_id, [extra.name for extra in layout.outcomes]
        self._sizes = {extra.name: extra.size for extra in (*layout.contexts, *layout.outcomes)}
        self._steps: list[dict[str, np.ndarray]] = []
        self._successes: list[np.ndarray] = []
        self.newest = read_told(infos, self._sizes, self.env_id)
        self.success = np.full(len(infos), np.nan)

    def add(self, infos: Sequence[Mapping[str, Any]]) -> None:
        self.newest = read_told(infos, self._sizes, self.env_id)
        self._steps.append(self.newest)
        self.success = read_success(infos)
        self._successes.append(self.success)

    def successes(self) -> np.ndarray:
        """(B, T)."""
        return np.stack(self._successes, 1)

    def outcomes(self) -> dict[str, np.ndarray]:
        """(B, T, n) by name."""
        return {name: np.stack([each[name] for each in self._steps], 1) for name in self._outcomes}


def _end_episodes(envs: Environments, observations: np.ndarray, told: _Told, until: Ending | None) -> None:
    if until is not None:
        envs.active &= ~until(observations, told.success)


def _film(positions: Sequence[np.ndarray]) -> np.ndarray | None:
    return np.stack(positions) if positions else None


def _imagined(policy: Policy, plan: Plan, step: int, environments: np.ndarray) -> list[ImaginedPath]:
    if plan.transitions is None:
        return []
    values = plan.transitions[..., policy.model.layout.field("observation").slice]
    return [ImaginedPath(step, environments, values.float().cpu().numpy())]


def _qpos(envs: Environments) -> np.ndarray | None:
    env = envs.envs[0]
    if not hasattr(env.unwrapped, "data"):  # as of mazes: their observation says it all
        return None
    return None if (data := find_mujoco(env)) is None else np.array(data.qpos)


def _steps(limit: int, description: str | None) -> Iterator[int]:
    """The steps of a rollout, counted by a bar where there is something to call it."""
    if description is None:
        yield from range(limit)
        return
    with show_progress(description, limit, stays=False) as advance:
        for step in range(limit):
            yield step
            advance()
