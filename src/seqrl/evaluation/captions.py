"""What stands beneath the frames of a video: whose episode it is, which step, and what it earned so far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HEIGHT = 32  # pixels of the strip; with a square frame of `video.SIZE`, a multiple of 16 as well
_FONT_SIZE = 12


@dataclass(frozen=True)
class Captions:
    """One caption for each frame.

    Attributes:
        strategy: label of the row that acts.
        steps: of the environment before the frame.
        returns: undiscounted sums of the rewards before the frame.
    """

    strategy: str
    steps: Sequence[int]
    returns: Sequence[float]

    @classmethod
    def of_episode(cls, strategy: str, rewards: np.ndarray, steps: Sequence[int]) -> Captions:
        """Of frames after so many steps of an episode with (T,) rewards."""
        earned = np.concatenate([[0.0], np.cumsum(rewards)])
        return cls(strategy, list(steps), [float(earned[step]) for step in steps])

    def lines(self, frame: int) -> tuple[str, str]:
        """The two lines beneath a frame."""
        return self.strategy, f"step {self.steps[frame]}   return {self.returns[frame]:.4g}"


def add_captions(frames: Iterable[np.ndarray], captions: Captions | None) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 with a strip of 32 rows beneath; as they are where there are no captions."""
    for number, frame in enumerate(frames):
        yield frame if captions is None else np.concatenate([frame, _strip(frame.shape[1], captions.lines(number))])


def _strip(width: int, lines: tuple[str, str]) -> np.ndarray:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, HEIGHT), "white")
    pen, font = ImageDraw.Draw(image), _font()
    for row, line in enumerate(lines):
        text = line
        while pen.textlength(text, font=font) > width - 8 and len(text) > 1:
            text = f"{text.removesuffix('…')[:-1]}…"
        pen.text((4, 1 + 15 * row), text, font=font, fill="black")
    return np.asarray(image)


def _font() -> Any:
    """Matplotlib's, which has the letters of many languages."""
    import matplotlib as mpl
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), _FONT_SIZE)
