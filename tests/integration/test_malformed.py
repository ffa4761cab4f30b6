"""Settings drawn at random, most of them wrong: each ends in a sentence, before data are touched.

The draws go over everything that `seqrl train --cfg job` shows, rows, switches and the files of a user. 500 are the
same every time, 200 are of the day; of what passes `--check`, some are run.
"""

from __future__ import annotations

import random
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import hydra
import pytest
from hydra._internal.hydra import Hydra
from omegaconf import OmegaConf

from seqrl.cli import train
from seqrl.paths import config_dir
from seqrl.registry import DATA

Draw = tuple[list[str], bool]  # the words, and whether they must be refused

NO_NUMBER = ["'1e3'", "abc", "[1]", "[]", "{a: 1}", "true", "'ünïcode'", "nan", "-inf", "''", "'１'", "0x10", "1e999"]
NO_FLAG = ["1", "'true'", "maybe", "[true]", "{}", "2.5", "''"]
NO_WORD = ["1", "[a]", "{a: b}", "true", "'日本'", "nope", "''", "2.5"]
NO_LIST = ["1", "{a: b}", "true", "'日本'", "2.5"]
NO_SECTION = ["1", "[a]", "true", "'日本'", "''", "[[1, 2], 3]"]
EXTREME = [
    "-1",
    "0",
    "1",
    "1000000000",
    "-1e-9",
    "0.5",
    "99999999999999999999",
    "2",
    "1.0",
    "1e300",
    "-1e300",
    "1e-300",
]
FREE = ("runs_dir", "experiment_name")  # any text will do
MISSPELT = ["max_stepz", "ema", "lenght", "Name", "x.y", "ключ", "entry_point", "_target_", "defaults"]
GROUPS = ["data", "layout", "tokenizer", "backbone", "objective", "optimizer", "scheduler", "trainer", "evaluation"]
GROUPS += ["critic", "method", "experiment", "debug", "strategy", "hydra/launcher", "hydra/sweeper"]
NO_OPTION = ["nope", "[nope]", "3", "true", "{a: b}", "''", "../../etc", "'ünï'", "null,3"]
WORDS = ["foo", "--chek", "-x", "=3", "~=3", "+", "a..b=1", "a.=1", "seed", "ü=1", "seed=1,2", "seed=[1", "name=o'k"]
WORDS += ["training.max_steps=1e3", "evaluation.settings.num_episodes=2.5", "backbone.num_layers=0", "hydra.mode=nope"]
WORDS += ["objective_metric=val/nope", "objective_metric=eval/reward/nope", "evaluation.baseline=rewart", "~evaluation"]
WORDS += ["trainer.strategy=nope", "+trainer.strategy=[ddp]", "trainer=ddp trainer.strategy=3", "plugins=null", "~seed"]
WORDS += ["plugins=[nope.py]", "plugins=[3]", "name=../x", "name=''", "strategy=nope", "strategy=a,b", "planner=beam"]
WORDS += [
    "critic=iql critic_training.max_steps=0",
    "critic=iql critic_training.learning_rate=nan",
    "~training.max_steps",
]
WORDS += ["critic_training.clip_norm=0", "critic_training.loggers=csv", "critic=iql critic.nope=1", "data.mix=[3]"]
WORDS += ["planner.beam_width=a", "planner.beam_widht=3", "condition.target=3", "evaluation.settings.device=meta"]
WORDS += ["evaluation.settings.goals=[[1]]", "evaluation.settings.env_id=nope", "-m --check seed=1,2", "training=null"]
ROWS = ["3", "[a]", "{}", "{strategy: 3}", "{strategy: nope}", "{planner: beam}", "{strategy: zero, planner: 3}"]
ROWS += ["{strategy: zero, planner: null}", "{strategy: zero, planner: {name: [a]}}", "{strategy: zero, seed: -1}"]
ROWS += ["{strategy: reward, planner: {beam_width: 0}}", "{strategy: zero, nope: 1}", "{strategy: zero, output: a}"]
FILES = [
    "training: {max_stepz: 3}",
    "training: 3",
    "training: [1]",
    "nope: 3",
    "seed: 'three'",
    "seed: 1: 2",
    "- a",
    "3",
]
FILES += ["evaluation: {baseline: rewart}", "evaluation: {rows: {x: 3}}", "evaluation: null", "backbone: {name: nope}"]
FILES += [
    "seed: ${nowhere}",
    "seed: ${seed}",
    "optimizer: {learning_rate: 1e3x}",
    "trainer: {strategy: nope}",
    "data: null",
]
FILES += [
    "evaluation: {settings: {num_episodes: 2.5}}",
    "critic_training: {learning_rate: [1]}",
    "window: {length: ünï}",
]
FILES += ["defaults: [nope]", "defaults: 3", "layout: {fields: {rewards: {}}}", "data: null", "training: {ema: 0.99}"]


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield f"{prefix}{name}", value
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@pytest.fixture(scope="module")
def settings() -> list[tuple[str, Any]]:
    """Every setting of a run with a critic, and its default."""
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        composed = OmegaConf.to_container(hydra.compose("train", ["critic=iql"]))
    assert isinstance(composed, dict)
    return [(key, value) for key, value in leaves(composed) if not key.startswith(("evaluation.rows", "hydra"))]


def draw(rng: random.Random, settings: list[tuple[str, Any]]) -> Draw:
    kind = rng.choice(["type", "type", "type", "extreme", "extreme", "misspelt", "group", "word", "row", "file"])
    key, value = rng.choice(settings)
    base = ["critic=iql"] if key.startswith("critic.") else []
    if kind == "type":
        return [*base, f"{key}={rng.choice(wrong_values(value))}"], value is not None and key not in FREE
    if kind == "extreme":
        numbers = [each for each in settings if isinstance(each[1], int | float) and not isinstance(each[1], bool)]
        chosen = rng.sample(numbers, rng.randrange(1, 3))
        return ["critic=iql", *(f"{key}={rng.choice(EXTREME)}" for key, _ in chosen)], False
    if kind == "misspelt":
        section = key.rpartition(".")[0]
        word = f"{section}.{rng.choice(MISSPELT)}" if section else rng.choice(MISSPELT)
        # A field may be any array that the data record beside their steps, and the data are not looked at here.
        wrong = section != "layout.fields"
        return [*base, f"{rng.choice(['', '+', '++'])}{word}={rng.choice(['1', 'null', '{}'])}"], wrong
    if kind == "group":
        return [f"{rng.choice(['', '+'])}{rng.choice(GROUPS)}={rng.choice(NO_OPTION)}"], True
    if kind == "row":
        return [f"evaluation.rows.mine={rng.choice(ROWS)}"], True
    if kind == "file":
        return [f"FILE {rng.choice(FILES)}"], True
    return rng.choice(WORDS).split(), True


def wrong_values(value: Any) -> list[str]:
    if isinstance(value, bool):
        return NO_FLAG
    if isinstance(value, int | float):
        return NO_NUMBER
    if isinstance(value, Mapping):
        return NO_SECTION
    return NO_LIST if isinstance(value, list) else NO_WORD


def refuse_to_load(self: object) -> None:
    raise AssertionError("data were touched")


class Command:
    """`seqrl train` in this process, in a folder with files of a user."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.files = folder / "files" / "experiment"
        self.files.mkdir(parents=True)
        self.capsys = capsys

    def run(self, words: list[str], *, check: bool) -> tuple[int, str]:
        """(exit status, what was told as an error)."""
        if words[0].startswith("FILE "):
            content = words[0].removeprefix("FILE ")
            (self.files / "mine.yaml").write_text(f"# @package _global_\n{content}\n", encoding="utf-8")
            words = ["--config-dir", str(self.files.parent), "experiment=mine", *words[1:]]
        with mock.patch.object(Hydra, "get_mode", return_value=None):  # composes a second time
            status = train.run([*(["--check"] if check else []), *words])
        return status, self.capsys.readouterr().err


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path / "data"))
    return Command(tmp_path, capsys)


def check_told(words: list[str], status: int, told: str) -> None:
    assert status in (0, 2), (words, told)
    assert "Traceback" not in told, (words, told)
    assert "None" not in told, (words, told)  # which nobody can type
    if status == 2:
        assert re.match(r"(Config|Plugin|UnknownComponent|Data|Checkpoint)Error: ", told), (words, told)
        assert len(told) < 1500, (words, told)


@pytest.mark.parametrize(
    ("number", "seed"),
    [
        pytest.param(30, 11, id="some"),
        pytest.param(500, 12, marks=pytest.mark.slow, id="fixed"),
        pytest.param(200, int(time.time() // 86400), marks=pytest.mark.slow, id="of-the-day"),
    ],
)
def test_what_is_malformed_ends_in_a_sentence(
    number: int, seed: int, command: Command, settings: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {seed}")
    for name in DATA.builtin_names():
        monkeypatch.setattr(DATA.get(name), "load", refuse_to_load)
    rng = random.Random(seed)
    for _ in range(number):
        words, malformed = draw(rng, settings)
        status, told = command.run([*words, *([] if "evaluation" in str(words) else ["evaluation=none"])], check=True)
        check_told(words, status, told)
        assert status == 2 or not malformed, (words, told)
    assert list(Path.cwd().iterdir()) == []


SHORT = ["debug=fast", "data.num_transitions=400", "training.max_steps=1", "training.loggers=[csv]"]
SHORT += ["training.progress_bar=false", "training.validation_batches=1", "critic_training.max_steps=1"]
SHORT += ["evaluation.settings.progress_bar=false", "evaluation.settings.num_episodes=1", "strategy=imitation"]
HEAVY = ("training.batch_size", "critic_training.batch_size", "num_episodes", "max_steps", "num_transitions")
HEAVY += ("window.length", "num_layers", "dim", "num_bins", "devices", "num_nodes", "num_threads")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [13, int(time.time() // 86400)], ids=["fixed", "of-the-day"])
def test_nothing_is_refused_after_a_stage_was_trained(
    seed: int, command: Command, settings: list[tuple[str, Any]]
) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    numbers = [key for key, value in settings if isinstance(value, int | float) and not key.endswith(HEAVY)]
    for _ in range(25):
        chosen = [f"{rng.choice(numbers)}={rng.choice(EXTREME)}" for _ in range(2)]
        words = [*SHORT, *(["critic=iql"] if "critic" in str(chosen) else []), *chosen]
        status, told = command.run(words, check=False)
        check_told(words, status, told)
        assert status == 0 or not list(Path.cwd().glob("runs/*/*/last.ckpt")), (words, told)
        shutil.rmtree("runs", ignore_errors=True)


def test_an_unknown_key_of_an_experiment_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ntraining: {max_stepz: 3}\n")
    assert train.run(["--check", f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"]) == 2
    assert "no setting 'training.max_stepz'. Did you mean 'training.max_steps'?" in capsys.readouterr().err


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
    ("content", "told"),
    [
        ("3", "holds 3, no settings"),
        ("2.5", "holds 2.5, no settings"),
        ("2020-01-01", "no settings"),
        ("abc", "holds 'abc', no settings"),
        ("- a", "holds ['a'], no settings"),
        ("!!binary aGk=", "no settings"),
        ("!!set {a}", "no settings"),
        ("3: 4", "names a setting 3, which is no text"),
        ("null: 3", "names a setting null, which is no text"),
        ("{a: 1}: 3", "cannot be read (it is no YAML: while constructing a mapping"),
        ("a: [", "cannot be read (it is no YAML: "),
        ("a: \x00", "cannot be read (it is no YAML: "),
        ("a: &a [*a]", "cannot be read (it is no YAML: it holds something that is part of itself)"),
        ("a: !!python/name:os.system", "cannot be read (it is no YAML: could not determine a constructor"),
    ],
)
@pytest.mark.parametrize("words", [["experiment=mine"], ["+training=mine"]])
def test_a_file_that_holds_no_settings_is_named(
    content: str,
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    group = words[0].lstrip("+").partition("=")[0]
    (tmp_path / "conf" / group).mkdir(parents=True)
    (tmp_path / "conf" / group / "mine.yaml").write_text(f"# @package _global_\n{content}\n")
    for folder in (["--config-dir", "conf"], [f"hydra.searchpath=[file://{tmp_path}/conf]"]):
        assert train.run(["--check", *folder, *words]) == 2
        message = capsys.readouterr().err
        assert message.startswith("ConfigError: "), message
        assert f"conf/{group}/mine.yaml' " in message
        assert told in message


@pytest.mark.parametrize("content", ["3", "true", "!!binary aGk="])
def test_a_file_that_another_one_chooses_is_judged_as_well(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ndefaults: [other]\n")
    (tmp_path / "experiment" / "other.yaml").write_text(f"{content}\n")
    assert train.run(["--check", "--config-dir", str(tmp_path), "experiment=mine"]) == 2
    assert capsys.readouterr().err.startswith("ConfigError: a configuration file holds no settings (")


@pytest.mark.parametrize("text", ["seed: 3\n", "# mine\n# @package _global_\nseed: 3\n", "# @package data\nseed: 3\n"])
@pytest.mark.parametrize("group", ["experiment", "method"])
def test_a_file_that_sets_other_groups_says_so_in_its_first_line(
    group: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(text)
    words = ["--check", "--config-dir", str(tmp_path), f"{group}=mine", "evaluation=none"]
    assert train.run(words) == 2
    assert "begin it with the line '# @package _global_', before any other" in capsys.readouterr().err
    (tmp_path / group / "mine.yaml").write_text("\n# @package _global_\n# mine\nseed: 3\n")
    assert train.run(words) == 0


@pytest.mark.parametrize(
    ("content", "words", "told"),
    [
        ("seed: 1: 2", [], "mine.yaml' cannot be read (it is no YAML: mapping values are not allowed here"),
        ("seed: ${nowhere}", [], "seed refers to what there is not"),
        ("evaluation: {rows: {mine: {strategy: 3}}}", [], "row 'mine' of evaluation.rows has strategy=3"),
        ("", ["evaluation.baseline=rewart"], "'rewart' is none of the rows. Did you mean 'reward'? Rows: zero,"),
        ("", ["name=../elsewhere"], "name='../elsewhere' cannot begin the name of a folder"),
        ("", ["~backbone"], "the section 'backbone' was taken out"),
        ("", ["~optimizer.clip_norm"], "~optimizer.clip_norm takes out a setting that every run needs"),
        ("", ["~layout.fields"], "~layout.fields takes out a setting that every run needs"),
        (
            "",
            ["evaluation.rows.mine={strategy: zero, checkpoint: /etc/passwd}"],
            "sets 'checkpoint', which is the run's",
        ),
        ("", ["backbone=null"], "backbone=null chooses no option; give the name of one"),
        ("", ["seed=3", "backbone=null"], "backbone=null chooses no option; give the name of one"),
        ("", ["tokenizer.num_bins=ü"], "put it in quotes"),
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
