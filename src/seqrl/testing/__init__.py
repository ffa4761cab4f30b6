"""The contracts of every slot as plain functions, for our tests and for the authors of plugins.

    for contract, violation in seqrl.testing.check("tokenizer", "log_bins", num_bins=16):
        assert violation is None, f"{contract}: {violation}"

Every contract takes a `Component` and raises `ContractViolation`, an AssertionError whose message is a sentence; in a
test of one's own a single one can be called: `tokenizers.round_trip(Component("tokenizer", "log_bins"))`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seqrl.errors import ConfigError, SeqrlError
from seqrl.layout import Layout
from seqrl.registry import registry_of
from seqrl.testing import (
    backbones,
    critics,
    optimization,
    planners,
    samples,
    strategies,
    tokenizers,
    training,
    watching,
    wrappers,
)
from seqrl.testing.contract import Component, Contract, ContractViolation
from seqrl.testing.failures import Outcome, explain, find_line, tell_violation

__all__ = ["Component", "Contract", "ContractViolation", "check", "contracts"]

_BY_CLASS: dict[str, Callable[[Any], tuple[Contract, ...]]] = {
    "tokenizer": tokenizers.contracts_of,
    "backbone": backbones.contracts_of,
}
_CONTRACTS: dict[str, tuple[Contract, ...]] = {
    "data": training.DATA_CONTRACTS,
    "objective": training.OBJECTIVE_CONTRACTS,
    "critic": critics.CONTRACTS,
    "optimizer": optimization.OPTIMIZER_CONTRACTS,
    "scheduler": optimization.SCHEDULER_CONTRACTS,
    "planner": planners.CONTRACTS,
    "condition": strategies.CONDITION_CONTRACTS,
    "score": strategies.SCORE_CONTRACTS,
    "logger": watching.LOGGER_CONTRACTS,
    "callback": watching.CALLBACK_CONTRACTS,
    "wrapper": wrappers.CONTRACTS,
}
_RUNTIME = {
    "size": 2,
    "layout": Layout.from_config({"fields": {"observation": {}, "action": {}}}, 1, 1),
    "window": tokenizers.WINDOW,
    "max_length": 4,
    "discount": 0.9,
    "max_steps": optimization.MAX_STEPS,
    "steps_per_epoch": optimization.STEPS_PER_EPOCH,
    "targets_per_epoch": None,
    "observation_size": 3,
    "action_size": 2,
    "run": watching.NOWHERE,
}


def contracts(slot: str, name: str) -> tuple[Contract, ...]:
    """All contracts that a component of a slot has to keep.

    Raises:
        ConfigError: there is no such slot or component, or the slot has no contracts.
    """
    cls = registry_of(slot).get(name)
    if slot in _BY_CLASS:
        return _BY_CLASS[slot](cls)
    if slot not in _CONTRACTS:
        raise ConfigError(f"slot {slot!r} has no contracts yet; slots that have: {', '.join(_BY_CLASS | _CONTRACTS)}")
    return _CONTRACTS[slot]


def check(slot: str, name: str, **options: Any) -> list[tuple[str, str | None]]:
    """Run all contracts of a slot on a registered component, with tiny models on the CPU.

    Args:
        slot: such as `tokenizer`.
        name: as it is registered; plugin files are loaded before (`seqrl.plugins.load_plugins`).
        options: of the component, small ones for quick answers.

    Returns:
        (contract, violation) pairs; the violation is None where the contract is kept, else a sentence that says what
        is wrong. A component that cannot even be built has the one contract `builds`.

    Raises:
        ConfigError: an unknown slot, name or option, or one that the component refuses.
        DataError: a data source without its data.
    """
    return [(outcome.contract, outcome.violation) for outcome in run_contracts(Component(slot, name, options))]


def run_contracts(component: Component) -> list[Outcome]:
    """As `check`, with the exceptions that contracts ended in."""
    wanted = contracts(component.slot, component.name)
    cls = registry_of(component.slot).get(component.name)
    try:
        if component.slot == "wrapper":
            wrappers.find_served(component)
        else:
            component.build(**_RUNTIME)
    except ContractViolation as violation:
        return [Outcome("builds", str(violation))]
    except SeqrlError:
        raise
    except Exception as error:
        return [Outcome("builds", f"the constructor raises {explain(error, find_line(error, cls))}", error)]
    with samples.sized_for(component):
        return [_run(contract, component, cls) for contract in wanted]


def _run(contract: Contract, component: Component, cls: type) -> Outcome:
    name = contract.__name__.replace("_", " ")
    try:
        contract(component)
    except ContractViolation as violation:
        cause = violation.__cause__
        return Outcome(name, tell_violation(violation, cls), None if isinstance(cause, SeqrlError) else cause)
    except SeqrlError as error:
        if component.slot == "data":  # a missing file is the caller's affair, no fault of the source
            raise
        return Outcome(name, f"it refuses the check's own settings: {error}")
    except Exception as error:
        return Outcome(name, f"it fails with {explain(error, find_line(error, cls))}", error)
    return Outcome(name)
