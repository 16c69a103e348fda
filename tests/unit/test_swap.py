"""Plane swap: its domain XML, when it is chosen, and its plans."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from lxml import etree

from nicplug_xml import to_extended, to_stock
from nicplug_xml.backends import bridge, direct, fd, user
from nicplug_xml.endpoints import Descriptor
from nicplug_xml.errors import OperationError, SchemaError, UnsupportedError
from nicplug_xml.facts import Facts
from nicplug_xml.host import emulator, monitor
from nicplug_xml.model import Backend, Connection, Scope
from nicplug_xml.plan import carry_out
from nicplug_xml.planes import PLANES, choose
from nicplug_xml.planner import Site
from nicplug_xml.steps import Monitor, UpdateDevice
from nicplug_xml.stock import parse_domain
from nicplug_xml.view import view
from tests.unit.sites import seen, site_of
from tests.unit.test_rewrite import canonical

QEMU = {"q": "http://libvirt.org/schemas/domain/qemu/1.0"}
NIC = (
    "<interface connection='deferred'{}><mac address='52:54:00:00:00:01'/><alias name='ua-a'/>{}</interface>"
)
OWN, FIRST, SECOND = "nicplug-ua-a", "nicplug-ua-a.0", "nicplug-ua-a.1"


def domain(*interfaces: str) -> str:
    return f"<domain><name>vm1</name>\n  <devices>{''.join(interfaces)}</devices>\n</domain>"


def nic(kind: str | None = None, children: str = "", connection: str = "deferred") -> str:
    made = NIC.format(f" type='{kind}'" if kind else "", children)
    return made.replace("deferred", connection)


@pytest.mark.parametrize(
    ("kind", "children", "placeholder", "queues"),
    [
        (None, "", "user", 1),
        ("bridge", "<source bridge='br0'/>", "user", 1),
        ("client", "<source address='192.0.2.1' port='1'/>", "user", 1),
        ("bridge", "<source bridge='br0'/><driver queues='4'/>", "ethernet", 4),
        (None, "<driver name='qemu' queues='1'/>", "user", 1),
    ],
)
def test_round_trip(kind: str | None, children: str, placeholder: str, queues: int) -> None:
    xml = domain(nic(kind, children), "<interface type='user'><mac address='52:54:00:00:00:02'/></interface>")
    stock = to_stock(xml, plane="swap")
    assert canonical(to_extended(stock)) == canonical(xml)
    root = etree.fromstring(stock)
    arguments = root.xpath("q:commandline/q:arg/@value", namespaces=QEMU)
    assert arguments == ["-netdev", f"unconnected,id={OWN},queues={queues}"]
    (override,) = root.xpath("q:override/q:device[@alias='ua-a']/q:frontend/q:property", namespaces=QEMU)
    assert dict(override.attrib) == {"name": "netdev", "type": "string", "value": OWN}
    held = root.find("devices/interface")
    assert held.get("type") == placeholder
    assert held.find("link").get("state") == "down"
    # How many queues it has is the frontend's.
    assert (held.find("driver") is not None) == ("driver" in children)


def test_hub_and_swap_in_one_domain() -> None:
    xml = domain(nic(), nic("user").replace("ua-a", "ua-b").replace("00:01", "00:02"))
    stock = to_stock(xml, recorded={"ua-a": "swap", "ua-b": "hub"})
    assert [found.plane for found in seen(stock).interfaces] == ["swap", "hub"]
    assert canonical(to_extended(stock)) == canonical(xml)


@pytest.mark.parametrize(
    ("offered", "kind", "plane"),
    [
        ((), "user", "hub"),
        (("swap",), "user", "swap"),
        (("swap",), "stream", "swap"),
        (("swap",), "bridge", "tap"),
        (("swap",), "cable", "tap"),
        (("swap",), None, "tap"),
        (("swap", "native"), None, "native"),
        (("swap", "native"), "server", "native"),
        (("swap", "native"), "stream", "swap"),
    ],
)
def test_auto_takes_it_for_what_no_tap_can_be(offered: tuple[str, ...], kind: str | None, plane: str) -> None:
    assert choose("auto", kind, offered=offered) is PLANES[plane]


def test_what_qemu_would_not_replace_is_refused() -> None:
    with pytest.raises(SchemaError, match="QEMU does not replace a netdev that uses vhost"):
        to_stock(domain(nic("bridge", "<source bridge='b'/><driver name='vhost'/>")), plane="swap")
    with pytest.raises(SchemaError, match="plane 'swap' cannot carry out <bandwidth>"):
        to_stock(domain(nic("bridge", "<source bridge='b'/><bandwidth/>")), plane="swap")
    with pytest.raises(SchemaError, match="plane 'swap' cannot plug in type 'netdev'"):
        to_stock(domain(nic("netdev", "<source dev='eth0'/>")), plane="swap")
    with pytest.raises(UnsupportedError, match=r"plane 'swap' cannot plug .* into type='cable'"):
        site().attach(Backend("cable", ("<source domain='vm2' interface='ua-a'/>",)))


def site(
    peer: str = OWN,
    others: tuple[str, ...] = (),
    *,
    kind: str | None = None,
    children: str = "",
    link: bool | None = None,
    scope: Scope = Scope.LIVE,
) -> Site:
    """Return a NIC that has a netdev, with a carrier if that is no other than one of its backends."""
    attached = peer in (FIRST, SECOND)
    kind = kind or ("bridge" if attached else None)
    xml = nic(kind, children or ("<source bridge='br0'/>" if kind == "bridge" else ""))
    stock = to_stock(domain(xml.replace("deferred", "attached") if attached else xml), plane="swap")
    if attached and scope is Scope.LIVE:
        stock = stock.replace("<link state='down'/>", "<link state='up'/>")
    carriers = {"ua-a": attached if link is None else link}
    facts = Facts({OWN, peer, *others}, {}, carriers, {"ua-a": peer}) if scope is Scope.LIVE else Facts()
    return site_of(view(parse_domain(stock).root, facts), scope)


def replacement(netdev: str) -> str:
    arguments = f'{{"id": "ua-a", "netdev": "{netdev}", "flap": false}}'
    return f'monitor  {{"execute": "netdev-replace", "arguments": {arguments}}}'


def deletion(netdev: str) -> str:
    return f'monitor  {{"execute": "netdev_del", "arguments": {{"id": "{netdev}"}}}}'


def texts(steps: tuple[object, ...]) -> list[str]:
    return [step.describe() for step in steps]  # type: ignore[attr-defined]


def test_plug() -> None:
    lines = texts(site().attach(user.backend(), announce=False).steps)
    assert '"type": "user", "id": "nicplug-ua-a.0"' in lines[0]
    assert lines[1] == replacement(FIRST)
    assert [line.split()[0] for line in lines] == ["monitor", "monitor", "libvirt", "libvirt", "check"]
    assert "<link state='up'/>" in lines[2]


@pytest.mark.parametrize(("old", "new"), [(FIRST, SECOND), (SECOND, FIRST)])
def test_a_move_replaces_and_lets_go_last(old: str, new: str) -> None:
    steps = site(old).attach(direct.backend("eth0"), announce=False).steps
    lines = texts(steps)
    assert [step.summary for step in steps] == [
        "make a macvtap", "hand the descriptor to QEMU", "make the netdev", "give the NIC the netdev",
        "record it in the domain's metadata", "read back the NIC's state", "let go of the backend",
    ]  # fmt: skip
    assert lines[3] == replacement(new)
    assert lines[-1] == deletion(old)
    assert steps[3].reverse == (
        "netdev-replace", {"id": "ua-a", "netdev": old, "flap": False}
    )  # fmt: skip


def test_unplug_takes_the_carrier_first() -> None:
    lines = texts(site(FIRST).detach().steps)
    assert [line.split()[0] for line in lines] == ["libvirt", "monitor", "libvirt", "check", "monitor"]
    assert "<link state='down'/>" in lines[0]
    assert lines[1] == replacement(OWN)
    assert lines[-1] == deletion(FIRST)
    assert not site().detach().steps


def test_each_queue_has_a_descriptor() -> None:
    lines = texts(site(children="<driver queues='2'/>").attach(bridge.backend("br0")).steps)
    assert lines[0].startswith("netlink  TUNSETIFF tap, 2 queues")
    assert [line.split('"fdname": ')[1].split("}")[0] for line in lines[1:3]] == [
        '"nicplug-ua-a.0.q0"', '"nicplug-ua-a.0.q1"'
    ]  # fmt: skip
    assert '"fds": "nicplug-ua-a.0.q0:nicplug-ua-a.0.q1"' in lines[3]


def test_a_descriptor_for_each_queue_is_handed_in() -> None:
    two = site(children="<driver queues='2'/>")
    lines = texts(two.attach(fd.backend(), descriptor=Descriptor((7, 8), "tap")).steps)
    assert lines[:2] == ["process  dup(7)", "process  dup(8)"]
    assert '"fds": "nicplug-ua-a.0.q0:nicplug-ua-a.0.q1"' in lines[4]
    with pytest.raises(UnsupportedError, match="1 descriptors were handed in for a NIC with 2 queues"):
        two.attach(fd.backend(), descriptor=Descriptor((7,), "tap"))
    with pytest.raises(UnsupportedError, match="2 descriptors were handed in for a NIC with 1 queues"):
        site().attach(fd.backend(), descriptor=Descriptor((7, 8), "tap"))


def test_a_macvtap_leaves_before_the_next_one_on_its_device() -> None:
    on = site(FIRST, kind="direct", children="<source dev='eth1' mode='bridge'/>")
    lines = texts(on.attach(direct.backend("eth1", "passthrough"), announce=False).steps)
    assert lines[:2] == [replacement(OWN), deletion(FIRST)]
    assert "mode passthru" in lines[2]
    assert replacement(SECOND) in lines
    assert deletion(FIRST) not in lines[2:]
    elsewhere = texts(on.attach(direct.backend("eth2", "passthrough"), announce=False).steps)
    assert "mode passthru" in elsewhere[0]
    assert elsewhere[-1] == deletion(FIRST)


def test_what_an_interrupted_move_has_left_goes() -> None:
    lines = texts(site(SECOND, (FIRST,)).attach(direct.backend("eth0")).steps)
    assert lines[0] == deletion(FIRST)
    assert texts(site(SECOND, (FIRST,)).detach().steps)[-2:] == [deletion(FIRST), deletion(SECOND)]


def test_after_an_interrupted_move_nothing_is_taken_for_done() -> None:
    assert not site(FIRST).attach(None).steps
    assert site(FIRST, (SECOND,)).attach(None).steps


def test_what_an_interrupted_plug_has_left_goes_first() -> None:
    """It may have what the next backend takes."""
    for peer, others in ((FIRST, (SECOND,)), (OWN, (FIRST, SECOND))):
        stock = to_stock(domain(nic(None)), plane="swap")
        facts = Facts({OWN, peer, *others}, {}, {"ua-a": False}, {"ua-a": peer})
        here = site_of(view(parse_domain(stock).root, facts))
        lines = texts(here.attach(direct.backend("eth0")).steps)
        parting = [replacement(OWN)] if peer == FIRST else []
        assert lines[: 2 + len(parting)] == [*parting, deletion(FIRST), deletion(SECOND)]
        assert "macvtap" in lines[2 + len(parting)]
        assert replacement(FIRST) in lines


def test_a_netdev_of_somebody_elses_is_what_a_failure_goes_back_to() -> None:
    """libvirt has plugged the NIC in anew, say: on its own netdev."""
    found = site("hostua-a", link=True)
    assert (found.nic.connection, found.nic.carrier) == (Connection.DEFERRED, True)
    commands = [step for step in found.attach(user.backend()).steps if isinstance(step, Monitor)]
    (replace,) = (step for step in commands if step.command == "netdev-replace")
    assert replace.arguments["netdev"] == FIRST
    assert replace.reverse is not None
    assert replace.reverse[1]["netdev"] == "hostua-a"
    assert replacement(OWN) in texts(found.detach().steps)


def test_the_link_that_libvirt_has_is_not_set_again() -> None:
    """After managedsave libvirt's XML says up, and the NIC has no backend."""
    stock = to_stock(domain(nic("bridge", "<source bridge='br0'/>", "attached")), plane="swap")
    root = parse_domain(stock.replace("<link state='down'/>", "<link state='up'/>")).root
    facts = Facts({OWN}, {}, {"ua-a": False}, {"ua-a": OWN})
    unplugged = site_of(view(root, facts))
    assert (unplugged.nic.connection, unplugged.nic.carrier) == (Connection.DEFERRED, False)
    assert not unplugged.detach().steps

    def updates(link: str) -> list[str]:
        steps = unplugged.attach(None, link=link).steps
        return [step.describe() for step in steps if isinstance(step, UpdateDevice)]

    assert not updates("up")
    (update,) = updates("down")
    assert "<link state='down'/>" in update


def test_the_persistent_definition_is_only_recorded() -> None:
    for plan in (
        site(scope=Scope.CONFIG).attach(bridge.backend("br0")),
        site(FIRST, scope=Scope.CONFIG).detach(),
        site(FIRST, scope=Scope.CONFIG).set_link("down"),
    ):
        assert "virDomainSetMetadata(config)" in plan.steps[0].describe()


def test_qemu_is_believed_before_the_record() -> None:
    stock = to_stock(domain(nic("user", connection="attached")), plane="swap")
    for peers, connection in (
        (None, Connection.ATTACHED),
        ({"ua-a": SECOND}, Connection.ATTACHED),
        ({"ua-a": OWN}, Connection.DEFERRED),
        ({}, Connection.DEFERRED),
    ):
        facts = Facts(None, {}, {}, peers)
        assert view(parse_domain(stock).root, facts).interfaces[0].connection is connection
        assert f"connection='{connection.value}'" in to_extended(stock, facts=facts)


class Refusing:
    """A host that refuses to replace a netdev."""

    def __init__(self, message: str) -> None:
        self.message = message
        self.asked: list[tuple[str, Mapping[str, object]]] = []

    def monitor(self, command: str, arguments: Mapping[str, object]) -> object:
        self.asked.append((command, arguments))
        if command == "netdev-replace":
            raise OperationError(f"QEMU refuses {command}: {self.message}")
        return None

    def has_ended(self) -> bool:
        return False

    def state(self, _key: str, _mark: str = "") -> str:
        return "deferred"


def test_a_refusal_of_qemus_is_undone_and_told() -> None:
    host = Refusing("A migration is under way")
    with pytest.raises(OperationError, match=r"QEMU refuses netdev-replace: A migration .* deferred now"):
        carry_out(site().attach(user.backend()), host)  # type: ignore[arg-type]
    assert [command for command, _ in host.asked] == ["netdev_add", "netdev-replace", "netdev_del"]


def test_what_query_nics_tells() -> None:
    class Asked:
        def command(self, command: str, arguments: object, fd: int | None = None) -> object:
            assert command == "query-nics"
            common = {"model": "virtio-net-pci", "mac": "52:54:00:00:00:01", "replaceable": True}
            return [
                {"name": "ua-a", "netdev": OWN, "type": "unconnected", "link": False, "queues": 2, **common},
                {"name": "net1", "link": False, "queues": 1, **common},
            ]

    assert monitor.nics(Asked()) == {
        "ua-a": monitor.Nic(OWN, False, 2), "net1": monitor.Nic("", False, 1)
    }  # fmt: skip


class Libvirt:
    """A libvirt connection, as far as it is asked where it is."""

    def __init__(self, uri: str = "qemu:///system") -> None:
        self._uri = uri

    def getURI(self) -> str:
        return self._uri


def test_a_qemu_that_does_not_run_is_no_offer(tmp_path: Path) -> None:
    xml = domain("<emulator>/nonexistent/qemu</emulator>")
    assert not emulator.can_replace(Libvirt(), xml)
    with pytest.raises(UnsupportedError, match="the QEMU /nonexistent/qemu does not run"):
        emulator.require_replacing(Libvirt(), xml)
    program = tmp_path / "qemu"
    # Neither a wrapper that says something else, nor one that says nothing.
    for said in ("hello", "[]", ""):
        program.write_text(f"#!/bin/sh\n# {said}\necho '{said}'\n")
        program.chmod(0o755)
        os.utime(program, ns=(0, len(said)))
        with pytest.raises(UnsupportedError, match="qemu does not run"):
            emulator.require_replacing(Libvirt(), domain(f"<emulator>{program}</emulator>"))


def test_what_has_one_queue_is_refused_for_a_nic_with_two() -> None:
    two = "<driver queues='2'/>"
    with pytest.raises(UnsupportedError, match="has 2 queues, and such a backend has one"):
        site(children=two).attach(user.backend())
    assert site(children=two).attach(bridge.backend("br0")).steps


def test_a_qemu_without_the_command_is_no_offer(tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    answers = '{"QMP": {}}\\n{"return": {}}\\n{"return": [{"name": "cont", "meta-type": "command"}]}\\n'
    program.write_text(f"#!/bin/sh\ncat >/dev/null\nprintf '{answers}'\n")
    program.chmod(0o755)
    xml = domain(f"<emulator>{program}</emulator>")
    assert not emulator.can_replace(Libvirt(), xml)
    with pytest.raises(
        UnsupportedError, match=rf"takes a QEMU that has netdev-replace, and {program} has not"
    ):
        emulator.require_replacing(Libvirt(), xml)
    # Another host's QEMU is not asked.
    far = Libvirt("qemu+ssh://far/system")
    assert not emulator.can_replace(far, xml)
    emulator.require_replacing(far, xml)
