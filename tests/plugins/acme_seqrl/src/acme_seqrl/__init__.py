"""Importing this package registers its components."""

from acme_seqrl import log_bins, parallel, shooting

__all__ = ["log_bins", "parallel", "shooting"]
