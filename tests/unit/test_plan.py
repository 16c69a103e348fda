"""Carrying out plans: whatever fails, everything is as before."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import pytest

from nicplug_xml.endpoints import OvsPort
from nicplug_xml.errors import NotFoundError, OperationError
from nicplug_xml.frozen import replace
from nicplug_xml.host.rtnetlink import RefusedError
from nicplug_xml.joints import Joint
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Connection, Scope
from nicplug_xml.plan import Plan, carry_out
from nicplug_xml.steps import (
    AddPort,
    Announce,
    Check,
    EnsureParking,
    Expected,
    Join,
    Monitor,
    OfOther,
    Part,
    Record,
    Release,
    RequireNetwork,
    Step,
    UpdateDevice,
)

if TYPE_CHECKING:
    from tests.unit.conftest import FakeHost

OLD, NEW = Entry("52:54:00:00:00:01", "tap", "up"), Entry("52:54:00:00:00:01", "tap")
STEPS: tuple[Step, ...] = (
    RequireNetwork("default"),
    EnsureParking("network nicplug-parking"),
    UpdateDevice("plug it into bridge br1", "<new/>", "<old/>", Scope.LIVE),
    Check(Expected("52:54:00:00:00:01", Scope.LIVE, Connection.ATTACHED, None, True)),
    Record(NEW, OLD, frozenset((OLD.key,)), Scope.LIVE),
    UpdateDevice("plug it into bridge br1", "<new/>", "<old/>", Scope.CONFIG),
    Record(NEW, OLD, frozenset((OLD.key,)), Scope.CONFIG),
    Announce("net0"),
)
PLAN = Plan("plug vnet0 of vm1 into bridge br1", "52:54:00:00:00:01", Scope.LIVE, STEPS, "br1", "look at br1")
BEFORE = ({Scope.LIVE: "<old/>", Scope.CONFIG: "<old/>"}, {Scope.LIVE: OLD, Scope.CONFIG: OLD})


def start(host: FakeHost) -> None:
    host.devices, host.entries = dict(BEFORE[0]), dict(BEFORE[1])


def test_an_interruption_at_the_end_lets_go_all_the_same(fake_host: FakeHost) -> None:
    released: list[str] = []

    class Host(type(fake_host)):  # type: ignore[misc]
        def monitor(self, command: str, arguments: Mapping[str, object]) -> object:
            raise KeyboardInterrupt

        def release(self, joint: Joint) -> None:
            released.append(joint.device)

    final = (Announce("net0"), Release(Joint("macvlan", "vnet0.np0")))
    with pytest.raises(KeyboardInterrupt):
        carry_out(replace(PLAN, steps=final), Host())
    assert released == ["vnet0.np0"]


@pytest.mark.parametrize("before", [None, Joint("device", "eth1")])
def test_what_is_joined_and_not_watched_over_is_parted(fake_host: FakeHost, before: Joint | None) -> None:
    done: list[str] = []

    class Host(type(fake_host)):  # type: ignore[misc]
        def join(self, device: str, joint: Joint) -> None:
            done.append(f"join {joint.device}")
            raise BlockingIOError("no process can be started")

        def rejoin(self, device: str, joint: Joint) -> None:
            done.append(f"rejoin {joint.device}")

        def part(self, device: str, joint: Joint) -> None:
            done.append(f"part {joint.device}")

    with pytest.raises(OperationError, match="no process can be started; the NIC is"):
        carry_out(replace(PLAN, steps=(Join("vnet0", Joint("device", "eth0"), before),)), Host())
    assert done == ["join eth0", "rejoin eth1" if before else "part eth0"]


def test_others_are_at_the_far_ends_of_cables() -> None:
    far, left = Joint("cable", "vnet1"), Joint("cable", "vnet0")
    moved = (Join("vnet0", far), OfOther("vm2", Join("vnet1", left)), OfOther("vm3", Part("vnet2", left)))
    assert PLAN.others == frozenset()
    assert replace(PLAN, steps=moved).others == {"vm2", "vm3"}


def test_an_end_of_a_cable_is_told_of_one_way() -> None:
    cable, device = Joint("cable", "vnet1"), Joint("device", "vnet1")
    for step in (Join, Part):
        assert "FILTER vnet0 -> vnet1" in step("vnet0", cable).describe()
        assert "FILTER vnet0 <-> vnet1" in step("vnet0", device).describe()


def test_all_goes_well(fake_host: FakeHost) -> None:
    start(fake_host)
    seen: list[str] = []
    carry_out(PLAN, fake_host, lambda step, seconds: seen.append(step.summary))
    assert fake_host.devices == {Scope.LIVE: "<new/>", Scope.CONFIG: "<new/>"}
    assert seen == [step.summary for step in STEPS]
    assert fake_host.calls[-1] == "announce-self"


def test_what_a_guest_had_goes_with_it_and_is_no_leftover(fake_host: FakeHost) -> None:
    class Host(type(fake_host)):  # type: ignore[misc]
        def add_port(self, *_: object) -> None:
            pass

        def monitor(self, command: str, arguments: Mapping[str, object]) -> object:
            if command == "netdev_del":
                raise OperationError("domain is not running")
            return {}

        def record(self, *_: object) -> None:
            raise OperationError("domain is not running")

        def release(self, joint: Joint) -> None:
            raise OperationError("the database does not answer")

    port = AddPort(Joint("port", "vnet0.np0"), OvsPort("ovs0"), "52:54:00:00:00:01", 0)
    made = Monitor("make the netdev", "netdev_add", {}, ("netdev_del", {}))
    for ended, left in ((True, "'make a port"), (False, "'make the netdev' .*'make a port")):
        host = Host()
        host.ended = ended
        with pytest.raises(OperationError, match=f"not running; could not be undone: {left}") as caught:
            carry_out(replace(PLAN, steps=(port, made, STEPS[4])), host)
        assert str(caught.value).endswith("start it, and try again" if ended else "in a known state now")


@pytest.mark.parametrize("number", range(1, len(STEPS)))
def test_a_failure_at_every_step_leaves_all_as_before(fake_host: FakeHost, number: int) -> None:
    start(fake_host)
    fake_host.fail_at = number
    with pytest.raises(OperationError) as caught:
        carry_out(PLAN, fake_host)
    assert (fake_host.devices, fake_host.entries) == BEFORE
    assert STEPS[number - 1].summary in str(caught.value)
    assert "no such luck; the NIC is in a known state now" in str(caught.value)
    assert fake_host.error is caught.value.__cause__


@pytest.mark.parametrize("number", range(1, len(STEPS)))
def test_an_interruption_at_every_step_leaves_all_as_before(fake_host: FakeHost, number: int) -> None:
    start(fake_host)
    fake_host.fail_at = number
    fake_host.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        carry_out(PLAN, fake_host)
    assert (fake_host.devices, fake_host.entries) == BEFORE


@pytest.mark.parametrize("number", range(1, 5))
def test_a_signal_that_raises_an_os_error_undoes_the_step_under_way(fake_host: FakeHost, number: int) -> None:
    class Host(type(fake_host)):  # type: ignore[misc]
        def after(self) -> None:
            if len(self.calls) == number:
                raise TimeoutError("too slow")

        def update_device(self, xml: str, scope: Scope) -> None:
            super().update_device(xml, scope)
            self.after()

        def record(self, entry: Entry, keys: Collection[str], scope: Scope) -> None:
            super().record(entry, keys, scope)
            self.after()

    host = Host()
    start(host)
    changing = tuple(step for step in STEPS if isinstance(step, (UpdateDevice, Record)))
    with pytest.raises(OperationError, match="too slow"):
        carry_out(replace(PLAN, steps=changing), host)
    assert (host.devices, host.entries) == BEFORE


def test_a_failed_announcement_is_a_warning(fake_host: FakeHost) -> None:
    start(fake_host)
    fake_host.fail_at = len(STEPS)
    with pytest.warns(UserWarning, match="to announce the NIC to its new neighbours failed: no such luck"):
        carry_out(PLAN, fake_host)
    assert fake_host.devices[Scope.LIVE] == "<new/>"


def test_a_warning_that_is_raised_keeps_nothing_from_being_let_go(fake_host: FakeHost) -> None:
    released: list[str] = []

    class Host(type(fake_host)):  # type: ignore[misc]
        def release(self, joint: Joint) -> None:
            released.append(joint.device)
            raise OperationError("no such luck")

    final = (Release(Joint("macvlan", "vnet0.np0")), Release(Joint("macvlan", "vnet0.np1")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="no such luck"):
            carry_out(replace(PLAN, steps=final), Host())
    assert released == ["vnet0.np0", "vnet0.np1"]


def test_the_first_steps_refusal_keeps_its_class(fake_host: FakeHost) -> None:
    fake_host.fail_at, fake_host.error = 1, NotFoundError("no network", hint="make one")
    with pytest.raises(NotFoundError, match="no network; the NIC is in a known state now; make one"):
        carry_out(PLAN, fake_host)
    fake_host.calls, fake_host.error = [], RefusedError.of(errno.EINVAL)
    with pytest.raises(RefusedError, match=r"the kernel refuses: .*; the NIC is in a known state now"):
        carry_out(PLAN, fake_host)


def test_the_plans_hint_is_given_when_the_failure_names_its_place(fake_host: FakeHost) -> None:
    fake_host.fail_at, fake_host.error = 3, OperationError("bridge br1 doesn't exist")
    with pytest.raises(OperationError, match=r"look at br1$"):
        carry_out(PLAN, fake_host)


def test_an_undo_that_fails_is_told_and_stops_no_other(fake_host: FakeHost) -> None:
    start(fake_host)
    broken = UpdateDevice("break", "<new/>", "<old/>", Scope.LIVE)

    class Host(type(fake_host)):  # type: ignore[misc]
        def record(self, entry: Entry, keys: frozenset[str], scope: Scope) -> None:
            super().record(entry, keys, scope)
            if entry == OLD:
                raise OperationError("the database is gone", hint="find it")

    host = Host(dict(BEFORE[0]), dict(BEFORE[1]), fail_at=3)
    plan = Plan("x", "k", Scope.LIVE, (broken, STEPS[4], STEPS[3]))
    with pytest.raises(OperationError, match=r"could not be undone: .* \(the database is gone\)"):
        carry_out(plan, host)
    assert host.devices[Scope.LIVE] == "<old/>"


def test_a_plan_prints_every_call() -> None:
    lines = str(PLAN).splitlines()
    assert lines[0] == PLAN.summary
    assert len(lines) == 1 + len(STEPS)
    assert '"execute": "announce-self"' in lines[-1]
    assert "virDomainUpdateDeviceFlags(live) <new/>" in lines[3]


def test_no_warning_when_nothing_fails(fake_host: FakeHost) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        carry_out(PLAN, fake_host)
