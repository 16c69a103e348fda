"""Ports of Open vSwitch by its database, and their frames. ovs-vsctl and raw sockets do the looking."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nicplug_xml.backends import endpoint
from nicplug_xml.endpoints import OvsPort
from nicplug_xml.errors import NotFoundError, OperationError
from nicplug_xml.frozen import replace
from nicplug_xml.host import ovsdb
from nicplug_xml.model import Backend
from nicplug_xml.testing.ovs import OvsBridge, private_ovs
from tests.live.conftest import devices, run, target, wait_gone, wait_until
from tests.live.frames import Wire

if TYPE_CHECKING:
    from nicplug_xml.testing.ovs import PrivateOvs
    from nicplug_xml.testing.plugin import GuestFactory, OvsBridgeFactory

UUID = "11111111-2222-4333-8444-555555555555"
MAC = "52:54:00:11:33:01"

MAY_BE_LEFT = (
    "may be left there; once Open vSwitch runs, 'ovs-vsctl --if-exists del-port np-a.np0' removes it"
)

EMBEDDED = pytest.mark.parametrize("libvirt_connection", ["embedded"], indirect=True)


@pytest.fixture
def bridge(libvirt_ovs_bridge: OvsBridgeFactory) -> OvsBridge:
    return libvirt_ovs_bridge()


def port_on(bridge: OvsBridge, rest: str = "", parameters: str = "") -> OvsPort:
    """Return the endpoint of a backend on that bridge."""
    port = endpoint(
        Backend.of(
            f"<backend type='bridge'><source bridge='{bridge}'/>"
            f"<virtualport type='openvswitch'>{parameters}</virtualport>{rest}</backend>"
        ),
        "",
    )
    assert isinstance(port, OvsPort)
    return port


def test_a_port_comes_and_goes(bridge: OvsBridge) -> None:
    port = port_on(bridge, parameters=f"<parameters interfaceid='{UUID}'/>")
    ovsdb.add_port("np-a.np0", port, mac=MAC, domain=UUID, mtu=1400)

    # It is there by the time that the call returns, and not a moment later.
    (link,) = json.loads(run("ip", "-json", "link", "show", "dev", "np-a.np0"))
    assert link["mtu"] == 1400
    assert bridge.ports() == ["np-a.np0"]
    interface = bridge.ovs.row("Interface", "np-a.np0", "type", "external_ids", "ofport", "error")
    assert interface.pop("ofport") >= 1
    assert interface == {
        "type": "internal",
        "external_ids": {
            "attached-mac": MAC,
            "iface-id": UUID,
            "iface-status": "active",
            "vm-id": UUID,
        },
        "error": [],
    }

    ovsdb.delete_port("np-a.np0")
    assert bridge.ports() == []
    wait_gone("np-a.np0")
    ovsdb.delete_port("np-a.np0")


def test_adding_a_port_is_one_transaction(bridge: OvsBridge) -> None:
    ovsdb.add_port("np-a.np0", port_on(bridge, "<vlan><tag id='42'/></vlan>"), mac=MAC, domain=UUID)
    ovsdb.delete_port("np-a.np0")

    log = run("ovsdb-tool", "-m", "show-log", str(bridge.ovs.directory / "conf.db"))
    ours = [record for record in re.split(r"^(?=record )", log, flags=re.M) if '"nicplug: ' in record]
    added, deleted = ours[-2:]
    assert f"nicplug: add port np-a.np0 to {bridge}" in added
    for table in ("Interface", "Port", "Bridge"):
        assert re.search(rf"^\s+table {table} ", added, re.M), f"{table} is not in:\n{added}"
        assert re.search(rf"^\s+table {table} ", deleted, re.M), f"{table} is not in:\n{deleted}"


@EMBEDDED
@pytest.mark.parametrize(
    ("parameters", "vlan"),
    [
        (f"<parameters interfaceid='{UUID}'/>", ""),
        (f"<parameters interfaceid='{UUID}' profileid='gold'/>", "<vlan><tag id='42'/></vlan>"),
        (
            f"<parameters interfaceid='{UUID}'/>",
            "<vlan trunk='yes'><tag id='42' nativeMode='untagged'/><tag id='43'/></vlan>",
        ),
        (
            f"<parameters interfaceid='{UUID}'/>",
            "<vlan><tag id='42' nativeMode='untagged'/></vlan>",
        ),
    ],
)
def test_a_port_is_as_libvirt_would_have_it(
    bridge: OvsBridge,
    libvirt_guest: GuestFactory,
    new_mac: Callable[[], str],
    parameters: str,
    vlan: str,
) -> None:
    mac = new_mac()
    guest = libvirt_guest(
        f"""<interface type='bridge'>
          <mac address='{mac}'/>
          <source bridge='{bridge}'/>
          <virtualport type='openvswitch'>{parameters}</virtualport>
          {vlan}
          <model type='virtio'/>
        </interface>""",
        timeout=None,
    )
    port = port_on(bridge, vlan, parameters)
    ovsdb.add_port("np-a.np0", port, mac=mac, domain=guest.dom.UUIDString())

    for table, names in (("Interface", ("external_ids",)), ("Port", ("tag", "trunks", "vlan_mode"))):
        tap = target(guest.dom, mac)
        libvirts = json.dumps(bridge.ovs.row(table, tap, *names)).replace(tap, "np-a.np0")
        assert bridge.ovs.row(table, "np-a.np0", *names) == json.loads(libvirts)


def test_an_id_is_made_up_where_none_is_given(bridge: OvsBridge) -> None:
    ids = []
    for _ in range(2):
        ovsdb.add_port("np-a.np0", port_on(bridge), mac=MAC, domain=UUID)
        ids.append(bridge.ovs.row("Interface", "np-a.np0", "external_ids")["external_ids"]["iface-id"])
        ovsdb.delete_port("np-a.np0")
    assert ids[0] == ids[1]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", ids[0])


VLANS = {
    "plain": "",
    "access42": "<vlan><tag id='42'/></vlan>",
    "other42": "<vlan><tag id='42'/></vlan>",
    "access43": "<vlan><tag id='43'/></vlan>",
    "trunk": "<vlan trunk='yes'><tag id='42'/><tag id='43'/></vlan>",
    "untagged": "<vlan trunk='yes'><tag id='42' nativeMode='untagged'/><tag id='43'/></vlan>",
    "tagged": "<vlan trunk='yes'><tag id='42' nativeMode='tagged'/><tag id='43'/></vlan>",
}


@pytest.fixture
def wires(bridge: OvsBridge) -> Iterator[dict[str, Wire]]:
    """One port for each of `VLANS`, on one bridge."""
    with ExitStack() as closes:
        found = {}
        for name, vlan in VLANS.items():
            ovsdb.add_port(f"np-{name}", port_on(bridge, vlan), mac=MAC, domain=UUID)
            run("ip", "link", "set", f"np-{name}", "addrgenmode", "none", "up")
            found[name] = closes.enter_context(closing(Wire(f"np-{name}")))
        yield found


@pytest.mark.parametrize(
    ("sender", "tag", "expected"),
    [
        (
            "access42",
            None,
            {"plain": 42, "other42": 0, "trunk": 42, "untagged": 0, "tagged": 42},
        ),
        ("access42", 43, {}),
        ("plain", None, {}),
        ("plain", 43, {"access43": 0, "trunk": 43, "untagged": 43, "tagged": 43}),
        ("plain", 44, {}),
        (
            "trunk",
            42,
            {"plain": 42, "access42": 0, "other42": 0, "untagged": 0, "tagged": 42},
        ),
        ("trunk", None, {}),
        ("trunk", 44, {}),
        (
            "untagged",
            None,
            {"plain": 42, "access42": 0, "other42": 0, "trunk": 42, "tagged": 42},
        ),
        ("tagged", 43, {"plain": 43, "access43": 0, "trunk": 43, "untagged": 43}),
    ],
)
def test_frames_reach_the_ports_of_their_vlan(
    wires: dict[str, Wire], sender: str, tag: int | None, expected: dict[str, int]
) -> None:
    content = wires[sender].send(tag)
    seen = {name: wires[name].arrived(content, 30) for name in expected}
    # ovs-vswitchd sends a broadcast to all its ports at once: what is not there now does not come.
    for name, wire in wires.items():
        if name != sender and name not in expected:
            seen[name] = wire.arrived(content, 0.1)
    assert {name: vlan for name, vlan in seen.items() if vlan is not None} == expected


def test_bridge_that_is_not_there(libvirt_ovs: PrivateOvs) -> None:
    port = OvsPort("np-none")
    with pytest.raises(NotFoundError, match="no bridge 'np-none'; 'ovs-vsctl list-br' lists them"):
        ovsdb.add_port("np-a.np0", port, mac=MAC, domain=UUID)
    assert libvirt_ovs.vsctl("--columns=name", "find", "Interface", "name=np-a.np0") == ""


def test_a_fake_bridge_is_a_vlan_of_its_parent(bridge: OvsBridge) -> None:
    """As ovs-vsctl has it, and so libvirt, which has that add its ports."""
    bridge.ovs.vsctl("add-br", "np-fake", str(bridge), "42")
    try:
        for vlan, tag, trunks in (
            ("", 42, []),
            ("<vlan><tag id='43'/></vlan>", 43, []),
            ("<vlan trunk='yes'><tag id='44'/></vlan>", 42, 44),
        ):
            port = replace(port_on(bridge, vlan), bridge="np-fake")
            ovsdb.add_port("np-a.np0", port, mac=MAC, domain=UUID)
            assert bridge.ovs.row("Port", "np-a.np0", "tag", "trunks") == {"tag": tag, "trunks": trunks}
            assert ("np-a.np0" in bridge.ovs.vsctl("list-ports", "np-fake").split()) == (tag == 42)
            ovsdb.delete_port("np-a.np0")
        assert bridge.ovs.vsctl("list-ports", "np-fake") == ""
    finally:
        bridge.ovs.vsctl("del-br", "np-fake")


def test_open_vswitch_does_not_run(
    libvirt_isolated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVS_RUNDIR", str(tmp_path))
    missing = f"does not run: .*{tmp_path}/db.sock: No such file or directory; "
    with pytest.raises(OperationError, match=f"{missing}start it, or say in OVS_RUNDIR"):
        ovsdb.add_port("np-a.np0", OvsPort("np-none"), mac=MAC, domain=UUID)
    with pytest.raises(OperationError, match=f"{missing}the port 'np-a.np0' {MAY_BE_LEFT}"):
        ovsdb.delete_port("np-a.np0")


def test_vswitchd_does_not_run(bridge: OvsBridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovsdb, "_PATIENCE", 0.3)
    bridge.ovs.stop_vswitchd()
    try:
        with pytest.raises(OperationError, match=r"ovs-vswitchd has not done within .* is it running\?"):
            ovsdb.add_port("np-a.np0", port_on(bridge), mac=MAC, domain=UUID)
        assert bridge.ports() == []
    finally:
        bridge.ovs.start_vswitchd()


def test_a_connection_that_is_lost(bridge: OvsBridge) -> None:
    bridge.ovs.stop_vswitchd()
    try:
        with while_waiting(bridge):
            run("ovs-appctl", "-t", f"{bridge.ovs.directory}/ovsdb-server.ctl", "ovsdb-server/reconnect")
        assert bridge.ports() == []
    finally:
        bridge.ovs.start_vswitchd()


def test_the_server_ends(libvirt_isolated: None) -> None:
    with private_ovs() as ovs:
        bridge = OvsBridge(ovs)
        ovs.stop_vswitchd(cleanup=True)
        with while_waiting(bridge, MAY_BE_LEFT):
            run("ovs-appctl", "-t", f"{ovs.directory}/ovsdb-server.ctl", "exit")


@contextmanager
def while_waiting(bridge: OvsBridge, told: str = "") -> Iterator[None]:
    """Carry out the block while a port waits for ovs-vswitchd, which is to fail for that."""
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(ovsdb.add_port, "np-a.np0", port_on(bridge), mac=MAC, domain=UUID)
        wait_until(lambda: bridge.ports() == ["np-a.np0"])
        yield
        with pytest.raises(OperationError, match=f"it has closed the connection; .*{told}"):
            adding.result(15)


def test_device_that_cannot_be_made(bridge: OvsBridge) -> None:
    run("ip", "link", "add", "np-a.np0", "type", "veth", "peer", "name", "np-b")
    try:
        with pytest.raises(OperationError, match=r"cannot make the port 'np-a\.np0': could not open"):
            ovsdb.add_port("np-a.np0", port_on(bridge), mac=MAC, domain=UUID)
        assert bridge.ports() == []
        assert "np-a.np0" in devices()
    finally:
        run("ip", "link", "delete", "np-a.np0")


def test_a_port_of_somebody_elses_stays(bridge: OvsBridge) -> None:
    bridge.ovs.vsctl(
        "add-port", str(bridge), "np-a.np0", "--", "set", "Interface", "np-a.np0", "type=internal"
    )
    before = bridge.ovs.row("Port", "np-a.np0", "_uuid")
    with pytest.raises(OperationError, match=r"port 'np-a\.np0' that nicplug has not made"):
        ovsdb.add_port("np-a.np0", port_on(bridge), mac=MAC, domain=UUID)
    with pytest.raises(OperationError, match=r"port 'np-a\.np0' that nicplug has not made"):
        ovsdb.delete_port("np-a.np0")
    assert bridge.ovs.row("Port", "np-a.np0", "_uuid") == before


def test_a_port_that_was_left_over_gives_way(bridge: OvsBridge, libvirt_ovs_bridge: OvsBridgeFactory) -> None:
    other = libvirt_ovs_bridge()
    ovsdb.add_port("np-a.np0", port_on(other, "<vlan><tag id='42'/></vlan>"), mac=MAC, domain=UUID)
    ovsdb.add_port("np-a.np0", port_on(bridge), mac="52:54:00:11:33:02", domain=UUID)
    assert other.ports() == []
    assert bridge.ports() == ["np-a.np0"]
    assert bridge.ovs.row("Port", "np-a.np0", "tag") == {"tag": []}
    ids = bridge.ovs.row("Interface", "np-a.np0", "external_ids")["external_ids"]
    assert ids["attached-mac"] == "52:54:00:11:33:02"


def test_what_is_asked_does_not_grow_with_the_ports(
    bridge: OvsBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ovs.jsonrpc import Connection

    received: list[int] = []
    close = Connection.close

    def counting(connection: Connection) -> None:
        received.append(connection.get_received_bytes())
        close(connection)

    monkeypatch.setattr(Connection, "close", counting)

    def asked() -> list[int]:
        received.clear()
        ovsdb.add_port("np-a.np0", port_on(bridge), mac=MAC, domain=UUID)
        ovsdb.delete_port("np-a.np0")
        return list(received)

    few = asked()
    crowd = [word for n in range(500) for word in ("--", "add-port", str(bridge), f"np-x{n}")]
    crowd += [word for n in range(500) for word in ("--", "set", "Interface", f"np-x{n}", "type=internal")]
    bridge.ovs.vsctl(*crowd[1:])
    many = asked()

    assert len(bridge.ports()) == 500
    # Numbers have more digits than before, and that is all.
    assert all(bytes_of < before + 20 for before, bytes_of in zip(few, many, strict=True)), f"{few} -> {many}"


def test_nothing_is_left(libvirt_ovs_bridge: OvsBridgeFactory) -> None:
    before = devices()
    bridge = libvirt_ovs_bridge("192.0.2.1/24")
    near, far = bridge.peer("192.0.2.3/24", "tag=42"), bridge.peer("192.0.2.4/24", "tag=42")
    assert near.ping("192.0.2.4", count=3)
    assert not near.ping("192.0.2.1")
    far.close()
    assert not near.ping("192.0.2.4")
    assert str(bridge) in devices()
    bridge.close()
    assert devices() == before
    processes = subprocess.run(["pgrep", "-f", f"{bridge.ovs.directory}/"], capture_output=True, check=False)
    assert len(processes.stdout.split()) == 2
