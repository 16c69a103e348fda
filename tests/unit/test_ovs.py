"""Backends on Open vSwitch: from the document to the port."""

from __future__ import annotations

from uuid import UUID

import pytest

from nicplug_xml.backends import describe, endpoint, ovs
from nicplug_xml.endpoints import BridgePort, Endpoint, OvsPort
from nicplug_xml.errors import SchemaError
from nicplug_xml.joints import Joint
from nicplug_xml.model import Backend
from nicplug_xml.schema import validate
from nicplug_xml.steps import AddPort

ID = "9f0d2a7e-5b6c-4c7d-8e9f-0a1b2c3d4e5f"
OVS = "<virtualport type='openvswitch'/>"


def bridge(rest: str = "", virtualport: str = OVS) -> Backend:
    """Return a backend of type ``bridge``."""
    return Backend.of(f"<backend type='bridge'><source bridge='ovs0'/>{virtualport}{rest}</backend>")


PORTS: list[tuple[Backend, OvsPort]] = [
    (bridge(), OvsPort("ovs0")),
    (
        bridge(
            virtualport=f"<virtualport type='openvswitch'>"
            f"<parameters interfaceid='{ID.upper()}' profileid='gold &amp; blue'/></virtualport>"
        ),
        OvsPort("ovs0", ID, "gold & blue"),
    ),
    (bridge("<vlan><tag id='42'/></vlan>"), OvsPort("ovs0", tag=42)),
    (bridge("<vlan trunk='yes'><tag id='42'/></vlan>"), OvsPort("ovs0", trunks=(42,))),
    (bridge("<vlan><tag id='42'/><tag id='7'/></vlan>"), OvsPort("ovs0", trunks=(42, 7))),
    (
        bridge("<vlan trunk='yes'><tag id='42' nativeMode='untagged'/><tag id='7'/></vlan>"),
        OvsPort("ovs0", tag=42, trunks=(42, 7), vlan_mode="native-untagged"),
    ),
    (
        bridge("<vlan trunk='yes'><tag id='42'/><tag id='7' nativeMode='tagged'/></vlan>"),
        OvsPort("ovs0", tag=7, trunks=(42, 7), vlan_mode="native-tagged"),
    ),
    (
        bridge("<vlan trunk='yes'><tag id='42' nativeMode='untagged'/></vlan>"),
        OvsPort("ovs0", tag=42, trunks=(42,), vlan_mode="native-untagged"),
    ),
    (
        bridge("<vlan><tag id='42' nativeMode='untagged'/></vlan>"),
        OvsPort("ovs0", tag=42, vlan_mode="native-untagged"),
    ),
]


@pytest.mark.parametrize(("backend", "expected"), PORTS)
def test_port(backend: Backend, expected: Endpoint) -> None:
    assert not validate(backend.to_xml())
    assert endpoint(backend, "") == expected
    assert describe(backend) == "ovs ovs0"


def test_a_plan_tells_all_that_the_port_is_given() -> None:
    joint, mac = Joint("port", "vnet0.np0", "ovs0"), "52:54:00:00:00:01"
    insert = f"ovsdb    insert Port vnet0.np0 into Bridge ovs0, attached-mac {mac}"
    assert AddPort(joint, OvsPort("ovs0"), mac, 0).describe() == insert
    assert (
        AddPort(joint, OvsPort("ovs0", tag=0), mac, 9000).describe() == f"{insert}, tag 0, mtu_request 9000"
    )
    trunk = OvsPort("ovs0", ID, "gold", 7, (42, 7), "native-tagged")
    assert AddPort(joint, trunk, mac, 0).describe() == (
        f"{insert}, iface-id {ID}, port-profile gold, tag 7, trunks 42,7, vlan_mode native-tagged"
    )


def test_other_virtual_ports_are_none_of_these() -> None:
    assert endpoint(bridge(virtualport=""), "") == BridgePort("ovs0")
    assert describe(bridge(virtualport="<virtualport type='midonet'/>")) == "bridge ovs0"


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (
            bridge(virtualport="<virtualport type='openvswitch'><parameters interfaceid='x'/></virtualport>"),
            "the interface id 'x' is no UUID",
        ),
        (bridge("<vlan><tag id='4096'/></vlan>"), "there is no VLAN 4096"),
        (bridge("<vlan><tag id='ten'/></vlan>"), "a number that is none: .*'ten'"),
        (
            bridge("<vlan><tag id='1' nativeMode='tagged'/><tag id='2' nativeMode='untagged'/></vlan>"),
            "more than one VLAN",
        ),
    ],
)
def test_what_is_refused(backend: Backend, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        endpoint(backend, "")


NETWORK = """<network>
  <name>blue</name>
  <forward mode='bridge'/>
  <bridge name='ovs0'/>
  <virtualport type='openvswitch'><parameters profileid='network'/></virtualport>
  <vlan><tag id='1'/></vlan>
  <portgroup name='sales' default='yes'><vlan><tag id='2'/></vlan></portgroup>
  <portgroup name='engineering'>
    <virtualport><parameters profileid='engineering'/></virtualport>
    <vlan trunk='yes'><tag id='2'/><tag id='3' nativeMode='untagged'/></vlan>
  </portgroup>
  <portgroup name='plain'/>
</network>"""


@pytest.mark.parametrize(
    ("source", "rest", "expected"),
    [
        ("", "", OvsPort("ovs0", "", "network", 2)),
        ("portgroup='plain'", "", OvsPort("ovs0", "", "network", 1)),
        ("portgroup='unknown'", "", OvsPort("ovs0", "", "network", 1)),
        (
            "portgroup='engineering'",
            "",
            OvsPort("ovs0", "", "engineering", 3, (2, 3), "native-untagged"),
        ),
        (
            "portgroup='engineering'",
            "<virtualport><parameters interfaceid='" + ID + "' profileid='own'/></virtualport>"
            "<vlan><tag id='9'/></vlan>",
            OvsPort("ovs0", ID, "own", 9),
        ),
    ],
)
def test_network_on_open_vswitch(source: str, rest: str, expected: OvsPort) -> None:
    backend = Backend.of(
        f"<backend type='network'><source network='blue' {source}/>{rest}</backend>",
    )
    assert endpoint(backend, NETWORK) == expected


def test_backend_of_the_command_line() -> None:
    assert endpoint(ovs.backend("ovs0"), "") == OvsPort("ovs0")
    assert endpoint(ovs.backend("ovs0", ID), "") == OvsPort("ovs0", ID)
    assert not validate(ovs.backend("ovs0", ID).to_xml())


def test_the_id_that_is_made_up_is_the_nics_own() -> None:
    one = ovs.interface_id("9f0d2a7e-5b6c-4c7d-8e9f-0a1b2c3d4e5f", "52:54:00:00:00:01")
    assert one == ovs.interface_id("9f0d2a7e-5b6c-4c7d-8e9f-0a1b2c3d4e5f", "52:54:00:00:00:01")
    assert one != ovs.interface_id("9f0d2a7e-5b6c-4c7d-8e9f-0a1b2c3d4e5f", "52:54:00:00:00:02")
    assert one != ovs.interface_id("9f0d2a7e-5b6c-4c7d-8e9f-0a1b2c3d4e50", "52:54:00:00:00:01")
    assert str(UUID(one)) == one
