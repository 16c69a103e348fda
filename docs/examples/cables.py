"""Plug in the cables of a lab, or pull them.

python cables.py left/ua-port1=right/ua-port1 left/ua-port2=middle/ua-port1
"""

from __future__ import annotations

import argparse
import sys
from xml.sax.saxutils import quoteattr

import libvirt

import nicplug_xml


def end(text: str) -> tuple[str, str]:
    """Return domain and interface of ``DOMAIN/INTERFACE``."""
    domain, slash, interface = text.rpartition("/")
    if not slash:
        raise argparse.ArgumentTypeError(f"'{text}' is no DOMAIN/INTERFACE")
    return domain, interface


def cable(text: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return both ends of ``DOMAIN/INTERFACE=DOMAIN/INTERFACE``."""
    one, _, other = text.partition("=")
    return end(one), end(other)


def backend(domain: str, interface: str) -> str:
    """Return the backend that is a cable to that NIC."""
    source = f"<source domain={quoteattr(domain)} interface={quoteattr(interface)}/>"
    return f"<backend type='cable'>{source}</backend>"


def main() -> None:
    """Plug in or pull what the command line names."""
    parser = argparse.ArgumentParser(description="Plug in the cables of a lab, or pull them.")
    parser.add_argument(
        "cables", metavar="DOMAIN/INTERFACE=DOMAIN/INTERFACE", type=cable, nargs="+", help="both ends"
    )
    parser.add_argument("-c", "--connect", metavar="URI", help="libvirt connection URI")
    parser.add_argument("--pull", action="store_true", help="pull them")
    options = parser.parse_args()

    conn = libvirt.open(options.connect)
    for (domain, interface), far_end in options.cables:
        # One end will do: the other one is changed with it.
        dom = conn.lookupByName(domain)
        if options.pull:
            status = nicplug_xml.detach_backend(dom, interface)
        else:
            status = nicplug_xml.attach_backend(dom, interface, backend(*far_end))
        print(f"{domain}/{interface} - {'/'.join(far_end)}: {status.connection.value}")


if __name__ == "__main__":
    try:
        main()
    except (nicplug_xml.NicplugError, libvirt.libvirtError) as error:
        sys.exit(f"cables: {error}")
