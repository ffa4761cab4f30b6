"""The table of `seqrl results`: in the terminal, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqrl.errors import ConfigError, did_you_mean, show_value
from seqrl.evaluation.results import ESTIMATES, SEED, Result, find_varying, list_numbers
from seqrl.evaluation.rows import ENDS
from seqrl.evaluation.telling_apart import describe_decoding
from seqrl.evaluation.wording import shorten_data_name

SUFFIXES = {".csv": "csv", ".md": "markdown", ".tex": "latex"}
_MOST = 6  # settings in a table that nobody chose columns of
_TITLES = {"success": "success %", "clear": "clear %", "ms_per_action": "ms/action", "entered": "entered %"}
_TITLES |= {"time_at_goal": "at goal"}
_LATEX = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {letter: f"\\{letter}" for letter in "&%$#_"} | {"<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}"}


@dataclass(frozen=True)
class Table:
    """The cells of a table.

    Attributes:
        header, body: texts.
        words: how many columns, from the left, hold words.
        settings: keys of the columns of settings.
        notes: what must be said below it.
    """

    header: list[str]
    body: list[list[str]]
    words: int
    settings: list[str]
    notes: list[str]


def lay_out(results: Sequence[Result], columns: str | None = None) -> Table:
    """Put results into cells: what tells them apart, the strategy, the seeds, then the numbers that were measured.

    Args:
        columns: settings to show, separated by commas; None: those that differ.

    Raises:
        ConfigError: a column that no result has.
    """
    varying = find_varying(results)
    shown, notes = varying[:_MOST], []
    if columns is not None:
        shown = [key.strip() for key in columns.split(",") if key.strip()]
        _check_columns(shown, results)
    elif varying[_MOST:]:
        notes.append(f"not shown, and different as well: {', '.join(varying[_MOST:])}; choose with --columns")
    measured = [name for name in ESTIMATES if any(name in result.estimates for result in results)]
    listed = [name for name in list_numbers(results) if name != "length"]
    numbers = [name for name in listed if any(result.numbers.get(name) is not None for result in results)]
    header = ["strategy", "planner", *_short_names(shown), "seeds", *(_TITLES.get(name, name) for name in measured)]
    header += ["n", *(_TITLES.get(name, name) for name in numbers)]
    body = [
        [
            result.row.strategy,
            decoding,
            *(_show(key, result.settings.get(key)) if key in result.settings else "" for key in shown),
            ", ".join(map(str, result.seeds)),
            *(_cell(result, name) for name in measured),
            str(sum(entry.row.num_episodes for entry in result.entries)),
            *(_number(name, result.numbers.get(name)) for name in numbers),
        ]
        for result, decoding in zip(results, describe_decoding([each.row for each in results]), strict=True)
    ]
    counts = {len(result.entries) for result in results}
    if 2 in counts:
        notes.append("with fewer than 3 training seeds an interval is hardly one over seeds")
    return Table(header, body, len(shown) + 3, shown, notes)


def tell_results(results: Sequence[Result], evaluations: int) -> str:
    """The title of a table: how much stands in it, and what its intervals are."""
    runs = {entry.run for result in results for entry in result.entries}
    several = any(len(result.entries) > 1 for result in results)
    over = "over training seeds and starts" if several else "over starts"
    amounts = [(evaluations, "evaluation"), (len(runs), "run"), (len(results), "row")]
    told, of, shown = (f"{count} {noun}{'s' * (count != 1)}" for count, noun in amounts)
    return f"{told}, {of} in {shown}; 95 % intervals {over}"


def is_written(path: Path) -> str:
    """The format in which a file is written, by its name.

    Raises:
        ConfigError: the name says none.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"--output {str(path)!r} is of no known form; give a name that ends in .csv, .md or .tex")
    return SUFFIXES[path.suffix]


def format_results(results: Sequence[Result], table: Table, form: str) -> str:
    """The text of a table: `csv` (numbers as they are, with the folders), `markdown` or `latex`."""
    return {"csv": _csv, "markdown": _markdown, "latex": _latex}[form](results, table)


def _csv(results: Sequence[Result], table: Table) -> str:
    measured = [name for name in ESTIMATES if any(name in result.estimates for result in results)]
    header = ["strategy", "planner", *table.settings, "seeds"]
    header += [column for name in measured for column in (name, *(f"{name}_ci95_{end}" for end in ENDS))]
    numbers = list_numbers(results)
    header += [*numbers, "episodes", "runs", "evaluations"]
    rows = []
    for result, cells in zip(results, table.body, strict=True):
        row: list[Any] = cells[: table.words]
        for place, key in enumerate(table.settings, 2):  # words for readers may be shorter
            row[place] = _text(result.settings[key]) if key in result.settings else ""
        for name in measured:
            found = result.estimates.get(name)
            row += ["", "", ""] if found is None else [f"{found.mean:.8g}", *_bounds(found.interval)]
        row += ["" if (value := result.numbers.get(name)) is None else f"{value:.8g}" for name in numbers]
        row.append(sum(entry.row.num_episodes for entry in result.entries))
        row += [";".join(str(entry.run) for entry in result.entries)]
        row += [";".join(str(entry.evaluation.folder) for entry in result.entries)]
        rows.append(row)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def _bounds(interval: Sequence[float] | None) -> list[str]:
    return ["", ""] if interval is None else [f"{bound:.8g}" for bound in interval]


def _markdown(results: Sequence[Result], table: Table) -> str:
    lines = [table.header, ["---"] * len(table.header), *table.body]
    escaped = [[re.sub(r"\s*\n\s*", " ", cell).replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def _latex(results: Sequence[Result], table: Table) -> str:
    """A `tabular` with the rules of booktabs."""
    alignment = "l" * table.words + "r" * (len(table.header) - table.words)
    lines = ["% \\usepackage{booktabs}", f"\\begin{{tabular}}{{{alignment}}}", "\\toprule"]
    lines += [_latex_line(table.header), "\\midrule", *map(_latex_line, table.body), "\\bottomrule", "\\end{tabular}"]
    return "\n".join(lines) + "\n"


def _latex_line(cells: Sequence[str]) -> str:
    return (
        " & ".join("".join(_LATEX.get(letter, letter) for letter in " ".join(cell.split())) for cell in cells) + r" \\"
    )


def _short_names(keys: Sequence[str]) -> list[str]:
    """The last words of keys, where no other key ends in the same."""
    last = [key.rpartition(".")[2] for key in keys]
    return [word if last.count(word) == 1 else key for key, word in zip(keys, last, strict=True)]


def _check_columns(keys: Sequence[str], results: Sequence[Result]) -> None:
    known = {SEED, *(key for result in results for key in result.settings)}
    numbers = {*ESTIMATES, *list_numbers(results)}
    for key in keys:
        if key not in known and key in numbers:
            raise ConfigError(
                f"--columns names {key!r}, a number, and chooses among settings; leave it out: every number that was "
                "measured has its column"
            )
        if key not in known:
            raise ConfigError(f"--columns names {key!r}, which no result has.{did_you_mean(key, known)}")


def _cell(result: Result, name: str) -> str:
    found = result.estimates.get(name)
    if found is None:
        return "-"
    interval = "" if found.interval is None else " [{:.1f}, {:.1f}]".format(*found.interval)
    return f"{found.mean:.1f}{interval}"


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name == "time_at_goal":
        return f"{100 * value:.0f} %"
    forms = {"ms_per_action": ".2f", "steps": ".0f", "entered": ".0f"}
    return f"{value:{forms.get(name, '.4g')}}"


def _show(key: str, value: Any) -> str:
    return shorten_data_name(str(value)) if key == "dataset" else _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else show_value(value)
