"""Tables of results: in the terminal, as Markdown, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seqrl import console
from seqrl.data.summary import DataSummary
from seqrl.evaluation.baseline import RowDifference, tell_differences
from seqrl.evaluation.rows import ResultsRow
from seqrl.evaluation.telling_apart import tell_apart
from seqrl.evaluation.wording import shorten_data_name, show_estimate, spell_score
from seqrl.files import write_text
from seqrl.worlds.four_rooms import ENV_ID as FOUR_ROOMS_ID
from seqrl.worlds.maze import SUCCESS_RADIUS

GOAL_LEGEND = (
    "success %: episodes that came within {} of the goal, of the starts far enough away, with Wilson's interval; "
    "steps: median until then; at goal: share of the remaining steps spent there. "
)
TOLD_LEGEND = (
    "success %: episodes in which the environment told success, with Wilson's interval; steps: median until then; "
    "at goal: share of the remaining steps with it. "
)
REGION_LEGEND = (
    "clear %: of the same starts, those that came there and were inside no region before; entered %: inside one "
    "before. "
)
LEGEND = (
    "n: episodes, one environment each, planned for together; ms/action: wall time of the policy over all their actions"
)
BUDGET_LEGEND = "; H 3.2 of 15: mean transitions of the plans that the time budget allowed; they depend on the machine"
_WHOLE = ", whole episodes"
_CUT_LEGEND = "; the behaviour's episodes are whole, those of the rows are cut"


def print_table(rows: Sequence[ResultsRow], comparisons: Sequence[RowDifference], dataset: DataSummary) -> None:
    """Show the rows beside the behaviour of the data."""
    header, body = _columns(rows, dataset)
    console.print_table(header, body, title=_title(rows, dataset), words=2)
    console.say(_legend(rows))
    for sentence in (*_score_lines(rows), *tell_differences(comparisons)):
        console.say(console.one_line(sentence))


def write_tables(
    folder: Path, rows: Sequence[ResultsRow], comparisons: Sequence[RowDifference], dataset: DataSummary
) -> list[Path]:
    """Write `results.md` and `results.json` of several rows into the run folder."""
    header, body = _columns(rows, dataset)
    lines = [_title(rows, dataset), "", _markdown(header), _markdown(["---"] * len(header)), *map(_markdown, body)]
    lines += [
        "",
        _legend(rows),
        "",
        *(f"- {line}" for line in (*_score_lines(rows), *tell_differences(comparisons))),
        "",
    ]
    write_text(folder / "results.md", "\n".join(lines))
    content = {
        "dataset": asdict(dataset),
        "rows": [row.to_json() for row in rows],
        "comparisons": [asdict(each) for each in comparisons],
    }
    write_text(folder / "results.json", json.dumps(content, indent=2) + "\n")
    return [folder / "results.md", folder / "results.json"]


def circumstances(rows: Sequence[ResultsRow]) -> str:
    """What the numbers of some rows hold for, beside the data; where the rows differ, every value is named."""

    def of(values: Iterable[Any]) -> str:
        return ", ".join(dict.fromkeys(map(str, values)))

    limits = [row.starts.max_steps for row in rows]
    cut = of(limit for limit in limits if limit is not None)
    cut = f", cut after {cut} steps{' or at their own limit' if None in limits else ''}" if cut else ""
    simulators = of(version for row in rows if (version := _mujoco_of(row)) is not None)
    return (
        f"{of(row.env_id for row in rows)}{', mujoco ' if simulators else ''}{simulators}; "
        f"training seed {of(row.training_seed for row in rows)}, {of(row.training_steps for row in rows)} steps; "
        f"evaluation seed {of(row.seed for row in rows)}{cut}; "
        f"{of(row.device for row in rows)}, {of(row.precision for row in rows)}, "
        f"threads {of(row.threads for row in rows)}"
    )


def _mujoco_of(row: ResultsRow) -> str | None:
    """The version of MuJoCo that simulated the episodes; rows of before named it whatever did."""
    return None if row.env_id == FOUR_ROOMS_ID else row.versions.get("mujoco")


def _title(rows: Sequence[ResultsRow], dataset: DataSummary) -> str:
    title = f"{shorten_data_name(dataset.name)} ({dataset.num_transitions} transitions), {circumstances(rows)}"
    notes = dict.fromkeys(row.score_note for row in rows if row.score_note)
    return f"{title}; 95 % intervals over starts" + (f"; scores: {'; '.join(notes)}" if notes else "")


def _legend(rows: Sequence[ResultsRow]) -> str:
    toward = [row.goals for row in rows if row.goals is not None]
    radii = ", ".join(dict.fromkeys(f"{each.radius or SUCCESS_RADIUS:g}" for each in toward if not each.told))
    text = (TOLD_LEGEND if any(each.told for each in toward) else "") + (GOAL_LEGEND.format(radii) if radii else "")
    text += (REGION_LEGEND if _have_regions(rows) else "") + LEGEND
    text += BUDGET_LEGEND if any(row.time_budget_ms is not None for row in rows) else ""
    return text + (_CUT_LEGEND if _are_cut(rows) else "") + "."


def _are_cut(rows: Sequence[ResultsRow]) -> bool:
    """Whether episodes ended before those of the data do: after so many steps, or with their arrival."""
    return any(row.starts.max_steps is not None or row.end_at_goal for row in rows)


def _score_lines(rows: Sequence[ResultsRow]) -> list[str]:
    """What each composed score is made of, with all options, and which rows have it."""
    spelled: dict[str, list[str]] = {}
    for row in rows:
        if text := spell_score(row.score):
            spelled.setdefault(text, []).append(row.strategy)
    return [f"score of {', '.join(labels)}: {text}" for text, labels in spelled.items()]


def _columns(rows: Sequence[ResultsRow], dataset: DataSummary) -> tuple[list[str], list[list[str]]]:
    goals = _named_goals(rows)
    scores = any(row.score_mean is not None for row in rows)
    header = ["strategy", "planner"]
    if any(row.goals is not None for row in rows):
        names = [f"to {goal}" for goal in goals]
        header += ["success %", *(["clear %", "entered %"] if _have_regions(rows) else []), *names, "steps", "at goal"]
    width = len(header) - 2  # columns about goals
    outcomes = list(dict.fromkeys(name for row in rows for name in row.outcomes or {}))
    header += ["return", *(["score"] if scores else []), *outcomes, "n", "ms/action"]
    body = [
        [row.strategy, decoding, *_cells(row, goals, width, scores, _have_regions(rows), outcomes)]
        for row, decoding in zip(rows, tell_apart(rows), strict=True)
    ]
    behaviour = [f"behaviour of the data{_WHOLE if _are_cut(rows) else ''}", "", *[""] * width]
    mean = dataset.behaviour_return_mean
    behaviour.append("" if mean is None else f"{mean:.1f}")
    if scores:
        behaviour.append("" if dataset.behaviour_score is None else f"{dataset.behaviour_score:.1f}")
    known = dataset.behaviour_outcomes or {}
    behaviour += [f"{known[name]:.4g}" if name in known else "" for name in outcomes]
    counted = dataset.num_episodes if dataset.behaviour_episodes is None else dataset.behaviour_episodes
    return header, [*body, [*behaviour, str(counted), ""]]


def _named_goals(rows: Sequence[ResultsRow]) -> list[str]:
    """The places that rows have success rates of, each once."""
    toward = [row.goals for row in rows if row.goals is not None]
    return list(dict.fromkeys(_point(share.goal) for each in toward for share in each.success_by_goal))


def _have_regions(rows: Sequence[ResultsRow]) -> bool:
    return any(row.goals is not None and row.goals.regions is not None for row in rows)


def _cells(
    row: ResultsRow, goals: Sequence[str], width: int, scores: bool, regions: bool, outcomes: Sequence[str]
) -> list[str]:
    cells = []
    if row.goals is None:
        cells += ["-"] * width
    else:
        cells.append(f"{row.goals.success_rate:.1f} {_interval(row.goals.success_ci95)}")
        if regions:
            clear, entered = row.goals.clear_success_rate, row.goals.entered_rate
            cells.append("-" if clear is None else f"{clear:.1f} {_interval(row.goals.clear_success_ci95)}")
            cells.append("-" if entered is None else f"{entered:.0f}")
        by_goal = {_point(each.goal): f"{each.success_rate:.0f}" for each in row.goals.success_by_goal}
        cells += [by_goal.get(goal, "-") for goal in goals]
        steps, share = row.goals.steps_to_goal_median, row.goals.time_at_goal
        cells += ["-" if steps is None else f"{steps:.0f}", "-" if share is None else f"{100 * share:.0f} %"]
    cells.append(f"{row.return_mean:.1f} {_interval(row.return_ci95)}")
    if scores:
        cells.append("-" if row.score_mean is None else f"{row.score_mean:.1f} {_interval(row.score_ci95)}")
    told = row.outcomes or {}
    bounds = row.outcome_intervals or {}
    cells += [show_estimate(told[name], bounds.get(name)) if name in told else "-" for name in outcomes]
    return [*cells, str(row.num_episodes), f"{row.ms_per_action:.2f}"]


def _point(position: Sequence[float]) -> str:
    return ",".join(f"{coordinate:g}" for coordinate in position)


def _interval(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"[{bounds[0]:.1f}, {bounds[1]:.1f}]"


def _markdown(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
