"""Worlds of our own: maze2d and four rooms, each with physics, recording and environment.

`maze` is the map of both. Maze2d is `point_mass`, `controller` and `maze2d_environment`; `regions` cuts its recordings
apart. `four_rooms` holds its physics and its recording, `four_rooms_environment` its environment. `recording` keeps
what was recorded once, `environments` knows the Gymnasium ids.
"""
