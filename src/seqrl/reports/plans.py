"""Plans beside what happened, as numbers that the page's script steps through.

Plans are those of `plans=true`, what happened is that of `trajectories=true`; both lie in the folder of an evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from seqrl.errors import ConfigError, DataError
from seqrl.evaluation.recording import PLANS, TRAJECTORIES
from seqrl.formats.npz import read_npz
from seqrl.worlds.environments import is_maze, maze_of

MOST_EPISODES, MOST_PLANS, MOST_STEPS, MOST_DIMS = 3, 40, 64, 6
_TOLD = ("time", "episode", "score", "horizon")  # of a plan; everything else of three dimensions is a field


def collect_plans(folder: Path, label: str, env_id: str, layout: Mapping[str, Any]) -> dict[str, Any] | None:
    """The first episodes of an evaluation with their plans, a part of them where there are many.

    Args:
        folder: of the evaluation.
        label: of its row.
        layout: section of the run's configuration.

    Returns:
        What JSON holds: `fields` (name, size, shown dimensions), `episodes`, each with `happened` and `plans` by field
        and dimension, null where nothing is known; `maze` where there is a map. None without both files.

    Raises:
        DataError: a file is damaged.
    """
    if not (folder / PLANS).is_file() or not (folder / TRAJECTORIES).is_file():
        return None
    plans, seen = read_npz(folder / PLANS).arrays, read_npz(folder / TRAJECTORIES).arrays
    try:
        fields = {name: plans[name] for name in sorted(plans, key=_place) if _is_field(name, plans[name])}
        stride = max(1, int(layout.get("stride") or 1))
        episodes = [
            {"number": number, "happened": _listed(happened), "plans": list(_plans(plans, fields, number))}
            for number, happened in _episodes(seen, fields, stride, layout)
            if (plans["episode"] == number).any()
        ]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise DataError(f"{str(folder / PLANS)!r} does not fit {TRAJECTORIES} ({error}); evaluate again") from error
    shown = [
        {"name": name, "size": array.shape[2], "dims": min(array.shape[2], MOST_DIMS)} for name, array in fields.items()
    ]
    found = {"label": label, "stride": stride, "fields": shown, "episodes": episodes, "maze": _map(env_id)}
    return found if episodes and shown else None


def _is_field(name: str, array: np.ndarray) -> bool:
    return name not in _TOLD and array.ndim == 3


def _place(name: str) -> tuple[int, str]:
    """Fields in the order in which one reads them."""
    known = ("observation", "action", "difference", "reward", "value", "return")
    return known.index(name) if name in known else len(known), name


def _episodes(
    seen: Mapping[str, np.ndarray], fields: Mapping[str, np.ndarray], stride: int, layout: Mapping[str, Any]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(number, values of each field by step) of the first episodes."""
    offsets = seen["offsets"]
    numbers = seen["episode"][offsets[:-1]] if "episode" in seen else np.arange(len(offsets) - 1)
    for row, number in enumerate(numbers[:MOST_EPISODES]):
        steps = slice(int(offsets[row]), int(offsets[row + 1]))
        rewards = seen["rewards"][steps].astype(np.float64)
        values = _following(rewards, _discount(layout))
        happened = {"observation": seen["observations"][steps], "action": seen["actions"][steps]}
        extras = {name: name.removeprefix("extras.") for name in fields if name.startswith("extras.")}
        happened |= {name: seen[key][steps] for name, key in extras.items() if key in seen}
        if "final_observations" in seen:
            happened["observation"] = np.concatenate(
                [happened["observation"], seen["final_observations"][row : row + 1]]
            )
        if stride == 1:  # else a transition's reward is that of all its steps
            happened["difference"] = np.diff(happened["observation"], axis=0)
            happened |= {"reward": rewards[:, None], "value": values[:, None]}
            happened["return"] = (rewards + _discount(layout) * values)[:, None]
        flat = {name: array.reshape(len(array), -1) for name, array in happened.items()}
        yield int(number), {name: array for name, array in flat.items() if _fits(array, fields.get(name))}


def _fits(happened: np.ndarray, imagined: np.ndarray | None) -> bool:
    """Whether two mean the same: a chunk of actions is not one action."""
    return imagined is not None and happened.shape[1] == imagined.shape[2]


def _plans(plans: Mapping[str, np.ndarray], fields: Mapping[str, np.ndarray], number: int) -> Iterator[dict[str, Any]]:
    """The plans of an episode, evenly chosen where there are many."""
    rows = np.flatnonzero(plans["episode"] == number)
    if len(rows) > MOST_PLANS:
        rows = rows[np.linspace(0, len(rows) - 1, MOST_PLANS).round().astype(int)]
    for row in rows.tolist():
        horizon = int(min(plans["horizon"][row], MOST_STEPS))
        imagined = {name: array[row, :horizon] for name, array in fields.items()}
        score = plans["score"][row] if "score" in plans else math.nan  # of before
        yield {"time": int(plans["time"][row]), "score": _number(score), "imagined": _listed(imagined)}


def _listed(values: Mapping[str, np.ndarray]) -> dict[str, list[list[float | None]]]:
    """By field, the numbers of each shown dimension."""
    return {name: [[_number(x) for x in column] for column in array.T[:MOST_DIMS]] for name, array in values.items()}


def _number(value: float) -> float | None:
    """Four digits; JSON has no NaN."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _following(rewards: np.ndarray, discount: float) -> np.ndarray:
    """(T,) discounted sums of the rewards after each step, to the end of the recording."""
    values = np.zeros(len(rewards))
    for step in range(len(rewards) - 2, -1, -1):
        values[step] = rewards[step + 1] + discount * values[step + 1]
    return values


def _discount(layout: Mapping[str, Any]) -> float:
    return float(layout.get("discount") or 1.0)


def _map(env_id: str) -> dict[str, Any] | None:
    """Walls, and the places of the map's edges: left, right, bottom, top."""
    with suppress(ConfigError):
        if is_maze(env_id):
            maze = maze_of(env_id)
            return {"rows": list(maze.rows), "extent": [float(each) for each in maze.extent]}
    return None
