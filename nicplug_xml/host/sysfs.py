"""What the kernel says of network devices, from sysfs: cheaper than importing a netlink library.

The authority is Documentation/ABI/testing/sysfs-class-net of the kernel.
"""

from __future__ import annotations

import errno
import os

from nicplug_xml.errors import OperationError

_NET = "/sys/class/net"
#: Flags of a device (netdevice(7)).
IFF_UP, IFF_PROMISC, IFF_ALLMULTI = 0x1, 0x100, 0x200
_ARPHRD_ETHER = 1


def is_bridge(device: str) -> bool:
    """Whether there is a bridge of that name in this network namespace."""
    return os.path.isdir(f"{_NET}/{device}/bridge")


def is_tap_of(device: str, mac: str) -> bool:
    """Whether `device` is here and is the tap of the NIC with that MAC.

    libvirt gives a tap the guest's MAC with a first byte of its own. A device of the same name on another
    host or in another namespace than libvirt's is not taken for it.
    """
    its = address(device)
    return bool(its) and its[3:] == mac[3:]


def address(device: str) -> str:
    """Return the MAC of `device` in lower case, or an empty string."""
    return _read(device, "address")


def indexes(device: str) -> tuple[int, int]:
    """Return the index of `device`, and of the one at its other end or below it; 0 where there is none."""
    return int(_read(device, "ifindex") or 0), int(_read(device, "iflink") or 0)


def master(device: str) -> str:
    """Return the bridge (or bond) that `device` is a port of, or an empty string."""
    try:
        return os.path.basename(os.readlink(f"{_NET}/{device}/master"))
    except OSError:
        return ""


def devices() -> list[str]:
    """Return the names of all network devices."""
    return _entries(_NET)


def uppers(device: str) -> list[str]:
    """Return what devices are on `device`: macvlans or VLANs, or a bridge or bond that it is a port of."""
    entries = _entries(f"{_NET}/{device}")
    return [entry.removeprefix("upper_") for entry in entries if entry.startswith("upper_")]


def is_isolated(device: str) -> bool:
    """Whether `device` is a port of a bridge, and isolated there."""
    return _read(device, "brport/isolated") == "1"


def flags(device: str) -> int:
    """Return the flags of `device`, with what others need of it; 0 when there is none of that name."""
    return int(_read(device, "flags") or "0", 16)


def is_up(device: str) -> bool:
    """Whether `device` is there, and was set up (not: whether it has a carrier)."""
    return bool(flags(device) & IFF_UP)


def passes_groups(device: str) -> bool:
    """Whether `device` is there, and somebody has it pass all multicast groups, or all that there is."""
    return bool(flags(device) & (IFF_PROMISC | IFF_ALLMULTI))


def is_macvtap(device: str) -> bool:
    """Whether `device` is there, and is a macvtap."""
    return os.path.isdir(f"{_NET}/{device}/macvtap")


def alias(device: str) -> str:
    """Return the alias of `device`, or an empty string."""
    return _read(device, "ifalias")


def exists(device: str) -> bool:
    """Whether there is a network device of that name in this network namespace."""
    return bool(device) and os.path.isdir(f"{_NET}/{device}")


def mtu(device: str) -> int:
    """Return the MTU of `device`; 0 when there is none of that name."""
    return int(_read(device, "mtu") or 0)


def index(device: str) -> int:
    """Return the index of `device`; 0 when there is none of that name."""
    return int(_read(device, "ifindex") or 0)


def is_ethernet(device: str) -> bool:
    """Whether `device` is there, and what it passes are Ethernet frames."""
    return _read(device, "type") == str(_ARPHRD_ETHER)


def tap_flags(device: str) -> int | None:
    """Return the flags of a tap (tuntap.rst, IFF_…), or None when there is none of that name."""
    return int(text, 16) if (text := _read(device, "tun_flags")) else None


def require_descriptors(error: OSError) -> None:
    """Raise, where what went wrong says nothing of what was looked at.

    :raises OperationError: this process, or the host, has no descriptors left.
    """
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise OperationError(
            f"the kernel cannot be asked: {error.strerror}",
            hint="'ulimit -n' is how many a process may have",
        ) from error


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError as error:
        require_descriptors(error)
        return []


def _read(device: str, attribute: str) -> str:
    # A file object would take half as long again; an attribute is no longer than a page.
    try:
        file = os.open(f"{_NET}/{device}/{attribute}", os.O_RDONLY)
    except OSError as error:
        require_descriptors(error)
        return ""
    try:
        # Anybody may have given a device an alias that is no UTF-8.
        return os.read(file, 4096).decode(errors="replace").strip()
    except OSError:
        return ""
    finally:
        os.close(file)
