"""Plane veth: data in, data out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nicplug_xml import joints
from nicplug_xml.backends import bridge, direct, netdev, network
from nicplug_xml.errors import SchemaError, UnsupportedError
from nicplug_xml.facts import Facts
from nicplug_xml.joints import Joint
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Backend, Connection, Scope
from nicplug_xml.planner import Site
from nicplug_xml.rewrite import to_extended, to_stock
from nicplug_xml.steps import (
    AddMacvlan,
    Check,
    Join,
    LetGoFirst,
    Part,
    Record,
    Release,
    RequireHere,
    SetCarrier,
)
from nicplug_xml.stock import parse_domain
from nicplug_xml.view import view
from tests.unit.sites import seen, site_of

MAC = "52:54:00:00:00:01"
DOMAIN = """<domain type='lxc'><name>vm1</name><devices>
  <interface type='bridge' connection='{connection}'>
    <mac address='52:54:00:00:00:01'/>
    <source bridge='br0'/>
    <target dev='vnet0'/>{children}
  </interface>
</devices></domain>"""

BLUE, GREEN = Joint("bridge", "br0"), Joint("bridge", "br1")
MACVLAN = Joint("macvlan", "vnet0.np0", "eth0", "bridge", 7)


def domain(connection: str = "deferred", children: str = "") -> str:
    return DOMAIN.format(connection=connection, children=children)


def site(
    joint: Joint | None = None,
    *,
    up: bool | None = None,
    children: str = "",
    scope: Scope = Scope.LIVE,
    backend: Backend | None = None,
) -> Site:
    """Return a NIC that is joined to something, and has a carrier unless told otherwise."""
    root = parse_domain(to_stock(domain("attached" if joint else "deferred", children))).root
    facts = Facts(None, {"vnet0": joint}, {MAC: joint is not None if up is None else up})
    return site_of(view(root, facts), scope)


def kinds(site: Site, wanted: Backend | None, **options: str) -> list[object]:
    plan = site.attach(wanted, **options) if wanted else site.detach()
    return [
        step if not isinstance(step, Record | Check | RequireHere | AddMacvlan) else type(step)
        for step in plan.steps
    ]


HERE, TOLD = [RequireHere], [Record, Check]


def test_plug_move_unplug() -> None:
    up, down = SetCarrier("vnet0", True), SetCarrier("vnet0", False)
    assert kinds(site(), bridge.backend("br0")) == [*HERE, Join("vnet0", BLUE), up, *TOLD]
    assert kinds(site(BLUE), bridge.backend("br1")) == [*HERE, Join("vnet0", GREEN, BLUE), *TOLD]
    assert kinds(site(BLUE), None) == [*HERE, down, Part("vnet0", BLUE), *TOLD]
    assert kinds(site(BLUE, up=False), bridge.backend("br1")) == [
        *HERE,
        Join("vnet0", GREEN, BLUE),
        up,
        *TOLD,
    ]


@pytest.mark.parametrize("make", [bridge.backend, direct.backend, netdev.backend, network.backend])
@pytest.mark.parametrize("place", ["nicplug-park", "nicplug-parknet", "nicplug-parking"])
def test_the_parking_place_is_no_backend_of_any_kind(make: Callable[[str], Backend], place: str) -> None:
    """All who are parked would hear it, and whoever is in their place is taken for unplugged."""
    with pytest.raises(UnsupportedError, match="is where NICs are that are not plugged in"):
        site().attach(make(place))


def test_what_has_gone_is_not_made_again() -> None:
    """The device that the macvlan was on has gone, say: that is what is told, and no undo that fails."""
    for gone in (False, True):
        (let_go,) = [
            step
            for step in site(MACVLAN._replace(gone=gone)).attach(direct.backend("eth0", "private")).steps
            if isinstance(step, LetGoFirst)
        ]
        assert bool(let_go.again) is not gone


def test_from_and_to_redirects() -> None:
    to_macvlan = Join("vnet0", MACVLAN._replace(ifindex=0), BLUE)
    # What the bridge floods is not for it any more.
    assert kinds(site(BLUE), direct.backend("eth0")) == [
        *HERE,
        AddMacvlan,
        to_macvlan,
        Part("vnet0", BLUE),
        *TOLD,
    ]
    away = [*HERE, Part("vnet0", MACVLAN), Join("vnet0", GREEN), *TOLD, Release(MACVLAN)]
    assert kinds(site(MACVLAN), bridge.backend("br1")) == away
    assert kinds(site(MACVLAN), None)[1:3] == [SetCarrier("vnet0", False), Part("vnet0", MACVLAN)]


def test_the_carrier_goes_first_where_the_link_is_to_be_down() -> None:
    plan = site(BLUE).attach(bridge.backend("br1"), link="down")
    assert plan.steps[1:3] == (SetCarrier("vnet0", False), Join("vnet0", GREEN, BLUE))
    assert not [step for step in plan.steps if step == SetCarrier("vnet0", True)]


def test_same_again_does_nothing() -> None:
    assert site(BLUE).attach(bridge.backend("br0")).steps == ()
    assert site().detach().steps == ()
    assert site(BLUE).set_link("up").steps == ()


def test_a_carrier_that_nobody_gave_is_taken_away() -> None:
    """As libvirt gives one at the start of every container."""
    now = site(up=True)
    assert (now.nic.connection, now.nic.carrier) == (Connection.DEFERRED, True)
    assert kinds(now, None) == [*HERE, SetCarrier("vnet0", False), *TOLD]


def test_set_link() -> None:
    assert [type(step) for step in site(BLUE).set_link("down").steps] == [
        RequireHere,
        SetCarrier,
        Record,
        Check,
    ]
    assert [type(step) for step in site().set_link("down").steps] == [Record]


def test_the_definition_is_changed_in_the_metadata_alone() -> None:
    config = site(scope=Scope.CONFIG)
    assert [type(step) for step in config.attach(bridge.backend("br1")).steps] == [Record, Check]
    assert [type(step) for step in site(BLUE, scope=Scope.CONFIG).detach().steps] == [Record, Check]


def test_what_the_kernel_says_is_believed_before_the_record() -> None:
    stock = to_stock(domain("attached"))
    root = parse_domain(stock).root
    back_in_the_parking_place = view(root, Facts(None, {"vnet0": None}, {MAC: True})).interfaces[0]
    assert back_in_the_parking_place.connection is Connection.DEFERRED
    assert back_in_the_parking_place.carrier
    elsewhere = view(root).interfaces[0]
    assert (elsewhere.connection, elsewhere.carrier) == (Connection.ATTACHED, True)
    assert elsewhere.backend == Backend("bridge", ("<source bridge='br0'/>",))
    unplugged = seen(to_stock(domain())).interfaces[0]
    assert (unplugged.connection, unplugged.carrier) == (Connection.DEFERRED, False)


@pytest.mark.parametrize("connection", ["deferred", "attached"])
@pytest.mark.parametrize(
    "children", ["", "<alias name='ua-lan'/>", "<link state='up'/>", "<link state='down'/>"]
)
def test_there_and_back(connection: str, children: str) -> None:
    extended = domain(connection, children)
    stock = to_stock(extended)
    assert "nicplug-parking" in stock
    assert "<link state=" not in stock.replace(children, "")
    assert to_extended(stock) == extended


def test_an_alias_that_libvirt_drops() -> None:
    alias = "<alias name='ua-lan'/>"
    stock = to_stock(domain("deferred", alias)).replace(alias, "")
    assert alias in to_extended(stock)
    (nic,) = seen(stock).interfaces
    assert (nic.alias, nic.key) == ("ua-lan", MAC)
    assert [entry.alias for entry in seen(stock).entries] == ["ua-lan"]


def test_two_of_one_mac_are_told_apart_by_nothing() -> None:
    twice = domain().replace("</devices>", "").partition("<interface")
    nic = "<interface" + twice[2].partition("</domain>")[0]
    aliases = [nic.replace("<target", f"<alias name='ua-{name}'/><target") for name in "ab"]
    with pytest.raises(SchemaError, match=f"two interfaces are named {MAC}"):
        to_stock(f"{twice[0]}{''.join(aliases)}</devices></domain>")


def test_planes_are_for_their_own_hypervisor() -> None:
    with pytest.raises(UnsupportedError, match="plane 'tap' is for guests of QEMU's"):
        to_stock(domain(), plane="tap")
    with pytest.raises(UnsupportedError, match="plane 'veth' is for containers"):
        to_stock(domain().replace("type='lxc'", "type='kvm'"), plane="veth")


@pytest.mark.parametrize(
    "child", ["<bandwidth/>", "<filterref filter='clean-traffic'/>", "<vlan><tag id='4'/></vlan>"]
)
def test_what_libvirt_would_do_is_refused(child: str) -> None:
    name = child[1:].partition(" ")[0].partition(">")[0].rstrip("/")
    with pytest.raises(UnsupportedError, match=f"plane 'veth' .* cannot carry out <{name}>"):
        site().attach(Backend("bridge", ("<source bridge='br1'/>", child)))
    with pytest.raises(SchemaError, match=f"plane 'veth' cannot carry out <{name}>"):
        to_stock(domain("deferred", child))


def test_ports_and_networks() -> None:
    isolated = Backend("bridge", ("<source bridge='br1'/>", "<port isolated='yes'/>"))
    plan = site().attach(isolated)
    assert Join("vnet0", Joint("bridge", "br1", "isolated")) in plan.steps
    assert "RTM_NEWLINK vnet0 master br1, isolated" in str(plan)
    assert Join("vnet0", Joint("bridge", "virbr0")) in site().attach(network.backend("n")).steps


def test_no_announcement_without_qemu() -> None:
    assert "announce" not in str(site().attach(bridge.backend("br0")))


def test_what_a_port_leaves_for_the_hook() -> None:
    for joint in (BLUE, Joint("bridge", "br1", "isolated")):
        assert joints.parse_port(str(joint)) == joint
        assert joints.parse(str(joint)) is None
    assert joints.parse_port(str(MACVLAN)) is None
    assert joints.parse_port("") is None
    assert joints.parse_port("somebody else's") is None


def test_entries_with_both_names() -> None:
    entry = Entry(MAC, "veth", alias="ua-lan")
    assert entry.to_xml() == f"<interface mac='{MAC}' alias='ua-lan' plane='veth'/>"
