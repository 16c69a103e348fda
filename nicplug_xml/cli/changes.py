"""What ``nicplug watch`` prints: a line for each change, or a JSON object."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nicplug_xml import backends
from nicplug_xml.cli.output import status_json
from nicplug_xml.model import Connection, InterfaceStatus, Scope

if TYPE_CHECKING:
    from nicplug_xml.watching import Change

_OF_LIBVIRT = {"connected": "connected to libvirt", "disconnected": "libvirt is gone"}


def line(change: Change, *, coloured: bool = False) -> str:
    """Return a change as a line: the time, who it is about, what has happened.

    :param coloured: for a terminal.
    """
    moment, text = time.strftime("%H:%M:%S", time.localtime(change.at)), _said(change)
    if coloured:
        from nicplug_xml.cli import colours

        moment, text = colours.paint(moment, "pale"), colours.change(text, change.kind)
    return f"{moment} {text}"


def as_json(change: Change) -> dict[str, object]:
    """Return a change as JSON knows it."""
    return {
        "at": round(change.at, 3),
        "event": change.kind,
        "domain": change.domain or None,
        "scope": change.scope and change.scope.value,
        "by": change.by,
        "before": change.before and status_json(change.before),
        "after": change.after and status_json(change.after),
        "interfaces": [status_json(status) for status in change.interfaces],
    }


def _said(change: Change) -> str:
    if not change.domain:
        return _OF_LIBVIRT[change.kind]
    status = change.after or change.before
    if status is None:
        with_nics = ", ".join(f"{nic.interface} {_place(nic)}" for nic in change.interfaces)
        return f"{change.domain}: {change.kind}" + (f" ({with_nics})" if with_nics else "")
    definition = " (definition)" if change.scope is Scope.CONFIG else ""
    by = " (not by nicplug)" if change.by == "other" else ""
    return f"{status.interface} of {change.domain}{definition}: {_what(change, status)}{by}"


def _what(change: Change, status: InterfaceStatus) -> str:
    kind = change.kind
    if kind == "plugged":
        return _place(status)
    if kind == "moved" and change.before:
        return f"moved from {backends.describe(change.before.backend)} to {backends.describe(status.backend)}"
    if kind == "unplugged" and change.before:
        return f"unplugged from {backends.describe(change.before.backend)}"
    if kind == "intended":
        where = backends.describe(status.backend)
        return "nothing intended any more" if where == "-" else f"intended for {where}"
    if kind == "changed":
        return f"another setting of its backend, {backends.describe(status.backend)}"
    if kind == "link":
        return f"link {status.link}"
    if kind == "carrier":
        return f"carrier {'up' if status.carrier else 'down'}"
    return f"{kind}, {_place(status)}"


def _place(status: InterfaceStatus) -> str:
    if status.connection is Connection.DEFERRED:
        return "unplugged"
    return f"plugged into {backends.describe(status.backend)}"
