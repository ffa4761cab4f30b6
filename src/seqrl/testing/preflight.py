"""The quick contracts of plugins, before a training: a wrong part is refused by name, not trained to the end."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from seqrl.console import say
from seqrl.critics import Critic
from seqrl.errors import PluginError, SeqrlError
from seqrl.layout import Layout
from seqrl.plugins import origin
from seqrl.registry import SCORE, registry_of
from seqrl.scores import Score
from seqrl.testing import backbones, contracts, critics, optimization, planners, samples, strategies, tokenizers
from seqrl.testing.contract import CannotTell, Component, Contract, ContractViolation
from seqrl.testing.failures import Failure, gather, tell_violation
from seqrl.testing.traces import ask, trace_of

SECONDS = 2.0  # of processor time for the contracts of one component
_BY_HAND: frozenset[Contract] = frozenset(
    (
        # They take a second and more.
        backbones.overfits_one_batch,
        critics.learns_rewards_in_their_units,
        # They are of layouts that a run does not have.
        planners.refuses_or_serves,
        strategies.score_refuses_or_serves,
        # Data and settings decide how much they matter: bins made for one range, long warm-ups.
        tokenizers.error_within_range,
        tokenizers.ties,
        tokenizers.constant_columns,
        tokenizers.fewer_rows_than_bins,
        tokenizers.values_outside_the_range,
        tokenizers.termination_token,
        optimization.training_gets_somewhere,
    )
)
# What sizes become, where a component has such options and can be made with them.
_TINY = {
    "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "dim": 16, "state_size": 4,
    "beam_width": 4, "n_expand": 2, "num_samples": 4, "horizon": 3,
}  # fmt: skip
_SAMPLES = {"max_length": 64, "max_steps": 40, "steps_per_epoch": 8, "targets_per_epoch": 40}
_checked: set[str] = set()  # by this process, such as the jobs of a sweep


def check_plugged(parts: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Run the quick contracts of components, made small.

    What the contracts' own settings do not suit is told and goes on: it is no fault of the component. One whose own
    code raises in its first contract, or in most of them, is refused.

    Args:
        parts: slots and configs, of a run or of a term of a score.

    Raises:
        PluginError: a contract is violated, or fails by the component's own code; names component and contract.
    """
    for slot, part in parts:
        known = {option.name for option in registry_of(slot).options(part["name"])}
        component = Component(slot, part["name"], {key: value for key, value in part.items() if key in known})
        if repr(component) in _checked:
            continue
        started = time.process_time()
        with _apart(), samples.sized_for(component):
            kept, left_out = _check(component)
        _checked.add(repr(component))
        seconds = time.process_time() - started
        more = f"; could not be run: {', '.join(left_out)}" if left_out else ""
        say(f"{component.slot} {component.name!r} keeps {kept} quick contracts of its slot ({seconds:.1f} s{more})")


def check_wants(config: Mapping[str, Any], layout: Layout, critic: Critic | None) -> None:
    """Refuse a plugin's score, or a term of a sum, that reads of traces what it does not ask for.

    Args:
        config: of a score.
        layout: of the model that it is to be used with.

    Raises:
        PluginError: says by which attribute it would ask.
    """
    terms = config.get("terms")
    for part in (config, *(terms.values() if isinstance(terms, Mapping) else ())):
        if part is None or part["name"] in SCORE.builtin_names():
            continue
        options = {key: value for key, value in part.items() if key != "weight"}
        score: Score = SCORE.build(options, discount=layout.step_discount, critic=critic)
        for lost in (False, True):
            try:
                with _apart():
                    ask(score, trace_of(score, layout, partial=lost), lost=lost)
            except ContractViolation as violation:
                cls = type(score)
                told = tell_violation(violation, cls)
                raise PluginError(f"score {part['name']!r} of {origin(cls)} cannot be used: {told}") from violation
            except Exception:  # of numbers that no model predicts
                continue


def forget() -> None:
    """Check every component anew."""
    _checked.clear()


def _check(component: Component) -> tuple[int, list[str]]:
    """Run contracts while there is time: how many were kept, and what is told of those that could not be run.

    Small sizes with which a component fails, and not with its own, were no good choice: its own are taken then.
    """
    small = _shrink(component)
    kept, left_out, failures = _run(small)
    if small is not component and _find_fault(component, kept, failures):
        kept, left_out, failures = _run(component)
    fault = _find_fault(component, kept, failures)
    if fault is not None:
        slot, own = component.slot, component.name
        raise PluginError(
            f"{slot} {own!r} of {origin(registry_of(slot).get(own))} fails in {len(failures)} of "
            f"{kept + len(failures)} contracts of its slot, {fault.contract!r} for one: {fault.explain()}. Mend it "
            f"(`{_command(component)} --verbose` shows the tracebacks), or train without this check: "
            "check_plugins=false"
        ) from fault.error
    told = gather((failure.contract, failure.explain()) for failure in failures)
    return kept, left_out + [f"{', '.join(names)} ({reason})" for reason, names in told.items()]


def _run(component: Component) -> tuple[int, list[str], list[Failure]]:
    """How many contracts were kept, the names of those that were not run to an end, and those that failed.

    Raises:
        PluginError: a contract is violated.
    """
    cls = registry_of(component.slot).get(component.name)
    kept = 0
    left_out: list[str] = []
    failures: list[Failure] = []
    started = time.process_time()
    for contract in contracts(component.slot, component.name):
        if contract in _BY_HAND:
            continue
        name = contract.__name__.replace("_", " ")
        if time.process_time() - started > SECONDS:
            left_out.append(name)
            continue
        try:
            contract(component)
        except CannotTell:
            left_out.append(name)
        except ContractViolation as violation:
            slot, own = component.slot, component.name
            raise PluginError(
                f"{slot} {own!r} of {origin(cls)} breaks the contract {name!r} of its slot: "
                f"{tell_violation(violation, cls)}. Mend it (`{_command(component)}` runs all contracts), or train "
                "without this check: check_plugins=false"
            ) from violation
        except SeqrlError:
            left_out.append(name)
        except Exception as error:
            failures.append(Failure.of(name, error, cls))
        else:
            kept += 1
    return kept, left_out, failures


def _find_fault(component: Component, kept: int, failures: Sequence[Failure]) -> Failure | None:
    """The first failure of a component's own code where its first contract or most of them end so."""
    own = [failure for failure in failures if failure.is_own(component.slot)]
    first = contracts(component.slot, component.name)[0].__name__.replace("_", " ")
    if own and (own[0].contract == first or 2 * len(own) > kept + len(failures)):
        return own[0]
    return None


def _command(component: Component) -> str:
    place = origin(registry_of(component.slot).get(component.name))
    loaded = f" --plugins {place}" if place.endswith(".py") else ""
    return f"seqrl plugins check {component.name} --slot {component.slot}{loaded}"


def _shrink(component: Component) -> Component:
    """The component with small sizes, or as it is, if it cannot be made with them."""
    if component.slot in ("optimizer", "scheduler"):  # whose settings are made for longer trainings than a contract's
        options: dict[str, Any] = {}
    else:
        options = dict(component.options)
        for name, size in _TINY.items():
            if component.has_option(name) and isinstance(value := options.get(name, size), int) and value >= size:
                options[name] = size
    small = Component(component.slot, component.name, options)
    if component.slot in ("backbone", "optimizer", "scheduler"):
        try:
            small.build(**_SAMPLES)
        except Exception:
            return component
    return small


@contextmanager
def _apart() -> Iterator[None]:
    """Leave random numbers as they are: the training draws what it would have drawn without the contracts."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
