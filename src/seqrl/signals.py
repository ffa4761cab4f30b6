"""Who answers the signals that end work: one owner at a time, and whoever had them before has them afterwards.

While a stage trains, that is `seqrl.training.callbacks.StopAtInterrupt`, which ends it after a whole step; while ranks
are waited for, `seqrl.training.launch`, which passes signals on to them; while a command does anything else,
`seqrl.cli.cluster`, which lets the work unwind. Around them lies the owner that started the process, such as submitit.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # SLURM sends USR1; submitit asks for USR2

Handlers = Mapping[signal.Signals, Any]
"""Who answers which signal; None stands for something that is not Python."""


@contextmanager
def own_signals(answer: Callable[[int], None], numbers: Sequence[signal.Signals] = STOPPING) -> Iterator[Handlers]:
    """Answer signals while the block runs.

    Only the main thread can: in another one nothing is changed.

    Yields:
        The former owners, empty in another thread.
    """
    with restored_signals(numbers) as former:
        take_signals(answer, former)
        yield former


@contextmanager
def restored_signals(numbers: Sequence[signal.Signals] = STOPPING) -> Iterator[Handlers]:
    """Give signals back when the block ends, whoever took them in it; otherwise as `own_signals`."""
    former = {}
    with ExitStack() as stack:  # which goes on where a signal that comes meanwhile raises
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                former[number] = signal.getsignal(number)
                stack.callback(give_back, number, former)
        yield former


def take_signals(answer: Callable[[int], None], former: Handlers) -> None:
    """Answer the signals of `former` from now on, until somebody else takes or gets them."""
    for number in former:
        signal.signal(number, lambda number, frame: answer(number))


def give_back(number: int, former: Handlers) -> None:
    """Let the former owner answer one signal again."""
    handler = former.get(signal.Signals(number))
    if handler is not None:  # else Python cannot install it
        signal.signal(number, handler)
