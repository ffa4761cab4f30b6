"""Code of other people: files, modules and installed packages that register components.

Nothing here runs at import time. A file or module is loaded because the user named it; installed packages (entry
points in the group `seqrl.plugins`) are loaded when a name is asked for that nothing else provides, and one that
fails is remembered, not raised, so that it breaks only the runs that need it.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
import sysconfig
import traceback
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import EXTENSION_SUFFIXES, SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType
from typing import Any

from seqrl.errors import PluginError
from seqrl.files import fingerprint, fingerprint_files
from seqrl.opengl import prepare_mujoco
from seqrl.paths import find_path

ENTRY_POINT_GROUP = "seqrl.plugins"
_FILES = "seqrl_user"  # the package that plugin files are modules of
_PACKAGES = {"site-packages", "dist-packages"}
_PYTHON = [
    Path(place).resolve()
    for place in (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), Path(__file__).parent)
]
_NOT_LOCAL = {"seqrl", *sys.stdlib_module_names}
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

_failures: dict[str, BaseException] = {}
_entry_points_loaded = False


def load_plugins(specs: str | Iterable[str]) -> None:
    """Import plugin files (`my_tokenizer.py`) and modules (`my.module`); naming one twice imports it once.

    Raises:
        PluginError: a file that does not exist, or code that fails while it is imported.
    """
    for spec in [specs] if isinstance(specs, str) else specs:
        prepare_mujoco()  # which plugins with environments of their own import
        try:
            if spec.endswith(".py"):
                _load_file(find_path(spec))
            else:
                importlib.import_module(spec)
        except PluginError:
            raise
        except (Exception, SystemExit) as error:  # a plugin that exits must not take the command with it
            raise PluginError(f"plugin {spec!r} failed to import: {type(error).__name__}: {error}") from error


def split_module(env_id: str) -> tuple[list[str], str]:
    """The plugin and the id of `module:Task-v0`, Gymnasium's form for an environment that a module registers.

    For the user's own words: an id that data or a checkpoint say names no code to run, and is refused where
    environments are made.

    Returns:
        No plugin and the same id where it has no such form; `minari:ID` is the environment of a data set.
    """
    module, colon, task = env_id.partition(":")
    return ([module], task) if colon and module and task and module != "minari" else ([], env_id)


def take_modules(config: dict[str, Any]) -> dict[str, Any]:
    """A composed configuration in which every `env_id=module:Task-v0` is written as `plugins=[module]` and the id."""
    found: list[str] = []

    def rewrite(tree: Any) -> Any:
        if isinstance(tree, list):
            return [rewrite(each) for each in tree]
        if not isinstance(tree, dict):
            return tree
        kept = {key: rewrite(value) for key, value in tree.items()}
        if isinstance(kept.get("env_id"), str):
            modules, kept["env_id"] = split_module(kept["env_id"])
            found.extend(modules)
        return kept

    rewritten: dict[str, Any] = rewrite(config)
    if found:
        given = config.get("plugins") or []
        given = [given] if isinstance(given, str) else list(given)
        rewritten["plugins"] = [*given, *(module for module in dict.fromkeys(found) if module not in given)]
    return rewritten


def identities(specs: Iterable[str]) -> list[list[str]]:
    """What a plugin was to the hash of a run up to version 0.1: name and content of a file, the name of a module."""
    found = []
    for spec in specs:
        path = find_path(spec)
        if spec.endswith(".py") and path.is_file():
            found.append([path.name, fingerprint_files(path)])
        else:
            found.append([spec])
    return found


def module_name(spec: str) -> str:
    """The module that a plugin of `load_plugins` becomes."""
    if not spec.endswith(".py"):
        return spec
    path = find_path(spec).resolve()
    return f"{_FILES}.{path.stem}_{zlib.crc32(str(path).encode()):08x}"  # two folders may hold files of one name


def source(module: str) -> str:
    """A hash of the source of a loaded module: of its file, or of all files of the package that it is part of.

    The modules that it imports count as well, and those that they import, where they are neither installed nor part of
    Python or seqrl: those beside a plugin's file. It does not depend on where files lie. Of what has no source (a
    module in a notebook) it is a hash of the name. What code opens or names while it runs does not count.
    """
    files = _files_of(module)
    names = [[name, fingerprint_files(path)] for name, path in files.items()]
    own = {path.resolve() for path in files.values()}
    helpers = sorted((name, path) for path, name in _local_imports(files.values()).items() if path not in own)
    return fingerprint([*names, *([name, fingerprint_files(path)] for name, path in helpers)] or module)


def _files_of(module: str) -> dict[str, Path]:
    """The files of a module by name: its own, or all of its package."""
    top = module.partition(".")[0]
    file = getattr(sys.modules.get(module), "__file__", None)
    folders = [] if top == _FILES else list(getattr(sys.modules.get(top), "__path__", []))
    kinds = (".py", *EXTENSION_SUFFIXES)
    paths = [(path.relative_to(folder), path) for folder in folders for path in sorted(Path(folder).rglob("*"))]
    files = {name.as_posix(): path for name, path in paths if path.name.endswith(kinds)}
    if not files and file is not None and Path(file).is_file():
        files = {Path(file).name: Path(file)}
    return files


def _local_imports(files: Iterable[Path]) -> dict[Path, str]:
    """The files that some files import, and those that these import, with the names by which they are imported."""
    found: dict[Path, str] = {}
    left = [path.resolve() for path in files]
    roots = list(dict.fromkeys(path.parent for path in left))
    while left:
        path = left.pop()
        for name, folders in _imports_of(path, roots):
            file = _locate(name, folders)
            if file is not None and file not in found:
                found[file] = name
                left.append(file)
    return found


def _imports_of(path: Path, roots: Sequence[Path]) -> Iterator[tuple[str, Sequence[Path]]]:
    """The modules that a file may import, and the folders that they may lie in; nothing is run to find them."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # compiled, or gone
        return
    for node in ast.walk(tree):
        names, folders = list[str](), [path.parent, *roots]
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = f"{node.module}." if node.module else ""
            names = [f"{start}{alias.name}" for alias in node.names]
            folders = [path.parents[node.level - 1]] if 0 < node.level <= len(path.parents) else folders
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAME.fullmatch(node.value):
            names = [node.value.removesuffix(".py")]  # of importlib.import_module("name"), or a path
        for name in names:
            words = name.split(".")
            yield from ((".".join(words[:count]), folders) for count in range(1, len(words) + 1))


def _locate(name: str, folders: Iterable[Path]) -> Path | None:
    """The file of a module, if it is local: the loaded one, or the one in a folder."""
    if name.partition(".")[0] in _NOT_LOCAL:
        return None
    words = name.split(".")
    places = [folder.joinpath(*words, "__init__.py") for folder in folders]
    places += [folder.joinpath(*words[:-1], f"{words[-1]}.py") for folder in folders]
    loaded = getattr(sys.modules.get(name), "__file__", None)
    for place in [Path(loaded)] if loaded else places:
        if place.is_file() and not is_installed(place.resolve()):
            return place.resolve()
    return None


def is_installed(path: Path) -> bool:
    """Whether a file is part of Python, of seqrl or of an installed package, perhaps of another environment."""
    return not _PACKAGES.isdisjoint(path.parts) or any(path.is_relative_to(each) for each in _PYTHON)


def load_entry_points() -> None:
    """Import every installed plugin package once; failures are kept for the error messages."""
    global _entry_points_loaded
    if _entry_points_loaded:
        return
    _entry_points_loaded = True
    for entry in sorted(set(entry_points(group=ENTRY_POINT_GROUP))):  # editable installs list an entry twice
        try:
            entry.load()
        except (Exception, SystemExit) as error:  # a plugin that exits must not take the command with it
            _failures[entry.dist.name if entry.dist else entry.name] = error


@contextmanager
def set_aside(*, installed: bool = True) -> Iterator[None]:
    """For tests of plugins: as if no installed package had been looked for yet, and afterwards as before.

    Args:
        installed: whether installed packages are to be found.
    """
    global _failures, _entry_points_loaded
    before = _failures, _entry_points_loaded
    _failures, _entry_points_loaded = {}, not installed
    try:
        yield
    finally:
        _failures, _entry_points_loaded = before


def failures() -> dict[str, str]:
    """Installed plugins that could not be imported, with the reason."""
    return {name: f"{type(error).__name__}: {error}" for name, error in _failures.items()}


def tracebacks() -> dict[str, str]:
    """Installed plugins that could not be imported, with everything that their author needs to know."""
    return {name: "".join(traceback.format_exception(error)) for name, error in _failures.items()}


def origin(cls: type) -> str:
    """Where a component comes from: `seqrl`, a package and its version (`acme-seqrl 0.2`), a file, or a module."""
    top = cls.__module__.partition(".")[0]
    if top == "seqrl":
        return "seqrl"
    if top == _FILES:
        return str(getattr(sys.modules.get(cls.__module__), "__file__", cls.__module__))
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.value.partition(":")[0].partition(".")[0] == top and entry.dist is not None:
            return f"{entry.dist.name} {entry.dist.version}"
    return cls.__module__


class _FromSource(SourceFileLoader):
    """Runs the file that was named, and never what a cache beside it (`__pycache__`) says that it compiles to.

    In a shared folder others may write such a cache beside a file that they cannot change.
    """

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _load_file(path: Path) -> None:
    path = path.resolve()
    if not path.is_file():
        raise PluginError(f"plugin file {str(path)!r} does not exist; give a path relative to the current folder")
    name = module_name(str(path))
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
