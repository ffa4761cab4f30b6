"""Cells of a table in the width that there is: lines are broken between words, then at signs, inside a word at last."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_WORDS = re.compile(r"\S+\s*|\s+")
_PIECES = re.compile(r"[^\s,;:+/_=.\-]*[\s,;:+/_=.\-]+|[^\s,;:+/_=.\-]+")  # words up to and with a sign
_LEVELS = (_WORDS, _PIECES)
_NARROWEST = 8  # columns of one that is broken inside words

Measure = Callable[[str], int]
"""Columns of the terminal that a text takes."""


def fit_columns(
    columns: Sequence[Sequence[str]], fixed: Sequence[bool], room: int, measure: Measure
) -> list[int] | None:
    """The width of each column, so that all of them fit.

    The widest columns give way first, none of them further than its longest word while that is enough, then than its
    longest piece of a word between signs (`four_rooms_`, `score+`), then as far as it takes.

    Args:
        columns: cells of each column, its header among them.
        fixed: which of them are not to be broken.
        room: terminal columns for all of them.

    Returns:
        None where the fixed ones leave no room.
    """
    natural = [max(map(measure, cells), default=0) for cells in columns]
    for pattern in (*_LEVELS, None):
        floors = [
            width if keeps else min(width, _find_floor(cells, pattern, measure))
            for cells, keeps, width in zip(columns, fixed, natural, strict=True)
        ]
        if sum(floors) <= room:
            return _shrink(natural, floors, room)
    return None


def _find_floor(cells: Sequence[str], pattern: re.Pattern[str] | None, measure: Measure) -> int:
    if pattern is None:
        return min(_NARROWEST, _find_floor(cells, _PIECES, measure))
    return max((measure(piece.rstrip()) for cell in cells for piece in pattern.findall(cell)), default=0)


def _shrink(widths: Sequence[int], floors: Sequence[int], room: int) -> list[int]:
    widths = list(widths)
    while sum(widths) > room:
        widest = max((width, place) for place, width in enumerate(widths) if width > floors[place])[1]
        widths[widest] -= 1
    return widths


def wrap_cell(text: str, width: int, measure: Measure) -> str:
    """The text with line breaks, so that no line is wider than `width`."""
    return "\n".join(_wrap(text, width, measure, _LEVELS))


def _wrap(text: str, width: int, measure: Measure, levels: Sequence[re.Pattern[str]]) -> list[str]:
    pieces = levels[0].findall(text) if levels else list(text)
    lines = [""]
    for piece in pieces:
        if measure((lines[-1] + piece).rstrip()) <= width:
            lines[-1] += piece
        elif measure(piece.rstrip()) <= width or not levels:
            lines.append(piece)
        else:
            first, *rest = _wrap(piece, width, measure, levels[1:])
            lines += [first, *rest]
    kept = [line.rstrip() for line in lines if line.strip()]
    return kept or [""]
