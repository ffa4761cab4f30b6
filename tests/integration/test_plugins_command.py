"""`seqrl plugins`: the table of components, and contracts checked from the command line."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seqrl import plugins
from seqrl.cli.components import describe
from seqrl.cli.plugins import run
from seqrl.registry import registries

pytestmark = pytest.mark.usefixtures("clean_plugins")

GOOD = '''
from seqrl.registry import register_tokenizer
from seqrl.tokenizers.uniform import UniformTokenizer


@register_tokenizer("mine")
class MyTokenizer(UniformTokenizer):
    """Seven bins, for luck.

    More of it.
    """

    def __init__(self, size: int, *, num_bins: int = 7, note: str = "a") -> None:
        super().__init__(size, num_bins=num_bins)
'''
BROKEN = (
    GOOD
    + """
    def decode(self, tokens):
        return super().decode(tokens) + 1000.0
"""
)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.fixture(autouse=True)
def _no_installed_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])


def test_the_list_names_every_built_in_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 0
    out = capsys.readouterr().out
    for registry in registries():
        assert f"{registry.slot}\n" in out
        for name in registry.builtin_names():
            assert f"  {name} " in out
    assert "beam_width=128, n_expand=2" in out


def test_every_component_says_what_it_is_for() -> None:
    for registry in registries():
        for description in describe(registry):
            assert description.summary
            assert description.origin == "seqrl"


def test_the_list_does_without_hydra() -> None:
    code = "import sys; from seqrl.cli.plugins import run; sys.exit(run(['list']) or ('hydra' in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_slot_and_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "mine.py", GOOD)
    assert run(["list", "tokenizer", "--plugins", path]) == 0
    out = capsys.readouterr().out
    assert not any(line.startswith("backbone") for line in out.splitlines())
    assert any(
        line.split() == ["mine", path] or (line.startswith("  mine") and path in line) for line in out.splitlines()
    )
    assert "Seven bins, for luck." in out
    assert "num_bins=7, note='a'" in out
    assert "failed" not in out


def test_a_file_that_fails_is_told_after_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "broken.py", "1 / 0\n")
    assert run(["list", "score", "--plugins", path]) == 2
    out = capsys.readouterr().out
    assert "likelihood" in out
    assert out.rstrip().endswith("broken.py' failed to import: ZeroDivisionError: division by zero")
    assert run(["list", "score", "--verbose", "--plugins", path]) == 2
    assert f'File "{path}", line 1' in capsys.readouterr().out


class _BrokenEntry(importlib.metadata.EntryPoint):
    def load(self) -> Any:
        raise ModuleNotFoundError("No module named 'foo'")


def test_an_installed_plugin_that_fails_is_told_after_the_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: [_BrokenEntry("other-pkg", "other", group)])
    assert run(["list"]) == 0
    out = capsys.readouterr().out
    assert "uniform" in out
    assert out.endswith("  other-pkg: ModuleNotFoundError: No module named 'foo'\n")
    assert run(["list", "--verbose"]) == 0
    assert "Traceback (most recent call last)" in capsys.readouterr().out


def test_a_sound_component_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", "mine", "--slot", "tokenizer", "--plugins", write(tmp_path / "mine.py", GOOD)]
    assert run([*words, "--options", "num_bins=16", "note=b"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "round trip                  ok" in lines
    assert lines[-1] == "tokenizer 'mine': 10 of 10 contracts kept"


def test_a_broken_component_is_told_what_it_violates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "broken.py", BROKEN)
    assert run(["check", "mine", "--slot", "tokenizer", "--plugins", path]) == 1
    out = capsys.readouterr().out
    assert "error within range          violated: a round trip moves a value by 1" in out
    assert "shapes and ranges           ok" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["list", "tokeniser"],
            "ConfigError: no slot named 'tokeniser'. Did you mean 'tokenizer'? Slots: data, tokeni",
        ),
        (["check", "uniform", "--slot", "tokenisers"], "ConfigError: no slot named 'tokenisers'. Did you mean"),
        (["check", "unifrom", "--slot", "tokenizer"], "no tokenizer named 'unifrom'. Did you mean 'uniform'?"),
        (["check", "uniform", "--slot", "tokenizer", "--options", "bins=3"], "has no option 'bins'"),
        (["check", "uniform", "--slot", "tokenizer", "--options", "num_bins"], "'num_bins' is no setting; write KEY="),
        (["check", "uniform", "--slot", "tokenizer", "--options", "num_bins={"], "has a value that cannot be read"),
        (["check", "uniform", "--slot", "tokenizer", "--options", "num_bins=1"], "tokenizer.num_bins=1 is too small"),
        (["check", "arrays", "--slot", "data"], "data 'arrays' needs path; set data.path=..."),
        (["check", "uniform", "--slot", "tokenizer", "--plugins", "nowhere.py"], "PluginError: plugin file '"),
    ],
)
def test_an_error_of_the_user_is_one_message(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["chekc"], ["check", "uniform"]])
def test_a_wrong_command_shows_the_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(words)
    assert caught.value.code == 2
    assert "usage: seqrl plugins" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["plugins=[{}]"],
        ["plugins={}"],
        ["+plugins=['{}']"],
        ['plugins="{}"'],
        ["--plugins", "{}"],
    ],
)
def test_plugins_are_named_as_for_other_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    file = write(tmp_path / "my tokenizer.py", GOOD)
    named = [word.replace("{}", file) for word in words]
    assert run(["check", "mine", "--slot", "tokenizer", "--options", "num_bins=9", *named]) == 0
    assert "contracts kept" in capsys.readouterr().out
    assert run(["list", "tokenizer", *named]) == 0
    assert "Seven bins, for luck." in capsys.readouterr().out


@pytest.mark.parametrize("word", ["plugins=", "plugins=[", "plugins=[1]", "plugins=[{a: b}]"])
def test_what_names_no_plugins_is_refused(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert run(["check", "uniform", "--slot", "tokenizer", word]) == 2
    assert "write plugins=[my_planner.py]" in capsys.readouterr().err


def test_several_values_are_no_list_and_null_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "uniform", "--slot", "tokenizer", "plugins=a.py,b.py"]) == 2
    assert "write plugins=[a.py,b.py]" in capsys.readouterr().err
    assert run(["list", "tokenizer", "plugins=null"]) == 0
