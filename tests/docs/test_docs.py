"""The documentation holds: its links lead somewhere, its commands compose, its Python runs."""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import seqrl
from seqrl import testing
from seqrl.cli.application import composing, plain
from seqrl.cli.checking import check_deletions
from seqrl.cli.rows import compose_rows
from seqrl.cli.surface import open_surface
from seqrl.cli.words import spell_words
from seqrl.paths import config_dir
from seqrl.plugins import load_plugins
from seqrl.registry import all_registries

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(`{3,})(\w*)\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"\A# (\S+\.\w+)\n")  # a first line that says: this block is a file
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FLAGS_WITH_VALUE = ("--config-dir", "-cd", "--cfg", "-c")
ACME = ROOT / "tests" / "plugins" / "acme_seqrl"
_composed: set[tuple[str, tuple[str, ...]]] = set()  # evaluations found good: many commands share theirs


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _blocks(*languages: str) -> Iterator[tuple[str, str]]:
    """(where it stands, content) of the fenced blocks in some languages."""
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            if match.group(2) in languages:
                yield f"{_name(page)}:{text.count(chr(10), 0, match.start()) + 1}", match.group(3)


def _commands() -> Iterator[tuple[str, str, list[str]]]:
    """(where it stands, train or evaluate, arguments) of every such command in the documentation."""
    for where, block in _blocks("", "sh", "bash", "console", "shell"):
        for line in block.replace("\\\n", " ").splitlines():
            match = re.search(r"(?:^|[\s/])seqrl\s+(train|evaluate)\b(.*)", line)
            if match:
                rest = match.group(2).replace("$DATA", "/data")
                yield f"{where} {line.strip()}", match.group(1), shlex.split(rest, comments=True)


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6}\s+(.*?)\s*#*$", FENCE.sub("", page.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = "".join(c for c in text if c in " -_" or unicodedata.category(c)[0] in "LN").replace(" ", "-")
        count = 0
        while (candidate := slug if count == 0 else f"{slug}-{count}") in found:
            count += 1
        found.add(candidate)
    return found


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert not broken, f"{_name(page)} links to {broken}"


def test_every_page_is_in_the_index() -> None:
    """Or in the index of its own folder, which that index names."""
    index = ROOT / "docs" / "index.md"
    linked = _linked(index)
    linked |= {page for folder in linked if folder.name == "index.md" for page in _linked(folder)}
    missing = [_name(page) for page in PAGES if page.parent != ROOT and page != index and page not in linked]
    assert not missing


def test_the_api_page_names_every_public_name() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text()
    named = re.findall(r"^::: seqrl\.(\w+)$", page, re.MULTILINE)
    assert sorted(named) == sorted(set(seqrl.__all__) - {"__version__"})


def test_the_page_of_slots_names_every_component() -> None:
    page = (ROOT / "docs" / "reference" / "slots.md").read_text()
    rows = {
        row.split("`")[1].removeprefix("training.").removesuffix("s"): row for row in page.splitlines() if "| `" in row
    }
    for registry in all_registries():
        for name in registry.builtin_names():
            assert f"`{name}`" in rows[registry.slot], (registry.slot, name)
    for preset in ("strategy", "method"):
        for file in (ROOT / "conf" / preset).glob("*.yaml"):
            assert f"`{file.stem}`" in rows[preset], (preset, file.stem)


def _linked(page: Path) -> set[Path]:
    """What a page links to."""
    return {(page.parent / target.partition("#")[0]).resolve() for target in LINK.findall(page.read_text())}


COMMANDS = list(_commands())


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 10


@pytest.mark.usefixtures("plugin_files")
@pytest.mark.parametrize(("command", "arguments"), [c[1:] for c in COMMANDS], ids=[c[0] for c in COMMANDS])
def test_command_composes(command: str, arguments: list[str]) -> None:
    overrides, multirun = _split(arguments)
    if "--help" in arguments:
        return
    if multirun:
        overrides = [_first_choice(o) for o in overrides]
    if command == "train":
        overrides = spell_words("train", overrides)
    check_deletions(overrides)
    open_surface(overrides)
    if "tokenizer=log_bins" in overrides:  # with the package installed, it needs no `plugins=`
        load_plugins("log_bins.py")
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = plain(composing(lambda: hydra.compose(command, overrides)))
        if command == "evaluate":
            assert config["checkpoint"]
        else:
            decoding = tuple(o for o in overrides if o.startswith("++evaluation.decoding."))
            rows = (json.dumps(config["evaluation"]), decoding)
            if rows not in _composed:
                compose_rows(config["evaluation"], overrides)
                _composed.add(rows)


def _split(arguments: list[str]) -> tuple[list[str], bool]:
    """The overrides among the arguments, and whether they are a sweep."""
    overrides = []
    words = iter(arguments)
    for word in words:
        if word in FLAGS_WITH_VALUE:
            next(words)
        elif not word.startswith("-"):
            overrides.append(word)
    return overrides, "-m" in arguments or "--multirun" in arguments


def _first_choice(override: str) -> str:
    (parsed,) = OverridesParser.create().parse_overrides([override])
    if not parsed.is_sweep_override():
        return override
    return f"{parsed.get_key_element()}={next(iter(parsed.sweep_string_iterator()))}"


FILES = [(where, match.group(1), block[match.end() :])
         for where, block in _blocks("python", "toml", "yaml")
         if where.startswith("docs/guides/") and (match := FILE.match(block))]  # fmt: skip
TABLES = [(match.group(1), block[match.end() :]) for _, block in _blocks("csv") if (match := FILE.match(block))]
ALONE = (
    "sgd.py",
    "linear.py",
    "speed.py",
    "minlstm.py",
    "gru.py",
    "notify.py",
    "cart.py",
    "logbook.py",
    "home.py",
    "peak.py",
    "smooth.py",
    "onestep.py",
    "slower.py",
    "dials.py",
)  # of a guide, and of no package
COMPONENTS = [file for file in FILES if "\n@register_" in file[2]]


@pytest.fixture
def plugin_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_plugins: None) -> Iterator[None]:
    """A working folder with the files that the guides have one write; their environments are forgotten afterwards."""
    registered = set(gymnasium.registry)
    monkeypatch.chdir(tmp_path)
    for path, content in [*(file[1:] for file in COMPONENTS), *TABLES]:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
    yield
    for env_id in set(gymnasium.registry) - registered:
        del gymnasium.registry[env_id]


@pytest.mark.usefixtures("plugin_files")
@pytest.mark.parametrize("path", [path for _, path, _ in COMPONENTS], ids=[where for where, _, _ in COMPONENTS])
def test_a_component_of_a_guide_keeps_its_contracts(path: str) -> None:
    before = {(registry.slot, name) for registry in all_registries() for name in registry.names()}
    load_plugins(path)
    (added,) = {(registry.slot, name) for registry in all_registries() for name in registry.names()} - before
    assert {c: v for c, v in testing.check(*added) if v is not None} == {}


def test_guides_with_components_are_found() -> None:
    assert len(COMPONENTS) >= 3


@pytest.mark.parametrize(("path", "content"), [f[1:] for f in FILES], ids=[f[0] for f in FILES])
def test_a_file_of_a_guide_is_that_of_the_tested_package(path: str, content: str) -> None:
    found = [ACME / path] if (ACME / path).exists() else list(ACME.rglob(f"src/**/{path}"))
    if path in ALONE:  # its contracts are checked above
        assert not found
        return
    assert [each.read_text() for each in found] == [content]


PYTHON = [(where, block) for where, block in _blocks("python") if not FILE.match(block)]


@pytest.mark.parametrize("code", [block for _, block in PYTHON], ids=[where for where, _ in PYTHON])
def test_python_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's remarks on a trainer of three steps
        exec(compile(code, "<documentation>", "exec"), {"__name__": "__main__"})
