"""Plug a NIC into a bridge, look at it, and unplug it.

python plug.py vm1 ua-lan br-blue
"""

from __future__ import annotations

import argparse
import sys
from xml.sax.saxutils import quoteattr

import libvirt

import nicplug_xml


def main() -> None:
    """Plug in and unplug what the command line names."""
    parser = argparse.ArgumentParser(description="Plug a NIC into a bridge, look at it, and unplug it.")
    parser.add_argument("domain", metavar="DOMAIN", help="the guest")
    parser.add_argument("interface", metavar="INTERFACE", help="MAC, alias or target device")
    parser.add_argument("bridge", metavar="BRIDGE", help="a bridge of the host")
    parser.add_argument("-c", "--connect", metavar="URI", help="libvirt connection URI")
    options = parser.parse_args()

    libvirt.registerErrorHandler(lambda *_: None, None)  # libvirt prints what it raises otherwise
    dom = libvirt.open(options.connect).lookupByName(options.domain)
    backend = f"<backend type='bridge'><source bridge={quoteattr(options.bridge)}/></backend>"

    plan = nicplug_xml.plan_attach(dom, options.interface, backend, announce=False)
    print(f"to {plan.summary} takes {len(plan.steps)} steps")

    status = nicplug_xml.carry_out_plan(dom, plan)
    print(status.connection.value, dict(status.backend.source) if status.backend else {}, status.carrier)

    status = nicplug_xml.detach_backend(dom, options.interface)
    print(status.connection.value, "intended:", status.backend)


if __name__ == "__main__":
    try:
        main()
    except nicplug_xml.NotFoundError as error:
        sys.exit(f"plug: there is no such thing: {error}")
    except (nicplug_xml.NicplugError, libvirt.libvirtError) as error:
        sys.exit(f"plug: {error}")
