"""What the unit tests share: a domain, and a host that exists in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings

from nicplug_xml.errors import OperationError
from nicplug_xml.metadata import Entry
from nicplug_xml.model import Scope
from nicplug_xml.steps import Expected

# How long an example takes says what else the machine does, and nothing of what is tested.
settings.register_profile("nicplug", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nicplug")

EXTENDED = """<?xml version='1.0' encoding='utf-8'?>
<!-- a guest: "café" -->
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>vm1</name>
  <title><![CDATA[a < b]]> &amp; c&#10;</title>
  <devices>
    <interface type="bridge"   connection='deferred' trustGuestRxFilters='no'>
      <!-- where it will be -->
      <source bridge='br0'/>  <!-- behind it -->
      <mac address='52:54:00:AA:00:01'/>
      <virtualport type='openvswitch'><parameters profileid='a &amp; b'/></virtualport>
      <model type='virtio'/>
      <driver queues='4'/>
      <vlan>
        <tag id='42'/>
      </vlan>
      <backend tap='/dev/net/tun'/>
      <link state='up'/>
    </interface>
    <interface connection="deferred"><mac address='52:54:00:aa:00:02'/><alias name='ua-nic1'/></interface>
    <interface connection="attached" type='network'>
      <mac address='52:54:00:aa:00:03'/><source network='default'/>
    </interface>
    <interface type='user'><mac address='52:54:00:aa:00:04'/></interface>
  </devices>
  <qemu:commandline><qemu:arg value='-S'/></qemu:commandline>
</domain>
"""


@pytest.fixture
def extended() -> str:
    """Extended XML with an interface of every sort."""
    return EXTENDED


@dataclass
class FakeHost:
    """A `nicplug_xml.steps.Host` that notes what is done to it, and fails when it is told to."""

    devices: dict[Scope, str] = field(default_factory=dict)
    entries: dict[Scope, Entry] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    fail_at: int | None = None
    ended: bool = False
    error: BaseException = field(default_factory=lambda: OperationError("no such luck"))

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.fail_at == len(self.calls):
            raise self.error

    def update_device(self, xml: str, scope: Scope) -> None:
        self._call("update_device")
        self.devices[scope] = xml

    def record(self, entry: Entry, keys: Collection[str], scope: Scope) -> None:
        self._call("record")
        self.entries[scope] = entry

    def monitor(self, command: str, arguments: Mapping[str, object]) -> object:
        self._call(command)
        return {}

    def ensure_parking(self) -> None:
        self._call("ensure_parking")

    def require_network(self, name: str) -> None:
        self._call("require_network")

    def check(self, expected: Expected) -> None:
        self._call("check")

    def has_ended(self) -> bool:
        return self.ended

    def state(self, key: str, mark: str = "") -> str:
        return "in a known state"


@pytest.fixture
def fake_host() -> FakeHost:
    """A host in memory."""
    return FakeHost()
