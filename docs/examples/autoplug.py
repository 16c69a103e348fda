"""Plug NICs in when their guests start: an asyncio program on libvirt's own libvirtaio.

python autoplug.py
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import libvirt
import libvirtaio

import nicplug_xml
from nicplug_xml import Connection


def plug_all(dom: libvirt.virDomain) -> list[str]:
    """Plug in what a guest has unplugged and knows a place for; return what was done."""
    done = []
    try:
        nics = nicplug_xml.interfaces(dom)
    except nicplug_xml.NicplugError as error:
        return [f"{dom.name()}: {error}"]  # it may have ended again
    for nic in nics:
        if nic.connection is Connection.DEFERRED and nic.backend and nic.backend.type:
            try:
                nicplug_xml.attach_backend(dom, nic.mac)
                done.append(f"{dom.name()}: {nic.mac} is plugged in")
            except nicplug_xml.NicplugError as error:
                done.append(f"{dom.name()}: {error}")
    return done


async def serve(uri: str | None) -> None:
    """Plug in the NICs of guests that start, for as long as libvirt is there."""
    libvirtaio.virEventRegisterAsyncIOImpl()
    conn = await asyncio.to_thread(libvirt.open, uri)
    conn.setKeepAlive(5, 3)
    started: asyncio.Queue[libvirt.virDomain | None] = asyncio.Queue()

    def lifecycle(_conn: libvirt.virConnect, dom: libvirt.virDomain, event: int, *_: object) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
            started.put_nowait(dom)

    conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, None)
    conn.registerCloseCallback(lambda *_: started.put_nowait(None), None)
    print("waiting for guests to start", flush=True)
    while (dom := await started.get()) is not None:
        # What blocks, as all of nicplug's calls and libvirt's do, has a thread of its own.
        for line in await asyncio.to_thread(plug_all, dom):
            print(line, flush=True)


def main() -> None:
    """Serve until libvirt goes away, or Ctrl-C."""
    parser = argparse.ArgumentParser(description="Plug NICs in when their guests start.")
    parser.add_argument("-c", "--connect", metavar="URI", help="libvirt connection URI")
    asyncio.run(serve(parser.parse_args().connect))
    print("libvirt has gone away")


if __name__ == "__main__":
    try:
        main()
    except (nicplug_xml.NicplugError, libvirt.libvirtError) as error:
        sys.exit(f"autoplug: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
