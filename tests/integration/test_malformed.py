"""Settings drawn at random, most of them wrong: each ends in a sentence, before data are touched."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from seqrl.cli import train
from seqrl.registry import DATA

NUMBERS = [  # settings that hold a number and nothing else
    *("seed", "window.length", "training.max_steps", "training.batch_size", "training.validation_fraction"),
    *("training.keep_last", "critic_training.learning_rate", "trainer.num_nodes", "layout.discount", "layout.stride"),
    *("layout.fields.action.loss_weight", "tokenizer.num_bins", "backbone.num_layers", "backbone.dim"),
    *("backbone.residual_dropout", "optimizer.learning_rate", "optimizer.weight_decay", "scheduler.warmup_fraction"),
    *("data.num_transitions", "data.seed", "data.action_noise", "evaluation.settings.num_episodes"),
    *("evaluation.settings.seed", "evaluation.settings.plan_every", "evaluation.settings.min_cells"),
]
FLAGS = ["training.progress_bar", "window.terminate_truncated", "trainer.compile", "evaluation.figure"]
WORDS = ["data.maze", "data.episodes", "objective.average", "trainer.precision", "evaluation.settings.precision"]
SECTIONS = ["", "training.", "window.", "layout.", "layout.fields.action.", "tokenizer.", "backbone.", "optimizer."]
SECTIONS += ["trainer.", "data.", "evaluation.", "evaluation.settings.", "critic_training.", "objective."]
NO_NUMBER = ["'1e3'", "abc", "null", "[1]", "[]", "{a: 1}", "true", "ünïcode", "nan", "-inf", "''", "'１'"]
NO_FLAG = ["1", "'true'", "maybe", "null", "[true]", "{}", "2.5"]
NO_WORD = ["1", "null", "[a]", "{}", "true", "'日本'", "Umaze", "''"]
MISSPELT = ["max_stepz", "ema", "lenght", "Name", "x.y", "ключ"]
EXTREME = ["-1", "0", "1", "1e9", "-1e-9", "0.5", "99999999999999999999", "2", "1.0"]


def draw(number: int) -> Iterator[tuple[list[str], bool]]:
    """(words, whether they must be refused)."""
    rng = random.Random(11)
    for _ in range(number):
        kind = rng.randrange(6)
        if kind == 0:
            yield [f"{rng.choice(NUMBERS)}={rng.choice(NO_NUMBER)}"], True
        elif kind == 1:
            yield [f"{rng.choice(FLAGS)}={rng.choice(NO_FLAG)}"], True
        elif kind == 2:
            yield [f"{rng.choice(WORDS)}={rng.choice(NO_WORD)}"], True
        elif kind == 3:
            plus = rng.choice(["", "+", "++"])
            yield [f"{plus}{rng.choice(SECTIONS)}{rng.choice(MISSPELT)}={rng.choice(['1', 'null', '{}'])}"], True
        elif kind == 4:
            yield [f"{rng.choice(NUMBERS)}={rng.choice(EXTREME)}"], False
        else:
            both = [f"{rng.choice(NUMBERS)}={rng.choice(EXTREME)}", f"{rng.choice(WORDS)}={rng.choice(NO_WORD)}"]
            yield both, True


def refuse_to_load(self: object) -> None:
    raise AssertionError("data were touched")


@pytest.mark.parametrize("number", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_what_is_malformed_ends_in_a_sentence(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in DATA.builtin_names():
        monkeypatch.setattr(DATA.get(name), "load", refuse_to_load)
    for words, malformed in draw(number):
        status = train.run(["--check", "evaluation=none", *words])
        told = capsys.readouterr().err
        assert status in ((2,) if malformed else (0, 2)), (words, told)
        assert "Traceback" not in told
        if status == 2:
            assert told.startswith("ConfigError: "), (words, told)
            assert told.count("\n") == 1, (words, told)
            assert len(told) < 1000
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_key_of_an_experiment_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ntraining: {max_stepz: 3}\n")
    assert train.run(["--check", f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"]) == 2
    assert "no setting 'training.max_stepz'. Did you mean 'max_steps'?" in capsys.readouterr().err


def test_a_sound_configuration_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.run(["--check", "method=tap"]) == 0
    assert "sound" in capsys.readouterr().out
    assert train.run(["--check", "backbone.dim=130"]) == 2
    assert "backbone.dim=130 is no multiple of backbone.num_heads=4" in capsys.readouterr().err
    assert train.run(["--check", "-m", "seed=1,2"]) == 2
    assert "leave -m out" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "words", "told"),
    [
        ("seed: 1: 2", [], "a configuration file is no yaml (mapping values are not allowed here"),
        ("seed: ${nowhere}", [], "seed refers to what there is not"),
        ("evaluation: {rows: {mine: {strategy: 3}}}", [], "row 'mine' of evaluation.rows has strategy=3"),
        ("", ["evaluation.baseline=rewart"], "'rewart' is none of the rows. Did you mean 'reward'? Rows: zero,"),
        ("", ["name=../elsewhere"], "name='../elsewhere' cannot begin the name of a folder"),
        ("", ["~backbone"], "the section 'backbone' was taken out"),
        ("", ["~optimizer.clip_norm"], "~optimizer.clip_norm takes out a setting that every run needs"),
        (
            "",
            ["evaluation.rows.mine={strategy: zero, checkpoint: /etc/passwd}"],
            "sets 'checkpoint', which is the run's",
        ),
        ("", ["backbone=null"], "backbone=null chooses no option; give the name of one"),
        ("", ["tokenizer.num_bins=ü"], "letters beyond ASCII stand in quotes"),
    ],
)
def test_what_no_type_tells_is_refused_as_well(
    content: str,
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{content}\n")
    assert train.run(["--check", "--config-dir", "conf", "experiment=mine", *words]) == 2
    message = capsys.readouterr().err
    assert message.startswith("ConfigError: "), message
    assert told in message
