"""What a component raises in its contracts, told for its author: the error once, and the author's own line."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from seqrl import plugins
from seqrl.errors import SeqrlError
from seqrl.testing.contract import ContractViolation

# What a contract's own ways may cause: it computes in float64, on the CPU, and without files.
_OUTSIDE = (ImportError, OSError, MemoryError)
_DEVICE = re.compile(r"\b(cuda|gpu|triton|double|float64|dtype|scalar type)\b|out of memory", re.IGNORECASE)
# What code raises that is given other numbers of an observation or of an action than it was written for.
_SIZED = (IndexError, RuntimeError, ValueError, AssertionError)
# Slots that meet neither the sizes of an environment nor the length of a training.
_OWN_SIZES = ("backbone", "objective", "optimizer")


@dataclass(frozen=True)
class Failure:
    """A contract that ended in an exception.

    Attributes:
        contract: its name in words.
        error: what was raised.
        line: the innermost line of the component's own code, `mine.py:31`; None where it was not reached.
    """

    contract: str
    error: Exception
    line: str | None

    @classmethod
    def of(cls, contract: str, error: Exception, component: type) -> Failure:
        return cls(contract, error, find_line(error, component))

    def explain(self) -> str:
        """`KeyError: 'cost'; mine.py:31`."""
        return explain(self.error, self.line)

    def is_own(self, slot: str) -> bool:
        """Whether the component's own code is at fault, and not what the contract gave it or where it ran."""
        if self.line is None or isinstance(self.error, _OUTSIDE) or _DEVICE.search(str(self.error)):
            return False
        sized = isinstance(self.error, _SIZED) and not isinstance(self.error, NotImplementedError)
        return slot in _OWN_SIZES or not sized


@dataclass(frozen=True)
class Outcome:
    """What came of a contract.

    Attributes:
        contract: its name in words.
        violation: a sentence, or None where it is kept.
        error: the exception that the violation is about, if it is about one.
    """

    contract: str
    violation: str | None = None
    error: BaseException | None = None


def explain(error: BaseException, line: str | None) -> str:
    """An error in one line of text, with the line of code where it is known."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{reason}; {line}" if line else reason


def tell_violation(violation: ContractViolation, component: type) -> str:
    """What a violation says, with the line of the component's code that raised what it is about."""
    cause = violation.__cause__
    line = None if cause is None or isinstance(cause, SeqrlError) else find_line(cause, component)
    return f"{violation} ({line})" if line else str(violation)


def find_line(error: BaseException, component: type) -> str | None:
    """The innermost line of an error in a component's file, or in one that lies beside it: `mine.py:31`."""
    module = sys.modules.get(component.__module__)
    own = getattr(module, "__file__", None)
    top = sys.modules.get(component.__module__.partition(".")[0])
    folders = [] if own is None or plugins.origin(component) == "seqrl" else list(getattr(top, "__path__", []))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith("<frozen"):
            continue
        path = Path(frame.filename)
        inside = any(path.is_relative_to(folder) for folder in folders)
        if frame.filename == own or inside or not plugins.is_installed(path.resolve()):
            return f"{path.name}:{frame.lineno}"
    return None


def gather(told: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """(name, text) pairs as the names of each text, in the order in which texts appear."""
    found: dict[str, list[str]] = {}
    for name, text in told:
        found.setdefault(text, []).append(name)
    return found
