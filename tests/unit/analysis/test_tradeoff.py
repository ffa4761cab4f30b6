"""The picture of what decoding settings cost and earn: which sweeps have one, and what stands in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqrl.analysis.tradeoff import Point, draw_tradeoff, non_dominated
from seqrl.cli import pictures
from seqrl.cli.pictures import draw_sweep
from seqrl.cli.summary import table
from seqrl.evaluation.jobs import Job
from seqrl.evaluation.rows import ResultsRow

MakeJob = Callable[..., Job]


@pytest.fixture
def job(make_row: Callable[..., ResultsRow]) -> MakeJob:
    """`job(*overrides, **changes)`: a job of a sweep with one results row."""
    own = {"strategy": "reward", "num_episodes": 7, "return_mean": 300.0, "return_ci95": [250.0, 350.0], "seed": 4}
    own |= {"score_mean": 30.0, "score_ci95": [25.0, 35.0], "ms_per_action": 12.5}

    def make(*overrides: str, state: str = "done", **changes: Any) -> Job:
        made = Job(list(overrides), state)
        if state != "running":
            made.add_rows([make_row(**{**own, **changes})])
        return made

    return make


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `draw_sweep` hands to the drawing."""
    found: dict[str, Any] = {}

    def keep(path: Path, points: list[Point], **words: str) -> Path:
        found.update(points=points, **words)
        return path

    monkeypatch.setattr(pictures, "draw_tradeoff", keep)
    return found


def draw(jobs: list[Job]) -> Path | None:
    header, body = table(jobs)
    varying = header[: header.index("status")]
    return draw_sweep(Path("a.png"), jobs, [dict(zip(varying, line, strict=False)) for line in body])


def test_points_carry_what_varies_and_the_title_the_rest(drawn: dict[str, Any], job: MakeJob) -> None:
    fixed = ["checkpoint=runs/a", "num_episodes=7"]
    jobs = [
        job(*fixed, f"planner.beam_width={width}", f"planner.cache={cache}", "plan_every=2", ms_per_action=ms)
        for width, cache, ms in ((4, "none", 8.0), (4, "exact", 1.0), (16, "none", 20.0), (16, "exact", 2.0))
    ]
    assert draw(jobs) == Path("a.png")
    assert [(p.label, p.series, p.cost) for p in drawn["points"]] == [
        *(("W4", "cache none", 8.0), ("W4", "cache exact", 1.0)),
        *(("W16", "cache none", 20.0), ("W16", "cache exact", 2.0)),
    ]
    assert {(p.gain, tuple(p.interval)) for p in drawn["points"]} == {(30.0, (25.0, 35.0))}
    assert drawn["gain"] == "normalised score"
    for word in ("tiny", "Hopper-v5", "mujoco 3.3.0", "7 episodes", "evaluation seed 4", "training seed 3", "cpu"):
        assert word in drawn["title"]


@pytest.mark.parametrize(
    ("overrides", "points"),
    [
        (["planner.beam_width=4", "planner.beam_width=8"], [("W4", ""), ("W8", "")]),
        (["planner.cache=none", "planner.cache=exact"], [("cache none", ""), ("cache exact", "")]),
        (["strategy=reward", "strategy=imitation"], [("strategy reward", ""), ("strategy imitation", "")]),
        (["planner.horizon=1 checkpoint=runs/a", "planner.horizon=5 checkpoint=runs/b"],
         [("checkpoint a", "H1"), ("checkpoint b", "H5")]),
        (["planner.time_budget_ms=20 plan_every=1", "planner.time_budget_ms=null plan_every=3"],
         [("every 1", "20 ms"), ("every 3", "no time_budget_ms")]),
    ],
)  # fmt: skip
def test_series_are_cache_modes_or_the_first_of_several_settings(
    drawn: dict[str, Any], overrides: list[str], points: list[tuple[str, str]], job: MakeJob
) -> None:
    draw([job(*each.split()) for each in overrides])
    assert [(p.label, p.series) for p in drawn["points"]] == points


@pytest.mark.parametrize(
    ("changes", "axis", "gain"),
    [
        ({}, "normalised score", 30.0),
        ({"score_mean": None, "toward_goals": True, "success_rate": 62.0}, "success rate in %", 62.0),
        ({"score_mean": None, "toward_goals": True, "success_rate": float("nan")}, "return", 300.0),
        ({"score_mean": None}, "return", 300.0),
    ],
)
def test_the_gain_is_the_best_number_that_all_rows_have(
    drawn: dict[str, Any], changes: dict[str, Any], axis: str, gain: float, job: MakeJob
) -> None:
    draw([job("planner.horizon=1", toward_goals=True), job("planner.horizon=5", **changes)])
    assert (drawn["gain"], drawn["points"][1].gain) == (axis, gain)


def test_failed_jobs_are_no_points(drawn: dict[str, Any], job: MakeJob) -> None:
    jobs = [job(f"planner.horizon={h}", state=s) for h, s in ((1, "done"), (2, "failed"), (3, "running"), (4, "done"))]
    draw(jobs)
    assert [p.label for p in drawn["points"]] == ["H1", "H4"]
    drawn.clear()
    assert draw(jobs[:3]) is None
    assert not drawn


def test_nothing_is_drawn_where_nothing_can_be_compared(
    drawn: dict[str, Any], job: MakeJob, make_row: Callable[..., ResultsRow]
) -> None:
    assert draw([job("planner.horizon=1")]) is None
    assert draw([job("seed=1"), job("seed=2")]) is None, "no decoding setting varies"
    assert draw([job("trainer.strategy=ddp"), job("trainer.strategy=auto")]) is None
    several = [job("++evaluation.decoding.planner.horizon=1"), job("++evaluation.decoding.planner.horizon=5")]
    assert draw(several) is not None
    several[0].add_rows([make_row()])
    assert draw(several) is None, "which of its rows?"


def test_non_dominated_points() -> None:
    """Against the definition, on a grid with ties in both directions."""
    costs_and_gains = [(1, 2), (1, 1), (2, 2), (3, 5), (3, 5), (4, 4), (9, 6)]
    points = [Point("", "", cost, gain, None) for cost, gain in costs_and_gains]
    assert [(p.cost, p.gain) for p in non_dominated(points)] == [(1, 2), (3, 5), (3, 5), (9, 6)]


def test_the_picture_shows_every_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of equal points stand apart, and intervals may be missing."""
    from matplotlib.figure import Figure

    figures: list[Any] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
    points = [
        Point(f"W{n} of a wide beam", "cache none" if n % 2 else "cache exact", 2.0 + n // 2, 5.0, [4.0, 6.0])
        for n in range(6)
    ]
    path = draw_tradeoff(tmp_path / "a.png", [*points, Point("alone", "", 1.0, 7.0, None)], gain="return", title="of x")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"] == [path.name]
    (axes,) = figures[0].axes
    assert (axes.get_xscale(), axes.get_ylabel()) == ("log", "return, 95 % intervals over starts")
    boxes = [text.get_window_extent() for text in axes.texts]
    assert sorted(text.get_text() for text in axes.texts) == [*(f"W{n} of a wide beam" for n in range(6)), "alone"]
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    (legend,) = figures[0].legends
    assert {"cache none", "cache exact"} < {text.get_text() for text in legend.get_texts()}
    assert axes.get_title() == "of x"
