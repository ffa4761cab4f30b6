"""What a run tells the person who started it."""

from __future__ import annotations


def say(text: str) -> None:
    """Print one line at once, so that it stands in its place among progress bars and logs."""
    print(text, flush=True)
