"""What is joined to a device of the host's, and let go: it is one NIC's at a time."""

from __future__ import annotations

import errno
import os
import socket
from typing import cast
from unittest.mock import Mock

import pytest

from nicplug_xml.endpoints import OvsPort
from nicplug_xml.errors import OperationError, UnsupportedError
from nicplug_xml.host import connection, kernel, ovsdb, rtnetlink, sysfs, tap
from nicplug_xml.host.kernel import Kernel
from nicplug_xml.host.rtnetlink import Rtnetlink
from nicplug_xml.joints import Joint

UP, PROMISC = 0x1, 0x100
INDEXES = {"vnet1": 11, "vnet2": 12, "eth1": 21, "eth2": 22, "eth3": 23}
ETH1, ETH2 = Joint("device", "eth1"), Joint("device", "eth2")


class Devices:
    """The part of `Rtnetlink` that joins to devices, on devices that are numbers."""

    def __init__(self, present: dict[str, int]) -> None:
        self.present = present
        self.set: dict[int, int] = {}
        self.aliases: dict[int, str] = {}
        self.redirects: dict[int, int] = {}
        self.fails = False

    def flags(self, index: int) -> int:
        return self.set.get(index, 0)

    def set_flags(self, index: int, flags: int, change: int) -> None:
        self.set[index] = self.flags(index) & ~change | flags

    def set_alias(self, index: int, alias: str) -> None:
        self.aliases[index] = alias

    def redirect(self, index: int, target: int, *, anew: bool = False) -> None:
        if self.fails and index == INDEXES["vnet1"]:
            raise OperationError("no such luck")
        if anew and index in self.redirects:
            raise OperationError("it exists")
        self.redirects[index] = target

    def redirected(self, index: int) -> int:
        # The kernel's filter stays when what it leads to goes, and leads to 0.
        target = self.redirects.get(index, 0)
        return target if target in self.present.values() else 0

    def stop_redirect(self, index: int) -> None:
        self.redirects.pop(index, None)

    def close(self) -> None:
        pass

    def state(self) -> tuple[dict[int, int], dict[int, str], dict[int, int]]:
        flags = {index: flags for index, flags in self.set.items() if flags}
        aliases = {index: alias for index, alias in self.aliases.items() if alias}
        return flags, aliases, dict(self.redirects)


@pytest.fixture
def present() -> dict[str, int]:
    """The devices that there are."""
    return dict(INDEXES)


@pytest.fixture
def devices(present: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> Devices:
    """What is so of them."""

    def name_of(index: int) -> str:
        for name, its in present.items():
            if its == index:
                return name
        raise OSError

    found = Devices(present)
    monkeypatch.setattr(rtnetlink, "Rtnetlink", lambda: found)
    monkeypatch.setattr(sysfs, "alias", lambda device: found.aliases.get(present[device], ""))
    monkeypatch.setattr(sysfs, "exists", present.__contains__)
    monkeypatch.setattr(sysfs, "index", lambda device: present.get(device, 0))
    monkeypatch.setattr(sysfs, "uppers", lambda _: [])
    monkeypatch.setattr(sysfs, "master", {"eth3": "br0"}.get)
    monkeypatch.setattr(kernel, "index_of", present.__getitem__)
    monkeypatch.setattr(socket, "if_indextoname", name_of)
    return found


@pytest.fixture
def host(devices: Devices) -> Kernel:
    """A kernel that has them."""
    made = Kernel()
    made._session = cast("Rtnetlink", devices)
    return made


@pytest.mark.parametrize("before", [0, UP, PROMISC, UP | PROMISC])
def test_joined_twice_and_parted(host: Kernel, devices: Devices, before: int) -> None:
    """How the device was before is not forgotten."""
    devices.set[21] = before
    started = devices.state()
    host.join("vnet1", ETH1)
    once = devices.state()
    host.join("vnet1", ETH1)
    assert devices.state() == once
    host.part("vnet1", ETH1)
    assert devices.state() == started


def test_a_mode_that_somebody_has_ended_is_set_again(host: Kernel, devices: Devices) -> None:
    host.join("vnet1", ETH1)
    devices.set[21] = 0
    host.join("vnet1", ETH1)
    host.part("vnet1", ETH1)
    assert devices.state() == ({}, {}, {})


def test_a_second_join_that_fails_leaves_the_first(host: Kernel, devices: Devices) -> None:
    host.join("vnet1", ETH1)
    before = devices.state()
    devices.fails = True
    with pytest.raises(OperationError, match="no such luck"):
        host.join("vnet1", ETH1)
    assert devices.state() == before
    with pytest.raises(OperationError, match="no such luck"):
        host.join("vnet1", ETH2)
    assert devices.state() == before


@pytest.mark.parametrize("attached", [False, True])
def test_a_device_of_another_nic_is_refused(host: Kernel, devices: Devices, attached: bool) -> None:
    host.join("vnet1", ETH1)
    if attached:
        host.join("vnet2", ETH2)
    before = devices.state()
    with pytest.raises(UnsupportedError, match="device 'eth1' is joined to vnet1") as caught:
        host.join("vnet2", ETH1)
    assert "unplug that NIC first: 'nicplug list' says which domain has vnet1" in caught.value.hint
    assert devices.state() == before
    host.part("vnet1", ETH1)
    host.join("vnet2", ETH1)
    host.part("vnet2", ETH1)
    assert devices.state() == ({}, {}, {})


def test_of_two_at_once_the_second_is_refused(
    host: Kernel, devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect = Devices.redirect

    def quicker(self: Devices, index: int, target: int, *, anew: bool = False) -> None:
        monkeypatch.setattr(Devices, "redirect", redirect)
        host.join("vnet2", ETH1)
        redirect(self, index, target, anew=anew)

    # vnet1 has looked, and has found that nobody has the device; then vnet2 is joined to it.
    monkeypatch.setattr(Devices, "redirect", quicker)
    with pytest.raises(UnsupportedError, match="device 'eth1' is joined to vnet2"):
        host.join("vnet1", ETH1)
    seen = devices.state()
    host.part("vnet2", ETH1)
    assert devices.state() == ({}, {}, {})
    host.join("vnet2", ETH1)
    assert devices.state() == seen


def test_a_port_of_a_bridge_stays_one(host: Kernel, devices: Devices) -> None:
    """Another guest's tap, say: the redirect would take all that its bridge gets from it."""
    with pytest.raises(UnsupportedError, match="device 'eth3' is a port of br0") as caught:
        host.join("vnet1", Joint("device", "eth3"))
    assert "plug the NIC into br0" in caught.value.hint
    assert devices.state() == ({}, {}, {})


def test_what_leads_to_no_nic_of_ours_is_nobodys(host: Kernel, devices: Devices) -> None:
    devices.redirects[21] = 12  # vnet2 is joined to nothing, as it says
    host.join("vnet1", ETH1)
    devices.redirects[21] = 99  # and that one has gone
    host.join("vnet1", ETH1)
    assert devices.redirects == {11: 21, 21: 11}


def test_parting_leaves_what_another_nic_has_taken_over(host: Kernel, devices: Devices) -> None:
    host.join("vnet1", ETH1)
    # Without looking who has it, as was done once.
    devices.aliases[12] = str(ETH1._replace(ifindex=21))
    devices.redirects |= {12: 21, 21: 12}
    host.part("vnet1", ETH1)
    assert devices.redirects == {12: 21, 21: 12}
    host.part("vnet2", ETH1)
    assert devices.state() == ({}, {}, {})


def test_a_device_that_was_taken_over_stays_with_the_new_nic(
    host: Kernel, devices: Devices, present: dict[str, int]
) -> None:
    host.join("vnet1", ETH1)
    joint = kernel.joint_of("vnet1")
    assert joint is not None
    assert joint.changes == {"down", "promisc"}
    # The guest ends, and before its joint is cleared away, another one takes the device.
    del present["vnet1"]
    host.join("vnet2", ETH1)
    host.release(joint)
    assert devices.redirects[21] == 12
    assert devices.flags(21) & PROMISC
    devices.redirects.pop(11)
    devices.aliases.pop(11)
    host.part("vnet2", ETH1)
    assert devices.state() == ({}, {}, {})


def test_what_nobody_has_cleared_away_is_taken_over(
    host: Kernel, devices: Devices, present: dict[str, int]
) -> None:
    """A guest that ends while nobody looks leaves a filter that leads nowhere, and the mode."""
    devices.set[21] = UP
    host.join("vnet1", ETH1)
    del present["vnet1"]
    host.join("vnet2", ETH1)
    assert devices.redirects[21] == 12
    host.part("vnet2", ETH1)
    assert devices.flags(21) == UP
    assert 21 not in devices.redirects


def test_a_device_that_was_renamed_is_parted(host: Kernel, devices: Devices, present: dict[str, int]) -> None:
    host.join("vnet1", ETH1)
    present["eth9"] = present.pop("eth1")
    joint = kernel.joint_of("vnet1")
    assert joint is not None
    assert (joint.device, joint.gone) == ("eth9", False)
    # One that has the old name is another one.
    present["eth1"] = 31
    devices.set[31] = PROMISC
    host.part("vnet1", ETH1)
    assert devices.state() == ({31: PROMISC}, {}, {})


def test_a_redirect_that_somebody_has_ended_joins_nothing(host: Kernel, devices: Devices) -> None:
    started = devices.state()
    host.join("vnet1", ETH1)
    joined = devices.state()
    devices.stop_redirect(INDEXES["vnet1"])
    joint = kernel.joint_of("vnet1")
    assert joint is not None
    assert joint.gone
    host.join("vnet1", ETH1)
    assert devices.state() == joined
    host.part("vnet1", joint)
    assert devices.state() == started


def test_a_joint_whose_alias_somebody_has_written_over_is_found(
    host: Kernel, devices: Devices, present: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysfs, "indexes", {"vnet1.np0": (31, 21), "vnet2.np1": (32, 32)}.get)
    present |= {"vnet1.np0": 31, "vnet2.np1": 32}
    for device, joint in (
        ("vnet1", Joint("macvlan", "vnet1.np0", "eth1", "bridge")),
        ("vnet2", Joint("port", "vnet2.np1", "ovs0")),
        ("vnet1", ETH1),
        ("vnet1", Joint("cable", "vnet2")),
    ):
        host.join(device, joint)
        if joint.kind == "cable":
            host.join("vnet2", Joint("cable", "vnet1"))
        devices.aliases[present[device]] = "customer 7"
        found = kernel.joint_of(device)
        assert found is not None
        assert (found.kind, found.device, found.gone) == (joint.kind, joint.device, False)
        devices.redirects.clear()
        assert kernel.joint_of(device) is None
        devices.aliases.clear()


def test_what_was_made_anew_by_the_same_name_stays(
    host: Kernel, devices: Devices, present: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who clears away may come late."""
    deleted: list[int] = []
    monkeypatch.setattr(host._session, "delete", deleted.append, raising=False)
    present["vnet1.np0"] = 31
    host.join("vnet1", Joint("macvlan", "vnet1.np0", "eth1", "bridge"))
    joint = kernel.joint_of("vnet1")
    assert joint is not None
    present["vnet1.np0"] = 32
    host.release(joint)
    assert deleted == []
    present["vnet1.np0"] = 31
    host.release(joint)
    assert deleted == [31]


def test_a_device_that_the_host_would_speak_on_is_taken_away(
    host: Kernel, present: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where /proc/sys is read-only, as in most containers."""
    read_only = OSError(errno.EROFS, os.strerror(errno.EROFS))
    made: list[str] = []

    def add(name: str, *_: object, **__: object) -> None:
        present[name] = 31
        made.append(name)

    monkeypatch.setattr("builtins.open", Mock(side_effect=read_only))
    monkeypatch.setattr(sysfs, "mtu", lambda _: 1500)
    monkeypatch.setattr(sysfs, "is_ethernet", lambda _: True)
    monkeypatch.setattr(host._session, "add_macvlan", add, raising=False)
    monkeypatch.setattr(host._session, "delete", lambda _: made.remove("vnet1.np0"), raising=False)
    monkeypatch.setattr(ovsdb, "ports_of", lambda *_: [])
    monkeypatch.setattr(ovsdb, "add_port", add)
    monkeypatch.setattr(ovsdb, "delete_port", made.remove)
    with pytest.raises(
        OperationError, match=r"kept off vnet1\.np0: .*: Read-only file system; in a container"
    ):
        host.add_macvlan("vnet1.np0", "eth1", "bridge", "52:54:00:00:00:01", 0)
    assert made == []
    del present["vnet1.np0"]
    with pytest.raises(OperationError, match="Read-only file system"):
        host.make_port("vnet1.np0", OvsPort("ovs0"), "52:54:00:00:00:01", 0, "uuid")
    assert made == []


def test_who_may_not_make_a_tap_is_told_who_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "_open_tun", lambda: os.open(os.devnull, os.O_RDWR))
    monkeypatch.setattr(
        "fcntl.ioctl", Mock(side_effect=PermissionError(errno.EPERM, "Operation not permitted"))
    )
    with pytest.raises(OperationError, match="no tap can be made: Operation not permitted; this takes root"):
        tap.open_tap("br0", "52:54:00:00:00:01", isolated=False)


def test_who_may_not_make_the_parking_bridge_is_told_of_a_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = OperationError("the kernel refuses", hint="this takes root or CAP_NET_ADMIN")
    monkeypatch.setattr(connection, "parking_kind", lambda _: "bridge")
    monkeypatch.setattr(connection, "remote_host", lambda _: "")
    monkeypatch.setattr(sysfs, "is_bridge", lambda _: False)
    monkeypatch.setattr("nicplug_xml.host.netlink.add_bridge", Mock(side_effect=refused))
    with pytest.raises(OperationError, match="CAP_NET_ADMIN; plane hub does without"):
        connection.ensure_parking(Mock())
