"""`seqrl results`: one table of many runs, averaged over training seeds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seqrl.cli.telling import tell_errors
from seqrl.console import one_line, print_table, say, say_error
from seqrl.errors import ConfigError
from seqrl.files import write_text
from seqrl.paths import find_path

if TYPE_CHECKING:
    from seqrl.evaluation.results import Result

FORMATS = {"csv": ".csv", "markdown": ".md", "latex": ".tex"}


@tell_errors()
def run(arguments: list[str]) -> None:
    """Run the command."""
    options = _parser().parse_intermixed_args(arguments)
    from seqrl.evaluation.results import average_seeds, collect_entries, estimate_result
    from seqrl.evaluation.results_table import format_results, is_written, lay_out, tell_results
    from seqrl.evaluation.selection import keep_where, read_condition, sort_results

    conditions = [read_condition(text) for text in options.where]
    if options.row:
        conditions += [read_condition(f"strategy={options.row}")]
    for file in options.output:
        is_written(file)
    entries = collect_entries(options.runs or [Path("runs")])
    results = [estimate_result([e]) for e in entries] if options.per_seed else average_seeds(entries)
    results = sort_results(keep_where(results, conditions), options.sort, reverse=options.reverse)
    if not results:
        raise ConfigError(f"none of {len(entries)} evaluations is left by --where; leave a condition out")
    table = lay_out(results, options.columns)
    if options.format == "table":
        print_table(table.header, table.body, title=tell_results(results, len(entries)), words=table.words)
        for note in table.notes:
            say(one_line(note))
    else:
        say(format_results(results, table, options.format).rstrip("\n"))
    for file in options.output:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, format_results(results, table, is_written(file)))
        say_error(f"written: {file}")
    if options.curves is not None:
        say_error(f"picture: {_draw_curves(options.curves, results, options.metric)}")


def _draw_curves(path: Path, results: Sequence[Result], metric: str) -> Path:
    from seqrl.cli.pictures import draw_run_curves

    runs = dict.fromkeys(entry.run for result in results for entry in result.entries)
    path.parent.mkdir(parents=True, exist_ok=True)
    return draw_run_curves(path, list(runs), metric)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "seqrl results",
        description="One table of the evaluations of many runs, averaged over training seeds.",
        epilog="Settings and numbers are named as they are typed and as results.json has them: backbone.dim, seed, "
        "planner.beam_width, strategy, return, score, success, ms_per_action. The interval of one seed is over starts, "
        "that of several over seeds and starts, as of seqrl compare.",
    )
    parser.add_argument(
        "runs",
        type=find_path,
        nargs="*",
        metavar="RUNS",
        help="folders of runs, of sweeps, of evaluations, or folders of runs; ./runs by default",
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="keep what fits; also !=, <, <=, >, >=; may be given again, and then all must fit",
    )
    parser.add_argument("--row", metavar="NAME", help="short for --where strategy=NAME")
    parser.add_argument("--sort", metavar="KEY", help="by a setting or a number, smallest first")
    parser.add_argument("--reverse", action="store_true", help="largest first")
    parser.add_argument("--per-seed", action="store_true", help="a line for each training seed, no averages")
    parser.add_argument(
        "--columns", metavar="KEY,KEY", help="settings to show, instead of those that tell the rows apart"
    )
    parser.add_argument("--format", choices=("table", *FORMATS), default="table", help="what is printed (table)")
    parser.add_argument(
        "--output",
        type=find_path,
        action="append",
        default=[],
        metavar="FILE",
        help="write the table there as well: .csv, .md or .tex; may be given again",
    )
    parser.add_argument("--curves", type=find_path, metavar="FILE", help="draw the learning curves there, as PNG")
    parser.add_argument("--metric", default="val/loss", metavar="NAME", help="what curves show (val/loss)")
    return parser
