"""Gymnasium ids of D4RL's tasks; the environments themselves are imported when one is made."""

from __future__ import annotations

ANT_ID = "seqrl/D4rlAnt-v2"


def register_ant() -> None:
    """Make `seqrl/D4rlAnt-v2` known to Gymnasium, if it is not."""
    import gymnasium

    if ANT_ID not in gymnasium.registry:
        gymnasium.register(ANT_ID, "seqrl.d4rl.environment:D4rlAnt", max_episode_steps=1000)


def register_package() -> None:
    """Make `d4rl/<id>` known to Gymnasium for all data sets that the package can simulate."""
    import gymnasium

    from seqrl.d4rl import package  # which `import seqrl` must not wait for
    from seqrl.d4rl.catalogue import PREFIX, entries

    for entry in entries():
        if entry.family in package.MODULES and f"{PREFIX}{entry.id}" not in gymnasium.registry:
            gymnasium.register(
                f"{PREFIX}{entry.id}",
                "seqrl.d4rl.environment:D4rlEnvironment",
                max_episode_steps=entry.max_episode_steps,
                kwargs={"id": entry.id},
            )
