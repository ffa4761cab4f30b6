"""Commands end in a sentence and an exit status."""

from __future__ import annotations

import signal

import pytest

from seqrl.cli.telling import tell_errors
from seqrl.errors import CheckpointError, DataError, Stopped


def end(fault: BaseException | None = None, status: int | None = None) -> int:
    @tell_errors("the same command goes on")
    def run() -> int | None:
        if fault is not None:
            raise fault
        return status

    return run()


@pytest.mark.parametrize(("status", "expected"), [(None, 0), (0, 0), (1, 1)])
def test_a_command_that_ends_by_itself_says_how(status: int | None, expected: int) -> None:
    assert end(status=status) == expected


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (DataError("no episodes; give some"), "DataError: no episodes; give some\n"),
        (CheckpointError("none"), "CheckpointError: none\n"),
        (OSError(28, "No space left on device", "/full"), "SeqrlError: No space left on device at '/full'; mend that"),
        (MemoryError(), "SeqrlError: this machine has not the memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "(2.00 GiB more)"),
    ],
)
def test_what_a_user_can_mend_is_a_sentence(fault: Exception, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert end(fault) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


@pytest.mark.parametrize(
    ("fault", "status"),
    [(KeyboardInterrupt(), 130), (Stopped(signal.SIGTERM), 143), (Stopped(signal.SIGUSR1), 128 + signal.SIGUSR1)],
)
def test_signals_have_a_status_of_their_own(
    fault: KeyboardInterrupt, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end(fault) == status
    assert capsys.readouterr().err == "interrupted; the same command goes on\n"


@pytest.mark.parametrize("fault", [ValueError("ours"), RuntimeError("ours"), BrokenPipeError(), AssertionError()])
def test_faults_of_ours_and_readers_that_went_away_are_not_hidden(fault: Exception) -> None:
    with pytest.raises(type(fault)):
        end(fault)
