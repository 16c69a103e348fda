"""update_device, where virDomain.updateDeviceFlags would be: on real guests, as the guest sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import libvirt
import pytest

from nicplug_xml import (
    Connection,
    NicplugError,
    NotFoundError,
    SchemaError,
    UnsupportedError,
    attach_backend,
    define,
    update_device,
)
from nicplug_xml.backends import bridge
from nicplug_xml.cli.main import main
from tests.live.conftest import (
    PARKING,
    everything,
    extended_interface_xml,
    identity,
    interface_xml,
    master,
    run,
)

if TYPE_CHECKING:
    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.plugin import BridgeFactory, GuestFactory

NewMac = Callable[[], str]
NicXml = Callable[..., str]
LIVE, CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
BOTH = LIVE | CONFIG

ATTACHED = "connection='attached' type='{}'"
DEFERRED = "connection='deferred' type='{}'"


@pytest.fixture
def new_guest(libvirt_guest: GuestFactory, nic_xml: NicXml) -> Callable[..., Guest]:
    """A factory of running guests with one deferred NIC on a plane."""

    def make(mac: str, plane: str, more: str = "") -> Guest:
        return libvirt_guest(nic_xml(mac) + more, define=lambda conn, xml: define(conn, xml, plane=plane))

    return make


def test_plane_hub_any_type(
    new_guest: Callable[..., Guest], libvirt_bridge: BridgeFactory, nic_xml: NicXml, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = new_guest(mac, "hub")
    before = identity(guest, mac)
    for address in ("192.0.2.2/24", "10.0.2.15/24"):
        guest.set_address(mac, address)
    source = f"<source bridge='{blue}'/>"

    status = update_device(guest.dom, nic_xml(mac, source, ATTACHED.format("bridge")))
    assert (status.connection, status.carrier, status.changed) == (Connection.ATTACHED, True, True)
    guest.wait_carrier(mac, up=True)
    assert guest.ping("192.0.2.1", count=5)

    plugged = everything(guest.dom)
    for same in (nic_xml(mac, source, ATTACHED.format("bridge")), extended_interface_xml(guest.dom)):
        assert not update_device(guest.dom, same).changed
    assert everything(guest.dom) == plugged

    status = update_device(guest.dom, nic_xml(mac, attributes="type='user'"))
    assert status.backend is not None
    assert status.backend.type == "user"
    assert guest.ping("10.0.2.2", count=5)
    assert run("ip", "link", "show", "master", blue.name) == ""

    down = nic_xml(mac, "<link state='down'/>", "type='user'")
    assert update_device(guest.dom, down).link == "down"
    guest.wait_carrier(mac, up=False)
    assert update_device(guest.dom, nic_xml(mac, attributes="type='user'")).link == "up"
    guest.wait_carrier(mac, up=True)
    assert guest.ping("10.0.2.2", count=5)

    status = update_device(guest.dom, nic_xml(mac, source, DEFERRED.format("bridge")))
    assert (status.connection, status.carrier) == (Connection.DEFERRED, False)
    guest.wait_carrier(mac, up=False)
    assert not guest.ping("10.0.2.2", timeout=1)
    attach_backend(guest.dom, mac)
    assert guest.ping("192.0.2.1", count=5)
    assert identity(guest, mac) == before


def test_plane_tap(
    new_guest: Callable[..., Guest], libvirt_bridge: BridgeFactory, nic_xml: NicXml, new_mac: NewMac
) -> None:
    mac, blue, green = new_mac(), libvirt_bridge("192.0.2.1/24"), libvirt_bridge("198.51.100.1/24")
    guest = new_guest(mac, "tap")
    before = identity(guest, mac)
    for address in ("192.0.2.2/24", "198.51.100.2/24"):
        guest.set_address(mac, address)

    def to(place: object, attributes: str, rest: str = "") -> str:
        return nic_xml(mac, f"<source bridge='{place}'/>{rest}", attributes)

    # Without connection= it stays as it is: of a deferred one only the intended backend changes.
    status = update_device(guest.dom, to(blue, "type='bridge'"))
    assert (status.connection, status.carrier, status.changed) == (Connection.DEFERRED, False, True)
    assert master(status.target) in PARKING
    assert f"<source bridge='{blue}'/>" in extended_interface_xml(guest.dom)

    edited = extended_interface_xml(guest.dom).replace("connection='deferred'", "connection='attached'")
    status = update_device(guest.dom, edited, BOTH)
    assert master(status.target) == blue.name
    assert guest.ping("192.0.2.1", count=5)
    assert f"<source bridge='{blue}'/>" in guest.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)

    update_device(guest.dom, to(green, "type='bridge'"))
    assert guest.ping("198.51.100.1", count=5)
    assert not guest.ping("192.0.2.1", timeout=1)
    plugged = everything(guest.dom)
    assert not update_device(guest.dom, extended_interface_xml(guest.dom)).changed
    assert everything(guest.dom) == plugged

    assert not update_device(guest.dom, to(green, "type='bridge'", "<link state='down'/>")).carrier
    guest.wait_carrier(mac, up=False)

    status = update_device(guest.dom, to(blue, DEFERRED.format("bridge")))
    assert (status.connection, status.link) == (Connection.DEFERRED, "up")
    assert master(status.target) in PARKING
    attach_backend(guest.dom, mac)
    assert guest.ping("192.0.2.1", count=5)
    bare = update_device(guest.dom, nic_xml(mac))
    assert (bare.connection, bare.backend) == (Connection.DEFERRED, None)
    assert identity(guest, mac) == before


def test_the_persistent_definition(
    new_guest: Callable[..., Guest], libvirt_bridge: BridgeFactory, nic_xml: NicXml, new_mac: NewMac
) -> None:
    mac, blue = new_mac(), libvirt_bridge()
    guest = new_guest(mac, "tap")
    live = guest.dom.XMLDesc()
    rules = "<bandwidth><inbound average='1000' peak='5000'/></bandwidth><filterref filter='clean-traffic'/>"
    nic = nic_xml(mac, f"<source bridge='{blue}'/>{rules}", ATTACHED.format("bridge"))

    def persistent() -> str:
        return str(guest.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))

    slot = persistent().partition(mac)[2].partition("<address ")[2].partition("/>")[0]
    assert update_device(guest.dom, nic, CONFIG).changed
    assert "<inbound average='1000' peak='5000'/>" in persistent()
    assert "<filterref filter='clean-traffic'/>" in persistent()
    assert not update_device(guest.dom, nic, CONFIG).changed

    # What is left out is to go, but for what libvirt fills in.
    less = nic.replace(" peak='5000'", "").replace("<filterref filter='clean-traffic'/>", "")
    update_device(guest.dom, less, CONFIG)
    assert "<inbound average='1000'/>" in persistent()
    assert "<filterref" not in persistent()

    update_device(guest.dom, less.replace("virtio", "e1000"), CONFIG)
    assert "<model type='e1000'/>" in persistent()
    assert f"<source bridge='{blue}'/>" in persistent()
    assert slot in persistent()
    assert guest.dom.XMLDesc() == live


@pytest.mark.parametrize("plane", ["tap", "hub"])
def test_refusals_change_nothing(
    new_guest: Callable[..., Guest],
    libvirt_bridge: BridgeFactory,
    nic_xml: NicXml,
    new_mac: NewMac,
    plane: str,
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = new_guest(mac, plane)
    guest.set_address(mac, "192.0.2.2/24")
    nic = nic_xml(mac, f"<source bridge='{blue}'/>", ATTACHED.format("bridge"))
    name = update_device(guest.dom, nic).interface
    running = rf"of {name} of \S+ while the domain runs; change the (persistent definition|whole domain)"

    def extra(xml: str) -> str:
        return nic.replace("<source", f"{xml}<source")

    cases: list[tuple[type[NicplugError], str, str]] = [
        (UnsupportedError, f"<model .* to <model type='e1000'/> {running}", nic.replace("virtio", "e1000")),
        (UnsupportedError, f"no boot to <boot order='1'/> {running}", extra("<boot order='1'/>")),
        (UnsupportedError, f"<rom .* to no rom {running}", nic.replace("<rom enabled='no'/>", "")),
        (UnsupportedError, f"to <driver queues='4'/> {running}", extra("<driver queues='4'/>")),
        (UnsupportedError, f"<alias .*to <alias name='ua-x'/> {running}", extra("<alias name='ua-x'/>")),
        (UnsupportedError, f"target.* to <target dev='x0'/> {running}", extra("<target dev='x0'/>")),
        (UnsupportedError, f"to <mtu size='1400'/> {running}", extra("<mtu size='1400'/>")),
        (
            UnsupportedError,
            f"<address .*bus='0x1f'.*{running}",
            extra("<address type='pci' domain='0' bus='0x1f' slot='0' function='0'/>"),
        ),
        (NotFoundError, "no interface '52:54:00:00:00:99'; it has", nic.replace(mac, "52:54:00:00:00:99")),
        (SchemaError, "not valid: line 1: .* needs a type", nic_xml(mac, attributes="connection='attached'")),
        (SchemaError, "not valid: .*no attribute conection", nic.replace("connection", "conection")),
        (UnsupportedError, "cannot plug .* into type='vdpa'; it can", nic_xml(mac, "", "type='vdpa'")),
        (SchemaError, "expected, not <disk>", "<disk type='file'/>"),
        (SchemaError, "means nothing", nic.replace("'attached'", "'maybe'")),
        (NicplugError, "could not update .*backend .bridge nope.*nope", nic.replace(str(blue), "nope")),
    ]  # fmt: skip
    # The kernel takes up to a second to tell that a bridge with its first port is up.
    assert guest.ping("192.0.2.1", count=8).received > 3
    before = everything(guest.dom)
    for kind, why, xml in cases:
        with pytest.raises(kind, match=why) as caught:
            update_device(guest.dom, xml)
        assert "\n" not in str(caught.value)
        assert everything(guest.dom) == before
    assert guest.ping("192.0.2.1", count=5)


def test_the_parking_place_is_no_backend(
    new_guest: Callable[..., Guest], libvirt_bridge: BridgeFactory, nic_xml: NicXml, new_mac: NewMac
) -> None:
    """libvirt's own XML has a NIC there that is not plugged in; its intended backend is not to get lost."""
    mac, blue = new_mac(), libvirt_bridge()
    dom = new_guest(mac, "tap").dom
    update_device(dom, nic_xml(mac, f"<source bridge='{blue}'/>", "type='bridge' connection='deferred'"))
    before = everything(dom)
    with pytest.raises(UnsupportedError, match=r"nicplug-park(ing)? is where NICs are .*nicplug dumpxml"):
        update_device(dom, interface_xml(dom))
    assert everything(dom) == before
    assert attach_backend(dom, mac).backend == bridge.backend(blue.name)


def test_a_stock_nic_is_left_to_libvirt(
    libvirt_guest: GuestFactory, libvirt_bridge: BridgeFactory, nic_xml: NicXml, new_mac: NewMac
) -> None:
    mac, blue, green = new_mac(), libvirt_bridge(), libvirt_bridge()
    guest = libvirt_guest(nic_xml(mac, f"<source bridge='{blue}'/>", "type='bridge'"))
    nic = interface_xml(guest.dom)
    status = update_device(guest.dom, nic.replace(str(blue), str(green)))
    assert (master(status.target), status.plane, status.changed) == (green.name, None, True)
    update_device(guest.dom, nic_xml(mac, f"<source bridge='{green}'/><link state='down'/>", "type='bridge'"))
    guest.wait_carrier(mac, up=False)
    before = everything(guest.dom)
    refused = (nic_xml(mac, attributes="type='user'"), nic.replace("virtio", "e1000"))
    for xml in refused:
        with pytest.raises(libvirt.libvirtError) as theirs:
            guest.dom.updateDeviceFlags(xml, LIVE)
        with pytest.raises(NicplugError) as ours:
            update_device(guest.dom, xml)
        assert str(theirs.value) in str(ours.value)
        assert everything(guest.dom) == before
    with pytest.raises(UnsupportedError, match="was not provisioned as pluggable; add connection="):
        update_device(guest.dom, nic.replace("<interface", "<interface connection='attached'"))
    assert everything(guest.dom) == before


@pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)
def test_the_command(
    new_guest: Callable[..., Guest],
    libvirt_daemon: PrivateDaemon,
    libvirt_bridge: BridgeFactory,
    nic_xml: NicXml,
    new_mac: NewMac,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = new_guest(mac, "tap")
    guest.set_address(mac, "192.0.2.2/24")
    file = tmp_path / "nic.xml"
    file.write_text(nic_xml(mac, f"<source bridge='{blue}'/>", ATTACHED.format("bridge")))
    command = ("-c", libvirt_daemon.uri, "update-device", guest.name, str(file), "--live")
    before = everything(guest.dom)
    assert main((*command, "--dry-run")) == 0
    assert f"connection (attached), backend (bridge {blue})" in capsys.readouterr().out
    assert everything(guest.dom) == before
    assert main(command) == 0
    assert f"is plugged into bridge {blue}" in capsys.readouterr().out
    assert guest.ping("192.0.2.1", count=5)
    assert main(command) == 0
    assert "it was so already, nothing changed" in capsys.readouterr().out
    file.write_text(nic_xml(mac, attributes="connection='attached' type='user'"))
    assert main(command) == 1
    assert "cannot plug" in capsys.readouterr().err
