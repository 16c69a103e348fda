"""Plug a guest's NICs into ports that are made after it, as OpenStack's Neutron makes them.

openstack port show PORT -f json | python ports.py vm1
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

import libvirt

import nicplug_xml


def backend(port: Mapping[str, Any]) -> str:
    """Return the backend that a port is, as its binding says.

    :param port: a port, with the names that Neutron's API has for its fields.
    :raises ValueError: nobody has bound it, or to something that is no bridge, or that is not all of it.
    """
    kind = port.get("binding:vif_type")
    details = port.get("binding:vif_details") or {}
    bridge = details.get("bridge_name")
    if kind not in ("ovs", "bridge") or not bridge:
        raise ValueError(f"port {port['id']} is bound to {kind or 'nothing'}, not to a bridge with a name")
    if details.get("ovs_hybrid_plug"):
        # In that bridge itself, nothing would filter what the guest sends.
        raise ValueError(f"port {port['id']} takes a Linux bridge of its own, for iptables to filter in")
    virtualport = ""
    if kind == "ovs":
        # What the agent or controller knows the port by.
        parameters = f"<parameters interfaceid={quoteattr(port['id'])}/>"
        virtualport = f"<virtualport type='openvswitch'>{parameters}</virtualport>"
    return f"<backend type='bridge'><source bridge={quoteattr(bridge)}/>{virtualport}</backend>"


def plug(dom: libvirt.virDomain, port: Mapping[str, Any]) -> nicplug_xml.InterfaceStatus:
    """Plug the NIC that has the port's MAC into it."""
    link = "up" if port["admin_state_up"] else "down"
    return nicplug_xml.attach_backend(dom, port["mac_address"], backend(port), link=link)


def main() -> None:
    """Plug in, or unplug, what is on standard input."""
    parser = argparse.ArgumentParser(description="Plug a guest's NIC into the port on standard input.")
    parser.add_argument("domain", metavar="DOMAIN", help="the guest")
    parser.add_argument("-c", "--connect", metavar="URI", help="libvirt connection URI")
    parser.add_argument("--unplug", action="store_true", help="the port is about to go")
    options = parser.parse_args()

    dom = libvirt.open(options.connect).lookupByName(options.domain)
    # The API says binding:vif_type, and 'openstack port show' binding_vif_type.
    told = json.load(sys.stdin)
    port = {name.replace("binding_", "binding:"): value for name, value in told.items()}
    status = nicplug_xml.detach_backend(dom, port["mac_address"]) if options.unplug else plug(dom, port)
    print(f"{status.mac} of {status.domain}: {status.connection.value}, link {status.link}")


if __name__ == "__main__":
    try:
        main()
    except (nicplug_xml.NicplugError, libvirt.libvirtError, ValueError) as error:
        sys.exit(f"ports: {error}")
