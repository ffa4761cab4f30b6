"""Decoding: sessions over a model, and noise with an address."""

from __future__ import annotations

from seqrl.decoding.guided import GuidedSession
from seqrl.decoding.session import CacheMode, DecodingSession, Session
from seqrl.models.token import SequenceModel
from seqrl.types import History


def start(
    model: SequenceModel,
    history: History,
    *,
    cache: CacheMode = "exact",
    context: int | None = None,
    static: bool | None = None,
) -> Session:
    """Begin to decode after a history.

    Args:
        model: in eval mode.
        history: where to start, and how much what its prefix changes about actions counts; see `GuidedSession`.
        cache, context, static: see `DecodingSession`.
    """
    if history.guidance == 1:
        return DecodingSession(model, history, cache=cache, context=context, static=static)
    return GuidedSession(model, history, guidance=history.guidance, cache=cache, context=context, static=static)


# Planners of plugins call `model.start(history)`, as models had it before decoding got a room of its own.
SequenceModel.start = start  # type: ignore[attr-defined]
