"""Planning time by the number of dimensions, among codes and among tokens: `python -m benchmarks.latent`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from seqrl.benchmarks.plan import MODES, PlanSettings, bench_plan
from seqrl.benchmarks.timing import describe_machine, interleaved, open_device, seconds, spread
from seqrl.cli.bench_options import (
    add_counts,
    add_machine,
    count_or_all,
    counts,
    format_number,
    format_range,
    run_benchmark,
    say_machine,
    settings_of,
)
from seqrl.console import print_table, say
from seqrl.decoding.noise import Noise
from seqrl.layout import Layout
from seqrl.models.code import CodeModel
from seqrl.planners.latent_beam import LatentBeamPlanner
from seqrl.scores.reward import RewardScore

_SEED = 0


@dataclass(frozen=True)
class LatentSettings:
    """Shapes and repetitions; the defaults are the published models and planners of both methods.

    Attributes:
        layers, heads: of all networks.
        width, bins, beam_width, n_expand, context: of the Trajectory Transformer and its search.
        horizon: of both searches; a multiple of 3.
        latent_width, codes, latent_beam_width, latent_n_expand, window: of the autoencoder, its prior and their search.
        repeats: measurements of everything; medians are reported.
        reference_transitions: as in `PlanSettings`.
    """

    threads: int
    layers: int = 4
    heads: int = 4
    width: int = 128
    bins: int = 100
    beam_width: int = 128
    n_expand: int = 2
    horizon: int = 15
    context: int = 5
    latent_width: int = 512
    codes: int = 512
    latent_beam_width: int = 64
    latent_n_expand: int = 4
    window: int = 24
    repeats: int = 3
    reference_transitions: int | None = 1
    device: str = "cpu"


def bench_latent(settings: LatentSettings, sizes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Measure a plan of each method for observations and actions of several sizes.

    Weights are random: hardly two candidates choose the same tokens or codes, the worst case for searches that compute
    equal rows once.

    Returns:
        The machine, the settings, and `sizes`: for each pair of sizes `observation`, `action`, the milliseconds of a
        plan among codes, `latent`, and of one among tokens in each cache mode, `reference`, `exact` and `window`, with
        how many times longer that is than the plan among codes, `times`.

    Raises:
        seqrl.errors.ConfigError: shapes that a model or planner refuses.
    """
    device = open_device(settings.device, settings.threads)
    tasks: dict[str, Callable[[int], float]] = {}
    for observation, action in sizes:
        tasks[f"latent {observation} {action}"] = task = _latent_task(settings, observation, action, device)
        task(0)  # warms up
    latent = interleaved(tasks, settings.repeats, say)
    rows = []
    for observation, action in sizes:
        say(f"Trajectory Transformer, observation {observation}, action {action}")
        tokens = bench_plan(_token_settings(settings, observation, action), ["llama"])
        row: dict[str, Any] = {"observation": observation, "action": action}
        row["latent"] = spread(latent[f"latent {observation} {action}"], 1e3)
        for mode in MODES:
            ms = tokens[mode]["ms_per_plan"]
            row[mode] = {"ms": ms, "times": ms / row["latent"]["median"]}
        rows.append(row)
    return {
        "machine": describe_machine(device, torch.float32),
        "settings": asdict(settings),
        "reference_scaling": tokens["reference_scaling"],
        "sizes": rows,
    }


def _token_settings(settings: LatentSettings, observation: int, action: int) -> PlanSettings:
    names = ("threads", "layers", "heads", "width", "bins", "beam_width", "n_expand", "horizon", "context", "repeats",
             "reference_transitions", "device")  # fmt: skip
    given = {name: getattr(settings, name) for name in names}
    return PlanSettings(**given, observation=observation, action=action, environments=1, memory=False)


def _latent_task(
    settings: LatentSettings, observation: int, action: int, device: torch.device
) -> Callable[[int], float]:
    """Times one plan for one environment; the number gives it other noise."""
    fields: dict[str, Any] = {name: {} for name in ("observation", "action", "reward", "value")}
    layout = Layout.from_config({"fields": fields, "discount": 0.99}, observation, action)
    backbone = {"name": "gpt", "num_layers": settings.layers, "num_heads": settings.heads, "dim": settings.latent_width}
    tokenizer = {"name": "vq", "num_codes": settings.codes, "code_dim": settings.latent_width}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = CodeModel(layout, tokenizer, backbone, context=settings.window).eval()
        model.tokenizer.fit(torch.randn(1000, layout.size))
        present = torch.randn(1, layout.size)
    model = model.to(device)
    planner = LatentBeamPlanner(
        beam_width=settings.latent_beam_width, n_expand=settings.latent_n_expand, horizon=settings.horizon
    )
    score = RewardScore(layout.discount)
    history = model.history(torch.zeros(1, 0, layout.size, device=device), present.to(device))
    environment = torch.zeros(1, dtype=torch.int64, device=device)

    @torch.no_grad()
    def plan(number: int) -> None:
        planner.plan(model, history, score, Noise.of(_SEED, environment, number))

    return lambda number: seconds(lambda: plan(number), device)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print a table; the exit status as a program's."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.latent", description="A plan among codes (TAP) beside one among tokens (TT), by sizes."
    )
    add_machine(parser)
    parser.add_argument(
        "--sizes", nargs="+", type=counts("observation,action", "11,3"), metavar="O,A",
        default=[(11, 3), (17, 6), (27, 8), (45, 24)], help="of both; default 11,3 17,6 27,8 45,24",
    )  # fmt: skip
    own = ("threads", "device", "reference_transitions", "bins", "window")
    defaults = LatentSettings(threads=1)
    add_counts(parser, {name.replace("_", "-"): v for name, v in vars(defaults).items() if name not in own})
    parser.add_argument("--reference-transitions", type=count_or_all, default=1, metavar="M", help="or all; default 1")
    parser.set_defaults(task=_measure)
    return run_benchmark(parser, arguments)


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    result = bench_latent(settings_of(LatentSettings, options), options.sizes)
    lines = []
    for row in result["sizes"]:
        tokens = [f"{format_number(row[mode]['ms'])} ({row[mode]['times']:.1f}x)" for mode in MODES]
        lines.append([str(row["observation"]), str(row["action"]), format_range(row["latent"]), *tokens])
    names = ["none" if mode == "reference" else mode for mode in MODES]
    print_table(
        ["observation", "action", "codes, ms/plan", *(f"tokens, {name}, ms/plan" for name in names)], lines, wrap=True
    )
    say(f"none: {result['reference_scaling']}. Random weights: hardly any equal rows")
    say_machine(result["machine"])
    return dict(result)


if __name__ == "__main__":
    sys.exit(main())
