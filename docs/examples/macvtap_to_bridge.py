"""Move all NICs of running guests from macvtaps on a device to a bridge, and the device into that bridge.

python macvtap_to_bridge.py eth1 br0
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from xml.sax.saxutils import quoteattr

import libvirt

import nicplug_xml
from nicplug_xml import Backend, Connection

Nic = tuple[libvirt.virDomain, str, Backend]


def nics_on(conn: libvirt.virConnect, device: str) -> list[Nic]:
    """Return the NICs of running guests that are plugged into macvtaps on a device."""
    return [
        (dom, nic.mac, nic.backend)
        for dom in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        for nic in nicplug_xml.interfaces(dom)
        if nic.plane and nic.connection is Connection.ATTACHED and nic.backend
        if nic.backend.type == "direct" and nic.backend.source.get("dev") == device
    ]


def attach(nics: list[Nic], backend: str | None) -> None:
    """Plug NICs in, now and in their definitions; into what they were in for None."""
    for dom, mac, old in nics:
        flags = libvirt.VIR_DOMAIN_AFFECT_LIVE
        if dom.isPersistent():
            flags |= libvirt.VIR_DOMAIN_AFFECT_CONFIG
        nicplug_xml.attach_backend(dom, mac, backend or old, flags=flags)


def enslave(device: str, bridge: str) -> None:
    """Make a device a port of a bridge."""
    subprocess.run(["ip", "link", "set", device, "master", bridge], check=True)


def move(nics: list[Nic], device: str, bridge: str) -> None:
    """Move the NICs and the device; when something fails, all of them are as before.

    The kernel has no device that is below a macvtap and in a bridge, so the NICs are unplugged in between.
    """
    try:
        for dom, mac, _ in nics:
            nicplug_xml.detach_backend(dom, mac)
        enslave(device, bridge)
        attach(nics, f"<backend type='bridge'><source bridge={quoteattr(bridge)}/></backend>")
    except BaseException:
        for dom, mac, _ in nics:
            nicplug_xml.detach_backend(dom, mac)
        subprocess.run(["ip", "link", "set", device, "nomaster"], check=True)
        attach(nics, None)
        raise


def main() -> None:
    """Move what the command line names."""
    parser = argparse.ArgumentParser(description="Move NICs from macvtaps on a device to a bridge.")
    parser.add_argument("device", metavar="DEVICE", help="what the macvtaps are on")
    parser.add_argument("bridge", metavar="BRIDGE", help="where the NICs and the device go")
    parser.add_argument("-c", "--connect", metavar="URI", help="libvirt connection URI")
    parser.add_argument("--dry-run", action="store_true", help="say which NICs it is about")
    options = parser.parse_args()

    nics = nics_on(libvirt.open(options.connect), options.device)
    if not options.dry_run:
        move(nics, options.device, options.bridge)
    for dom, mac, _ in nics:
        print(f"{mac} of {dom.name()}: {options.device} -> {options.bridge}")


if __name__ == "__main__":
    try:
        main()
    except (nicplug_xml.NicplugError, libvirt.libvirtError, subprocess.CalledProcessError) as error:
        sys.exit(f"macvtap_to_bridge: {error}")
