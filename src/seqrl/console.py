"""The terminal: lines, tables and progress bars, all through rich.

Lines and tables go to the standard output, errors and progress bars to the standard error. Text is shown as it is:
rich reads no markup in it, and control characters, which files and servers may have put there, are spelled out.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqrl.wrapping import fit_columns, wrap_cell

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 160
"""Columns of a table that goes to a file or a pipe."""

# Control characters (C0, C1), marks that turn the direction of writing or that nobody sees, separators of lines, tags,
# and surrogates, which cannot be encoded.
_UNSEEN = (
    "\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f"
)
_UNPRINTABLE = re.compile(f"[\x00-\x08\x0b-\x1f{_UNSEEN}]")
_BEYOND_A_LINE = re.compile(f"[\x00-\x1f{_UNSEEN}]")


def open_streams() -> None:
    """Give a process its standard streams where it was started without them, and let no letter end it.

    What is written to a closed stream is lost, and lands in none of the files that are opened later. A letter that an
    encoding lacks, such as that of a locale that is no UTF-8, is shown as a question mark.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r+"))  # noqa: SIM115  (for as long as the process lives)
    for stream in (sys.stdout, sys.stderr):
        _soften(stream)


def say(text: str) -> None:
    """Print one line at once, so that it stands in its place among progress bars and logs."""
    _soften(sys.stdout)
    print(printable(text), flush=True)


def say_error(text: str) -> None:
    """Print a line to the standard error."""
    _soften(sys.stderr)
    print(printable(text), file=sys.stderr, flush=True)


def tell_import(package: str, name: str, wanted: object = True) -> None:
    """Say that a large package is imported, which takes seconds; nothing where it is there already.

    Args:
        wanted: the setting `progress_bar`, whatever stands in it.
    """
    if wanted is True and package not in sys.modules:
        say(f"loading {name}")


def is_log() -> bool:
    """Whether the standard output is no terminal, so that whoever reads it sees lines and no bars."""
    return not _is_terminal(sys.stdout)


def show_duration(seconds: float) -> str:
    """A time in words that stay short: `0:02:03`, or `2 days, 3:00:00`."""
    return str(timedelta(seconds=round(seconds)))


def can_show(text: str) -> bool:
    """Whether the standard output has all letters of a text."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeError, LookupError):
        return False
    return True


def _is_terminal(stream: Any) -> bool:
    return stream is not None and bool(stream.isatty())


def _soften(stream: Any) -> None:
    """Let a text stream replace what its encoding lacks, if it would refuse that."""
    if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def printable(text: str) -> str:
    """Text whose characters move no cursor and change no color; newlines and tabs stay."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """A name or message of a file, a server or another program: as `printable`, with newlines and tabs spelled out.

    Such text among ours can then begin no line that looks like one of ours.
    """
    return _BEYOND_A_LINE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def print_table(
    header: Sequence[str], body: Sequence[Sequence[str]], *, title: str = "", words: int = 1, wrap: bool = False
) -> None:
    """Print a table as wide as the terminal, or as `WIDTH` elsewhere.

    Args:
        words: how many columns, from the left, hold words, which are broken into lines where there is no room (see
            `seqrl.wrapping`); the others hold numbers, to the right.
        wrap: whether numbers and their headers are broken as well.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    console = open_console()
    lines = [[one_line(cell) for cell in line] for line in (header, *body)]
    fixed = [place >= words and not wrap for place in range(len(header))]
    room = console.width - 3 * len(header) - 1  # less the rules and the blanks beside them
    columns = list(zip(*lines, strict=True))
    if (widths := fit_columns(columns, fixed, room, cell_len)) is None:  # broken numbers are better than cut ones
        fixed = [False] * len(header)
        widths = fit_columns(columns, fixed, room, cell_len)
    if widths is not None:
        lines = [[wrap_cell(cell, widths[place], cell_len) for place, cell in enumerate(line)] for line in lines]
    table = Table(title=Text(one_line(title)) if title else None, title_justify="left")
    for place, name in enumerate(lines[0]):
        table.add_column(
            Text(name),
            justify="left" if place < words else "right",
            overflow="fold",
            no_wrap=fixed[place],
            min_width=None if widths is None else widths[place],
        )
    for line in lines[1:]:
        table.add_row(*map(Text, line))
    console.print(table)


def open_console(*, stderr: bool = False) -> Console:
    """rich's console on one of the two outputs, of the terminal's width, or of `WIDTH` elsewhere."""
    from rich.console import Console

    _soften(sys.stderr if stderr else sys.stdout)
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=WIDTH)


Advance = Callable[..., None]
"""`advance(amount=1, note="")` moves a bar on, and shows a note behind it."""


@contextmanager
def show_progress(
    what: str, total: float | None, *, done: int = 0, in_bytes: bool = False, stays: bool = True
) -> Iterator[Advance]:
    """Show a bar while the block runs; in files and pipes there is none.

    Args:
        total: how far it goes; None where nobody knows.
        done: where it starts.
        in_bytes: whether amounts are bytes, and their speed is shown.
        stays: whether the finished bar stays in the terminal.
    """
    from rich import progress
    from rich.table import Column
    from rich.text import Text

    class Note(progress.ProgressColumn):  # the one that gives way where the terminal is narrow
        def render(self, task: progress.Task) -> Text:
            return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")

    whole = Column(no_wrap=True)
    columns: list[progress.ProgressColumn] = [
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=20),
        (progress.DownloadColumn if in_bytes else progress.MofNCompleteColumn)(table_column=whole),
        *([progress.TransferSpeedColumn(table_column=whole)] if in_bytes else []),
        progress.TimeRemainingColumn(table_column=whole),
        Note(),
    ]
    console = open_console(stderr=True)
    with progress.Progress(
        *columns,
        console=console,
        transient=not stays,
        disable=not (console.is_terminal or console.is_jupyter),
        redirect_stdout=_is_terminal(sys.stdout),  # lines for a pipe are not to end in the terminal
    ) as bars:
        task = bars.add_task(one_line(what), total=total, completed=done, note="")

        def advance(amount: float = 1, note: str = "") -> None:
            bars.advance(task, amount)
            if note:
                bars.update(task, note=one_line(note))

        yield advance
