"""The slot `wrapper`: what stands around an environment, named behind its id (`Pendulum-v1?wrapper=time_left`).

Components are subclasses of `gymnasium.Wrapper` whose constructors take the environment, and need nothing else. Data
and checkpoints name environments, so that only what was registered can be named.
"""

from __future__ import annotations
