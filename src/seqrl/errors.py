"""What can go wrong, as seen by a user.

SeqrlError
├── ConfigError               a setting that is unknown, missing or contradictory
│   └── UnknownComponentError a name that no registry holds
├── PluginError               a plugin that cannot be imported or that takes a name already in use
├── DataError                 episodes that cannot be read or used
├── CheckpointError           a checkpoint that cannot be loaded or does not fit
├── DivergedError             a loss or gradient that is not finite
├── UnfinishedError           a training that ended before its last step
└── PrunedError               a training that a search gave up

Every message says in one sentence what was given, what is allowed and what to do. The command line prints the
message alone and exits with status 2; a traceback means a fault of ours.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Callable, Iterable, Mapping

# What the system says of a name that stands for no file: a folder, a pipe, a circle of links, or nothing at all.
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP)

OWN_FILE = "a component of a file of your own needs plugins=[FILE]"
"""Said of an unknown name that is not close to a known one."""


class SeqrlError(Exception):
    """Root of all errors that a user can cause and mend."""


class ConfigError(SeqrlError):
    """A setting is unknown, missing or contradictory."""


class UnknownComponentError(ConfigError):
    """A slot was filled with a name that nothing registered."""


class PluginError(SeqrlError):
    """A plugin cannot be imported, or claims a name that is taken."""


class DataError(SeqrlError):
    """Episodes cannot be read, or their content cannot be used."""


class CheckpointError(SeqrlError):
    """A checkpoint cannot be loaded, or does not fit what it is used for."""


class DivergedError(SeqrlError):
    """A loss or a gradient is not finite; `last.ckpt` is of a step before."""


class UnfinishedError(SeqrlError):
    """An option of the trainer or a callback ended a training before its last step; the same command goes on."""


class PrunedError(SeqrlError):
    """A search gave a training up, because others did better after as many steps."""


class Stopped(KeyboardInterrupt):
    """A signal stopped the training after a whole step, which last.ckpt holds; the same command continues the run.

    Attributes:
        number: of the signal: SIGINT for Ctrl-C; SIGTERM, SIGUSR1 or SIGUSR2 from a cluster.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.number = number


def sentence(error: Exception) -> str:
    """What a command prints of an error that a user can mend; an OSError says where, as a full disk does."""
    if isinstance(error, OSError):
        where = f" at {error.filename!r}" if error.filename else ""
        error = SeqrlError(f"{error.strerror or error}{where}; mend that, then the same command continues the run")
    # Names and messages of others stand in it: what they break into lines is seen to belong to the first one.
    return re.sub(r"\n(?=\S)", "\n  ", f"{type(error).__name__}: {error}")


def show_value(value: object) -> str:
    """A setting's value as yaml has it, and as a user may type it: null, true, [1, 2]; texts in quotes.

    Long ones are cut.
    """
    text = write_flow(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def write_flow(value: object, write_text: Callable[[object], str] = repr) -> str:
    """A value as yaml has it on one line; `write_text` writes texts and numbers."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {write_flow(each, write_text)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(write_flow(each, write_text) for each in value) + "]"
    return write_text(value)


_LONGEST = 100  # characters of a value that a message repeats


def is_shortage(error: BaseException) -> bool:
    """Whether an error, of Python or of torch, says that the machine has not the memory that was asked for."""
    text = str(error)
    return isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text


def is_damage(error: BaseException) -> bool:
    """Whether an error of reading a file proves that there lies something else than was written, or nothing.

    It does not where the content was not given: rights, a disk or a network that fails, too many open files, a lack of
    memory, a library that is missing. Nobody may be told then to remove the file, which may be whole.
    """
    if isinstance(error, OSError) and error.errno not in _NO_FILE:
        return False
    if isinstance(error, MemoryError | ImportError) or (isinstance(error, RuntimeError) and is_shortage(error)):
        return False
    reason = error.__cause__ or (None if error.__suppress_context__ else error.__context__)  # zipfile's hide theirs
    return reason is None or is_damage(reason)


def explain_unread(path: object, error: Exception) -> str:
    """What to say of a file whose content was not given, so that it may be whole; see `is_damage`."""
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return (
        f"{str(path)!r} cannot be read ({reason}), which says nothing against what it holds; keep it, mend "
        "that, and run the same command again"
    )


def explain_shortage(error: Exception) -> SeqrlError | None:
    """The error of a user whose machine has not the memory that was asked for; None of any other error."""
    if not is_shortage(error):
        return None
    found = re.search(r"(?:allocate|Tried to allocate) ([0-9.]+ \w+)", str(error))
    amount = f" ({found[1]} more)" if found else ""
    return SeqrlError(f"this machine has not the memory that was asked for{amount}; give smaller sizes or batches")


def drop_own_file(text: str) -> str:
    """What was said of an unknown name without the line of `OWN_FILE`, where it is known which plugin is meant."""
    return text.replace(f"\n  {OWN_FILE}", "")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`" Did you mean 'uniform'?"` (leading space) where a known name is close to `given`, else an empty string."""
    matches = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f" Did you mean {matches[0]!r}?" if matches else ""
