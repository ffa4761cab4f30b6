"""How commands end: an error that a user can mend is told in one sentence on stderr, never by a traceback."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from typing import ParamSpec

from seqrl.console import say_error
from seqrl.errors import SeqrlError, Stopped, explain_shortage, sentence

P = ParamSpec("P")


def tell_errors(interrupted: str = "nothing was written") -> Callable[[Callable[P, int | None]], Callable[P, int]]:
    """Make a command return its exit status whatever happens, but for faults of ours.

    The status is what the command returns (0 for None), 2 for an error of the user, and that of `status_of` for Ctrl-C.

    Args:
        interrupted: what Ctrl-C means for what the command was doing.
    """

    def decorate(command: Callable[P, int | None]) -> Callable[P, int]:
        @functools.wraps(command)
        def run(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                return command(*args, **kwargs) or 0
            except KeyboardInterrupt as stop:
                say_error(f"interrupted; {interrupted}")
                return status_of(stop)
            except BrokenPipeError:
                raise  # nobody reads any more; `seqrl.cli.main` ends quietly
            except (SeqrlError, OSError) as error:
                say_error(sentence(error))
            except (MemoryError, RuntimeError) as error:
                shortage = explain_shortage(error)
                if shortage is None:
                    raise
                say_error(sentence(shortage))
            return 2

        return run

    return decorate


def status_of(stop: KeyboardInterrupt) -> int:
    """The exit status of a command that a signal ended: 130 for Ctrl-C."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)
