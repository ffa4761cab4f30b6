"""Where the cells of a table are broken."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrl.console import print_table
from seqrl.wrapping import fit_columns, wrap_cell

LETTERS = st.text("ab +,_/ ", max_size=40)


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("beam W8 H5, cache exact", 12, ["beam W8 H5,", "cache exact"]),
        ("goal_distance+likelihood+evidence", 16, ["goal_distance+", "likelihood+", "evidence"]),
        ("runs/four_rooms_detour-2b4e0280", 12, ["runs/four_", "rooms_", "detour-", "2b4e0280"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("a abcdefgh", 4, ["a", "abcd", "efgh"]),
        ("", 3, [""]),
    ],
)
def test_lines_are_broken_between_words_then_at_signs(text: str, width: int, lines: list[str]) -> None:
    assert wrap_cell(text, width, len).split("\n") == lines


@given(LETTERS, st.integers(1, 30))
def test_no_line_is_too_wide_and_no_letter_is_lost(text: str, width: int) -> None:
    wrapped = wrap_cell(text, width, len)
    assert max(map(len, wrapped.split("\n"))) <= width
    assert "".join(wrapped.split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("columns", "room", "widths"),
    [
        ([["name", "short"], ["planner", "one two three"]], 40, [5, 13]),  # all fits
        ([["name", "short"], ["planner", "one two three"]], 13, [5, 8]),  # the widest gives way
        ([["name", "a_long_name"], ["planner", "one two three four"]], 20, [11, 9]),  # and none inside a word
        ([["name", "a_long_name"], ["planner", "one two three"]], 16, [8, 8]),  # but at signs where it must
        ([["x" * 40], ["y" * 40]], 40, [20, 20]),  # or anywhere
        ([["x" * 40], *[["a b c d e f"]] * 3], 18, [8, 4, 3, 3]),  # what has short words is broken at these first
        ([["x" * 40], ["y" * 40]], 10, None),
    ],
)
def test_columns_fit(columns: list[list[str]], room: int, widths: list[int] | None) -> None:
    assert fit_columns(columns, [False] * len(columns), room, len) == widths


def test_numbers_are_not_broken() -> None:
    assert fit_columns([["a b c d e f g"], ["123456"]], [False, True], 15, len) == [9, 6]


@pytest.mark.parametrize("name", ["distance_to_the_goal+likelihood", "my_score_of_the_house", "arrival,evidence,avoid"])
def test_a_table_breaks_no_word(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    planner, numbers = "beam W128 H15 E2 T0.5, every 10, guidance 4, cache window", ["12.3 [10.0, 14.0]"] * 5
    cells = ["reward search", planner, name, "walker2d-medium-replay-v2"]
    print_table(["strategy", "planner", "score", "dataset", *"abcde"], [[*cells, *numbers]], words=4)
    shown = capsys.readouterr().out
    assert set(re.findall(r"[a-z]{2,}", " ".join(cells))) <= set(re.findall(r"[a-z]{2,}", shown))


def test_numbers_are_broken_before_they_are_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    print_table(["strategy", *"abcdefghij"], [["goal", *["12.3 [10.0, 14.0]"] * 10]])
    assert capsys.readouterr().out.count("14.0]") == 10
