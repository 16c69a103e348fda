"""Open vSwitch, as libvirt has it: a bridge or a network with ``<virtualport type='openvswitch'>``.

Authority: libvirt's virNetDevVlanParse and virNetDevOpenvswitchAddPort.
"""

from __future__ import annotations

from nicplug_xml.document import Element, quoted
from nicplug_xml.endpoints import OvsPort
from nicplug_xml.errors import SchemaError
from nicplug_xml.model import Backend

#: The namespace (RFC 4122) of the ids that are made up.
_NAMESPACE = "5b1c5f0e-3f0a-5d0b-9c7b-6e0a3a0f7d11"

_LAST_VLAN = 4095


def backend(bridge: str, interfaceid: str | None = None) -> Backend:
    """Return the backend for a port of the Open vSwitch bridge of that name.

    :param interfaceid: what a controller knows the port by, a UUID; None has one made up.
    """
    parameters = f"<parameters interfaceid={quoted(interfaceid)}/>" if interfaceid else ""
    virtualport = f"<virtualport type='openvswitch'>{parameters}</virtualport>"
    return Backend("bridge", (f"<source bridge={quoted(bridge)}/>", virtualport))


def is_ovs(*virtualports: Element | None) -> bool:
    """Whether one of these ``<virtualport>`` elements says Open vSwitch."""
    return any(port is not None and port.attributes.get("type") == "openvswitch" for port in virtualports)


def port(bridge: str, virtualports: tuple[Element | None, ...], vlans: tuple[Element | None, ...]) -> OvsPort:
    """Return a port of that bridge.

    :param virtualports: the ``<virtualport>`` of the interface, and what it inherits from, nearest first.
    :param vlans: the ``<vlan>`` of each, likewise: the first that is there counts.
    :raises SchemaError: the interface id or the VLANs are not what they should be.
    :raises ValueError: the number of a VLAN is none.
    """
    tag, trunks, mode = _vlans(next((vlan for vlan in vlans if vlan is not None), None))
    profileid = _parameter(virtualports, "profileid")
    return OvsPort(bridge, _uuid(_parameter(virtualports, "interfaceid")), profileid, tag, trunks, mode)


def interface_id(domain: str, mac: str) -> str:
    """Return the interface id of a NIC that was given none: always the same for the same NIC.

    :param domain: the domain's UUID.
    :param mac: the NIC's MAC address in lower case.
    """
    from uuid import UUID, uuid5  # here, since it takes its time

    return str(uuid5(UUID(_NAMESPACE), f"{domain} {mac}"))


def _uuid(given: str) -> str:
    if not given:
        return ""
    from uuid import UUID

    try:
        return str(UUID(given))
    except ValueError as error:
        raise SchemaError(
            f"the interface id '{given}' is no UUID",
            hint="leave it out, or give the port's id as its controller has it",
        ) from error


def _parameter(virtualports: tuple[Element | None, ...], name: str) -> str:
    return next(
        (value for port in virtualports if port is not None and (value := port.get("parameters", name))), ""
    )


def _vlans(vlan: Element | None) -> tuple[int | None, tuple[int, ...], str]:
    """Return tag, trunks and mode of a port, as Open vSwitch's database has them."""
    tags = [child for child in vlan if child.name == "tag"] if vlan is not None else []
    if vlan is None or not tags:
        return None, (), ""
    ids = tuple(int(tag.attributes.get("id", "")) for tag in tags)
    for number in ids:
        if not 0 <= number <= _LAST_VLAN:
            raise SchemaError(f"there is no VLAN {number}", hint=f"they go from 0 to {_LAST_VLAN}")
    native = [
        (number, tag.attributes["nativeMode"])
        for number, tag in zip(ids, tags, strict=True)
        if "nativeMode" in tag.attributes
    ]
    if len(native) > 1:
        raise SchemaError("more than one VLAN is said to be the native one", hint="keep one nativeMode")
    trunk = len(ids) > 1 or vlan.attributes.get("trunk") == "yes"
    if native:
        # Open vSwitch, told of no VLANs besides the native one, has such a port trunk all there are.
        return native[0][0], ids if trunk else (), f"native-{native[0][1]}"
    return (None, ids, "") if trunk else (ids[0], (), "")
