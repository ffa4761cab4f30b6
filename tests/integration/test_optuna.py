"""Searches: trials are jobs of a sweep, the study is a file beside them, and the same command goes on."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from matplotlib import pyplot

from seqrl.cli import train
from seqrl.cli.optuna_report import draw_study
from seqrl.cli.optuna_space import Space
from seqrl.errors import ConfigError
from seqrl.training.studies import JOURNAL, open_study

optuna = pytest.importorskip("optuna", reason="seqrl[optuna] is not installed")

Command = Callable[..., int]
TINY = [
    *("data=d4rl", "data.path=hopper-tiny.hdf5", "debug=fast", "training.progress_bar=false", "evaluation=none"),
    *("training.loggers=[csv]", "training.max_steps=8", "training.validate_every=2", "training.log_every=1"),
]
RATE = "optimizer.learning_rate=tag(log,interval(1e-6,1e-1))"
SETTINGS = ["hydra/sweeper=optuna", "hydra.sweeper.startup_trials=2"]


def space(*overrides: str) -> Space:
    return Space(list(overrides), OverridesParser.create())


@pytest.fixture
def search(in_folder_with_data: Path) -> Command:
    return lambda *arguments: train.run(["-m", *TINY, *SETTINGS, *arguments])


def study(folder: Path) -> optuna.Study:
    (journal,) = folder.glob(f"runs/sweep-*/{JOURNAL}")
    return open_study(journal)


def summary(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.glob("runs/sweep-*/summary.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=interval(0.1,2)", optuna.distributions.FloatDistribution(0.1, 2)),
        ("a=int(interval(1,8))", optuna.distributions.IntDistribution(1, 8)),
        ("a=tag(log,interval(1e-4,1e-2))", optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)),
        ("a=tag(log,int(interval(1,64)))", optuna.distributions.IntDistribution(1, 64, log=True)),
        ("a=range(0,10,3)", optuna.distributions.IntDistribution(0, 9, step=3)),
        ("a=range(0.0,1.0,0.25)", optuna.distributions.FloatDistribution(0.0, 0.75, step=0.25)),
        ("a=x,y", optuna.distributions.CategoricalDistribution(["x", "y"])),
        ("+a=choice([1,2],none)", optuna.distributions.CategoricalDistribution(["[1,2]", "none"])),
    ],
)
def test_overrides_are_distributions(override: str, expected: optuna.distributions.BaseDistribution) -> None:
    assert space(override).distributions == {"a": expected}


def test_what_varies_goes_back_into_overrides() -> None:
    both = space("seed=3", "+a=1,2", "b=interval(0.0,1.0)")
    assert both.overrides({"a": "2", "b": 0.123456789}) == ["seed=3", "+a=2", "b=0.123457"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("a=1", "nothing is searched"),
        ("a=tag(often,interval(0,1))", "tags are log"),
        ("a=interval(2,1)", "is no search space"),
        ("a=tag(log,interval(0,1))", "is no search space"),
        ("a=range(3,3)", "it is empty"),
    ],
)
def test_a_space_without_meaning_is_refused(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        space(override)


def test_a_search_prunes_goes_on_and_tells_the_best(
    search: Command, in_folder_with_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two trials with learning rates that learn, then one with none to speak of: it is given up at a validation."""
    folder = in_folder_with_data
    assert search("hydra.sweeper.n_trials=2", "optimizer.learning_rate=tag(log,interval(1e-2,1e-1))") == 0
    found = study(folder)
    for trial, row in zip(found.trials, summary(folder), strict=True):
        assert row["status"] == "done"
        assert float(row["optimizer.learning_rate"]) == pytest.approx(trial.params["optimizer.learning_rate"], rel=1e-5)
        assert trial.value == pytest.approx(float(row["val/loss"]), rel=1e-4)
        assert sorted(trial.intermediate_values) == [2, 4, 6, 8], "every validation"

    found.enqueue_trial({"optimizer.learning_rate": 1e-2 * (1 + 1e-9)})
    capsys.readouterr()
    assert search("hydra.sweeper.n_trials=3", "optimizer.learning_rate=tag(log,interval(1e-2,1e-1))") == 0
    assert len(study(folder).trials) == 3, "the same command with more trials goes on"
    best = min(summary(folder), key=lambda row: float(row["val/loss"]))
    said = capsys.readouterr().out
    assert f"with optimizer.learning_rate={best['optimizer.learning_rate']}" in said
    assert f"({best['run']})" in said
    (picture,) = folder.glob("runs/sweep-*/search.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_hopeless_trial_is_pruned_not_failed(search: Command, in_folder_with_data: Path) -> None:
    folder = in_folder_with_data
    assert search("hydra.sweeper.n_trials=1", RATE) == 0
    begun = study(folder)
    for rate in (0.05, 0.06, 1e-6):
        begun.enqueue_trial({"optimizer.learning_rate": rate})
    assert search("hydra.sweeper.n_trials=4", RATE) == 0
    *_, last = study(folder).trials
    assert last.state == optuna.trial.TrialState.PRUNED
    assert max(last.intermediate_values) < 8
    row = summary(folder)[-1]
    assert row["status"] == "pruned"
    assert '"state": "pruned"' in (folder / row["run"] / "status.json").read_text()

    lines = (folder / row["run"] / "metrics.csv").read_text().splitlines()[1:]
    assert max(int(line.partition(",")[0]) for line in lines) == max(last.intermediate_values), (
        "nothing was trained after it"
    )
    learning = f"optimizer.learning_rate={row['optimizer.learning_rate']}"
    assert train.run([*TINY, learning]) == 0, "by itself the run goes on"
    assert '"state": "done"' in (folder / row["run"] / "status.json").read_text()


def test_a_killed_search_goes_on_with_its_trial(
    search: Command, in_folder_with_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = in_folder_with_data

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "_train", interrupt)
        assert search("hydra.sweeper.n_trials=1", RATE) == 130
    (begun,) = study(folder).trials
    assert begun.state == optuna.trial.TrialState.RUNNING
    assert search("hydra.sweeper.n_trials=1", RATE) == 0
    (trial,) = study(folder).trials
    assert trial.state == optuna.trial.TrialState.COMPLETE
    assert trial.params == begun.params


def test_a_failed_trial_is_tried_again_and_teaches_nothing(
    search: Command, in_folder_with_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = in_folder_with_data

    def fail(*arguments: object) -> None:
        raise RuntimeError("the disk is on fire")

    with monkeypatch.context() as patch:
        patch.setattr(train, "_train", fail)
        assert search("hydra.sweeper.n_trials=1", RATE) == 1
    assert [trial.state.name for trial in study(folder).trials] == ["FAIL"]
    assert search("hydra.sweeper.n_trials=1", RATE) == 0
    first, second = study(folder).trials
    assert second.params == first.params
    assert second.state == optuna.trial.TrialState.COMPLETE
    assert [row["status"] for row in summary(folder)] == ["done"]


def test_an_evaluation_can_be_maximised_in_batches(search: Command, in_folder_with_data: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    row = ['evaluation.strategies={still:["strategy=zero"]}', "evaluation.settings.progress_bar=false"]
    words = [*row, "objective_metric=eval/still/return_mean", "seed=1,2", "hydra.sweeper.sampler=random"]
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2"]
    assert search(*words, *launcher, "hydra.sweeper.n_trials=2") == 0
    found = study(in_folder_with_data)
    assert found.direction.name == "MAXIMIZE"
    for trial, line in zip(found.trials, summary(in_folder_with_data), strict=True):
        assert trial.value == pytest.approx(float(line["eval/still/return_mean"]), rel=1e-4)
        assert not trial.intermediate_values, "nothing to prune by"


@pytest.mark.parametrize("setting", ["sampler=tpee", "pruner=axe", "direction=up", "n_trials=0"])
def test_a_setting_that_does_not_exist_is_refused(
    search: Command, setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(RATE, f"hydra.sweeper.{setting}") == 2
    assert f"hydra.sweeper.{setting} is " in capsys.readouterr().err


@pytest.mark.parametrize("number", [1, 6])
def test_a_search_is_drawn_whatever_it_searched(tmp_path: Path, number: int) -> None:
    spaces = {
        "rate": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True),
        "kind": optuna.distributions.CategoricalDistribution(["a", "b"]),
        "never": optuna.distributions.IntDistribution(1, 1),
    }
    found = optuna.create_study()
    found.set_user_attr("objective", "val/loss")
    for trial in range(number):
        params = {"rate": 10.0 ** -(trial % 4), "kind": "ab"[trial % 2], "never": 1}
        state = optuna.trial.TrialState.PRUNED if trial == 3 else optuna.trial.TrialState.COMPLETE
        found.add_trial(
            optuna.create_trial(
                state=state, value=float(trial % 4), params=params, distributions=spaces,
                intermediate_values={1: 2.0, 2: 1.0},
            )
        )  # fmt: skip
    style = dict(matplotlib.rcParams)
    pictures = draw_study(tmp_path, found)
    names = ["search.png", "search_validations.png"]
    names += ["search_slices.png", "search_importances.png"] if number > 1 else []  # of one trial nothing varies
    assert [path.name for path in pictures] == names
    assert sorted(pictures) == sorted(tmp_path.iterdir())
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert {key: value for key, value in matplotlib.rcParams.items() if key != "backend"} == {
        key: value for key, value in style.items() if key != "backend"
    }
    assert not pyplot.get_fignums()
