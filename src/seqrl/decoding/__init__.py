"""Decoding: sessions over a model, and noise with an address."""

from __future__ import annotations

from seqrl.decoding.session import CacheMode, DecodingSession, GuidedSession, Session
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
    """Begin to decode after a history; see `DecodingSession`, and `GuidedSession` where the history asks for guidance.

    Args:
        model: in eval mode.
        history: where to start.
        cache, static: see `DecodingSession`.
        context: transitions that the model may see; None for the trained window.
    """
    kind = DecodingSession if history.guidance == 1 else GuidedSession
    return kind(model, history, cache=cache, context=model.context if context is None else context, static=static)


# Planners of plugins call `model.start(history)`, as models had it before decoding got a room of its own.
SequenceModel.start = start  # type: ignore[attr-defined]
