"""What is so below a domain's XML, as it was asked of the running QEMU and of the kernel."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from nicplug_xml.frozen import Frozen
from nicplug_xml.joints import Joint


class Facts(Frozen):
    """What XML does not tell.

    :param netdevs: ids of the running QEMU's netdevs; None where no QEMU was asked: then what is recorded is
        believed.
    :param joints: what each host device of the domain's NICs is joined to, None for nothing, by the device's
        name. What is recorded is believed of a device that is not in it: it is not this host's.
    :param carriers: whether the guest sees a carrier, by what our metadata names its NIC by, where it is not
        libvirt's XML that tells.
    :param peers: the netdev that each of QEMU's NICs has now, by the NIC's id; None where QEMU was not asked.
    :param ended: ids of those netdevs whose socket was closed from the other end.
    :param astray: host devices that are no ports of the bridge that libvirt's XML has them in, each with the
        one that it is a port of instead, if any; and what our metadata names those NICs by whose taps of ours
        are no ports of their bridge, or whose macvtaps are not on their device.
    """

    netdevs: Collection[str] | None = None
    joints: Mapping[str, Joint | None] = MappingProxyType({})
    carriers: Mapping[str, bool] = MappingProxyType({})
    peers: Mapping[str, str] | None = None
    ended: Collection[str] = frozenset()
    astray: Mapping[str, str] = MappingProxyType({})


#: Of a domain that does not run, or when only the XML is to be looked at.
NOT_ASKED = Facts()
