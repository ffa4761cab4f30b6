"""The session through which a model of tokens or codes is decoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from seqrl.decoding.cached import ExactCaching, WindowCaching
from seqrl.decoding.caching import Caching, NoCaching
from seqrl.decoding.context import Context
from seqrl.errors import ConfigError
from seqrl.models import Model
from seqrl.models.autoregressive import AutoregressiveModel
from seqrl.plugins import origin
from seqrl.schema import check_value
from seqrl.types import CodeHistory, TokenHistory

CacheMode = Literal["none", "exact", "window"]
_CACHINGS: dict[CacheMode, type[Caching]] = {"none": NoCaching, "exact": ExactCaching, "window": WindowCaching}


class Session(ABC):
    """What planners ask of a session: a batch of growing token sequences, and what may come next.

    Attributes:
        logits: (R, V + 1) of the next token of every row.
    """

    logits: Tensor

    @property
    @abstractmethod
    def place(self) -> int:
        """Which token of its transition comes next, in [0, K)."""

    @abstractmethod
    def append(self, tokens: Tensor) -> None:
        """Take (R,) chosen tokens as the next ones and move on."""

    @abstractmethod
    def select(self, rows: Tensor) -> None:
        """Repeat, reorder or drop rows: (R',) indices into the present ones, one or more, in [0, R).

        Rows that stay in the order of their environments go on sharing what they have in common.
        """


class DecodingSession(Session):
    """A batch of growing token sequences, and the distribution of each one's next token.

    The session cuts the context by itself: before the model would see more than `context * K - 1` tokens, whole
    transitions leave on the left, imagined ones included. The prefix stays.

    Args:
        model: in eval mode.
        history: where to start; rows may have different lengths.
        cache: what is computed again and what is kept: `none` (`NoCaching`, the reference), `exact` (`ExactCaching`,
            the same logits up to rounding) or `window` (`WindowCaching`, a longer memory and the fastest).
        context: transitions, at least 2 and at most the training window's; None for all of it.
        static: whether one-token steps have static shapes, so that they can be replayed as CUDA graphs. The logits
            are the same up to rounding. None for where it pays: on CUDA, but not on CPUs, which would read all rows'
            copies of what they have in common. Of no concern without a cache.

    Attributes:
        caching: where the logits come from.

    Raises:
        ConfigError: a model in training mode, a context outside the trained window, a goal that the layout does not
            have, or `window` with absolute positions.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: AutoregressiveModel,
        history: TokenHistory | CodeHistory,
        *,
        cache: CacheMode = "exact",
        context: int | None = None,
        static: bool | None = None,
    ) -> None:
        check_session(model, cache=cache, context=context)
        if model.training:
            raise ConfigError(
                "the model is in training mode, where dropout is random; call model.eval() before decoding"
            )
        opening = model.opening(history)
        static = opening.tokens.device.type == "cuda" if static is None else static
        self._context = Context(model, opening, model.context if context is None else context)
        self.caching = _CACHINGS[cache](self._context, static=static)
        self.logits = self.caching.encode()

    @property
    def place(self) -> int:
        return self._context.place

    @torch.no_grad()
    def append(self, tokens: Tensor) -> None:
        self.logits = self.caching.append(tokens)

    @torch.no_grad()
    def select(self, rows: Tensor) -> None:
        self.logits = self.logits[rows]
        self.caching.select(rows)


def check_context(model: Model, context: int | None) -> None:
    """Refuse a context that a model was not trained for; None is the trained window.

    Raises:
        ConfigError: says what is allowed.
    """
    if context is not None and not model.shortest_context <= context <= model.context:
        raise ConfigError(
            f"planner.context={context} is outside [{model.shortest_context}, {model.context}], the trained window; "
            "use planner.context=null for all of it"
        )


def check_session(model: AutoregressiveModel, *, cache: str, context: int | None = None) -> None:
    """Refuse options that no session of a model can have.

    Raises:
        ConfigError: an unknown cache mode, one that the backbone cannot serve, or a context outside the window.
    """
    kind = _CACHINGS[check_value("planner.cache", cache, CacheMode)]
    check_context(model, context)
    if kind.needs_relative_positions and not model.backbone.relative:
        remedy = "use planner.cache=exact, or train with backbone=llama"
        if origin(type(model.backbone)) != "seqrl":
            remedy += (
                f"; relative = True in the class {type(model.backbone).__name__} says that a backbone of your own "
                "goes on past the trained window"
            )
        raise ConfigError(
            f"planner.cache={cache} needs a backbone with relative positions, and this checkpoint's has absolute ones; "
            f"{remedy}"
        )
