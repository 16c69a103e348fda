"""The same scenarios on every hypervisor and plane; what one cannot do, it refuses for the reason told."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nicplug_xml import NicplugError, attach_backend, define
from nicplug_xml.backends import bridge
from nicplug_xml.testing.commands import short_directory
from nicplug_xml.testing.container import boot_container
from nicplug_xml.testing.control_groups import available
from nicplug_xml.testing.guest import boot_guest
from nicplug_xml.testing.network import Bridge, Peer
from nicplug_xml.testing.ovs import OvsBridge
from tests.live import conformance
from tests.live.conformance import PLATFORMS, SCENARIOS, Platform, Scenario, Subject, cannot
from tests.live.conftest import NIC, emulator, everything, run

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.ovs import PrivateOvs

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"
NETWORK = f"""<network><name>npcf</name><bridge name='{conformance.LAB_NETWORK}' stp='off' delay='0'/>
<ip address='{conformance.LAB}' netmask='255.255.255.0'/></network>"""

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def around(libvirt_isolated: None, libvirt_ovs: PrivateOvs) -> Iterator[None]:
    """Have two bridges, a device with somebody behind it, and an Open vSwitch."""
    with ExitStack() as removals:
        # Another test may have stopped it.
        libvirt_ovs.start_vswitchd()
        for name, address in (
            (conformance.BLUE_BRIDGE, conformance.BLUE), (conformance.GREEN_BRIDGE, conformance.GREEN),
        ):  # fmt: skip
            # The host itself would answer for each of its addresses in each of its networks.
            removals.enter_context(
                closing(Peer(removals.enter_context(closing(Bridge(name=name))), f"{address}/24"))
            )
        behind = removals.enter_context(closing(Bridge(name="npcfbehind")))
        device = conformance.HOST_DEVICE
        run("ip", "link", "add", device, "type", "veth", "peer", "name", f"{device}1")
        removals.callback(run, "ip", "link", "delete", device)
        run("ip", "link", "set", f"{device}1", "master", str(behind), "up")
        run("ip", "link", "set", device, "up")
        removals.enter_context(closing(Peer(behind, f"{conformance.DEVICE}/24")))
        switch = OvsBridge(libvirt_ovs, name=conformance.OVS_BRIDGE)
        removals.enter_context(closing(switch))
        switch.peer(f"{conformance.SWITCH}/24")
        yield


@pytest.fixture(scope="module", params=PLATFORMS, ids=str)
def subject(request: pytest.FixtureRequest, around: None) -> Iterator[Subject]:
    """Have two guests on one of the platforms, each with a deferred NIC."""
    platform: Platform = request.param
    if platform.containers and not available():
        pytest.skip("containers need control groups of version 1")
    connect, daemon = _connection(platform, request)
    conn = connect()
    devices = emulator(request.getfixturevalue("patched_qemu")) if platform.patched_qemu else ""
    with short_directory() as workdir, ExitStack() as removals:
        if platform.daemon:
            assert daemon is not None
            qemu = daemon.connect()
            qemu.networkCreateXML(NETWORK)
            removals.callback(lambda: daemon.connect().networkLookupByName("npcf").destroy())
        guests = [
            _boot(platform, conn, macs, devices, workdir, removals)
            for macs in ((conformance.MAC,), conformance.OTHER_MACS)
        ]
        for guest in guests:
            guest.wait_ready(180)

        def restart() -> None:
            assert daemon is not None
            daemon.restart(60)
            anew = connect()
            for guest in guests:
                guest.dom = anew.lookupByName(guest.name)

        subject = Subject(platform, *guests, restart)
        conformance.set_addresses(guests[0], conformance.MAC, conformance.ADDRESSES)
        conformance.set_addresses(guests[1], conformance.OTHER_MAC, (f"{conformance.CABLE}/24",))
        yield subject


def _connection(
    platform: Platform, request: pytest.FixtureRequest
) -> tuple[Callable[[], libvirt.virConnect], PrivateDaemon | None]:
    if not platform.daemon:
        embedded = request.getfixturevalue("libvirt_embedded")
        return lambda: embedded, None
    daemon: PrivateDaemon = request.getfixturevalue(
        "patched_daemon" if platform.patched else "libvirt_daemon"
    )
    # Where libvirt itself is to find Open vSwitch, its environment says.
    daemon.restart(60)
    return (daemon.connect_containers if platform.containers else daemon.connect), daemon


def _boot(
    platform: Platform,
    conn: libvirt.virConnect,
    macs: tuple[str, ...],
    devices: str,
    workdir: Path,
    removals: ExitStack,
) -> Guest:
    boot = boot_container if platform.containers else boot_guest
    name = f"npcf{next(_numbers)}"
    nics = "".join(NIC.format(attributes="connection='deferred'", mac=mac, children="") for mac in macs)
    held = partial(define, plane=platform.plane)
    guest = boot(conn, name, nics, workdir=workdir, define=held, devices_xml=devices)
    removals.callback(guest.remove)
    return guest


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_scenario(
    subject: Subject, scenario: Scenario, record_property: Callable[[str, object], None]
) -> None:
    def saw(what: str) -> None:
        # tests/conftest.py makes the table of what was seen.
        record_property("conformance", (str(scenario), str(subject.platform), what))

    why = cannot(scenario, subject.platform)
    subject.reset()
    try:
        if why is None:
            scenario.run(subject)
            saw("yes")
        elif why.refusal:
            _is_refused(subject, scenario, why.refusal)
            saw("refused")
        else:
            saw("none")
            pytest.skip(why.reason)
    except (Exception, pytest.fail.Exception):
        saw("failed")
        print(subject.guest.log())
        raise


def _is_refused(subject: Subject, scenario: Scenario, refusal: str) -> None:
    """See that nothing is changed when it is asked for, in either state."""
    assert scenario.backend is not None
    for prepare in (lambda: None, lambda: subject.attach(bridge.backend(conformance.BLUE_BRIDGE))):
        prepare()
        before = everything(subject.dom)
        with pytest.raises(NicplugError, match=refusal):
            attach_backend(subject.dom, conformance.MAC, scenario.backend(subject))
        assert everything(subject.dom) == before
    assert subject.answers(conformance.BLUE)


def test_the_documented_matrix_is_what_is_tested() -> None:
    assert conformance.matrix() in DOCUMENT.read_text()
    used = {id(why) for scenario in SCENARIOS for on in PLATFORMS if (why := cannot(scenario, on))}
    assert used == {id(why) for why in conformance.CANNOT.values()}
