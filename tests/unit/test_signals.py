"""Signals have one owner at a time, and go back to whoever had them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from seqrl.signals import STOPPING, Handlers, give_back, own_signals, restored_signals, take_signals


@pytest.fixture
def asked() -> Iterator[list[tuple[str, int]]]:
    """Who was asked for what; `outer` owns the signals when a test begins."""
    found: list[tuple[str, int]] = []
    before = {number: signal.signal(number, lambda n, frame: found.append(("outer", n))) for number in STOPPING}
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in STOPPING]


def test_the_innermost_owner_alone_is_asked(asked: list[tuple[str, int]]) -> None:
    before = handlers()
    with own_signals(lambda number: asked.append(("middle", number))) as former:
        assert list(former.values()) == before
        with own_signals(lambda number: asked.append(("inner", number)), [signal.SIGUSR1]):
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR1)
        give_back(signal.SIGINT, former)  # a second Ctrl-C is its former owner's
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGUSR1)
    assert handlers() == before
    who = [("inner", signal.SIGUSR1), ("middle", signal.SIGTERM), ("middle", signal.SIGUSR1)]
    assert asked == [*who, ("outer", signal.SIGINT), ("outer", signal.SIGUSR1)]


def test_what_a_library_takes_meanwhile_is_taken_over_and_given_back(asked: list[tuple[str, int]]) -> None:
    """As Lightning does between the set-up and the first step of a training."""
    before = handlers()
    with restored_signals() as former:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
        take_signals(lambda number: asked.append(("ours", number)), former)
        signal.raise_signal(signal.SIGTERM)
    assert handlers() == before
    assert asked == [("ours", signal.SIGTERM)]


def test_an_owner_that_raises_gives_everything_back(asked: list[tuple[str, int]]) -> None:
    before = handlers()

    def stop(number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), own_signals(stop):
        signal.raise_signal(signal.SIGUSR2)
    assert handlers() == before
    assert asked == []


@pytest.mark.parametrize("own", [lambda: own_signals(lambda number: None), restored_signals])
def test_another_thread_owns_nothing(asked: list[tuple[str, int]], own: object) -> None:
    before, seen = handlers(), []

    def work() -> None:
        context: AbstractContextManager[Handlers] = own()  # type: ignore[operator]
        with context as former:
            seen.append((dict(former), handlers()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [({}, before)]


def test_a_handler_that_is_not_python_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(signal, "getsignal", lambda number: None)
            with own_signals(lambda number: None, [signal.SIGUSR1]) as former:
                assert former == {signal.SIGUSR1: None}
    finally:
        signal.signal(signal.SIGUSR1, before)
