"""What `seqrl data inspect` prints."""

from __future__ import annotations

from collections.abc import Sequence

from seqrl.console import can_show, print_table, say
from seqrl.formats.columns import Column
from seqrl.formats.inspection import Inspection


def print_inspection(report: Inspection) -> None:
    """Print counts, lengths, returns, a table of all columns, and what is odd."""
    names = [report.source, *([f"env_id {report.env_id}"] if report.env_id else []), f"layout {report.layout}"]
    say(", ".join(names))
    say(
        f"{report.transitions} transitions in {report.episodes} episodes: {report.terminated} terminated, "
        f"{report.truncated} truncated, {report.cut} cut by the recording"
    )
    for label, summary, histogram in (
        ("lengths", report.lengths, report.length_histogram),
        ("returns", report.returns, report.return_histogram),
    ):
        if summary:
            numbers = ", ".join(f"{key} {value:.5g}" for key, value in summary.items())
            say(f"{label}: {numbers}  {_bars(histogram[1])}")
    header = ["", "min", "1 %", "median", "99 %", "max", "mean", "std", "values", "most common", "NaN", "inf"]
    print_table(header, [[each.name, *_cells(each)] for each in (*report.columns, *report.extras)])
    for remark in report.remarks:
        say(f"note: {remark}")
    for warning in report.warnings:
        say(f"look at: {warning}")
    if not report.warnings:
        say("nothing odd was found")


def _cells(column: Column) -> list[str]:
    percentiles = column.percentiles or (None, None, None)
    values = (column.minimum, *percentiles, column.maximum, column.mean, column.std)
    numbers = ["-" if value is None else f"{value:.4g}" for value in values]
    ties = [str(column.distinct), f"{100 * column.most_common:.1f} %"]
    return [*numbers, *ties, str(column.nan or ""), str(column.infinite or "")]


def _bars(counts: Sequence[int]) -> str:
    """A histogram in one line of text; a bin with anything in it is never blank."""
    top = max(counts, default=0)
    levels = "▁▂▃▄▅▆▇█" if can_show("▁▂▃▄▅▆▇█") else ".:-=+*#@"
    return "".join(" " if count == 0 else levels[min(7, 8 * count // top)] for count in counts)
