"""How large the rooms may be: functions that fit on a screen, files that are about one thing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "seqrl"
FUNCTION_LINES, FILE_LINES = 60, 300
LONGER = {  # files that may be longer, each with its reason
    "config.py": "every section of a run, one dataclass after the other",
    "schema.py": "one reading of annotations: the check, the sentences and the words need each other",
    "benchmarks/plan.py": "one table that is measured, and what it needs to measure",
    "testing/tokenizers.py": "the contracts of three kinds of tokenizer",
}


def long_functions(source: Path) -> Iterator[str]:
    for path in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES:
                    yield f"{path.relative_to(source)}:{node.lineno}: {node.name} has {lines} lines"


def long_files(source: Path) -> dict[str, int]:
    lengths = {str(path.relative_to(source)): len(path.read_text().splitlines()) for path in source.rglob("*.py")}
    return {name: lines for name, lines in lengths.items() if lines > FILE_LINES}


def careless_texts(source: Path) -> Iterator[str]:
    """Where text files are read or written in whatever encoding the machine has, and homes are found past `paths`."""
    for path in sorted(source.rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(r"(read_text\(\)|open\(\"a\"\)|text=True)", line):
                yield f"{path.relative_to(source)}:{number}: say encoding"
            if path.name != "paths.py" and re.search(r"expanduser|Path\.home|type=Path\b", line):
                yield f"{path.relative_to(source)}:{number}: use seqrl.paths.find_path"


def test_files_have_an_encoding_and_paths_one_door() -> None:
    found = list(careless_texts(SOURCE))
    assert not found, "\n".join(found)


def test_functions_fit_on_a_screen() -> None:
    found = list(long_functions(SOURCE))
    assert not found, "\n".join(found)


def test_long_files_have_a_reason() -> None:
    assert set(long_files(SOURCE)) == set(LONGER)


@pytest.mark.parametrize(("lines", "found"), [(60, 0), (61, 1)])
def test_a_long_function_is_named(tmp_path: Path, lines: int, found: int) -> None:
    body = "\n".join(f"    x = {number}" for number in range(lines - 1))
    (tmp_path / "file.py").write_text(f"def f():\n{body}\n")
    assert len(list(long_functions(tmp_path))) == found
