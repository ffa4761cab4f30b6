"""One-token steps of decoding by one compiled call, by tensor operations and by Inductor, side by side."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from seqrl.attention import Attention
from seqrl.attention.static_cache import StaticKeyValueCache
from seqrl.backbones import Backbone
from seqrl.benchmarks.timing import describe_machine, interleaved, measure_rates, open_device, spread
from seqrl.cli.bench_options import (
    PUBLISHED,
    add_counts,
    add_output,
    count,
    format_number,
    format_range,
    run_benchmark,
    say_machine,
    settings_of,
)
from seqrl.console import print_table, say
from seqrl.decoding.compiling import describe_path
from seqrl.decoding.session import DecodingSession
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.types import TokenHistory

_SEED = 0
INDUCTOR: dict[str, Any] = {
    "freezing": True,  # weights are constants, packed once
    "cpp_wrapper": True,  # a call into C++ instead of generated Python
    "max_autotune": True,
    "max_autotune_gemm_backends": "CPP,ATEN",  # its own templates of products, where they are faster
}
"""Inductor at its best for steps of one shape."""


@dataclass(frozen=True)
class StepSettings:
    """Shapes and repetitions; the defaults are the published model and search for Hopper.

    Attributes:
        rows: beams of a step.
        steps: tokens of a measurement, after a history of `context` - 2 transitions and an observation; not so many
            that the context would be cut.
        repeats: measurements of each kind.
    """

    threads: int
    observation: int = 11
    action: int = 3
    layers: int = 4
    heads: int = 4
    width: int = 128
    bins: int = 100
    context: int = 5
    rows: int = 128
    steps: int = 12
    repeats: int = 9


class CompiledSteps(Backbone):
    """A backbone whose one-token steps on a static cache are compiled; everything else is as it was.

    Args:
        backbone: of a model in evaluation mode.
        options: of Inductor.
    """

    def __init__(self, backbone: Backbone, options: dict[str, Any]) -> None:
        super().__init__()
        self.inner = backbone
        self.dim, self.relative = backbone.dim, backbone.relative
        self._compiled = torch.compile(backbone, dynamic=False, fullgraph=True, options=options)

    def forward(self, x: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        static = isinstance(attention, StaticKeyValueCache)
        features: Tensor = (self._compiled if static else self.inner)(x, positions, attention)
        return features


def bench_steps(settings: StepSettings) -> dict[str, Any]:
    """Measure a few steps of each kind in turn, in processor time.

    Returns:
        The machine with its rates, the settings, `path` of `today` (what sessions do by themselves), `ms` a step
        (median, min, max) of `today`, `operations` (tensor operations on the same cache), `static` (on one of static
        shapes) and `inductor`, `compile_seconds`, and `difference`, the largest one between the logits of the kinds.
    """
    device = open_device("cpu", settings.threads)
    plain, operations, compiled = (_model(settings) for _ in range(3))
    operations.backbone.register_forward_hook(lambda *_: None)  # which the one compiled call would not see
    compiled.backbone = CompiledSteps(compiled.backbone, INDUCTOR)
    kinds = {
        "today": (plain, False),
        "operations": (operations, False),
        "static": (plain, True),
        "inductor": (compiled, True),
    }
    start = time.process_time()
    first = {name: _run(settings, *kind)[1] for name, kind in kinds.items()}
    compile_seconds = time.process_time() - start
    difference = max((logits - first["today"]).abs().max().item() for logits in first.values())

    def task(model: TokenModel, static: bool) -> Callable[[int], float]:
        return lambda repeat: _run(settings, model, static)[0]

    measured = interleaved({name: task(*kind) for name, kind in kinds.items()}, settings.repeats, lambda name: None)
    return {
        "machine": describe_machine(device, torch.float32, measure_rates(device, torch.float32)),
        "settings": asdict(settings),
        "path": describe_path(plain),
        "ms": {name: spread(values, 1e3 / settings.steps) for name, values in measured.items()},
        "compile_seconds": compile_seconds,
        "difference": difference,
    }


@torch.no_grad()
def _run(settings: StepSettings, model: TokenModel, static: bool) -> tuple[float, Tensor]:
    """Processor seconds of some steps of all rows, and the last logits."""
    generator = torch.Generator().manual_seed(_SEED)
    known = (settings.context - 2) * model.tokens_per_step + settings.observation
    tokens = torch.randint(settings.bins, (1, known), generator=generator)
    history = TokenHistory(tokens, torch.full((1,), settings.context - 2))
    session = DecodingSession(model, history, cache="exact", static=static)
    session.select(torch.zeros(settings.rows, dtype=torch.int64))
    chosen = torch.randint(settings.bins, (settings.steps + 1, settings.rows), generator=generator)
    session.append(chosen[0])  # what is made at the first step of a shape
    start = time.process_time()
    for each in chosen[1:]:
        session.append(each)
    return time.process_time() - start, session.logits


def _model(settings: StepSettings) -> TokenModel:
    names = ("observation", "action", "reward", "value")
    fields: dict[str, Any] = {name: {"hidden": name == "value"} for name in names}
    layout = Layout.from_config({"fields": fields, "discount": 0.99}, settings.observation, settings.action)
    backbone = {"name": "llama", "num_layers": settings.layers, "num_heads": settings.heads, "dim": settings.width}
    torch.manual_seed(_SEED)
    tokenizer = {"name": "uniform", "num_bins": settings.bins}
    return TokenModel(layout, tokenizer, backbone, context=settings.context).eval()


def main(arguments: list[str] | None = None) -> int:
    """Measure and print a table; the exit status as a program's."""
    parser = argparse.ArgumentParser("python -m benchmarks.token_step", description="One-token steps, side by side.")
    parser.add_argument("--threads", type=count(), default=1, help="default 1")
    add_counts(parser, {**PUBLISHED, "bins": 100, "context": 5, "rows": 128, "steps": 12, "repeats": 9})
    add_output(parser)
    parser.set_defaults(task=_measure)
    return run_benchmark(parser, arguments)


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    settings: StepSettings = settings_of(StepSettings, options)
    left = 2 * (settings.observation + settings.action + 2) - settings.observation - 2
    if settings.context < 3 or settings.steps > left:
        raise ConfigError(
            f"--steps {settings.steps} would cut the context; give {left} or fewer, and --context 3 or more"
        )
    result = bench_steps(settings)
    base = result["ms"]["operations"]
    rows = [
        [name, format_range(ms), f"{base['min'] / ms['min']:.2f}", f"{base['median'] / ms['median']:.2f}"]
        for name, ms in result["ms"].items()
    ]
    print_table(["step", "processor ms", "times as fast, least", "medians"], rows)
    say(f"today: {result['path']}")
    say(f"first steps, with compilation: {format_number(result['compile_seconds'])} s; logits differ by at most "
        f"{result['difference']:.1e}")  # fmt: skip
    say_machine(result["machine"])
    return result


if __name__ == "__main__":
    sys.exit(main())
