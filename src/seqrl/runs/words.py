"""The words of a command as they were typed: the command line writes short forms out before anybody keeps them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_DECODING = re.compile(r"^evaluation\.(decoding\.|(?=strategy=))")
_ROW = re.compile(r"^evaluation\.rows=\{((?:[^\\:]|\\.)*): (null|\{.*\})\}$", re.DOTALL)  # of an odd name
_PARTS = "data.parts="


def show_word(word: str) -> str:
    """A word as one types it: `planner.beam_width=8` for `++evaluation.decoding.planner.beam_width=8`."""
    if word.startswith("~") and "." not in word:
        return f"{word[1:]}=null" if "=" not in word else word
    plain = word.removeprefix("++")
    if word.startswith("++") and (row := _ROW.match(plain)):
        name = re.sub(r"\\(.)", r"\1", row[1])
        return f"~evaluation.rows.{name}" if row[2] == "null" else f"evaluation.rows.{name}={row[2]}"
    return _DECODING.sub("", plain)


def show_words(words: Sequence[str]) -> list[str]:
    """All words of a command as one types them; `data=mix data.parts=[a,b]` is `data.mix=[a,b]`."""
    kept = list(words)
    for place in range(len(kept) - 1):
        if kept[place] == "data=mix" and kept[place + 1].startswith(_PARTS):
            mixed = f"data.mix={kept[place + 1].removeprefix(_PARTS)}"
            return [*map(show_word, kept[:place]), mixed, *map(show_word, kept[place + 2 :])]
    return list(map(show_word, kept))
