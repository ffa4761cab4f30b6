"""Evaluations of a checkpoint: a results row each, and the table of all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqrl.acting.policy import Policy, build_strategy
from seqrl.checkpoints import loading as checkpoints
from seqrl.checkpoints.loading import Loaded
from seqrl.console import say
from seqrl.critics import Critic, build_critic
from seqrl.d4rl.reference import reference, reference_note
from seqrl.data.episodes import EpisodeStore
from seqrl.envs import check_spaces, make_environments
from seqrl.errors import CheckpointError, ConfigError
from seqrl.evaluation.diagnostics import DIAGNOSTICS, PlanLog, diagnose
from seqrl.evaluation.goals import is_maze, maze_of
from seqrl.evaluation.placement import device_of, policy_of, precision_of
from seqrl.evaluation.protocol import EpisodeResults, check_protocol, run_episodes
from seqrl.evaluation.report import print_table, write_tables
from seqrl.evaluation.rollout import ImaginedPath
from seqrl.evaluation.statistics import bootstrap, paired_difference
from seqrl.evaluation.video import write_maze_video, write_rollout_video
from seqrl.files import fingerprint, fingerprint_files, write_file, write_text
from seqrl.plugins import identities
from seqrl.runs.folder import training_digest

FRAME_STEPS = 4  # environment steps between two frames of a video
ROW_FORMAT = 3  # raised when rows say more than before: an evaluation that was finished earlier is then run again


@dataclass(frozen=True)
class Evaluation:
    """One finished evaluation.

    Attributes:
        row: what stands in the table and in results.json.
        results: per-episode results, see `seqrl.evaluation.protocol.EpisodeResults`.
        plans: imagined paths (maze environments), for the pictures.
        folder: where the files are.
    """

    row: dict[str, Any]
    results: dict[str, np.ndarray]
    plans: list[ImaginedPath]
    folder: Path


def checkpoint_file(path: Path) -> Path:
    """The checkpoint that a user means: a file, a run folder, or a run's `model` folder.

    Raises:
        CheckpointError: there is none.
    """
    for candidate in (path, path / "model" / "last.ckpt", path / "last.ckpt"):
        if candidate.is_file():
            return candidate
    raise CheckpointError(f"no checkpoint at {str(path)!r}; give a .ckpt file or the folder of a run")


def evaluate_all(
    configs: Sequence[Mapping[str, Any]], checkpoint: Path, folder: Path, *, baseline: str | None = None
) -> list[Evaluation]:
    """Run evaluations of one checkpoint, write their files, print their table.

    Args:
        configs: resolved `conf/evaluate.yaml` each, with a `label`.
        folder: of the run; results go to `folder/evaluations`, the table of several rows to `folder`.
        baseline: label of the row that the others are compared with, start by start.

    Raises:
        seqrl.errors.SeqrlError: a checkpoint, environment or strategy that does not fit.
    """
    if not configs:
        return []
    loaded = checkpoints.load(checkpoint)
    critic_file = checkpoints.critic_file(checkpoint)
    critic = checkpoints.load_critic(checkpoint)
    digest = fingerprint_files(checkpoint, *([critic_file] if critic_file else []))
    done = [evaluate(config, loaded, _folder(config, digest, folder), critic) for config in configs]
    rows = [e.row for e in done]
    comparisons = compare(done, baseline)
    print_table(rows, comparisons, loaded.config["dataset"])
    if len(done) > 1:
        for path in write_tables(folder, rows, comparisons, loaded.config["dataset"]):
            say(f"written: {path}")
    for evaluation in done:
        say(f"written: {evaluation.folder}")
    return done


def evaluate(config: Mapping[str, Any], loaded: Loaded, folder: Path, critic: Critic | None = None) -> Evaluation:
    """Run one evaluation, or read it back if the same one was finished before.

    Only a folder named after the settings tells that it was the same; one of the user's choice is written anew.
    """
    if config["output"] is None and (folder / "results.json").exists():
        return _read(folder)
    dataset = loaded.config["dataset"]
    env_id = config["env_id"] or dataset["env_id"]
    if env_id is None:
        raise ConfigError(f"the data {dataset['name']!r} names no environment; set env_id=... to a Gymnasium id")
    policy = policy_of(loaded.model, config, critic)
    if note := _far_target(policy.condition.target_return, dataset):
        say(f"{_label(config)}: {note}")
    check_protocol(config, loaded.model.layout, env_id)  # what is refused leaves no folder
    folder.mkdir(parents=True, exist_ok=True)  # before the episodes, so that a wrong place is told at once
    log = PlanLog() if config["diagnostics"] else None
    outcome = run_episodes(config, policy, env_id, watch=log)
    evaluation = Evaluation(_row(config, loaded, env_id, outcome), outcome.results, outcome.episodes.plans, folder)
    if config["video"]:
        say(f"video: {_film(folder / 'rollout.mp4', env_id, outcome)}")
    if log is not None:
        _diagnose(log, config, policy, critic, evaluation, outcome, dataset.get("standard_deviations"))
    _write(evaluation)
    return evaluation


def _far_target(target: float | None, dataset: Mapping[str, Any]) -> str | None:
    """What to say of a desired return that is further above the best of the data than that is above their mean."""
    best, mean = dataset.get("behaviour_return_max"), dataset["behaviour_return_mean"]
    if target is None or best is None or target - best <= best - mean:
        return None
    return (
        f"condition.target={target:g} is far above the data, whose best episode earned {best:g} and whose mean "
        f"{mean:g}; the model has seen no such return"
    )


def check(config: Mapping[str, Any], training: Mapping[str, Any], store: EpisodeStore) -> None:
    """Refuse an evaluation that would fail after the training, before it.

    Args:
        config: a resolved `conf/evaluate.yaml`.
        training: the resolved config of the run.
        store: its episodes.

    Raises:
        ConfigError: no environment, a strategy that the layout cannot serve, a context beyond the window, or a model
            that cannot be built.
    """
    run = {**training, **store.sizes, "longest_episode": int(store.lengths.max())}
    with torch.device("meta"):  # without memory for its weights
        model = checkpoints.build_model(run)
    layout = model.layout
    try:
        device_of(config["device"])
        precision_of(config["precision"])
        build_strategy(config, model, build_critic(run))
        env_id = config["env_id"] or store.attributes.get("env_id")
        if env_id is None:
            raise ConfigError(
                f"the data {store.attributes.get('name', 'arrays')!r} names no environment; set "
                "evaluation.settings.env_id=... to a Gymnasium id, or evaluation=none to train only"
            )
        check_protocol(config, layout, env_id)
        envs = make_environments(env_id, 1)
        check_spaces(envs, layout.field("observation").size, layout.field("action").size, layout.categories)
        envs.close()
    except ConfigError as error:
        raise ConfigError(f"row {config['label']!r} of the evaluation: {error}") from error
    if config["score"]["name"] == "critic" and training["window"]["terminate_truncated"] and not store.terminated.all():
        say(
            f"{config['label']}: score=critic counts nothing past an imagined end, and this model learns ends at time "
            "limits as well, which its critic does not; train with window.terminate_truncated=false"
        )


def _diagnose(
    log: PlanLog,
    config: Mapping[str, Any],
    policy: Policy,
    critic: Critic | None,
    evaluation: Evaluation,
    outcome: EpisodeResults,
    deviations: Mapping[str, Sequence[float]] | None,
) -> None:
    """Write how good the plans were, after episodes in which they are carried out to their ends."""
    if not log.imagines:
        say(f"no diagnostics of {evaluation.row['strategy']}: planner={config['planner']['name']} imagines nothing")
        return
    logs = {"evaluation": (log, outcome.episodes)}
    if policy.planner.horizon > config["plan_every"] and policy.model.layout.stride == 1:
        whole = {**config, "plan_every": policy.planner.horizon}
        obedient, further = policy_of(policy.model, whole, critic), PlanLog()
        logs["open_loop"] = (further, run_episodes(whole, obedient, evaluation.row["env_id"], watch=further).episodes)
    content = diagnose(logs, policy, deviations)
    row = {key: evaluation.row[key] for key in ("strategy", "dataset", "env_id", "plan_every", "num_episodes")}
    write_text(evaluation.folder / DIAGNOSTICS, json.dumps({**row, **content}, indent=2) + "\n")


def _film(path: Path, env_id: str, outcome: EpisodeResults) -> str:
    """Film one start toward every goal, or the first episode; where the film is, and how it was drawn."""
    episodes = outcome.episodes
    if is_maze(env_id):
        maze = maze_of(env_id)
        if "paths" not in outcome.results:
            drawn = write_maze_video(path, maze, episodes.observations[0, ::FRAME_STEPS, :2])
            return f"{path.parent / drawn}"
        paths, goals = outcome.results["paths"], outcome.results["goals"]
        shown = paths[int(outcome.results["counted"].sum(1).argmax())][:, ::FRAME_STEPS]  # (runs, frames, 2)
        cut = np.full((1, 2), np.nan)  # lifts the pen between two episodes
        positions = np.concatenate([np.concatenate([run, cut]) for run in shown])
        marks = np.repeat(goals[: len(shown)], shown.shape[1] + 1, axis=0)
        return f"{path.parent / write_maze_video(path, maze, positions, goals=marks)}"
    if episodes.qpos is None:
        return f"none: {env_id} is no MuJoCo environment"
    return f"{path.parent / write_rollout_video(path, env_id, episodes.qpos[::FRAME_STEPS])}"


def compare(evaluations: Sequence[Evaluation], baseline: str | None) -> list[dict[str, Any]]:
    """Differences `baseline - other` over the same starts: of success where there are goals, else of the return."""
    ours = next((e for e in evaluations if e.row["strategy"] == baseline), None)
    if ours is None:
        return []
    rows = []
    for other in evaluations:
        if other is ours or other.row["starts"] != ours.row["starts"]:
            continue  # other starts: nothing is paired
        quantity = "success" if "success" in ours.results and "success" in other.results else "returns"
        left, right = ours.results[quantity], other.results[quantity]
        if quantity == "returns":
            left, right = left.mean(1), right.mean(1)
        difference = paired_difference(left, right, ours.results.get("counted") if quantity == "success" else None)
        rows.append(
            {
                "baseline": baseline,
                "other": other.row["strategy"],
                "of": quantity,
                "difference": difference.mean,
                "ci95": difference.interval,
            }
        )
    return rows


def _row(config: Mapping[str, Any], loaded: Loaded, env_id: str, outcome: EpisodeResults) -> dict[str, Any]:
    """A results row; rates and scores are in percent, times in environment steps or milliseconds."""
    dataset, results = loaded.config["dataset"], outcome.results
    returns = results["returns"]
    known, bounds = reference(env_id), bootstrap(returns).interval
    if config["start_cells"] is not None or config["max_steps"] is not None or config["condition"]["name"] == "goal":
        known = None  # the references are for the environment's own starts, task and time limit
    row = {
        "strategy": _label(config),
        "dataset": dataset["name"],
        "env_id": env_id,
        "planner": dict(config["planner"]),
        "condition": dict(config["condition"]),
        "score": dict(config["score"]),
        "model": loaded.model.tokenizer.output,  # of tokens, vectors or codes
        "discrete_actions": "action" in loaded.model.layout.categories,
        "cache": None if loaded.model.tokenizer.output == "vectors" else config["planner"].get("cache"),
        "plan_every": config["plan_every"],
        "time_budget_ms": config["planner"].get("time_budget_ms"),
        "horizon_mean": outcome.episodes.horizon_mean,
        "num_episodes": int(returns.size),
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_ci95": bounds,
        "length_mean": float(results["lengths"].mean()),
        "score_mean": None if known is None else known.score(float(returns.mean())),
        "score_ci95": None if known is None or bounds is None else [known.score(r) for r in bounds],
        "score_note": None if known is None else reference_note(env_id, dataset),
        "ms_per_action": outcome.episodes.ms_per_action,
        "environments_per_batch": int(returns.size),
        "device": str(device_of(config["device"])),
        "precision": config["precision"],
        "threads": torch.get_num_threads(),
        "behaviour_return_mean": dataset["behaviour_return_mean"],
        "behaviour_score": dataset["behaviour_score"],
        "seed": config["seed"],
        "starts": {key: config[key] for key in ("env_id", "seed", "num_episodes", "max_steps", "start_cells", "goals")},
        "shuffle_goals": config["shuffle_goals"],
        "min_cells": config["min_cells"],
        "training": training_digest(loaded.config),
        "training_seed": loaded.config["seed"],
        "training_steps": loaded.step,
        "versions": {"seqrl": version("seqrl"), **{p: version(p) for p in ("torch", "gymnasium", "mujoco")}},
    }
    if "success" in results:
        counted = results["counted"]
        success = bootstrap(results["success"] * 100.0, counted)
        reached = counted & results["success"]
        row |= {
            "success_rate": success.mean,
            "success_ci95": success.interval,
            "success_by_goal": [
                {
                    "goal": goal.tolist(),
                    "starts": int(counted[:, j].sum()),
                    "success_rate": 100.0 * float(results["success"][counted[:, j], j].mean()),
                }
                for j, goal in enumerate(results["goals"])
            ],
            "counted_episodes": int(counted.sum()),
            "steps_to_goal_median": float(np.median(results["steps"][reached])) if reached.any() else None,
            "time_at_goal": float(results["time_at_goal"][reached].mean()) if reached.any() else None,
        }
    return row


def _label(config: Mapping[str, Any]) -> str:
    """Name of the row. A control must not pass for the strategy that it controls."""
    own: str = config["strategy_name"] + (", shuffled goals" if config["shuffle_goals"] else "")
    return config["label"] or own


def _folder(config: Mapping[str, Any], checkpoint_digest: str, folder: Path) -> Path:
    """`<run>/evaluations/<label>-<hash>`, the hash being of the settings and of the checkpoints' content."""
    if config["output"]:
        return Path(config["output"])
    label = _label(config)
    kept = {k: v for k, v in config.items() if k not in ("checkpoint", "output", "progress_bar")}
    if not kept["diagnostics"]:  # evaluations of before there were any keep their place
        del kept["diagnostics"]
    kept["plugins"] = identities(config["plugins"])
    digest = fingerprint([kept, checkpoint_digest, ROW_FORMAT])
    name = re.sub(r"[^\w.-]+", "_", label)
    return folder / "evaluations" / f"{name}-{digest[:8]}"


def _write(evaluation: Evaluation) -> None:
    """results.json comes last: where it is, the rest is complete."""
    arrays: dict[str, Any] = dict(evaluation.results)
    for number, plan in enumerate(evaluation.plans):
        arrays[f"plan_{number}_time"] = np.array(plan.time)
        arrays[f"plan_{number}_environments"] = plan.environments
        arrays[f"plan_{number}_observations"] = plan.observations.astype(np.float32)
    with write_file(evaluation.folder / "episodes.npz") as file:
        np.savez_compressed(file, **arrays)
    write_text(evaluation.folder / "results.json", json.dumps([evaluation.row], indent=2) + "\n")


def _read(folder: Path) -> Evaluation:
    row = json.loads((folder / "results.json").read_text())[0]
    with np.load(folder / "episodes.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    results = {name: array for name, array in arrays.items() if not name.startswith("plan_")}
    plans = [
        ImaginedPath(int(arrays[f"plan_{n}_time"]), arrays[f"plan_{n}_environments"], arrays[f"plan_{n}_observations"])
        for n in range(sum(name.endswith("_time") and name.startswith("plan_") for name in arrays))
    ]
    return Evaluation(row, results, plans, folder)
