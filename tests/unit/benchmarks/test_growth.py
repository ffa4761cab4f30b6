"""Growth: exponents against powers that are known, data sets of any size, and the command's table and picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.growth import Point, draw, find_exponents, main, write_episodes

from seqrl.benchmarks.plan import PlanSettings, measure_plan
from seqrl.benchmarks.timing import MemoryRise
from seqrl.data.episodes import EpisodeStore

SIZES = (16, 64, 256)


def powers(task: str, factor: str, time: float, memory: float | None) -> list[dict[str, object]]:
    return [
        vars(Point(task, factor, size, 0.5 * size**time, None if memory is None else 3.0 * size**memory))
        for size in SIZES
    ]


def test_exponents_are_those_of_powers() -> None:
    points = powers("plan exact", "beam_width", 1.5, 1.0) + powers("train", "window", 2.0, None)
    times, memory = (find_exponents(points, key) for key in ("seconds", "mb"))
    assert times[("plan exact", "beam_width")] == pytest.approx((1.5, 1.5))
    assert times[("train", "window")] == pytest.approx((2.0, 2.0))
    assert memory == {("plan exact", "beam_width"): pytest.approx((1.0, 1.0))}


def test_the_largest_sizes_have_an_exponent_of_their_own() -> None:
    """A cost with a constant part grows slower at first."""
    points = [vars(Point("train", "width", size, 100 + size**2, 1.0)) for size in SIZES]
    (whole, last) = find_exponents(points, "seconds")[("train", "width")]
    assert last == pytest.approx(np.log((100 + 256**2) / (100 + 64**2)) / np.log(4))
    assert whole < last < 2


@pytest.mark.parametrize(("transitions", "episodes"), [(500, 1), (3000, 3), (200_000, 200)])
def test_data_sets_have_the_size_that_is_asked_for(tmp_path: Path, transitions: int, episodes: int) -> None:
    write_episodes(tmp_path / "made", transitions)
    store = EpisodeStore.open(tmp_path / "made")
    assert (len(store), store.num_episodes) == (transitions, episodes)
    assert np.array_equal(store.observations[:100], store.observations[100_000:100_100]) == (transitions > 100_000)


TOUCH = """
import numpy as np
from seqrl.benchmarks.timing import MemoryRise

rise = MemoryRise.begin()
held = np.ones(5_000_000)
peak, own = rise.peak_mb(), rise.own_mb()
del held
print(peak, own, rise.peak_mb(), rise.own_mb())
"""


@pytest.mark.skipif(MemoryRise.begin() is None, reason="needs Linux")
def test_memory_that_is_touched_is_seen() -> None:
    """In a fresh process: this one has freed memory that would be used again."""
    told = subprocess.run([sys.executable, "-P", "-c", TOUCH], check=True, capture_output=True, text=True).stdout
    peak, own, peak_after, own_after = map(float, told.split())
    assert min(peak, own, peak_after) > 35, "a peak stays"
    assert own_after < own - 30


def test_plans_are_measured_whatever_the_mode() -> None:
    settings = PlanSettings(
        threads=1, observation=2, action=1, bins=5, layers=1, heads=2, width=8, beam_width=3, horizon=2, context=3,
        environments=2,
    )  # fmt: skip
    for mode in ("exact", "window", "reference"):
        seconds, mb = measure_plan(settings, "llama", mode)
        assert seconds > 0
        assert mb is None or mb >= 0


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    draw(powers("plan exact", "beam_width", 1.5, 1.0) + powers("train", "window", 2.0, None), tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_command_measures_each_size_in_a_process_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--only", "data.transitions", "train.window", "--most", "10", "--transitions", "2e3", "4e3"]
    assert main([*words, "--output", str(tmp_path / "growth.json")]) == 0
    content = json.loads((tmp_path / "growth.json").read_text())
    assert [(p["task"], p["value"]) for p in content["points"]] == [
        *(("train", size) for size in (5, 10)),
        *(("open and tokenize", size) for size in (2000, 4000)),
    ]
    assert all(point["seconds"] > 0 for point in content["points"])
    assert "exponents: of a line through all sizes" in capsys.readouterr().out
