"""`seqrl bench`: how fast planning, training and loading are on this machine. Without Hydra."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from seqrl.console import print_table, say, say_error
from seqrl.errors import ConfigError, SeqrlError, sentence
from seqrl.files import write_text

_BACKBONES = ("llama", "gpt")
_PUBLISHED = {"observation": 11, "action": 3, "layers": 4, "heads": 4, "width": 128}


def run(arguments: list[str]) -> int:
    """Run the command.

    Returns:
        Exit status: 0; 2 for an error of the user, told in one sentence on stderr.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.output is not None and not options.output.parent.is_dir():
            raise ConfigError(f"--output {str(options.output)!r}: there is no folder {str(options.output.parent)!r}")
        result = options.task(options)
        if options.output is not None:
            write_text(options.output, json.dumps(result, indent=2) + "\n")
            say(f"written: {options.output}")
    except SeqrlError as error:
        say_error(sentence(error))
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "seqrl bench",
        description="Measure speed. Numbers of one run compare with each other, not with those of another hour.",
    )
    commands = parser.add_subparsers(required=True, metavar="plan | latent | train | data | scaling")
    shared = argparse.ArgumentParser(add_help=False)
    cores = len(os.sched_getaffinity(0))
    shared.add_argument("--threads", type=_count(), default=cores, help=f"CPU threads of torch; default {cores}")
    for name, default in _PUBLISHED.items():
        shared.add_argument(f"--{name}", type=_count(), default=default, help=f"default {default}")
    shared.add_argument("--repeats", type=_count(), default=3, help="measurements of each kind; default 3")
    shared.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default cpu")
    shared.add_argument("--output", type=Path, metavar="FILE", help="write the numbers as JSON")

    plan = commands.add_parser("plan", parents=[shared], help="one plan in every cache mode, side by side")
    for name, default in {"bins": 100, "beam-width": 128, "n-expand": 2, "horizon": 15, "context": 5}.items():
        least = 2 if name in ("bins", "context") else 1
        plan.add_argument(f"--{name}", type=_count(least), default=default, help=f"default {default}")
    plan.add_argument(
        "--backbone", nargs="+", default=list(_BACKBONES), metavar="NAME", help=f"default {' '.join(_BACKBONES)}"
    )
    plan.add_argument(
        "--reference-transitions", type=_transitions, default=2, metavar="M",
        help="imagined transitions over which the uncached reference is timed, or all; default 2",
    )  # fmt: skip
    plan.add_argument("--environments", type=_count(), default=16, help="of the batched plan; default 16, 1: none")
    plan.add_argument("--batched-repeats", type=_count(), default=1, help="measurements of batched plans; default 1")
    plan.add_argument("--dtype", choices=("float32", "float64", "bfloat16", "float16"), default="float32")
    plan.set_defaults(task=_plan)

    latent = commands.add_parser("latent", help="a plan among codes (TAP) beside one among tokens (TT), by dimensions")
    latent.add_argument("--threads", type=_count(), default=cores, help=f"CPU threads of torch; default {cores}")
    latent.add_argument(
        "--sizes", nargs="+", type=_sizes, default=[(11, 3), (17, 6), (27, 8), (45, 24)], metavar="O,A",
        help="sizes of observation and action; default 11,3 17,6 27,8 45,24",
    )  # fmt: skip
    for name, default in {
        "layers": 4, "heads": 4, "width": 128, "beam-width": 128, "n-expand": 2, "horizon": 15, "context": 5,
        "latent-width": 512, "codes": 512, "latent-beam-width": 64, "latent-n-expand": 4, "repeats": 3,
    }.items():  # fmt: skip
        least = 2 if name in ("codes", "context") else 1
        latent.add_argument(f"--{name}", type=_count(least), default=default, help=f"default {default}")
    latent.add_argument(
        "--reference-transitions", type=_transitions, default=1, metavar="M", help="as in plan; default 1"
    )
    latent.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default cpu")
    latent.add_argument("--output", type=Path, metavar="FILE", help="write the numbers as JSON")
    latent.set_defaults(task=_latent)

    training = {"window": 10, "batch-size": 256, "steps": 20, "log-every": 20, "transitions": 100_000}
    for command, task, summary in (
        ("train", _train, "training beside a bare PyTorch loop"),
        ("data", _data, "the loader beside training"),
    ):
        added = commands.add_parser(command, parents=[shared], help=summary)
        added.add_argument("--backbone", default="gpt", metavar="NAME", help="default gpt")
        for name, default in training.items():
            least = 2 if name in ("window", "transitions") else 1
            added.add_argument(f"--{name}", type=_count(least), default=default, help=f"default {default}")
        if command == "train":
            added.add_argument("--ranks", type=_count(), default=1, help="more: DDP beside trainings apart; default 1")
        if command == "data":
            added.add_argument("--batches", type=_count(), default=200, help="asked of the loader; default 200")
        added.set_defaults(task=task)

    scaling = commands.add_parser("scaling", help="memory, communication and failures at larger sizes, computed")
    scaling.add_argument(
        "--models", nargs="+", type=_model, default=[(4, 4, 128), (12, 12, 768), (24, 16, 2048)], metavar="L,H,D",
        help="layers, heads and width; default 4,4,128 12,12,768 24,16,2048",
    )  # fmt: skip
    scaling.add_argument("--gpus", nargs="+", type=_count(), default=[1, 8, 64, 1000], help="default 1 8 64 1000")
    scaling.add_argument(
        "--transitions", nargs="+", type=float, default=[1e6, 1e8, 1e10], help="of the data; default 1e6 1e8 1e10"
    )
    for name, text in {
        "tflops": "reached per GPU", "link-gb": "GB/s per GPU", "disk-gb": "GB/s", "mtbf-gpu-hours": "between failures",
        "restart-minutes": "after a failure",
    }.items():  # fmt: skip
        scaling.add_argument(f"--{name}", type=float, help=text)
    scaling.add_argument("--output", type=Path, metavar="FILE", help="write the numbers as JSON")
    scaling.set_defaults(task=_scaling)
    return parser


def _count(least: int = 1) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {least} or more")
        return int(text)

    return count


def _transitions(text: str) -> int | None:
    return None if text == "all" else _count()(text)


def _sizes(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no pair of sizes; give observation,action, as in 11,3")
    return _count()(parts[0]), _count()(parts[1])


def _model(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is no model; give layers,heads,width, as in 4,4,128")
    layers, heads, width = (_count()(part) for part in parts)
    return layers, heads, width


def _settings(kind: Any, options: argparse.Namespace) -> Any:
    """The options that a settings class has fields for."""
    given = vars(options)
    return kind(**{field.name: given[field.name] for field in fields(kind) if field.name in given})


def _plan(options: argparse.Namespace) -> dict[str, Any]:
    from seqrl.benchmarks.plan import MODES, PlanSettings, bench_plan

    backbones = list(dict.fromkeys(options.backbone))
    result = bench_plan(_settings(PlanSettings, options), backbones)
    lines = []
    for backbone in backbones:
        modes = result if backbone == result["backbone"] else result[backbone]
        for mode in MODES:
            lines.append([backbone, mode, *_plan_cells(modes[mode])])
    print_table(
        ["backbone", "cache", "ms/plan", "ms/token", "peak MB", "speedup", "floor ms", "x floor"], lines, wrap=True
    )
    say(f"reference: {result['reference_scaling']}")
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
            [mode, _number(m["ms_batched"]), _number(m["ms_singles"]), f"{m['ratio']:.2f}"]
            for mode, m in batched.items()
        ]
        print_table(
            [f"{backbones[0]}, cache", f"ms, {count} in one plan", f"ms, {count} plans", "ratio"], rows, wrap=True
        )
    _say_machine(result["machine"])
    return dict(result)


def _plan_cells(mode: Mapping[str, Any]) -> list[str]:
    if "skipped" in mode:
        return ["-"] * 6
    peak = "-" if mode["peak_mb"] is None else f"{mode['peak_mb']:.0f}"
    return [
        _range({"median": mode["ms_per_plan"], "min": mode["ms_min"], "max": mode["ms_max"]}),
        _number(mode["ms_per_token_step"]),
        peak,
        f"{mode['speedup']:.1f}",
        _number(mode["floor_ms"]),
        f"{mode['floor_ratio']:.2f}",
    ]


def _latent(options: argparse.Namespace) -> dict[str, Any]:
    from seqrl.benchmarks.latent import LatentSettings, bench_latent
    from seqrl.benchmarks.plan import MODES

    result = bench_latent(_settings(LatentSettings, options), options.sizes)
    lines = []
    for row in result["sizes"]:
        tokens = [f"{_number(row[mode]['ms'])} ({row[mode]['times']:.1f}x)" for mode in MODES]
        lines.append([str(row["observation"]), str(row["action"]), _range(row["latent"]), *tokens])
    names = ["none" if mode == "reference" else mode for mode in MODES]
    print_table(
        ["observation", "action", "codes, ms/plan", *(f"tokens, {name}, ms/plan" for name in names)], lines, wrap=True
    )
    say(f"none: {result['reference_scaling']}. Random weights: hardly any equal rows")
    _say_machine(result["machine"])
    return dict(result)


def _train(options: argparse.Namespace) -> dict[str, Any]:
    from seqrl.benchmarks.training import bench_train
    from seqrl.benchmarks.workload import TrainSettings

    if options.ranks > 1:
        return _ranks(options)
    result = bench_train(_settings(TrainSettings, options))
    rows = [
        [label, _range(result[name]["tokens_per_second"]), _number(result[name]["ms_per_step"])]
        for name, label in (("seqrl", "seqrl train"), ("plain", "plain PyTorch loop"))
    ]
    print_table(["loop", "tokens/s", "ms/step"], rows)
    say(f"seqrl train reaches {result['ratio']:.3f} of the plain loop's tokens/s; no checkpoint falls into the steps")
    _say_machine(result["machine"])
    return dict(result)


def _ranks(options: argparse.Namespace) -> dict[str, Any]:
    from seqrl.benchmarks.ranks import bench_ranks
    from seqrl.benchmarks.workload import TrainSettings

    count = options.ranks
    result = bench_ranks(_settings(TrainSettings, options), count)
    labels = {"together": f"one training, {count} ranks", "apart": f"{count} trainings apart, at the same time"}
    print_table(["", "tokens/s"], [[labels[name], _range(result[name]["tokens_per_second"])] for name in labels])
    listed = ", ".join(f"{ratio:.3f}" for ratio in result["ratios"])
    say(f"{count} ranks reach {result['ratio']:.3f} of the tokens/s of {count} trainings apart (by repeat: {listed})")
    say(f"load average before: {result['load_before']:.1f}")
    _say_machine(result["machine"])
    return dict(result)


def _data(options: argparse.Namespace) -> dict[str, Any]:
    from seqrl.benchmarks.loader import bench_data
    from seqrl.benchmarks.workload import TrainSettings

    result = bench_data(_settings(TrainSettings, options), options.batches)
    rows = [[name, _range(result[name]["windows_per_second"])] for name in ("loader", "training")]
    print_table(["", "windows/s"], rows)
    say(f"the loader is {result['ratio']:.0f} times as fast as training consumes")
    _say_machine(result["machine"])
    return dict(result)


def _scaling(options: argparse.Namespace) -> dict[str, Any]:
    from seqrl.benchmarks.scaling import Rates, Shape, scaling

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


def _range(values: Mapping[str, float]) -> str:
    return f"{_number(values['median'])} [{_number(values['min'])}, {_number(values['max'])}]"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _say_machine(machine: Mapping[str, Any]) -> None:
    rates = ""
    if "copy_gb_per_second" in machine:
        rates = (
            f"; matrix product {machine['matrix_product_gflops']:.0f} GFLOP/s, "
            f"copy {machine['copy_gb_per_second']:.1f} GB/s"
        )
    say(f"{machine['device']}, {machine['threads']} threads, {machine['dtype']}, torch {machine['torch']}{rates}")
