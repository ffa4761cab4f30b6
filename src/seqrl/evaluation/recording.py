"""What happened in an evaluation and what was planned, as arrays for analysis beside its results."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.evaluation.plan_quality import PlanLog
from seqrl.evaluation.rollout import Episodes
from seqrl.files import write_file
from seqrl.formats.flat import FlatEpisodes
from seqrl.formats.writers import write_episodes
from seqrl.layout import Layout
from seqrl.layout_config import FIELDS

TRAJECTORIES, PLANS = "trajectories.npz", "plans.npz"


def write_trajectories(folder: Path, episodes: Episodes, env_id: str, *, seed: int) -> Path:
    """Write the episodes as a recording, which `data=arrays data.path=...` and `seqrl data` read.

    Episodes stand in the order of the results, those without a step left out; what ended them other than the
    environment's own end counts as a time limit. At least one episode has a step.
    """
    rows = [(number, int(length)) for number, length in enumerate(episodes.lengths) if length]
    last = np.cumsum([length for _, length in rows]) - 1
    ends, terminals = np.zeros((2, int(last[-1]) + 1), bool)
    ends[last], terminals[last] = True, [bool(episodes.terminated[number]) for number, _ in rows]
    told = {name: each for name, each in episodes.outcomes.items() if name != "episode"}
    attributes: dict[str, Any] = {"env_id": env_id, "seed": seed, "seqrl": version("seqrl")}
    flat = FlatEpisodes(
        env_id,
        "collected",
        np.concatenate([episodes.observations[number, :length] for number, length in rows]),
        np.concatenate([episodes.actions[number, :length] for number, length in rows]).astype(np.float32),
        np.concatenate([episodes.rewards[number, :length] for number, length in rows]).astype(np.float32),
        ends,
        terminals,
        ends & ~terminals,
        final_observations=np.stack([episodes.observations[number, length] for number, length in rows]),
        extras={
            "episode": np.concatenate([np.full(length, number) for number, length in rows]),
            **{name: np.concatenate([each[n, :length] for n, length in rows]) for name, each in told.items()},
        },
        attributes=attributes,
    )
    write_episodes(flat, str(folder / TRAJECTORIES), overwrite=True)
    return folder / TRAJECTORIES


def write_plans(folder: Path, log: PlanLog, layout: Layout) -> Path:
    """Write every plan with what it imagined.

    Arrays have a row for each plan: `time` (steps since the start), `episode`, `score` (what the planner said of it),
    `horizon`, and for each field of the layout its imagined values, (N, H, size) in the data's units, those of extras
    as `extras.NAME`. Shorter plans end in NaN. Where the layout has no field `value`, `score` has that name as well, as
    in files of before.
    """
    horizons = [each.shape[1] for each in log.transitions]
    count, longest = sum(len(each) for each in log.environments), max(horizons, default=0)
    transitions = np.full((count, longest, layout.size), np.nan, np.float32)
    row = 0
    for each in log.transitions:
        transitions[row : row + len(each), : each.shape[1]] = each.numpy()
        row += len(each)
    sizes = [len(each) for each in log.environments]
    scores = np.concatenate([*(each.numpy() for each in log.scores), np.zeros(0, np.float32)])
    arrays: dict[str, Any] = {
        "time": np.repeat(np.array(log.times, np.int64), sizes),
        "episode": np.concatenate([*log.environments, np.zeros(0, np.int64)]).astype(np.int64),
        "score": scores,
        "value": scores,
        "horizon": np.repeat(np.array(horizons, np.int64), sizes),
        **{
            field.name if field.name in FIELDS else f"extras.{field.name}": transitions[..., field.slice]
            for field in layout.fields
        },
    }
    with write_file(folder / PLANS) as file:
        np.savez_compressed(file, **arrays)
    return folder / PLANS
