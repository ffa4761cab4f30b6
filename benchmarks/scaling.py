"""What grows with the data and the number of GPUs, from the sizes of real models: `python -m benchmarks.scaling`.

Nothing here is measured but sizes; rates are assumptions that stand in the output, to be replaced by one's own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch

from seqrl.cli.bench_options import add_output, count, counts, run_benchmark
from seqrl.console import print_table, say
from seqrl.data.order import SHUFFLED_IN_MEMORY
from seqrl.data.token_cache import token_dtype
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.training.defaults import compose_sequence

ADAM_BYTES = 16  # per parameter while training in float32: weight, gradient and Adam's two moments
SAVED_BYTES = 12  # per parameter in a checkpoint: weight and moments
GIB, GB = 2**30, 1e9


@dataclass(frozen=True)
class Rates:
    """What a machine does; the defaults are round numbers for a GPU server of 2024.

    Attributes:
        tflops: that training reaches on one GPU, 1e12 operations a second; a third of an H100's dense bf16 peak.
        link_gb: between GPUs of two machines, GB/s for each of them (a 400 Gbit/s network card per GPU).
        disk_gb: of the storage that checkpoints go to, GB/s.
        mtbf_gpu_hours: hours of one GPU between two failures that stop the job. Llama 3 counted 419 in 54 days on
            16,384 GPUs (Dubey et al. 2024, section 3.3.4): 50,000.
        restart_minutes: from a failure to the first new step.
    """

    tflops: float = 300.0
    link_gb: float = 50.0
    disk_gb: float = 2.0
    mtbf_gpu_hours: float = 50_000.0
    restart_minutes: float = 10.0


@dataclass(frozen=True)
class Shape:
    """A model and the windows that it learns from.

    Attributes:
        batch: windows per GPU and step.
    """

    layers: int
    heads: int
    width: int
    observation: int = 11
    action: int = 3
    window: int = 10
    batch: int = 256

    def model(self) -> TokenModel:
        """The model without memory for its weights."""
        backbone = {"num_layers": self.layers, "num_heads": self.heads, "dim": self.width}
        config = compose_sequence({"backbone": backbone})
        layout = Layout.from_config(config.layout, self.observation, self.action)
        with torch.device("meta"):
            return TokenModel(layout, config.tokenizer, config.backbone, context=self.window)


def training(shape: Shape, gpus: int, rates: Rates) -> dict[str, float]:
    """One step of data-parallel training, per GPU.

    Returns:
        `parameters`; `state_gib`, weights, gradients and moments of DDP, and `state_fsdp_gib`, sharded;
        `activations_gib` kept for the backward pass in bf16 with fused attention; `compute_ms`; `reduce_mb` that every
        GPU sends to average float32 gradients in a ring, and `reduce_ms` at the network's rate; `efficiency` where
        nothing of this overlaps with computing, the lower bound; and `windows_per_second` of all GPUs at that.
    """
    model = shape.model()
    count = sum(p.numel() for p in model.parameters())
    # Embeddings are looked up, and of the heads, one per position, a token goes through one.
    multiplied = count - model.embedding.weight.numel() - model.head.weight.numel() * (1 - 1 / model.tokens_per_step)
    length = shape.window * model.tokens_per_step
    tokens = shape.batch * length
    # Forward 2 operations per weight and token, backward twice that; attention 2 products of length/2 keys on average.
    operations = 3 * tokens * (2 * multiplied + 2 * shape.layers * length * shape.width)
    # Per layer and token: inputs of two norms, q, k, v, attention's output, four widths before and after the GELU, and
    # what the two residual branches add: 16 widths of 2 bytes. The logits come in float32, with their gradient.
    activations = tokens * (16 * shape.layers * shape.width * 2 + 2 * 4 * model.num_classes)
    sent = 2 * (gpus - 1) / gpus * 4 * count
    compute, reduce = operations / (rates.tflops * 1e12), sent / (rates.link_gb * GB)
    return {
        "parameters": count,
        "state_gib": ADAM_BYTES * count / GIB,
        "state_fsdp_gib": ADAM_BYTES * count / gpus / GIB,
        "activations_gib": activations / GIB,
        "compute_ms": 1000 * compute,
        "reduce_mb": sent / 1e6,
        "reduce_ms": 1000 * reduce,
        "efficiency": compute / (compute + reduce),
        "windows_per_second": gpus * shape.batch / (compute + reduce),
    }


def data(shape: Shape, transitions: float) -> dict[str, float]:
    """What a data set of a size needs, on disk and in the memory of every rank.

    Returns:
        `episodes_gb`, observations, actions and rewards in float32; `tokens_gb` of the token cache, which all ranks
        map; `order_gb`, the memory of every rank for the order of an epoch: of a permutation, or of none where orders
        are computed; `permutation_gb`, what it would be.
    """
    size = shape.observation + shape.action
    bytes_per_token = token_dtype(compose_sequence({}).tokenizer["num_bins"]).itemsize
    permutation = 4 * transitions / GB
    return {
        "episodes_gb": 4 * (size + 1) * transitions / GB,
        "tokens_gb": bytes_per_token * (size + 2) * transitions / GB,
        "permutation_gb": permutation,
        "order_gb": permutation if transitions <= SHUFFLED_IN_MEMORY else 0.0,
    }


def checkpointing(parameters: float, gpus: int, rates: Rates, *, days: float = 30.0, seed: int = 0) -> dict[str, float]:
    """How often to save, and what failures cost.

    Returns:
        `size_gb` of a checkpoint; `write_s`; `failures_per_day`; `interval_min`, the best time between two saves
        (Young 1974: the root of twice the write time times the time between failures); `lost_share` of the time to
        writing, repeating and restarting, from a simulation of `days` of work with failures at random moments.
    """
    write = SAVED_BYTES * parameters / (rates.disk_gb * GB)
    between = rates.mtbf_gpu_hours * 3600 / gpus
    interval = (2 * write * between) ** 0.5
    return {
        "size_gb": SAVED_BYTES * parameters / GB,
        "write_s": write,
        "failures_per_day": 86400 / between,
        "interval_min": interval / 60,
        "lost_share": lost_share(days * 86400, interval, write, between, rates.restart_minutes * 60, seed),
    }


def lost_share(work: float, interval: float, write: float, between: float, restart: float, seed: int) -> float:
    """Share of the wall time that is not progress, until `work` seconds of progress are saved; all in seconds."""
    rng = np.random.default_rng(seed)
    wall = saved = 0.0
    while saved < work:
        failure = rng.exponential(between)
        rounds = min(np.floor(failure / (interval + write)), np.ceil((work - saved) / interval))
        saved += rounds * interval
        wall += rounds * (interval + write)
        if saved < work:
            wall += failure - rounds * (interval + write) + restart
    return float(1 - saved / wall)


def scaling(shapes: Iterable[Shape], gpus: Iterable[int], transitions: Iterable[float], rates: Rates) -> dict[str, Any]:
    """All of it, for some models, numbers of GPUs and sizes of data; JSON-ready."""
    shapes, gpus, transitions = list(shapes), list(gpus), list(transitions)
    steps = [{**asdict(shape), "gpus": n, **training(shape, n, rates)} for shape in shapes for n in gpus]
    return {
        "rates": asdict(rates),
        "training": [{**row, **checkpointing(row["parameters"], row["gpus"], rates)} for row in steps],
        "data": [{"transitions": n, **data(shapes[0], n)} for n in transitions],
    }


def main(arguments: list[str] | None = None) -> int:
    """Compute and print tables; the exit status as a program's."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.scaling",
        description="Memory, communication and failures at larger sizes, computed.",
    )
    parser.add_argument(
        "--models", nargs="+", type=counts("layers,heads,width", "4,4,128"), metavar="L,H,D",
        default=[(4, 4, 128), (12, 12, 768), (24, 16, 2048)], help="default 4,4,128 12,12,768 24,16,2048",
    )  # fmt: skip
    parser.add_argument("--gpus", nargs="+", type=count(), default=[1, 8, 64, 1000], help="default 1 8 64 1000")
    parser.add_argument(
        "--transitions", nargs="+", type=float, default=[1e6, 1e8, 1e10], help="of the data; default 1e6 1e8 1e10"
    )
    for name, text in {
        "tflops": "reached per GPU", "link-gb": "GB/s per GPU", "disk-gb": "GB/s", "mtbf-gpu-hours": "between failures",
        "restart-minutes": "after a failure",
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=float, help=text)
    add_output(parser)
    parser.set_defaults(task=_compute)
    return run_benchmark(parser, arguments, measures=False)


def _compute(options: argparse.Namespace) -> dict[str, Any]:
    given = {field.name: getattr(options, field.name) for field in fields(Rates)}
    if any(rate is not None and not rate > 0 for rate in given.values()):
        raise ConfigError("a rate is 0 or less; give numbers above 0")
    rates = Rates(**{name: rate for name, rate in given.items() if rate is not None})
    result = scaling([Shape(*model) for model in options.models], options.gpus, options.transitions, rates)
    steps = [
        [
            f"{row['parameters'] / 1e6:,.1f} M", str(row["gpus"]), f"{row['state_gib']:.2f}",
            f"{row['state_fsdp_gib']:.3f}", f"{row['activations_gib']:.1f}", f"{row['compute_ms']:,.1f}",
            f"{row['reduce_mb']:,.0f}", f"{row['reduce_ms']:,.1f}", f"{100 * row['efficiency']:.0f} %",
            f"{row['windows_per_second']:,.0f}",
        ]
        for row in result["training"]
    ]  # fmt: skip
    print_table(
        ["model", "GPUs", "state GiB", "FSDP GiB", "activ. GiB", "ms/step", "sent MB", "ms", "at least", "windows/s"],
        steps,
        wrap=True,
    )
    saves = [
        [
            f"{row['parameters'] / 1e6:,.1f} M", str(row["gpus"]), f"{row['size_gb']:.2f}", f"{row['write_s']:.1f}",
            f"{row['failures_per_day']:.3f}", f"{row['interval_min']:,.0f}", f"{100 * row['lost_share']:.2f} %",
        ]
        for row in result["training"]
    ]  # fmt: skip
    print_table(
        ["model", "GPUs", "checkpoint GB", "write s", "failures/day", "save every min", "time lost"], saves, wrap=True
    )
    names = ["episodes_gb", "tokens_gb", "permutation_gb", "order_gb"]
    data = [[f"{row['transitions']:,.0f}", *(f"{row[name]:,.3g}" for name in names)] for row in result["data"]]
    print_table(["transitions", "episodes GB", "tokens GB", "permutation GB", "order in memory GB"], data, wrap=True)
    say(f"computed, not measured, from {', '.join(f'{name} {rate:g}' for name, rate in result['rates'].items())}")
    return result


if __name__ == "__main__":
    sys.exit(main())
