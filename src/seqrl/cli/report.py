"""`seqrl report`: a run or a sweep as one page."""

from __future__ import annotations

import argparse

from seqrl.cli.telling import tell_errors
from seqrl.console import say
from seqrl.paths import find_path


@tell_errors()
def run(arguments: list[str]) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "seqrl report",
        description="Write one HTML file that tells what a run or a sweep was trained on, learnt and did: curves, "
        "results with intervals, pictures, films, and plans to step through where they were kept (trajectories=true "
        "plans=true). It needs no network and can be sent to others.",
    )
    parser.add_argument("folder", type=find_path, metavar="RUN_OR_SWEEP")
    parser.add_argument("--output", type=find_path, metavar="FILE", help="instead of report.html in the folder")
    options = parser.parse_args(arguments)
    from seqrl.reports.page import write_report

    say(f"written: {write_report(options.folder, options.output)}")
