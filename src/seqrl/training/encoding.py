"""What tokenizers make of all the episodes: computed once, and kept in the cache folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqrl.config import WindowConfig
from seqrl.console import say
from seqrl.data.batches import values_from
from seqrl.data.episodes import EpisodeStore
from seqrl.data.returns import transition_chunks
from seqrl.data.token_cache import cached_tokens, encoder_identity, token_dtype, token_key, tokens_in_memory
from seqrl.layout import Layout
from seqrl.tokenizers import TrajectoryAutoencoder
from seqrl.training.module import SequenceModule

_WINDOWS_AT_ONCE = 1024  # always as many, because rounding depends on it
_MANY = 200_000  # windows of which somebody might ask what takes so long


def encode_store(
    store: EpisodeStore,
    layout: Layout,
    encode: Callable[[Tensor], Tensor],
    dtype: np.dtype[Any],
    identity: str | None,
) -> np.ndarray:
    """(N, ...) what `encode` makes of all transitions.

    Args:
        encode: (n, S) float32 to (n, ...).
        identity: `seqrl.data.token_cache.encoder_identity` of what `encode` does; None keeps the result in memory.
    """

    def chunks() -> Iterator[tuple[int, np.ndarray]]:
        with torch.no_grad():
            for first, values in transition_chunks(store, layout):
                yield first, encode(torch.from_numpy(values)).numpy()

    if identity is None:
        return tokens_in_memory(dtype, chunks)
    return cached_tokens(token_key(store, layout, identity), len(store), dtype, chunks)


def identify_codes(module: SequenceModule) -> str | None:
    """Hash of all that decides which codes a module's tokenizer makes of given windows; None where none is certain."""
    weight = next(module.model.tokenizer.parameters())
    config = module.config
    parts = {"tokenizer": config.tokenizer, "backbone": config.backbone, "window": asdict(config.window)}
    return encoder_identity(module.model.tokenizer, {**parts, "device": weight.device.type, "dtype": str(weight.dtype)})


def encode_windows(
    module: SequenceModule,
    store: EpisodeStore,
    values: np.ndarray,
    settings: WindowConfig,
    identity: str | None,
) -> np.ndarray:
    """(N, n) codes of the window that starts at each row of a store, computed on the device of the tokenizer.

    Args:
        module: its tokenizer is trained.
        values: (N, S) transitions as the tokenizer normalises them.
        identity: as `identify_codes` has it; None keeps the codes in memory.
    """
    tokenizer, layout = module.model.tokenizer, module.model.layout
    assert isinstance(tokenizer, TrajectoryAutoencoder)
    weight = next(tokenizer.parameters())

    def chunks() -> Iterator[tuple[int, np.ndarray]]:
        if len(store) >= _MANY:
            say(f"encoding {len(store):,} windows, once for this tokenizer")
        for first in range(0, len(store), _WINDOWS_AT_ONCE):
            starts = np.arange(first, min(first + _WINDOWS_AT_ONCE, len(store)))
            windows = torch.from_numpy(values_from(store, values, starts, settings, layout)).to(weight)
            yield first, tokenizer.encode_windows(windows).cpu().numpy()

    dtype = token_dtype(tokenizer.vocab_size)
    if identity is None:
        return tokens_in_memory(dtype, chunks)
    return cached_tokens(token_key(store, layout, identity), len(store), dtype, chunks)
