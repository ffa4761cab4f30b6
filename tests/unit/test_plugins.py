"""Plugin files and modules."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import sys
from pathlib import Path

import pytest

from seqrl.errors import PluginError
from seqrl.files import fingerprint, fingerprint_files
from seqrl.plugins import identities, load_plugins, module_name, source
from seqrl.registry import TOKENIZER

pytestmark = pytest.mark.usefixtures("clean_plugins")

TOKENIZER_FILE = """
from pathlib import Path

from seqrl.registry import register_tokenizer
from seqrl.tokenizers.uniform import UniformTokenizer

with (Path(__file__).parent / "loads.txt").open("a") as file:
    file.write("x")


@register_tokenizer("{name}")
class {name}(UniformTokenizer):
    def __init__(self, size: int, *, num_bins: int = 7) -> None:
        super().__init__(size, num_bins=num_bins)
"""


def plugin(folder: Path, name: str = "mine", file: str = "plugin_file.py") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / file
    path.write_text(TOKENIZER_FILE.format(name=name))
    return path


def test_a_file_registers_its_component(tmp_path: Path) -> None:
    load_plugins([str(plugin(tmp_path))])
    assert TOKENIZER.build({"name": "mine"}, size=2).vocab_size == 7
    assert "mine" in TOKENIZER.names()


def test_a_file_is_loaded_once_however_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plugin(tmp_path)
    monkeypatch.chdir(tmp_path)
    load_plugins([str(path), "plugin_file.py"])
    load_plugins([f"../{tmp_path.name}/plugin_file.py"])
    assert (tmp_path / "loads.txt").read_text() == "x"


def test_files_of_one_name_in_two_folders_are_two_plugins(tmp_path: Path) -> None:
    first, second = plugin(tmp_path / "a", "mine"), plugin(tmp_path / "b", "yours")
    load_plugins([str(first), str(second), str(first)])
    assert {"mine", "yours"} <= set(TOKENIZER.names())
    assert (tmp_path / "a" / "loads.txt").read_text() == "x"
    with pytest.raises(PluginError, match="two tokenizer components are named 'mine'"):
        load_plugins([str(plugin(tmp_path / "c", "mine"))])


def test_a_module_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(tmp_path, "from_module", "some_plugin_module.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        load_plugins(["some_plugin_module", "some_plugin_module"])
    finally:
        sys.modules.pop("some_plugin_module", None)
    assert "from_module" in TOKENIZER.names()
    assert (tmp_path / "loads.txt").read_text() == "x"


def test_one_plugin_may_be_given_without_a_list(tmp_path: Path) -> None:
    load_plugins(str(plugin(tmp_path)))
    assert "mine" in TOKENIZER.names()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"plugin file '.*nowhere\.py' does not exist; give a path relative to"):
        load_plugins([str(tmp_path / "nowhere.py")])


def test_a_missing_module_is_named() -> None:
    with pytest.raises(PluginError, match=r"plugin 'no_such_module' failed to import: ModuleNotFoundError: No module"):
        load_plugins(["no_such_module"])


@pytest.mark.parametrize(
    ("code", "message"),
    [("import no_such_thing", "ModuleNotFoundError"), ("1 / 0", "ZeroDivisionError"), ("def f(:", "SyntaxError")],
)
def test_a_file_that_fails_is_named_and_may_be_mended(tmp_path: Path, code: str, message: str) -> None:
    path = tmp_path / "plugin_file.py"
    path.write_text(code)
    with pytest.raises(PluginError, match=rf"plugin '.*plugin_file\.py' failed to import: {message}: "):
        load_plugins([str(path)])
    assert not [name for name in sys.modules if name.startswith("seqrl_user.plugin_file")]
    load_plugins([str(plugin(tmp_path))])
    assert "mine" in TOKENIZER.names()


def test_a_file_that_takes_a_built_in_name_says_so_itself(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="tokenizer 'quantile' is built into seqrl"):
        load_plugins([str(plugin(tmp_path, "quantile"))])


def test_a_file_that_exits_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(PluginError, match="SystemExit"):
        load_plugins([str(tmp_path / "exits.py")])


def test_a_plugin_is_known_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    for folder, code in (("a", "x = 1\n"), ("b", "x = 1\n"), ("c", "x = 2\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(code)
    a, b, c = (identities([str(tmp_path / folder / "mine.py")]) for folder in "abc")
    assert a == b != c
    assert identities(["my.module"]) == [["my.module"]]


HELPERS = {
    "import helper": ["helper.py"],
    "from helper import law": ["helper.py"],
    "import helper.parts": ["helper/__init__.py", "helper/parts.py"],
    "from helper import parts": ["helper/__init__.py", "helper/parts.py"],
    "def later():\n    import helper": ["helper.py"],
    "import importlib; law = importlib.import_module('helper')": ["helper.py"],
    "from pathlib import Path; law = Path(__file__).parent / 'helper.py'": ["helper.py"],
}


@pytest.mark.parametrize("line", HELPERS)
def test_what_a_file_imports_beside_it_is_part_of_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    for name in HELPERS[line]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("from deeper import law\n")
    (tmp_path / "deeper.py").write_text("law = 1\n")
    (tmp_path / "unrelated.py").write_text("law = 1\n")
    path = tmp_path / "plugin.py"
    path.write_text(f"{line}\n")
    monkeypatch.syspath_prepend(tmp_path)
    load_plugins([str(path)])
    try:
        module = module_name(str(path))
        before = source(module)
        (tmp_path / "unrelated.py").write_text("law = 2\n")
        assert source(module) == before
        found = {before}
        for name in [*HELPERS[line], "deeper.py", "plugin.py"]:
            (tmp_path / name).write_text((tmp_path / name).read_text() + "# edited\n")
            found.add(source(module))
        assert len(found) == 3 + len(HELPERS[line])
    finally:
        for name in ("helper", "helper.parts", "deeper"):
            sys.modules.pop(name, None)


def test_what_helpers_import_of_each_other_counts(tmp_path: Path) -> None:
    (tmp_path / "helper").mkdir()
    (tmp_path / "helper" / "__init__.py").write_text("")
    (tmp_path / "helper" / "a.py").write_text("from . import b\nfrom .c import law\n")
    for name in "bc":
        (tmp_path / "helper" / f"{name}.py").write_text("law = 1\n")
    path = tmp_path / "plugin.py"
    path.write_text("def later():\n    import numpy, os, helper.a\n")
    load_plugins([str(path)])
    found = {source(module_name(str(path)))}
    for name in "bc":
        (tmp_path / "helper" / f"{name}.py").write_text("law = 2\n")
        found.add(source(module_name(str(path))))
    assert len(found) == 3


def test_the_source_of_a_file_without_imports_is_its_content_wherever_it_lies(tmp_path: Path) -> None:
    hashes = []
    for folder in ("a", "b"):
        path = plugin(tmp_path / folder, f"mine_{folder}")
        path.write_text("import numpy as np\n")
        load_plugins([str(path)])
        hashes.append(source(module_name(str(path))))
    assert hashes[0] == hashes[1] == fingerprint([["plugin_file.py", fingerprint_files(path)]])


def test_a_cache_that_others_put_beside_a_plugin_is_not_run(tmp_path: Path) -> None:
    """Where a folder is shared, who cannot change the file may still make its `__pycache__`."""
    plugin = tmp_path / "mine_cached.py"
    plugin.write_text("WHO = 'mine'\n")
    evil = tmp_path / "evil.py"
    evil.write_text("WHO = 'evil'\n")
    os.utime(evil, (plugin.stat().st_atime, plugin.stat().st_mtime))
    py_compile.compile(str(evil), cfile=importlib.util.cache_from_source(str(plugin)))
    load_plugins(str(plugin))
    assert sys.modules[module_name(str(plugin))].WHO == "mine"
