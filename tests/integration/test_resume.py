"""Runs that are killed and started again end like runs that nobody touched: the same weights, the same metrics.

A run is a forked process here, killed with SIGKILL: at chosen places, and at moments that nobody chose.
"""

from __future__ import annotations

import csv
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from seqrl.checkpoints.reading import checkpoint_step
from seqrl.cli.application import plain
from seqrl.config import RunConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.paths import config_dir
from seqrl.runs.folder import RunFolder, StageStatus
from seqrl.training.module import SequenceModule
from seqrl.training.run import find_finished, train
from seqrl.training.stages import list_stages

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*is deprecated",
    "ignore:.*does not have many workers",
    "ignore:The `srun` command is available",
)
# Nothing is a multiple of anything else, so that every kind of step meets every other one.
COMMON = ["debug=fast", "training.progress_bar=false", "window.length=3", "backbone.dim=8", "training.max_steps=41",
          "training.batch_size=4", "training.checkpoint_every=5", "training.validate_every=6",
          "training.log_every=4"]  # fmt: skip
RUNS = {
    "goals": [*COMMON, "layout=tt_goal", "training.loggers=[csv,tensorboard]"],
    "critic": [*COMMON, "critic=iql", "training.keep_last=3", "training.loggers=[csv]"],
    "trained tokenizer": [*COMMON, "tokenizer=vq", "window.length=6", "training.loggers=[csv]"],
}
SPEED = ("tokens_per_second", "steps_per_second")


def compose(words: Sequence[str]) -> RunConfig:
    import hydra

    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        return RunConfig.from_dict(plain(hydra.compose("train", list(words))))


@contextmanager
def process(work: Callable[[], Any]) -> Iterator[int]:
    """A copy of this process that does some work and ends."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    yield pid


def end_of(pid: int) -> int:
    """Exit status of a process, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def train_in(folder: Path, config: RunConfig) -> Path:
    run = RunFolder(folder)
    with run.held():
        return train(config, run)


def killed_at(folder: Path, config: RunConfig, place: str) -> None:
    """Train until the process kills itself at a place in the code."""

    def work() -> None:
        _arm(place)
        train_in(folder, config)

    with process(work) as pid:
        assert end_of(pid) == -signal.SIGKILL, f"never came to {place}"


def _arm(place: str) -> None:
    """Let this process kill itself: `<place>:<step>`, or `stage:<name>`."""
    name, step = place.split(":")

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if name == "step":  # weights are updated, nothing is logged yet
        from seqrl.training.health import StopWhenNotFinite as Callback

        whole = Callback.on_train_batch_end

        def at_step(self: Any, trainer: Any, *rest: Any) -> None:
            if trainer.global_step == int(step):
                die()
            whole(self, trainer, *rest)

        Callback.on_train_batch_end = at_step  # type: ignore[assignment, method-assign]
    elif name == "validation":
        validate = SequenceModule.validation_step

        def at_validation(self: SequenceModule, *rest: Any) -> None:
            if self.global_step == int(step):
                die()
            validate(self, *rest)

        SequenceModule.validation_step = at_validation  # type: ignore[assignment, method-assign]
    elif name == "writing":  # half a checkpoint is in its temporary file
        save = torch.save

        def torn(content: Any, file: Any) -> None:
            if content["global_step"] == int(step):
                file.write(b"PK\x03\x04 the beginning")
                file.flush()
                die()
            save(content, file)

        torch.save = torn  # type: ignore[assignment]
    elif name in ("written", "stage"):  # the checkpoint is there, its status is not; or one stage is done
        whole_status = RunFolder.set_status

        def at_status(self: RunFolder, stage: str, state: str, at: int, reason: str | None = None) -> None:
            if (name == "written" and at == int(step)) or (name == "stage" and stage == step):
                die()
            whole_status(self, stage, state, at, reason)

        RunFolder.set_status = at_status  # type: ignore[assignment, method-assign]
    else:
        raise AssertionError(name)


@pytest.fixture
def whole(tiny_store: EpisodeStore, tmp_path: Path) -> Callable[[str], tuple[RunConfig, Path]]:
    tiny_store.save(tmp_path / "episodes")

    def trained(name: str) -> tuple[RunConfig, Path]:
        config = compose([*RUNS[name], "data=store", f"data.path={tmp_path / 'episodes'}"])
        with process(lambda: train_in(tmp_path / "whole", config)) as pid:
            assert end_of(pid) == 0
        return config, tmp_path / "whole"

    return trained


def metrics(folder: Path) -> list[list[str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [row for row in csv.reader(file) if not row[1].endswith(SPEED)]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def assert_equal_runs(config: RunConfig, whole: Path, parts: Path) -> None:
    """Metrics line by line, and of every stage both checkpoints with optimizer, schedule and what callbacks keep."""
    assert metrics(parts) == metrics(whole)
    assert RunFolder(parts).status() == RunFolder(whole).status()
    for stage in (kind.name for kind in list_stages(config)):
        names = sorted(path.name for path in (whole / stage).iterdir())
        assert sorted(path.name for path in (parts / stage).iterdir()) == names
        for name in names:
            one, other = (torch.load(run / stage / name, weights_only=True) for run in (whole, parts))
            for key in ("global_step", "state_dict", "optimizer_states", "lr_schedulers", "callbacks", "metrics"):
                assert same(one[key], other[key]), (stage, name, key)


PLACES = ["step:3", "writing:5", "validation:6", "step:7", "written:10", "writing:12", "validation:30", "written:41"]


def test_killed_at_chosen_places(whole: Callable[[str], tuple[RunConfig, Path]], tmp_path: Path) -> None:
    """In a step, in a validation, while a last.ckpt (5) or best.ckpt (12) is written, and before the end is told."""
    config, reference = whole("goals")
    for place in PLACES:
        killed_at(tmp_path / "parts", config, place)
    with process(lambda: train_in(tmp_path / "parts", config)) as pid:
        assert end_of(pid) == 0
    assert find_finished(config, RunFolder(tmp_path / "parts"))
    assert_equal_runs(config, reference, tmp_path / "parts")
    assert scalars(tmp_path / "parts") == scalars(reference)
    logged = {(name, int(step)): float(value) for step, name, value in metrics(reference)[1:]}
    assert scalars(reference).keys() == logged.keys()


def test_killed_between_stages(whole: Callable[[str], tuple[RunConfig, Path]], tmp_path: Path) -> None:
    config, reference = whole("critic")
    killed_at(tmp_path / "parts", config, "stage:critic")
    assert RunFolder(tmp_path / "parts").status() == {"model": StageStatus("done", 41)}
    assert find_finished(config, RunFolder(tmp_path / "parts")) is None
    trained = (tmp_path / "parts" / "model" / "last.ckpt").stat().st_mtime_ns
    with process(lambda: train_in(tmp_path / "parts", config)) as pid:
        assert end_of(pid) == 0
    assert (tmp_path / "parts" / "model" / "last.ckpt").stat().st_mtime_ns == trained
    assert_equal_runs(config, reference, tmp_path / "parts")


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    """What TensorBoard shows of a run; each entry once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    shown = [(tag, e.step, e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag)]
    found = {(tag, step): value for tag, step, value in shown if not tag.endswith(SPEED)}
    assert len(found) == sum(not tag.endswith(SPEED) for tag, _, _ in shown), "entries stand twice"
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_killed_at_any_moment(name: str, whole: Callable[[str], tuple[RunConfig, Path]], tmp_path: Path) -> None:
    """Eight times each, after a random share of the time that a whole run takes."""
    started = time.monotonic()
    config, reference = whole(name)
    seconds = time.monotonic() - started
    rng, kills, runs = random.Random(name), 0, 0
    while kills < 8 or not find_finished(config, RunFolder(tmp_path / f"parts{runs}")):
        parts = tmp_path / f"parts{runs}"
        with process(partial(train_in, parts, config)) as pid:
            if kills < 8:
                time.sleep(rng.uniform(0.05, 0.5) * seconds)
                os.kill(pid, signal.SIGKILL)
            ended = end_of(pid)
        if ended == 0:  # it came to its end first
            assert_equal_runs(config, reference, parts)
            runs += kills < 8
            continue
        assert ended == -signal.SIGKILL
        kills += 1
        for stage in (kind.name for kind in list_stages(config)):
            for path in (parts / stage).glob("*.ckpt"):
                assert checkpoint_step(path, stage) > 0  # whatever is there can be loaded
    print(f"{name}: {kills} kills in {runs + 1} runs of {seconds:.1f} s")
