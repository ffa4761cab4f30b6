"""How much a tokenizer loses, dimension by dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqrl.layout import Layout
from seqrl.tokenizers import Codec, Tokenizer, TrajectoryAutoencoder, VectorScaler


def round_trip_report(tokenizer: Codec, values: np.ndarray, layout: Layout) -> list[dict[str, Any]]:
    """Encode and decode (N, S) transitions and compare.

    Returns:
        One row per scalar: `field`, `dim`, `mean_error` and `max_error` (absolute, in the data's units),
        `relative_error` (mean error over the standard deviation; 0 for a constant), and where every scalar has one
        token `bins_used` and `largest_bin` (share of the values in the fullest bin, in [0, 1]).
    """
    data = torch.from_numpy(np.ascontiguousarray(values))
    tokens = None
    if isinstance(tokenizer, Tokenizer):
        encoded = tokenizer.encode(data)
        back, tokens = tokenizer.decode(encoded), encoded if encoded.shape[1] == layout.size else None
    else:
        assert isinstance(tokenizer, VectorScaler), "an autoencoder reads windows: see `reconstruction_report`"
        back = tokenizer.denormalise(tokenizer.normalise(data))
    errors = (back - data).abs().numpy()
    rows = []
    for field in layout.fields:
        for dim in range(field.size):
            s = field.start + dim
            rows.append(_row(field.name, dim, errors[:, s], values[:, s]))
            if tokens is not None:
                counts = np.bincount(tokens[:, s].numpy())
                rows[-1] |= {"bins_used": int((counts > 0).sum()), "largest_bin": float(counts.max() / len(values))}
    return rows


def reconstruction_report(tokenizer: TrajectoryAutoencoder, windows: Tensor, layout: Layout) -> list[dict[str, Any]]:
    """Encode and decode (B, T, S) normalised windows, NaN past the end of an episode, and compare what is not.

    Returns:
        One row per scalar, as `round_trip_report`.
    """
    state = windows[:, 0, layout.field("observation").slice]
    decoded = tokenizer.decode_codes(tokenizer.encode_windows(windows), state).cpu()
    real = ~windows[..., 0].isnan().cpu()
    values = tokenizer.denormalise(windows).cpu()[real]
    errors = (decoded[real] - values).abs().numpy()
    return [
        _row(field.name, dim, errors[:, field.start + dim], values[:, field.start + dim].numpy())
        for field in layout.fields
        for dim in range(field.size)
    ]


def _row(field: str, dim: int, errors: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    spread = float(values.std())
    return {
        "field": field,
        "dim": dim,
        "mean_error": float(errors.mean()),
        "max_error": float(errors.max()),
        "relative_error": float(errors.mean()) / spread if spread > 0 else 0.0,
    }
