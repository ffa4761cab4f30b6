"""How good plans were: against loops over a world in which everything is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from seqrl.acting.policy import Policy
from seqrl.analysis.plan_figure import draw_plan_quality
from seqrl.data.episodes import EpisodeStore
from seqrl.evaluation.plan_quality import TAIL, PlanLog, diagnose
from seqrl.evaluation.plan_results import Calibration
from seqrl.evaluation.rollout import Episodes
from seqrl.evaluation.rows import ResultsRow
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.scores.critic import CriticScore
from seqrl.scores.reward import RewardScore
from seqrl.types import Plan

FIELDS = {"observation": {}, "action": {}, "reward": {}, "value": {"hidden": True}}
GAMMA, HORIZON, LENGTHS, TERMINATED = 0.5, 3, np.array([9, 6]), np.array([False, True])
DEVIATIONS = {"observation": [2.0, 0.0], "action": [1.0], "reward": [4.0]}


def episodes() -> Episodes:
    """Two episodes: one cut after nine steps, one that ends truly after six."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(2, 10, 2)).astype(np.float32)
    rewards = rng.normal(size=(2, 9))
    observations[1, 7:], rewards[1, 6:] = observations[1, 6], 0.0
    actions = np.zeros((*rewards.shape, 1))
    return Episodes(observations, actions, rewards, LENGTHS, TERMINATED, 1.0, [HORIZON])


def policy(penalty: float | None = None) -> Any:
    layout = Layout.from_config({"fields": FIELDS, "discount": GAMMA, "termination_penalty": penalty}, 2, 1)
    model = TokenModel(
        layout,
        {"name": "uniform", "num_bins": 5},
        {"name": "gpt", "num_layers": 1, "num_heads": 1, "dim": 4},
        context=4,
    )
    model.tokenizer.fit(torch.tensor([[-3.0] * 5, [3.0] * 5]))
    strategy = SimpleNamespace(score=RewardScore(GAMMA), planner=SimpleNamespace(horizon=HORIZON))
    return SimpleNamespace(model=model, strategy=strategy)


def planned(run: Episodes, every: int) -> tuple[PlanLog, dict[tuple[int, int], np.ndarray]]:
    """A new plan every so many steps for those that still run; also by (environment, time)."""
    log, rng, known = PlanLog(), np.random.default_rng(1), {}
    for time in range(0, int(run.lengths.max()), every):
        running = np.flatnonzero(run.lengths > time)
        transitions = rng.normal(size=(len(running), HORIZON, 5)).astype(np.float32)
        log(time, running, Plan(torch.zeros(1), torch.zeros(len(running)), None, torch.from_numpy(transitions)))
        known |= {(int(e), time): plan for e, plan in zip(running, transitions, strict=True)}
    return log, known


@pytest.mark.parametrize(("every", "penalty"), [(1, None), (2, None), (3, None), (1, -10.0)])
def test_errors_are_of_what_was_carried_out(every: int, penalty: float | None) -> None:
    run = episodes()
    log, plans = planned(run, every)
    found = diagnose({"evaluation": (log, run)}, policy(penalty), DEVIATIONS)
    assert (found.unit, found.horizon, len(found.model["evaluation"])) == ("data", HORIZON, every)
    for steps, entry in enumerate(found.model["evaluation"], 1):
        points, seen, earned, unchanged, rounded = 0, [], [], [], []
        for (e, time), plan in plans.items():
            if time + steps > LENGTHS[e]:
                continue
            real = run.observations[e, time + steps, 0]
            points += 1
            if penalty is None or not TERMINATED[e] or time + steps < LENGTHS[e]:  # which is no reward
                earned.append((plan[steps - 1, 3] - run.rewards[e, time + steps - 1]) / 4.0)
            if steps < HORIZON:  # of the dimension that varies in the data, in its deviations
                seen.append((plan[steps, 0] - real) / 2.0)
                unchanged.append((run.observations[e, time, 0] - real) / 2.0)
                centre = -3 + 1.2 * (np.clip(np.floor((real + 3) / 1.2), 0, 4) + 0.5)
                rounded.append((centre - real) / 2.0)
        assert (entry.steps, entry.points) == (steps, points)
        assert entry.reward_rmse == pytest.approx(np.sqrt(np.mean(np.square(earned))))
        for name, gaps in (("observation_rmse", seen), ("persistence", unchanged), ("floor", rounded)):
            expected = np.sqrt(np.mean(np.square(gaps))) if gaps else None
            assert getattr(entry, name) == (None if expected is None else pytest.approx(expected, rel=1e-5)), name


@pytest.mark.parametrize("penalty", [None, -10.0])
def test_promised_returns_against_earned_ones(penalty: float | None) -> None:
    """Only plans whose future was seen count: to a true end, or as far as it matters."""
    run = episodes()
    log, plans = planned(run, 2)
    found = diagnose({"evaluation": (log, run)}, policy(penalty), DEVIATIONS).calibration
    rewards = run.rewards.copy()
    if penalty is not None:
        rewards[1, 5] = penalty
    short, whole = [], []
    for (e, time), plan in plans.items():
        left = LENGTHS[e] - time
        promised = sum(GAMMA**k * plan[k, 3] for k in range(HORIZON))
        if TERMINATED[e] or left >= HORIZON:
            short.append((promised, sum(GAMMA**k * rewards[e, time + k] for k in range(min(HORIZON, left)))))
        if TERMINATED[e] or GAMMA**left <= TAIL:
            promised += GAMMA**HORIZON * plan[HORIZON - 1, 4]
            whole.append((promised, sum(GAMMA**k * rewards[e, time + k] for k in range(left))))
    assert len(short) == 7
    assert len(whole) == 6  # of the cut episode those at 0, 2 and 4: four steps later less than a tenth counts
    for name, pairs in (("horizon", short), ("end", whole)):
        predicted, realised = np.array(pairs).T
        agreement = getattr(found, name)
        assert agreement.plans == len(pairs)
        assert agreement.predicted_mean == pytest.approx(predicted.mean(), rel=1e-5)
        assert agreement.realised_mean == pytest.approx(realised.mean(), rel=1e-5)
        assert agreement.bias == pytest.approx(np.mean(predicted - realised), rel=1e-5)
        assert agreement.correlation == pytest.approx(np.corrcoef(predicted, realised)[0, 1], rel=1e-5)
        np.testing.assert_allclose(sorted(agreement.points), sorted(pairs), atol=1e-3)


def test_a_critic_speaks_of_shifted_rewards() -> None:
    """What it promises is compared with rewards that are shifted like its own; imagined rewards are not."""
    run, log, promised = episodes(), PlanLog(), torch.tensor([2.0, -1.0])
    log(0, np.arange(2), Plan(torch.zeros(1), promised, None, torch.ones(2, HORIZON, 5)))
    plain, judged = policy(), policy()
    judged.strategy.score = CriticScore(GAMMA, SimpleNamespace(reward_shift=-1.0))
    found = diagnose({"evaluation": (log, run)}, judged, DEVIATIONS)
    shifted = [sum(GAMMA**k * (run.rewards[e, k] - 1.0) for k in range(LENGTHS[e])) for e in range(2)]
    np.testing.assert_allclose(found.calibration.end.points, np.stack([promised, shifted], 1), atol=1e-3)
    unjudged = diagnose({"evaluation": (log, run)}, plain, DEVIATIONS)
    assert found.model == unjudged.model
    assert found.calibration.horizon == unjudged.calibration.horizon


def test_without_known_deviations_those_of_the_episodes_serve() -> None:
    run = episodes()
    log, _ = planned(run, 2)
    found = diagnose({"evaluation": (log, run)}, policy(), None)
    real = np.concatenate([run.observations[0, :9], run.observations[1, :6]])
    spread = {"observation": real.std(0), "reward": [np.concatenate([run.rewards[0], run.rewards[1, :6]]).std()]}
    same = diagnose({"evaluation": (log, run)}, policy(), spread)
    assert found.unit == "visited"
    for one, other in zip(found.model["evaluation"], same.model["evaluation"], strict=True):
        assert asdict(one) == pytest.approx(asdict(other))


def test_a_perfect_model_is_perfect() -> None:
    run = episodes()
    log = PlanLog()
    for time in (0, 3):
        plan = np.zeros((2, HORIZON, 5), np.float32)
        for e, k in np.ndindex(2, HORIZON):
            plan[e, k, :2], plan[e, k, 3] = run.observations[e, time + k], run.rewards[e, time + k]
        log(time, np.arange(2), Plan(torch.zeros(1), torch.zeros(2), None, torch.from_numpy(plan)))
    found = diagnose({"evaluation": (log, run)}, policy(), DEVIATIONS)
    for entry in found.model["evaluation"]:
        assert entry.reward_rmse == pytest.approx(0, abs=1e-6)
        assert entry.observation_rmse in (None, pytest.approx(0, abs=1e-6))
    assert found.calibration.horizon.bias == pytest.approx(0, abs=1e-6)
    assert found.calibration.horizon.correlation == pytest.approx(1)


def test_a_plan_that_was_cut_short_tells_of_its_own_steps_only() -> None:
    """A time budget makes plans of different lengths."""
    run = episodes()
    log = PlanLog()
    for time, depth in ((0, 3), (3, 1), (4, 2)):
        log(time, np.arange(2), Plan(torch.zeros(1), torch.zeros(2), None, torch.zeros(2, depth, 5)))
    found = diagnose({"evaluation": (log, run)}, policy(), DEVIATIONS).model["evaluation"]
    assert [entry.points for entry in found] == [6, 4, 2]
    assert [entry.observation_rmse is None for entry in found] == [False, False, True]
    expected = np.array([run.observations[e, t + 1, 0] / 2 for e in range(2) for t in (0, 4)])
    assert found[0].observation_rmse == pytest.approx(np.sqrt(np.mean(expected**2)))


def test_plans_that_look_no_further_than_their_action_are_not_kept() -> None:
    log = PlanLog()
    log(0, np.arange(2), Plan(torch.zeros(2, 1, 1), torch.zeros(2), torch.zeros(2, 1, 5, dtype=torch.int64)))
    assert not log.imagines


@pytest.mark.parametrize("planner", ["beam", "sample"])
def test_a_beam_shows_what_it_imagined(planner: str) -> None:
    """Observations and actions as its tokens decode, rewards and values as it estimated them."""
    made = policy()
    for parameter in made.model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    options = {"beam_width": 2, "horizon": HORIZON, "context": 4} if planner == "beam" else {}
    acting = Policy(made.model, planner={"name": planner, **options}, score={"name": "reward"} if options else None)
    acting.reset(3)
    acting.act(np.zeros((3, 2)))
    assert acting.plan is not None
    if planner == "sample":
        assert acting.plan.transitions is None
        return
    assert acting.plan.transitions is not None
    assert acting.plan.tokens is not None
    decoded = made.model.tokenizer.decode(acting.plan.tokens)
    assert acting.plan.transitions[..., :3].equal(decoded[..., :3])
    rewards, values = acting.plan.transitions[..., 3], acting.plan.transitions[..., 4]
    score = (rewards * GAMMA ** torch.arange(3)).sum(-1) + GAMMA**3 * values[:, -1]
    torch.testing.assert_close(score, acting.plan.value.to(score))


def test_standard_deviations_of_a_store(tiny_store: EpisodeStore) -> None:
    found = tiny_store.standard_deviations()
    np.testing.assert_allclose(found["observation"], np.std(np.asarray(tiny_store.observations, np.float64), 0))
    np.testing.assert_allclose(found["action"], np.std(np.asarray(tiny_store.actions, np.float64), 0))
    np.testing.assert_allclose(found["reward"], [np.std(tiny_store.rewards.astype(np.float64))])


def test_the_picture_shows_what_there_is(tmp_path: Path, make_row: Callable[..., ResultsRow]) -> None:
    run = episodes()
    logs = {"evaluation": (planned(run, 2)[0], run), "open_loop": (planned(run, 3)[0], run)}
    whole = diagnose(logs, policy(), DEVIATIONS)
    empty = replace(whole, calibration=Calibration(None, None), model={})
    for name, quality in (("whole", whole), ("empty", empty)):
        path = draw_plan_quality(tmp_path / f"{name}.png", make_row(), quality)
        assert path.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "whole.png").stat().st_size > 1.5 * (tmp_path / "empty.png").stat().st_size
    assert {path.name for path in tmp_path.iterdir()} == {"whole.png", "empty.png"}


@pytest.mark.slow
def test_the_commands_write_draw_and_compare(in_folder_with_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from seqrl.cli import compare, evaluate, train

    quiet = ["training.progress_bar=false", "evaluation.settings.progress_bar=false", "training.loggers=[csv]"]
    data = ["data=d4rl", "data.path=hopper-tiny.hdf5", "debug=fast", *quiet]
    assert train.run([*data, "evaluation.settings.diagnostics=true"]) == 0
    assert "no diagnostics of zero: planner=zero imagines nothing" in capsys.readouterr().out
    (run,) = (in_folder_with_data / "runs").glob("run-*")
    for label, horizon, logs in (("beam_H_1", 1, {"evaluation"}), ("reward", 6, {"evaluation", "open_loop"})):
        (folder,) = (run / "evaluations").glob(f"{label}-*")
        content = json.loads((folder / "diagnostics.json").read_text())
        assert (content["horizon"], content["unit"], set(content["model"])) == (horizon, "data", logs)
        assert (folder / "diagnostics.png").read_bytes().startswith(b"\x89PNG")
    last = content["model"]["open_loop"][-1]
    assert last["steps"] == 5  # debug=fast cuts episodes after five steps
    assert not list((run / "evaluations").glob("zero-*/diagnostics.*"))
    assert compare.run([str(run), str(run), "--row", "reward", "--row-b", "zero"]) == 0
    assert "A - B: " in capsys.readouterr().out
    words = [f"checkpoint={run}", "strategy=reward", "planner.beam_width=2", "planner.horizon=2", "num_episodes=2"]
    assert evaluate.run([*words, "max_steps=5", "label=plain", "progress_bar=false"]) == 0
    assert [path.name for path in sorted((run / "evaluations").glob("plain-*/*"))] == ["episodes.npz", "results.json"]
