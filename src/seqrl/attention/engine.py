"""One-token steps of static shapes, replayed as CUDA graphs, and who may use their buffers when."""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seqrl.attention.static_cache import StaticKeyValueCache

_WARM_UPS = 3  # runs before a capture, as PyTorch's documentation of CUDA graphs advises

# Engines that no session uses, at most one for each backbone. Kept here and not in the module, which may be copied.
_idle: weakref.WeakKeyDictionary[nn.Module, StepEngine] = weakref.WeakKeyDictionary()


@dataclass
class Captured:
    """A recorded step: fill `x` and `positions`, replay, read `features`."""

    graph: torch.cuda.CUDAGraph
    x: Tensor
    positions: Tensor
    features: Tensor


class StepEngine:
    """A static cache, and the recorded steps of one backbone on it.

    A step is recorded when its number of rows comes first; replaying it then costs one launch instead of dozens.
    Recording takes tens of milliseconds, and a plan has one session, so engines outlive their sessions: see `borrow`.

    Args:
        tokens: how many a row of the cache must hold.
        weights: where the backbone's weights lie. Recorded steps read them there.

    Attributes:
        cache: of the session that has the engine.
    """

    def __init__(self, tokens: int, weights: tuple[tuple[int, torch.dtype], ...]) -> None:
        self.cache = StaticKeyValueCache(tokens)
        self.made_for = (tokens, weights)
        self._recorded: dict[tuple[torch.Size, torch.Size], Captured] = {}
        self._recorded_on = self.cache.layers
        self._eager = False

    def step(self, backbone: nn.Module, x: Tensor, positions: Tensor) -> Tensor:
        """Features of one new token in every row, after `cache.expect`; valid until the next step.

        Args:
            backbone: the one that the engine was borrowed for.
            x, positions: see `seqrl.backbones.Backbone.forward`, with n = 1.
        """
        if self._eager or not can_capture(x.device):
            return backbone(x, positions, self.cache)
        if self._recorded_on is not self.cache.layers:  # the buffers grew, and lie elsewhere
            self._recorded.clear()
            self._recorded_on = self.cache.layers
        shapes = (x.shape, positions.shape)
        if shapes not in self._recorded:
            states = self.cache.copy_states()
            try:
                self._recorded[shapes] = self._capture(backbone, x, positions)
            except RuntimeError as error:
                self._eager = True
                warnings.warn(f"decoding goes on without CUDA graphs, which failed: {error}", stacklevel=2)
            self.cache.restore(states)
            if self._eager:
                return backbone(x, positions, self.cache)
        recorded = self._recorded[shapes]
        recorded.x.copy_(x)
        recorded.positions.copy_(positions)
        recorded.graph.replay()
        return recorded.features

    def _capture(self, backbone: nn.Module, x: Tensor, positions: Tensor) -> Captured:
        """Record a step. It runs several times: it writes the same column with the same numbers, and moves states."""
        with torch.inference_mode(False), torch.no_grad():  # or the tensors could serve in that mode alone
            x, positions = x.clone(), positions.clone()
            # Graphs share the memory of what is intermediate; their features stay, since `Captured` holds them.
            other = next((recorded.graph for recorded in self._recorded.values()), None)
            graph, features = capture(lambda: backbone(x, positions, self.cache), x.device, other)
        return Captured(graph, x, positions, features)


def can_capture(device: torch.device) -> bool:
    """Whether steps on a device are recorded.

    Not under autocast, whose copies of the weights would be gone when the graph reads them.
    """
    return device.type == "cuda" and not torch.is_autocast_enabled("cuda")


def capture(
    step: Callable[[], Tensor], device: torch.device, other: torch.cuda.CUDAGraph | None
) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """The kernels of a step as a CUDA graph, and the tensor that every replay fills with what the step returns.

    Args:
        step: has no inputs but tensors that stay where they are, and may be run any number of times.
        device: where it runs.
        other: a graph with which to share memory, never replayed at the same time.

    Reference: "CUDA Graphs" in PyTorch's notes on CUDA semantics.
    """
    current, side = torch.cuda.current_stream(device), _side_stream(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(current):  # a capture that fails would otherwise leave the side stream as the current one
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                step()
        current.wait_stream(side)
        pool = None if other is None else other.pool()
        # What other threads do meanwhile (pinning memory, say) is no part of the step and must not break it.
        with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
            out = step()
    return graph, out


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for each device: PyTorch's own default belongs to the device that was current at the first capture."""
    return torch.cuda.Stream(device)


def borrow(owner: object, backbone: nn.Module, *, tokens: int) -> StepEngine:
    """An engine for steps of a backbone that nobody else has until `owner` is gone; then the next one may have it.

    Its buffers thus stay as long as the backbone. On CUDA, owners that follow one another use the same stream.

    Args:
        owner: must not be referred to by the engine.
        tokens: see `StepEngine`.
    """
    weights = tuple((tensor.data_ptr(), tensor.dtype) for tensor in (*backbone.parameters(), *backbone.buffers()))
    engine = _idle.pop(backbone, None)
    if engine is None or engine.made_for != (tokens, weights):
        engine = StepEngine(tokens, weights)
    weakref.finalize(owner, _give_back, weakref.ref(backbone), engine).atexit = False
    return engine


def _give_back(backbone: weakref.ref[nn.Module], engine: StepEngine) -> None:
    """Keep an engine for the next session, unless the one that is there has more rows."""
    key = backbone()
    if key is not None and (key not in _idle or _idle[key].cache.max_rows <= engine.cache.max_rows):
        _idle[key] = engine
