"""The picture: what is in it, and that what is drawn can be told apart, with any number of guests."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from nicplug_xml import operations
from nicplug_xml.backends import bridge, cable, direct, network, ovs, user
from nicplug_xml.cli.main import main
from nicplug_xml.errors import OperationError
from nicplug_xml.graph import Graph, Nic, Place, graph, natural
from nicplug_xml.model import Backend, Connection, InterfaceStatus
from nicplug_xml.pictures import FORMATS
from nicplug_xml.pictures.layout import PLATE, ROW, Layout, kind_line, lay_out
from nicplug_xml.pictures.svg import render as svg

NATTED = Backend("network", ("<source network='default' bridge='virbr0'/>",))
BACKENDS = [
    None, bridge.backend("br-blue"), bridge.backend("br-green"), NATTED, network.backend("other"),
    ovs.backend("ovs-br0").with_vlan([42]), direct.backend("eth0"), user.backend(),
    *(bridge.backend(f"br-{number}") for number in range(8)),
]  # fmt: skip

numbers = itertools.count(1)


def nic(
    domain: str,
    backend: Backend | None,
    *,
    attached: bool = True,
    link: str = "up",
    carrier: bool | None = True,
    mac: str = "",
) -> InterfaceStatus:
    number = next(numbers)
    mac = mac or f"52:54:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    state = Connection.ATTACHED if attached else Connection.DEFERRED
    target = f"vnet{number}"
    return InterfaceStatus(
        domain, target, mac, f"ua-{number}", target, "virtio", "tap", state, backend, link, carrier
    )


def cabled(one: str, other: str) -> tuple[InterfaceStatus, InterfaceStatus]:
    first, second = nic(one, None), nic(other, None)
    ends = (first, other, second), (second, one, first)
    return tuple(  # type: ignore[return-value]
        nic(end.domain, cable.backend(to, far.mac), mac=end.mac) for end, to, far in ends
    )


def find(picture: Graph, status: InterfaceStatus) -> Nic:
    return next(one for guest in picture.guests for one in guest.nics if one.mac == status.mac)


def test_what_is_in_the_picture() -> None:
    blue, down = nic("vm10", bridge.backend("br-blue")), nic("vm10", NATTED, link="down", carrier=False)
    on_bridge, waiting = (
        nic("vm2", bridge.backend("virbr0")),
        nic("vm2", NATTED, attached=False, carrier=False),
    )
    tagged, own = (
        nic("vm2", ovs.backend("ovs-br0").with_vlan([1, 2])),
        nic("vm2", user.backend(), carrier=None),
    )
    one, other = cabled("vm2", "vm10")
    found = graph({"vm10": [blue, down, other], "vm2": [on_bridge, waiting, tagged, own, one]}, {"vm10"})

    assert [(guest.name, guest.running) for guest in found.guests] == [("vm2", False), ("vm10", True)]
    default = Place("network", "default", "virbr0")
    assert found.places == (Place("bridge", "br-blue"), default, Place("ovs", "ovs-br0"))
    # The bridge of a network is that network.
    assert {one.mac for one in found.nics_at(default)} == {down.mac, on_bridge.mac, waiting.mac}
    assert [{end.mac for end in pair} for pair in found.cables] == [{one.mac, other.mac}]
    assert find(found, tagged).detail == "VLAN 1,2"
    assert find(found, own).place == Place("", "user")
    states = {find(found, status).state for status in (blue, down, waiting, own)}
    assert states == {"", "link down", "unplugged"}


def test_it_is_the_same_in_whatever_order_libvirt_lists_domains() -> None:
    one, other = cabled("vm2", "vm1")
    found = {"vm2": [one], "vm1": [other], "vm10": []}
    for kind in FORMATS.values():
        assert kind(graph(found)) == kind(graph(dict(sorted(found.items()))))


def test_a_cable_with_one_end_in_the_picture_is_named() -> None:
    one, other = cabled("vm1", "vm2")
    found = graph({"vm1": [one]})
    assert not found.cables
    assert find(found, one).place == Place("", f"cable vm2/{other.mac}")


def test_names_are_sorted_as_people_do() -> None:
    assert sorted(["vm10", "vm2", "a", "vm"], key=natural) == ["a", "vm", "vm2", "vm10"]
    assert sorted(["1", "a1", "b"], key=natural)


def awkward() -> Graph:
    name = """a "b" <c> & 'd' \\ #1 -- <br>"""
    one, other = cabled(name, "vm2")
    statuses = [
        nic(name, bridge.backend(name)),
        nic(name, None, attached=False),
        nic(name, user.backend()),
        one,
    ]
    return graph({name: statuses, "vm2": [other], "none": []}, {name})


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_draws_everything(kind: str) -> None:
    found = graph(
        {
            "vm1": [nic("vm1", backend) for backend in BACKENDS if backend],
            "vm2": [nic("vm2", None, attached=False)],
        }
    )
    drawn = FORMATS[kind](found)
    for name in ("vm1", "vm2", "br-blue", "default", "ovs-br0", "eth0", "VLAN 42", "br-7", "unplugged"):
        assert name in drawn
    for guest in found.guests:
        for one in guest.nics:
            assert one.mac in drawn
    assert FORMATS[kind](graph({})) is not None


@pytest.mark.parametrize("picture", [awkward(), graph({}), graph({"vm1": []}, {"vm1"})])
def test_svg_is_well_formed(picture: Graph) -> None:
    root = etree.fromstring(svg(picture))
    assert {element.tag.split("}")[1] for element in root.iter()} <= {
        "svg", "title", "style", "rect", "line", "path", "circle", "g", "text",
    }  # fmt: skip
    texts = [element.text for element in root.iter("{*}text")]
    assert all(guest.name in texts for guest in picture.guests)


def test_graphviz_takes_the_dot() -> None:
    if shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed")
    drawn = subprocess.run(
        ["dot", "-Tplain"], input=FORMATS["dot"](awkward()), capture_output=True, text=True, check=True
    )
    assert drawn.stderr == ""
    assert len(re.findall(r"^node", drawn.stdout, re.MULTILINE)) == 8
    assert len(re.findall(r"^edge", drawn.stdout, re.MULTILINE)) == 3


def test_link_carrier_and_plug_differ_in_shape() -> None:
    """Take all colours out: what differs is still drawn differently."""

    def shape(**state: object) -> str:
        status = nic("vm1", bridge.backend("br-blue"), mac="52:54:00:00:00:01", **state)  # type: ignore[arg-type]
        drawn = svg(graph({"vm1": [status]}, {"vm1"})).replace(status.alias, "NAME")
        # What is told in words is not what this is about.
        return re.sub(r"#[0-9a-f]{3,6}|<title>.*?</title>|<text.*?</text>", "", drawn)

    shapes = [
        shape(),
        shape(carrier=False),
        shape(carrier=None),
        shape(link="down", carrier=False),
        shape(attached=False, carrier=False),
        shape(attached=False, carrier=True),
    ]
    assert len(set(shapes)) == len(shapes)


@st.composite
def pictures(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 40))
    guests = {f"vm{number}": [] for number in range(count)}  # type: dict[str, list[InterfaceStatus]]
    for name, found in guests.items():
        for _ in range(draw(st.integers(0, 4))):
            backend = draw(st.sampled_from(BACKENDS))
            attached = draw(st.booleans()) and backend is not None
            found.append(nic(name, backend, attached=attached, link=draw(st.sampled_from(["up", "down"]))))
    for one, other in draw(
        st.lists(st.tuples(st.sampled_from(list(guests)), st.sampled_from(list(guests))), max_size=6)
    ):
        if one != other:
            for end in cabled(one, other):
                guests[end.domain].append(end)
    return graph(guests, list(guests)[::2])


def wires(layout: Layout) -> list[tuple[float, float, float]]:
    """Return what runs level: from, to, at which height."""
    buses = {bus.place: bus.x for bus in layout.buses}
    lanes = {id(port.nic): lane.x for lane in layout.lanes for port in (lane.one, lane.other)}
    found = []
    for port in (port for box in layout.boxes for port in box.ports):
        end = lanes.get(id(port.nic)) or (buses.get(port.nic.place) if port.nic.place else None)
        end = end if end is not None else port.x + 44 * port.way
        found.append((min(port.x, end), max(port.x, end), port.y))
    return found


@settings(max_examples=60)
@given(pictures())
def test_nothing_hides_anything(picture: Graph) -> None:
    layout = lay_out(picture)
    for one, other in itertools.combinations(layout.boxes, 2):
        assert (
            one.x + one.width < other.x
            or other.x + other.width < one.x
            or one.y + one.height < other.y
            or other.y + other.height < one.y
        )
    for box in layout.boxes:
        assert box.x > 0
        assert box.x + box.width < layout.width
        assert box.y + box.height < layout.height
    # No two wires run in each other, and none runs through a guest.
    levels = wires(layout)
    for (start, end, y), (begin, until, height) in itertools.combinations(levels, 2):
        assert abs(y - height) >= ROW / 2 or end < begin or until < start
    for start, end, y in levels:
        for box in layout.boxes:
            inside = box.y < y < box.y + box.height
            assert not inside or end <= box.x or start >= box.x + box.width
    # Every line of a place is apart from the others, and from their names.
    for bus, other in itertools.permutations(layout.buses, 2):
        assert abs(bus.x - other.x) > 20
        for plate in other.plates:
            width = 16 + max(len(other.place.name), len(kind_line(other.place))) * 6.65
            beside = abs(bus.x - other.x) > width / 2
            assert beside or not bus.top < plate - PLATE / 2 < bus.bottom or plate > bus.bottom
    # Cables side by side where they run beside each other.
    for lane, other in itertools.combinations(layout.lanes, 2):
        if lane.x == other.x:
            ends = sorted((lane.one.y, lane.other.y)), sorted((other.one.y, other.other.y))
            assert ends[0][1] < ends[1][0] or ends[1][1] < ends[0][0]
    for bus in layout.buses:
        for lane in layout.lanes:
            assert lane.x < bus.x - 10


def test_the_command_writes_what_the_files_name_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def drawn(*arguments: str) -> tuple[int, str, str]:
        code = main(["-c", "test:///default", "graph", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    code, text, err = drawn("test")
    assert (code, text.splitlines()[0], err) == (0, "network default", "")
    begins = {
        "a.svg": "<svg",
        "a.dot": "graph nicplug {",
        "a.gv": "graph",
        "a.mmd": "graph LR",
        "a.txt": "network",
    }
    for name, begin in begins.items():
        assert drawn("-o", str(tmp_path / name)) == (0, "", "")
        assert (tmp_path / name).read_text().startswith(begin)
    assert (tmp_path / "a.txt").read_text() == text
    assert drawn("-o", str(tmp_path / "a.txt"), "--format", "svg")[0] == 0
    assert (tmp_path / "a.txt").read_text().startswith("<svg")
    code, _, err = drawn("-o", "picture.jpeg")
    assert code == 2
    assert "does not tell what is wanted; add --format" in err
    code, _, err = drawn("-o", str(tmp_path / "none" / "a.svg"))
    assert code == 1
    assert err.startswith(f"nicplug: error: {tmp_path}/none/a.svg: No such file")
    assert drawn("nope")[0] == 1


def test_a_guest_that_cannot_be_looked_at_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stuck(dom: object, *, inactive: bool) -> list[InterfaceStatus]:
        raise OperationError("QEMU does not answer")

    monkeypatch.setattr(operations, "interfaces", stuck)
    assert main(["-c", "test:///default", "graph"]) == 0
    assert capsys.readouterr().err == "nicplug: warning: a domain is left out: QEMU does not answer\n"
    assert main(["-c", "test:///default", "graph", "test"]) == 1
