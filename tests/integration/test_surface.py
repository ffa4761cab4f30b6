"""What a command may name: plugins of three kinds, options by signature, and every file of conf/."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import yaml
from hydra.core.config_store import ConfigStore

from seqrl.cli import evaluate, train
from seqrl.cli.application import plain
from seqrl.cli.rows import compose_rows
from seqrl.cli.surface import node, plugins_in
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.paths import config_dir
from seqrl.registry import PLANNER, registries

Command = Callable[..., int]
FAST = ["data=d4rl", "debug=fast", "training.progress_bar=false", "training.loggers=[csv]"]
ROW = "+evaluation.rows.mine={strategy: imitation, planner: stay}"
RUNTIME = {
    "size": 4,
    "layout": Layout.from_config({"fields": {"observation": {}, "action": {}, "reward": {}, "value": {}}}, 1, 1),
    "window": 24,
    "max_length": 20,
    "discount": 0.99,
    "max_steps": 10,
    "steps_per_epoch": 2,
    "observation_size": 3,
    "action_size": 2,
}

LOG_BINS = """
import torch
from seqrl import Tokenizer, register_tokenizer


@register_tokenizer("log_bins")
class LogBinTokenizer(Tokenizer):
    def __init__(self, size: int, *, num_bins: int = 48, spread: float = 1.0) -> None:
        super().__init__()
        self.tokens_per_step, self.vocab_size, self.spread = size, num_bins, spread
        self.register_buffer("reach", torch.ones(size, dtype=torch.float64))

    def fit(self, values):
        self.reach.copy_(values.abs().amax(0).log1p())

    def encode(self, values):
        place = (values.sign() * values.abs().log1p() / self.reach + 1) / 2
        return (place * self.vocab_size).long().clamp(0, self.vocab_size - 1)

    def decode(self, tokens):
        place = ((tokens.clamp(max=self.vocab_size - 1) + 0.5) / self.vocab_size * 2 - 1) * self.reach
        return (place.sign() * place.abs().expm1()).float()
"""

STAY = """
import torch
from seqrl import Planner, register_planner
from seqrl.types import Plan


@register_planner("stay")
class StayPlanner(Planner):
    horizon = 1

    def __init__(self, *, level: float = 0.5) -> None:
        self.level = level

    def check(self, model, score): ...

    def plan(self, model, history, score, noise):
        rows, size = len(history.tokens), model.layout.field("action").size
        return Plan(torch.full((rows, 1, size), self.level), torch.zeros(rows))
"""


@pytest.fixture
def command(in_folder_with_data: Path, clean_plugins: None) -> Iterator[Command]:
    """Runs a command in an empty folder with a small data file and two plugin files; forgets the plugins after it."""
    Path("log_bins.py").write_text(LOG_BINS)
    Path("stay.py").write_text(STAY)
    modules = set(sys.modules)

    def run(name: str, *arguments: str) -> int:
        data = [*FAST, "data.path=hopper-tiny.hdf5"] if name == "train" else []
        return {"train": train, "evaluate": evaluate}[name].run([*data, *arguments])

    yield run
    for registry in registries():
        ConfigStore.instance().repo.pop(registry.slot, None)
    for name in set(sys.modules) - modules:
        if name.startswith("acme"):
            del sys.modules[name]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, str]], None]:
    """Puts a package with an entry point where Python finds installed ones."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def put(package: str, files: dict[str, str]) -> None:
        info = site / f"{package}-0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(f"[seqrl.plugins]\n{package} = {package}\n")
        for name, text in files.items():
            (site / package / name).parent.mkdir(parents=True, exist_ok=True)
            (site / package / name).write_text(text)

    return put


def saved_config(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "runs").glob("run-*/config.yaml")
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


def test_a_plugin_file_brings_names_and_options(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tokenizer and a planner without any yaml: training, rows of its table, and `seqrl evaluate`."""
    plugins = "plugins=[log_bins.py,stay.py]"
    chosen = ["tokenizer=log_bins", "tokenizer.num_bins=32", "evaluation=none", ROW, "planner.level=0.25"]
    assert command("train", plugins, *chosen) == 0
    assert saved_config(tmp_path)["tokenizer"] == {"name": "log_bins", "num_bins": 32, "spread": 1.0}
    (results,) = tmp_path.glob("runs/*/evaluations/mine-*/results.json")
    (row,) = yaml.safe_load(results.read_text())
    assert row["planner"] == {"name": "stay", "level": 0.25}

    (run,) = (tmp_path / "runs").glob("run-*")
    arguments = ["num_episodes=1", "max_steps=2", "progress_bar=false", "label=again"]
    assert command("evaluate", f"checkpoint={run}", plugins, "planner=stay", "planner.level=0.75", *arguments) == 0
    (results,) = run.glob("evaluations/again-*/results.json")
    assert yaml.safe_load(results.read_text())[0]["planner"] == {"name": "stay", "level": 0.75}

    assert command("train", plugins, "tokenizer=log_bins", "tokenizer.num_bin=2") == 2
    assert (
        "Did you mean 'tokenizer.num_bins'? Settings in 'tokenizer': name, num_bins, spread" in capsys.readouterr().err
    )


def test_an_installed_plugin_is_found_by_its_yaml_without_running_its_code(
    command: Command, install: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "__init__.py": "raise RuntimeError('nobody asked for me')",
        "conf/tokenizer/acme_bins.yaml": "name: acme_bins\nnum_bins: 7\n",
        "conf/tokenizer/uniform.yaml": "name: uniform\nnum_bins: 1234\n",
    }
    install("acme_yaml", files)
    assert command("train", "tokenizer=acme_bins", "--cfg", "job") == 0
    assert "num_bins: 7" in capsys.readouterr().out
    assert "acme_yaml" not in sys.modules
    assert command("train", "tokenizer=uniform", "--cfg", "job") == 0
    assert "num_bins: 100" in capsys.readouterr().out, "a plugin's yaml replaced one of ours"


def test_an_installed_plugin_is_imported_for_a_name_that_no_yaml_provides(
    command: Command, install: Callable[..., None], tmp_path: Path
) -> None:
    install("acme_code", {"__init__.py": LOG_BINS + STAY})
    assert command("train", "tokenizer=log_bins", "evaluation=none", ROW, "seed=3") == 0
    assert saved_config(tmp_path)["tokenizer"]["num_bins"] == 48
    assert list(tmp_path.glob("runs/*/evaluations/mine-*/results.json"))


def test_a_folder_of_your_own_brings_files(command: Command, tmp_path: Path) -> None:
    """An experiment that names a method, and a planner's preset that a row of its table uses."""
    for name, text in {
        "experiment/mine.yaml": (
            "# @package _global_\ndefaults:\n  - override /method: tt\n  - override /evaluation: mine\n"
            "experiment_name: mine\ntokenizer: {num_bins: 9}\n"
        ),
        "evaluation/mine.yaml": (
            "defaults: [default, _self_]\nbaseline: null\n"
            "rows: {zero: null, greedy imitation: null, reward: null, narrow: {strategy: reward, planner: narrow}}\n"
        ),
        "planner/narrow.yaml": "defaults: [beam, _self_]\nhorizon: 2\n",
    }.items():
        (tmp_path / "my_conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "my_conf" / name).write_text(text)
    assert command("train", "experiment=mine", "planner.beam_width=3", "--config-dir", "my_conf") == 0
    (results,) = tmp_path.glob("runs/mine-*/evaluations/narrow-*/results.json")
    planner = yaml.safe_load(results.read_text())[0]["planner"]
    assert (planner["name"], planner["horizon"], planner["beam_width"]) == ("beam", 6, 3), "debug=fast sets the horizon"
    (config,) = tmp_path.glob("runs/mine-*/config.yaml")
    tokenizer = yaml.safe_load(config.read_text())["tokenizer"]
    assert (tokenizer["name"], tokenizer["num_bins"]) == ("quantile", 9)


def test_a_misspelled_name_is_answered_with_those_of_plugins_and_with_what_failed(
    command: Command, install: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    install("acme_code", {"__init__.py": STAY})
    install("acme_broken", {"__init__.py": "import acme_needs_this"})
    assert command("train", "plugins=log_bins.py", "tokenizer=log_bin") == 2
    message = capsys.readouterr().err
    assert "no tokenizer named 'log_bin'. Did you mean 'log_bins'? Available: continuous, kmeans, log_bins" in message
    assert "plugin 'acme_broken' failed to import: ModuleNotFoundError: No module named 'acme_needs_this'" in message
    assert command("train", "evaluation=none", ROW.replace("stay", "sta")) == 2
    assert "row 'mine' of evaluation.rows: no planner named 'sta'. Did you mean 'stay'?" in capsys.readouterr().err


def test_a_plugin_that_fails_is_told_in_one_sentence(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.py").write_text("1 / 0")
    assert command("train", "plugins=[bad.py]") == 2
    assert capsys.readouterr().err == (
        "PluginError: plugin 'bad.py' failed to import: ZeroDivisionError: division by zero\n"
    )


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        ("plugins=[a.py,my.module]", ["a.py", "my.module"]),
        ("plugins=a.py", ["a.py"]),
        ("++plugins=['my file.py']", ["my file.py"]),
        ("plugins=[a.py],[b.py]", ["a.py", "b.py"]),
        ("plugins=[]", []),
        ("plugins=[a.py", []),
        ("tokenizer.plugins=[a.py]", []),
    ],
)
def test_plugins_are_read_off_the_command(argument: str, found: list[str]) -> None:
    assert plugins_in(["-m", "seed=1", argument]) == found


def test_a_signature_becomes_a_config(clean_plugins: None) -> None:
    """Required options are asked for; what no yaml can hold keeps its default in the code."""

    @PLANNER.register("signature")
    class Signature:
        def __init__(self, width: int, *, sizes: tuple[int, ...] = (1, 2), draw: Any = np.random, **rest: Any) -> None:
            """As a plugin might have it."""

    assert node(PLANNER, "signature") == {"name": "signature", "width": "???", "sizes": (1, 2)}


CONF = config_dir()
FILES = sorted(str(path.relative_to(CONF).with_suffix("")) for path in CONF.rglob("*.yaml"))
SLOTS = {registry.slot: registry for registry in registries()}
PATH = "data.path=/data/hopper-medium.hdf5"
REQUIRED = {  # overrides without which a file does not compose
    **dict.fromkeys(("data/d4rl", "data/arrays", "data/store"), PATH),
    **dict.fromkeys(("experiment/d4rl_cpu", "experiment/d4rl_published"), PATH),
    "data/minari": "data.id=hopper/medium-v0",
    "data/ogbench": "data.id=pointmaze-giant-stitch-v0",
    "data/mix": "data.parts=[hopper-medium-v2,hopper-expert-v2]",
    **dict.fromkeys(("condition/target_return", "strategy/return"), "condition.target=3600"),
}
EVALUATE = ("condition", "planner", "score", "strategy")


NEEDS = {"backbone/hf": "transformers"}  # packages of extras
LAYERS = ("backbone/small",)  # no choices: experiments lay them over one


@pytest.mark.parametrize(
    "name", [name for name in FILES if name.partition("/")[0] not in ("app", "hydra") and name not in LAYERS]
)
def test_every_file_composes(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    group, _, choice = name.rpartition("/")
    root = "evaluate" if group in EVALUATE or name == "evaluate" else "train"
    overrides = [f"{group}={choice}"] if group else []
    required = [*(["checkpoint=none"] if root == "evaluate" else []), *([REQUIRED[name]] if name in REQUIRED else [])]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(hydra.compose(root, [*overrides, *required]))
        if group in SLOTS:
            assert SLOTS[group].build(config[group], **RUNTIME) is not None
            assert config[group]["name"] == choice
        if group in ("method", "experiment", "evaluation"):
            rows = compose_rows(config["evaluation"], [])
            assert all(row.label for row in rows.configs)
            for slot in ("tokenizer", "backbone", "objective"):
                assert SLOTS[slot].build(config[slot], **RUNTIME) is not None


def compose(*overrides: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(hydra.compose("train", list(overrides)))


@pytest.mark.parametrize("name", [name for name in FILES if name.partition("/")[0] in ("method", "experiment")])
def test_every_experiment_can_be_trained_without_an_evaluation(name: str) -> None:
    group, _, choice = name.rpartition("/")
    required = [REQUIRED[name]] if name in REQUIRED else []
    assert compose(f"{group}={choice}", "evaluation=none", *required)["evaluation"]["rows"] == {}


def test_a_row_may_need_what_is_given_for_all_rows() -> None:
    """`seqrl train method=dt strategy=return condition.target=1`: the target has no default."""
    words = ["method=dt", "evaluation.strategy=return", "++evaluation.decoding.condition.target=1"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        (row,) = compose_rows(plain(hydra.compose("train", words))["evaluation"], words).configs
    assert row.condition == {"name": "target_return", "target": 1}


def test_settings_that_fit_no_row_name_the_rows_that_there_are() -> None:
    words = ["method=bc", "++evaluation.decoding.condition.target=1"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        evaluation = plain(hydra.compose("train", words))["evaluation"]
        with pytest.raises(ConfigError, match=r"target fits none of the rows 'zero', 'random', 'imitation'\."):
            compose_rows(evaluation, words)


def test_the_default_set_is_the_method_tt() -> None:
    assert compose("method=tt") == compose()


def test_later_layers_win() -> None:
    """method < experiment < debug < command line."""
    both = compose("method=tt", "experiment=maze2d_umaze")
    assert both["layout"]["goal"] is not None, "the experiment's layout"
    assert both["backbone"]["dim"] == 64
    fast = compose("method=tt_goal", "experiment=maze2d_umaze", "debug=fast", "training.batch_size=3")
    assert (fast["backbone"]["dim"], fast["training"]["max_steps"], fast["training"]["batch_size"]) == (32, 20, 3)
    assert compose("method=tt_goal", "tokenizer=quantile")["tokenizer"]["name"] == "quantile"
