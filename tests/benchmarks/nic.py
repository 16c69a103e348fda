"""What the groups share: a NIC's XML, and looking where its tap is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from nicplug_xml import interfaces
from nicplug_xml.steps import Announce

if TYPE_CHECKING:
    import libvirt


def nic_xml(mac: str, attributes: str = "connection='deferred'", children: str = "") -> str:
    """Return an ``<interface>`` of model virtio.

    :param mac: its MAC address.
    :param attributes: of the element.
    :param children: more elements in it.
    """
    return f"""<interface {attributes}>
      <mac address='{mac}'/>
      {children}
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>"""


def live_xml(dom: libvirt.virDomain, mac: str) -> str:
    """Return a NIC's element as libvirt's own live XML has it.

    :param dom: a running domain.
    :param mac: of the NIC.
    """
    from lxml import etree

    (nic,) = etree.fromstring(dom.XMLDesc()).xpath(f"devices/interface[mac/@address='{mac}']")
    return str(etree.tostring(nic, encoding="unicode", with_tail=False))


def tap(dom: libvirt.virDomain, mac: str) -> str:
    """Return the name of a NIC's tap.

    :param dom: a running domain.
    :param mac: of the NIC.
    """
    from lxml import etree

    return str(etree.fromstring(live_xml(dom, mac)).find("target").get("dev"))


def announcement(dom: libvirt.virDomain, mac: str) -> Callable[[], object]:
    """Return the bare monitor call that announces a NIC as nicplug does.

    :param dom: a running domain.
    :param mac: of the NIC.
    """
    import libvirt_qemu

    (nic,) = (nic for nic in interfaces(dom) if nic.mac == mac)
    request = json.dumps({"execute": "announce-self", "arguments": Announce(nic.alias).arguments})
    return lambda: libvirt_qemu.qemuMonitorCommand(dom, request, 0)


def require_master(device: str, bridge: str) -> None:
    """Look whether what was measured did happen.

    :raises RuntimeError: the device is not a port of the bridge.
    """
    master = os.path.basename(os.readlink(f"/sys/class/net/{device}/master"))
    if master != bridge:
        raise RuntimeError(
            f"{device} is a port of {master} and not of {bridge}: what was measured did nothing"
        )
