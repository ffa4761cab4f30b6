"""What the terminal shows of text that others wrote, of tables and of bars."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from seqrl.console import one_line, print_table, printable, say, say_error, show_duration, show_progress
from seqrl.errors import DataError, sentence

EVIL = "[red]a[/] \x1b[2J\rb\x9b1m\u202ec\udce4 [/nothing]"
TOLD = r"[red]a[/] \x1b[2J\rb\x9b1m\u202ec\udce4 [/nothing]"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_control_characters_are_spelled_and_markup_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    say_error(EVIL)
    assert capsys.readouterr() == (f"{TOLD}\n", f"{TOLD}\n")
    print_table([EVIL, "[b]n[/b]"], [[EVIL, "1"]], title=EVIL)
    with show_progress(EVIL, 3) as advance:
        advance(note=EVIL)
    printed = "".join(capsys.readouterr())
    assert printed.count(TOLD) == 3
    assert "[b]n[/b]" in printed
    assert "\x1b" not in printed


def test_plain_text_of_any_language_stays() -> None:
    for text in ("two\nlines\tand tabs", "Größe 寸法 📈 مقاس", r"C:\new"):
        assert printable(text) == text
        assert printable(printable(EVIL)) == printable(EVIL)


def test_a_table_in_a_pipe_is_wide_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["run", "loss"], [["x" * 120, "0.123456"], ["y" * 200, "7"]])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == 160
    assert any("x" * 120 in line and "0.123456" in line for line in lines)
    assert sum(line.count("y") for line in lines) == 200  # broken, not cut


def test_bars_are_shown_in_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_terminal in (True, False):
        screen = Terminal() if is_terminal else io.StringIO()
        monkeypatch.setattr(sys, "stderr", screen)
        with show_progress("downloading [x]", 2000, done=500, in_bytes=True) as advance:
            advance(1500, "loss 0.5")
        assert ("downloading [x]" in screen.getvalue()) == is_terminal
        assert ("2.0/2.0 kB" in screen.getvalue()) == is_terminal
        assert ("loss 0.5" in screen.getvalue()) == is_terminal


def test_a_line_for_a_pipe_does_not_end_in_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, pipe = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", pipe)
    with show_progress("working", 2) as advance:
        say("a result")
        advance(2)
    assert pipe.getvalue() == "a result\n"


def test_the_import_waits_for_no_library() -> None:
    code = "import sys, seqrl.console, seqrl.files; print(sorted({'rich', 'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "evil",
    [
        "\x1b]0;title\x07",
        "\x1b[31m",
        "\x9b2J",
        "\x9d8;;x\x9c",
        "\u202egpj.exe",
        "\u2066x\u2069",
        "\u200fx",
        "\u2028x",
        "\U000e0041",
    ],
)
def test_names_of_others_move_no_cursor_and_begin_no_line(evil: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"[bold]run[/bold] {evil}\nConfigError: forged"
    print_table([name], [[name]], title=name)
    say(one_line(name))
    say_error(sentence(DataError(f"{name} is damaged")))
    out, err = capsys.readouterr()
    assert out.count("[bold]run[/bold] ") == 4
    for text in (out, err):
        assert evil not in text
        assert "\nConfigError" not in text
    assert err.startswith("DataError: [bold]run[/bold] ")
    assert "\n  ConfigError: forged is damaged\n" in err  # of a sentence of more lines the others stand to the right


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0:00:00"), (63.4, "0:01:03"), (3 * 3600, "3:00:00"), (2 * 86400 + 5, "2 days, 0:00:05")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text
