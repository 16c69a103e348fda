"""Backends as data."""

from __future__ import annotations

import pytest
from lxml import etree

from nicplug_xml import (
    Backend,
    Change,
    Connection,
    Interface,
    InterfaceStatus,
    Plan,
    Problem,
    SchemaError,
)
from nicplug_xml.backends import bridge, describe, network
from nicplug_xml.frozen import replace
from nicplug_xml.model import Scope

XML = "<backend type='bridge'><source bridge='br0'/></backend>"

STATUS = InterfaceStatus(
    "vm1", "vnet0", "52:54:00:00:00:01", "ua-lan", "vnet0", "virtio", "tap", Connection.ATTACHED,
    Backend.of(XML), "up", True,
)  # fmt: skip


@pytest.mark.parametrize(
    "item",
    [
        Connection.DEFERRED,
        Backend.of(XML),
        Backend(None, ("<bandwidth/>",)),
        STATUS,
        Problem(3, 7, "/backend", "it is not valid", allowed=("bridge",)),
        Change("moved", 1.5, "vm1", Scope.LIVE, STATUS, STATUS, "other"),
    ],
)
def test_the_repr_is_what_makes_an_equal_one(item: object) -> None:
    assert eval(repr(item)) == item


def test_backends_that_say_the_same_are_equal() -> None:
    one = Backend("bridge", ("<source bridge='br0'/>", "<vlan trunk='yes'>\n <tag id='4'/></vlan>"))
    same = Backend("bridge", ('<vlan trunk="yes"><tag id="4"></tag></vlan>', '<source\tbridge="br0"/>'))
    assert one == same
    assert len({one, same}) == 1
    for other in (XML, XML.replace("br0'/>", "br0'/><vlan><tag id='4'/></vlan>"), XML.replace("br0", "br1")):
        assert one != Backend.of(other)
    assert one != replace(one, type="network")
    assert one != "bridge"


def test_a_repr_is_short_where_there_is_a_lot_in_it() -> None:
    nic = Interface(
        "<interface/>", "52:54:00:00:00:01", "ua-lan", "ua-lan", "vnet0", "virtio", "tap",
        Connection.DEFERRED, None, None, False,
    )  # fmt: skip
    assert repr(nic) == "<Interface vnet0 = ua-lan = 52:54:00:00:00:01: deferred, None>"
    assert repr(Plan("unplug vnet0 of vm1", "ua-lan", Scope.LIVE)) == "<Plan to unplug vnet0 of vm1: 0 steps>"


@pytest.mark.parametrize(
    "source", [XML, etree.fromstring(XML), Backend("bridge", ("<source bridge='br0'/>",))]
)
def test_of_whatever_a_caller_has(source: object) -> None:
    backend = Backend.of(source)
    assert (backend.type, dict(backend.source)) == ("bridge", {"bridge": "br0"})
    assert Backend.of(backend.to_xml()) == Backend.of(backend)


@pytest.mark.parametrize(
    ("xml", "why"),
    [
        ("<interface type='bridge'/>", "not <interface>"),
        ("<backend/>", "has no type"),
        ("<backend type='bridge'><mac/></backend>", "<mac> is no part"),
        ("<backend", "not well-formed"),
        ("<!DOCTYPE backend><backend type='x'/>", "DOCTYPE"),
    ],
)
def test_refused(xml: str, why: str) -> None:
    with pytest.raises(SchemaError, match=why):
        Backend.of(xml)


def test_is_within_what_libvirt_added_to() -> None:
    asked = Backend("bridge", ("<source bridge='b'/>", "<virtualport type='openvswitch'/>"))
    present = Backend(
        "bridge",
        (
            "<source bridge='b'/>",
            "<virtualport type='openvswitch'><parameters interfaceid='1'/></virtualport>",
            "<port isolated='yes'/>",
        ),
    )
    assert asked.is_within(present)
    assert not present.is_within(asked)
    assert not bridge.backend("c").is_within(present)
    assert not network.backend("b").is_within(present)


def test_what_says_nothing_need_not_be_there() -> None:
    """libvirt drops it; and to a backend that is to have no bandwidth it is how to say so."""
    present = bridge.backend("b")
    unlimited = Backend("bridge", (*present.children, "<bandwidth/>", "<port> <!-- none --> </port>"))
    assert unlimited.is_within(present)
    assert present.is_within(unlimited)
    limited = Backend("bridge", (*present.children, "<bandwidth><inbound average='1'/></bandwidth>"))
    assert not limited.is_within(unlimited)
    assert unlimited.with_policy_of(limited) == unlimited


@pytest.mark.parametrize(
    ("tags", "xml"),
    [((7,), "<vlan><tag id='7'/></vlan>"), ((7, 8), "<vlan trunk='yes'><tag id='7'/><tag id='8'/></vlan>")],
)
def test_with_vlan_replaces_its_own(tags: tuple[int, ...], xml: str) -> None:
    backend = Backend("bridge", ("<vlan><tag id='1'/></vlan>", "<source bridge='b'/>"))
    assert backend.with_vlan(tags).children == ("<source bridge='b'/>", xml)


def test_backends_describe_themselves() -> None:
    for module in (bridge, network):
        assert describe(module.backend("x'y")) == f"{module.TYPES[0]} x'y"
    assert describe(None) == "-"
    assert describe(Backend("direct", ("<source dev='eth0' mode='bridge'/>",))) == "direct eth0 (bridge)"
    assert describe(Backend("user")) == "user"


def test_a_problem_prints_where_and_what() -> None:
    assert str(Problem(3, 0, "/domain", "is wrong", "do right")) == "3: /domain: is wrong (do right)"
    assert str(Problem(3, 4, "/domain", "is wrong")) == "3:4: /domain: is wrong"
