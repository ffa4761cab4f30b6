"""What inspection counts, and what it finds odd, against data in which the oddities were planted."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from seqrl.analysis.data import draw_inspection
from seqrl.formats.flat import FlatEpisodes
from seqrl.formats.inspection import Inspection, inspect_episodes

LENGTHS = [40, 50, 60, 40, 50, 60, 40, 60]


def walk(seed: int = 0) -> FlatEpisodes:
    """Eight episodes that leave a small region near 0 for good, as robots leave their starting pose."""
    rng = np.random.default_rng(seed)
    observations, actions = [], []
    for length in LENGTHS:
        acted = rng.uniform(0.5, 1.0, (length, 2))
        start = rng.normal(scale=0.02, size=2)
        observations.append(start + np.concatenate([np.zeros((1, 2)), np.cumsum(acted, axis=0)[:-1]]))
        actions.append(acted)
    count = sum(LENGTHS)
    last = np.cumsum(LENGTHS) - 1
    ends, terminals, timeouts = np.zeros((3, count), bool)
    ends[last] = True
    terminals[last[:3]], timeouts[last[3:7]] = True, True
    rewards = np.arange(count, dtype=np.float32)
    return FlatEpisodes(
        "walk", "flags", np.concatenate(observations), np.concatenate(actions), rewards, ends, terminals, timeouts
    )


def joined(flat: FlatEpisodes, *episodes: int) -> FlatEpisodes:
    """The same rows, the ends of some episodes forgotten."""
    ends = flat.ends.copy()
    ends[np.cumsum(LENGTHS)[list(episodes)] - 1] = False
    return dataclasses.replace(flat, ends=ends, terminals=flat.terminals & ends, timeouts=flat.timeouts & ends)


def replaced(flat: FlatEpisodes, rows: slice | int, column: int, value: float) -> FlatEpisodes:
    observations = flat.observations.copy()
    observations[rows, column] = value
    return dataclasses.replace(flat, observations=observations)


def said(report: Inspection, words: str) -> bool:
    return any(words in warning for warning in report.warnings)


def test_counts_lengths_and_returns() -> None:
    flat = walk()
    report = inspect_episodes(flat)
    assert (report.transitions, report.episodes) == (400, 8)
    assert (report.terminated, report.truncated, report.cut) == (3, 4, 1)
    assert report.lengths == {
        "minimum": 40.0,
        "mean": 50.0,
        "median": 50.0,
        "maximum": 60.0,
        "std": pytest.approx(np.std(LENGTHS)),
    }
    returns = [piece.sum() for piece in np.split(flat.rewards.astype(float), np.cumsum(LENGTHS)[:-1])]
    assert report.returns["mean"] == pytest.approx(np.mean(returns))
    assert (report.returns["minimum"], report.returns["maximum"]) == (min(returns), max(returns))
    assert sum(report.return_histogram[1]) == sum(report.length_histogram[1]) == 8
    assert report.warnings == []


def test_columns_tell_ranges_ties_and_what_is_not_finite() -> None:
    flat = walk()
    flat = replaced(replaced(flat, slice(0, 300), 0, 7.0), 5, 0, np.nan)
    flat = replaced(flat, [6, 7], 0, np.inf)  # type: ignore[arg-type]
    column = inspect_episodes(flat).columns[0]
    finite = np.sort(flat.observations[np.isfinite(flat.observations[:, 0]), 0])
    assert (column.name, column.nan, column.infinite) == ("observation 0", 1, 2)
    assert (column.minimum, column.maximum) == (finite[0], finite[-1])
    assert column.mean == pytest.approx(finite.mean())
    assert column.distinct == 101
    assert column.most_common == pytest.approx(297 / 397)
    assert column.percentiles == pytest.approx(np.percentile(finite, (1, 50, 99)))


def test_what_training_refuses_is_shown() -> None:
    flat = dataclasses.replace(replaced(walk(), 5, 1, np.nan), rewards=np.where(np.arange(400) == 41, np.nan, 1.0))
    report = inspect_episodes(flat)
    assert said(report, "observation 1 holds 1 NaN and 0 infinite values: training refuses them")
    assert said(report, "reward holds 1 NaN")
    assert said(report, "1 episodes have no finite return")
    assert sum(report.return_histogram[1]) == 7
    json.dumps(report.plain(), allow_nan=False)


def test_numbers_beyond_float32_are_shown() -> None:
    report = inspect_episodes(replaced(walk(), 5, 1, 1e300))
    assert said(report, "observation 1 holds 0 NaN and 1 infinite values: training refuses them")
    json.dumps(report.plain(), allow_nan=False)


def test_shapes_that_training_refuses_are_shown() -> None:
    assert said(inspect_episodes(dataclasses.replace(walk(), actions=np.zeros(400, np.int64))), "training refuses it: ")
    assert not said(inspect_episodes(walk()), "training refuses it: ")


def test_noise_is_no_stream() -> None:
    noise = np.random.default_rng(0).normal(size=(400, 2))
    report = inspect_episodes(dataclasses.replace(walk(), observations=noise))
    assert not said(report, "goes on across")


def test_constants_and_single_steps() -> None:
    flat = replaced(walk(), slice(None), 1, 3.0)
    ends = flat.ends.copy()
    ends[40] = True
    report = inspect_episodes(dataclasses.replace(flat, ends=ends))
    assert said(report, "constant: observation 1")
    assert said(report, "1 episodes have a single step")


def test_forgotten_ends_are_found_and_nothing_else() -> None:
    found = inspect_episodes(walk()).boundaries
    assert found is not None
    assert (found.jumps, found.restarts, found.boundaries, found.continuous) == ([], [], 7, 0)
    forgotten = np.cumsum(LENGTHS)[[1, 4]] - 1
    report = inspect_episodes(joined(walk(), 1, 4))
    assert report.boundaries is not None
    assert report.boundaries.restarts == forgotten.tolist()
    assert report.boundaries.jumps == forgotten.tolist()
    assert said(
        report, f"at 2 places inside episodes (after rows {forgotten[0]}, {forgotten[1]}) the observation returns"
    )


def test_waiting_at_the_start_is_no_restart() -> None:
    flat = walk()
    observations = flat.observations.copy()
    observations[:6] = observations[0]
    found = inspect_episodes(dataclasses.replace(flat, observations=observations)).boundaries
    assert found is not None
    assert found.restarts == []


def test_a_jump_to_elsewhere_is_found() -> None:
    flat = walk()
    observations = flat.observations.copy()
    observations[20:40] += 500.0  # inside the first episode
    found = inspect_episodes(dataclasses.replace(flat, observations=observations)).boundaries
    assert found is not None
    assert 19 in found.jumps
    assert found.restarts == []


def test_a_stream_in_pieces_is_found() -> None:
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (400, 2))
    observations = np.cumsum(actions, axis=0) - actions
    report = inspect_episodes(dataclasses.replace(walk(), observations=observations, actions=actions))
    assert said(report, "goes on across 7 of 7 boundaries")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_rows(count: int, tmp_path: Path) -> None:
    flat = walk()
    cut = {name: getattr(flat, name)[:count] for name in ("observations", "actions", "rewards")}
    flags = {name: getattr(flat, name)[:count].copy() for name in ("ends", "terminals", "timeouts")}
    flags["ends"][-1:] = True
    report = inspect_episodes(dataclasses.replace(flat, **cut, **flags))
    assert report.transitions == count
    assert said(report, "no transitions" if count == 0 else "one episode only")
    json.dumps(report.plain(), allow_nan=False)
    draw_inspection(tmp_path / "a.png", report)


def test_the_picture_is_written_whole(tmp_path: Path) -> None:
    path = draw_inspection(tmp_path / "a.png", inspect_episodes(replaced(walk(), 5, 1, np.nan)))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]


def test_extras_have_rows_and_their_nan_is_found(tmp_path: Path) -> None:
    flat = walk()
    count = len(flat.ends)
    cost, pair = np.arange(count, dtype=float), np.ones((count, 2))
    cost[3], cost[5], pair[7, 1] = np.nan, np.inf, np.nan
    words = np.array(["text"] * count)
    report = inspect_episodes(
        dataclasses.replace(
            flat, extras={"cost": cost, "infos/pair": pair, "task": np.zeros((count, 1), int), "w": words}
        )
    )
    assert [each.name for each in report.extras] == ["cost", "pair 0", "pair 1", "task"]
    assert [(each.nan, each.infinite) for each in report.extras] == [(1, 1), (0, 0), (1, 0), (0, 0)]
    assert said(report, "cost holds 1 NaN and 1 infinite values: training refuses them where its layout has the field")
    assert said(report, "pair 1 holds 1 NaN")
    assert said(report, "constant: pair 0, pair 1, task")
    assert not said(report, "training refuses it")  # without that field it trains
    json.dumps(report.plain(), allow_nan=False)
    assert draw_inspection(tmp_path / "extras.png", report).exists()
