"""The results row of an evaluation, from its settings, its model and its episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version

import numpy as np
import torch

from seqrl.checkpoints.loaded import Loaded
from seqrl.config import EvaluationConfig
from seqrl.d4rl.reference import Reference, reference, reference_note
from seqrl.evaluation.archive import OUTCOME, label_of
from seqrl.evaluation.placement import device_of
from seqrl.evaluation.protocol import EpisodeResults
from seqrl.evaluation.rows import Component, GoalResults, GoalShare, ResultsRow, Starts
from seqrl.evaluation.statistics import bootstrap, success_rate
from seqrl.models.autoregressive import AutoregressiveModel
from seqrl.runs.old_names import training_digest
from seqrl.worlds.environments import is_maze, maze_of


def summarize(
    config: EvaluationConfig, loaded: Loaded, env_id: str, outcome: EpisodeResults, *, steps_held: int
) -> ResultsRow:
    """Summarize the episodes of one evaluation; rates and scores are in percent, times in steps or milliseconds.

    Args:
        loaded: the model that acted.
        env_id: of the environment that it acted in.
        steps_held: environment steps between two plans.
    """
    model, returns, dataset = loaded.model, outcome.results["returns"], loaded.dataset
    outcomes = {
        name.removeprefix(OUTCOME): bootstrap(each)
        for name, each in outcome.results.items()
        if name.startswith(OUTCOME)
    }
    bounds, known = bootstrap(returns).interval, _reference(config, env_id)
    return ResultsRow(
        strategy=label_of(config),
        dataset=dataset.name,
        env_id=env_id,
        planner=Component.from_config(config.planner),
        condition=Component.from_config(config.condition),
        score=Component.from_config(config.score),
        model=model.made_of,
        discrete_actions="action" in model.layout.categories,
        cache=config.planner.get("cache") if isinstance(model, AutoregressiveModel) else None,
        plan_every=steps_held,
        time_budget_ms=config.planner.get("time_budget_ms"),
        horizon_mean=outcome.episodes.horizon_mean,
        num_episodes=int(returns.size),
        return_mean=float(returns.mean()),
        return_std=float(returns.std()),
        return_ci95=bounds,
        length_mean=float(outcome.results["lengths"].mean()),
        score_mean=None if known is None else known.score(float(returns.mean())),
        score_ci95=None if known is None or bounds is None else [known.score(bound) for bound in bounds],
        score_note=None if known is None else reference_note(env_id, dataset),
        ms_per_action=outcome.episodes.ms_per_action,
        environments_per_batch=int(returns.size),
        device=str(device_of(config.device)),
        precision=config.precision,
        threads=torch.get_num_threads(),
        behaviour_return_mean=dataset.behaviour_return_mean,
        behaviour_score=dataset.behaviour_score,
        seed=config.seed,
        starts=_starts(config),
        shuffle_goals=config.shuffle_goals,
        min_cells=config.min_cells,
        training=training_digest(loaded.config),
        training_seed=loaded.seed,
        training_steps=loaded.step,
        versions={package: version(package) for package in _packages(outcome.episodes.mujoco)},
        outcomes={name: each.mean for name, each in outcomes.items()} or None,
        outcome_intervals={n: each.interval for n, each in outcomes.items() if each.interval is not None} or None,
        goals=_summarize_goals(outcome.results, config, env_id) if "success" in outcome.results else None,
        end_at_goal=config.end_at_goal,
    )


def _packages(mujoco: bool) -> tuple[str, ...]:
    return ("seqrl", "torch", "gymnasium", *(["mujoco"] if mujoco else []))


def _starts(config: EvaluationConfig) -> Starts:
    plain = config.to_dict()
    return Starts(**{field.name: plain[field.name] for field in fields(Starts)})


def _reference(config: EvaluationConfig, env_id: str) -> Reference | None:
    """The references are for the environment's own starts, task and time limit."""
    asked = (config.start_cells, config.goals, config.tasks, config.near, config.max_steps)
    own_task = all(each is None for each in asked) and not config.end_at_goal
    return reference(env_id) if own_task else None


def _summarize_goals(results: Mapping[str, np.ndarray], config: EvaluationConfig, env_id: str) -> GoalResults:
    counted, success = results["counted"], results["success"]
    drives = results["returns"].shape[1]
    rate = success_rate(success, counted, drives=drives)
    reached = counted & success
    shares = [
        GoalShare(goal.tolist(), int(starts.sum()), share.mean, share.interval)
        for goal, starts, share in zip(
            results["goals"], counted.T, map(success_rate, success.T, counted.T), strict=False
        )
    ]
    clear = success_rate(results["clear"], counted, drives=drives) if "clear" in results else None
    return GoalResults(
        success_rate=rate.mean,
        success_ci95=rate.interval,
        success_by_goal=shares,
        counted_episodes=int(counted.sum()),
        steps_to_goal_median=float(np.median(results["steps"][reached])) if reached.any() else None,
        time_at_goal=float(results["time_at_goal"][reached].mean()) if reached.any() else None,
        regions=None if config.regions is None else [list(region) for region in config.regions],
        clear_success_rate=None if clear is None else clear.mean,
        clear_success_ci95=None if clear is None else clear.interval,
        entered_rate=None if clear is None else 100.0 * float(results["entered"][counted].mean()),
        radius=maze_of(env_id).radius if is_maze(env_id) else None,
        told=not is_maze(env_id),
        map_landmarks=config.map_landmarks,
    )
