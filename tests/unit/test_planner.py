"""What is true and what is wanted, to a plan: data in, data out."""

from __future__ import annotations

import re

import pytest

from nicplug_xml import metadata, updating
from nicplug_xml.backends import bridge, netdev, network
from nicplug_xml.document import Document
from nicplug_xml.errors import NotFoundError, SchemaError, UnsupportedError
from nicplug_xml.frozen import replace
from nicplug_xml.joints import Joint
from nicplug_xml.model import Backend, Connection, Scope
from nicplug_xml.planes import tap
from nicplug_xml.planner import Site
from nicplug_xml.rewrite import to_stock
from nicplug_xml.steps import (
    Announce,
    Check,
    EnsureParking,
    Join,
    Part,
    Record,
    RequireNetwork,
    SetMtu,
    UpdateDevice,
)
from tests.unit.sites import Around, seen, site_of

DOMAIN = """<domain><name>vm1</name><devices><interface connection='{connection}' type='bridge'>
  <mac address='52:54:00:00:00:01'/>
  <source bridge='br0'/>
  <target dev='vnet0'/>
  <model type='virtio'/>
  {children}
  <alias name='net0'/>
</interface></devices></domain>"""


def site(
    connection: str = "deferred",
    children: str = "",
    scope: Scope = Scope.LIVE,
    parking: str = "network",
) -> Site:
    now = seen(to_stock(DOMAIN.format(connection=connection, children=children)))
    return site_of(now, scope, parking)


def test_attach_the_intended_backend() -> None:
    plan = site().attach(None)
    update, record, check, announce = plan.steps
    assert isinstance(update, UpdateDevice)
    nic = Document(update.xml).root
    assert nic.attributes["type"] == "bridge"
    assert nic.get("source", "bridge") == "br0"
    assert nic.find("link") is None
    assert nic.find("port") is None
    assert nic.get("target", "dev") == "vnet0"
    assert update.undo_xml == site().nic.xml
    assert isinstance(check, Check)
    assert check.expected.carrier
    assert isinstance(record, Record)
    assert "<backend" not in record.entry.to_xml()
    assert "<backend" in record.undo_entry.to_xml()
    assert isinstance(announce, Announce)
    assert announce.arguments["interfaces"] == ["net0"]
    assert plan.summary == "plug vnet0 of vm1 into bridge br0"


def test_attach_to_a_network_looks_for_it_first() -> None:
    plan = site().attach(network.backend("default"))
    assert plan.steps[0] == RequireNetwork("default")
    config = site(scope=Scope.CONFIG).attach(network.backend("default"))
    assert [type(step) for step in config.steps] == [UpdateDevice, Record, Check]


@pytest.mark.parametrize(
    ("tap", "bridge_mtu", "order"),
    [
        (1500, 9000, [SetMtu, UpdateDevice]),
        (9000, 1500, [UpdateDevice, SetMtu]),
        (1500, 1500, [UpdateDevice]),
    ],
)
def test_a_bridge_keeps_its_mtu(tap: int, bridge_mtu: int, order: list[type]) -> None:
    def first(children: str = "", mtus: dict[str, int] | None = None) -> list[type]:
        around = Around(mtus={"vnet0": tap, "br0": bridge_mtu} if mtus is None else mtus)
        steps = replace(site(children=children), surroundings=around).attach(None).steps
        return [type(step) for step in steps if isinstance(step, (SetMtu, UpdateDevice))]

    assert first() == order
    # What it was told to use, it uses; and what is not here has none.
    assert first(children="<mtu size='1400'/>") == [UpdateDevice]
    assert first(mtus={}) == [UpdateDevice]


def test_what_libvirt_limits_is_joined_to_nothing_else_at_the_same_time() -> None:
    """Its limit on what a guest sends is where a redirect would be."""
    limits = "<bandwidth><outbound average='9'/></bandwidth>"
    limited = Backend("bridge", ("<source bridge='br0'/>", limits))
    away = site("attached", limits).attach(netdev.backend("eth1"), whole=True).steps
    kinds = [type(step) for step in away]
    assert kinds.index(UpdateDevice) < kinds.index(Join)
    now = seen(
        to_stock(
            DOMAIN.format(connection="attached", children="")
            .replace("type='bridge'", "type='netdev'")
            .replace("bridge='br0'", "dev='eth1'")
        ),
        vnet0=Joint("device", "eth1"),
    )
    back = [type(step) for step in site_of(now).attach(limited).steps]
    assert back.index(Part) < back.index(UpdateDevice)
    # Where it limits nothing, no frame is lost on the way.
    free = [type(step) for step in site_of(now).attach(bridge.backend("br0")).steps]
    assert free.index(UpdateDevice) < free.index(Part)


def test_same_backend_again_does_nothing() -> None:
    assert site("attached").attach(bridge.backend("br0")).steps == ()
    assert site("attached").attach(None).steps == ()
    assert str(site("attached").attach(None)).endswith("nothing to do")


def test_a_move_says_so() -> None:
    plan = site("attached").attach(bridge.backend("br1"), announce=False)
    assert plan.summary == "move vnet0 of vm1 into bridge br1"
    assert not any(isinstance(step, Announce) for step in plan.steps)


def test_the_administrators_link_survives() -> None:
    down = "<link state='down'/>"
    attach = site(children=down).attach(None)
    assert isinstance(attach.steps[0], UpdateDevice)
    assert Document(attach.steps[0].xml).root.get("link", "state") == "down"
    assert not any(isinstance(step, Announce) for step in attach.steps)
    detach = site("attached", down).detach()
    record = detach.steps[-2]
    assert isinstance(record, Record)
    assert "link='down'" in record.entry.to_xml()


def test_link_can_be_set_while_plugging_in() -> None:
    steps = site().attach(None, link="down").steps
    assert isinstance(steps[0], UpdateDevice)
    assert Document(steps[0].xml).root.get("link", "state") == "down"
    assert site("attached").attach(None, link="down").steps
    assert not site("attached").attach(None, link="up").steps


def test_policy_stays_on_a_move_and_place_does_not() -> None:
    policy = "<bandwidth><inbound average='9'/></bandwidth><filterref filter='f'/><vlan><tag id='5'/></vlan>"
    place = "<virtualport type='openvswitch'/>"
    steps = site("attached", policy).attach(bridge.backend("br1")).steps
    assert isinstance(steps[0], UpdateDevice)
    for name in ("bandwidth", "filterref", "vlan"):
        assert f"<{name}" in steps[0].xml
    vlan = "<vlan><tag id='5'/></vlan>"
    other_switch = site("attached", vlan + place).attach(bridge.backend("br1")).steps
    (update,) = (step for step in other_switch if isinstance(step, UpdateDevice))
    assert "<vlan" not in update.xml
    assert "<virtualport" not in update.xml
    named = Backend.of("<backend type='bridge'><source bridge='b'/><vlan><tag id='7'/></vlan></backend>")
    renamed = site("attached", policy).attach(named).steps
    assert isinstance(renamed[0], UpdateDevice)
    assert renamed[0].xml.count("<vlan") == 1
    assert "id='7'" in renamed[0].xml


@pytest.mark.parametrize("parking", ["network", "bridge"])
def test_detach_parks_and_remembers(parking: str) -> None:
    ensure, update, record, check = (
        site("attached", "<filterref filter='f'/>", parking=parking).detach().steps
    )
    assert isinstance(ensure, EnsureParking)
    assert isinstance(update, UpdateDevice)
    nic = Document(update.xml).root
    assert nic.attributes["type"] == parking
    assert nic.get("port", "isolated") == "yes"
    assert nic.get("link", "state") == "down"
    assert nic.find("filterref") is None
    assert isinstance(check, Check)
    assert check.expected.connection is Connection.DEFERRED
    assert isinstance(record, Record)
    assert "<source bridge='br0'/>" in record.entry.to_xml()
    assert "<filterref filter='f'/>" in record.entry.to_xml()
    assert not site("deferred").detach().steps


def test_what_libvirt_adds_to_a_running_guests_source_is_not_remembered() -> None:
    live = Backend("network", ("<source network='n' portid='1-2' bridge='virbr0'/>",))
    assert network.intended(live) == Backend("network", ("<source network='n'/>",))
    assert Backend("network", ("<source network='n'/>",)).is_within(live)


GIVEN = """<interface type='bridge'><mac address='52:54:00:00:00:01'/>
  <source network='rules' portgroup='g' portid='1-2' bridge='br9'/>{rules}<target dev='vnet0'/></interface>"""
ISOLATED, SLOW = "<port isolated='yes'/>", "<bandwidth><inbound average='9'/></bandwidth>"


def on_a_network(rules: str) -> Site:
    entry = metadata.format_entries([metadata.Entry("52:54:00:00:00:01", "tap")], alone=True, namespace=True)
    ours = f"<metadata>{entry}</metadata>"
    return stock_site(GIVEN.format(rules=rules), ours)


def test_a_network_on_a_bridge_of_the_host_is_a_network() -> None:
    there = on_a_network(ISOLATED + SLOW)
    assert there.nic.backend is not None
    assert (there.nic.backend.type, there.nic.backend.source["network"]) == ("network", "rules")
    (update, *_) = there.set_link("down").steps
    assert isinstance(update, UpdateDevice)
    for xml in (update.xml, update.undo_xml):
        assert Document(xml).root.attributes["type"] == "network"
    asked = Backend("network", ("<source network='rules' portgroup='g'/>",))
    assert not there.attach(asked).steps
    record = there.detach().steps[-2]
    assert isinstance(record, Record)
    assert record.entry.backend == asked


def test_what_a_network_gives_is_not_taken_along() -> None:
    filtered = "<filterref filter='f'/>"
    for given, kept in ((ISOLATED + SLOW, ""), (SLOW.replace("9", "8") + filtered, "<bandwidth><filterref")):
        (update, *_) = on_a_network(given).attach(bridge.backend("br1")).steps
        assert isinstance(update, UpdateDevice)
        names = [child.name for child in Document(update.xml).root]
        assert [name for name in names if f"<{name}" in kept] == re.findall(r"<(\w+)", kept)
        assert "port" not in names


def test_a_network_that_leads_elsewhere_by_now_is_plugged_into_again() -> None:
    asked = Backend("network", ("<source network='rules' portgroup='g'/>",))
    there = on_a_network(ISOLATED + SLOW)
    xml = there.nic.xml.replace("br9", "br8")
    moved = replace(there, nic=replace(there.nic, xml=xml))
    (require, update, *_) = moved.attach(asked).steps
    assert isinstance(require, RequireNetwork)
    assert isinstance(update, UpdateDevice)
    assert update.undo_xml == xml


def test_another_portgroup_is_plugged_into_by_way_of_the_parking_place() -> None:
    there = on_a_network(ISOLATED + SLOW)
    steps = there.attach(Backend("network", ("<source network='rules'/>",))).steps
    park, update = (step for step in steps if isinstance(step, UpdateDevice))
    assert tap.is_parked(Document(park.xml).root)
    # From a network to a network, newer libvirts refuse another portgroup.
    assert Document(park.xml).root.get("source", "bridge") == "nicplug-parknet"
    assert Document(park.xml).root.find("link") is None
    assert Document(update.xml).root.get("source", "network") == "rules"
    # Nor would they have it back, but by that way.
    assert (park.undo_xml, update.undo_xml) == (there.nic.xml, park.xml)
    assert sum(isinstance(step, UpdateDevice) for step in there.attach(bridge.backend("br9")).steps) == 1


class Stopped(Around):
    """Surroundings whose networks are not active."""

    def network(self, name: str, *, active: bool = True) -> str:
        if active:
            raise NotFoundError(f"network '{name}' is not active")
        return super().network(name)


def test_what_a_network_gave_that_was_stopped_is_not_taken_along() -> None:
    record = replace(on_a_network(ISOLATED + SLOW), surroundings=Stopped()).detach().steps[-2]
    assert isinstance(record, Record)
    assert record.entry.backend == Backend("network", ("<source network='rules' portgroup='g'/>",))


def test_what_an_intended_backend_names_is_its_own() -> None:
    """Its network may give the same."""
    given = f"<mac address='52:54:00:00:00:01'/><source network='rules'/>{ISOLATED}<target dev='vnet0'/>"
    nic = f"<interface connection='deferred' type='network'>{given}</interface>"
    there = site_of(seen(to_stock(f"<domain><name>vm1</name><devices>{nic}</devices></domain>")))
    update = next(
        step for step in there.attach(bridge.backend("br1")).steps if isinstance(step, UpdateDevice)
    )
    assert Document(update.xml).root.get("port", "isolated") == "yes"


@pytest.mark.parametrize("name", ["pool", "switched"])
@pytest.mark.parametrize(
    "rule",
    [
        "<filterref filter='f'/>",
        SLOW,
        ISOLATED,
        "<vlan><tag id='5'/></vlan>",
        "<ip address='192.0.2.2'/>",
        "<route address='192.0.2.0' prefix='24' gateway='192.0.2.1'/>",
    ],
)
def test_rules_that_nobody_would_carry_out_are_refused(name: str, rule: str) -> None:
    wanted = Backend("network", (f"<source network='{name}'/>", rule))
    if "vlan" in rule and name == "switched":
        assert site().attach(wanted).steps
        return
    with pytest.raises(UnsupportedError, match="cannot carry out <"):
        site().attach(wanted)
    with pytest.raises(UnsupportedError, match="cannot carry out <"):
        site(scope=Scope.CONFIG).attach(wanted)


def test_rules_of_a_pool_are_refused() -> None:
    with pytest.raises(
        UnsupportedError, match="network limited gives its NICs <bandwidth>, which plane 'tap'"
    ):
        site().attach(network.backend("limited"))
    slow = Backend("network", ("<source network='rules' portgroup='g'/>",))
    assert site().attach(slow).steps


@pytest.mark.parametrize(
    ("name", "parked"), [("pool", True), ("switched", True), ("default", False), ("no", False)]
)
def test_a_definition_leaves_to_libvirt_what_can_be_unplugged(name: str, parked: bool) -> None:
    steps = site(scope=Scope.CONFIG).attach(network.backend(name)).steps
    record = next(step for step in steps if isinstance(step, Record))
    assert (record.entry.backend is not None) == parked
    assert any(isinstance(step, UpdateDevice) for step in steps) != parked


def test_set_link() -> None:
    attached = site("attached").set_link("down")
    assert [type(step) for step in attached.steps] == [UpdateDevice, Record, Check]
    deferred = site().set_link("down")
    assert [type(step) for step in deferred.steps] == [Record]
    assert "link='down'" in str(deferred)
    assert not site().set_link("up").steps


def stock_site(interface: str, before: str = "") -> Site:
    return site_of(seen(f"<domain>{before}<devices>{interface}</devices></domain>"))


def test_refusals_say_what_to_do() -> None:
    stock = "<interface type='bridge'><mac address='52:54:00:00:00:09'/><source bridge='b'/></interface>"
    with pytest.raises(UnsupportedError, match="not provisioned as pluggable; add connection='attached'"):
        stock_site(stock).attach(bridge.backend("b"))
    with pytest.raises(UnsupportedError, match="is of type 'hostdev'"):
        stock_site("<interface type='hostdev'><mac address='52:54:00:00:00:09'/></interface>").detach()
    with pytest.raises(
        UnsupportedError,
        match="cannot plug vnet0 of vm1 into type='user'; it can: bridge, cable",
    ):
        site().attach(Backend("user"))
    with pytest.raises(UnsupportedError, match="cannot carry out <backend>"):
        site().attach(Backend("bridge", ("<source bridge='b'/>", "<backend tap='/dev/x'/>")))
    bare = "<domain><devices><interface connection='deferred'><mac address='52:54:00:00:00:01'/></interface>"
    with pytest.raises(SchemaError, match="no intended backend; name one"):
        site_of(seen(to_stock(f"{bare}</devices></domain>"))).attach(None)


def test_a_plane_of_a_newer_version() -> None:
    xml = to_stock(DOMAIN.format(connection="deferred", children="")).replace("plane='tap'", "plane='warp'")
    assert site_of(seen(xml)).nic.plane == "warp"
    with pytest.raises(UnsupportedError, match="plane 'warp', which this version"):
        site_of(seen(xml)).detach()


def test_what_a_running_guest_has_can_be_given_again() -> None:
    found = "<source network='n' portid='5a1c3b7e-0000-4000-8000-000000000001' bridge='virbr0'/>"
    *_, check, _announce = site().attach(Backend("network", (found,))).steps
    assert isinstance(check, Check)
    assert check.expected.backend == Backend("network", ("<source network='n'/>",))


def joined_site(children: str = "", **joints: object) -> Site:
    stock = to_stock(
        "<domain><name>vm1</name><devices><interface type='netdev' connection='attached'>"
        "<mac address='52:54:00:00:00:01'/><source dev='eth0'/><target dev='vnet0'/><model type='virtio'/>"
        f"{children}</interface></devices></domain>"
    )
    return site_of(seen(stock.replace("connection='attached'", "connection='attached' link='up'"), **joints))


def test_a_carrier_that_somebody_else_has_set_is_set_again() -> None:
    """What is stored of a NIC that is joined by redirects is its link; libvirt's XML has its carrier."""
    joint = Joint("device", "eth0", ifindex=7)
    off = joined_site(vnet0=joint)
    assert (off.nic.connection, off.nic.link, off.nic.carrier) == (Connection.ATTACHED, "up", False)
    for plan in (off.set_link("up"), off.attach(None)):
        (update,) = (step for step in plan.steps if isinstance(step, UpdateDevice))
        assert "<link state='up'/>" in update.xml
    on = replace(off, nic=replace(off.nic, carrier=True))
    assert on.set_link("up").steps == on.attach(None).steps == ()


def test_a_carrier_that_leads_nowhere_goes_with_the_link() -> None:
    """The device has gone that it led to; up again, it is to lead somewhere first."""
    on = joined_site(vnet0=Joint("device", "eth0", ifindex=7, gone=True))
    on = replace(on, nic=replace(on.nic, carrier=True))
    assert on.nic.connection is Connection.DEFERRED
    _, update, _, check = on.set_link("down").steps
    assert isinstance(update, UpdateDevice)
    assert "<link state='down'/>" in update.xml
    assert isinstance(check, Check)
    assert not check.expected.carrier
    assert on.set_link("up").steps == ()


def test_a_joint_that_libvirt_knows_nothing_of_is_parted() -> None:
    """Somebody has had libvirt put the tap of a NIC that is joined to a device into a bridge."""
    joint = Joint("device", "eth0", ifindex=7)
    now = seen(to_stock(DOMAIN.format(connection="attached", children="")), vnet0=joint)
    here = site_of(now)
    for plan in (here.attach(bridge.backend("br0")), updating.plan(here, updating.parse(here.nic.xml))):
        assert Part("vnet0", joint) in plan.steps


@pytest.mark.parametrize("place", ["<source dev='eth0' mode='vepa'/>", "<source dev='eth0'/>"])
def test_a_macvlan_has_no_virtual_port(place: str) -> None:
    port = (
        "<virtualport type='802.1Qbg'><parameters managerid='1' typeid='2' typeidversion='3'/></virtualport>"
    )
    with pytest.raises(UnsupportedError, match=r"plane 'tap' .*cannot carry out <virtualport>"):
        site().attach(Backend("direct", (place, port)))
