"""What becomes of the words of a command before Hydra reads them."""

from __future__ import annotations

import random
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

from seqrl.cli.words import explain_word, quote_paths, quote_value, show_quoted, spell_words
from seqrl.errors import ConfigError

ODD = ["run#1/a", "~/a", "o'k", "a&b", "c[1]", "a b", " a", "a=b", "{a}", "a!b", "(a)", "f(a)", 'a"b', "'a", "日本"]
ODD += ["123", "1e3", "true", "[1].h5", "int(3)", "a;b", "a<b>", "a`b", "läufe", "a$b", "a:b", "C:\\a", "x{1}", "a^b"]


def value_of(word: str) -> Any:
    value = OverridesParser.create().parse_override(word).value()
    if isinstance(value, list):
        return [getattr(each, "text", each) for each in value]
    return getattr(value, "text", value)


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("key", ["data.path", "runs_dir", "checkpoint", "+data.cache_dir", "hydra.sweep.dir"])
def test_a_path_is_taken_as_it_stands(key: str, text: str) -> None:
    assert value_of(quote_paths(f"{key}={text}")) == text


@pytest.mark.parametrize("word", ["data.path=null", "data.path=${runs_dir}/a", "output='a b'", 'runs_dir="a,b"'])
def test_what_the_grammar_says_on_purpose_stays(word: str) -> None:
    assert quote_paths(word) == word


def test_a_comma_is_part_of_a_path_only_where_there_is_such_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert quote_paths("data.path=a,b.npz") == "data.path=a,b.npz"
    (tmp_path / "a,b.npz").touch()
    assert value_of(quote_paths("data.path=a,b.npz")) == "a,b.npz"


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("data.path=a.h5,b.h5", ["a.h5", "b.h5"]),
        ("data.path=~/a#1.h5,b.h5", ["~/a#1.h5", "b.h5"]),
        ("runs_dir=läufe,o'k", ["läufe", "o'k"]),
    ],
)
def test_a_sweep_over_paths(word: str, values: list[str]) -> None:
    swept = OverridesParser.create().parse_override(quote_paths(word, sweeps=True)).value()
    assert [getattr(each, "text", each) for each in swept.list] == values  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("word", "paths"),
    [
        ("plugins=[a.py,b.py]", ["a.py", "b.py"]),
        ("plugins=[~/x.py]", ["~/x.py"]),
        ("plugins=[a#1.py, ~/b c.py]", ["a#1.py", "~/b c.py"]),
        ("plugins=x.py", ["x.py"]),
        ("plugins=~/x.py", ["~/x.py"]),
        ("plugins=['a, b.py']", ["a, b.py"]),
        ("plugins=[]", []),
        ("plugins=null", []),
        ("+plugins=null", []),
        ('plugins="a,b.py"', "a,b.py"),
        ("data.parts=[a,b]", ["a", "b"]),
    ],
)
def test_lists_of_paths(word: str, paths: list[str]) -> None:
    assert value_of(quote_paths(word)) == paths


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("plugins=a.py,b.py", "write plugins=[a.py,b.py]"),
        ("plugins=a, b", "write plugins=[a,b]"),
        ("++plugins=a,~/b.py", "write ++plugins=[a,~/b.py]"),
        ("data.parts=x,y,z", "write data.parts=[x,y,z]"),
    ],
)
def test_several_values_are_no_list(word: str, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as refusal:
        quote_paths(word)
    assert written in str(refusal.value)
    _, _, value = word.partition("=")
    swept = OverridesParser.create().parse_override(quote_paths(word, sweeps=True)).value()
    assert [getattr(each, "text", each) for each in swept.list] == re.split(", ?", value), "values of a sweep"  # type: ignore[union-attr]
    monkeypatch.chdir(tmp_path)
    if "~" not in value:
        Path(value).write_text("")
        assert value_of(quote_paths(word)) == [value], "a file of that name"


def test_any_text_in_quotes_means_itself() -> None:
    rng = random.Random(0)
    for _ in range(1000):
        text = "".join(rng.choice("ab/.~#'\"\\ &[]{}(),:=$!%é日;|*?<>^`@1-\t") for _ in range(rng.randrange(1, 9)))
        assert value_of(f"key={quote_value(text)}") == text
        (word,) = shlex.split(show_quoted(f"key={text}"))
        assert value_of(word) == text


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("data.maze=o'k", """'data.maze="o'"'"'k"'"""),
        ("data.maze=größe", """'data.maze="größe"'"""),
        ("data.maze=a#b", """'data.maze="a#b"'"""),
        ("maze", "write maze=VALUE"),
        ("a..b=1", "a key has letters"),
        ("=1", "a key has letters"),
    ],
)
def test_what_cannot_be_read_is_told_with_the_form_that_can(word: str, told: str) -> None:
    assert told in explain_word(word, "token recognition error at: 'x'")


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("strategy=goal", ["evaluation.strategy=goal"]),
        ("planner.beam_width=3", ["++evaluation.decoding.planner.beam_width=3"]),
        ("evaluation.decoding.score.tokens=all", ["++evaluation.decoding.score.tokens=all"]),
        ("data.mix=[a,b]", ["data=mix", "data.parts=[a,b]"]),
        ("data.top_fraction=0.1", ["++data.top_fraction=0.1"]),
        ("critic=null", ["~critic"]),
        ("experiment=null", ["~experiment"]),
        ("backbone=null", ["backbone=null"]),
        ("seed=1", ["seed=1"]),
        ("~evaluation.rows.reward", ["~evaluation.rows.reward"]),
        ("~evaluation.rows.reward=null", ["~evaluation.rows.reward=null"]),
        ("evaluation.rows.reward=null", ["++evaluation.rows.reward=null"]),
    ],
)
def test_short_forms_of_a_training_are_written_out(word: str, written: list[str]) -> None:
    assert spell_words("train", [word]) == written


@pytest.mark.parametrize(
    "name", ["goal, no guidance", "reward search", "beam H=1", "goal, T 0.5", "a (b)", "x: y", "k[1]"]
)
def test_rows_of_any_name_are_set_and_taken_out(name: str) -> None:
    """Keys of Hydra hold neither blanks nor commas; rows of the results table are called so."""
    row = "{strategy: goal, planner: {temperature: 0.5}}"
    for typed, wanted in [
        (f"~evaluation.rows.{name}", None),
        (f"evaluation.rows.{name}=null", None),
        (f"+evaluation.rows.{name}={row}", {"strategy": "goal", "planner": {"temperature": 0.5}}),
    ]:
        (word,) = spell_words("train", [typed])
        (override,) = OverridesParser.create().parse_overrides([word])
        assert override.key_or_group == "evaluation.rows"
        assert {str(key): value for key, value in override.value().items()} == {name: wanted}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--chek"], "no switch '--chek'. Did you mean '--check'?"),
        (["-x"], "no switch '-x'"),
        (["planner=beam"], "would turn every row"),
        (["~=3"], "a key has letters"),
    ],
)
def test_words_that_are_none(arguments: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        spell_words("train", arguments)
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    ("typed", "ordered"),
    [
        (["experiment=x", "-m", "seed=0,1"], ["-m", "experiment=x", "seed=0,1"]),
        (["seed=0,1", "--multirun", "a=1"], ["--multirun", "seed=0,1", "a=1"]),
        (["seed=1", "--cfg", "job", "a=1"], ["--cfg", "job", "seed=1", "a=1"]),
        (["seed=1", "-p", "backbone", "-c", "job", "a=1"], ["-p", "backbone", "-c", "job", "seed=1", "a=1"]),
        (["seed=1", "--info", "a=1"], ["--info=all", "seed=1", "a=1"]),
        (["seed=1", "--info", "config", "a=1"], ["--info", "config", "seed=1", "a=1"]),
        (["seed=1", "--config-n", "mine", "a=1"], ["--config-name", "mine", "seed=1", "a=1"]),
        (["seed=1", "--mult", "a=1"], ["--multirun", "seed=1", "a=1"]),
    ],
)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_switches_may_stand_among_settings(command: str, typed: list[str], ordered: list[str]) -> None:
    assert spell_words(command, typed) == ordered
    assert not get_args_parser().parse_known_args(ordered)[1], "Hydra reads them all"


def test_a_tilde_in_a_folder_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = f"{tmp_path}/conf"
    assert spell_words("train", ["--config-dir=~/conf", "-m"]) == [f"--config-dir={folder}", "-m"]
    assert spell_words("train", ["--config-dir", "~/conf", "seed=1"]) == ["--config-dir", folder, "seed=1"]
