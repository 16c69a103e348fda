"""Planes: how a pluggable NIC is held so that its backend can change. One module each, one table."""

from __future__ import annotations

from nicplug_xml.errors import UnsupportedError
from nicplug_xml.planes import tap

PLANES = {tap.NAME: tap}


def choose(plane: str) -> str:
    """Return the plane that a user's choice means.

    :param plane: a plane's name, or ``auto``.
    :raises UnsupportedError: no such plane.
    """
    if plane == "auto":
        return tap.NAME
    if plane not in PLANES:
        raise UnsupportedError(f"there is no plane '{plane}'", hint=f"use auto or {', '.join(PLANES)}")
    return plane
