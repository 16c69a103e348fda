"""The descriptors that one operation opens, by name, on their way to QEMU."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing

from nicplug_xml.errors import OperationError, UnsupportedError
from nicplug_xml.host.monitor import Monitor, netdev_types, network

#: Seconds that somebody has who is connected to, and QEMU to begin to listen.
_PATIENCE = 5
_LISTENING = 0.2


class Descriptors:
    """Descriptors for a monitor's QEMU; what is still ours at the end is closed.

    A tap, macvtap or passt lives as long as a descriptor of it: closing ours ends it, unless QEMU has one.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._open: dict[str, int] = {}

    def require_passing(self) -> None:
        """Check that descriptors can be handed to QEMU from here.

        :raises UnsupportedError: they cannot.
        """

    def open_tap(self, names: Sequence[str], bridge: str, mac: str, isolated: bool) -> None:
        """Make a tap that is a port of a bridge; see `nicplug_xml.host.tap.open_tap`."""
        self.require_passing()
        from nicplug_xml.host.tap import open_tap

        self._open.update(zip(names, open_tap(bridge, mac, isolated, len(names)), strict=True))

    def open_macvtap(self, names: Sequence[str], device: str, mode: str, mac: str) -> None:
        """Make a macvtap; see `nicplug_xml.host.tap.open_macvtap`."""
        self.require_passing()
        from nicplug_xml.host.tap import open_macvtap

        # QEMU may have one yet of an operation that was cut short, and the kernel no second one of that MAC.
        for name in names:
            self.take_back_descriptor(name)
        self._open.update(zip(names, open_macvtap(device, mode, mac, len(names)), strict=True))

    def start_passt(self, name: str, options: Sequence[str]) -> None:
        """Start passt; see `nicplug_xml.host.passt.start_passt`."""
        self.require_passing()
        from nicplug_xml.host.passt import start_passt

        # One that an operation that was cut short has left with QEMU may have its ports.
        self.take_back_descriptor(name)
        self._open[name] = start_passt(options)

    def connect(self, name: str, address: str, port: int | None) -> None:
        """Connect to a TCP port, or, where there is none, to a UNIX socket.

        :raises OperationError: nobody answers there.
        """
        self.require_passing()
        import socket

        try:
            if port is None:
                with closing(socket.socket(socket.AF_UNIX)) as connection:
                    connection.settimeout(_PATIENCE)
                    connection.connect(address)
                    self._open[name] = connection.detach()
            else:
                self._open[name] = socket.create_connection((address, port), timeout=_PATIENCE).detach()
        except (OSError, OverflowError, UnicodeError) as error:
            place = address if port is None else f"{address}:{port}"
            raise OperationError(
                f"no connection to {place}: {getattr(error, 'strerror', None) or error}"
            ) from error

    def require_netdev(self, kind: str) -> None:
        """Check that QEMU offers netdevs of a type.

        :raises UnsupportedError: it does not.
        """
        offered = netdev_types(self._monitor)
        if kind not in offered:
            raise UnsupportedError(
                f"this QEMU has no netdev of type '{kind}'", hint=f"it has {', '.join(sorted(offered))}"
            )

    def await_listening(self, netdev: str) -> None:
        """Wait until a netdev ``stream`` of ours listens.

        :raises OperationError: it cannot.
        """
        self._monitor.command("set_link", {"name": netdev, "up": False})
        # QEMU 7.2 says so only when it cannot.
        until = time.monotonic() + _LISTENING
        while True:
            said = network(self._monitor).said.get(netdev, "")
            if "error" in said:
                raise OperationError(
                    f"QEMU cannot listen there: {said.removeprefix('error: ')}",
                    hint="it has to be free, and allowed to the user that QEMU runs as",
                )
            if said == "listening" or time.monotonic() > until:
                return
            time.sleep(_LISTENING / 20)

    def use_descriptor(self, name: str, fd: int) -> None:
        """Keep a copy of a descriptor."""
        self.require_passing()
        self._open[name] = os.dup(fd)

    def send_descriptor(self, name: str) -> None:
        """Hand a descriptor to QEMU (``getfd``), and close ours."""
        self._monitor.command("getfd", {"fdname": name}, self._open[name])
        self.close_descriptor(name)

    def take_back_descriptor(self, name: str) -> None:
        """Have QEMU close a descriptor (``closefd``); one that a netdev has taken is no longer there."""
        try:
            self._monitor.command("closefd", {"fdname": name})
        except OperationError as error:
            if "not found" not in error.what:
                raise

    def close_descriptor(self, name: str) -> None:
        """Close a descriptor of ours, if it is open."""
        descriptor = self._open.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        """Close all that are open."""
        for name in tuple(self._open):
            self.close_descriptor(name)
