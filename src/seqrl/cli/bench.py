"""`seqrl bench`: how fast planning, training and loading are on this machine. Without Hydra."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from seqrl.cli.bench_options import (
    PUBLISHED,
    TRAINING,
    add_counts,
    add_machine,
    count,
    count_or_all,
    format_number,
    format_range,
    run_benchmark,
    say_machine,
    settings_of,
)
from seqrl.console import print_table, say, say_error

_BACKBONES = ("llama", "gpt")
_LOOPS = {"seqrl": "seqrl train", "fast": "seqrl train, fast_cpu", "plain": "plain PyTorch loop"}
_MOVED = ("latent", "scaling")  # to what developers measure


def run(arguments: list[str]) -> int:
    """Run the command.

    Returns:
        Exit status: 0; 2 for an error of the user, told in one sentence on stderr.
    """
    if arguments[:1] and arguments[0] in _MOVED:
        say_error(f"`seqrl bench {arguments[0]}` has moved; in a checkout, run python -m benchmarks.{arguments[0]}")
        return 2
    return run_benchmark(_parser(), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "seqrl bench",
        description="Measure speed. Numbers of one run compare with each other, not with those of another hour.",
    )
    commands = parser.add_subparsers(required=True, metavar="plan | train | data")
    shared = argparse.ArgumentParser(add_help=False)
    add_machine(shared)
    add_counts(shared, PUBLISHED)
    shared.add_argument("--repeats", type=count(), default=3, help="measurements of each kind; default 3")

    plan = commands.add_parser("plan", parents=[shared], help="one plan in every cache mode, side by side")
    add_counts(plan, {"bins": 100, "beam-width": 128, "n-expand": 2, "horizon": 15, "context": 5})
    plan.add_argument(
        "--backbone", nargs="+", default=list(_BACKBONES), metavar="NAME", help=f"default {' '.join(_BACKBONES)}"
    )
    plan.add_argument(
        "--reference-transitions", type=count_or_all, default=2, metavar="M",
        help="imagined transitions over which the uncached reference is timed, or all; default 2",
    )  # fmt: skip
    plan.add_argument("--environments", type=count(), default=16, help="of the batched plan; default 16, 1: none")
    plan.add_argument("--batched-repeats", type=count(), default=1, help="measurements of batched plans; default 1")
    plan.add_argument("--dtype", choices=("float32", "float64", "bfloat16", "float16"), default="float32")
    plan.set_defaults(task=_plan)

    for command, task, summary in (
        ("train", _train, "training beside a bare PyTorch loop"),
        ("data", _data, "the loader beside training"),
    ):
        added = commands.add_parser(command, parents=[shared], help=summary)
        added.add_argument("--backbone", default="gpt", metavar="NAME", help="default gpt")
        add_counts(added, TRAINING)
        if command == "data":
            added.add_argument("--batches", type=count(), default=200, help="asked of the loader; default 200")
        added.set_defaults(task=task)
    return parser


def _plan(options: argparse.Namespace) -> dict[str, Any]:
    from seqrl.benchmarks.plan import MODES, PlanSettings, bench_plan

    backbones = list(dict.fromkeys(options.backbone))
    result = bench_plan(settings_of(PlanSettings, options), backbones)
    lines = []
    for backbone in backbones:
        modes = result if backbone == result["backbone"] else result[backbone]
        for mode in MODES:
            lines.append([backbone, mode, *_plan_cells(modes[mode])])
    print_table(
        ["backbone", "cache", "ms/plan", "ms/token", "peak MB", "speedup", "floor ms", "x floor"], lines, wrap=True
    )
    say(f"reference: {result['reference_scaling']}; steps by {result['path']}")
    say("floor: of a window plan, for all modes; see seqrl.benchmarks.floor. Random weights: hardly any equal rows")
    for backbone in backbones:
        modes = result if backbone == result["backbone"] else result[backbone]
        for mode in MODES:
            if "skipped" in modes[mode]:
                say(f"{backbone}, {mode}: {modes[mode]['skipped']}")
    if "batched" in result:
        batched = dict(result["batched"])
        count = batched.pop("environments")
        rows = [
            [mode, format_number(m["ms_batched"]), format_number(m["ms_singles"]), f"{m['ratio']:.2f}"]
            for mode, m in batched.items()
        ]
        print_table(
            [f"{backbones[0]}, cache", f"ms, {count} in one plan", f"ms, {count} plans", "ratio"], rows, wrap=True
        )
    say_machine(result["machine"])
    return dict(result)


def _plan_cells(mode: Mapping[str, Any]) -> list[str]:
    if "skipped" in mode:
        return ["-"] * 6
    peak = "-" if mode["peak_mb"] is None else f"{mode['peak_mb']:.0f}"
    return [
        format_range({"median": mode["ms_per_plan"], "min": mode["ms_min"], "max": mode["ms_max"]}),
        format_number(mode["ms_per_token_step"]),
        peak,
        f"{mode['speedup']:.1f}",
        format_number(mode["floor_ms"]),
        f"{mode['floor_ratio']:.2f}",
    ]


def _train(options: argparse.Namespace) -> dict[str, Any]:
    from seqrl.benchmarks.training import bench_train
    from seqrl.benchmarks.workload import TrainSettings

    result = bench_train(settings_of(TrainSettings, options))
    rows = [
        [label, format_range(result[name]["tokens_per_second"]), format_number(result[name]["ms_per_step"])]
        for name, label in _LOOPS.items()
        if name in result
    ]
    print_table(["loop", "tokens/s", "ms/step"], rows)
    fast = f", {result['fast_ratio']:.3f} with trainer.fast_cpu" if "fast_ratio" in result else ""
    say(f"seqrl train reaches {result['ratio']:.3f} of the plain loop's tokens/s{fast}")
    say("no checkpoint falls into the steps")
    say_machine(result["machine"])
    return dict(result)


def _data(options: argparse.Namespace) -> dict[str, Any]:
    from seqrl.benchmarks.loader import bench_data
    from seqrl.benchmarks.workload import TrainSettings

    result = bench_data(settings_of(TrainSettings, options), options.batches)
    rows = [[name, format_range(result[name]["windows_per_second"])] for name in ("loader", "training")]
    print_table(["", "windows/s"], rows)
    say(f"the loader is {result['ratio']:.0f} times as fast as training consumes")
    say_machine(result["machine"])
    return dict(result)
