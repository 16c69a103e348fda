"""Requests to the kernel by rtnetlink."""

from __future__ import annotations

from nicplug_xml.errors import OperationError


def add_bridge(name: str) -> None:
    """Make a bridge and leave it down, so that it forwards nothing; nothing when it is there.

    :raises OperationError: the kernel refuses.
    """
    import errno

    from pyroute2 import IPRoute, NetlinkError

    try:
        with IPRoute() as ipr:
            ipr.link("add", ifname=name, kind="bridge")
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise OperationError(
                f"bridge {name} could not be made: {error}", hint="this takes root or CAP_NET_ADMIN"
            ) from error
