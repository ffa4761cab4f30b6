"""Several copies of one environment, stepped together until each has ended once.

Gymnasium's own `SyncVectorEnv` does not fit an evaluation: its resets shift episodes by a step or hide their last
observation, with `AutoresetMode.DISABLED` it refuses to step while any copy has ended, and its `reset` takes one
options dictionary for all copies, so that paired starts cannot be set.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from seqrl.data.checks import is_picture
from seqrl.envs.actions import ActionBounds
from seqrl.envs.named import make_one
from seqrl.envs.registration import check_env_id
from seqrl.envs.returned import Moment, explain, read_observation, read_reset, read_step, telling
from seqrl.envs.seeding import seed_globals
from seqrl.errors import ConfigError, SeqrlError
from seqrl.formats.minari import leaves
from seqrl.formats.spaces import count_choices, first_choices, is_served
from seqrl.layout import Choices, as_counts
from seqrl.opengl import prepare_mujoco

if TYPE_CHECKING:
    import gymnasium


class Environments:
    """B environments with one episode each between two resets.

    Observations and actions are vectors of real numbers, or discrete: then they are vectors of one number for each
    choice, counted from 0 whatever the environment calls the values.

    Nothing resets by itself. An environment whose episode ended is no longer stepped: it keeps its last observation,
    earns 0 and flags its end only in the step in which it came.

    Attributes:
        env_id: Gymnasium id.
        envs: the B environments.
        active: (B,) bool, whose episode still runs; all False before the first reset.
        observation_size, action_size: O and A.
        categories: of discrete spaces, how many values there are: `{"action": 2}`, `{"action": (3, 2)}`; as in
            `seqrl.layout.Layout`.
        action_low, action_high: bounds of the actions; for discrete ones 0 and their number less 1.
        whole_actions: whether actions are whole numbers: discrete, or of a box of an integer type.
        max_episode_steps: the time limit, or None where there is none.
    """

    def __init__(self, env_id: str, envs: Sequence[gymnasium.Env[Any, Any]]) -> None:
        self.env_id = env_id
        self.envs = list(envs)
        spaces = {name: _space(envs[0], name) for name in ("observation", "action")}
        counted = {name: count_choices(space) for name, space in spaces.items()}
        self.categories: dict[str, Choices] = {name: each for name, each in counted.items() if each is not None}
        self._first = first_choices(spaces["observation"]) if "observation" in self.categories else None
        self._actions = ActionBounds(spaces["action"])
        self._steps = 0  # of the episodes that run
        self.observation_size = int(np.prod(spaces["observation"].shape))
        self.action_size = int(np.prod(spaces["action"].shape))
        self.action_low, self.action_high = self._actions.low, self._actions.high
        self.whole_actions = self._actions.whole
        spec = envs[0].spec
        self.max_episode_steps = spec.max_episode_steps if spec is not None else None
        self.active = np.zeros(len(envs), bool)
        self._observations = np.zeros((len(envs), self.observation_size), np.float32)

    def __len__(self) -> int:
        """B."""
        return len(self.envs)

    def extend_time_limit(self, steps: int) -> None:
        """Let episodes run for `steps` where the time limit of Gymnasium's wrapper would cut them earlier."""
        from gymnasium.wrappers import TimeLimit

        if self.max_episode_steps is None or self.max_episode_steps >= steps:
            return
        for env in self.envs:
            wrapper: Any = env
            while hasattr(wrapper, "env"):
                if isinstance(wrapper, TimeLimit):
                    wrapper._max_episode_steps = steps
                wrapper = wrapper.env
        self.max_episode_steps = steps

    def reset(
        self,
        seeds: Sequence[int] | None = None,
        *,
        options: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Start an episode in every environment.

        Args:
            seeds: one per environment; the same seeds give the same starts, also where an environment draws from the
                global generators of NumPy and Python, as OGBench draws its tasks.
            options: one dictionary per environment, handed to its `reset` (maze2d: `state`, `target`).

        Returns:
            (B, O) float32 observations, and what each environment told beside.

        Raises:
            ConfigError: another number of seeds or options than environments, or a start that is none.
        """
        for name, values in (("seeds", seeds), ("options", options)):
            if values is not None and len(values) != len(self):
                raise ConfigError(f"{len(values)} {name} were given for {len(self)} environments; give one for each")
        infos = []
        self._steps = 0
        for index, env in enumerate(self.envs):
            given = options[index] if options is not None else None
            seed, moment = None if seeds is None else int(seeds[index]), self._moment(index)
            told = telling(moment) if given is None else nullcontext()  # options are the caller's
            with told, seed_globals(seed):
                returned = env.reset(seed=seed, options=None if given is None else dict(given))
            observation, info = read_reset(returned, moment)
            self._observations[index] = self._flat(observation, index)
            infos.append(info)
        self.active = np.ones(len(self), bool)
        return self._observations.copy(), infos

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Act once in every environment whose episode still runs.

        Args:
            actions: (B, A); clipped to the action space here, and whole ones rounded. Rows of ended environments are
                ignored.

        Returns:
            (B, O) float32 observations, (B,) float64 rewards, (B,) bool terminated, (B,) bool truncated, infos.

        Raises:
            ConfigError: actions of another shape, NaN in the row of a running environment, or an environment that
                returns what is no observation, reward or end, which is told with the step.
        """
        actions = np.asarray(actions, np.float64)
        if actions.shape != (len(self), self.action_size):
            raise ConfigError(f"actions have shape {actions.shape}; {(len(self), self.action_size)} is needed")
        self._steps += 1
        if np.isnan(actions[self.active]).any():
            raise ConfigError(
                f"a policy gave NaN as an action for step {self._steps} of {self.env_id}; check the checkpoint or "
                "function it comes from"
            )
        carried_out = self.carried_out(actions)
        rewards = np.zeros(len(self))
        terminated, truncated = np.zeros(len(self), bool), np.zeros(len(self), bool)
        infos: list[dict[str, Any]] = [{} for _ in self.envs]
        for index in np.flatnonzero(self.active).tolist():
            moment = self._moment(index)
            with telling(moment):
                returned = self.envs[index].step(self._actions.convert(carried_out[index]))
            observation, *outcome, infos[index] = read_step(returned, moment)
            rewards[index], terminated[index], truncated[index] = outcome
            self._observations[index] = self._flat(observation, index)
        self.active = self.active & ~terminated & ~truncated
        return self._observations.copy(), rewards, terminated, truncated, infos

    def carried_out(self, actions: np.ndarray) -> np.ndarray:
        """(B, A) actions as `step` carries them out: clipped, whole ones rounded."""
        return self._actions.carry_out(actions)

    def limit_steps(self, max_steps: int | None) -> int:
        """How long an episode may be: as asked for, or else the environment's own time limit.

        Raises:
            ConfigError: there is neither.
        """
        limit = max_steps or self.max_episode_steps
        if limit is None:
            raise ConfigError(
                f"{self.env_id} has no time limit; give evaluation.settings.max_steps=1000, max_steps=1000 or "
                "--max-steps 1000"
            )
        return limit

    def _flat(self, observation: Any, index: int) -> np.ndarray:
        """(O,) of one observation."""
        return read_observation(observation, self.observation_size, self._first, self._moment(index))

    def _moment(self, index: int) -> Moment:
        """Where something happens, for messages."""
        when = f"in step {self._steps}" if self._steps else "at its start"
        return Moment(self.env_id, f"{when}, copy {index} of {len(self)}" if len(self) > 1 else when)

    def close(self) -> None:
        for env in self.envs:
            env.close()


def make(env_id: str, num: int, *, render: bool = False) -> Environments:
    """Make `num` copies of a Gymnasium environment, by its id or one of the names of `seqrl.envs.named`.

    Args:
        render: make them with `render_mode="rgb_array"`.

    Raises:
        ConfigError: no such environment, a package of it that is missing, or spaces that are no boxes.
    """
    prepare_mujoco()
    if num < 1:
        raise ConfigError(f"{num} environments were asked for; ask for at least 1")
    check_env_id(env_id)
    mode = "rgb_array" if render else None
    try:
        with warnings.catch_warnings():  # v4 is out of date on purpose: D4RL's data fit it; bounds may be of float64
            warnings.filterwarnings("ignore", message=".*(out of date|precision lowered by casting).*")
            return Environments(env_id, [make_one(env_id, render_mode=mode) for _ in range(num)])
    except SeqrlError:
        raise
    except Exception as error:  # of Gymnasium, of a package that is missing, or of the environment's own code
        raise ConfigError(f"the environment {env_id!r} cannot be made: {explain(error)}") from error


def check_returns(envs: Environments) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Start an episode and act once, so that an environment that returns what is no number is told before a training.

    Returns:
        What each environment told at the start, and with its step.

    Raises:
        ConfigError: as `Environments.reset` and `step`.
    """
    _, first = envs.reset([0] * len(envs))
    *_, second = envs.step(np.zeros((len(envs), envs.action_size)))
    return first, second


def check_spaces(
    envs: Environments, observation_size: int, action_size: int, categories: Mapping[str, Choices] | None = None
) -> None:
    """Refuse an environment that does not fit what a model was trained on.

    Args:
        categories: of discrete fields, how many values they have; see `seqrl.layout.Layout`.

    Raises:
        ConfigError: naming both sides.
    """
    for name, wanted, found in (
        ("observation", observation_size, envs.observation_size),
        ("action", action_size, envs.action_size),
    ):
        if wanted != found:
            raise ConfigError(
                f"the data has {wanted} {name} dimensions and {envs.env_id} has {found}; set env_id to the "
                "environment that the data was recorded in"
            )
    for name in ("observation", "action"):
        known, there = (categories or {}).get(name), envs.categories.get(name)
        if known != there:
            recorded, needed = (_describe(n, name) for n in (known, there))
            said = list(there) if isinstance(there, tuple) else there
            hint = f"; if they are the same, say so when training: data.num_{name}s={said}" if there else ""
            raise ConfigError(
                f"the data has {recorded} and {envs.env_id} has {needed}; set env_id to the environment that the data "
                f"was recorded in{hint}"
            )


def _describe(choices: Choices | None, name: str) -> str:
    if choices is None:
        return f"{name}s of real numbers"
    listed = f"{name}s of {', '.join(map(str, as_counts(choices)))} choices"
    return listed if isinstance(choices, tuple) else f"{choices} discrete {name}s"


def _space(env: gymnasium.Env[Any, Any], name: str) -> Any:
    """The observation or action space, a `Box` or one of choices."""
    from gymnasium.spaces import Box, Dict

    space = getattr(env, f"{name}_space")
    if isinstance(space, Box) and is_picture(space.shape, space.dtype):
        identity = env.spec.id if env.spec is not None else type(env).__name__
        raise ConfigError(
            f"{identity} has images of shape {space.shape} as its {name}s, and seqrl learns from vectors; register an "
            "environment around it that shows vectors, the simulator's state or the features of an encoder, and record "
            "data there"
        )
    if not is_served(space):
        identity = env.spec.id if env.spec is not None else type(env).__name__
        hint = ""
        if name == "observation" and isinstance(space, Dict):
            hint = f"; choose parts of it, as in env_id={identity}@{'+'.join(leaves(space))}"
        raise ConfigError(
            f"{identity} has a {type(space).__name__} {name} space; seqrl acts in environments whose spaces are Box, "
            f"Discrete, MultiDiscrete or MultiBinary{hint}"
        )
    return space
