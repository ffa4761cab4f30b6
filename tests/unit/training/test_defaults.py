"""Scripts without Hydra start from the same settings as the command line."""

from __future__ import annotations

from typing import Any

import hydra
import pytest

from seqrl.cli.application import plain
from seqrl.config import TrainingConfig
from seqrl.data.episodes import EpisodeStore
from seqrl.errors import ConfigError
from seqrl.paths import config_dir
from seqrl.registry import TOKENIZER
from seqrl.tokenizers.uniform import UniformTokenizer
from seqrl.training.datamodule import EpisodeDataModule
from seqrl.training.defaults import GROUPS, compose_sequence
from seqrl.training.module import SequenceModule

KEYS = (*GROUPS, "window", "seed")


@pytest.mark.parametrize(
    ("words", "groups", "window", "seed"),
    [
        ([], {}, None, None),
        (["layout=tt_goal", "scheduler=tt_reference"], {"layout": "tt_goal", "scheduler": "tt_reference"}, None, None),
        (["backbone.dim=64", "window.length=5", "seed=3"], {"backbone": {"dim": 64}}, 5, 3),
        (
            ["tokenizer=uniform", "tokenizer.num_bins=7", "optimizer.weight_decay=0"],
            {"tokenizer": {"name": "uniform", "num_bins": 7}, "optimizer": {"weight_decay": 0}},
            None,
            None,
        ),
    ],
)
def test_a_script_gets_what_the_command_would_compose(
    words: list[str], groups: dict[str, Any], window: int | None, seed: int | None
) -> None:
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        composed = plain(hydra.compose("train", words))
    assert compose_sequence(groups, window=window, seed=seed).given == {key: composed[key] for key in KEYS}


@pytest.mark.usefixtures("clean_plugins")
def test_a_component_without_yaml_keeps_its_own_defaults() -> None:
    @TOKENIZER.register("log_bins")
    class LogBins(UniformTokenizer):
        pass

    assert compose_sequence({"tokenizer": "log_bins"}).tokenizer == {"name": "log_bins"}
    chosen = {"name": "log_bins", "num_bins": 2}
    assert compose_sequence({"tokenizer": chosen}).tokenizer == chosen


def test_an_unknown_name_is_answered_with_what_there_is(tiny_store: EpisodeStore) -> None:
    with pytest.raises(ConfigError, match=r"no layout named 'ttt'\. Did you mean 'tt'\? Available: bc, dt, rvs_goal"):
        SequenceModule.for_store(tiny_store, layout="ttt")
    with pytest.raises(ConfigError, match=r"no scheduler named 'cosinus'\. Did you mean 'cosine'"):
        SequenceModule.for_store(tiny_store, scheduler="cosinus")
    with pytest.raises(ConfigError, match=r"no tokenizer named 'quartile'\. Did you mean 'quantile'"):
        SequenceModule.for_store(tiny_store, tokenizer="quartile")
    with pytest.raises(ConfigError, match=r"backbone 'gpt' has no option 'dims'\. Did you mean 'dim'"):
        SequenceModule.for_store(tiny_store, backbone={"dims": 8})


def test_the_tokenizer_is_fitted_once(tiny_store: EpisodeStore) -> None:
    module = SequenceModule.for_store(tiny_store, tokenizer="uniform", backbone={"dim": 8}, window=3, seed=4)
    data = EpisodeDataModule.for_module(module, tiny_store, batch_size=4, validation_fraction=0.0)
    assert (data.batch_size, data.seed, data.window.length) == (4, 4, 3)
    assert len(data.train_windows) > 0
    high = module.model.tokenizer.state_dict()["high"].clone()
    assert high[0] > 0
    tiny_store.observations[:, 0] += 100
    again = EpisodeDataModule.for_module(module, tiny_store, validation_fraction=0.0)
    assert again.batch_size == TrainingConfig().batch_size
    assert (module.model.tokenizer.state_dict()["high"] == high).all()


@pytest.mark.usefixtures("clean_plugins")
def test_a_checkpoint_says_where_a_tokenizer_of_others_came_from(tiny_store: EpisodeStore) -> None:
    @TOKENIZER.register("mine")
    class MyTokenizer(UniformTokenizer):
        pass

    note: dict[str, Any] = {}
    SequenceModule.for_store(tiny_store, tokenizer="mine", backbone={"dim": 8}).on_save_checkpoint(note)
    assert note["seqrl"]["origins"] == {"tokenizer": __name__}
    SequenceModule.for_store(tiny_store, backbone={"dim": 8}).on_save_checkpoint(note)
    assert note["seqrl"]["origins"] == {}
