"""The documentation holds: its links lead somewhere, its commands compose, its Python runs."""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from seqrl.cli.application import plain
from seqrl.cli.train import compose_evaluations
from seqrl.paths import config_dir

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(`{3,})(\w*)\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FLAGS_WITH_VALUE = ("--config-dir", "-cd", "--cfg", "-c")
DECODING_GROUPS = ("strategy", "planner", "condition", "score")
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
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in LINK.findall(index.read_text())}
    missing = [_name(page) for page in PAGES if page.parent != ROOT and page != index and page not in linked]
    assert not missing


COMMANDS = list(_commands())


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 10


@pytest.mark.parametrize(("command", "arguments"), [c[1:] for c in COMMANDS], ids=[c[0] for c in COMMANDS])
def test_command_composes(command: str, arguments: list[str]) -> None:
    overrides, multirun = _split(arguments)
    if "--help" in arguments:
        return
    if multirun:
        overrides = [_first_choice(o) for o in overrides]
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = plain(hydra.compose(command, overrides))
        if command == "evaluate":
            assert config["checkpoint"]
        else:
            decoding = tuple(o for o in overrides if o.split(".")[0].split("=")[0] in DECODING_GROUPS)
            rows = (json.dumps(config["evaluation"]), decoding)
            if rows not in _composed:
                compose_evaluations(config["evaluation"], overrides)
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


PYTHON = list(_blocks("python"))


@pytest.mark.parametrize("code", [block for _, block in PYTHON], ids=[where for where, _ in PYTHON])
def test_python_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's remarks on a trainer of three steps
        exec(compile(code, "<documentation>", "exec"), {"__name__": "__main__"})
