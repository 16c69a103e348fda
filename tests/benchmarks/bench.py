"""Side by side: nicplug against what one would do otherwise, on this machine, in one run.

Everything happens in namespaces of this process's own, and is gone when it ends.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import crowd
import datapath
import hotplug
import hub
import in_process
import open_vswitch
import pings
import process
import redirect
import report
import rewriter
import swap
import validate
from figures import Figure
from nic import nic_xml

import nicplug_xml
from nicplug_xml.testing.commands import short_directory
from nicplug_xml.testing.daemon import private_daemon
from nicplug_xml.testing.embedded import embedded_connection
from nicplug_xml.testing.guest import Guest, boot_guest
from nicplug_xml.testing.namespace import isolate
from nicplug_xml.testing.network import Bridge
from nicplug_xml.testing.ovs import private_ovs

if TYPE_CHECKING:
    import libvirt

_BRIDGES = ("np-blue", "np-green")
_PLUGGABLE, _STOCK = "52:54:00:00:00:01", "52:54:00:00:00:02"


def main() -> int:
    """Measure, and print the table.

    :returns: 0; a goal that is missed is told in the table.
    """
    arguments = _arguments()
    isolate()
    started = time.monotonic()
    with ExitStack() as resources:
        workdir = resources.enter_context(short_directory())
        for name in _BRIDGES:
            resources.callback(Bridge(name=name).close)
        figures = [*_embedded(workdir, arguments.quick), *_daemon(workdir, arguments.quick)]
        figures += _swap(workdir, arguments.quick, report.PICTURE if arguments.docs else None)
        _progress("validation of files")
        figures += validate.measure(workdir, 1 if arguments.quick else 3)
    seconds = time.monotonic() - started
    print(f"{report.plain(figures)}\n\n{report.summary(figures, seconds)}")
    if arguments.docs:
        report.write_docs(figures, seconds, "`--quick`" if arguments.quick else "")
    if arguments.json:
        arguments.json.write(json.dumps([figure.as_json() for figure in figures], indent=2) + "\n")
    return 0


def _embedded(workdir: Path, quick: bool) -> list[Figure]:
    with embedded_connection() as conn:
        _progress("how fast the rewriter is")
        figures = rewriter.measure(conn, _BRIDGES[0], workdir, 3 if quick else 15)
        _progress("attach, move and detach in process")
        guest = _boot(conn, "plug", nic_xml(_PLUGGABLE), workdir)
        figures += in_process.measure(guest.dom, _PLUGGABLE, _BRIDGES, 20 if quick else 200)
        _progress("attach by redirects in process")
        figures += redirect.measure(guest.dom, _PLUGGABLE, 20 if quick else 100)
        _progress("Open vSwitch")
        with private_ovs() as switch:
            figures += open_vswitch.measure(guest.dom, _PLUGGABLE, switch, 10 if quick else 100)
        _progress("pings lost by moves")
        figures += pings.measure(guest, _PLUGGABLE, _BRIDGES, 2 if quick else 8)
        guest.remove()
        _progress("plane hub")
        guest = _boot(conn, "hub", nic_xml(_PLUGGABLE), workdir, plane="hub")
        figures += hub.measure(guest.dom, _PLUGGABLE, _BRIDGES[0], 20 if quick else 100)
        guest.remove()
        _progress("attach against hot-plug")
        stock = nic_xml(_STOCK, "type='bridge'", f"<source bridge='{_BRIDGES[0]}'/>")
        guest = _boot(conn, "hotplug", nic_xml(_PLUGGABLE) + stock, workdir)
        figures += hotplug.measure(guest, _PLUGGABLE, _STOCK, _BRIDGES, 5 if quick else 30)
        guest.remove()
        _progress("few and many NICs")
        return figures + crowd.measure(conn, _BRIDGES[0], 20 if quick else 60)


def _daemon(workdir: Path, quick: bool) -> list[Figure]:
    with private_ovs() as switch, private_daemon() as daemon:
        _progress("processes")
        guest = _boot(daemon.connect(), "process", nic_xml(_PLUGGABLE), workdir)
        figures = process.measure(daemon.uri, guest, _PLUGGABLE, _BRIDGES, workdir, 10 if quick else 40)
        guest.remove()
        _progress("throughput and round trip")
        return figures + datapath.measure(daemon.connect(), switch, workdir, 2 if quick else 10, seconds=1)


def _swap(workdir: Path, quick: bool, picture: Path | None) -> list[Figure]:
    _progress("plane swap, on a QEMU with our patches (built first, if need be)")
    emulator = _patched("qemu-7.2") / "bin" / "qemu-system-x86_64"
    with private_daemon() as daemon:
        figures = swap.measure(daemon.connect(), emulator, workdir, 2 if quick else 10)
        if picture is not None:
            _progress("a stream across moves")
            swap.draw(daemon.connect(), emulator, workdir, picture)
    return figures


def _patched(series: str) -> Path:
    """Return where a patch series is installed, as the live tests have it."""
    sys.path.append(str(Path(__file__).parents[2]))
    from tests.patched import prefix

    return prefix(series)


def _boot(conn: libvirt.virConnect, name: str, nics: str, workdir: Path, plane: str = "auto") -> Guest:
    def define(conn: libvirt.virConnect, xml: str) -> libvirt.virDomain:
        return nicplug_xml.define(conn, xml, plane=plane)

    guest = boot_guest(conn, name, nics, workdir=workdir, define=define)
    guest.wait_ready()
    return guest


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure nicplug against what one would do otherwise.")
    parser.add_argument(
        "--json", type=argparse.FileType("w"), metavar="FILE", help="write the figures to FILE as JSON, too"
    )
    parser.add_argument("--docs", action="store_true", help="write the table into docs/benchmarks.md, too")
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds: some 8 minutes, and less to rely on"
    )
    return parser.parse_args()


def _progress(what: str) -> None:
    print(f"measuring: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
