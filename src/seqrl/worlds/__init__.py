"""Worlds of our own: mazes of a point mass, and four rooms; physics, recording and environment of each."""
