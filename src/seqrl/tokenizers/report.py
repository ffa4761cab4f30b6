"""How much a tokenizer loses, dimension by dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from seqrl.layout import Layout
from seqrl.tokenizers import Tokenizer


def round_trip_report(tokenizer: Tokenizer, values: np.ndarray, layout: Layout) -> list[dict[str, Any]]:
    """Encode and decode (N, S) transitions and compare.

    Returns:
        One row per scalar: `field`, `dim`, `mean_error` and `max_error` (absolute, in the data's units),
        `relative_error` (mean error over the standard deviation; 0 for a constant), `bins_used`, and
        `largest_bin` (share of the values in the fullest bin, in [0, 1]).
    """
    data = torch.from_numpy(np.ascontiguousarray(values))
    tokens = tokenizer.encode(data)
    errors = (tokenizer.decode(tokens) - data).abs().numpy()
    rows = []
    for field in layout.fields:
        for dim in range(field.size):
            s = field.start + dim
            counts = np.bincount(tokens[:, s].numpy(), minlength=tokenizer.vocab_size)
            spread = float(values[:, s].std())
            rows.append(
                {
                    "field": field.name,
                    "dim": dim,
                    "mean_error": float(errors[:, s].mean()),
                    "max_error": float(errors[:, s].max()),
                    "relative_error": float(errors[:, s].mean()) / spread if spread > 0 else 0.0,
                    "bins_used": int((counts > 0).sum()),
                    "largest_bin": float(counts.max() / len(values)),
                }
            )
    return rows
