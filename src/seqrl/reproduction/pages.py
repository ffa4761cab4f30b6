"""What a reproduction leaves: its data, and a page that says what agrees with the paper."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from seqrl.files import write_text
from seqrl.reproduction import Options, Report, Reproduction

_PACKAGES = ("seqrl", "torch", "gymnasium", "mujoco")


def write_report(
    reproduction: Reproduction,
    options: Options,
    report: Report,
    *,
    commands: Sequence[str],
    published: Sequence[str],
    seconds: float,
) -> list[Path]:
    """Write `NAME.json` and `NAME.md` into the folder, beside `NAME.png`.

    Args:
        commands: what was run.
        published: what would be run at the published scale.
        seconds: CPU time of the measuring, without the runs.

    Returns:
        The files.
    """
    name, folder = reproduction.name, options.folder
    versions = {package: version(package) for package in _PACKAGES}
    content = {
        "name": name,
        "scale": options.scale,
        "commands": list(commands),
        "findings": [asdict(each) for each in report.findings],
        "versions": versions,
        **report.data,
    }
    write_text(folder / f"{name}.json", json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")
    ran = [
        f"`seqrl reproduce {name}` ran, at the scale `{options.scale}` (measuring took {seconds:.0f} CPU-seconds):",
        "",
        *_fenced(commands),
    ]
    if options.scale != "published":
        ran += ["At the published scale, for GPUs: `--scale published`, which is", "", *_fenced(published)]
    ran += [f"{', '.join(f'{k} {v}' for k, v in versions.items())}, Python {platform.python_version()}.", ""]
    write_text(folder / f"{name}.md", "\n".join([*_describe(reproduction, report), "## Commands", "", *ran]))
    return [folder / f"{name}.json", folder / f"{name}.md"]


def _describe(reproduction: Reproduction, report: Report) -> list[str]:
    """The page without its commands."""
    return [
        f"# {reproduction.title}",
        "",
        "Janner, Li and Levine 2021, [Offline Reinforcement Learning as One Big Sequence Modeling "
        "Problem](https://arxiv.org/abs/2106.02039).",
        "",
        f"![{reproduction.title}]({reproduction.name}.png)",
        "",
        "## What agrees with the paper",
        "",
        "| claim | measured | verdict |",
        "| --- | --- | --- |",
        *(f"| {each.claim} | {each.measured} | {each.verdict} |" for each in report.findings),
        "",
        "Verdicts follow from the numbers and their intervals by rule.",
        "",
        "## What was measured",
        "",
        *report.lines,
        "",
        "## What is other than in the paper",
        "",
        *(f"- {each}" for each in reproduction.deviations),
        "",
    ]


def _fenced(commands: Sequence[str]) -> list[str]:
    return ["```sh", *commands, "```", ""]


def _plain(value: Any) -> Any:
    """The same with None for numbers that JSON lacks."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
