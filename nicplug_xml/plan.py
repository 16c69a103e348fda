"""Plans: the ordered steps of one operation, and carrying them out so that a failure loses nothing."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import suppress

from nicplug_xml.errors import NicplugError, OperationError
from nicplug_xml.frozen import Frozen
from nicplug_xml.model import Scope
from nicplug_xml.steps import (
    Announce,
    Host,
    LetGoFirst,
    Monitor,
    OfOther,
    Record,
    Release,
    SendDescriptor,
    SetCarrier,
    Step,
    UpdateDevice,
)

#: What these have done to a running domain goes with it.
_OF_DOMAINS = (LetGoFirst, Monitor, Record, SendDescriptor, SetCarrier, UpdateDevice)


class Plan(Frozen):
    """The steps of one operation on one interface.

    :param summary: the operation in a few words: ``plug vnet0 of vm1 into bridge br0``.
    :param key: the interface, as its metadata entry names it.
    :param scope: the state that it begins with.
    :param steps: what to do, in this order; empty when everything is as wanted already. Those that
        `is_final` is true of come last.
    :param place: the name of what it plugs into.
    :param hint: what a user can look at when a failure names that place.
    :param mark: what tells the interface from others of that key.
    """

    summary: str
    key: str
    scope: Scope
    steps: tuple[Step, ...] = ()
    place: str = ""
    hint: str = ""
    mark: str = ""

    @property
    def others(self) -> frozenset[str]:
        """The names of other domains that it changes, at the far ends of cables; mostly none."""
        return frozenset(step.domain for step in self.steps if isinstance(step, OfOther))

    def __repr__(self) -> str:
        return f"<Plan to {self.summary}: {len(self.steps)} steps>"

    def __str__(self) -> str:
        if not self.steps:
            return f"{self.summary}: nothing to do"
        return "\n".join([self.summary, *(f"  {n}. {s.describe()}" for n, s in enumerate(self.steps, 1))])


#: Told of each step that is done, with the seconds it took.
Observer = Callable[[Step, float], None]


def is_final(step: Step) -> bool:
    """Whether nothing takes the step back: all others come first, and when it fails, that is a warning."""
    if isinstance(step, OfOther):
        return is_final(step.step)
    if isinstance(step, Monitor):
        return step.reverse is None
    return isinstance(step, (Announce, Release))


def carry_out(plan: Plan, host: Host, observer: Observer | None = None) -> None:
    """Apply the steps in order; when one fails, undo those before it, last first.

    :param observer: told of each step that is done, with the seconds it took.
    :raises NicplugError: a step failed; the message names it, and the state that the NIC is in. It is an
        `OperationError` unless the first step refused.
    """
    done: list[Step] = []
    try:
        for step in plan.steps:
            if not is_final(step):
                _apply(step, host, observer)
                done.append(step)
    except (NicplugError, OSError) as error:
        if isinstance(error, OSError):
            # The step may be done: a TimeoutError say is what a program's signal raises anywhere.
            with suppress(Exception):
                step.undo(host)
        raise _failure(plan, step, error, done, host) from error
    except BaseException:
        # Not a refusal but an interruption: how far the step came is not known, and its undo is harmless.
        for leftover in _undo([*done, step], host):
            warnings.warn(f"interrupted, and could not be undone: {leftover}", stacklevel=2)
        raise
    final, failures = [step for step in plan.steps if is_final(step)], []
    for number, step in enumerate(final):
        try:
            _apply(step, host, observer)
        except (NicplugError, OSError) as error:
            failures.append(f"all else is done, but to {step.summary} failed: {error}")
        except BaseException:
            # Nobody else knows of what is to be let go.
            for rest in final[number:]:
                if not isinstance(rest, Announce):
                    with suppress(Exception):
                        rest.apply(host)
            raise
    for failure in failures:  # a caller may have it raised
        warnings.warn(failure, stacklevel=2)


def _apply(step: Step, host: Host, observer: Observer | None) -> None:
    started = time.perf_counter()
    step.apply(host)
    if observer:
        observer(step, time.perf_counter() - started)


def _undo(done: list[Step], host: Host) -> list[str]:
    failures = []
    for step in reversed(done):
        try:
            step.undo(host)
        except Exception as error:  # an undo that fails must not keep the others from running
            if not (isinstance(step, _OF_DOMAINS) and host.has_ended()):
                # One hint, that of the refusal, is enough.
                what = error.what if isinstance(error, NicplugError) else error
                failures.append(f"'{step.summary}' ({what})")
    return failures


def _failure(
    plan: Plan, step: Step, error: NicplugError | OSError, done: list[Step], host: Host
) -> NicplugError:
    # The first step's refusal keeps its class: it has touched nothing.
    refusal = OperationError(str(error)) if isinstance(error, OSError) else error
    kind = OperationError if done else type(refusal)
    message = f"could not {plan.summary}: to {step.summary} failed: {refusal.what}"
    leftovers = _undo(done, host)
    if leftovers:
        message += f"; could not be undone: {', '.join(leftovers)}"
    hint = refusal.hint or (plan.hint if plan.place and plan.place in refusal.what else "")
    if plan.scope is Scope.LIVE and host.has_ended():
        message += "; the NIC has gone with its guest, which has ended"
        return kind(message, hint="start it, and try again")
    return kind(f"{message}; the NIC is {host.state(plan.key, plan.mark)} now", hint=hint)
