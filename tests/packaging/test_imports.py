"""Who may import whom inside seqrl, which packages stay where, and how components are named.

The checks read source text: they work without importing the package, and on a tree that does not import at all.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "seqrl"
CONF = ROOT / "conf"

# A part may import from the lines below its own, never from its own line or the lines above. There are no exceptions.
ORDER = [
    {"__main__"},
    {"cli"},
    {"importing", "publishing", "reports", "reproduction"},
    {"benchmarks"},
    {"analysis"},
    {"testing", "training", "evaluation"},
    {"acting", "envs"},
    {"checkpoints", "planners"},
    {"decoding", "conditions", "scores", "objectives", "optimizers", "schedulers", "loggers", "callbacks", "wrappers"},
    {"critics"},
    {"models"},
    {"tokenizers"},
    {"backbones"},
    {"compiled"},
    {"attention"},
    {"runs"},
    {"sources"},
    {"d4rl", "worlds"},
    {"formats"},
    {"data"},
    {"config"},
    {"layout"},
    {"layout_config"},
    {"types"},
    {"registry"},
    {"schema"},
    {"plugins"},
    {"archives", "files"},
    {"paths"},
    {"console", "opengl", "signals"},
    {"child"},
    {"after_import", "errors", "processes", "wrapping"},
]
LEVEL = {part: level for level, parts in enumerate(ORDER) for part in parts}

ONLY_IN = {  # where a package may be imported at all
    "hydra": ("cli",),
    "omegaconf": ("cli",),
    "lightning": ("training", "benchmarks"),
    "pytorch_lightning": (),
    "gymnasium": ("envs", "worlds", "d4rl", "formats", "wrappers"),
    "minari": ("formats",),
    "hashlib": ("files",),  # one fingerprint
    "fcntl": ("files",),  # one lock
    "filelock": (),
    "rich": ("console",),  # one kind of table and bar
    "tqdm": (),
    "mujoco": ("envs", "worlds", "d4rl", "evaluation"),
}
ONLY_IN_FUNCTIONS = {"gymnasium", "minari", "mujoco", "h5py"}  # slow to import, or not needed by most runs
AT_MODULE_LEVEL = {  # classes of gymnasium.Env and gymnasium.Wrapper
    (module, "gymnasium")
    for module in (
        "worlds.maze2d_environment",
        "worlds.four_rooms_environment",
        "worlds.ogbench_environment",
        "worlds.lamps_environment",
        "d4rl.environment",
        "wrappers.time_left",
    )
}
WITHOUT_TORCH = {"config", "errors", "layout", "layout_config", "paths", "plugins", "registry", "schema"}

SLOTS = {
    "sources": "data",
    "tokenizers": "tokenizer",
    "backbones": "backbone",
    "objectives": "objective",
    "planners": "planner",
    "conditions": "condition",
    "scores": "score",
    "critics": "critic",
    "optimizers": "optimizer",
    "schedulers": "scheduler",
    "loggers": "logger",
    "callbacks": "callback",
    "wrappers": "wrapper",
}
BAD_CLASS_NAME = re.compile(r"^_?Base[A-Z]|(Manager|Helper)$")


@dataclass(frozen=True)
class Import:
    """One imported module: absolute name, line, and whether importing the file runs it."""

    target: str
    line: int
    at_module_level: bool


@dataclass(frozen=True)
class Module:
    """One file of the package; `name` leaves out the leading `seqrl.` and is empty for the package itself."""

    path: Path
    name: str
    tree: ast.Module

    @property
    def part(self) -> str:
        return self.name.partition(".")[0]

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def folder(self) -> str:
        return self.name if self.is_package else self.name.rpartition(".")[0]


def modules(source: Path) -> list[Module]:
    found = []
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(path, name, ast.parse(path.read_text(encoding="utf-8"), filename=str(path))))
    return found


def imports(module: Module, known: set[str]) -> Iterator[Import]:
    """Imports of a file, those for type checkers and inside functions included.

    `from seqrl.data import windows` counts as an import of `seqrl.data.windows` if that is in `known`.
    """

    def walk(node: ast.AST, at_module_level: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_module_level)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                above = ["seqrl", *filter(None, module.folder.split("."))]
                origin = ".".join([*above[: len(above) - node.level + 1], *filter(None, [node.module])])
            for target in {f"{origin}.{a.name}" if f"{origin}.{a.name}" in known else origin for a in node.names}:
                yield Import(target, node.lineno, at_module_level)
        else:
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, at_module_level and not is_function and not is_for_types)

    yield from walk(module.tree, True)


def components(tree: list[Module]) -> dict[str, set[str]]:
    """Component package to the names of the components in it; files with an underscore in front are none."""
    found: dict[str, set[str]] = {module.name: set() for module in tree if module.is_package and module.name in SLOTS}
    for module in tree:
        if not module.is_package and module.folder in found and not module.path.stem.startswith("_"):
            found[module.folder].add(module.path.stem)
    return found


def order_violation(module: Module, target: str, inside: dict[str, set[str]]) -> str | None:
    """Why `module` may not import `target` (without the leading `seqrl.`), or None."""
    part = target.partition(".")[0]
    package, _, name = target.rpartition(".")
    if not part:
        return "import from the module that defines a name, not from the package"
    for each in (module.part, part):
        if each not in LEVEL:
            return f"{each!r} has no place in the import order"
    if package == module.folder and name in inside.get(package, ()):
        return "components of one slot do not import each other, nor does their package import them"
    if part == module.part:
        return None
    if LEVEL[part] > LEVEL[module.part]:
        return None
    position = "beside" if LEVEL[part] == LEVEL[module.part] else "above"
    return f"{module.part} may not import {part}, which stands {position} it"


def package_violation(module: Module, imported: Import) -> str | None:
    """Why `module` may not import a package of others here, or None."""
    package = imported.target.partition(".")[0]
    places = ONLY_IN.get(package)
    if places is not None and not any(f"{module.name}.".startswith(f"{place}.") for place in places):
        return f"{package} is imported in {' and '.join(places) or 'no module'} only"
    if package in ONLY_IN_FUNCTIONS and imported.at_module_level and (module.name, package) not in AT_MODULE_LEVEL:
        return f"{package} is imported inside functions only"
    if package == "torch" and module.name in WITHOUT_TORCH:
        return "this module works without torch"
    return None


def import_violations(source: Path) -> list[str]:
    """`path:line: imports X: reason` for every import that breaks a rule."""
    tree = modules(source)
    known = {f"seqrl.{module.name}" for module in tree}
    inside = components(tree)
    found = []
    for module in tree:
        for imported in imports(module, known):
            package, _, target = imported.target.partition(".")
            if package != "seqrl":
                reason = package_violation(module, imported)
            elif module.name == "":
                reason = None  # the package itself offers names of every part, lazily: see test_public_api.py
            else:
                reason = order_violation(module, target, inside)
            if reason:
                where = f"{module.path.relative_to(source)}:{imported.line}"
                found.append(f"{where}: imports {imported.target}: {reason}")
    return found


def registrations(module: Module) -> Iterator[tuple[str, object, int]]:
    """(slot, name, line) of every class decorated with `@register_<slot>("name")`."""
    for node in ast.walk(module.tree):
        for decorator in node.decorator_list if isinstance(node, ast.ClassDef) else ():
            if isinstance(decorator, ast.Call) and decorator.args:
                function = ast.unparse(decorator.func).rpartition(".")[2]
                if function.startswith("register_"):
                    argument = decorator.args[0]
                    name = argument.value if isinstance(argument, ast.Constant) else None
                    yield function.removeprefix("register_"), name, decorator.lineno


def name_violations(source: Path, conf: Path) -> list[str]:
    """Files, classes, registered names and yaml files whose names break a rule."""
    tree = modules(source)
    inside = components(tree)
    found = []
    for module in tree:
        path = module.path.relative_to(source)
        if path.name == "utils.py":
            found.append(f"{path}: name the file after what it holds")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef) and BAD_CLASS_NAME.search(node.name):
                found.append(f"{path}:{node.lineno}: class {node.name}: no Base…, …Manager or …Helper")
        registered = list(registrations(module))
        is_component = not module.is_package and module.path.stem in inside.get(module.folder, ())
        expected = (SLOTS[module.folder], module.path.stem) if is_component else None
        for slot, name, line in registered:
            if (slot, name) != expected:
                found.append(f"{path}:{line}: registers {slot} {name!r}, but this file is for {expected}")
        if expected and not registered:
            found.append(f"{path}: registers nothing; the name of a file that only helps begins with an underscore")
    for folder, names in inside.items():
        group = conf / SLOTS[folder]
        texts = {path.stem: path.read_text(encoding="utf-8") for path in group.glob("*.yaml")}
        layers = {
            stem for stem, text in texts.items() if text and not re.search("^(name|defaults):", text, re.MULTILINE)
        }
        stems = set(texts) - layers  # which name nothing, and are laid over a component's file
        if group.is_dir() and stems != names:
            found.append(f"conf/{group.name}: without component {stems - names}, without yaml {names - stems}")
    return found


def test_the_page_about_the_house_shows_the_order() -> None:
    text = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    block = text.partition("```\ncli -> ")[2].partition("```")[0]
    shown = [{part.strip() for part in line.split(",")} for line in f"cli -> {block}".split("->")]
    assert [{"__main__"}, *shown] == ORDER


def test_imports_follow_the_order() -> None:
    violations = import_violations(SOURCE)
    assert not violations, "\n".join(violations)


def find_circle(source: Path) -> list[str]:
    """Files that import each other in a circle, those of one room and imports inside functions included."""
    tree = modules(source)
    known = {f"seqrl.{module.name}" for module in tree}
    graph = {
        f"seqrl.{module.name}": {each.target for each in imports(module, known)} & known
        for module in tree
        if module.name
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def test_no_files_import_each_other_in_a_circle(tmp_path: Path) -> None:
    assert find_circle(SOURCE) == []
    write(tmp_path / "seqrl", {"data/__init__.py": "", "data/one.py": "from seqrl.data import two\n"})
    write(tmp_path / "seqrl", {"data/two.py": "def late():\n    from seqrl.data.one import what\n"})
    assert set(find_circle(tmp_path / "seqrl")) == {"seqrl.data.one", "seqrl.data.two"}


def calls(module: Module, *names: str) -> Iterator[str]:
    """`file:line` of every call of a function by one of the names, as `signal.signal`."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
            yield f"{module.name}:{node.lineno}"


def test_signals_have_one_owner_and_warnings_one_filter() -> None:
    """Filters elsewhere are for a block: they stand in a function that catches warnings."""
    for module in modules(SOURCE):
        if module.name != "signals":
            assert not list(calls(module, "signal.signal"))
        catches = list(calls(module, "warnings.catch_warnings"))
        filters = list(calls(module, "warnings.filterwarnings", "warnings.simplefilter"))
        assert len(filters) <= len(catches) or module.name == "training.trainer", filters


def test_names_agree() -> None:
    violations = name_violations(SOURCE, CONF)
    assert not violations, "\n".join(violations)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


SOUND = {
    "seqrl/__init__.py": "from seqrl.errors import SeqrlError\n",
    "seqrl/errors.py": "class SeqrlError(Exception): ...\n",
    "seqrl/types.py": "import torch\n",
    "seqrl/paths.py": "from seqrl.errors import SeqrlError\n",
    "seqrl/plugins.py": "import importlib\n",
    "seqrl/registry.py": "from seqrl import plugins\nfrom seqrl.errors import SeqrlError\n",
    "seqrl/data/__init__.py": "",
    "seqrl/data/windows.py": "def read():\n    import h5py\n",
    "seqrl/sources/__init__.py": "",
    "seqrl/sources/d4rl.py": (
        "from seqrl.data import windows\nfrom seqrl.registry import register_data\n"
        "@register_data('d4rl')\nclass D4rl:\n    def load(self):\n        import h5py\n"
    ),
    "seqrl/tokenizers/__init__.py": "",
    "seqrl/tokenizers/_report.py": "",
    "seqrl/tokenizers/uniform.py": (
        "from seqrl import registry\nfrom seqrl.tokenizers import _report\n"
        "@registry.register_tokenizer('uniform')\nclass UniformTokenizer: ...\n"
    ),
    "seqrl/tokenizers/quantile.py": "from seqrl.registry import *\n@register_tokenizer('quantile')\nclass Q: ...\n",
    "seqrl/scores/__init__.py": "",
    "seqrl/scores/reward.py": "@register_score('reward')\nclass RewardScore: ...\n",
    "seqrl/planners/__init__.py": "from seqrl.decoding.noise import noise\nfrom seqrl.scores import Score\n",
    "seqrl/decoding/__init__.py": "",
    "seqrl/decoding/noise.py": "from seqrl.errors import SeqrlError\nfrom seqrl.types import Tokens\n",
    "seqrl/envs/__init__.py": "",
    "seqrl/acting/__init__.py": "",
    "seqrl/worlds/__init__.py": "",
    "seqrl/worlds/maze2d_environment.py": "import gymnasium\ndef render():\n    import mujoco\n",
    "seqrl/training/__init__.py": "import lightning.pytorch\n",
    "seqrl/evaluation/__init__.py": "",
    "seqrl/cli/__init__.py": "import hydra\nfrom seqrl import evaluation, training\n",
    "seqrl/__main__.py": "from seqrl.cli import main\n",
    "conf/tokenizer/uniform.yaml": "name: uniform\n",
    "conf/tokenizer/quantile.yaml": "name: quantile\n",
}


def test_a_sound_tree_passes(tmp_path: Path) -> None:
    write(tmp_path, SOUND)
    assert import_violations(tmp_path / "seqrl") == []
    assert name_violations(tmp_path / "seqrl", tmp_path / "conf") == []


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "data/windows.py",
            "from seqrl.models.token import SequenceModel",
            "data may not import models, which stands above",
        ),
        ("data/windows.py", "def f():\n    import seqrl.cli", "data may not import cli, which stands above"),
        ("data/windows.py", "from ..acting import Policy", "data may not import acting"),
        ("data/windows.py", "if TYPE_CHECKING:\n    from seqrl.tokenizers import T", "data may not import tokenizers"),
        ("errors.py", "from seqrl import paths", "errors may not import paths"),
        ("training/__init__.py", "from seqrl.evaluation import rollout", "training may not import evaluation, which"),
        ("evaluation/__init__.py", "from seqrl import training", "evaluation may not import training, which stands be"),
        ("acting/__init__.py", "from seqrl import envs", "acting may not import envs, which stands beside it"),
        (
            "scores/__init__.py",
            "from seqrl.planners import Planner",
            "scores may not import planners",
        ),
        ("plugins.py", "import seqrl.registry", "plugins may not import registry"),
        ("models/token.py", "from seqrl.decoding import noise", "models may not import decoding, which stands above"),
        ("paths.py", "from seqrl import SeqrlError", "import from the module that defines a name"),
        ("extra.py", "import seqrl.errors", "'extra' has no place"),
        ("tokenizers/uniform.py", "from seqrl.tokenizers import quantile", "components of one slot do not import"),
        ("tokenizers/uniform.py", "from seqrl.tokenizers.quantile import Q", "components of one slot do not import"),
        ("tokenizers/uniform.py", "from . import quantile", "components of one slot do not import"),
        (
            "tokenizers/__init__.py",
            "from .quantile import Q",
            "components of one slot do not import",
        ),
        ("training/__init__.py", "def f():\n    from omegaconf import OmegaConf", "omegaconf is imported in cli only"),
        ("cli/__init__.py", "import lightning", "lightning is imported in training and benchmarks only"),
        ("training/__init__.py", "import pytorch_lightning", "pytorch_lightning is imported in no module only"),
        ("acting/policy.py", "def f():\n    import gymnasium", "gymnasium is imported in envs and worlds and"),
        ("envs/make.py", "import gymnasium", "gymnasium is imported inside functions only"),
        ("worlds/maze2d_environment.py", "import mujoco", "mujoco is imported inside functions only"),
        ("formats/minari.py", "try:\n    import minari\nexcept E: ...", "minari is imported inside functions"),
        ("data/windows.py", "class A:\n    import h5py", "h5py is imported inside functions only"),
        ("paths.py", "import torch", "this module works without torch"),
    ],
)
def test_a_forbidden_import_is_named(tmp_path: Path, file: str, text: str, message: str) -> None:
    write(tmp_path, SOUND | {f"seqrl/{file}": text})
    (violation,) = import_violations(tmp_path / "seqrl")
    assert violation.startswith(f"{file}:")
    assert message in violation


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("seqrl/data/utils.py", "", "data/utils.py: name the file"),
        ("seqrl/types.py", "class BaseThing: ...", "class BaseThing: no Base"),
        ("seqrl/types.py", "class RunManager: ...", "class RunManager: no Base"),
        ("seqrl/types.py", "def f():\n    class PathHelper: ...", "class PathHelper: no Base"),
        ("seqrl/tokenizers/uniform.py", "@register_tokenizer('other')\nclass A: ...", "registers tokenizer 'other'"),
        ("seqrl/tokenizers/uniform.py", "@register_planner('uniform')\nclass A: ...", "registers planner 'uniform'"),
        ("seqrl/tokenizers/uniform.py", "NAME = 1", "uniform.py: registers nothing"),
        ("seqrl/types.py", "@register_data('types')\nclass A: ...", "but this file is for None"),
        ("conf/tokenizer/extra.yaml", "", "conf/tokenizer: without component {'extra'}"),
        ("conf/data/other.yaml", "", "conf/data: without component {'other'}, without yaml {'d4rl'}"),
    ],
)
def test_a_wrong_name_is_named(tmp_path: Path, file: str, text: str, message: str) -> None:
    write(tmp_path, SOUND | {file: text})
    (violation,) = name_violations(tmp_path / "seqrl", tmp_path / "conf")
    assert message in violation


def test_a_break_in_the_real_tree_is_found(tmp_path: Path) -> None:
    copy = tmp_path / "seqrl"
    shutil.copytree(SOURCE, copy)
    before = import_violations(copy)
    with (copy / "errors.py").open("a", encoding="utf-8") as file:
        file.write("\nimport seqrl.cli\n")
    (added,) = set(import_violations(copy)) - set(before)
    assert "errors may not import cli" in added
