"""Plane tap on a newer libvirt than the distribution's, where it is at hand: what it does otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import libvirt
import pytest

from nicplug_xml import (
    Backend,
    Connection,
    OperationError,
    attach_backend,
    define,
    detach_backend,
    interfaces,
    set_link,
    xml_desc,
)
from nicplug_xml.cli.main import main
from nicplug_xml.host.connection import ensure_parking
from tests.live.conftest import devices, everything, fail_once, interface_xml, master, target
from tests.live.test_networks import active
from tests.patched import prefix

if TYPE_CHECKING:
    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.plugin import GuestFactory

MAC = "52:54:00:11:30:01"
LAB = "<bridge name='nplab' stp='off' delay='0'/><portgroup name='a'/><portgroup name='b'/>"


@pytest.fixture(scope="module")
def newer_daemon(libvirt_isolated: None) -> Iterator[PrivateDaemon]:
    """A newer libvirtd; our patches to it leave alone who does not ask for plane native."""
    from nicplug_xml.testing.daemon import private_daemon

    try:
        newer = prefix("libvirt-11.3.0")
    except OperationError as error:
        pytest.skip(f"there is no source of it here: {error}")
    with private_daemon(hook=False, libvirtd=newer / "sbin" / "libvirtd") as daemon:
        yield daemon


@pytest.fixture
def libvirt_connection(
    newer_daemon: PrivateDaemon, libvirt_daemon: PrivateDaemon
) -> Iterator[libvirt.virConnect]:
    """A connection to it, for the fixtures that ask for one."""
    # Two of them cannot park in one place.
    libvirt_daemon.start()
    for other in libvirt_daemon.connect().listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE):
        other.destroy()
    newer_daemon.start()
    conn = newer_daemon.connect()
    yield conn
    newer_daemon.disconnect(conn)


@pytest.fixture
def dom(libvirt_guest: GuestFactory, nic_xml: Callable[..., str]) -> libvirt.virDomain:
    """A running guest's domain, with a deferred NIC on plane tap."""
    return libvirt_guest(nic_xml(MAC), define=partial(define, plane="tap"), timeout=None).dom


def lab(group: str) -> Backend:
    """Return the network "lab", by one of its portgroups or, for an empty string, by none."""
    return Backend("network", (f"<source network='lab'{f' portgroup={group!r}' * bool(group)}/>",))


def test_a_network_by_its_portgroups(libvirt_connection: libvirt.virConnect, dom: libvirt.virDomain) -> None:
    """From one network to another, the parking network included, libvirt refuses another portgroup."""
    with active(libvirt_connection, LAB) as net:
        for group in ("a", "b", "", "a"):
            assert attach_backend(dom, MAC, lab(group)).changed
            assert not attach_backend(dom, MAC, lab(group)).changed
            assert ("portgroup=" in interface_xml(dom), group in interface_xml(dom)) == (bool(group), True)
            assert (master(target(dom, MAC)), len(net.listAllPorts())) == ("nplab", 1)
        assert detach_backend(dom, MAC).backend == lab("a")
        assert (master(target(dom, MAC)), net.listAllPorts()) == ("nicplug-parknet", [])
        assert not detach_backend(dom, MAC).changed
        again = attach_backend(dom, MAC).backend
        assert again
        assert lab("a").is_within(again)


@pytest.mark.parametrize("failing", ["record", "check"])
@pytest.mark.parametrize("first", ["", "a"])
def test_a_late_failure_takes_it_back_to_its_portgroup(
    libvirt_connection: libvirt.virConnect,
    dom: libvirt.virDomain,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    first: str,
) -> None:
    """That anything but libvirt's part fails cannot be had for real."""
    with active(libvirt_connection, LAB):
        for group in ("b", first):
            attach_backend(dom, MAC, lab(group))
        before = everything(dom)
        fail_once(monkeypatch, failing)
        with pytest.raises(OperationError, match=r"the disk is full; the NIC is attached to network lab now"):
            attach_backend(dom, MAC, lab("b"))
        assert everything(dom) == before


def test_the_link_of_a_nic_in_a_network(
    libvirt_connection: libvirt.virConnect, dom: libvirt.virDomain
) -> None:
    """libvirt has a new port of the network for it after each update."""
    with active(libvirt_connection, LAB) as net:
        attach_backend(dom, MAC, lab(""))
        for up in (False, True):
            status = set_link(dom, MAC, up)
            assert (status.changed, status.carrier, status.connection) == (True, up, Connection.ATTACHED)
            assert len(net.listAllPorts()) == 1


def test_what_it_alone_knows_can_be_defined(
    libvirt_connection: libvirt.virConnect,
    newer_daemon: PrivateDaemon,
    dom: libvirt.virDomain,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It shows more than the schemas here have, which are the distribution's."""
    file = tmp_path / "vm.xml"
    file.write_text(xml_desc(dom, libvirt.VIR_DOMAIN_XML_INACTIVE))
    dom.destroy()
    for command, verb in (("define", "defined"), ("create", "started")):
        arguments = ["-c", newer_daemon.uri, command, str(file), "--plane", "tap"]
        assert main(arguments) == 1
        assert re.search(
            r"is not valid: .*where libvirt is newer .* --skip-validate", capsys.readouterr().err
        )
        assert main([*arguments, "--skip-validate"]) == 0
        assert capsys.readouterr().out == f"Domain '{dom.name()}' {verb} from {file}\n"
        assert [nic.plane for nic in interfaces(dom)] == ["tap"]


def test_another_libvirtds_parking_place_is_left_alone(
    libvirt_daemon: PrivateDaemon, newer_daemon: PrivateDaemon, libvirt_connection: libvirt.virConnect
) -> None:
    """It would remove a bridge that keeps it from making one."""
    for network in libvirt_connection.listAllNetworks():
        network.destroy()
    libvirt_daemon.start()
    ensure_parking(libvirt_daemon.connect())
    with pytest.raises(OperationError, match=r"a bridge nicplug-parknet, and .* not this .*plane hub"):
        ensure_parking(libvirt_connection)
    assert "nicplug-parknet" in devices()
