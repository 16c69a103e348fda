"""Bridges, and network namespaces as peers of a guest, made with ``ip``.

Authority: the kernel's bridge and veth devices, ip-link(8).
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from nicplug_xml.errors import OperationError
from nicplug_xml.testing.commands import run
from nicplug_xml.testing.namespace import new_network, run_in_network

_numbers = itertools.count(1)


class Bridge:
    """A Linux bridge that forwards from the start, in the network namespace that we are in.

    :param address: its own address with the length of the prefix, as ``192.0.2.1/24``, or none.
    :param name: up to 15 characters; one that is free unless told.
    :raises OperationError: the kernel refused it.
    """

    def __init__(self, address: str | None = None, *, name: str | None = None) -> None:
        self.name = name or f"npbr{next(_numbers)}"
        self.address = address
        self._make()
        try:
            if address:
                run(["ip", "address", "add", address, "dev", self.name])
            run(["ip", "link", "set", self.name, "up"])
        except BaseException:
            self.close()
            raise

    def __str__(self) -> str:
        return self.name

    def close(self) -> None:
        """Remove the bridge; one that is gone already is fine."""
        _delete(self.name)

    def _make(self) -> None:
        run(["ip", "link", "add", self.name, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"])


class Peer:
    """A network namespace that is connected to a bridge, as another machine on that network would be.

    :param bridge: the bridge, or its name.
    :param address: its address with the length of the prefix, as ``192.0.2.3/24``.
    :raises OperationError: the kernel refused it.
    """

    #: The name of the network device inside the peer.
    device = "eth0"

    def __init__(self, bridge: Bridge | str, address: str) -> None:
        self.address = address
        self._port = f"nppeer{next(_numbers)}"
        self._network: int | None = new_network()
        try:
            self._connect(str(bridge))
        except BaseException:
            self.close()
            raise

    def run(self, argv: list[str], *, timeout: float = 30) -> str:
        """Run a program in the peer.

        :param argv: the program and its arguments.
        :param timeout: seconds after which it is killed.
        :returns: what it printed on standard output.
        :raises OperationError: it failed or took too long.
        """
        return run_in_network(self._descriptor(), argv, timeout=timeout)

    def ping(self, address: str, *, count: int = 1, timeout: float = 2) -> bool:
        """Ping from the peer.

        :param address: whom.
        :param count: how many times, 0.2 s apart.
        :param timeout: seconds to wait for the answers after the last one.
        :returns: whether any was answered.
        """
        ping = ["ping", "-n", "-q", "-c", str(count), "-i", "0.2", "-W", str(timeout), address]
        try:
            self.run(ping, timeout=count * 0.2 + timeout + 5)
        except OperationError:
            return False
        return True

    def close(self) -> None:
        """Remove the peer and its connection to the bridge."""
        _delete(self._port)
        if self._network is not None:
            os.close(self._network)
            self._network = None

    def _connect(self, bridge: str) -> None:
        network = self._descriptor()
        veth = ["type", "veth", "peer", "name", self.device, "netns", f"/proc/self/fd/{network}"]
        run(["ip", "link", "add", self._port, "master", bridge, *veth], pass_fds=[network])
        self.run(["ip", "address", "add", self.address, "dev", self.device])
        self.run(["ip", "link", "set", self.device, "up"])
        run(["ip", "link", "set", self._port, "up"])

    def _descriptor(self) -> int:
        if self._network is None:
            raise OperationError(f"the peer {self.address} is closed")
        return self._network


def _delete(device: str) -> None:
    if Path("/sys/class/net", device).exists():
        run(["ip", "link", "delete", device])
