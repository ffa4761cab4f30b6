"""The worked examples hold without the packages that they need: their files are whole, their commands compose.

What they do is tested by `nox -s examples`.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import hydra
import pytest
import yaml

from seqrl.cli import train
from seqrl.cli.application import composing, plain
from seqrl.cli.surface import open_surface
from seqrl.cli.words import spell_words
from seqrl.paths import config_dir
from seqrl.plugins import ENTRY_POINT_GROUP, load_plugins
from seqrl.registry import all_registries

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(each.parent for each in (ROOT / "examples").glob("*/pyproject.toml"))
SESSIONS = re.findall(r"^@nox\.session.*\ndef (\w+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE)


def _module(example: Path) -> str:
    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    ((_, module),) = project["entry-points"][ENTRY_POINT_GROUP].items()
    return str(module)


def _conf(example: Path) -> Path:
    return example / "src" / _module(example) / "conf"


def _commands(example: Path) -> list[list[str]]:
    """The words of every command in the tutorial."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (example / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.fixture
def loaded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, clean_plugins: None) -> Iterator[Path]:
    """An example whose package can be imported, as if it were installed; its environments are forgotten afterwards."""
    example: Path = request.param
    monkeypatch.syspath_prepend(str(example / "src"))
    registered = set(gymnasium.registry)
    yield example
    for name in [name for name in sys.modules if name.partition(".")[0] == _module(example)]:
        del sys.modules[name]
    for env_id in set(gymnasium.registry) - registered:
        del gymnasium.registry[env_id]


def test_examples_are_found() -> None:
    assert [each.name for each in EXAMPLES] == ["charging", "cube"]


@pytest.mark.parametrize("loaded", EXAMPLES, indirect=True, ids=lambda each: each.name)
def test_a_package_registers_its_parts_without_what_they_need(loaded: Path) -> None:
    before = {(registry.slot, name) for registry in all_registries() for name in registry.names()}
    load_plugins(_module(loaded))
    added = {(registry.slot, name) for registry in all_registries() for name in registry.names()} - before
    assert ("data", loaded.name) in added
    for slot, name in added:
        assert f"`{slot}={name}`" in (loaded / "README.md").read_text()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.name)
def test_an_example_is_short_and_whole(example: Path) -> None:
    assert sum(len(file.read_text().splitlines()) for file in example.rglob("src/**/*.py")) <= 250
    for file in example.rglob("*.py"):
        ast.parse(file.read_text())
    for file in example.rglob("*.yaml"):
        assert yaml.safe_load(file.read_text())
    assert list(example.glob("tests/test_*.py"))
    page = ROOT / "docs" / "guides" / "method_author" / "examples.md"
    assert f"examples/{example.name}/README.md" in page.read_text()
    assert "TABLE" not in (example / "README.md").read_text()


@pytest.mark.parametrize("loaded", EXAMPLES, indirect=True, ids=lambda each: each.name)
def test_its_experiment_composes(loaded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config-dir", str(_conf(loaded)), f"plugins=[{_module(loaded)}]", f"experiment={loaded.name}"]
    assert train.run([*words, "--cfg", "job"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["name"] == loaded.name
    assert config["evaluation"]["baseline"] in config["evaluation"]["rows"]


@pytest.mark.parametrize("loaded", EXAMPLES, indirect=True, ids=lambda each: each.name)
def test_commands_of_its_tutorial_are_commands(loaded: Path) -> None:
    sessions = []
    for words in _commands(loaded):
        if "nox" in Path(words[0]).name:
            sessions.append(words[words.index("-s") + 1])
            _compose("train", loaded, [f"experiment={loaded.name}", *words[words.index("-s") + 3 :]])
        elif words[:2] in (["seqrl", "train"], ["seqrl", "evaluate"]):
            _compose(words[1], loaded, words[2:])
    assert loaded.name in sessions
    assert set(sessions) <= set(SESSIONS)


def _compose(command: str, example: Path, words: list[str]) -> None:
    words = [f"plugins=[{_module(example)}]", *(spell_words("train", words) if command == "train" else words)]
    open_surface(words)
    search = f"hydra.searchpath=[file://{_conf(example)}]"
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        assert plain(composing(lambda: hydra.compose(command, [*words, search])))
