"""Backend ``fd``: a descriptor that the caller has opened. Nobody can open it again but the caller."""

from __future__ import annotations

from nicplug_xml.backends.common import as_it_is
from nicplug_xml.endpoints import Endpoint
from nicplug_xml.errors import UnsupportedError
from nicplug_xml.model import Backend

TYPES = ("fd",)
HINT = "tap, macvtap and connected stream sockets can be handed in"
intended = as_it_is


def backend() -> Backend:
    """Return the backend for a descriptor that is handed in."""
    return Backend("fd")


def describe(_backend: Backend) -> str:
    """Return the backend in words."""
    return "descriptor"


def endpoint(_backend: Backend, _network: str) -> Endpoint:
    """Refuse: the caller did not hand the descriptor in.

    :raises UnsupportedError: always.
    """
    raise UnsupportedError(
        "the backend was a descriptor that somebody handed in, and is needed again",
        hint="hand in another one (--fd N, fds=), or name a backend",
    )
