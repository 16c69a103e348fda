"""Plane native: what libvirt itself holds, from its own XML to plans."""

from __future__ import annotations

import pytest

from nicplug_xml import SchemaError, UnsupportedError, to_extended, to_stock
from nicplug_xml.backends import bridge, cable, netdev, network
from nicplug_xml.document import Document
from nicplug_xml.model import Backend, Connection, Scope
from nicplug_xml.planes import PLANES, native
from nicplug_xml.planner import Site
from nicplug_xml.steps import Announce, Check, UpdateDevice
from nicplug_xml.stock import interfaces_of, parse_domain
from nicplug_xml.updating import parse
from nicplug_xml.updating import plan as plan_update
from nicplug_xml.view import view
from tests.unit.sites import seen, site_of

NIC = """    <interface{type} connection='{connection}'>
      <mac address='52:54:00:00:00:0{number}'/>
      {children}
      <target dev='vnet0'/>
      <model type='virtio'/>
      <alias name='net0'/>
    </interface>
"""
BLUE = "<source bridge='blue'/>"
#: As libvirt shows an attached NIC of a network, portid included.
LAB = "<source network='lab' portid='b1e4bbca-5b3f-4b43-8b3c-2dbe3a1d9a34' bridge='virbr0'/>"


def nic(connection: str, kind: str = "bridge", children: str = BLUE, number: int = 1) -> str:
    said = f" type='{kind}'" * bool(kind)
    return NIC.format(type=said, connection=connection, children=children, number=number)


def domain(*nics: str) -> str:
    return f"<domain type='qemu'>\n  <name>vm1</name>\n  <devices>\n{''.join(nics)}  </devices>\n</domain>\n"


def site(xml: str, scope: Scope = Scope.LIVE) -> Site:
    return site_of(seen(domain(xml)), scope)


def told(site: Site, xml: str) -> UpdateDevice:
    """Return the one update-device that a plan for `xml` is, with the check behind it."""
    update, check, *rest = plan_update(site, parse(xml)).steps
    assert isinstance(update, UpdateDevice)
    assert isinstance(check, Check)
    assert all(isinstance(step, Announce) for step in rest)
    return update


DEFERRED = nic("deferred")
BARE = nic("deferred", "", "")
ATTACHED = nic("attached")
DOWN = nic("attached", children=f"{BLUE}<link state='down'/>")


@pytest.mark.parametrize("offered", [(), (native.NAME,)])
def test_nothing_is_rewritten(offered: tuple[str, ...]) -> None:
    xml = domain(DEFERRED, BARE, ATTACHED)
    assert to_stock(xml, plane="native", offered=offered) == xml
    assert to_extended(xml) == xml


def test_auto_takes_what_is_offered_and_can_have_the_backend() -> None:
    def planes(*offered: str) -> list[str | None]:
        stock = to_stock(domain(*nics), offered=offered)
        return [found.plane for found in view(parse_domain(stock).root).interfaces]

    nics = [
        nic("deferred", "", "", 1), nic("deferred", number=2),
        nic("attached", "network", "<source network='n'/>", 3),
        nic("deferred", "direct", "<source dev='eth0'/>", 4),
        nic("deferred", "cable", "<source domain='vm2' interface='a'/>", 5), nic("deferred", "user", "", 6),
    ]  # fmt: skip
    assert planes() == ["tap", "tap", "tap", "tap", "tap", "hub"]
    assert planes(native.NAME) == ["native", "native", "native", "tap", "tap", "hub"]
    with_qemu = planes(native.NAME, "swap")
    assert with_qemu == ["native", "native", "native", "native", "tap", "native"]


def test_what_is_beside_it_is_rewritten_alone() -> None:
    held, parked = nic("deferred"), nic("deferred", "netdev", "<source dev='eth1'/>", 2)
    stock = to_stock(domain(held, parked), offered=(native.NAME,))
    assert held in stock
    assert stock.count("connection=") == 1
    assert "52:54:00:00:00:01" not in stock.partition("</metadata>")[0]
    restored = [element.text for element in interfaces_of(parse_domain(to_extended(stock)).root)]
    assert restored == [held.strip(), parked.strip()]


@pytest.mark.parametrize("kind", ["cable", "netdev", "fd", "stream", "dgram", "l2tpv3", "vde"])
def test_what_libvirt_has_no_type_for_is_refused(kind: str) -> None:
    with pytest.raises(SchemaError, match=f"plane 'native' cannot plug in type '{kind}'; plane "):
        to_stock(domain(nic("deferred", kind, "")), plane="native")
    for backend in (netdev.backend("eth1"), cable.backend("vm2", "52:54:00:00:00:09")):
        with pytest.raises(
            UnsupportedError, match=r"plane 'native' cannot plug vnet0 of vm1 .*; it can: bridge"
        ):
            site(DEFERRED).attach(backend)


def test_no_container_has_it() -> None:
    with pytest.raises(UnsupportedError, match="plane 'native' is for guests of QEMU's"):
        to_stock(domain(DEFERRED).replace("'qemu'", "'lxc'"), plane="native")


def test_libvirts_own_xml_is_believed() -> None:
    deferred, bare, attached, down = seen(domain(DEFERRED, BARE, ATTACHED, DOWN)).interfaces
    assert {found.plane for found in (deferred, bare, attached, down)} == {"native"}
    assert (deferred.connection, deferred.carrier) == (Connection.DEFERRED, False)
    assert deferred.backend == bridge.backend("blue")
    assert bare.backend is None
    assert (attached.connection, attached.carrier, attached.link) == (Connection.ATTACHED, True, None)
    assert (down.connection, down.carrier, down.link) == (Connection.ATTACHED, False, "down")


def test_it_comes_before_a_record_of_an_earlier_plane() -> None:
    entry = "<interface mac='52:54:00:00:00:01' plane='tap'><backend type='bridge'/></interface>"
    interfaces = f"<interfaces xmlns='urn:nicplug:domain:1.0'>{entry}</interfaces>"
    stock = domain(ATTACHED).replace("<devices>", f"<metadata>{interfaces}</metadata><devices>")
    (found,) = view(parse_domain(stock).root).interfaces
    assert (found.plane, found.connection) == ("native", Connection.ATTACHED)
    assert ATTACHED in to_extended(stock)


def test_each_operation_is_one_update_device() -> None:
    for scope in Scope:
        for plan, connection, place in (
            (site(DEFERRED, scope).attach(None), "attached", {"bridge": "blue"}),
            (site(BARE, scope).attach(bridge.backend("green")), "attached", {"bridge": "green"}),
            (site(ATTACHED, scope).attach(network.backend("lab")), "attached", {"network": "lab"}),
            (site(ATTACHED, scope).detach(), "deferred", {"bridge": "blue"}),
            (site(ATTACHED, scope).set_link("down"), "attached", {"bridge": "blue"}),
            (site(DEFERRED, scope).set_link("down"), "deferred", {"bridge": "blue"}),
        ):
            update, *rest = plan.steps
            assert isinstance(update, UpdateDevice)
            assert not any(isinstance(step, UpdateDevice) for step in rest)
            root = Document(update.xml).root
            assert root.attributes["connection"] == connection
            assert Backend("", (root.find("source").text,)).source == place  # type: ignore[union-attr]
            assert root.get("target", "dev") == "vnet0"


def test_nothing_to_do_is_nothing() -> None:
    assert not site(ATTACHED).attach(None).steps
    assert not site(ATTACHED).attach(bridge.backend("blue")).steps
    assert not site(DEFERRED).detach().steps
    assert not site(DOWN).set_link("down").steps
    assert not site(nic("attached", "network", LAB)).attach(network.backend("lab")).steps


def test_what_is_pulled_is_what_is_intended() -> None:
    update = site(nic("attached", "network", LAB)).detach().steps[0]
    assert isinstance(update, UpdateDevice)
    assert "<source network='lab'/>" in update.xml
    assert update.undo_xml == site(nic("attached", "network", LAB)).nic.xml


def test_the_link_that_was_set_stays() -> None:
    for plan in (site(DOWN).detach(), site(DOWN).attach(bridge.backend("green"))):
        update = plan.steps[0]
        assert isinstance(update, UpdateDevice)
        assert Document(update.xml).root.get("link", "state") == "down"
    up = site(nic("deferred", children=f"{BLUE}<link state='down'/>")).attach(None, link="up").steps[0]
    assert isinstance(up, UpdateDevice)
    assert Document(up.xml).root.get("link", "state") == "up"


def test_update_device() -> None:
    green = BLUE.replace("blue", "green")
    moved = told(site(ATTACHED), nic("attached", children=green))
    assert Document(moved.xml).root.attributes["connection"] == "attached"
    assert told(
        site(ATTACHED), NIC.format(type=" type='bridge'", connection="deferred", children="", number=1)
    )
    assert told(site(BARE), nic("deferred", children=green)).xml.count(green) == 1
    without = nic("attached", children=green).replace(" connection='attached'", "")
    for now in (ATTACHED, DEFERRED):
        kept = Document(told(site(now), without).xml).root.attributes["connection"]
        assert kept == Document(now).root.attributes["connection"]
    given = parse(ATTACHED.replace("<alias", "<boot order='1'/><alias"))
    (booted,) = plan_update(site(ATTACHED, Scope.CONFIG), given).steps
    assert isinstance(booted, UpdateDevice)
    assert Document(booted.xml).root.attributes["connection"] == "attached"


def test_every_kind_that_is_always_there_is_one_of_its_kinds() -> None:
    assert native.ALWAYS < native.KINDS
    assert PLANES[native.NAME].NAME == native.NAME


def test_metadata_that_says_native_where_libvirt_does_not() -> None:
    """Nothing is recorded of that plane: somebody has edited it by hand."""
    stock = to_stock(
        "<domain><devices><interface type='bridge' connection='attached'><mac address='52:54:00:00:00:01'/>"
        "<source bridge='br0'/></interface></devices></domain>"
    ).replace("plane='tap'", "plane='native'")
    assert "plane='native'" in stock
    (nic,) = view(parse_domain(stock).root).interfaces
    assert (nic.plane, nic.connection, nic.shown) == ("native", Connection.ATTACHED, True)
    assert "connection='attached'" in to_extended(stock)
