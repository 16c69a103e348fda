"""Joints: what the kernel's redirects join a NIC's host device to; pure.

A joint is written where it lives, into the alias of the NIC's host device (``ip link`` shows it): so it is
known to everybody, goes when the device goes, and needs no place of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

_MARK = "nicplug:"
#: Of a bridge: the device itself says which one it is a port of. This is for who has to make it one again.
_PORT_MARK = "nicplug-port:"


class Joint(NamedTuple):
    """What the host device of a NIC is joined to.

    :param kind: how it was made, and so how it is let go: ``macvlan`` and ``port`` (of an Open vSwitch
        bridge) are devices of ours; ``device`` is somebody else's, and ``cable`` is another NIC's. A
        ``bridge`` is no redirect: the NIC's device is a port of it, as it itself says.
    :param device: the device that frames are redirected to and from.
    :param place: the device below a macvlan, or the bridge of a port; of a device, its
        `changes`; of a bridge, ``isolated`` where the port is; of a cable, the UUID
        of the NIC's own domain.
    :param mode: mode of a macvlan; of a cable, the URI by which libvirt knows the NIC's own domain; of a
        port, the directory of the database server's socket of the Open vSwitch that has it.
    :param ifindex: the device's index; 0 before it is joined.
    :param gone: whether the device has gone without anybody parting the NIC from it.
    """

    kind: str
    device: str
    place: str = ""
    mode: str = ""
    ifindex: int = 0
    gone: bool = False

    def __str__(self) -> str:
        """Return the alias that says it."""
        if self.kind == "bridge":
            return " ".join(filter(None, (_PORT_MARK, self.device, self.place)))
        # No name of the kernel's has a colon.
        device = f"{self.device}:{self.ifindex}"
        return " ".join(filter(None, (_MARK, self.kind, device, self.place, self.mode)))

    @property
    def changes(self) -> frozenset[str]:
        """What another's device was made for this: ``promisc``uous, and up, where it was ``down``."""
        return frozenset(self.place.split(",") if self.kind == "device" and self.place else ())

    def with_changes(self, changes: Iterable[str]) -> Joint:
        """Return the same joint with those changes besides its own."""
        return self._replace(place=",".join(sorted(self.changes.union(changes))))

    @property
    def is_ours(self) -> bool:
        """Whether the device was made for it, and goes with it."""
        return self.kind in ("macvlan", "port")


def parse(alias: str) -> Joint | None:
    """Return what the alias of a host device says that it is joined to, or None.

    :param alias: the kernel's ``ifalias``.
    """
    mark, _, words = alias.strip().partition(" ")
    parts = words.split(maxsplit=3)  # a directory may have spaces in it
    if mark != _MARK or len(parts) < 2:
        return None
    kind, device, place, mode = (*parts, "", "")[:4]
    name, _, index = device.partition(":")
    return Joint(kind, name, place, mode, int(index) if index.isdecimal() else 0)


def parse_port(alias: str) -> Joint | None:
    """Return which bridge the alias of a container's host device says that it was plugged into last, or None.

    :param alias: the kernel's ``ifalias``.
    """
    mark, bridge, place = (*alias.split(), "", "", "")[:3]
    return Joint("bridge", bridge, place) if mark == _PORT_MARK and bridge else None


def helper(device: str, present: Joint | None) -> str:
    """Return a name for a device of ours that the NIC of a host device is to be joined to.

    A move has the old one and the new one at the same time: they get two names in turn.

    :param device: the NIC's host device.
    :param present: what it is joined to now.
    """
    taken = present is not None and present.device.endswith(".np0")
    return _helpers(device)[taken]


def is_helper(name: str, device: str) -> bool:
    """Whether that is one of the names that `helper` returns for the NIC of a host device."""
    return name in _helpers(device)


def is_named_as_ours(name: str) -> bool:
    """Whether that is a name that `helper` returns for the NIC of any host device."""
    return name.endswith((".np0", ".np1"))


def _helpers(device: str) -> tuple[str, str]:
    from zlib import crc32

    # The kernel's names have 15 characters at most.
    stem = device if len(device) <= 11 else f"np{crc32(device.encode()):08x}"
    return f"{stem}.np0", f"{stem}.np1"
