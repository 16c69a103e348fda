"""How many domains a second the rewriter does on one core."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from figures import Compare, Figure, Goal
from nic import nic_xml
from timing import numbers

import nicplug_xml
from nicplug_xml import attach_backend, to_extended, to_stock, xml_desc
from nicplug_xml.backends import bridge
from nicplug_xml.testing.guest import boot_guest

if TYPE_CHECKING:
    import libvirt

_DOMAINS = 300
_NICS = (2, 4, 6)
_START_PAUSED = 1  # VIR_DOMAIN_START_PAUSED
_MAC = "52:54:00:b0:00:{:02x}"
_NAME = "nicplug-benchmark-model"

# What servers have, and the tiny guest has not.
_DEVICES = """
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='threads' discard='unmap'/>
      <source file='{workdir}/system.img'/>
      <target dev='vda' bus='virtio'/>
      <serial>system-0001</serial>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='writeback'/>
      <source file='{workdir}/data.img'/>
      <target dev='vdb' bus='virtio'/>
      <iotune><total_bytes_sec>100000000</total_bytes_sec><total_iops_sec>4000</total_iops_sec></iotune>
    </disk>
    <controller type='virtio-serial' index='0'/>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <input type='tablet' bus='virtio'/>
    <rng model='virtio'><rate bytes='1024' period='1000'/><backend model='random'>/dev/urandom</backend></rng>
    <watchdog model='i6300esb' action='reset'/>
    <memballoon model='none'/>
"""
_SETTINGS = """<driver name='qemu' rx_queue_size='512'>
        <host tso4='on' tso6='on' ecn='on' ufo='off'/>
        <guest tso4='on' tso6='on' ecn='on' ufo='off'/>
      </driver>
      <mtu size='1500'/>"""


def measure(conn: libvirt.virConnect, place: str, workdir: Path, rounds: int) -> list[Figure]:
    """Measure over variations of a real domain's live XML.

    :param conn: embedded libvirt, to take that XML from.
    :param place: a bridge for its NICs.
    :param workdir: for its disks, which are empty.
    :param rounds: how many times all domains are gone through.
    """
    extended = _vary([_model(conn, place, workdir, nics) for nics in _NICS])
    stock = [to_stock(xml) for xml in extended]
    plain = [
        xml.replace(" connection='deferred'", "").replace(" connection='attached'", "") for xml in extended
    ]
    sizes = sorted(len(xml) for xml in extended)
    about = f"{len(extended)} domains of {sizes[0] / 1000:.0f} to {sizes[-1] / 1000:.0f} kB"
    goal = Goal("≥", 2000, "a second")
    return [
        _speed(
            f"to_stock, {about}",
            to_stock,
            extended,
            rounds,
            goal,
        ),
        _speed("to_extended, the same", to_extended, stock, rounds, goal),
        _speed("to_stock, the same without connection", to_stock, plain, rounds, goal),
    ]


def _model(conn: libvirt.virConnect, place: str, workdir: Path, nics: int) -> str:
    """Return the live XML of a guest with disks and NICs, of which every other one is plugged in."""
    for disk in ("system.img", "data.img"):
        with (workdir / disk).open("wb") as image:
            image.truncate(1 << 20)
    intended = f"<source bridge='{place}'/>{_SETTINGS}"
    attributes = "type='bridge' connection='deferred'"
    macs = [_MAC.format(number) for number in range(nics)]

    def start(conn: libvirt.virConnect, xml: str) -> libvirt.virDomain:
        dom = nicplug_xml.define(conn, xml)
        # Only its XML is wanted.
        dom.createWithFlags(_START_PAUSED)
        return dom

    guest = boot_guest(
        conn, _NAME, "".join(nic_xml(mac, attributes, intended) for mac in macs),
        workdir=workdir, define=start,
        devices_xml=_DEVICES.format(workdir=workdir).replace("<memballoon model='none'/>", ""),
    )  # fmt: skip
    try:
        for mac in macs[::2]:
            attach_backend(guest.dom, mac, bridge.backend(place), announce=False)
        return xml_desc(guest.dom)
    finally:
        guest.remove()


def _vary(models: list[str]) -> list[str]:
    """Return as many domains, no two with the same name, UUID or MAC address."""
    varied = []
    for number, model in zip(range(_DOMAINS), itertools.cycle(models)):
        uuid = model[model.index("<uuid>") + 6 : model.index("</uuid>")]
        xml = model.replace(_NAME, f"server-{number:04}").replace(uuid, f"{uuid[:-4]}{number:04x}")
        varied.append(xml.replace(_MAC[:14], f"52:54:00:{number >> 8:02x}:{number & 255:02x}"))
    return varied


def _speed(what: str, rewrite: Callable[[str], str], documents: list[str], rounds: int, goal: Goal) -> Figure:
    speeds = []
    for _ in range(rounds):
        # Of processor time, so that other processes of the machine do not count.
        started = time.thread_time()
        for document in documents:
            rewrite(document)
        speeds.append(len(documents) / (time.thread_time() - started))
    return Figure(what, numbers(speeds, "a second", more_is_better=True), compare=Compare.OWN, goal=goal)
