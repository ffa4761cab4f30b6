"""Evaluations of a checkpoint: a results row each, and the table of all."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from seqrl.acting.policy import Policy
from seqrl.acting.strategy import Strategy
from seqrl.checkpoints import loading as checkpoints
from seqrl.checkpoints.loaded import Loaded
from seqrl.config import EvaluationConfig, RunConfig
from seqrl.console import say
from seqrl.critics import Critic, build_critic
from seqrl.data.episodes import EpisodeStore
from seqrl.data.landmarks import LandmarkGraph
from seqrl.data.summary import DataSizes, DataSummary
from seqrl.errors import ConfigError
from seqrl.evaluation.archive import (
    Evaluation,
    forget_evaluation,
    is_finished,
    label_of,
    place_evaluation,
    read_evaluation,
    write_evaluation,
    write_plan_quality,
)
from seqrl.evaluation.baseline import compare_rows
from seqrl.evaluation.hints import name_for_training, telling_plugins
from seqrl.evaluation.map_landmarks import graph_of_map
from seqrl.evaluation.placement import device_of, policy_of
from seqrl.evaluation.plan_quality import PlanLog, diagnose
from seqrl.evaluation.protocol import EpisodeResults, check_environment, check_protocol, run_episodes
from seqrl.evaluation.recording import write_plans, write_trajectories
from seqrl.evaluation.row_progress import RowProgress
from seqrl.evaluation.run_table import update_run_table
from seqrl.evaluation.summarize import summarize
from seqrl.evaluation.tables import print_table
from seqrl.evaluation.training_data import load_training_data
from seqrl.evaluation.unfinished import tell_unfinished
from seqrl.evaluation.video import VIDEO, film_episodes
from seqrl.files import fingerprint, fingerprint_files
from seqrl.models import Model
from seqrl.models.building import build_model
from seqrl.runs.code import hash_plugins
from seqrl.runs.finding import is_run
from seqrl.worlds.environments import maze_of


def evaluate_all(
    configs: Sequence[EvaluationConfig], checkpoint: Path, folder: Path, *, baseline: str | None = None
) -> list[Evaluation]:
    """Run evaluations of one checkpoint, write their files, print their table.

    Args:
        configs: with a `label` each.
        folder: of the run; results go to `folder/evaluations`, the table of all that lie there to `folder`.
        baseline: label of the row that the others are compared with, start by start.

    Raises:
        seqrl.errors.SeqrlError: a checkpoint, environment or strategy that does not fit.
    """
    if not configs:
        return []
    loaded = checkpoints.load(checkpoint)
    critic_file = checkpoints.critic_file(checkpoint)
    tell_unfinished(loaded, checkpoint, critic_file)
    critic, trained = None, {"critic": None}
    if critic_file is not None:
        critic, trained = checkpoints.load_critic(critic_file), checkpoints.critic_settings(critic_file)
    loaded = replace(loaded, config={**loaded.config, **trained})
    files = [checkpoint, *([critic_file] if critic_file else [])]
    digest = mapped = fingerprint_files(*files)
    if loaded.model.landmarks is not None:
        mapped = fingerprint_files(*files, checkpoints.landmarks_file(checkpoint))
    with telling_plugins(loaded.config):
        code = hash_plugins(loaded.config, [])  # of the model
    places = []
    for each in configs:
        own = mapped if each.condition["name"] == "landmarks" else digest
        places.append(place_evaluation(each, fingerprint([own, code]) if code else own, folder))
    progress = RowProgress(configs, places)
    try:
        done = [evaluate(each, loaded, place, critic) for each, place in progress]
    except KeyboardInterrupt:
        progress.tell_left()
        raise
    rows, comparisons = [each.row for each in done], compare_rows(done, baseline)
    dataset = loaded.dataset
    print_table(rows, comparisons, dataset)
    inside = [each for each in done if each.folder.parent.parent == folder]
    if inside and (len(done) > 1 or is_run(folder)):
        for path in update_run_table(folder, dataset, baseline):
            say(f"written: {path}")
    for evaluation in done:
        say(f"written: {evaluation.folder}")
    return done


def evaluate(config: EvaluationConfig, loaded: Loaded, folder: Path, critic: Critic | None = None) -> Evaluation:
    """Run one evaluation, or read it back if the same one was finished before.

    Only a folder named after the settings tells that it was the same; one of the user's choice is written anew.

    Raises:
        ConfigError: settings that do not fit the environment or the model.
        DataError: the finished evaluation cannot be read.
    """
    if config.output is None and is_finished(folder):
        return read_evaluation(folder)
    dataset = loaded.dataset
    env_id = config.env_id or dataset.env_id
    if env_id is None:
        raise ConfigError(f"the data {dataset.name!r} names no environment; set env_id=... to a Gymnasium id")
    policy = policy_of(_with_landmarks(loaded.model, config, env_id), config, critic)
    if note := _far_target(policy.strategy.condition.target_return, dataset):
        say(f"{label_of(config)}: {note}")
    check_protocol(config, policy.strategy, loaded.model.layout, env_id)  # what is refused leaves no folder
    folder.mkdir(parents=True, exist_ok=True)  # before the episodes, so that a wrong place is told at once
    log = PlanLog() if config.diagnostics or config.plans else None
    store = None if config.near is None else load_training_data(loaded, "near goals are drawn from the data")
    outcome = run_episodes(config, policy, env_id, watch=log, store=store)
    held = policy.strategy.steps_held(config.plan_every, policy.model.layout)
    row = summarize(config, loaded, env_id, outcome, steps_held=held)
    evaluation = Evaluation(folder, row, outcome.results, outcome.episodes.plans)
    forget_evaluation(folder)  # `output` may be that of another one
    if config.video:
        film = film_episodes(folder / VIDEO, env_id, outcome, strategy=label_of(config), plugins=config.plugins)
        say(f"video: {film}")
    if config.trajectories and outcome.episodes.lengths.any():  # all may begin where they end
        write_trajectories(folder, outcome.episodes, env_id, seed=config.seed)
    if log is not None and config.plans:
        write_plans(folder, log, policy.model.layout)
    if log is not None and config.diagnostics:
        _diagnose(log, config, policy, critic, evaluation, outcome, dataset.standard_deviations, store)
    write_evaluation(evaluation)
    return evaluation


def _with_landmarks(model: Model, config: EvaluationConfig, env_id: str) -> Model:
    """The model, with the landmarks of the map instead of its own where they are asked for."""
    if not config.map_landmarks or model.landmarks is None:
        return model
    other = copy.copy(model)
    other.landmarks = graph_of_map(maze_of(env_id), model.landmarks)
    return other


def _far_target(target: float | None, dataset: DataSummary) -> str | None:
    """What to say of a desired return that is further above the best of the data than that is above their mean."""
    best, mean = dataset.behaviour_return_max, dataset.behaviour_return_mean
    if target is None or best is None or mean is None or target - best <= best - mean:
        return None
    return (
        f"condition.target={target:g} is far above the data, whose best episode earned {best:g} and whose mean "
        f"{mean:g}; the model has seen no such return"
    )


def check_evaluation(config: EvaluationConfig, run: RunConfig, store: EpisodeStore) -> None:
    """Refuse an evaluation that would fail after the training, before it.

    Args:
        config: with a `label`.
        store: the episodes of the run.

    Raises:
        ConfigError: no environment, a strategy that the layout cannot serve, a context beyond the window, or a model
            that cannot be built, or an environment in which no episode can be run.
    """
    sizes = DataSizes.of(store)
    with torch.device("meta"):  # without memory for its weights
        model = build_model(run, sizes)
    model.landmarks = None if run.landmarks is None else LandmarkGraph.promise()
    layout = model.layout
    try:
        device_of(config.device)
        strategy = Strategy.build(
            layout,
            planner=config.planner,
            condition=config.condition,
            score=config.score,
            critic=build_critic(run, sizes),
        )
        strategy.check(model, plan_every=config.plan_every)
        env_id = config.env_id or store.attributes.get("env_id")
        if env_id is None:
            raise ConfigError(
                f"the data {store.attributes.get('name', 'arrays')!r} names no environment; set "
                "evaluation.settings.env_id=... to a Gymnasium id, or evaluation=none to train only"
            )
        check_protocol(config, strategy, layout, env_id)
        check_environment(config, layout, env_id)
    except ConfigError as error:
        raise ConfigError(f"row {config.label!r} of the evaluation: {name_for_training(str(error))}") from error
    if config.score["name"] == "critic" and run.window.terminate_truncated and not store.terminated.all():
        say(
            f"{config.label}: score=critic counts nothing past an imagined end, and this model learns ends at time "
            "limits as well, which its critic does not; train with window.terminate_truncated=false"
        )


def _diagnose(
    log: PlanLog,
    config: EvaluationConfig,
    policy: Policy,
    critic: Critic | None,
    evaluation: Evaluation,
    outcome: EpisodeResults,
    deviations: Mapping[str, Sequence[float]] | None,
    store: EpisodeStore | None,
) -> None:
    """Write how good the plans were, after episodes in which they are carried out to their ends."""
    if not log.imagines:
        say(f"no diagnostics of {evaluation.row.strategy}: planner={config.planner['name']} imagines nothing")
        return
    logs = {"evaluation": (log, outcome.episodes)}
    if policy.strategy.planner.horizon > config.plan_every and policy.model.layout.stride == 1:
        whole = replace(config, plan_every=policy.strategy.planner.horizon)
        obedient, further = policy_of(policy.model, whole, critic), PlanLog()
        again = run_episodes(whole, obedient, evaluation.row.env_id, watch=further, store=store)
        logs["open_loop"] = (further, again.episodes)
    write_plan_quality(evaluation, diagnose(logs, policy, deviations))
