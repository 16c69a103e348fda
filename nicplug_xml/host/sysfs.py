"""What the kernel says of network devices, from sysfs: cheaper than importing a netlink library.

The authority is Documentation/ABI/testing/sysfs-class-net of the kernel.
"""

from __future__ import annotations

import os

_NET = "/sys/class/net"


def is_bridge(device: str) -> bool:
    """Whether there is a bridge of that name in this network namespace."""
    return os.path.isdir(f"{_NET}/{device}/bridge")


def is_tap_of(device: str, mac: str) -> bool:
    """Whether `device` is here and is the tap of the NIC with that MAC.

    libvirt gives a tap the guest's MAC with a first byte of its own. A device of the same name on another
    host or in another namespace than libvirt's is not taken for it.
    """
    try:
        with open(f"{_NET}/{device}/address") as address:
            return address.read().strip()[3:] == mac[3:]
    except OSError:
        return False


def master(device: str) -> str:
    """Return the bridge (or bond) that `device` is a port of, or an empty string."""
    try:
        return os.path.basename(os.readlink(f"{_NET}/{device}/master"))
    except OSError:
        return ""
