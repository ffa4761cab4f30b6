"""How good plans were: what they promised against what was earned, what they imagined against what was seen.

Only what was really done is compared. The action of a plan that was replaced by a newer plan tells nothing of the
older one, so that an observation `h` steps ahead counts only if the first `h` actions were carried out. With
`plan_every: 1` that is one step. Plans are therefore carried out to their ends in episodes of their own, from the same
starts (`open_loop`): errors of all horizons, at the price of states that a policy which looks again would have avoided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from seqrl.acting.policy import Policy
from seqrl.evaluation.plan_results import Agreement, Calibration, PlanQuality, StepErrors
from seqrl.evaluation.rollout import Episodes
from seqrl.evaluation.statistics import bootstrap
from seqrl.models.token import TokenModel
from seqrl.scores import Trace
from seqrl.scores.critic import CriticScore
from seqrl.scores.reward import RewardScore
from seqrl.types import Plan

TAIL = 0.1  # a return counts as known to the end where what was not seen has less than this weight
POINTS = 500  # of a scatter plot


class PlanLog:
    """Keeps what every plan of an evaluation predicted; call it as the `watch` of a rollout.

    Attributes:
        times: steps at which plans were made, rising.
        environments: (b,) who each of them was for.
        scores: (b,) what the planner said of each.
        transitions: (b, H, S) what they imagined, see `seqrl.types.Plan`.
    """

    def __init__(self) -> None:
        self.times: list[int] = []
        self.environments: list[np.ndarray] = []
        self.scores: list[Tensor] = []
        self.transitions: list[Tensor] = []

    def __call__(self, time: int, environments: np.ndarray, plan: Plan) -> None:
        if plan.transitions is not None:
            self.times.append(time)
            self.environments.append(environments)
            self.scores.append(plan.value.float().cpu())
            self.transitions.append(plan.transitions.float().cpu())

    @property
    def imagines(self) -> bool:
        """Whether any plan looked further than its action."""
        return bool(self.times)


def diagnose(
    logs: Mapping[str, tuple[PlanLog, Episodes]], policy: Policy, deviations: Mapping[str, Sequence[float]] | None
) -> PlanQuality:
    """Judge the plans of an evaluation.

    Args:
        logs: `evaluation`, and perhaps `open_loop`: plans and the episodes that they were made in.
        deviations: standard deviations of the data, see `EpisodeStore.standard_deviations`; None where they are not
            known, those of what the evaluation saw then take their place.
    """
    layout = policy.model.layout
    episodes = logs["evaluation"][1]
    if deviations is None:
        real = np.arange(episodes.observations.shape[1] - 1) < episodes.lengths[:, None]
        deviations = {
            "observation": episodes.observations[:, :-1][real].std(0),
            "reward": [episodes.rewards[real].std()],
        }
        unit: Literal["data", "visited"] = "visited"
    else:
        unit = "data"
    scales = {name: np.asarray(each, np.float64) for name, each in deviations.items()}
    errors = {name: _errors(_Table(log, run, policy), scales) for name, (log, run) in logs.items()}
    return PlanQuality(
        policy.strategy.planner.horizon,
        layout.discount,
        layout.termination_penalty,
        unit,
        _calibration(_Table(*logs["evaluation"], policy)),
        errors if layout.stride == 1 else {},
    )


class _Table:
    """All plans of a log, one row per plan and environment, beside what happened.

    Attributes:
        time, environment: (P,) when and for whom.
        executed: (P,) how many of its actions were carried out.
        observations, rewards: (P, H, O) and (P, H) as imagined, the present observation first; NaN past a plan's end.
        to_end: (P,) predicted return, all that follows included; NaN where nothing predicts it.
        seen: (B, T + 1, O) what happened, and `floor`, its round trip through the tokenizer, or None.
        earned: (B, T) rewards in the model's units: with the termination penalty; `replaced`, where it stands.
        shift: what a critic adds to every reward in `to_end`.
    """

    def __init__(self, log: PlanLog, episodes: Episodes, policy: Policy) -> None:
        layout = policy.model.layout
        counts = [len(each) for each in log.environments]
        self.layout, self.episodes = layout, episodes
        self.time = np.repeat(log.times, counts)
        self.environment = np.concatenate(log.environments)
        self.left = episodes.lengths[self.environment] - self.time  # steps until the episode ended
        following = np.repeat([*log.times[1:], np.iinfo(np.int64).max], counts)
        self.depth = np.repeat([len(each[0]) for each in log.transitions], counts)
        values = np.full((len(self.time), self.depth.max(), layout.size), np.nan)
        for rows, transitions in zip(
            np.split(np.arange(len(values)), np.cumsum(counts)), log.transitions, strict=False
        ):
            values[rows, : transitions.shape[1]] = transitions.numpy()
        pairs = zip(log.scores, log.transitions, strict=True)
        self.to_end = np.concatenate([_predicted(scores, transitions, policy) for scores, transitions in pairs])
        self.executed = np.minimum(np.minimum(following - self.time, self.left), self.depth)
        self.observations = values[..., layout.field("observation").slice]
        self.rewards = values[..., layout.field("reward").start] if layout.has("reward") else None
        self.seen = episodes.observations.astype(np.float64)
        self.floor = _round_trip(policy, episodes.observations)
        self.replaced = np.zeros(episodes.rewards.shape, bool)
        if layout.termination_penalty is not None:
            self.replaced[episodes.terminated, episodes.lengths[episodes.terminated] - 1] = True
        self.earned = np.where(self.replaced, layout.termination_penalty or 0.0, episodes.rewards)
        critic = policy.strategy.score.critic if isinstance(policy.strategy.score, CriticScore) else None
        self.shift = 0.0 if critic is None else critic.reward_shift


def _predicted(scores: Tensor, transitions: Tensor, policy: Policy) -> np.ndarray:
    """(b,) return that plans promise, all that follows them included; NaN where nothing predicts it."""
    layout = policy.model.layout
    if isinstance(policy.strategy.score, CriticScore):
        promised = scores
    elif layout.has("reward") and layout.has("value"):  # without the penalties by which a planner may rank
        rewards, values = (transitions[..., layout.field(name).start] for name in ("reward", "value"))
        promised = RewardScore(layout.step_discount)(Trace(rewards, rewards, rewards, values))
    else:
        promised = torch.full_like(scores, torch.nan)
    return promised.numpy()


def _round_trip(policy: Policy, observations: np.ndarray) -> np.ndarray | None:
    """Observations as the tokenizer gives them back; None where imagined ones are not rounded so: they are decoded from
    codes of whole windows, or are sums of differences."""
    model, layout = policy.model, policy.model.layout
    if not isinstance(model, TokenModel) or layout.has("difference"):
        return None
    values = torch.zeros(*observations.shape[:-1], layout.size, device=model.hidden.device)
    part = layout.field("observation").slice
    values[..., part] = torch.from_numpy(observations).to(values)
    with torch.no_grad():
        back = model.tokenizer.decode(model.tokenizer.encode(values))[..., part]
    return back.double().cpu().numpy()


def _calibration(table: _Table) -> Calibration:
    layout, gamma = table.layout, table.layout.discount
    ended = table.episodes.terminated[table.environment]
    steps = table.depth * layout.stride
    horizon = end = None
    if table.rewards is not None:
        powers = layout.step_discount ** np.arange(table.rewards.shape[1])
        predicted = np.nansum(table.rewards * powers, axis=1)
        known = ended | (table.left >= steps)
        horizon = _agreement(table, predicted, _returns(table, table.earned, steps), known)
    known = (ended | (gamma**table.left <= TAIL)) & np.isfinite(table.to_end)
    if known.any():
        end = _agreement(table, table.to_end, _returns(table, table.earned + table.shift, table.left), known)
    return Calibration(horizon, end)


def _returns(table: _Table, rewards: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(P,) discounted sum of (B, T) rewards over so many steps from each plan on, to the episode's end at most."""
    weights = table.layout.discount ** np.arange(rewards.shape[1])
    totals = np.zeros(len(steps))
    for row, count in enumerate(np.minimum(steps, table.left)):
        start = table.time[row]
        totals[row] = rewards[table.environment[row], start : start + count] @ weights[:count]
    return totals


def _agreement(table: _Table, predicted: np.ndarray, realised: np.ndarray, known: np.ndarray) -> Agreement | None:
    """Predictions against what came: means, bias with its interval over episodes, correlation, and some points."""
    if not known.any():
        return None
    gaps = np.zeros(table.episodes.observations.shape[:2])
    counted = np.zeros(gaps.shape, bool)
    gaps[table.environment, table.time] = predicted - realised
    counted[table.environment, table.time] = known
    bias = bootstrap(gaps, counted, samples=2000)
    predicted, realised = predicted[known], realised[known]
    varies = all(each.std() > 1e-6 * np.abs(each).max() for each in (predicted, realised))  # beyond rounding
    shown = np.linspace(0, len(predicted) - 1, min(POINTS, len(predicted))).round().astype(int)
    return Agreement(
        plans=len(predicted),
        predicted_mean=float(predicted.mean()),
        realised_mean=float(realised.mean()),
        bias=bias.mean,
        bias_ci95=bias.interval,
        correlation=float(np.corrcoef(predicted, realised)[0, 1]) if varies else None,
        points=np.stack([predicted, realised], axis=1)[shown].round(4).tolist(),
    )


def _errors(table: _Table, scales: Mapping[str, np.ndarray]) -> list[StepErrors]:
    """Errors by the number of actions that were carried out."""
    found = []
    spread, varying = scales["observation"], scales["observation"] > 0
    for steps in range(1, table.observations.shape[1] + 1):
        rows = np.flatnonzero(table.executed >= steps)
        if not len(rows):
            break
        environment, time = table.environment[rows], table.time[rows]
        entry: dict[str, float | None] = dict.fromkeys(("observation_rmse", "floor", "persistence", "reward_rmse"))
        deeper = rows[table.depth[rows] > steps]  # what follows a plan's last action was not imagined
        if len(deeper) and varying.any():
            places = table.environment[deeper], table.time[deeper] + steps
            real = table.seen[places]
            guesses = {
                "observation_rmse": table.observations[deeper, steps],
                "floor": None if table.floor is None else table.floor[places],
                "persistence": table.seen[places[0], table.time[deeper]],
            }
            for name, guess in guesses.items():
                if guess is not None:
                    entry[name] = _rmse(((guess - real) / np.where(varying, spread, 1.0))[:, varying])
        if table.rewards is not None:
            gaps = table.rewards[rows, steps - 1] - table.earned[environment, time + steps - 1]
            gaps = gaps[~table.replaced[environment, time + steps - 1]]
            entry["reward_rmse"] = _rmse(gaps / (scales["reward"][0] or 1.0)) if len(gaps) else None
        found.append(StepErrors(steps, len(rows), **entry))
    return found


def _rmse(gaps: np.ndarray) -> float:
    return float(np.sqrt(np.mean(gaps**2)))
