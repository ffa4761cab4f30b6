"""Checkpoint files: what they hold, and models made from them."""
