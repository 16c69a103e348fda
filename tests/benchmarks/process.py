"""The command as a process, against virsh and bare Python."""

from __future__ import annotations

import compileall
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from figures import Compare, Figure, Goal
from nic import live_xml, require_master, tap
from timing import Numbers, Variant, milliseconds, numbers, side_by_side, timed

import nicplug_xml
from nicplug_xml import attach_backend
from nicplug_xml.backends import bridge
from nicplug_xml.testing.commands import run
from nicplug_xml.testing.guest import Guest

_NICPLUG = str(Path(sys.executable).with_name("nicplug"))

# A process starts with the peak of the one that it was made from: take a small one for that.
_LAUNCHER = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ,
    file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)])
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def measure(
    uri: str, guest: Guest, mac: str, bridges: tuple[str, str], workdir: Path, rounds: int
) -> list[Figure]:
    """Measure processes that talk to a libvirtd.

    :param uri: of the libvirtd.
    :param guest: a running guest of its.
    :param mac: of a NIC of the guest that is unplugged; it stays plugged in.
    :param bridges: two bridges to move it between.
    :param workdir: for the XML files that virsh is to read.
    :param rounds: how many rounds count.
    """
    # As pip does when it installs a package; some environments keep Python from doing so by itself.
    compileall.compile_dir(Path(nicplug_xml.__file__).parent, quiet=2)
    nicplug = [_NICPLUG, "-c", uri]
    ours, virshs = _attach(nicplug, uri, guest, mac, bridges, workdir)
    attach, update = side_by_side(rounds, ours, virshs)
    starting, bare = side_by_side(
        rounds,
        lambda: {"time": timed(lambda: run([_NICPLUG, "--help"]))},
        lambda: {"time": timed(lambda: run([sys.executable, "-c", "pass"]))},
    )
    other = itertools.cycle(bridges)
    next(other)
    attach_memory = [
        _peak([*nicplug, "attach-backend", guest.name, mac, "--bridge", next(other)]) for _ in range(5)
    ]
    list_memory = [_peak([*nicplug, "list"]) for _ in range(5)]
    return [
        Figure(
            "nicplug attach-backend (process)",
            milliseconds(attach["time"]), milliseconds(update["time"]), "virsh update-device",
            goal=Goal("≤", 3),
        ),
        Figure(
            "nicplug --help (process)",
            milliseconds(starting["time"]), milliseconds(bare["time"]), "python -c pass", goal=Goal("<", 2),
        ),
        _memory("nicplug attach-backend, peak memory", attach_memory),
        _memory("nicplug list, peak memory", list_memory),
    ]  # fmt: skip


def _attach(
    nicplug: list[str], uri: str, guest: Guest, mac: str, bridges: tuple[str, str], workdir: Path
) -> tuple[Variant, Variant]:
    """Return the two ways of moving the NIC to the bridge that it is not on."""
    files = {}
    for place in bridges:
        attach_backend(guest.dom, mac, bridge.backend(place))
        files[place] = workdir / f"{place}.xml"
        files[place].write_text(live_xml(guest.dom, mac))
    device, places = tap(guest.dom, mac), itertools.cycle(bridges)

    def move(command: Sequence[str], place: str) -> dict[str, float]:
        seconds = timed(lambda: run(command))
        require_master(device, place)
        return {"time": seconds}

    def with_nicplug() -> dict[str, float]:
        place = next(places)
        return move([*nicplug, "attach-backend", guest.name, mac, "--bridge", place], place)

    def with_virsh() -> dict[str, float]:
        place = next(places)
        return move(["virsh", "-c", uri, "update-device", guest.name, str(files[place]), "--live"], place)

    return with_nicplug, with_virsh


def _peak(argv: list[str]) -> float:
    """Return a process's peak memory in MB."""
    kib = int(run([sys.executable, "-I", "-S", "-c", _LAUNCHER, *argv]))
    return kib * 1024 / 1e6


def _memory(what: str, peaks: list[float]) -> Figure:
    measured: Numbers = numbers(peaks, "MB")
    return Figure(what, measured, compare=Compare.OWN, goal=Goal("<", 60, "MB"))
