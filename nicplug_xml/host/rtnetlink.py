"""The requests to the kernel that joining and parting take, made with the socket alone.

The import of a netlink library takes longer than all else that attaching does, and each of its requests
several times as long as one of these.

The authority is rtnetlink(7), netlink(7), tc-u32(8), tc-mirred(8), and the kernel's include/uapi/linux:
rtnetlink.h, if_link.h, net_namespace.h, pkt_cls.h, tc_act/tc_mirred.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import NamedTuple

from nicplug_xml.errors import OperationError
from nicplug_xml.host import sysfs
from nicplug_xml.host.netlink_messages import attributes_in

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWQDISC, _DELQDISC = 36, 37
_NEWTFILTER, _DELTFILTER, _GETTFILTER = 44, 45, 46
_GETNSID = 90
_ERROR, _DONE = 2, 3

_REQUEST, _ACK = 0x1, 0x4
_DUMP = 0x300
_REPLACE, _EXCLUSIVE, _CREATE = 0x100, 0x200, 0x400

_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _LINKINFO, _ALIAS = 1, 3, 4, 5, 10, 18, 20
_LINK_NAMESPACE, _TARGET_NAMESPACE = 37, 46
_NAMESPACE_ID, _NAMESPACE_FD = 1, 3
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_MACVLAN_MODE = 1
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_PORT_ISOLATED = 33

_TCA_KIND, _TCA_OPTIONS = 1, 2
_U32_CLASSID, _U32_SELECTOR, _U32_ACTION = 1, 5, 7
_ACT_KIND, _ACT_OPTIONS = 1, 2
_MIRRED_PARAMETERS = 2
_MIRRED = struct.Struct("=IIiiiiI")
_STOLEN, _EGRESS_REDIRECT = 4, 1

#: Where the filters of a device stand that see what it receives, before anybody else does, and what it sends.
_CLSACT, _INGRESS, _EGRESS = 0xFFFFFFF1, 0xFFFFFFF2, 0xFFFFFFF3
#: Which one is ours: filters of others on the same device stay, those with a lower number before ours.
_PRIORITY = 0x6E70
#: Its number in its hash table; the table's own is the kernel's choice, and depends on filters of others.
_NODE = 0x800
#: Who has made the place where it stands, as its class says, which nobody else looks at.
_WE, _OTHERS = 1, 2
_ALL_PROTOCOLS = 0x0003

_HEADER = struct.Struct("=IHHII")
_LINK_HEADER = struct.Struct("=BxHiII")
_TC_HEADER = struct.Struct("=BxxxiIII")
_ATTRIBUTE = struct.Struct("=HH")

#: Seconds to wait for those who look at what is to be deleted.
_PATIENCE = 1

_SOL_NETLINK = 270
_CAP_ACK, _EXT_ACK = 10, 11
_MESSAGE = 1
_HAS_MESSAGE = 0x200


class RefusedError(OperationError):
    """The kernel refuses a request.

    :param code: its error number (``errno``).
    """

    def __init__(self, what: str, *, hint: str = "", code: int = 0) -> None:
        super().__init__(what, hint=hint)
        self.code = code

    @classmethod
    def of(cls, code: int, said: str = "") -> RefusedError:
        """Make one of the kernel's error number.

        :param said: its own words; those that go with the number where it says nothing.
        """
        hint = "this takes root or CAP_NET_ADMIN" if code == errno.EPERM else ""
        return cls(f"the kernel refuses: {said or os.strerror(code)}", hint=hint, code=code)


class _Redirect(NamedTuple):
    """A filter that `Rtnetlink.redirect` has made.

    :param target: the index of the device that sends what comes in.
    :param maker: who has made the place where it stands.
    """

    handle: int
    target: int
    maker: int


class Rtnetlink:
    """A session with this thread's network namespace.

    Every method raises `RefusedError` when the kernel refuses.
    """

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        except OSError as error:
            sysfs.require_descriptors(error)
            raise
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._number = 0

    def close(self) -> None:
        """End the session."""
        self._socket.close()

    def flags(self, index: int) -> int:
        """Return the flags of a device as they were set, without what others need of it (netdevice(7))."""
        (reply,) = self._ask(_GETLINK, 0, _link(index))
        return int(_LINK_HEADER.unpack_from(reply)[3])

    def peer_address(self, index: int) -> str:
        """Return the MAC of the other end of a veth pair, in whatever namespace it is; nothing of no pair."""
        near = self._attributes(_link(index))
        if _LINK not in near:
            return ""
        namespace = near.get(_LINK_NAMESPACE)
        where = b"" if namespace is None else _attribute(_TARGET_NAMESPACE, namespace)
        far = self._attributes(_link(int.from_bytes(near[_LINK], sys.byteorder)) + where)
        return far.get(_ADDRESS, b"").hex(":")

    def is_peer_in(self, index: int, namespace: int) -> bool:
        """Return whether the other end of a veth pair is in a namespace, which a descriptor is of."""
        its = self._attributes(_link(index)).get(_LINK_NAMESPACE)
        (reply,) = self._ask(_GETNSID, 0, bytes(4) + _number(_NAMESPACE_FD, namespace))
        return its is not None and its == attributes_in(reply[4:]).get(_NAMESPACE_ID)

    def _attributes(self, body: bytes) -> dict[int, bytes]:
        (reply,) = self._ask(_GETLINK, 0, body)
        return attributes_in(reply[_LINK_HEADER.size :])

    def set_flags(self, index: int, flags: int, change: int) -> None:
        """Set those flags of a device that `change` has."""
        self._ask(_NEWLINK, _ACK, _link(index, flags, change))

    def set_alias(self, index: int, alias: str) -> None:
        """Set the alias of a device; an empty one for none."""
        self._ask(_NEWLINK, _ACK, _link(index) + _attribute(_ALIAS, alias.encode()))

    def set_address(self, index: int, mac: str) -> None:
        """Set the MAC of a device."""
        self._ask(_NEWLINK, _ACK, _link(index) + _mac(mac))

    def set_mtu(self, index: int, mtu: int) -> None:
        """Set the MTU of a device."""
        self._ask(_NEWLINK, _ACK, _link(index) + _number(_MTU, mtu))

    def set_master(self, index: int, master: int) -> None:
        """Make a device a port of a bridge, or of none when that is 0."""
        self._ask(_NEWLINK, _ACK, _link(index) + _number(_MASTER, master))

    def isolate(self, index: int, isolated: bool) -> None:
        """Set whether a port of a bridge reaches only ports that are not isolated."""
        data = _attribute(_INFO_SLAVE_DATA, _attribute(_PORT_ISOLATED, bytes([isolated])))
        info = _text(_INFO_SLAVE_KIND, "bridge") + data
        self._ask(_NEWLINK, _ACK, _link(index) + _attribute(_LINKINFO, info))

    def add_macvlan(self, name: str, lower: int, mode: str, mac: str, mtu: int) -> None:
        """Make a macvlan that is down, and is to get every multicast group.

        :param lower: index of the device below it.
        :param mtu: 0 for that of the device below.
        """
        data = _attribute(_INFO_DATA, _number(_MACVLAN_MODE, _MACVLAN_MODES[mode]))
        attributes = [
            _text(_IFNAME, name),
            _number(_LINK, lower),
            _mac(mac),
            _number(_MTU, mtu) if mtu else b"",
            _attribute(_LINKINFO, _text(_INFO_KIND, "macvlan") + data),
        ]
        # Once it is up, the device below would get that flag as well, and in mode passthru not be rid of it.
        header = _link(0, sysfs.IFF_ALLMULTI, sysfs.IFF_ALLMULTI)
        self._ask(_NEWLINK, _ACK | _CREATE | _EXCLUSIVE, header + b"".join(attributes))

    def delete(self, index: int) -> None:
        """Delete a device; one that is gone is fine."""
        try:
            self._ask(_DELLINK, _ACK, _link(index))
        except RefusedError as error:
            if error.code != errno.ENODEV:
                raise

    def redirect(self, index: int, target: int, *, anew: bool = False) -> None:
        """Have all that a device receives sent by another one, and by no other that it was before.

        :param anew: refuse if there is one that it was before.
        """
        maker = _WE
        try:
            self._ask(_NEWQDISC, _ACK | _CREATE | _EXCLUSIVE, _clsact(index))
        except RefusedError as error:
            if error.code != errno.EEXIST:
                raise
            maker = _OTHERS
        try:
            self._put_redirect(index, target, maker, anew)
        except BaseException:
            if maker == _WE:
                with suppress(RefusedError):
                    self._delete_clsact(index)
            raise

    def _put_redirect(self, index: int, target: int, maker: int, anew: bool) -> None:
        before = None if anew else self._redirect_of(index)
        # One key of 32 bits, none of which matters.
        selector = struct.pack("=BBBxHHhhI", 1, 0, 1, 0, 0, 0, 0, 0) + bytes(16)
        action = _MIRRED.pack(0, 0, _STOLEN, 0, 0, _EGRESS_REDIRECT, target)
        mirred = _text(_ACT_KIND, "mirred") + _attribute(_ACT_OPTIONS, _attribute(_MIRRED_PARAMETERS, action))
        options = (
            _number(_U32_CLASSID, before.maker if before else maker)
            + _attribute(_U32_ACTION, _attribute(1, mirred))
            + _attribute(_U32_SELECTOR, selector)
        )
        how, handle = (_REPLACE, before.handle) if before else (_EXCLUSIVE, _NODE)
        self._ask(_NEWTFILTER, _ACK | _CREATE | how, _filter(index, handle, options))

    def redirected(self, index: int) -> int:
        """Return the index of the device that `redirect` has all that a device receives sent by, or 0."""
        found = self._redirect_of(index)
        return found.target if found else 0

    def stop_redirect(self, index: int) -> None:
        """End what `redirect` has made, if it is there; the place of somebody else's filters stays theirs."""
        found = self._redirect_of(index)
        if found is None:
            return
        try:
            self._ask(_DELTFILTER, _ACK, _filter(index, 0))
            ways = (_traffic(index, 0, way, 0) for way in (_INGRESS, _EGRESS))
            if found.maker == _WE and not any(self._ask(_GETTFILTER, _DUMP, way) for way in ways):
                self._delete_clsact(index)
        except RefusedError as error:
            if error.code not in (errno.ENOENT, errno.EINVAL):
                raise

    def _redirect_of(self, index: int) -> _Redirect | None:
        """Return what `redirect` has made of a device, or None."""
        # Asked for one handle, the kernel would look for it among the filters of others, too.
        for message in self._ask(_GETTFILTER, _DUMP, _filter(index, 0)):
            options = attributes_in(attributes_in(message[_TC_HEADER.size :]).get(_TCA_OPTIONS, b""))
            data = options.get(_U32_ACTION, b"")
            for kind in (1, _ACT_OPTIONS, _MIRRED_PARAMETERS):
                data = attributes_in(data).get(kind, b"")
            if data:
                maker = int.from_bytes(options.get(_U32_CLASSID, b""), sys.byteorder)
                return _Redirect(_TC_HEADER.unpack_from(message)[2], _MIRRED.unpack_from(data)[-1], maker)
        return None

    def _delete_clsact(self, index: int) -> None:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self._ask(_DELQDISC, _ACK, _clsact(index))
                return
            except RefusedError as error:
                # The kernel refuses as long as anybody looks at the filters.
                if error.code != errno.EBUSY:
                    raise
            if time.monotonic() > until:
                return  # it is empty, and does nothing
            time.sleep(0.001)

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        """Make one request, and return the bodies of what the kernel answers to it.

        :param flags: with ``_ACK`` for what changes something, ``_DUMP`` for what takes several messages.
        """
        self._number += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags | _REQUEST, self._number, 0)
        self._socket.send(header + body)
        found: list[bytes] = []
        while True:
            data = self._socket.recv(1 << 16)
            while data:
                length, told, marks, number, _ = _HEADER.unpack_from(data)
                message, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
                if number != self._number:
                    continue
                if told == _ERROR:
                    _require_done(message, marks)
                    return found
                if told == _DONE:
                    return found
                found.append(message)
            if not flags & (_ACK | _DUMP):
                return found


def _require_done(message: bytes, marks: int) -> None:
    """Look at an acknowledgement (``struct nlmsgerr``).

    :raises RefusedError: it is none.
    """
    (code,) = struct.unpack_from("=i", message)
    if code == 0:
        return
    said = attributes_in(message[4 + _HEADER.size :]).get(_MESSAGE, b"") if marks & _HAS_MESSAGE else b""
    raise RefusedError.of(-code, said.rstrip(b"\0").decode(errors="replace"))


def _attribute(kind: int, data: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(size, kind) + data + bytes(-size % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _mac(mac: str) -> bytes:
    return _attribute(_ADDRESS, bytes.fromhex(mac.replace(":", "")))


def _link(index: int, flags: int = 0, change: int = 0) -> bytes:
    """Return the ``struct ifinfomsg`` of a device."""
    return _LINK_HEADER.pack(socket.AF_UNSPEC, 0, index, flags, change)


def _traffic(index: int, handle: int, parent: int, info: int) -> bytes:
    """Return the ``struct tcmsg`` of something that looks at what a device receives or sends."""
    return _TC_HEADER.pack(socket.AF_UNSPEC, index, handle, parent, info)


def _clsact(index: int) -> bytes:
    return _traffic(index, _CLSACT & 0xFFFF0000, _CLSACT, 0) + _text(_TCA_KIND, "clsact")


def _filter(index: int, handle: int, options: bytes = b"") -> bytes:
    info = _PRIORITY << 16 | socket.htons(_ALL_PROTOCOLS)
    attributes = _text(_TCA_KIND, "u32") + (_attribute(_TCA_OPTIONS, options) if options else b"")
    return _traffic(index, handle, _INGRESS, info) + attributes
