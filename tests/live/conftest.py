"""What the live tests share. What they check, they see from the guest, with ip, or in libvirt's own XML."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from nicplug_xml import create, define

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.plugin import GuestFactory

_numbers = itertools.count(1)

NIC = """<interface {attributes}>
  <mac address='{mac}'/>{children}
  <model type='virtio'/>
  <rom enabled='no'/>
</interface>"""

#: What differs from one look at a device to the next without anybody changing it.
_VOLATILE = ("stats", "stats64", "bridge_id", "root_id", "gc_timer", "hello_timer", "tcn_timer",
             "topology_change_timer", "hold", "message_age_timer", "state")  # fmt: skip


@pytest.fixture
def new_mac() -> Callable[[], str]:
    """A maker of MAC addresses, each a new one."""
    return lambda: f"52:54:00:11:22:{next(_numbers):02x}"


@pytest.fixture
def nic_xml() -> Callable[..., str]:
    """A maker of ``<interface>`` elements, deferred unless told otherwise."""

    def make(mac: str, children: str = "", attributes: str = "connection='deferred'") -> str:
        return NIC.format(mac=mac, children=children, attributes=attributes)

    return make


@pytest.fixture
def deferred_guest(libvirt_guest: GuestFactory, nic_xml: Callable[..., str]) -> Callable[..., Guest]:
    """A factory of running guests that are defined with nicplug, one deferred NIC for each MAC."""

    def make(*macs: str, children: str = "", transient: bool = False, timeout: float | None = 60) -> Guest:
        interfaces = "".join(nic_xml(mac, children) for mac in macs)
        return libvirt_guest(interfaces, define=create if transient else define, timeout=timeout)

    return make


def run(*command: str) -> str:
    """Run a program and return what it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def master(device: str) -> str | None:
    """Return what ``ip`` says the device is a port of."""
    (link,) = json.loads(run("ip", "-json", "link", "show", "dev", device))
    return link.get("master")


def is_isolated(device: str) -> bool:
    """Return whether ``bridge`` says the port is isolated."""
    (link,) = json.loads(run("bridge", "-json", "-details", "link", "show", "dev", device))
    return bool(link["isolated"])


def target(dom: libvirt.virDomain, mac: str) -> str:
    """Return the tap of a NIC, from libvirt's own XML."""
    from lxml import etree

    root = etree.fromstring(dom.XMLDesc())
    (device,) = root.xpath(f"devices/interface[mac/@address='{mac}']/target/@dev")
    return str(device)


def everything(dom: libvirt.virDomain) -> dict[str, object]:
    """Return the domain's XML, live and persistent, and all that ``ip``, ``bridge`` and ``tc`` know."""
    state: dict[str, object] = {"live": dom.XMLDesc()}
    if dom.isPersistent():
        state["config"] = dom.XMLDesc(2)
    state["links"] = _steady(json.loads(run("ip", "-json", "-details", "link")))
    state["ports"] = _steady(json.loads(run("bridge", "-json", "-details", "link")))
    state["tc"] = run("tc", "qdisc")
    return state


def _steady(value: object) -> object:
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in value.items() if key not in _VOLATILE}
    return [_steady(item) for item in value] if isinstance(value, list) else value
