"""What a command prints, kept in the run's folder as well."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO

from seqrl.console import printable
from seqrl.errors import sentence
from seqrl.files import refuse_links

CONSOLE_LOG = "console.log"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


@contextmanager
def keep_console(folder: Path) -> Iterator[None]:
    """Append what is printed meanwhile, and the error that ends it, to `console.log`: whole lines without colours.

    A folder that goes away, or a disk that is full, ends the log and not the run.
    """
    with ExitStack() as stack:
        try:
            log = stack.enter_context(
                open(folder / CONSOLE_LOG, "a", buffering=1, encoding="utf-8", opener=refuse_links)
            )
        except OSError:
            yield
            return
        out, err = _Copied(sys.stdout, log), _Copied(sys.stderr, log)
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        try:
            yield
        except Exception as error:
            err.keep(sentence(error))  # it is printed when the folder is closed
            raise
        finally:
            out.end_line()
            err.end_line()


class _Copied:
    """A stream whose lines go into a log too; it is a terminal if the stream is one."""

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        self._stream, self._log, self._line = stream, log, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        count = self._stream.write(text)
        *whole, self._line = (self._line + text).split("\n")
        for line in whole:
            self.keep(line)
        if len(self._line) > 10_000:  # a progress bar that draws over itself
            self._line = self._line.rpartition("\r")[2][-10_000:]
        return count

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def end_line(self) -> None:
        if self._line:
            self.keep(self._line)
            self._line = ""

    def keep(self, line: str) -> None:
        shown = printable(_ESCAPES.sub("", line).rstrip().rpartition("\r")[2])
        with suppress(OSError):
            self._log.write(f"{shown}\n")
