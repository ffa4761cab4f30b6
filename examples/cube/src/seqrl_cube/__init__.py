"""Importing this package registers its data, and through `ogbench` the environments."""

from seqrl_cube import recordings

__all__ = ["recordings"]
