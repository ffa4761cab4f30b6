"""Codes of windows: made once for every window start, and the same as those of the windows that the loss is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from seqrl.config import WindowConfig
from seqrl.data.batches import CodeWindows, ValueWindows
from seqrl.testing import samples
from seqrl.tokenizers.vq import VqTokenizer
from seqrl.training.datamodule import EpisodeDataModule
from seqrl.training.module import SequenceModule
from seqrl.types import CodeBatch, ValueBatch

WINDOW = 6


@pytest.fixture
def module() -> SequenceModule:
    torch.manual_seed(0)
    tokenizer = {"name": "vq", "num_codes": 8, "code_dim": 4, "steps_per_code": 2}
    backbone = {"num_layers": 1, "num_heads": 2, "dim": 8}
    made = SequenceModule.for_store(samples.store(), layout="tt", tokenizer=tokenizer, backbone=backbone, window=WINDOW)
    samples.scramble(made.model)
    tokenizer_of(made).codebook.vectors.normal_(generator=torch.Generator().manual_seed(3))
    return made


def tokenizer_of(module: SequenceModule) -> VqTokenizer:
    assert isinstance(module.model.tokenizer, VqTokenizer)
    return module.model.tokenizer


@pytest.fixture
def data(module: SequenceModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EpisodeDataModule:
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path))
    return EpisodeDataModule.for_module(module, samples.store(), batch_size=4, validation_fraction=0.3)


def both(data: EpisodeDataModule, module: SequenceModule) -> tuple[ValueBatch, CodeBatch]:
    """All training windows, as the autoencoder learns from them and as its prior does."""
    codes = data.windows_for(module, data.train_episodes)
    assert isinstance(codes, CodeWindows)
    assert isinstance(data.train_windows, ValueWindows)
    indices = np.arange(len(codes))[::-1]
    generator = np.random.default_rng(0)
    return data.train_windows.batch(indices, generator), codes.batch(indices, generator)


def test_a_window_has_the_codes_state_and_mask_of_its_values(module: SequenceModule, data: EpisodeDataModule) -> None:
    values, found = both(data, module)
    assert bool(values.values.isnan().any()), "some windows reach past the end of an episode"
    assert torch.equal(found.codes, tokenizer_of(module).encode_windows(values.values))
    assert len(found.codes.unique()) > 2
    assert torch.equal(found.state, values.values[:, 0, : samples.OBSERVATION_SIZE])
    assert torch.equal(found.mask, values.mask[:, [0, 2, 4]])


def test_codes_are_those_of_the_stride(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path))
    tokenizer = {"name": "vq", "num_codes": 8, "code_dim": 4, "steps_per_code": 2}
    backbone = {"num_layers": 1, "num_heads": 2, "dim": 8}
    module = SequenceModule.for_store(
        samples.store(), layout={"name": "tt", "stride": 2}, tokenizer=tokenizer, backbone=backbone, window=4
    )
    samples.scramble(module.model)
    tokenizer_of(module).codebook.vectors.normal_(generator=torch.Generator().manual_seed(3))
    values, found = both(EpisodeDataModule.for_module(module, samples.store(), batch_size=4), module)
    assert torch.equal(found.codes, tokenizer_of(module).encode_windows(values.values))


def test_windows_are_encoded_once_and_anew_where_the_tokenizer_changed(
    module: SequenceModule, data: EpisodeDataModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    encode = VqTokenizer.encode_windows

    def counted(self: VqTokenizer, values: torch.Tensor) -> torch.Tensor:
        asked.append(len(values))
        return encode(self, values)

    monkeypatch.setattr(VqTokenizer, "encode_windows", counted)
    first = both(data, module)[1]
    data.windows_for(module, data.validation_episodes)
    assert sum(asked) == len(samples.store())  # every row of the store starts a window

    other = EpisodeDataModule.for_module(module, samples.store(), batch_size=4, validation_fraction=0.3)
    again = both(other, module)[1]
    assert torch.equal(first.codes, again.codes)
    assert sum(asked) == len(samples.store()), "another data module reads the cache"

    vectors = tokenizer_of(module).codebook.vectors
    vectors.copy_(vectors.flip(0))
    changed = both(data, module)[1]
    assert sum(asked) == 2 * len(samples.store())
    assert torch.equal(changed.codes, 7 - first.codes)


def test_codes_stay_in_memory_where_there_is_no_cache_folder(
    module: SequenceModule, data: EpisodeDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = both(data, module)[1]
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("SEQRL_DATA", str(blocked))
    other = EpisodeDataModule.for_module(module, samples.store(), batch_size=4, validation_fraction=0.3)
    assert torch.equal(both(other, module)[1].codes, wanted.codes)


def test_other_models_learn_from_what_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQRL_DATA", str(tmp_path))
    module = SequenceModule.for_store(samples.store(), backbone={"num_layers": 1, "num_heads": 2, "dim": 8}, window=3)
    data = EpisodeDataModule.for_module(module, samples.store(), batch_size=4)
    windows = data.windows_for(module, data.train_episodes)
    batch = windows.batch(np.arange(5), np.random.default_rng(0))
    assert torch.equal(batch.tokens, data.train_windows.batch(np.arange(5), np.random.default_rng(0)).tokens)
    assert data.window == WindowConfig(3)
