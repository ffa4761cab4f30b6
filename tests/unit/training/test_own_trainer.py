"""Lightning's ordinary options in a trainer of one's own: each of them is right, or refused in a sentence."""

from __future__ import annotations

import copy
import logging
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger

import seqrl
from seqrl.config import WindowConfig
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.training.critic_module import CriticModule, TransitionDataModule
from seqrl.training.fast_cpu import speed_up
from seqrl.training.loading import batches_done
from seqrl.training.tokenizer_module import TokenizerModule

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning, about the options that are tried here

BACKBONE = {"num_layers": 1, "dim": 16, "num_heads": 1, "residual_dropout": 0.2}
MLP = {"name": "mlp", "num_layers": 1, "dim": 16}
VQ = {"name": "vq", "num_codes": 8, "code_dim": 8}
VECTORS = {"tokenizer": "continuous", "objective": "regression"}
SETTINGS: dict[str, dict[str, Any]] = {
    "tt": {"backbone": BACKBONE, "window": 5},
    "goal": {"layout": {"name": "tt_goal", "goal": {"dims": [0], "dropout": 0.2}}, "backbone": BACKBONE, "window": 5},
    "dt": {"layout": "dt", **VECTORS, "backbone": BACKBONE, "window": 5},
    "bc": {"layout": "bc", **VECTORS, "backbone": MLP, "window": 1},
    "rvs": {"layout": "rvs_goal", **VECTORS, "backbone": MLP, "window": 1},
    "vq": {"tokenizer": VQ, "backbone": BACKBONE, "window": 6},
    "tap": {"tokenizer": VQ, "backbone": BACKBONE, "window": 6},
}
KINDS = [pytest.param(kind, marks=() if kind == "dt" else pytest.mark.slow) for kind in (*SETTINGS, "critic")]
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def store() -> seqrl.EpisodeStore:
    rng = np.random.default_rng(0)
    episodes = [
        {
            "observations": rng.normal(size=(21, 3)),
            "actions": rng.uniform(-1, 1, size=(21, 2)),
            "rewards": rng.normal(size=21),
            "terminated": bool(number % 2),
        }
        for number in range(10)
    ]
    return seqrl.EpisodeStore.from_episodes(episodes)


Pair = tuple[Any, Any]
Make = Callable[..., Pair]


@pytest.fixture
def make(store: seqrl.EpisodeStore) -> Make:
    """A module of a kind with its data: 180 windows (or as many transitions) in 10 batches, 20 or more held out."""

    def made(kind: str, **more: Any) -> Pair:
        torch.manual_seed(0)
        if kind == "critic":
            layout = {"fields": {"observation": {}, "action": {}, "reward": {}}, "discount": 0.99}
            critic = {"critic": {"name": "iql", "dim": 16}, "critic_training": {"learning_rate": 1e-3}}
            module = CriticModule({**store.sizes, "layout": layout, "seed": 0, **critic})
            data = TransitionDataModule(store, Layout.from_config(layout, **store.sizes), batch_size=18)
            module.critic.fit(*data.statistics())
            return module, data
        sequence = seqrl.SequenceModule.for_store(store, **{**SETTINGS[kind], **more})
        windows = seqrl.EpisodeDataModule.for_module(sequence, store, batch_size=18)
        return (TokenizerModule(sequence) if kind == "vq" else sequence), windows

    return made


class Watch(pl.Callback):
    """Remembers the batches of a training, and after how many steps each was seen."""

    def __init__(self) -> None:
        self.batches: list[bytes] = []
        self.steps: list[int] = []
        self.dtypes: set[torch.dtype] = set()

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        tensors = [each for each in vars(batch).values() if each is not None]
        self.dtypes |= {each.dtype for each in tensors if each.is_floating_point()}
        self.batches.append(b"".join(np.ascontiguousarray(each.double().numpy()).tobytes() for each in tensors))
        self.steps.append(trainer.global_step)


def fit(pair: Pair, callbacks: Any = (), ckpt_path: Any = None, **options: Any) -> tuple[pl.Trainer, Watch]:
    watch = Watch()
    trainer = pl.Trainer(**{**QUIET, **options}, callbacks=[watch, *callbacks])
    trainer.fit(*pair, ckpt_path=ckpt_path)
    return trainer, watch


def weights(module: pl.LightningModule) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name].nan_to_num(), other[name].nan_to_num()) for name in one)


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_is_as_many_batches_as_the_windows_fill_and_no_batch_comes_twice(make: Make, kind: str) -> None:
    module, data = make(kind)
    trainer, watch = fit((module, data), max_epochs=2)
    assert trainer.num_training_batches == len(data.train_dataloader()) == data.steps_per_epoch == 10
    assert trainer.global_step == 20
    assert len(set(watch.batches)) == 20


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 2, "limit_train_batches": 3}, 6),
        ({"max_epochs": 2, "limit_train_batches": 0.5}, 10),
        ({"max_steps": 8, "limit_train_batches": 3}, 8),
        ({"max_steps": 13}, 13),
        ({"max_steps": 7, "max_epochs": 3, "limit_train_batches": 3, "reload_dataloaders_every_n_epochs": 1}, 7),
        ({"max_time": "00:01:00:00", "max_steps": 3}, 3),
        ({"fast_dev_run": 3}, 3),
        ({"max_epochs": 2, "limit_train_batches": 4, "min_epochs": 2, "gradient_clip_val": 0.5}, 8),
        ({"max_steps": 5, "gradient_clip_val": 0.5, "gradient_clip_algorithm": "value", "num_sanity_val_steps": -1}, 5),
        ({"max_steps": 3, "use_distributed_sampler": True, "barebones": True, "num_sanity_val_steps": 0}, 3),
        ({"max_steps": 3, "precision": "bf16-mixed", "deterministic": True, "detect_anomaly": True}, 3),
    ],
)
@pytest.mark.parametrize("kind", ["dt", pytest.param("goal", marks=pytest.mark.slow)])
def test_limits_show_new_batches_until_they_end_the_training(
    make: Make, kind: str, options: dict[str, Any], steps: int
) -> None:
    quiet = {"logger": None, "enable_checkpointing": None} if options.get("barebones") else {}
    trainer, watch = fit(make(kind), **{**quiet, **options})
    assert trainer.global_step == steps
    assert len(set(watch.batches)) == len(watch.batches) == steps


@pytest.mark.parametrize(
    ("options", "validations"),
    [
        ({"max_epochs": 2}, [10, 20]),
        ({"max_epochs": 1, "val_check_interval": 0.25}, [2, 4, 6, 8, 10]),
        ({"max_epochs": 2, "val_check_interval": 0.5}, [5, 10, 15, 20]),
        ({"max_epochs": 3, "check_val_every_n_epoch": 2}, [20]),
        ({"max_steps": 25, "check_val_every_n_epoch": None, "val_check_interval": 12}, [12, 24]),
        ({"max_epochs": 1, "limit_val_batches": 0}, []),
        ({"max_epochs": 1, "limit_val_batches": 1.0, "num_sanity_val_steps": 2}, [10]),
    ],
)
def test_validations_are_where_lightning_says(
    make: Make, tmp_path: Path, options: dict[str, Any], validations: list[int]
) -> None:
    logged: list[int] = []

    class Logger(CSVLogger):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            if "val/loss" in metrics:
                assert math.isfinite(metrics["val/loss"])
                logged.append(step or 0)

    fit(make("bc"), logger=Logger(tmp_path), **options)
    assert logged == validations, "batches that only try validation are no entry"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 0.3])
def test_overfitting_shows_the_same_batches_in_every_epoch(make: Make, kind: str, count: float) -> None:
    module, data = make(kind)
    data.validation_batches = 0 if count == 1 else data.validation_batches
    trainer, watch = fit((module, data), max_epochs=4, overfit_batches=count, limit_val_batches=1)
    batches = 1 if count == 1 else 3
    assert trainer.global_step == 4 * batches
    assert watch.batches == watch.batches[:batches] * 4
    assert len(set(watch.batches)) == batches


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every", [2, 3])
def test_every_step_has_its_own_batches_when_gradients_are_accumulated(make: Make, kind: str, every: int) -> None:
    trainer, watch = fit(make(kind), max_steps=7, accumulate_grad_batches=every)
    assert trainer.global_step == 7
    assert watch.steps == [step for step in range(7) for _ in range(every)], (
        "epochs are multiples of the batches of a step"
    )
    assert len(set(watch.batches)) == 7 * every


def test_accumulated_batches_have_dropout_masks_of_their_own(make: Make) -> None:
    module, data = make("tt")
    draws = []

    class Draw(pl.Callback):
        def on_before_backward(self, *rest: Any) -> None:
            draws.append(float(torch.rand(())))

    fit((module, data), [Draw()], max_steps=3, accumulate_grad_batches=2)
    assert len(set(draws)) == 6


class SaveAt(pl.Callback):
    """Saves after some batches of a training."""

    def __init__(self, path: Path, batches: int) -> None:
        self.path, self.batches = path, batches

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if batches_done(trainer) == self.batches - 1:  # the present one is not done before this
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("every", "batches"), [(1, 4), (1, 10), (1, 13), (3, 6), (3, 4), (3, 12), (3, 14)])
def test_a_training_that_goes_on_from_a_checkpoint_is_the_uninterrupted_one(
    make: Make, tmp_path: Path, kind: str, every: int, batches: int
) -> None:
    """Also at the end of an epoch, and between the batches of a step, of which gradients are there already."""
    options: dict[str, Any] = {"max_steps": 6 if every > 1 else 15, "accumulate_grad_batches": every}
    whole, data = make(kind)
    start = copy.deepcopy(whole.state_dict())
    _, seen = fit((whole, data), [SaveAt(tmp_path / "middle.ckpt", batches)], **options)
    parts, data = make(kind)
    parts.load_state_dict(start)
    _, rest = fit((parts, data), ckpt_path=tmp_path / "middle.ckpt", **options)
    assert rest.batches == seen.batches[batches:]
    assert same(weights(parts), weights(whole))


@pytest.mark.parametrize("every", [1, 3])
def test_a_fast_training_that_goes_on_is_the_uninterrupted_one(make: Make, tmp_path: Path, every: int) -> None:
    """Its dropout draws are a function of seed and batch as well."""
    backbone = {**BACKBONE, "attention_dropout": 0.3}
    options: dict[str, Any] = {"max_steps": 6, "accumulate_grad_batches": every}
    whole, data = make("tt", backbone=backbone)
    start = copy.deepcopy(whole.state_dict())
    slow, _ = make("tt", backbone=backbone)
    fit((slow, data), **options)
    speed_up(whole.model)
    fit((whole, data), [SaveAt(tmp_path / "middle.ckpt", 4)], **options)
    parts, data = make("tt", backbone=backbone)
    speed_up(parts.model)
    parts.load_state_dict(start)
    fit((parts, data), ckpt_path=tmp_path / "middle.ckpt", **options)
    assert same(weights(parts), weights(whole))
    assert not same(weights(slow), weights(whole)), "other masks than torch's"


@pytest.mark.parametrize("options", [{"max_epochs": 3}, {"max_steps": 30}, {"max_epochs": 3, "limit_train_batches": 4}])
def test_a_checkpoint_of_lightnings_own_is_resumed_from_as_well(
    make: Make, tmp_path: Path, options: dict[str, Any]
) -> None:
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole, data = make("goal")
    options = {**options, "enable_checkpointing": True}
    _, seen = fit((whole, data), [keep], **options)
    parts, data = make("goal")
    size = len(seen.batches) // 3
    _, rest = fit((parts, data), ckpt_path=tmp_path / "epoch=0.ckpt", default_root_dir=tmp_path, **options)
    assert rest.batches == seen.batches[size:]
    assert same(weights(parts), weights(whole))


@pytest.mark.parametrize("kind", KINDS)
def test_loaders_may_be_given_to_fit_by_themselves(make: Make, kind: str) -> None:
    module, data = make(kind)
    _, expected = fit((module, data), max_epochs=2)
    other, data = make(kind)
    if kind == "vq":
        data.trainer = None
        train = data.train_dataloader()
        train.cut, held_out = _values(data)
    else:
        train, held_out = data.train_dataloader(), data.val_dataloader()
    assert len(next(iter(train)).__dict__) > 1, "a look at a batch costs the training nothing"
    watch = Watch()
    trainer = pl.Trainer(**QUIET, max_epochs=2, callbacks=[watch])
    trainer.fit(other, train_dataloaders=train, val_dataloaders=held_out)
    assert watch.batches == expected.batches
    assert same(weights(other), weights(module))


def _values(data: Any) -> tuple[Any, Any]:
    """What a tokenizer learns from, where no trainer says that it is the tokenizer's turn."""
    from functools import partial

    from seqrl.training.datamodule import _cut_training

    return partial(_cut_training, data.train_windows, data.order), None


def test_a_loader_of_ones_own_trains_as_well(make: Make) -> None:
    module, data = make("tt")
    batches = [data.train_windows.batch(np.arange(n, n + 6), np.random.default_rng(n)) for n in range(8)]
    trainer = pl.Trainer(**QUIET, max_epochs=2)
    trainer.fit(module, train_dataloaders=torch.utils.data.DataLoader(batches, batch_size=None))
    assert trainer.global_step == 16


def test_a_second_training_goes_on_with_a_trainer_and_begins_anew_with_another(make: Make) -> None:
    pair = make("dt")
    trainer, watch = fit(pair, max_epochs=1)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(*pair)
    assert len(set(watch.batches)) == 20
    _, again = fit(pair, max_epochs=1)
    assert again.batches == watch.batches[:10]


@pytest.mark.parametrize("kind", KINDS)
def test_the_module_logs_what_it_says(make: Make, tmp_path: Path, kind: str) -> None:
    logger = CSVLogger(tmp_path)
    trainer, _ = fit(make(kind), logger=logger, max_steps=12, log_every_n_steps=3)
    logger.save()
    rows = [row.split(",") for row in (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()]
    names = set(rows[0])
    speed = "train/steps_per_second" if kind == "critic" else "train/tokens_per_second"
    assert {"train/loss", "val/loss", "train/learning_rate", speed} <= names
    own = {name for name in trainer.callback_metrics if name.startswith("train/")}
    assert own >= {name.replace("val/", "train/") for name in names if name.startswith("val/")} | {speed}
    column, step = rows[0].index("train/loss"), rows[0].index("step")
    assert [int(row[step]) for row in rows[1:] if row[column]] == [1, 3, 6, 9, 10, 12], "10 ends the epoch"
    assert "train/loss" in trainer.progress_bar_metrics


def test_the_means_of_an_epoch_are_those_of_all_its_batches(make: Make) -> None:
    module, data = make("bc")
    losses: list[float] = []

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, *rest: Any) -> None:
            losses.append(float(outputs["loss"]) * 2)
            if trainer.accumulate_grad_batches == 2:
                assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(losses[-1])

    trainer, _ = fit((module, data), [Losses()], max_epochs=2, accumulate_grad_batches=2, log_every_n_steps=3)
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(np.mean(losses[10:]), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["train/loss", "val/loss"])
def test_callbacks_watch_the_losses(make: Make, tmp_path: Path, kind: str, name: str) -> None:
    stop = EarlyStopping(name, stopping_threshold=1e9)
    best = ModelCheckpoint(tmp_path, monitor=name, save_last=True)
    monitor = LearningRateMonitor()
    logger = CSVLogger(tmp_path)
    trainer, _ = fit(make(kind), [stop, best, monitor], max_epochs=5, enable_checkpointing=True, logger=logger)
    assert trainer.current_epoch == 1, "stopped after the first epoch"
    assert best.best_model_score is not None
    assert math.isfinite(best.best_model_score)
    assert Path(best.best_model_path).is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_validate_and_test_return_their_losses(make: Make, kind: str) -> None:
    module, data = make(kind)
    trainer = pl.Trainer(**QUIET)
    (held_out,) = trainer.validate(module, data, verbose=False)
    (tested,) = trainer.test(module, data, verbose=False)
    assert math.isfinite(held_out["val/loss"])
    assert tested == {name.replace("val/", "test/"): pytest.approx(value) for name, value in held_out.items()}
    trainer = pl.Trainer(**QUIET, max_steps=2)
    trainer.fit(module, data)
    assert trainer.validate(module, data, verbose=False) != [held_out]


@pytest.mark.parametrize("kind", KINDS)
def test_predict_is_refused_in_a_sentence(make: Make, kind: str) -> None:
    module, data = make(kind)
    with pytest.raises(ConfigError, match=r"use seqrl.Policy\(module.model\) to act"):
        pl.Trainer(**QUIET).predict(module, data.train_dataloader())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("64-true", torch.float64),
        ("bf16-true", torch.bfloat16),
        ("16-true", torch.float16),
        ("bf16-mixed", torch.float32),
    ],
)
def test_batches_arrive_in_the_precision_of_the_module(
    make: Make, kind: str, precision: Any, dtype: torch.dtype
) -> None:
    pair = make(kind)
    if kind in ("vq", "critic") and dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(ConfigError, match=f"precision='{precision}' is too coarse for the .*; use '32-true'"):
            fit(pair, max_steps=1, precision=precision)
        return
    trainer, watch = fit(pair, max_steps=30, precision=precision)
    learnt = [each for each in pair[0].parameters() if each.requires_grad]
    assert {each.dtype for each in learnt} == {dtype}
    assert watch.dtypes <= {dtype}
    assert all(bool(each.isfinite().all()) for each in learnt)
    plain, _ = fit(make(kind), max_steps=30)
    losses = [float(each.callback_metrics["train/loss"]) for each in (trainer, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "16-true"])
@pytest.mark.parametrize("kind", ["tt", "dt", "rvs", "tap"])
def test_precision_changes_no_statistics_and_the_model_acts(
    make: Make, store: seqrl.EpisodeStore, tmp_path: Path, kind: str, precision: Any
) -> None:
    module, data = make(kind)
    before = {name: value.clone() for name, value in module.model.tokenizer.state_dict().items()}
    trainer, _ = fit((module, data), max_steps=2, precision=precision)
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    assert all(
        torch.equal(value.to(before[name]), before[name]) for name, value in module.model.tokenizer.state_dict().items()
    )
    planner = {"name": "latent_beam", "horizon": 3} if kind == "tap" else {"name": "sample"}
    extra = {"score": {"name": "reward"}} if kind == "tap" else {}
    if kind == "dt":
        extra = {"condition": {"name": "target_return", "target": 1.0}}
    if kind == "rvs":
        return
    models = [seqrl.load(tmp_path / "own.ckpt").model, *([module.model] if precision == "bf16-true" else [])]
    for model in models:
        policy = seqrl.Policy(model, planner=planner, **extra)
        policy.reset(2)
        assert np.isfinite(policy.act(store.observations[:2])).all()


def test_a_schedule_is_as_long_as_the_epochs_say(make: Make) -> None:
    rates: dict[str, list[float]] = {}
    for name, options in {
        "steps": {"max_steps": 20},
        "epochs": {"max_epochs": 2},
        "limited": {"max_epochs": 4, "limit_train_batches": 0.5},
        "accumulated": {"max_epochs": 4, "accumulate_grad_batches": 2},
    }.items():
        seen: list[float] = []

        class Rates(pl.Callback):
            def on_train_batch_start(self, trainer: pl.Trainer, *rest: Any, seen: list[float] = seen) -> None:
                if len(seen) == trainer.global_step:
                    seen.append(trainer.optimizers[0].param_groups[0]["lr"])

        fit(make("tt"), [Rates()], **options)
        rates[name] = seen
    assert len(rates["steps"]) == 20
    assert all(each == rates["steps"] for each in rates.values())


def test_a_training_without_an_end_is_refused_to_a_schedule_that_needs_one(make: Make) -> None:
    for options in ({"max_time": "00:00:00:01"}, {"max_epochs": -1}):
        with pytest.raises(
            ConfigError, match=r"scheduler=cosine .* neither max_steps nor max_epochs; give one of them"
        ):
            fit(make("tt"), **options)
    trainer, watch = fit(make("tt", scheduler="constant"), max_time={"seconds": 0.2})
    assert len(set(watch.batches)) == trainer.global_step > 0
    trainer, _ = fit(make("critic"), max_time={"seconds": 0.2})
    assert trainer.global_step > 0


@pytest.mark.parametrize("kind", KINDS)
def test_averages_of_weights_are_right_or_refused(make: Make, kind: str) -> None:
    average = StochasticWeightAveraging(1e-3, swa_epoch_start=1)
    options: dict[str, Any] = {"max_epochs": 3, "limit_train_batches": 2}
    if kind in ("vq", "critic"):
        with pytest.raises(
            ConfigError, match=r"StochasticWeightAveraging .* would leave the .* behind; train without it"
        ):
            fit(make(kind), [average], **options)
    else:
        seen: list[dict[str, torch.Tensor]] = []

        class Epochs(pl.Callback):
            def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
                seen.append({name: each.detach().clone() for name, each in module.named_parameters()})

        module, data = make(kind)
        fit((module, data), [average, Epochs()], **options)
        for name, each in module.named_parameters():
            assert torch.allclose(each, torch.stack([epoch[name] for epoch in seen]).mean(0), atol=1e-6)
    trainer, _ = fit(make(kind), [EMAWeightAveraging(decay=0.5)], **options)
    assert math.isfinite(trainer.callback_metrics["val/loss"])


def test_accumulation_that_changes_between_epochs_shows_new_batches(make: Make) -> None:
    trainer, watch = fit(make("critic"), [GradientAccumulationScheduler({0: 1, 1: 2})], max_epochs=2)
    assert trainer.global_step == 15
    assert len(set(watch.batches)) == 20


def test_episodes_that_are_not_tokenized_are_told(store: seqrl.EpisodeStore, make: Make) -> None:
    module, _ = make("tt")
    data = seqrl.EpisodeDataModule(store, module.model.layout, window=WindowConfig(5), batch_size=4)
    with pytest.raises(ConfigError, match=r"not tokenized yet; make the data with EpisodeDataModule.for_module"):
        fit((module, data), max_steps=1)


SCRIPT = """
import sys
import lightning.pytorch as pl, numpy as np, torch
import seqrl

torch.set_num_threads(1)
if __name__ == "__main__":
    pl.seed_everything(0, verbose=False)
    rng = np.random.default_rng(0)
    episode = lambda: {"observations": rng.normal(size=(21, 3)), "actions": rng.uniform(-1, 1, size=(21, 2)),
                       "rewards": rng.normal(size=21), "terminated": False}
    store = seqrl.EpisodeStore.from_episodes([episode() for _ in range(10)])
    module = seqrl.SequenceModule.for_store(
        store, window=5, backbone={"num_layers": 1, "dim": 16, "num_heads": 1, **dict.fromkeys(
            ("embedding_dropout", "residual_dropout", "attention_dropout"), 0.0)})
    data = seqrl.EpisodeDataModule.for_module(module, store, batch_size=18)
    ranks, folder = int(sys.argv[1]), sys.argv[2]
    several = {"devices": 2, "strategy": "ddp"} if ranks == 2 else {}
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, accumulate_grad_batches=2, default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False, logger=False, callbacks=[pl.callbacks.EarlyStopping("train/loss")], **several)
    trainer.fit(module, data)
    losses = {name: float(trainer.callback_metrics[name]) for name in ("train/loss", "val/loss")}
    (held_out,) = trainer.validate(module, data, verbose=False)
    if trainer.is_global_zero:
        losses["again"] = held_out["val/loss"]
        torch.save({"weights": module.state_dict(), "losses": losses, "steps": trainer.global_step}, f"{folder}/end.pt")
"""


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    ends = {}
    for ranks in (1, 2):
        (tmp_path / str(ranks)).mkdir()
        words = [sys.executable, "-W", "ignore", "script.py", str(ranks), str(ranks)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        ends[ranks] = torch.load(tmp_path / str(ranks) / "end.pt", weights_only=True)
    assert ends[1]["steps"] == ends[2]["steps"] == 10
    assert ends[2]["losses"] == {name: pytest.approx(loss, rel=1e-4) for name, loss in ends[1]["losses"].items()}
    for name, each in ends[1]["weights"].items():
        assert torch.allclose(each, ends[2]["weights"][name], atol=1e-4), name
