"""The command as a process, against virsh and bare Python."""

from __future__ import annotations

import compileall
import itertools
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from figures import Compare, Figure, Goal
from nic import live_xml, require_master, tap
from timing import Numbers, Variant, milliseconds, numbers, side_by_side, timed

import nicplug_xml
from nicplug_xml import attach_backend, detach_backend
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
    :param bridges: two bridges to plug it into, and to move it between.
    :param workdir: for the XML files that virsh is to read.
    :param rounds: how many rounds count.
    """
    # As pip does when it installs a package; some environments keep Python from doing so by itself.
    compileall.compile_dir(Path(nicplug_xml.__file__).parent, quiet=2)
    nicplug = [_NICPLUG, "-c", uri]
    announced, silent, update = side_by_side(rounds, *_ways(nicplug, uri, guest, mac, bridges, workdir))
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
    compared = [
        ("attach-backend", announced, "attach", Goal("≤", 3)),
        ("attach-backend --no-announce", silent, "attach", Goal("≤", 3)),
        ("attach-backend, a move", announced, "move", None),
        ("attach-backend --no-announce, a move", silent, "move", None),
        ("detach-backend", silent, "detach", None),
    ]
    return [
        *(
            Figure(
                f"nicplug {what} (process)",
                milliseconds(own[name]), milliseconds(update[name]), "virsh update-device", goal=goal,
            )
            for what, own, name, goal in compared
        ),
        Figure(
            "nicplug --help (process)",
            milliseconds(starting["time"]), milliseconds(bare["time"]), "python -c pass", goal=Goal("<", 2),
        ),
        _memory("nicplug attach-backend, peak memory", attach_memory),
        _memory("nicplug list, peak memory", list_memory),
    ]  # fmt: skip


def _ways(
    nicplug: list[str], uri: str, guest: Guest, mac: str, bridges: tuple[str, str], workdir: Path
) -> tuple[Variant, ...]:
    """Return the ways of plugging the NIC into the one bridge, moving it to the other, and unplugging it."""
    files, device = [], tap(guest.dom, mac)
    for place in bridges:
        attach_backend(guest.dom, mac, bridge.backend(place))
        files.append(_written(workdir / f"{place}.xml", guest, mac))
    detach_backend(guest.dom, mac)
    files.append(_written(workdir / "parked.xml", guest, mac))
    places = (*bridges, _master(device))

    def way(*commands: Sequence[str]) -> Variant:
        def variant() -> dict[str, float]:
            measured = {}
            for name, place, command in zip(("attach", "move", "detach"), places, commands, strict=True):
                measured[name] = timed(partial(run, command))
                require_master(device, place)
            return measured

        return variant

    def with_nicplug(*options: str) -> Variant:
        attach = [*nicplug, "attach-backend", guest.name, mac, *options, "--bridge"]
        return way(*([*attach, place] for place in bridges), [*nicplug, "detach-backend", guest.name, mac])

    virsh = ["virsh", "-c", uri, "update-device", "--live", guest.name]
    return with_nicplug(), with_nicplug("--no-announce"), way(*([*virsh, file] for file in files))


def _written(path: Path, guest: Guest, mac: str) -> str:
    path.write_text(live_xml(guest.dom, mac))
    return str(path)


def _master(device: str) -> str:
    return Path("/sys/class/net", device, "master").resolve().name


def _peak(argv: list[str]) -> float:
    """Return a process's peak memory in MB."""
    kib = int(run([sys.executable, "-I", "-S", "-c", _LAUNCHER, *argv]))
    return kib * 1024 / 1e6


def _memory(what: str, peaks: list[float]) -> Figure:
    measured: Numbers = numbers(peaks, "MB")
    return Figure(what, measured, compare=Compare.OWN, goal=Goal("<", 60, "MB"))
