"""A word before a training whose windows hold more tokens than the memory does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seqrl.console import say
from seqrl.formats.limits import free_memory
from seqrl.models import Model
from seqrl.models.autoregressive import AutoregressiveModel

_FEATURES = 16  # numbers of width D that training keeps of a token in a layer, about
_LOGITS = 3  # logits, their probabilities, and gradients
_BYTES = 4


def estimate_memory(model: Model, backbone: Mapping[str, Any], windows: int) -> int:
    """About how many bytes of activations a training step keeps; 0 for models of vectors, whose windows are short.

    Attention weights count in full, as they are kept where attention has a dropout.

    Args:
        backbone: component config, of which layers and heads are looked at.
        windows: of a batch, on one device.
    """
    if not isinstance(model, AutoregressiveModel):
        return 0
    tokens = model.prefix_size + model.context * model.tokens_per_step
    layers, heads = backbone.get("num_layers", 4), backbone.get("num_heads", 4)
    of_token = _LOGITS * model.num_classes + layers * (_FEATURES * model.backbone.dim + heads * tokens)
    return int(_BYTES * windows * tokens * of_token)


def warn_of_memory(model: Model, backbone: Mapping[str, Any], windows: int, free: int | None = None) -> None:
    """Say so where a step would need more memory than is free.

    Args:
        free: bytes; those of this machine by default.
    """
    free, needed = free_memory() if free is None else free, estimate_memory(model, backbone, windows)
    if free is None or needed <= free or not isinstance(model, AutoregressiveModel):
        return
    tokens = model.context * model.tokens_per_step
    say(
        f"a window has {tokens:,} tokens ({model.context} transitions of {model.tokens_per_step}), and a step of "
        f"{windows} windows needs about {needed / 1e9:.0f} GB where {free / 1e9:.0f} GB are free; use a smaller "
        "training.batch_size (with trainer.accumulate_grad_batches) or window.length, or tokenizer=continuous, which "
        "makes one vector of each field"
    )
