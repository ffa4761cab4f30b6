"""`seqrl reproduce` from its words to its page, on recordings of a few steps."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import h5py
import hydra
import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from seqrl.cli import reproduce
from seqrl.cli.application import composing, plain
from seqrl.cli.checking import check_sections
from seqrl.cli.rows import compose_rows
from seqrl.cli.words import spell_words
from seqrl.config import RunConfig
from seqrl.paths import config_dir
from seqrl.reproduction import Options
from seqrl.reproduction.catalogue import ALL

TINY = [
    *("debug=fast", "training.progress_bar=false", "training.loggers=[csv]", "training.max_steps=2"),
    *("training.validate_every=2", "training.batch_size=4"),
    *("backbone.num_layers=1", "backbone.dim=8", "backbone.num_heads=1"),
]  # fmt: skip
SMALL = ["--references=3", "--rollouts=4", "--horizon=6", "--ensemble-steps=5", "--models=2"]


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder with `hopper-tiny.hdf5`: smooth episodes of 40 steps, with Hopper's sizes."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with h5py.File("hopper-tiny.hdf5", "w") as file:
        file["observations"] = np.cumsum(rng.normal(size=(240, 11)), 0).astype(np.float32) * 0.1
        file["actions"] = rng.uniform(-1, 1, (240, 3)).astype(np.float32)
        file["rewards"] = rng.normal(size=240).astype(np.float32)
        file["terminals"], file["timeouts"] = np.zeros(240, bool), np.arange(240) % 40 == 39
    return tmp_path


def results(name: str) -> tuple[dict[str, object], str]:
    folder = Path("reproductions") / name
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return json.loads((folder / f"{name}.json").read_text()), (folder / f"{name}.md").read_text()


def test_names_that_there_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["fig3a"], "Did you mean 'fig3'?"),
        (["fig5"], "Give fig2"),
        (["fig2", "--rollouts=0"], "give 1 or more"),
        (["fig2", "file.hdf5"], "write key=value"),
        (["ablations"], "add checkpoint=RUN"),
    ):
        assert reproduce.run(words) == 2
        assert told in capsys.readouterr().err


def test_the_names_are_those_of_the_catalogue() -> None:
    assert tuple(ALL) == reproduce.NAMES


def commands() -> Iterator[tuple[str, str]]:
    for name, figure in ALL.items():
        for scale in ("cpu", "published"):
            words = ("checkpoint=a",) if name == "ablations" else ()
            for line in reproduce.list_commands(figure(), Options(scale, Path("out"), words)):  # type: ignore[arg-type]
                yield f"{name}, {scale}", line


@pytest.mark.parametrize("line", [line for _, line in commands()])
def test_commands_of_both_scales_are_sound(line: str) -> None:
    """Everything but the data is composed and checked, of the first job of each sweep."""
    _, command, _, *words = shlex.split(line)
    words = [first_choice(word) for word in words]
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = plain(composing(lambda: hydra.compose(command, spell_words(command, words))))
        if command == "train":
            compose_rows(config["evaluation"], spell_words(command, words))  # checks each of them
            check_sections(config)
            RunConfig.from_dict(config)


def first_choice(word: str) -> str:
    if word.startswith("~"):
        return word
    (parsed,) = OverridesParser.create().parse_overrides([word])
    if not parsed.is_sweep_override():
        return word
    return f"{parsed.get_key_element()}={next(iter(parsed.sweep_string_iterator()))}"


@pytest.mark.slow
def test_figures_of_states_and_actions(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures 2 to 4 share a model, and the ensemble of a folder."""
    data = ["data.path=hopper-tiny.hdf5", "window.length=4"]
    assert reproduce.run(["fig2", *data, *TINY, *SMALL]) == 0
    content, page = results("fig2")
    assert [each["steps"] for each in content["distance"]] == [1, 5, 6]  # type: ignore[attr-defined]
    assert "At the published scale" in page
    assert reproduce.run(["fig4", *data, *TINY, *SMALL]) == 0
    assert "1 of 2 jobs are finished" in capsys.readouterr().out or len(list(Path("runs").glob("tt_states-*"))) == 2
    content, page = results("fig4")
    assert np.shape(content["seeds"][0]["markov"]) == (1, 1)  # type: ignore[index]
    assert page.count("| 1.1 |") == 2
    assert len(list(Path("runs").glob("tt_states-*"))) == 2, "fig4 trains one more seed, and not the first again"


@pytest.mark.slow
def test_likelihoods(recording: Path) -> None:
    words = ["data.path=hopper-tiny.hdf5", *TINY, "--output=out folder"]
    assert reproduce.run(["fig3", *words, *SMALL]) == 0
    folder = Path("out folder")
    content = json.loads((folder / "fig3.json").read_text())
    assert (folder / "fig3.png").is_file()
    for panel in ("full", "masked"):
        curves = content["curves"][panel]
        ceiling = np.array(curves["ceiling of the bins"][0])
        for label in ("Trajectory Transformer", "the same, window of one", "ensemble, as bin mass"):
            assert (np.array(curves[label][0]) <= ceiling + 1e-9).all(), f"{label} is above what bins can say"
    assert len(list(folder.glob("masked-*/store.json"))) == 1
    assert len(list(folder.glob("ensemble-*.pt"))) == 2


@pytest.mark.slow
def test_scores_on_a_tiny_recording(recording: Path) -> None:
    words = [
        "data.path=hopper-tiny.hdf5",
        *TINY,
        "evaluation.settings.max_steps=3",
        "evaluation.settings.num_episodes=2",
    ]
    assert reproduce.run(["table1", *words]) == 0
    content, page = results("table1")
    assert content["rows"][0]["dataset"] == "hopper-tiny"  # type: ignore[index]
    run = next(path for path in Path("runs").glob("table1-*") if "quantile" in (path / "config.yaml").read_text())
    assert reproduce.run(["ablations", f"checkpoint={run}", "num_episodes=2", "max_steps=3"]) == 0
    content, page = results("ablations")
    assert set(content["axes"]["beam_width"]) == {"8", "1", "32"}  # type: ignore[index]
    assert "intervals are over starts of one model" in page


@pytest.mark.slow
def test_rooms_and_the_stitching_maze(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["evaluation.settings.num_episodes=2", "evaluation.settings.max_steps=4", "data.num_transitions=2000"]
    assert reproduce.run(["fig6", *TINY, *few, "--models=1"]) == 0
    _, page = results("fig6")
    assert "does not agree" in page or "not told apart" in page
    assert reproduce.run(["table2", *TINY, *few, "critic_training.max_steps=2"]) == 0
    content, _ = results("table2")
    assert {row["strategy"] for row in content["rows"]} >= {"TT+Q", "IQL", "reward"}  # type: ignore[attr-defined, index]
