"""Whether a machine did something else while it was measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TOLERATED = 0.1  # of a machine's cores: what an idle system does by itself is far less
_LOOK_SECONDS = 0.25
_BUSY = (0, 1, 2, 5, 6, 7)  # columns of `/proc/stat`: user, nice, system, irq, softirq, and what a hypervisor took


@dataclass(frozen=True)
class CoreSeconds:
    """What cores have done so far.

    Attributes:
        clock: seconds of a clock.
        busy: seconds of all cores together, whoever used them.
        own: seconds of this process, and of children of it that have ended.
        cores: of the machine.
    """

    clock: float
    busy: float
    own: float
    cores: int

    @staticmethod
    def now(stat: Path = Path("/proc/stat")) -> CoreSeconds | None:
        """As the operating system counts them; None where it does not tell (`/proc`, Linux)."""
        try:
            lines = stat.read_text(encoding="utf-8").splitlines()
        except OSError:
            return None
        ticks = [int(each) for each in lines[0].split()[1:]]
        cores = sum(line.startswith("cpu") for line in lines) - 1
        busy = sum(ticks[column] for column in _BUSY) / os.sysconf("SC_CLK_TCK")
        return CoreSeconds(time.monotonic(), busy, sum(os.times()[:4]), cores)

    def others_until(self, later: CoreSeconds) -> float:
        """How many cores other processes kept busy on average until then."""
        seconds = max(later.clock - self.clock, 1e-9)
        return max(0.0, (later.busy - self.busy) - (later.own - self.own)) / seconds


class IdleWatch:
    """Looks at a machine before a measurement, and tells afterwards what else it did meanwhile.

    Args:
        tell: is given a warning, in a sentence, where the machine is not idle.
        read: see `CoreSeconds.now`.
    """

    def __init__(self, tell: Callable[[str], None], read: Callable[[], CoreSeconds | None] = CoreSeconds.now) -> None:
        self._tell, self._read = tell, read
        before = read()
        if before is not None:
            time.sleep(_LOOK_SECONDS)
        self._since = read()
        if before is not None and self._since is not None:
            self._judge(
                before, self._since, "keep", "let nothing else run, or times and even ratios are not to be quoted"
            )

    def end(self) -> float | None:
        """How many cores others kept busy since the watch began, with a warning; None where nobody tells."""
        now = self._read()
        if self._since is None or now is None:
            return None
        return self._judge(self._since, now, "kept", "these are not the times of an idle machine, nor its ratios")

    def _judge(self, before: CoreSeconds, now: CoreSeconds, verb: str, advice: str) -> float:
        others = before.others_until(now)
        if others > _TOLERATED * now.cores:
            self._tell(f"warning: other processes {verb} {others:.1f} of {now.cores} cores busy; {advice}")
        return others
