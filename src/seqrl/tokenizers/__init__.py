"""Field values to tokens and back (slot `tokenizer`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor, nn

from seqrl.errors import ConfigError
from seqrl.layout import Layout

NumBins = Annotated[int, Interval(ge=2, le=65_536)]


class Codec(nn.Module, ABC):
    """What turns transitions of S scalars into what a model reads, and back; its state travels in checkpoints.

    There are three kinds, each with a contract of its own: a `Tokenizer` makes integers of single transitions, a
    `TrajectoryAutoencoder` makes integers of whole windows, and a `VectorScaler` makes vectors. The class decides
    which class of model the codec goes with. Constructors take `size`, the scalars S, and `layout` if they want to
    know which field is where.

    Attributes:
        trainable: whether it has parameters, and a training stage of its own.
        fits_all: whether its statistics are those of every transition, also where a sample would do.
        embed_numbers: whether a model's embedding is to know the numbers of tokens that are `ordered`.
    """

    trainable: ClassVar[bool] = False
    fits_all: bool = False
    embed_numbers: bool = False

    def ordered(self, layout: Layout) -> tuple[bool, ...]:
        """(K,) which tokens of a transition rise with the number that they stand for; empty where none does."""
        return ()

    @abstractmethod
    def fit(self, values: Tensor) -> None:
        """Collect statistics from (N, S) transitions, N at least 1."""

    @abstractmethod
    def action_range(self, layout: Layout) -> tuple[Tensor, Tensor]:
        """(A,) smallest and (A,) largest action, dimension by dimension, that come back out of it."""


class Tokenizer(Codec):
    """Turns transitions of S scalars into K integers and back.

    Attributes:
        tokens_per_step: K.
        vocab_size: V; token ids are 0 to V - 1, and the model adds V as the termination token.
        tells_range: whether `outer_edges` are the smallest and the largest value that it was fitted to.
    """

    tokens_per_step: int
    vocab_size: int
    tells_range: bool = False

    def fields_of(self, layout: Layout) -> tuple[str, ...]:
        """(K,) which field each token belongs to; one token per scalar here."""
        return tuple(f.name for f in layout.fields for _ in range(f.size))

    @abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """(..., S) finite floats to (..., K) int64 tokens in [0, V); values outside the data take the nearest bin."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """(..., K) tokens to (..., S) bin centres; the termination token V decodes as the last bin."""

    def action_range(self, layout: Layout) -> tuple[Tensor, Tensor]:
        action = layout.field("action")
        centres = torch.stack([self.bin_centres(s) for s in range(action.start, action.start + action.size)])
        return centres.amin(1), centres.amax(1)

    def bin_centres(self, position: int) -> Tensor:
        """(V,) value of every token at one position of the transition, for expectations of predicted distributions.

        For tokenizers of one token per scalar; the others say what their positions mean.
        """
        every = torch.arange(self.vocab_size, device=next(self.buffers()).device)
        tokens = torch.zeros(self.vocab_size, self.tokens_per_step, dtype=torch.int64, device=every.device)
        tokens[:, position] = every
        return self.decode(tokens)[:, position]

    def outer_edges(self, position: int) -> tuple[Tensor, Tensor]:
        """() lower edge of the first bin and () upper edge of the last one, at one position of the transition."""
        centres = self.bin_centres(position)
        return centres.min(), centres.max()


class Imagination(ABC):
    """Sequences of codes that grow, and the transitions that they stand for; each is decoded once."""

    @abstractmethod
    def grow(self, codes: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
        """Append codes to sequences.

        Args:
            codes: (R', n) int64 in [0, V).
            parents: (R',) which of the R present sequences each new one continues; the empty sequences of the B
                observations at first.

        Returns:
            (R', n * steps_per_code, S) the new transitions, in the data's units, and (R', n * steps_per_code) bool,
            which of them lie past the end of the episode.
        """


class TrajectoryAutoencoder(Codec):
    """Turns whole windows into integers, a code for `steps_per_code` transitions, given the state that they begin in.

    Windows are made of transitions that `normalise` has normalised, with NaN past the end of an episode.

    Attributes:
        vocab_size: V; codes are 0 to V - 1.
        steps_per_code: transitions that a code stands for.
        state_everywhere: whether the prior adds the state to every code, and not only before the first.
    """

    trainable = True
    state_everywhere: bool = False
    vocab_size: int
    steps_per_code: int

    @abstractmethod
    def normalise(self, values: Tensor) -> Tensor:
        """(..., S) in the data's units to (..., S) normalised, of which windows for `encode_windows` are made."""

    @abstractmethod
    def denormalise(self, values: Tensor) -> Tensor:
        """(..., S) normalised to (..., S) in the data's units."""

    @abstractmethod
    def state(self, observations: Tensor) -> Tensor:
        """(B, O) observations in the data's units, normalised as `normalise` does."""

    @abstractmethod
    def encode_windows(self, values: Tensor) -> Tensor:
        """(B, T, S) normalised windows to (B, T // steps_per_code) int64 codes, as in eval mode."""

    @abstractmethod
    def imagine(self, state: Tensor) -> Imagination:
        """What (B, O) normalised states may grow into, code by code; in eval mode."""

    @abstractmethod
    def loss(self, values: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """How well windows are reconstructed; what training does beside the gradient happens here, in training mode.

        Args:
            values: (B, T, S) normalised windows, NaN past the end of the episode.
            mask: (B, T) bool, False where nothing is to be learnt.

        Returns:
            () scalars by name: `loss`, differentiable, and what else is logged.
        """

    def codes_of_plan(self, horizon: int, context: int) -> int:
        """How many codes a plan of `horizon` transitions has, for a model that was trained on `context` codes.

        Raises:
            ConfigError: a horizon between two codes or beyond the trained window.
        """
        steps = self.steps_per_code
        if horizon % steps or horizon > context * steps:
            raise ConfigError(
                f"planner.horizon={horizon} does not fit codes of {steps} transitions; give a multiple of {steps} up "
                f"to {context * steps}, the trained window"
            )
        return horizon // steps

    def decode_codes(self, codes: Tensor, state: Tensor) -> Tensor:
        """(R, n) codes and (R, O) normalised states to (R, n * steps_per_code, S) in the data's units."""
        return self.imagine(state).grow(codes, torch.arange(len(codes), device=codes.device))[0]


CodeTokenizer = TrajectoryAutoencoder
"""The name under which plugins know it."""


class VectorScaler(Codec):
    """Turns transitions into vectors of the same S numbers, scaled so that networks learn them well, and back."""

    @abstractmethod
    def normalise(self, values: Tensor) -> Tensor:
        """(..., S) in the data's units to (..., S) float32, scaled; discrete fields stay as they are."""

    @abstractmethod
    def denormalise(self, vectors: Tensor) -> Tensor:
        """(..., S) scaled to (..., S) in the data's units: the exact inverse of `normalise`, up to rounding."""


def ordered_scalars(layout: Layout) -> tuple[bool, ...]:
    """(S,) which scalars are numbers, and no names of discrete values: `Codec.ordered` for one token per scalar."""
    return tuple(field.name not in layout.categories for field in layout.fields for _ in range(field.size))


def discrete_scalars(layout: Layout | None, num_bins: int) -> dict[int, int]:
    """Which of the S scalars are discrete, and how many values they have; none without a layout.

    Raises:
        ConfigError: more values than bins, each of which is to be one value.
    """
    found: dict[int, int] = {}
    for name in layout.categories if layout is not None else ():
        assert layout is not None
        counts = layout.choices(name)
        if max(counts) > num_bins:
            raise ConfigError(
                f"tokenizer.num_bins={num_bins} is too small for the {max(counts)} values of the discrete {name}; give "
                f"tokenizer.num_bins={max(counts)} or more"
            )
        if layout.has(name):
            found |= dict(enumerate(counts, layout.field(name).start))
    return found
