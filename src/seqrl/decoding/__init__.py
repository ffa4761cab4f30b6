"""Decoding: sessions over a model, and noise with an address."""

from __future__ import annotations

from seqrl.decoding.guided import GuidedSession
from seqrl.decoding.session import CacheMode, DecodingSession, Session
from seqrl.models.autoregressive import AutoregressiveModel
from seqrl.models.token import TokenModel
from seqrl.types import CodeHistory, TokenHistory


def start(
    model: AutoregressiveModel,
    history: TokenHistory | CodeHistory,
    *,
    cache: CacheMode = "exact",
    context: int | None = None,
    static: bool | None = None,
) -> Session:
    """Begin to decode after a history.

    Args:
        model: in eval mode.
        history: where to start, and how much what its goal changes about actions counts; see `GuidedSession`.
        cache, context, static: see `DecodingSession`.
    """
    if isinstance(model, TokenModel) and isinstance(history, TokenHistory) and history.guidance != 1:
        return GuidedSession(model, history, guidance=history.guidance, cache=cache, context=context, static=static)
    return DecodingSession(model, history, cache=cache, context=context, static=static)


# Planners of plugins call `model.start(history)`, as models had it before decoding got a room of its own.
AutoregressiveModel.start = start  # type: ignore[attr-defined]
