"""Planning time, cache modes side by side on the same model: `seqrl bench plan`."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from time import process_time
from typing import Any, get_args

import torch

from seqrl.benchmarks.floor import Decoder, Search, floor_seconds
from seqrl.benchmarks.timing import (
    DTYPES,
    MemoryRise,
    Rates,
    describe_machine,
    interleaved,
    measure_rates,
    open_device,
    seconds,
    spread,
)
from seqrl.console import say
from seqrl.decoding.compiling import describe_path
from seqrl.decoding.noise import Noise
from seqrl.decoding.session import CacheMode
from seqrl.errors import ConfigError
from seqrl.layout import Layout
from seqrl.models.token import TokenModel
from seqrl.planners.beam import BeamPlanner
from seqrl.scores.reward import RewardScore
from seqrl.types import TokenHistory

MODES = {"reference": "none"} | {mode: mode for mode in get_args(CacheMode) if mode != "none"}
"""What a benchmark calls a cache mode: `none` is the reference of all others."""
_SEED = 0


@dataclass(frozen=True)
class PlanSettings:
    """Shapes and repetitions of a benchmark; the defaults are the published model and planner for Hopper.

    Attributes:
        observation, action: sizes; reward and value are added, one token each.
        bins, layers, heads, width: V, and the backbone's size.
        beam_width, n_expand, horizon, context: of `BeamPlanner`; 2 transitions of context or more.
        repeats: measurements of everything; medians are reported.
        reference_transitions: imagined transitions over which the reference is timed beyond the first; the rest is
            extrapolated. None runs it in full.
        environments: of the comparison of one batch with single plans; 1 leaves it out.
        batched_repeats: measurements of that comparison.
        memory: measure peak memory, in a process of its own for each mode.
    """

    threads: int
    observation: int = 11
    action: int = 3
    bins: int = 100
    layers: int = 4
    heads: int = 4
    width: int = 128
    beam_width: int = 128
    n_expand: int = 2
    horizon: int = 15
    context: int = 5
    repeats: int = 3
    reference_transitions: int | None = 2
    environments: int = 16
    batched_repeats: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    memory: bool = True


def bench_plan(settings: PlanSettings, backbones: list[str]) -> dict[str, Any]:
    """Measure all cache modes of some backbones.

    Returns:
        The machine, the settings, how the reference was scaled; `reference`, `exact` and `window` of the first
        backbone, with `ms_per_plan`, `ms_per_token_step`, `peak_mb`, `speedup` over the reference and `floor_ratio`
        each, or with `skipped`, the reason why the backbone cannot serve that mode; `batched` of the first backbone;
        and the modes of the others under their names.

    Raises:
        seqrl.errors.ConfigError: shapes that the model or the planner refuses.
    """
    device = open_device(settings.device, settings.threads)
    dtype = DTYPES[settings.dtype]
    rates = measure_rates(device, dtype)
    benches = {backbone: _Bench(settings, backbone, device) for backbone in backbones}
    tasks: dict[str, Callable[[int], float]] = {}
    for backbone, bench in benches.items():
        for mode in bench.served:
            bench.warm_up(mode)
            tasks |= {f"{backbone} {name}": task for name, task in bench.tasks(mode).items()}
    measured = interleaved(tasks, settings.repeats, say)
    first = benches[backbones[0]]
    batched = first.batched() if settings.environments > 1 else None
    rates = rates.best(measure_rates(device, dtype))
    results = {
        backbone: bench.results({k.removeprefix(f"{backbone} "): v for k, v in measured.items() if k in tasks}, rates)
        for backbone, bench in benches.items()
    }
    return {
        "machine": describe_machine(device, dtype, rates),
        "settings": asdict(settings),
        "path": "CUDA graphs" if device.type == "cuda" else describe_path(first.model),
        "tokens_per_plan": first.search.decoded,
        "reference_scaling": _scaling(settings),
        "backbone": backbones[0],
        **results[backbones[0]],
        **({"batched": batched} if batched else {}),
        **{backbone: results[backbone] for backbone in backbones[1:]},
    }


def timed_transitions(settings: PlanSettings) -> int | None:
    """How many transitions the longer of the reference's two plans imagines; None if it runs in full."""
    count = settings.reference_transitions
    return None if count is None or 1 + count >= settings.horizon else 1 + count


def extrapolate(first: float, longer: float, timed: int, horizon: int) -> float:
    """The time of a plan, from those of plans of 1 and of `timed` transitions.

    With a full context, every transition after the first does the same work: the time is affine in the horizon.
    """
    return first + (longer - first) / (timed - 1) * (horizon - 1)


def _scaling(settings: PlanSettings) -> str:
    timed = timed_transitions(settings)
    if timed is None:
        return "run in full"
    return (
        f"timed at horizon 1 and {timed} and extrapolated to {settings.horizon}: "
        "with a full context, every transition after the first does the same work"
    )


class _Bench:
    """One backbone's model, with random weights, and its plans.

    Random weights predict almost uniformly, so that hardly two candidates choose the same tokens: the worst case for a
    planner that computes equal rows once.
    """

    def __init__(self, settings: PlanSettings, backbone: str, device: torch.device) -> None:
        self.settings, self.backbone, self.device = settings, backbone, device
        self.model = _model(settings, backbone).to(device)
        for part in (self.model.embedding, self.model.backbone, self.model.head):  # the tokenizer's bins stay exact
            part.to(DTYPES[settings.dtype])
        self.score = RewardScore(self.model.layout.discount)
        observation = self.model.layout.field("observation")
        self.search = Search(
            hidden=tuple(self.model.layout.hidden),
            observation=observation.size,
            beam_width=settings.beam_width,
            n_expand=settings.n_expand,
            horizon=settings.horizon,
            context=settings.context,
        )
        generator = torch.Generator().manual_seed(_SEED)
        rows = max(1, settings.environments)
        self._tokens = torch.randint(settings.bins, (rows, self.search.history), generator=generator).to(device)
        self.served: list[str] = []
        self.skipped: dict[str, str] = {}
        for mode in MODES:
            try:
                self.plan(mode, horizon=1, beam_width=1)
                self.served.append(mode)
            except ConfigError as error:
                if mode == "reference":
                    raise
                self.skipped[mode] = str(error)

    @torch.no_grad()
    def plan(
        self,
        mode: str,
        *,
        horizon: int | None = None,
        beam_width: int | None = None,
        rows: slice = slice(0, 1),
        time: int = 0,
    ) -> None:
        settings = self.settings
        planner = BeamPlanner(
            beam_width=beam_width or settings.beam_width,
            n_expand=settings.n_expand,
            horizon=horizon or settings.horizon,
            context=settings.context,
            cache=MODES[mode],
        )
        tokens = self._tokens[rows]
        lengths = torch.full((len(tokens),), settings.context - 1, device=self.device)
        environments = torch.arange(len(self._tokens), device=self.device)[rows]
        planner.plan(self.model, TokenHistory(tokens, lengths), self.score, Noise.of(_SEED, environments, time))

    def warm_up(self, mode: str) -> None:
        timed = timed_transitions(self.settings) if mode == "reference" else None
        self.plan(mode, horizon=1 if timed else None)

    def tasks(self, mode: str) -> dict[str, Callable[[int], float]]:
        """What is to be measured for a mode, by name."""
        horizons: list[int | None] = [None]
        if mode == "reference" and (timed := timed_transitions(self.settings)):
            horizons = [1, timed]

        def task(horizon: int | None) -> Callable[[int], float]:
            return lambda repeat: seconds(lambda: self.plan(mode, horizon=horizon, time=repeat), self.device)

        return {f"{mode}{'' if h is None else f' horizon {h}'}": task(h) for h in horizons}

    def results(self, measured: dict[str, list[float]], rates: Rates) -> dict[str, Any]:
        """The entries of a backbone's modes, from the times of its tasks."""
        times = {mode: measured[mode] for mode in self.served if mode in measured}
        if timed := timed_transitions(self.settings):
            pairs = zip(measured["reference horizon 1"], measured[f"reference horizon {timed}"], strict=True)
            times["reference"] = [extrapolate(*pair, timed, self.settings.horizon) for pair in pairs]
        reference = spread(times["reference"])["median"]
        floor = floor_seconds(Decoder.of(self.model), self.search, rates)
        entries: dict[str, Any] = {}
        for mode in MODES:
            if mode in self.skipped:
                entries[mode] = {"skipped": self.skipped[mode]}
                continue
            plan = spread(times[mode], 1e3)
            entries[mode] = {
                "ms_per_plan": plan["median"],
                "ms_min": plan["min"],
                "ms_max": plan["max"],
                "ms_per_token_step": plan["median"] / self.search.decoded,
                "peak_mb": measure_peak(self.settings, self.backbone, mode) if self.settings.memory else None,
                "speedup": 1e3 * reference / plan["median"],
                "floor_ms": 1e3 * floor,
                "floor_ratio": plan["median"] / (1e3 * floor),
            }
        return entries

    def batched(self) -> dict[str, Any]:
        """One plan for all environments at once, and one for each of them, in turn."""
        count = self.settings.environments
        cached = [mode for mode in self.served if mode != "reference"]

        def task(mode: str, size: int) -> Callable[[int], float]:
            def run(repeat: int) -> None:
                for first in range(0, count, size):
                    self.plan(mode, rows=slice(first, first + size), time=repeat)

            return lambda repeat: seconds(lambda: run(repeat), self.device)

        for mode in cached:
            self.plan(mode, rows=slice(0, count), horizon=min(2, self.settings.horizon))
        tasks = {f"{mode}, {size} a plan": task(mode, size) for mode in cached for size in (1, count)}
        measured = interleaved(tasks, self.settings.batched_repeats, say)
        entries: dict[str, Any] = {"environments": count}
        for mode in cached:
            singles = spread(measured[f"{mode}, 1 a plan"], 1e3)["median"]
            batch = spread(measured[f"{mode}, {count} a plan"], 1e3)["median"]
            entries[mode] = {"ms_batched": batch, "ms_singles": singles, "ratio": singles / batch}
        return entries


def _model(settings: PlanSettings, backbone: str) -> TokenModel:
    names = ("observation", "action", "reward", "value")
    config = {"fields": {name: {"hidden": name == "value"} for name in names}, "discount": 0.99}
    layout = Layout.from_config(config, settings.observation, settings.action)
    sizes = {"num_layers": settings.layers, "num_heads": settings.heads, "dim": settings.width}
    tokenizer = {"name": "uniform", "num_bins": settings.bins}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = TokenModel(layout, tokenizer, {"name": backbone, **sizes}, context=settings.context)
        model.tokenizer.fit(torch.randn(1000, layout.size))
    return model.eval()


def measure_peak(settings: PlanSettings, backbone: str, mode: str) -> float | None:
    """`peak_mb` of a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(peak_mb, settings, backbone, mode).result()


def peak_mb(settings: PlanSettings, backbone: str, mode: str) -> float | None:
    """The memory that one plan needs beside the model, at its peak, in MB.

    Meant for a fresh process. On a CPU, how far the resident memory of the process rises during the plan: everything
    that it touches first, the allocator's unused remains included. On a GPU, the peak of what torch allocated, less the
    model. The reference stops after two transitions: with a full context, more of them need no more.

    Returns:
        None where the operating system does not tell (`/proc`, Linux).
    """
    device = open_device(settings.device, settings.threads)
    bench = _Bench(replace(settings, environments=1), backbone, device)
    horizon = min(2, settings.horizon) if mode == "reference" else None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        bench.plan(mode, horizon=horizon)
        held = sum(tensor.nbytes for tensor in (*bench.model.parameters(), *bench.model.buffers()))
        return (torch.cuda.max_memory_allocated(device) - held) / 1e6
    rise = MemoryRise.begin()
    if rise is None:
        return None
    bench.plan(mode, horizon=horizon)
    return rise.peak_mb()


def measure_plan(settings: PlanSettings, backbone: str, mode: str) -> tuple[float, float | None]:
    """Processor seconds of a plan for all environments (the faster of two), and its peak memory in MB.

    Meant for a fresh process on a CPU; the memory is None where the operating system does not tell.
    """
    bench = _Bench(settings, backbone, open_device(settings.device, settings.threads))
    rise, times = MemoryRise.begin(), []
    for number in range(2):
        start = process_time()
        bench.plan(mode, rows=slice(None), time=number)
        times.append(process_time() - start)
    return min(times), None if rise is None else rise.peak_mb()
