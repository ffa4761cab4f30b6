"""What is expected of a command that stands on Hydra: its switches, its keys, and parts put in place of others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from seqrl.cli import evaluate, rows, train
from seqrl.cli.presets import check_context, leave_out_foreign
from seqrl.cli.words import spell_words
from seqrl.errors import ConfigError
from seqrl.evaluation.hints import name_for_training

Checked = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _nothing_told_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_told", set())


@pytest.fixture
def checked(in_folder_with_data: object, capsys: pytest.CaptureFixture[str]) -> Checked:
    """Runs `seqrl train ... --check`; its exit status, and what it printed to each stream."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = train.run([*words, "--check"])
        return (status, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["experiment=maze2d_large", "data=d4rl", "data.path=hopper-tiny.hdf5", "evaluation=none"],
         ["data.maze='large' of experiment=maze2d_large is left out: data=d4rl has no such option"]),
        (["experiment=antmaze_ttq", "critic=ensemble", "data=maze2d", "evaluation=none"],
         ["critic.temperature=10.0 of experiment=antmaze_ttq is left out: critic=ensemble has", "data.id="]),
        (["method=dt", "layout=tt", "tokenizer=uniform", "objective=next_token", "evaluation=none"], []),
        (["experiment=maze2d_large", "layout=tt", "evaluation=none"],
         ["layout.goal of experiment=maze2d_large is left out"]),
        (["evaluation=none", "evaluation.rows.mine={strategy: detour, score: likelihood, planner: sample}"],
         ["score.terms={avoid", "of strategy=detour is left out: score=likelihood has"]),
    ],
)  # fmt: skip
def test_a_part_in_place_of_anothers_leaves_out_its_options_and_says_so(
    checked: Checked, words: list[str], told: list[str]
) -> None:
    status, out, err = checked(*words)
    assert (status, err) == (0, "")
    for each in told:
        assert each in out
    assert bool(told) == ("is left out" in out)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["experiment=maze2d_large", "data=d4rl", "data.path=hopper-tiny.hdf5", "data.maze=large"], "no option 'maze'"),
        (["data=d4rl", "data.path=hopper-tiny.hdf5", "+data.maze=large"], "no option 'maze'"),
    ],
)
def test_what_is_typed_is_refused_where_it_has_no_place(checked: Checked, words: list[str], told: str) -> None:
    status, _, err = checked(*words)
    assert (status, told in err) == (2, True)


def test_what_no_component_has_stays_for_the_refusal() -> None:
    config = {"data": {"name": "d4rl", "maze": "large", "mze": 3}, "seed": 0}
    left = leave_out_foreign(config, ["experiment=maze2d_large", "data=d4rl"], quiet=True)
    assert left == {"data": {"name": "d4rl", "mze": 3}, "seed": 0}
    assert leave_out_foreign(config, ["data=d4rl"]) == config, "no file stands above one's own"
    assert leave_out_foreign(config, ["experiment=maze2d_large"]) == config, "nobody chose another component"


@pytest.mark.parametrize("word", ["critic=null", "~critic"])
def test_the_critic_of_an_experiment_can_be_left_out(checked: Checked, word: str) -> None:
    status, out, err = checked("experiment=maze2d_sparse_rollouts", "evaluation=none", word)
    assert (status, err) == (0, "")
    assert "critic of experiment=maze2d_sparse_rollouts is left out, with its settings: expectile, temperature" in out


def test_settings_of_a_critic_that_are_typed_want_a_critic(checked: Checked) -> None:
    status, _, err = checked("experiment=maze2d_sparse_rollouts", "critic=null", "critic.expectile=0.9")
    assert status == 2
    assert "critic needs a name" in err


def test_a_default_context_is_at_most_the_window(checked: Checked) -> None:
    data = ["data=d4rl", "data.path=hopper-tiny.hdf5", "window.length=2"]
    assert checked(*data)[0] == 0
    for typed in ("planner.context=5", "evaluation.rows.reward.planner.context=5"):
        status, _, err = checked(*data, typed)
        assert status == 2
        assert "planner.context=5 is outside [2, 2], the trained window; use planner.context=null" in err


@pytest.mark.parametrize(
    ("word", "refused"),
    [
        ("planner.context=5", True),
        ("++evaluation.rows.mine={strategy: reward, planner: {context: 5}}", True),
        ("planner.context=4", False),
        ("planner.context=null", False),
        ("~planner.context", False),
        ("evaluation.rows.mine=null", False),
    ],
)
def test_a_typed_context_is_not_cut(word: str, refused: bool) -> None:
    with pytest.raises(ConfigError, match=r"context=5 is outside \[2, 4\]") if refused else nullcontext():
        check_context([word], lambda: 4)


@pytest.mark.parametrize("command", [train, evaluate])
@pytest.mark.parametrize(
    "word", ["hydra.run.dir=x", "++hydra.run.dir=x", "hydra.output_subdir=x", "hydra.job.chdir=true"]
)
def test_settings_that_the_commands_need_are_refused_by_name(
    command: object, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run([word]) == 2  # type: ignore[attr-defined]
    assert f"{word.partition('=')[0].lstrip('+')} is not for users, since " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (["--info"], ["--info=all"]),
        (["--info", "seed=1"], ["--info=all", "seed=1"]),
        (["seed=1", "-i"], ["--info=all", "seed=1"]),  # switches first
        (["--info", "defaults"], ["--info", "defaults"]),
        ([], []),
    ],
)
def test_info_stands_alone(words: list[str], written: list[str]) -> None:
    assert spell_words("train", words) == spell_words("evaluate", words) == written


def test_info_prints(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "seqrl", "train", "--info", "seed=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Defaults List" in done.stdout
    assert "seed: 1" in done.stdout


def test_help_names_the_groups_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    def groups(command: object, switch: str) -> set[str]:
        with pytest.raises(SystemExit) as end:
            command.run([switch])  # type: ignore[attr-defined]
        assert not end.value.code
        listed = capsys.readouterr().out.partition("== Configuration groups ==")[2].partition("== Config ==")
        assert "seed: 0" in listed[2]
        return {line.partition(":")[0] for line in listed[0].splitlines() if ": " in line}

    assert groups(evaluate, "--help") == groups(evaluate, "-h") == {"condition", "planner", "score", "strategy"}
    assert {"tokenizer", "experiment", "trainer", "planner"} <= groups(train, "--help")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("evaluation.rows.reward=imitation", "is imitation; give settings of conf/evaluate.yaml, as in 'evaluation.rows"
         ".reward={strategy: imitation}', or null"),
        ("evaluation.rows.reward=3", "row 'reward' of evaluation.rows is 3; give settings of conf/evaluate.yaml"),
        ("evaluation.rows.mine='goal'", "row 'mine' of evaluation.rows is goal; give settings"),
    ],
)  # fmt: skip
def test_a_row_that_is_no_tree(checked: Checked, word: str, told: str) -> None:
    status, _, err = checked(word)
    assert (status, told in err) == (2, True), err


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("evaluation.rows={mine: {strategy: zero}}",
         "adds to the rows 'zero', 'random', 'greedy imitation', 'beam H=1', 'reward'; evaluation=none leaves"),
        ("evaluation.rows={greedy imitation: {strategy: imitation}}",
         "row 'greedy imitation' keeps planner.temperature=0 of its file"),
        ("evaluation.rows={zero: null}", "adds to the rows 'random', "),
        ("evaluation.rows.reward={planner: {horizon: 2}}", "row 'reward' keeps strategy='reward' of its file"),
        ("evaluation.rows.zero={strategy: reward}", ""),
        ("~evaluation.rows.greedy imitation", ""),
        ("~evaluation.rows.beam H=1", ""),
        ("evaluation.rows.mine={strategy: zero}", ""),
    ],
)  # fmt: skip
def test_what_stays_of_a_files_rows_is_told(checked: Checked, word: str, told: str) -> None:
    status, out, err = checked("data=d4rl", "data.path=hopper-tiny.hdf5", word)
    assert (status, err) == (0, "")
    assert told in out
    assert bool(told) == ("adds to" in out or "keeps" in out)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["layout=tt_goal", "strategy=goal"], "add evaluation.settings.goals=[["),
        (["evaluation.settings.regions=[[0,0,1,1]]"], "add evaluation.settings.goals=[["),
        (["evaluation.settings.plan_every=99"], "evaluation.settings.plan_every=99 is outside"),
    ],
)
def test_hints_name_the_keys_of_a_training(checked: Checked, words: list[str], told: str) -> None:
    status, _, err = checked("data=maze2d", *words)
    assert (status, told in err) == (2, True), err


def test_a_key_is_named_once() -> None:
    assert name_for_training("add goals=[[x, y]]") == "add evaluation.settings.goals=[[x, y]]"
    both = "give evaluation.settings.max_steps=1000, max_steps=1000 or --max-steps 1000"
    assert name_for_training(both) == both
    assert name_for_training("training.max_steps=3, layout.goal=x") == "training.max_steps=3, layout.goal=x"
