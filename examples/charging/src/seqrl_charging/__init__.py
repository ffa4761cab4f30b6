"""Importing this package registers its environment, its data and its planner."""

from seqrl_charging import home, recordings, rule

__all__ = ["home", "recordings", "rule"]
