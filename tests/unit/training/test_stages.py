"""The stages of a run as objects: which there are, with which settings, before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from seqrl.cli.application import plain
from seqrl.config import RunConfig, TrialConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.data.summary import DataSizes
from seqrl.errors import ConfigError
from seqrl.paths import config_dir
from seqrl.runs.folder import RunFolder
from seqrl.runs.stages import CRITIC, MODEL, TOKENIZER
from seqrl.training.datamodule import EpisodeDataModule
from seqrl.training.run import summarize_data
from seqrl.training.stages import Stage, check_stages, list_stages, make_stages

WORDS = ["debug=fast", "tokenizer=vq", "critic=iql", "critic.dim=16", "layout.termination_penalty=null",
         "window.length=6", "backbone.dim=8", "training.max_steps=7", "optimizer.clip_norm=0.5",
         "critic_training.max_steps=9", "critic_training.clip_norm=null", "tokenizer_training.max_steps=5"]  # fmt: skip


def compose(*words: str) -> RunConfig:
    import hydra

    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        return RunConfig.from_dict(plain(hydra.compose("train", [*WORDS, *words])))


def make(run: RunConfig, store: EpisodeStore, folder: Path) -> list[Stage]:
    return make_stages(run, store, summarize_data(store), RunFolder(folder))


def test_each_stage_has_its_own_settings(tiny_store: EpisodeStore, tmp_path: Path) -> None:
    config = compose("++trainer.strategy=fsdp", "++trainer.compile=true")
    stages = make(config, tiny_store, tmp_path / "run")
    assert [stage.kind for stage in stages] == list_stages(config) == [TOKENIZER, MODEL, CRITIC]
    assert [stage.settings.max_steps for stage in stages] == [5, 7, 9]
    assert [stage.clip_norm for stage in stages] == [0.5, 0.5, None]
    assert len({stage.settings.log_every for stage in stages}) == 1
    # Small models are replicated and not compiled, whatever the model is.
    assert [stage.trainer.strategy for stage in stages] == ["ddp", "fsdp", "ddp"]
    assert [stage.trainer.compile for stage in stages] == [False, True, False]
    assert [bool(stage.trial) for stage in stages] == [False, False, False]


def test_a_tokenizer_may_clip_its_own_way_and_only_the_model_is_searched(
    tiny_store: EpisodeStore, tmp_path: Path
) -> None:
    trial = TrialConfig(journal="study.log", number=3, metric="val/loss", pruner={})
    run = replace(compose("++tokenizer_training.clip_norm=0.25"), trial=trial, critic=None)
    tokenizer, model = make(run, tiny_store, tmp_path / "run")
    assert (tokenizer.clip_norm, model.clip_norm) == (0.25, 0.5)
    assert (tokenizer.trial, model.trial) == (None, trial)


def test_a_tokenizer_without_parameters_is_reported_and_no_stage(tiny_store: EpisodeStore, tmp_path: Path) -> None:
    config = replace(compose("tokenizer=uniform"), critic=None)
    (model,) = make(config, tiny_store, tmp_path / "run")
    assert model.kind is MODEL
    assert (tmp_path / "run" / "tokenizer.csv").is_file()


@pytest.mark.parametrize("section", ["training", "tokenizer_training", "critic_training"])
def test_settings_of_every_stage_are_refused_before_one_is_trained(section: str) -> None:
    with pytest.raises(ConfigError, match=rf"{section}\.log_every=0 is too small; give 1 or more"):
        compose(f"++{section}.log_every=0")


def test_losses_are_told_in_the_words_of_their_stage(tiny_store: EpisodeStore, tmp_path: Path) -> None:
    model, critic = make(compose("tokenizer=uniform"), tiny_store, tmp_path / "run")
    tokens = {"val/loss": 1.25, "val/action_loss": 1.0, "val/action_accuracy": 0.5}
    assert model.tell_loss(tokens) == "1.250 nats per token (weighted); token accuracy: action 50.0 %"
    assert model.tell_loss({"val/loss": 0.5, "val/action_loss": 0.5}) == "0.500 mean squared error, normalized"
    assert critic.tell_loss({"val/loss": 0.123456}) == "0.1235"


@pytest.mark.parametrize(
    ("words", "objective", "refusal"),
    [
        (["++trainer.devices=2", "training.batch_size=5"], "val/loss", r"training.batch_size=5 cannot be shared by 2"),
        (
            ["++trainer.devices=2", "critic_training.batch_size=7"],
            "val/loss",
            r"critic_training.batch_size=7 cannot be",
        ),
        (
            ["++trainer.devices=[0,1]", "++tokenizer_training.batch_size=9"],
            "val/loss",
            "tokenizer_training.batch_size=9",
        ),
        (["++trainer.num_nodes=3", "training.batch_size=12", "critic_training.batch_size=4"], "val/loss", "4 .* by 3 "),
        ([], "val/nope", r"objective_metric='val/nope' is not measured by this training. Did you mean 'val/loss'"),
        ([], "train/action_accuracy", r"is not measured by this training.* Measured: train/code_accuracy"),
        (["training.loggers=[tensorboard]"], "train/loss", r"is read from metrics.csv; add csv to training.loggers"),
    ],
)
def test_what_a_later_stage_would_refuse_is_refused_before_the_first(
    tiny_store: EpisodeStore, words: list[str], objective: str, refusal: str
) -> None:
    sizes = DataSizes.of(tiny_store)
    run = compose("training.batch_size=4", "critic_training.batch_size=4", f"objective_metric={objective}", *words)
    with pytest.raises(ConfigError, match=refusal):
        check_stages(run, sizes)
    check_stages(compose("training.batch_size=4", "objective_metric=train/learning_rate"), sizes)


def test_a_tokenizer_may_have_batches_of_its_own(tiny_store: EpisodeStore, tmp_path: Path) -> None:
    config = compose("training.batch_size=4", "++tokenizer_training.batch_size=6")
    tokenizer, model, _ = make(config, tiny_store, tmp_path / "run")
    assert isinstance(tokenizer.data, EpisodeDataModule)
    assert isinstance(model.data, EpisodeDataModule)
    assert (tokenizer.data.batch_size, model.data.batch_size) == (6, 4)
    assert len(tokenizer.data.order.batch(0)) == 6


def test_a_share_of_less_than_one_batch_is_refused_before_the_first_stage(
    tiny_store: EpisodeStore, tmp_path: Path
) -> None:
    words = ["training.batch_size=4", "critic_training.batch_size=4"]
    for share in ("1e-300", "0.001"):
        run = compose(*words, f"++trainer.overfit_batches={share}")
        with pytest.raises(ConfigError, match=r"overfit_batches=\S+ is less than one of the \d+ batches of an epoch"):
            make(run, tiny_store, tmp_path / share)
    make(compose(*words, "++trainer.overfit_batches=1"), tiny_store, tmp_path / "run")
