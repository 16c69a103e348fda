"""Whatever goes wrong: a clear error, and the NIC, the domain's XML and the host exactly as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import libvirt
import pytest

from nicplug_xml import (
    Backend,
    NotFoundError,
    OperationError,
    SchemaError,
    UnsupportedError,
    attach_backend,
    create,
    define,
    detach_backend,
)
from nicplug_xml.backends import bridge, network
from nicplug_xml.host.domain import Domain
from nicplug_xml.model import Scope
from nicplug_xml.plan import Plan
from tests.live.conftest import everything, fail_once, run

if TYPE_CHECKING:
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.plugin import BridgeFactory, GuestFactory

NewMac = Callable[[], str]
NewGuest = Callable[..., "Guest"]
LIVE, CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG


def test_refused_attachments_change_nothing(
    libvirt_connection: libvirt.virConnect,
    libvirt_guest: GuestFactory,
    libvirt_bridge: BridgeFactory,
    nic_xml: Callable[..., str],
    new_mac: NewMac,
) -> None:
    blue, mac, stock = libvirt_bridge("192.0.2.1/24"), new_mac(), new_mac()
    nics = nic_xml(mac) + nic_xml(stock, f"<source bridge='{blue}'/>", "type='bridge'")
    guest = libvirt_guest(nics, define=define)
    guest.set_address(mac, "192.0.2.2/24")
    cases: list[tuple[type[Exception], str, str, Backend | None]] = [
        (SchemaError, "no intended backend; name one", mac, None),
        (
            OperationError,
            "bridge .*nope.* doesn't exist.*NIC is {} now; 'ip link show",
            mac,
            bridge.backend("nope"),
        ),
        (NotFoundError, "has no interface 'vnet99'; it has ", "vnet99", bridge.backend(blue.name)),
        (UnsupportedError, "not provisioned as pluggable; add connection=", stock, bridge.backend(blue.name)),
        (UnsupportedError, "cannot plug .* into type='user'; it can: bridge, cable", mac, Backend("user")),
        (Exception, "network", mac, network.backend("nope")),
    ]
    for state in (r"deferred \(unplugged\)", f"attached to bridge {blue}"):
        if "attached" in state:
            attach_backend(guest.dom, mac, bridge.backend(blue.name))
            cases = cases[1:]
        before = everything(guest.dom)
        for kind, why, name, backend in cases:
            with pytest.raises(kind, match=why.format(state)) as caught:
                attach_backend(guest.dom, name, backend)
            assert "\n" not in str(caught.value)
            assert everything(guest.dom) == before
    assert guest.ping("192.0.2.1", count=5)


def test_a_bridge_with_an_mtu_that_no_tap_can_have(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    blue, mac = libvirt_bridge(), new_mac()
    run("ip", "link", "set", blue.name, "mtu", "65535")
    dom = deferred_guest(mac, timeout=None).dom
    before = everything(dom)
    with pytest.raises(OperationError, match=r"failed: the kernel refuses: .*mtu.*; the NIC is deferred"):
        attach_backend(dom, mac, bridge.backend(blue.name))
    assert everything(dom) == before


@pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)
def test_a_network_that_is_not_active(
    libvirt_connection: libvirt.virConnect, deferred_guest: NewGuest, new_mac: NewMac
) -> None:
    mac = new_mac()
    guest = deferred_guest(mac, timeout=None)
    net = libvirt_connection.networkDefineXML(
        "<network><name>sleeping</name><bridge name='npsleep'/></network>"
    )
    try:
        before = everything(guest.dom)
        with pytest.raises(
            NotFoundError, match=r"'sleeping' is not active.*'virsh net-start sleeping' starts it"
        ):
            attach_backend(guest.dom, mac, network.backend("sleeping"))
        with pytest.raises(NotFoundError, match=r"no network 'nope'.*'virsh net-list --all' lists them"):
            attach_backend(guest.dom, mac, network.backend("nope"))
        assert everything(guest.dom) == before
    finally:
        net.undefine()


def test_what_flags_ask_for_must_be_there(
    libvirt_connection: libvirt.virConnect, deferred_guest: NewGuest, new_mac: NewMac
) -> None:
    mac = new_mac()
    guest = deferred_guest(mac, transient=True, timeout=None)
    before = everything(guest.dom)
    for flags in (CONFIG, LIVE | CONFIG):
        with pytest.raises(UnsupportedError, match="is transient"):
            attach_backend(guest.dom, mac, bridge.backend("lo"), flags=flags)
    assert everything(guest.dom) == before
    xml = guest.dom.XMLDesc()
    guest.dom.destroy()
    dom = libvirt_connection.defineXML(xml)
    with pytest.raises(UnsupportedError, match="is not running; start it"):
        detach_backend(dom, mac, flags=LIVE)
    with pytest.raises(UnsupportedError, match="is not running"):
        attach_backend(dom, mac, bridge.backend("lo"), flags=LIVE | CONFIG)


def test_an_ambiguous_name_lists_the_candidates(
    libvirt_connection: libvirt.virConnect,
    libvirt_guest: GuestFactory,
    nic_xml: Callable[..., str],
    new_mac: NewMac,
) -> None:
    mac = new_mac()
    nics = "".join(nic_xml(mac, f"<alias name='ua-{name}'/>") for name in ("one", "two"))
    guest = libvirt_guest(nics, define=define, timeout=None)
    with pytest.raises(
        NotFoundError, match=f"names 2 interfaces .*ua-one = {mac}.*ua-two = {mac}; use a name"
    ):
        detach_backend(guest.dom, mac)
    assert not detach_backend(guest.dom, "ua-one").changed


def test_a_hostdev_nic(libvirt_connection: libvirt.virConnect) -> None:
    nic = (
        "<interface type='hostdev'{}><mac address='52:54:00:77:00:01'/><source>"
        "<address type='pci' domain='0' bus='0' slot='1' function='0'/></source></interface>"
    )
    domain = (
        "<domain type='qemu'><name>nphostdev</name><memory>65536</memory>"
        "<os><type machine='q35'>hvm</type></os><devices>{}</devices></domain>"
    )
    with pytest.raises(SchemaError, match="hostdev"):
        define(libvirt_connection, domain.format(nic.format(" connection='deferred'")))
    assert not [dom for dom in libvirt_connection.listAllDomains() if dom.name() == "nphostdev"]
    dom = libvirt_connection.defineXML(domain.format(nic.format("")))
    try:
        before = dom.XMLDesc()
        with pytest.raises(UnsupportedError, match=r"of type 'hostdev'.*nothing can be plugged"):
            attach_backend(dom, "52:54:00:77:00:01", bridge.backend("b"))
        with pytest.raises(UnsupportedError, match=r"of type 'hostdev'.*nothing can be plugged"):
            detach_backend(dom, "52:54:00:77:00:01")
        assert dom.XMLDesc() == before
    finally:
        dom.undefine()


@pytest.mark.parametrize("make", [define, create])
def test_bad_xml_defines_nothing(libvirt_connection: libvirt.virConnect, make: Callable[..., object]) -> None:
    before = [dom.name() for dom in libvirt_connection.listAllDomains()]
    nic = "<interface conection='deferred' type='bridge'><source bridge='br0'/></interface>"
    xml = "<domain type='qemu'><name>npbad</name><memory>1</memory><os><type>hvm</type></os>"
    with pytest.raises(SchemaError, match="conection"):
        make(libvirt_connection, f"{xml}<devices>{nic}</devices></domain>")
    with pytest.raises(SchemaError, match="not valid"):
        make(libvirt_connection, xml)
    assert [dom.name() for dom in libvirt_connection.listAllDomains()] == before


@pytest.mark.parametrize("failing", ["record", "check"])
@pytest.mark.parametrize("operation", ["plug", "move", "unplug"])
def test_a_late_failure_is_rolled_back(
    deferred_guest: NewGuest,
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    operation: str,
) -> None:
    """libvirt has done its part for real; that the rest fails cannot be had for real."""
    mac, blue, green = new_mac(), libvirt_bridge(), libvirt_bridge()
    guest = deferred_guest(mac)
    # A bridge that had no port yet has another address and carrier than one that has no port any more.
    for first in (green, blue):
        attach_backend(guest.dom, mac, bridge.backend(first.name))
    detach_backend(guest.dom, mac)
    if operation != "plug":
        attach_backend(guest.dom, mac, bridge.backend(blue.name))
        guest.wait_carrier(mac, up=True)
    before = everything(guest.dom)
    fail_once(monkeypatch, failing)
    state = "deferred" if operation == "plug" else f"attached to bridge {blue}"
    operate = {
        "plug": lambda: attach_backend(guest.dom, mac, bridge.backend(green.name)),
        "move": lambda: attach_backend(guest.dom, mac, bridge.backend(green.name)),
        "unplug": lambda: detach_backend(guest.dom, mac),
    }[operation]
    with pytest.raises(OperationError, match=f"could not {operation} .*the disk is full; the NIC is {state}"):
        operate()
    assert everything(guest.dom) == before
    assert guest.carrier(mac) is (operation != "plug")


def test_a_backend_that_libvirt_half_makes(
    deferred_guest: NewGuest, libvirt_bridge: BridgeFactory, new_mac: NewMac
) -> None:
    """A bandwidth needs qdiscs that the kernel may lack: then libvirt itself fails in the middle."""
    mac, blue = new_mac(), libvirt_bridge()
    guest = deferred_guest(mac)
    attach_backend(guest.dom, mac, bridge.backend(blue.name))
    detach_backend(guest.dom, mac)
    before = everything(guest.dom)
    limited = Backend(
        "bridge", (f"<source bridge='{blue}'/>", "<bandwidth><inbound average='1000'/></bandwidth>")
    )
    refusal = ""
    try:
        status = attach_backend(guest.dom, mac, limited)
    except OperationError as error:
        refusal = str(error)
    if not refusal:
        assert limited.is_within(status.backend or Backend(None))
        assert guest.carrier(mac)
        return
    assert "the NIC is deferred" in refusal
    assert everything(guest.dom) == before
    assert not guest.carrier(mac)


def test_a_domain_that_ended_meanwhile(deferred_guest: NewGuest, new_mac: NewMac) -> None:
    mac = new_mac()
    guest = deferred_guest(mac, timeout=None)
    domain = Domain(guest.dom)
    plan = Plan("x", mac, Scope.LIVE)
    assert domain.state(plan.key) == "deferred (unplugged)"
    guest.dom.destroy()
    with pytest.raises(UnsupportedError, match="is not running"):
        attach_backend(guest.dom, mac, bridge.backend("b"), flags=LIVE)
    assert domain.state("52:54:00:00:00:00") == "gone from the domain"


def test_a_libvirt_that_does_not_know_the_attribute_is_not_told_it(
    libvirt_connection: libvirt.virConnect, nic_xml: Callable[..., str], new_mac: NewMac
) -> None:
    nic = nic_xml(new_mac(), "<source bridge='br0'/>", "type='bridge' connection='deferred'")
    xml = f"""<domain type='qemu'><name>np-native</name><memory>1024</memory>
    <os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{nic}</devices></domain>"""
    for make in (define, create):
        with pytest.raises(UnsupportedError, match="takes a libvirt that knows connection='deferred'"):
            make(libvirt_connection, xml, plane="native")
    assert "np-native" not in [dom.name() for dom in libvirt_connection.listAllDomains()]


def test_a_domain_that_is_ended_again_is_told_of(
    libvirt_connection: libvirt.virConnect, nic_xml: Callable[..., str], new_mac: NewMac
) -> None:
    nic = nic_xml(new_mac(), "<source dev='nope'/>", "type='netdev' connection='attached'")
    xml = f"""<domain type='qemu'><name>npended</name><memory>65536</memory>
    <os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{nic}</devices></domain>"""
    with pytest.raises(OperationError, match=r"domain 'npended' was ended again: could not plug .*'nope'"):
        create(libvirt_connection, xml)
    assert "npended" not in [dom.name() for dom in libvirt_connection.listAllDomains()]
