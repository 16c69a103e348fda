"""What update-device makes of a document; and docs/mapping.md, held against it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nicplug_xml import updating
from nicplug_xml.backends import BACKENDS
from nicplug_xml.document import Document
from nicplug_xml.errors import NicplugError, SchemaError, UnsupportedError
from nicplug_xml.facts import Facts
from nicplug_xml.frozen import replace
from nicplug_xml.joints import Joint
from nicplug_xml.model import NEVER_PLUGGABLE, Backend, Scope
from nicplug_xml.plan import Plan
from nicplug_xml.planes import PLANES
from nicplug_xml.planner import Site
from nicplug_xml.rewrite import to_stock
from nicplug_xml.steps import Record, UpdateDevice
from nicplug_xml.stock import parse_domain
from nicplug_xml.view import view
from tests.unit.sites import seen, site_of

MAPPING = Path(__file__).parents[2] / "docs" / "mapping.md"

MAC = "52:54:00:00:00:01"
NIC = """<interface{attributes}>
  <mac address='{mac}'/>
  {children}
  <target dev='vnet0'/>
  <model type='virtio'/>
  <alias name='ua-a'/>
  <address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>
</interface>"""
BRIDGE = "<source bridge='br0'/>"
OTHER = "<source bridge='br1'/>"


def nic(attributes: str = "", children: str = "", mac: str = MAC) -> str:
    """Return an ``<interface>``; `attributes` is a type, after its connection where that is given."""
    connection, _, kind = attributes.rpartition(" ")
    said = f" connection='{connection}'" * bool(connection) + f" type='{kind}'" * bool(kind)
    return NIC.format(attributes=said, children=children, mac=mac)


def site(xml: str, plane: str = "tap", scope: Scope = Scope.LIVE) -> Site:
    """Return the place of an extended ``<interface>`` in a domain, which runs as its XML says."""
    kind = " type='lxc'" if plane == "veth" else ""
    stock = to_stock(f"<domain{kind}><name>vm1</name><devices>{xml}</devices></domain>", plane=plane)
    if "'attached'" in xml and scope is Scope.LIVE and "state='down'" not in xml:
        stock = stock.replace("<link state='down'/>", "<link state='up'/>")
    netdevs = {"nicplug-ua-a.1", "nicplug-ua-a.1.port"} if "'attached'" in xml else {"nicplug-ua-a.sink"}
    joint = Joint("macvlan", "vnet0.np0", "eth0", "bridge") if "attached' type='direct'" in xml else None
    if "'attached'" in xml and "openvswitch" in xml:
        joint = Joint("port", "vnet0.np0", "br0")
    if scope is Scope.CONFIG:
        return site_of(seen(stock), scope)
    if plane == "swap":
        attached = "'attached'" in xml
        peers = {"ua-a": "nicplug-ua-a.1" if attached else "nicplug-ua-a"}
        carriers = {"ua-a": attached and "state='down'" not in xml}
        return site_of(view(parse_domain(stock).root, Facts(netdevs, {}, carriers, peers)))
    if plane != "veth":
        return site_of(seen(stock, netdevs, vnet0=joint))
    if "attached' type='bridge'" in xml:
        joint = Joint("bridge", "br0")
    carriers = {"vnet0": joint is not None}
    return site_of(view(parse_domain(stock).root, Facts(None, {"vnet0": joint}, carriers)))


def plan(here: Site, xml: str) -> Plan:
    return updating.plan(here, updating.parse(xml))


def calls(made: Plan) -> Iterator[str]:
    """Yield the names of the calls that a plan shows."""
    for step in made.steps:
        kind, _, text = step.describe().partition(" ")
        if kind == "monitor":
            yield from re.findall(r'^ *{"execute": "([^"]+)"', text)
        elif kind == "libvirt":
            yield from re.findall(r"\bvir[A-Z]\w+", text.partition("<")[0])
        elif kind == "netlink":
            yield from re.findall(r"\b(?:TUN|RTM)[A-Z_]+", text)
        elif kind == "ovsdb":
            yield " ".join(text.split()[:2])
        elif kind == "process":
            yield re.split(r"[ (]", text.strip())[0]


@dataclass(frozen=True)
class Change:
    """An interface as it is, and documents each of which asks for that change."""

    present: str
    wanted: tuple[str, ...]


def change(present: str, *wanted: str) -> Change:
    return Change(present, wanted)


ON = nic("attached bridge", BRIDGE)
OFF = nic("deferred bridge", BRIDGE)
USER = nic("attached user")
PASST = "<backend type='passt'/>"
SOCKET = "<source address='127.0.0.1' port='5000'/>"
REMOTE = "<source address='192.0.2.1' port='5001'>{}</source>"
MACVTAP = "<source dev='eth0' mode='{}'/>"
FAR = "52:54:00:00:00:02"
COALESCE = "<coalesce><rx><frames max='3'/></rx></coalesce>"
MCAST = "<source address='230.0.0.1' port='5000'/>"


def with_child(child: str, xml: str = ON) -> str:
    """Return an ``<interface>`` with one more child, in place of the one of that name."""
    name = re.match(r"<(\w+)", child)
    assert name
    xml = re.sub(rf"\n  <{name[1]} [^>]*/>", "", xml)
    return xml.replace("</interface>", f"{child}</interface>")


FIXED = (
    *map(
        with_child,
        (
            "<model type='e1000'/>",
            "<address type='pci' domain='0x0000' bus='0x02' slot='0x00' function='0x0'/>",
            "<alias name='ua-b'/>",
            "<target dev='vnet9'/>",
            "<driver rx_queue_size='512'/>",
            "<boot order='1'/>",
            "<rom enabled='no'/>",
            "<acpi index='7'/>",
            "<mtu size='1400'/>",
            "<tune><sndbuf>0</sndbuf></tune>",
            "<guest dev='eth7'/>",
            "<script path='/bin/true'/>",
            "<teaming type='persistent'/>",
        ),
    ),
    ON.replace("<interface", "<interface trustGuestRxFilters='yes'"),
)

#: Each row of the tables in docs/mapping.md, by its first cell.
RUNNING = {
    "`connection`: deferred to attached": change(OFF, ON),
    "`connection`: attached to deferred": change(ON, OFF, nic("deferred ")),
    "backend: another bridge": change(ON, nic("bridge", OTHER), nic("attached bridge", OTHER)),
    "backend: a libvirt network": change(ON, nic("network", "<source network='n'/>")),
    "backend: macvtap (`direct`)": change(ON, nic("direct", MACVTAP.format("bridge"))),
    "backend: macvtap, in another mode on the same device": change(
        nic("attached direct", MACVTAP.format("bridge")), nic("direct", MACVTAP.format("vepa"))
    ),
    "backend: from a macvtap to a bridge": change(
        nic("attached direct", MACVTAP.format("bridge")), nic("bridge", OTHER)
    ),
    "backend: Open vSwitch (`virtualport`)": change(ON, with_child("<virtualport type='openvswitch'/>")),
    "backend: a host device (`netdev`)": change(ON, nic("netdev", "<source dev='eth1'/>")),
    "backend: `cable`": change(ON, nic("cable", f"<source domain='vm2' interface='{FAR}'/>")),
    "backend: user-mode network (`user`)": change(ON, nic("user")),
    "backend: passt": change(ON, nic("user", PASST)),
    "backend: socket (`mcast`, `udp`, `server`)": change(
        ON, nic("mcast", MCAST), nic("server", SOCKET), nic("udp", SOCKET)
    ),
    "backend: socket (`client`)": change(ON, nic("client", SOCKET)),
    "backend: `stream` that listens": change(
        ON, nic("stream", SOCKET.replace("<source", "<source mode='server'"))
    ),
    "backend: `dgram`, `l2tpv3`, `vde`": change(
        ON,
        nic("dgram", REMOTE.format("<local address='192.0.2.2' port='5000'/>")),
        nic("l2tpv3", REMOTE.format("<local address='192.0.2.2'/><session tx='1'/>")),
        nic("vde", "<source path='/run/vde.ctl'/>"),
    ),
    "backend: `stream` that connects": change(
        ON, nic("stream", SOCKET), nic("stream", "<source path='/run/far.sock'/>")
    ),
    "backend: a descriptor (`fd`)": change(ON, nic("fd")),
    "backend: `hostdev`, `vdpa`, `vhostuser`": change(ON, nic("vdpa"), nic("hostdev"), nic("vhostuser")),
    "backend, `link` or both of a deferred NIC": change(
        OFF, nic("bridge", OTHER), nic("bridge", f"{OTHER}<link state='down'/>"), nic("deferred ")
    ),
    "`link` up or down": change(ON, with_child("<link state='down'/>")),
    "`bandwidth`": change(ON, with_child("<bandwidth><inbound average='1'/></bandwidth>")),
    "`filterref`": change(ON, with_child("<filterref filter='f'/>")),
    "`vlan`": change(ON, with_child("<vlan><tag id='5'/></vlan>")),
    "`port`": change(ON, with_child("<port isolated='yes'/>")),
    "`ip`, `portForward` of `user`": change(
        USER,
        nic("user", "<ip address='172.17.2.0' prefix='24'/>"),
        nic("user", "<portForward proto='tcp'><range start='2222' to='22'/></portForward>"),
    ),
    "`coalesce`": change(ON, with_child("<coalesce><rx><frames max='7'/></rx></coalesce>")),
    "any other part of the frontend": change(ON, *FIXED),
}
#: What of `RUNNING` can be asked of a container.
CONTAINER = {
    name: asked
    for name, asked in RUNNING.items()
    if not re.search("passt|socket|stream|dgram|descriptor|portForward", name)
}
PERSISTENT = {
    "`connection`: deferred to attached": change(OFF, ON),
    "`connection`: attached to deferred": change(ON, OFF),
    "backend: another that the plane has": change(ON, nic("bridge", OTHER)),
    "backend, `link` or both of a deferred NIC": RUNNING["backend, `link` or both of a deferred NIC"],
    "`link` up or down": RUNNING["`link` up or down"],
    "backend: macvtap (`direct`)": RUNNING["backend: macvtap (`direct`)"],
    "backend: a host device (`netdev`), `cable`": change(
        ON, *RUNNING["backend: a host device (`netdev`)"].wanted, *RUNNING["backend: `cable`"].wanted
    ),
    "backend: Open vSwitch (`virtualport`)": RUNNING["backend: Open vSwitch (`virtualport`)"],
    "`bandwidth`, `filterref`, `vlan`": change(
        ON, *(wanted for name in ("bandwidth", "filterref", "vlan") for wanted in RUNNING[f"`{name}`"].wanted)
    ),
    "any other part of the frontend": change(
        ON,
        *(xml for xml in FIXED if "'ua-a'" in xml and not re.search("vnet9|<mtu|<tune", xml)),
        with_child("<target dev='t'/>"),
    ),
    "`mtu`, `tune`, `coalesce`": change(
        ON, *(xml for xml in FIXED if re.search("<mtu|<tune", xml)), with_child(COALESCE)
    ),
    "`alias`": change(ON, with_child("<alias name='ua-b'/>")),
}


def rows(heading: str) -> dict[str, dict[str, str]]:
    """Return the table below a heading: first cell → plane → cell."""
    table = MAPPING.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    titles, _, *cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in table.splitlines()
        if line.startswith("| ")
    ]
    planes = [title.removeprefix("plane ") for title in titles[1:]]
    return {name: dict(zip(planes, said, strict=True)) for name, *said in cells}


@pytest.mark.parametrize(
    ("heading", "changes", "scope", "planes"),
    [
        ("While the domain runs", RUNNING, Scope.LIVE, ["tap", "hub", "swap", "native"]),
        ("While a container runs", CONTAINER, Scope.LIVE, ["veth"]),
        ("In the persistent definition", PERSISTENT, Scope.CONFIG, ["tap", "hub", "swap", "native"]),
    ],
)
def test_the_documented_mapping_is_true(
    heading: str, changes: dict[str, Change], scope: Scope, planes: list[str]
) -> None:
    documented = rows(heading)
    assert list(documented) == list(changes)
    for name, asked in changes.items():
        assert list(documented[name]) == planes
        for plane, cell in documented[name].items():
            said = re.findall(r"`([^`]+)`", cell.partition(" (")[0])
            for wanted in asked.wanted:
                held = Document(asked.present).root.attributes["type"] in PLANES[plane].KINDS
                here = site(asked.present if held else ON, plane, scope)
                if said[0].startswith("refused: "):
                    with pytest.raises(NicplugError, match=re.escape(said[0][len("refused: ") :])):
                        plan(here, wanted)
                else:
                    assert list(calls(plan(here, wanted))) == said, f"{name}, plane {plane}: {wanted}"


def test_every_backend_is_in_the_mapping() -> None:
    wanted = {Document(xml).root.attributes.get("type") for asked in RUNNING.values() for xml in asked.wanted}
    assert wanted >= BACKENDS.keys() | NEVER_PLUGGABLE


def test_nothing_differs() -> None:
    for plane in ("tap", "hub", "swap", "native"):
        for scope in Scope:
            for xml in (ON, OFF, with_child("<link state='down'/>")):
                assert (
                    str(plan(site(xml, plane, scope), xml))
                    == f"update {site(xml, plane, scope).name}: nothing to do"
                )


@pytest.mark.parametrize("left_out", ["target", "model", "alias", "address"])
def test_what_libvirt_fills_in_may_be_left_out(left_out: str) -> None:
    xml = re.sub(rf"<{left_out} [^>]*/>", "", ON)
    assert xml != ON
    for scope in Scope:
        assert not plan(site(ON, scope=scope), xml).steps
    changed = with_child("<boot order='1'/>", xml)
    update = plan(site(ON, scope=Scope.CONFIG), changed).steps[0]
    assert isinstance(update, UpdateDevice)
    assert f"<{left_out} " in update.xml


@pytest.mark.parametrize("scope", Scope)
def test_the_way_to_another_alias_keeps_passwords(scope: Scope) -> None:
    with pytest.raises(UnsupportedError, match="alias name='ua-b'") as caught:
        plan(site(ON, scope=scope), ON.replace("ua-a", "ua-b"))
    assert "'nicplug edit vm1'" in caught.value.hint


@pytest.mark.parametrize("xml", [ON, OFF])
def test_the_alias_of_a_container_that_libvirt_drops(xml: str) -> None:
    alias = "<alias name='ua-a'/>"
    for scope in Scope:
        here = site(xml, "veth", scope)
        here = replace(here, nic=replace(here.nic, xml=here.nic.xml.replace(alias, "")))
        assert not plan(here, xml).steps
        with pytest.raises(UnsupportedError, match="alias name='ua-b'"):
            plan(here, xml.replace("ua-a", "ua-b"))
        other = replace(here.nic, mac="52:54:00:00:00:02", alias="ua-b")
        found = updating.matches(updating.parse(f"<interface>{alias}</interface>"), [here.nic, other])
        assert found == [here.nic]


def test_numbers_and_case_as_libvirt_writes_them() -> None:
    assert not plan(site(ON), ON.replace("0x", "").replace(MAC, MAC.upper())).steps
    unwritten = with_child("<address type='pci'/>")
    assert not plan(site(ON), unwritten).steps


def test_comments_say_nothing() -> None:
    boot = "<boot order='1'><!-- first --></boot>"
    present = with_child("<boot order='1'/>", with_child("<script path='/x'/>", ON))
    given = ON.replace("</interface>", f"{boot}<script path='/x'> </script></interface>")
    assert plan(site(present), given).steps == ()
    assert plan(site(given), present).steps == ()


def test_what_libvirt_makes_up_at_each_start_is_no_change_of_the_definition() -> None:
    here = site(
        ON.replace("<target dev='vnet0'/>", "").replace("<alias name='ua-a'/>", ""), scope=Scope.CONFIG
    )
    assert not plan(here, ON.replace("ua-a", "net0")).steps
    named = plan(here, ON.replace("ua-a", "net0").replace("vnet0", "mine0")).steps
    assert [type(step) for step in named] == [UpdateDevice]


def test_what_is_left_out_of_the_backend_is_taken_out() -> None:
    rules = "<bandwidth><inbound average='1'/></bandwidth><vlan><tag id='5'/></vlan>"
    update = plan(site(nic("attached bridge", BRIDGE + rules)), ON).steps[0]
    assert isinstance(update, UpdateDevice)
    assert "<bandwidth" not in update.xml
    assert "<vlan" not in update.xml
    assert "<bandwidth" in update.undo_xml


def test_what_libvirt_adds_to_a_running_network_need_not_be_named() -> None:
    plain = nic("attached network", "<source network='n'/>")
    running = plain.replace("'n'", "'n' portid='1-2' bridge='virbr0'")
    here = site(running)
    assert not plan(here, plain).steps
    assert not plan(here, running.replace("1-2", "3-4")).steps


def test_a_deferred_nic_remembers_what_is_given() -> None:
    for connection in ("", "deferred "):
        (record, *_) = plan(site(OFF), nic(f"{connection}bridge", f"{OTHER}<link state='down'/>")).steps
        assert isinstance(record, Record)
        assert "link='down'" in record.entry.to_xml()
        assert "br1" in record.entry.to_xml()
    (record, *_) = plan(site(OFF), nic("deferred ")).steps
    assert isinstance(record, Record)
    assert "<backend" not in record.entry.to_xml()
    with pytest.raises(UnsupportedError, match="cannot plug"):
        plan(site(OFF), nic("deferred user"))


def test_link_and_backend_at_once() -> None:
    down = nic("attached bridge", f"{BRIDGE}<link state='down'/>")
    back = plan(site(down), nic("bridge", OTHER)).steps[0]
    assert isinstance(back, UpdateDevice)
    assert Document(back.xml).root.get("link", "state") == "up"
    assert "br1" in back.xml


def test_a_changed_frontend_goes_with_the_plug_and_is_undone_with_it() -> None:
    here = site(OFF, scope=Scope.CONFIG)
    wanted = with_child("<model type='e1000'/>", nic("attached bridge", OTHER))
    updates = [step for step in plan(here, wanted).steps if isinstance(step, UpdateDevice)]
    assert len(updates) == 1
    assert "e1000" in updates[0].xml
    assert "br1" in updates[0].xml
    assert "connection" not in updates[0].xml
    assert updates[0].undo_xml == here.nic.xml
    held = plan(site(OFF, "hub", Scope.CONFIG), wanted).steps[0]
    assert isinstance(held, UpdateDevice)
    assert Document(held.xml).root.attributes["type"] == "user"
    assert Document(held.xml).root.get("link", "state") == "down"


def test_how_a_tap_is_opened_cannot_change_while_it_is_open() -> None:
    given = with_child("<backend tap='/dev/net/tun'/>")
    with pytest.raises(UnsupportedError, match="cannot change no backend to <backend tap="):
        plan(site(ON), given)
    assert [type(step) for step in plan(site(ON, scope=Scope.CONFIG), given).steps] == [UpdateDevice]


def test_all_that_is_refused_is_named() -> None:
    given = with_child("<boot order='1'/>", with_child("<model type='e1000'/>"))
    with pytest.raises(UnsupportedError, match="<model type='virtio'/> to <model type='e1000'/>, no boot to"):
        plan(site(ON), given)
    with pytest.raises(UnsupportedError, match="no conection to conection='deferred'"):
        plan(site(ON), ON.replace("connection='attached'", "conection='deferred'"))


def test_a_stock_nic_is_left_to_libvirt() -> None:
    stock = site(nic("bridge", BRIDGE))
    given = nic("bridge", OTHER)
    (step,) = plan(stock, f"<?xml version='1.0'?>{given}").steps
    assert step == UpdateDevice("hand it to libvirt", given, stock.nic.xml, Scope.LIVE)
    with pytest.raises(UnsupportedError, match="not provisioned as pluggable; add connection='attached'"):
        plan(stock, ON)
    named = plan(replace(stock, scope=Scope.CONFIG), given.replace("ua-a", "ua-new"))
    assert named.key == "ua-new"


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        ("<disk/>", "an <interface> was expected, not <disk>; other devices are for 'virsh update-device'"),
        ("<interface", "not well-formed"),
        (nic("maybe bridge", BRIDGE), "connection='maybe' means nothing; say deferred or attached"),
        (nic(), "is to be attached, and the <interface> has no type: to what"),
        (nic("attached "), "has no type"),
    ],
)
def test_documents_that_say_nothing(xml: str, why: str) -> None:
    with pytest.raises(SchemaError, match=why):
        plan(site(ON), xml)


def test_the_interface_is_found_as_libvirt_finds_it() -> None:
    second = "<address type='pci' domain='0x0000' bus='0x02' slot='0x00' function='0x0'/>"
    nics = (
        nic("bridge", BRIDGE),
        with_child(second, with_child("<alias name='ua-b'/>", nic("bridge", BRIDGE))),
        nic("bridge", BRIDGE, "52:54:00:00:00:02"),
    )
    stock = f"<domain><devices>{''.join(nics)}</devices></domain>"
    found = seen(stock).interfaces

    def fitting(xml: str) -> list[int]:
        return [found.index(item) for item in updating.matches(updating.parse(xml), found)]

    mac = f"<mac address='{MAC}'/>"
    assert fitting(f"<interface>{mac}</interface>") == [0, 1]
    assert fitting(f"<interface>{mac}<alias name='ua-b'/></interface>") == [1]
    assert fitting(f"<interface>{mac}{second.replace('0x', '')}</interface>") == [1]
    assert fitting("<interface><mac address='52:54:00:00:00:02'/><alias name='ua-x'/></interface>") == [2]
    assert fitting("<interface><mac address='52:54:00:00:00:03'/></interface>") == []
    assert len(fitting("<interface/>")) == 3


def test_backends_are_compared_whole() -> None:
    here = site(ON)
    assert here.has(Backend("bridge", (BRIDGE,)))
    assert not here.has(Backend("bridge", (BRIDGE, "<port isolated='yes'/>")))
    assert not here.has(None)
    assert site(nic("deferred ")).has(None)


def test_an_interface_without_content_is_filled_in() -> None:
    rom = OFF.replace("</interface>", "<rom enabled='no'/></interface>")
    made = plan(site(rom, scope=Scope.CONFIG), "<interface connection='deferred'/>")
    update = next(step for step in made.steps if isinstance(step, UpdateDevice))
    root = Document(update.xml).root
    assert root.find("rom") is None
    assert root.get("link", "state") == "down"
    assert root.get("mac", "address") == MAC


def test_the_case_of_a_file_is_no_detail() -> None:
    here = site(with_child("<rom file='/A.rom'/>"), scope=Scope.CONFIG)
    assert plan(here, with_child("<rom file='/a.rom'/>")).steps
    assert not plan(here, with_child("<rom file='/A.rom'/>")).steps
    upper = with_child(f"<mac address='{MAC.upper()}'/>")
    assert not plan(site(ON, scope=Scope.CONFIG), upper).steps


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("state", ["attached", "deferred"])
def test_what_a_virtual_port_says_no_more_is_gone(state: str, scope: Scope) -> None:
    def port(parameters: str) -> str:
        return nic(f"{state} bridge", f"{BRIDGE}<virtualport type='openvswitch'>{parameters}</virtualport>")

    made_up = "<parameters interfaceid='7cbf6c7e-5b4b-4a29-9d0c-3c1b2ad7a6f2'/>"
    here = site(port("<parameters profileid='p1'/>"), scope=scope)
    assert plan(here, port("")).steps
    assert plan(here, nic(f"{state} bridge", BRIDGE)).steps
    assert not plan(here, port("<parameters profileid='p1'/>")).steps
    assert not plan(site(port(made_up), scope=scope), port("")).steps
