"""The contracts of loggers and callbacks."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from seqrl.callbacks import Training, TrainingCallback
from seqrl.files import write_file
from seqrl.loggers import LoggedRun, Logger
from seqrl.testing.contract import Component, require

NOWHERE = LoggedRun(Path("no-run"))
_METRICS = {"val/loss": 1.5, "val/accuracy": 0.5, "train/loss": 2.0}


def nothing_before_something(component: Component) -> None:
    """A logger that is made and closed leaves no file."""
    with tempfile.TemporaryDirectory() as folder:
        _logger(component, Path(folder)).close()
        left = sorted(path.name for path in Path(folder).iterdir())
    require(not left, f"a logger that was made and closed left {', '.join(left)}; open files when something is logged")


def everything_is_taken(component: Component) -> None:
    """Settings, metrics, rows, pictures and videos may come in this order, and a run may go on."""
    with tempfile.TemporaryDirectory() as name:
        folder, picture = Path(name), Path(name) / "picture.png"
        _write_picture(picture)
        for step in (0, 3):  # of a run that goes on
            logger = _logger(component, folder, resumed_step=step)
            logger.log_settings({"backbone": "gpt", "backbone.dim": 32, "window.terminate_truncated": True})
            for number in (step + 1, step + 2):
                logger.log_metrics(_METRICS, number)
            logger.flush()
            logger.log_row("goal, 5 a plan", {"return_mean": 1.0, "success_rate": 50.0}, step + 2)
            logger.log_picture("eval/goal/paths", picture, step + 2)
            logger.close()


def the_training_stays_as_it_is(component: Component) -> None:
    """A callback changes neither the trained weights nor the random numbers of a training."""
    model, before = _model()
    state = torch.get_rng_state()
    _watch(_callback(component), model)
    moved = [name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])]
    require(not moved, f"the callback moved {', '.join(moved)}; give other weights by `weights()`")
    require(torch.equal(state, torch.get_rng_state()), "the callback draws from torch's generator; make one of its own")


def state_goes_on(component: Component) -> None:
    """What `state_dict` gives can be saved as plain values and tensors, and another object goes on with it."""
    model, _ = _model()
    first = _callback(component)
    _watch(first, model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.pt"
        torch.save(first.state_dict(), path)
        state = torch.load(path, weights_only=True)
    second = _callback(component)
    second.load_state_dict(copy.deepcopy(state))
    ends = [_watch(each, copy.deepcopy(model), first_step=4).end_reason for each in (first, second)]
    require(ends[0] == ends[1], f"after loading its state it ends a training for another reason: {ends}")
    pairs = [each.weights() for each in (first, second)]
    if pairs[0] is not None and pairs[1] is not None:
        same = all(torch.equal(weight, pairs[1][name]) for name, weight in pairs[0].items())
        require(same, "after loading its state it gives other weights")


LOGGER_CONTRACTS = (nothing_before_something, everything_is_taken)
CALLBACK_CONTRACTS = (the_training_stays_as_it_is, state_goes_on)


def _logger(component: Component, folder: Path, *, resumed_step: int = 0) -> Logger:
    made: Logger = component.build(run=LoggedRun(folder, resumed_step=resumed_step))
    return made


def _callback(component: Component) -> TrainingCallback:
    made: TrainingCallback = component.build()
    return made


def _model() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    return model, copy.deepcopy(model.state_dict())


def _watch(callback: TrainingCallback, model: nn.Module, *, first_step: int = 0) -> Training:
    training = Training("model", model, first_step, max_steps=100)
    callback.on_start(training)
    for step in range(first_step + 1, first_step + 5):
        training.step = step
        callback.on_step(training)
        if step % 2 == 0:
            training.metrics = _METRICS
            callback.on_validation(training)
    return training


def _write_picture(path: Path) -> None:
    from PIL import Image

    with write_file(path) as file:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, format="PNG")
