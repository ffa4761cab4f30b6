"""Tables of results: in the terminal, as Markdown, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seqrl.runs import write_atomically

Row = Mapping[str, Any]


LEGEND = (
    "success %: episodes that came within 0.5 of the goal, of the starts far enough away; steps: median until then; "
    "at goal: share of the remaining steps spent there; n: episodes; ms/action: wall time of the policy"
)


def print_table(rows: Sequence[Row], comparisons: Sequence[Row], dataset: Row) -> None:
    """Show the rows beside the behaviour of the data."""
    console = Console(width=None if Console().is_terminal else 160)
    header, body = _columns(rows, dataset)
    table = Table(title=escape(_title(rows, dataset)), title_justify="left")
    for number, name in enumerate(header):
        table.add_column(escape(name), justify="left" if number < 2 else "right", no_wrap=number >= 2)
    for line in body:
        table.add_row(*map(escape, line))
    console.print(table)
    if any("success_rate" in row for row in rows):
        console.print(LEGEND, highlight=False)
    for sentence in _comparison_lines(comparisons):
        console.print(sentence, highlight=False, markup=False)


def write_tables(folder: Path, rows: Sequence[Row], comparisons: Sequence[Row], dataset: Row) -> list[Path]:
    """Write `results.md` and `results.json` of several rows into the run folder."""
    header, body = _columns(rows, dataset)
    lines = [_title(rows, dataset), "", _markdown(header), _markdown(["---"] * len(header)), *map(_markdown, body)]
    lines += ["", LEGEND] if any("success_rate" in row for row in rows) else []
    lines += ["", *(f"- {line}" for line in _comparison_lines(comparisons)), ""]
    write_atomically(folder / "results.md", "\n".join(lines))
    content = {"dataset": dict(dataset), "rows": [dict(r) for r in rows], "comparisons": [dict(c) for c in comparisons]}
    write_atomically(folder / "results.json", json.dumps(content, indent=2) + "\n")
    return [folder / "results.md", folder / "results.json"]


def _title(rows: Sequence[Row], dataset: Row) -> str:
    first = rows[0]
    title = (
        f"{dataset['name']} ({dataset['num_transitions']} transitions), {first['env_id']}, "
        f"mujoco {first['versions']['mujoco']}; training seed {first['training_seed']}, "
        f"{first['training_steps']} steps; evaluation seed {first['seed']}; 95 % intervals over starts"
    )
    return title + (f"; scores: {first['score_note']}" if first.get("score_note") else "")


def _columns(rows: Sequence[Row], dataset: Row) -> tuple[list[str], list[list[str]]]:
    first = next((row for row in rows if "success_rate" in row), None)
    scores = any(row["score_mean"] is not None for row in rows)
    header = ["strategy", "planner"]
    if first is not None:
        names = [f"to {_point(goal['goal'])}" for goal in first["success_by_goal"]]
        header += ["success %", *names, "steps", "at goal"]
    width = len(header) - 2  # columns about goals
    header += ["return", *(["score"] if scores else []), "n", "ms/action"]
    body = [[row["strategy"], _planner(row), *_cells(row, width, scores)] for row in rows]
    behaviour = ["behaviour of the data", "", *[""] * width]
    mean = dataset["behaviour_return_mean"]
    behaviour.append("" if mean is None else f"{mean:.1f}")
    if scores:
        behaviour.append("" if dataset["behaviour_score"] is None else f"{dataset['behaviour_score']:.1f}")
    return header, [*body, [*behaviour, str(dataset["num_episodes"]), ""]]


def _cells(row: Row, width: int, scores: bool) -> list[str]:
    cells = []
    if "success_rate" not in row:
        cells += ["-"] * width
    else:
        cells.append(f"{row['success_rate']:.1f} {_interval(row['success_ci95'])}")
        cells += [f"{goal['success_rate']:.0f}" for goal in row["success_by_goal"]]
        steps, share = row["steps_to_goal_median"], row["time_at_goal"]
        cells += ["-" if steps is None else f"{steps:.0f}", "-" if share is None else f"{100 * share:.0f} %"]
    cells.append(f"{row['return_mean']:.1f} {_interval(row['return_ci95'])}")
    if scores:
        cells.append("-" if row["score_mean"] is None else f"{row['score_mean']:.1f} {_interval(row['score_ci95'])}")
    return [*cells, str(row["num_episodes"]), f"{row['ms_per_action']:.2f}"]


def _planner(row: Row) -> str:
    """What was searched how, short enough for a table: `beam W8 H8 E2, every 4, exact`."""
    planner = row["planner"]
    words = [planner["name"]]
    for name, letter in (("beam_width", "W"), ("horizon", "H"), ("n_expand", "E"), ("temperature", "T")):
        if name in planner:
            words.append(f"{letter}{planner[name]:g}")
    text = " ".join(words)
    text += f", every {row['plan_every']}" if row["plan_every"] > 1 else ""
    return text + (f", cache {row['cache']}" if row["cache"] else "")


def _point(position: Sequence[float]) -> str:
    return ",".join(f"{coordinate:g}" for coordinate in position)


def _interval(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"[{bounds[0]:.1f}, {bounds[1]:.1f}]"


def _comparison_lines(comparisons: Sequence[Row]) -> list[str]:
    lines = []
    for row in comparisons:
        factor, unit = (100, " points of success") if row["of"] == "success" else (1, " of return")
        line = f"{row['baseline']} - {row['other']}: {factor * row['difference']:+.1f}{unit}"
        if row["ci95"] is not None:
            low, high = (factor * bound for bound in row["ci95"])
            line += f", 95 % interval over paired starts [{low:+.1f}, {high:+.1f}]"
        lines.append(line)
    return lines


def _markdown(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
