"""Plane hub: its domain XML, and its plans."""

from __future__ import annotations

import pytest
from lxml import etree

from nicplug_xml import to_extended, to_stock
from nicplug_xml.backends import BACKENDS, bridge, direct, ovs, user
from nicplug_xml.document import quoted
from nicplug_xml.errors import SchemaError, UnsupportedError
from nicplug_xml.facts import Facts
from nicplug_xml.host import monitor
from nicplug_xml.model import Backend, Connection, Scope
from nicplug_xml.planes import PLANES
from nicplug_xml.planner import Site
from nicplug_xml.stock import parse_domain
from nicplug_xml.view import view
from tests.unit.sites import seen, site_of
from tests.unit.test_rewrite import canonical

QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
NS = "xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'"
NIC = "<interface connection='{}' type='user'><mac address='52:54:00:00:00:0{}'/>{}</interface>"

USERS_OWN = [
    "",
    f"<q:commandline {NS}><q:arg value='-netdev'/><q:arg value='hubport,id=mine,hubid=0'/></q:commandline>",
    f"<q:override {NS}><q:device alias='ua-x'><q:frontend><q:property name='a' type='string' value='b'/>"
    "</q:frontend></q:device></q:override>",
    f"<q:override {NS}>\n  <q:device alias='ua-one'>\n <q:frontend>"
    "<q:property name='a' type='string' value='b'/></q:frontend></q:device></q:override>",
    f"<q:override {NS}><q:device alias='ua-one'><q:backend/></q:device></q:override>",
    f"<commandline xmlns='{QEMU[1:-1]}'><arg value='-S'/><!-- mine --></commandline>",
]


def domain(*interfaces: str, rest: str = "") -> str:
    return f"<domain><name>vm1</name>\n  <devices>{''.join(interfaces)}</devices>\n  {rest}\n</domain>"


@pytest.mark.parametrize("rest", USERS_OWN)
def test_round_trip_with_the_users_own_qemu_xml(rest: str) -> None:
    nics = (NIC.format("deferred", 1, "<alias name='ua-one'/>"), NIC.format("attached", 2, ""))
    xml = domain(*nics, rest=rest)
    stock = to_stock(xml, plane="hub")
    assert canonical(to_extended(stock)) == canonical(xml)
    root = etree.fromstring(stock)
    arguments = [arg.get("value") for arg in root.iter(f"{QEMU}arg")]
    ports = [value for value in arguments if value.startswith("hubport,")]
    hubids = [value.rpartition("=")[2] for value in ports]
    assert sorted(map(hubids.count, set(hubids) - {"0"})) == [2, 2]  # the NIC's port, and the sink
    assert hubids.count("0") == ("mine" in rest and "hubid=0" in rest)
    for alias in ("ua-one", "ua-nicplug2"):
        (value,) = root.xpath(
            "//q:device[@alias=$alias]/q:frontend/q:property[@name='netdev']/@value",
            alias=alias, namespaces={"q": QEMU[1:-1]},
        )  # fmt: skip
        assert any(value in port.split("id=")[1].split(",")[0] for port in ports)
    for nic in root.iterfind("devices/interface"):
        assert nic.get("type") == "user"
        assert nic.find("link").get("state") == "down"


@pytest.mark.parametrize("plane", ["hub", "swap"])
@pytest.mark.parametrize("rest", USERS_OWN)
def test_what_an_interface_has_left_is_in_no_others_way(plane: str, rest: str) -> None:
    """virsh takes out an interface, or our metadata, and nothing of what QEMU is told for it."""
    one, two = NIC.format("deferred", 1, "<alias name='ua-one'/>"), NIC.format("deferred", 2, "")
    stock = to_stock(domain(one, two, rest=rest), plane=plane)

    def without(*taken: str) -> str:
        root = etree.fromstring(stock)
        for path in taken:
            for found in root.findall(path):
                found.getparent().remove(found)
        return etree.tostring(root, encoding="unicode")

    def told(xml: str) -> list[str]:
        root = etree.fromstring(xml)
        aliases = ("ua-one", "ua-nicplug2")
        frontends = root.xpath("//q:property[@name='netdev']/../..", namespaces={"q": QEMU[1:-1]})
        assert sorted(item.get("alias") for item in frontends) == sorted(aliases)
        values = [arg.get("value") for arg in root.iter(f"{QEMU}arg")]
        return [value.split(",hubid")[0] for value in values]

    expected = sorted(told(stock))
    extended = to_extended(without("devices/interface[2]"), restore_generated=False)
    assert canonical(extended) == canonical(domain(one, rest=rest))
    assert (
        sorted(told(to_stock(extended.replace("</interface>", f"</interface>{two}"), plane=plane)))
        == expected
    )
    bare = without("metadata").replace("<interface ", "<interface connection='deferred' ")
    for other in ("hub", "swap"):
        new = to_stock(domain(one, two, rest=rest), plane=other)
        assert sorted(told(to_stock(bare, plane=other))) == sorted(told(new))


def test_auto_takes_the_plane_that_can_have_the_backend() -> None:
    xml = domain(NIC.format("deferred", 1, ""), NIC.format("deferred", 2, "").replace("'user'", "'bridge'"))
    assert [nic.plane for nic in seen(to_stock(xml)).interfaces] == ["hub", "tap"]


def test_what_the_hub_cannot_carry_out_is_refused() -> None:
    with pytest.raises(SchemaError, match="plane 'hub' cannot carry out <bandwidth>"):
        to_stock(domain(NIC.format("deferred", 1, "<bandwidth/>")), plane="hub")
    limited = Backend("bridge", ("<source bridge='b'/>", "<bandwidth/>"))
    with pytest.raises(UnsupportedError, match="cannot carry out <bandwidth>"):
        site().attach(limited)
    # Left out, it would not be Open vSwitch any more.
    with pytest.raises(UnsupportedError, match=r"cannot carry out <virtualport> .*; a NIC on plane tap can"):
        site().attach(ovs.backend("ovs0"))


@pytest.mark.parametrize("plane", ["hub", "swap"])
def test_addresses_that_nobody_would_give_to_the_guest_are_refused(plane: str) -> None:
    address = "<ip address='192.0.2.2' prefix='24'/>"
    route = "<route address='198.51.100.0' prefix='24' gateway='192.0.2.1'/>"
    user = NIC.format("deferred", 1, address)
    to_stock(domain(user), plane=plane)
    for nic, child in ((user.replace("'user'", "'bridge'"), "ip"), (user.replace(address, route), "route")):
        with pytest.raises(SchemaError, match=f"plane '{plane}' cannot carry out <{child}> of type"):
            to_stock(domain(nic), plane=plane)
    with pytest.raises(UnsupportedError, match="cannot carry out <ip>"):
        site().attach(Backend("bridge", ("<source bridge='b'/>", address)))


def test_a_network_on_open_vswitch_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="'ovs0' is a bridge of Open vSwitch"):
        site().attach(Backend("network", ("<source network='switched'/>",)))
    with pytest.raises(UnsupportedError, match="network rules gives its NICs <bandwidth>, which plane 'hub'"):
        site().attach(Backend("network", ("<source network='rules' portgroup='g'/>",)))
    assert site().attach(Backend("network", ("<source network='rules'/>",))).steps


def test_what_would_lie_to_its_guest_is_refused() -> None:
    nic = NIC.format("deferred", 1, "<model type='e1000e'/>")
    for plane in ("tap", "hub"):
        with pytest.raises(SchemaError, match="model 'e1000e' does not tell its guest"):
            to_stock(domain(nic.replace(" type='user'", "")), plane=plane)


@pytest.mark.parametrize("plane", ["tap", "hub"])
def test_other_macs_of_a_guest_take_mode_passthrough(plane: str) -> None:
    nic = NIC.format("deferred", 1, "<alias name='ua-a'/>").replace(
        "type='user'", "trustGuestRxFilters='yes'"
    )
    one = site_of(seen(to_stock(domain(nic), plane=plane), ()))
    with pytest.raises(UnsupportedError, match="in mode bridge frames to other MACs"):
        one.attach(direct.backend("eth1", "bridge"))
    assert one.attach(direct.backend("eth1", "passthrough")).steps


def test_qemu_is_believed_before_the_record() -> None:
    stock = to_stock(domain(NIC.format("attached", 1, "<alias name='ua-a'/>")), plane="hub")
    port = "nicplug-ua-a.0.port"
    for netdevs, connection in (
        (None, Connection.ATTACHED),
        ({port, "nicplug-ua-a.0"}, Connection.ATTACHED),
        ({port}, Connection.DEFERRED),
        ({"nicplug-ua-a"}, Connection.DEFERRED),
    ):
        assert seen(stock, netdevs).interfaces[0].connection is connection
        assert f"connection='{connection.value}'" in to_extended(stock, facts=Facts(netdevs))
    assert seen(stock, set()).interfaces[0].backend == Backend("user")


def site(connection: str = "deferred", netdevs: tuple[str, ...] = (), scope: Scope = Scope.LIVE) -> Site:
    stock = to_stock(domain(NIC.format(connection, 1, "<alias name='ua-a'/>")), plane="hub")
    now = seen(stock, set(netdevs) if scope is Scope.LIVE else None)
    return site_of(now, scope)


def calls(steps: tuple[object, ...]) -> list[str]:
    return [step.describe().split(" {", 1)[-1][:60] for step in steps]  # type: ignore[attr-defined]


def test_plug() -> None:
    lines = str(site(netdevs=("nicplug-ua-a.sink",)).attach(user.backend())).splitlines()[1:]
    assert [line.split()[1] for line in lines] == [
        "monitor", "monitor", "libvirt", "libvirt", "check", "monitor", "monitor"
    ]  # fmt: skip
    assert lines[-2].endswith('"netdev_del", "arguments": {"id": "nicplug-ua-a.sink"}}')
    assert '"type": "user", "id": "nicplug-ua-a.1"' in lines[0]
    assert (
        '"type": "hubport", "id": "nicplug-ua-a.1.port", "hubid": 1, "netdev": "nicplug-ua-a.1"' in lines[1]
    )


def test_a_move_never_has_both_in_the_hub_and_lets_go_last() -> None:
    steps = (
        site("attached", ("nicplug-ua-a.1", "nicplug-ua-a.1.port"))
        .attach(bridge.backend("br0"), announce=False)
        .steps
    )
    text = [step.describe() for step in steps]
    out = next(
        n for n, line in enumerate(text) if '"netdev_del", "arguments": {"id": "nicplug-ua-a.1.port"' in line
    )
    into = next(n for n, line in enumerate(text) if '"id": "nicplug-ua-a.0.port"' in line)
    made = next(n for n, line in enumerate(text) if '"type": "tap"' in line)
    assert made < out < into
    assert text[-1].endswith('"netdev_del", "arguments": {"id": "nicplug-ua-a.1"}}')


def test_what_an_interrupted_move_has_left_goes() -> None:
    left = ("nicplug-ua-a.0", "nicplug-ua-a.1", "nicplug-ua-a.1.port")
    attach = [step.describe() for step in site("attached", left).attach(bridge.backend("br0")).steps]
    assert attach[0].endswith('"netdev_del", "arguments": {"id": "nicplug-ua-a.0"}}')
    detach = [step.describe() for step in site("attached", left).detach().steps][-2:]
    assert [line.split('"id": ')[1] for line in detach] == ['"nicplug-ua-a.0"}}', '"nicplug-ua-a.1"}}']


def test_what_an_interrupted_plug_has_left_goes_first() -> None:
    """It may have what the next backend takes."""
    for port in ([], ["nicplug-ua-a.0.port"]):
        left = ("nicplug-ua-a.sink", "nicplug-ua-a.0", "nicplug-ua-a.1", *port)
        lines = [step.describe() for step in site(netdevs=left).attach(direct.backend("eth0")).steps]
        gone = [line.split('"id": ')[1].strip('"}') for line in lines[: 2 + len(port)]]
        assert gone == [*port, "nicplug-ua-a.0", "nicplug-ua-a.1"]
        assert "macvtap" in lines[2 + len(port)]
        assert '"id": "nicplug-ua-a.1.port"' in "".join(lines[3:])


@pytest.mark.parametrize("taken", ["hubport,id=a,hubid=1", '{"type":"hubport","hubid":1}', "x,hubid=0x1"])
def test_hubs_of_the_user_are_not_taken(taken: str) -> None:
    own = f"<q:commandline {NS}><q:arg value={quoted(taken)}/></q:commandline>"
    stock = to_stock(domain(NIC.format("deferred", 1, "<alias name='ua-a'/>"), rest=own), plane="hub")
    assert "hubport,id=nicplug-ua-a,hubid=2" in stock


def test_unplug_takes_the_carrier_first() -> None:
    steps = site("attached", ("nicplug-ua-a.0", "nicplug-ua-a.0.port")).detach().steps
    kinds = [step.describe().split()[0] for step in steps]
    assert kinds == ["monitor", "monitor", "libvirt", "check", "monitor"]  # its link is down already
    assert '"netdev_add", "arguments": {"type": "hubport", "id": "nicplug-ua-a.sink"' in steps[0].describe()
    assert not site().detach().steps
    # What was interrupted before it had joined has left a netdev.
    left = site(netdevs=("nicplug-ua-a.sink", "nicplug-ua-a.1")).detach().steps
    assert left[-1].describe().endswith('"netdev_del", "arguments": {"id": "nicplug-ua-a.1"}}')


def test_a_nic_that_libvirt_has_plugged_in_anew_is_not_on_its_hub() -> None:
    stock = to_stock(domain(NIC.format("attached", 1, "<alias name='ua-a'/>")), plane="hub")
    port = frozenset(("nicplug-ua-a.0", "nicplug-ua-a.0.port"))
    for peer, connection in (("nicplug-ua-a", Connection.ATTACHED), ("hostua-a", Connection.DEFERRED)):
        now = view(parse_domain(stock).root, Facts(port, peers={"ua-a": peer}))
        assert now.interfaces[0].connection is connection
    with pytest.raises(UnsupportedError, match="is not on its hub"):
        site_of(now).attach(user.backend())


def test_who_has_hung_up_is_connected_to_again() -> None:
    nic = NIC.format("attached", 1, "<source address='192.0.2.1' port='1'/><alias name='ua-a'/>")
    stock = to_stock(domain(nic.replace("'user'", "'client'")), plane="hub")
    stock = stock.replace("<link state='down'/>", "<link state='up'/>")
    for ended in (frozenset[str](), frozenset(("nicplug-ua-a.0",))):
        facts = Facts(frozenset(("nicplug-ua-a.0", "nicplug-ua-a.0.port")), ended=ended)
        here = site_of(view(parse_domain(stock).root, facts))
        assert bool(here.attach(None).steps) is bool(ended)


def test_another_link_leaves_who_is_connected_in_peace() -> None:
    stock = to_stock(domain(NIC.format("attached", 1, "<alias name='ua-a'/>")), plane="hub")
    stock = stock.replace("<link state='down'/>", "<link state='up'/>")
    here = site_of(seen(stock, {"nicplug-ua-a.0", "nicplug-ua-a.0.port"}))
    steps = here.attach(user.backend(), link="down").steps
    assert [step.describe().split()[0] for step in steps] == ["libvirt", "libvirt", "check"]


def test_a_port_of_the_host_is_free_before_the_next_backend_takes_it() -> None:
    def forward(*ports: int) -> str:
        ranges = "".join(f"<range start='{port}' to='80'/>" for port in ports)
        return f"<portForward proto='tcp'>{ranges}</portForward>"

    nic = NIC.format("attached", 1, f"{forward(7080)}<alias name='ua-a'/>")
    here = site_of(seen(to_stock(domain(nic), plane="hub"), {"nicplug-ua-a.0", "nicplug-ua-a.0.port"}))
    for ports, gone_first in (((7080, 7081), True), ((7081,), False)):
        moved = here.attach(Backend.of(f"<backend type='user'>{forward(*ports)}</backend>")).steps
        names = [step.describe() for step in moved]
        gone = next(n for n, name in enumerate(names) if name.endswith('{"id": "nicplug-ua-a.0"}}'))
        made = next(n for n, name in enumerate(names) if '"type": "user"' in name)
        assert (gone < made) is gone_first


def test_the_persistent_definition_is_only_recorded() -> None:
    for plan in (
        site(scope=Scope.CONFIG).attach(bridge.backend("br0")),
        site("attached", scope=Scope.CONFIG).detach(),
        site("attached", scope=Scope.CONFIG).set_link("down"),
    ):
        assert [step.describe().split()[0] for step in plan.steps][:1] == ["libvirt"]
        assert "virDomainSetMetadata(config)" in plan.steps[0].describe()


def test_every_type_of_a_plane_has_a_backend() -> None:
    assert set(BACKENDS) == frozenset().union(*(plane.KINDS for plane in PLANES.values()))


def test_a_macvtap_leaves_before_the_next_one_on_its_device() -> None:
    nic = NIC.format("attached", 1, "<source dev='eth1' mode='bridge'/><alias name='ua-a'/>")
    stock = to_stock(domain(nic.replace("'user'", "'direct'")), plane="hub")
    now = seen(stock, {"nicplug-ua-a.0", "nicplug-ua-a.0.port"})
    one = site_of(now)

    def order(device: str) -> tuple[int, int]:
        text = [step.describe() for step in one.attach(direct.backend(device, "passthrough")).steps]
        made = next(n for n, line in enumerate(text) if "mode passthru" in line)
        gone = next(n for n, line in enumerate(text) if line.endswith('{"id": "nicplug-ua-a.0"}}'))
        return made, gone

    made, gone = order("eth1")
    assert gone < made
    made, gone = order("eth2")
    assert made < gone


def test_the_recorded_plane_is_kept() -> None:
    xml = domain(NIC.format("attached", 1, "<alias name='ua-a'/>").replace("'user'", "'bridge'"))
    assert seen(to_stock(xml, recorded={"ua-a": "hub"})).interfaces[0].plane == "hub"
    assert seen(to_stock(xml, plane="tap", recorded={"ua-a": "hub"})).interfaces[0].plane == "tap"
    user = domain(NIC.format("attached", 1, "<alias name='ua-a'/>"))
    assert seen(to_stock(user, recorded={"ua-a": "tap"})).interfaces[0].plane == "hub"


@pytest.mark.parametrize("child", ["<mtu size='9000'/>", "<driver queues='4'/>", "<coalesce/>"])
def test_what_would_not_start_is_refused(child: str) -> None:
    with pytest.raises(SchemaError, match="plane 'hub'"):
        to_stock(domain(NIC.format("deferred", 1, child)), plane="hub")


def test_what_is_on_a_hub_is_among_the_netdevs() -> None:
    class Monitor:
        def command(self, command: str, arguments: object, fd: int | None = None) -> object:
            return (
                "hub 1\r\n"
                " \\ nicplug-ua-a.0.port: nicplug-ua-a.0: index=0,type=socket,socket: fd=17\r\n"
                " \\ nicplug-ua-a.sink\r\n"
                " \\ nicplug-ua-a: ua-a: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:00:00:01\r\n"
                "ua-b: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:00:00:02\r\n"
                " \\ hostua-b: index=0,type=user,net=10.0.2.0,restrict=off\r\n"
                "hostua-a: index=0,type=user,net=10.0.2.0,restrict=off\r\n"
                "nicplug-ua-b.0: index=0,type=socket,\r\n"
            )

    found = monitor.network(Monitor())
    assert found.ids == {
        "nicplug-ua-a.0.port", "nicplug-ua-a.0", "nicplug-ua-b.0", "nicplug-ua-a", "ua-a", "ua-b",
        "hostua-a", "hostua-b", "nicplug-ua-a.sink",
    }  # fmt: skip
    assert found.peers == {"ua-a": "nicplug-ua-a", "ua-b": "hostua-b"}
    assert found.ended == {"nicplug-ua-b.0"}
