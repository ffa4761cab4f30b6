"""Runs: what one is called, and the folder that it lives in."""
