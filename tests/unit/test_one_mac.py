"""Several NICs with one MAC, as the two of a bond: what is done and told is of the one that is meant."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from nicplug_xml import interfaces, set_link, update_device, watching
from nicplug_xml.backends import bridge
from nicplug_xml.cli.editor import live_interface
from nicplug_xml.errors import NotFoundError, OperationError
from nicplug_xml.frozen import replace
from nicplug_xml.host import domain as host
from nicplug_xml.model import Scope
from nicplug_xml.steps import Expected
from nicplug_xml.surroundings import Surroundings
from nicplug_xml.watching import differences

if TYPE_CHECKING:
    import libvirt

MAC = "52:54:00:00:00:01"
LIVE, CONFIG = 1, 2


class Domain:
    """A virDomain with two stock NICs, that replaces an ``<interface>`` by its address."""

    def __init__(self) -> None:
        self.nics = {number: self._nic(number) for number in "12"}

    @staticmethod
    def _nic(number: str) -> str:
        return (
            f"<interface type='bridge'><mac address='{MAC}'/><source bridge='br{number}'/>"
            f"<target dev='vnet{number}'/><alias name='net{number}'/>"
            f"<address type='pci' slot='{number}'/></interface>"
        )

    def UUIDString(self) -> str:
        return "d2a0d1b8-0000-4000-8000-000000000001"

    def XMLDesc(self, flags: int = 0) -> str:
        nics = "".join(self.nics.values())
        if flags & CONFIG:
            nics = re.sub("<(target|alias) [^>]*>", "", nics)
        return f"<domain><name>vm1</name><devices>{nics}</devices></domain>"

    def updateDeviceFlags(self, xml: str, _flags: int) -> None:
        number = re.search("slot='(.)'", xml)
        assert number
        self.nics[number[1]] = xml

    def name(self) -> str:
        return "vm1"

    def isActive(self) -> bool:
        return True

    isPersistent = isActive

    def connect(self) -> object:
        return SimpleNamespace(getURI=lambda: "qemu:///system")


@pytest.fixture
def dom(monkeypatch: pytest.MonkeyPatch) -> libvirt.virDomain:
    """The domain, whose taps are not this host's."""
    monkeypatch.setattr(host, "is_host_device", lambda *_: False)
    return cast("libvirt.virDomain", Domain())


@pytest.mark.parametrize("name", ["vnet2", "net2"])
def test_the_link_of_the_second(dom: libvirt.virDomain, name: str) -> None:
    status = set_link(dom, name, False)
    assert (status.alias, status.link, status.changed) == ("net2", "down", True)
    assert [nic.link for nic in interfaces(dom)] == ["up", "down"]
    assert set_link(dom, name, False).alias == "net2"


def test_a_failure_tells_of_the_second(dom: libvirt.virDomain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Domain, "updateDeviceFlags", lambda *_: None)
    with pytest.raises(OperationError, match="the NIC is attached to bridge br2 now"):
        set_link(dom, "net2", False)


@pytest.mark.parametrize("flags", [LIVE, CONFIG])
def test_an_update_of_the_second(dom: libvirt.virDomain, flags: int) -> None:
    xml = cast("Domain", dom).nics["2"].replace("br2", "br3")
    status = update_device(dom, xml, flags)
    assert status.backend is not None
    assert status.backend.source["bridge"] == "br3"


def test_bandwidth_is_restored_of_the_second(dom: libvirt.virDomain, monkeypatch: pytest.MonkeyPatch) -> None:
    restored: list[str] = []

    def refuse(*_: object) -> None:
        raise OperationError("no such luck")

    monkeypatch.setattr(Domain, "updateDeviceFlags", refuse)
    given = restored.append
    monkeypatch.setattr(Domain, "setInterfaceParameters", lambda _, device, *__: given(device), raising=False)
    xml = cast("Domain", dom).nics["2"].replace("</interface>", "<bandwidth/></interface>")
    with pytest.raises(OperationError):
        host.Domain(dom).update_device(xml, Scope.LIVE)
    assert restored == ["vnet2"]


def test_a_cable_to_either_of_them(dom: libvirt.virDomain) -> None:
    conn = cast("libvirt.virConnect", SimpleNamespace(lookupByName=lambda _: dom))
    with pytest.raises(NotFoundError, match=f"'{MAC}' names 2 interfaces of domain 'vm1': vnet1 = net1 = "):
        Surroundings(conn).other_end("vm1", MAC)
    assert Surroundings(conn).other_end("vm1", "net2").nic.target == "vnet2"


def test_a_cable_to_a_device(dom: libvirt.virDomain) -> None:
    """Its name is of this run alone; that there is no such NIC would be no answer."""
    conn = cast("libvirt.virConnect", SimpleNamespace(lookupByName=lambda _: dom))
    with pytest.raises(NotFoundError, match=f"'vnet2' of domain 'vm1' is a device, .*; say vm1/{MAC}"):
        Surroundings(conn).other_end("vm1", "vnet2")


def test_a_check_looks_at_the_second(dom: libvirt.virDomain) -> None:
    second = interfaces(dom)[1]
    checking = host.Domain(dom)
    expected = Expected(MAC, Scope.LIVE, second.connection, bridge.backend("br2"), True, "net2")
    checking.check(expected)
    assert checking.checked[Scope.LIVE].alias == "net2"
    with pytest.raises(OperationError):
        checking.check(replace(expected, mark="net1"))


@pytest.mark.parametrize("name", ["vnet2", "net2"])
def test_editing_the_second(dom: libvirt.virDomain, name: str) -> None:
    subject = live_interface(dom, name)
    text = subject.read()
    assert "<alias name='net2'/>" in text
    assert not subject.check(text)
    assert "vnet2 of vm1 is plugged into bridge br3" in subject.apply(text.replace("br2", "br3"), False)
    assert "br3" in subject.read()


def test_both_are_watched(dom: libvirt.virDomain) -> None:
    before = watching._look(dom)
    assert {scope: len(found) for scope, found in before.items()} == {Scope.LIVE: 2, Scope.CONFIG: 2}
    for name in ("net1", "net2"):
        set_link(dom, name, False)
    changes = list(differences(before, watching._look(dom), "vm1", 1.0, None))
    live = [change for change in changes if change.scope is Scope.LIVE and change.kind == "link"]
    assert [change.after and change.after.alias for change in live] == ["net1", "net2"]
    assert len({(change.scope, watching._changed(change)) for change in live}) == 2
