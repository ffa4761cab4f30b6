"""The contract of backbones in decoding: what a session keeps does not show in its logits."""

from __future__ import annotations

import torch

from seqrl import decoding
from seqrl.decoding.session import CacheMode, Session
from seqrl.testing import samples
from seqrl.testing.contract import Component, close, require
from seqrl.types import TokenHistory

_CONTEXT = 3  # transitions: the sessions below are cut twice
_SELECTIONS = {2: [0, 0, 1, 1, 2, 2], 4: [1, 0, 3, 4, 4], 9: [4, 0, 2], 16: [1, 1, 0, 2]}
_TOLERANCE = 1e-8  # everything is computed in float64


def cache_modes_agree(component: Component) -> None:
    """A session has the logits of one without cache: with a goal, padding, hidden tokens, branches and cuts."""
    backbone = {"name": component.name, **component.options}
    model = samples.model(samples.layout(goal=True), window=_CONTEXT + 1, backbone=backbone).requires_grad_(False)
    history = samples.history(model, [2, 0, 1])
    assert isinstance(history, TokenHistory)

    def start(cache: CacheMode, *, static: bool = False) -> Session:
        return decoding.start(model, history, cache=cache, context=_CONTEXT, static=static)

    reference, others = start("none"), {"exact": start("exact"), "exact, on a GPU,": start("exact", static=True)}
    windows = (start("window"), start("window", static=True)) if model.backbone.relative else ()
    generator = torch.Generator().manual_seed(6)
    for step in range(2 * model.tokens_per_step):
        for word, session in others.items():
            require(
                close(session.logits, reference.logits, _TOLERANCE),
                f"after {step} tokens, cache={word} gives other logits than cache=none; keep nothing of a sequence "
                "outside attention.attend and attention.recur, and count no tokens",
            )
        if windows:
            require(
                close(windows[0].logits, windows[1].logits, _TOLERANCE),
                f"after {step} tokens, cache=window gives other logits in buffers, as on a GPU; keep nothing of a "
                "sequence outside attention.attend and attention.recur",
            )
        for session in (reference, *others.values(), *windows):
            if step in _SELECTIONS:
                session.select(torch.tensor(_SELECTIONS[step]))
        tokens = torch.randint(model.termination_token, (len(reference.logits),), generator=generator)
        for session in (reference, *others.values(), *windows):
            session.append(tokens)
